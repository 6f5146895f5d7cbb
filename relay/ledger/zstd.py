"""Compressed columns of the ledger."""

from __future__ import annotations

import zstandard

_compressor = zstandard.ZstdCompressor(level=3)
_decompressor = zstandard.ZstdDecompressor()


def pack(data: bytes) -> bytes:
    """Return the data compressed. Not for several threads at once."""
    return _compressor.compress(data)


def unpack(data: bytes, most: int) -> bytes:
    """Return what was compressed, ``most`` bytes of it at most. Raises ValueError where it is
    damaged."""
    try:
        with _decompressor.stream_reader(data) as stream:
            return stream.read(most)
    except zstandard.ZstdError as error:
        raise ValueError("a compressed column is damaged") from error
