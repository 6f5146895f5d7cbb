"""Packs a body for the ledger: secrets redacted, compressed, a large one as a file."""

from __future__ import annotations

import asyncio
import logging
from concurrent.futures import ThreadPoolExecutor

import zstandard

from relay.errors import Malformed
from relay.ledger.intake import Payload
from relay.ledger.payload_files import PayloadFiles
from relay.providers.payloads import unwrap
from relay.receive.redact_payload import PayloadRedactor

LARGE = 262_144
"""Bytes from which a body is redacted in a thread, so that other requests do not wait for it."""

MOST_IN_ROW = 1_048_576
"""Bytes of a compressed payload in the database at most; a larger one would hold the ledger's lock
too long."""

PATIENCE = 2.0
"""Seconds that a large body may take; after them the delivery is stored without its payload."""

LEVEL = 1
"""zstd's. At 3 a push of 8 KB is 2 % smaller and takes a third longer."""

_diagnostics = logging.getLogger("relay.receive")


class PayloadPacker:
    """Packs the bodies of one receiver process."""

    def __init__(self, redactor: PayloadRedactor, files: PayloadFiles) -> None:
        self._redactor = redactor
        self._files = files
        self._compress = zstandard.ZstdCompressor(level=LEVEL).compress
        # One at a time: a large body takes many times its size while it is parsed.
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="payload")

    async def pack(self, content_type: str, body: bytes) -> Payload:
        """Return the payload of a verified body; where it cannot be stored, the reason."""
        if len(body) < LARGE:
            return self._pack(content_type, body)
        loop = asyncio.get_running_loop()
        packing = loop.run_in_executor(self._thread, self._pack_large, content_type, body)
        await asyncio.wait([packing], timeout=PATIENCE)
        if packing.done():
            return packing.result()
        packing.add_done_callback(self._discard_late)
        return _not_kept("too many large bodies came at once")

    def discard(self, payload: Payload) -> None:
        """Remove the file of a payload that was not committed."""
        if payload.codec == "file":
            self._files.remove(payload.body.decode())

    def close(self) -> None:
        """Return once no thread works any more."""
        self._thread.shutdown(wait=True, cancel_futures=True)

    def _pack(self, content_type: str, body: bytes) -> Payload:
        try:
            text = self._redactor.redact(unwrap(content_type, body))
        except Malformed as error:
            return _not_kept(error.reason)
        return Payload("zstd", self._compress(text))

    def _pack_large(self, content_type: str, body: bytes) -> Payload:
        payload = self._pack(content_type, body)
        if len(payload.body) <= MOST_IN_ROW:
            return payload
        try:
            return Payload("file", self._files.write(payload.body).encode())
        except OSError as error:
            _diagnostics.warning("a payload is not kept (%s)", error.strerror)
            return _not_kept(f"its file could not be written: {error.strerror}")

    def _discard_late(self, packing: asyncio.Future[Payload]) -> None:
        if not packing.cancelled() and packing.exception() is None:
            self.discard(packing.result())


def _not_kept(reason: str) -> Payload:
    return Payload("none", reason.encode(errors="replace"))
