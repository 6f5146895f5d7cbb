"""How records stand in a file of the spool: each behind a mark, its length and a checksum. Pure.

Whatever happened to the bytes, every record that is whole is found: what is none is skipped up to
the next mark. A record must be UTF-8, in which no byte is 255, so that no part of it can look like
a mark.
"""

from __future__ import annotations

import struct
import zlib
from typing import NamedTuple

MARK = b"\xffrec"

_HEAD = struct.Struct(">4sII")
"""Mark, length of the record, checksum of length and record."""

MAX_RECORD = 2 * 1024 * 1024
"""Bytes of one record; a length over it is no length."""

MAX_FRAME = MAX_RECORD + _HEAD.size
"""Bytes that hold any record with what stands before it."""


class Found(NamedTuple):
    """Whole records, and what else there was."""

    records: list[bytes]
    used: int
    """Bytes that are done with; more of the file is looked for behind them."""
    damaged: int
    """Bytes of them that belong to no whole record, with a mark somewhere behind them."""
    torn: int
    """Bytes of them at the end of the file that belong to no whole record."""


def frame(record: bytes) -> bytes:
    """A record as it is written. Raises ValueError for one that could not be found again."""
    if len(record) > MAX_RECORD or b"\xff" in record:
        raise ValueError("not a record: too long, or no UTF-8")
    return _HEAD.pack(MARK, len(record), _checksum(record)) + record


def find(data: bytes, *, most: int, at_end: bool) -> Found:
    """The first records in a piece of a file, ``most`` of them at most.

    ``at_end`` says that the file ends with this piece; otherwise a piece of MAX_FRAME bytes or more
    is sure to bring the search on.
    """
    records: list[bytes] = []
    position = damaged = torn = 0
    while position < len(data) and len(records) < most:
        record = _whole(data, position)
        if record is not None:
            records.append(record)
            position += _HEAD.size + len(record)
            continue
        if not at_end and _may_go_on(data, position):
            break
        following = data.find(MARK, position + 1)
        if following >= 0:
            damaged += following - position
            position = following
        elif at_end:
            torn = len(data) - position
            position = len(data)
        else:
            # The last bytes may be the beginning of a mark.
            following = max(position + 1, len(data) - len(MARK) + 1)
            damaged += following - position
            position = following
    return Found(records, position, damaged, torn)


def _whole(data: bytes, position: int) -> bytes | None:
    if len(data) - position < _HEAD.size:
        return None
    mark, length, checksum = _HEAD.unpack_from(data, position)
    start = position + _HEAD.size
    if mark != MARK or length > MAX_RECORD or start + length > len(data):
        return None
    record = data[start : start + length]
    return record if _checksum(record) == checksum else None


def _may_go_on(data: bytes, position: int) -> bool:
    """Whether the bytes from here on are the beginning of something longer."""
    left = len(data) - position
    if left < _HEAD.size:
        return MARK.startswith(data[position : position + len(MARK)])
    mark, length, _ = _HEAD.unpack_from(data, position)
    return bool(mark == MARK and length <= MAX_RECORD and left < _HEAD.size + length)


def _checksum(record: bytes) -> int:
    return zlib.crc32(record, len(record))
