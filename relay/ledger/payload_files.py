"""Payloads that are too large for the database: files beside it, named in the table ``payload``.

A file is written and synced before the commit that names it, so a row never names a file that is
not there. Files that no row names are left by commits that failed, and by retention; they are
removed when a receiver starts.
"""

from __future__ import annotations

import os
import secrets
import time
from contextlib import suppress
from pathlib import Path

from relay.ledger.transaction import Reader

FOLDER = "payloads"

ORPHAN_SECONDS = 3_600.0
"""Seconds after which a file that no row names belongs to no commit that is still under way."""


class PayloadFiles:
    """The files of one ledger. Blocking."""

    def __init__(self, folder: Path) -> None:
        """``folder`` is the ledger's."""
        self._folder = folder / FOLDER

    def write(self, data: bytes) -> str:
        """Return the name of a new file with ``data``, once it is on the disk. Raises OSError."""
        self._folder.mkdir(mode=0o700, exist_ok=True)
        name = f"{secrets.token_hex(16)}.zst"
        path = self._folder / name
        try:
            with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            _sync_folder(self._folder)
        except OSError:
            self.remove(name)
            raise
        return name

    def read(self, name: str) -> bytes:
        """Return what a file holds. Raises OSError."""
        return (self._folder / name).read_bytes()

    def remove(self, name: str) -> None:
        """Remove a file, if it is there."""
        with suppress(OSError):
            (self._folder / name).unlink()

    def remove_orphans(self, named: frozenset[str], now: float | None = None) -> int:
        """Remove the files that are not in ``named`` and older than an hour, and return how many
        these were. ``now`` is the time in seconds since the Unix epoch."""
        now = time.time() if now is None else now
        orphans = 0
        with suppress(FileNotFoundError), os.scandir(self._folder) as entries:
            for entry in entries:
                if entry.name in named:
                    continue
                with suppress(FileNotFoundError):
                    if now - entry.stat().st_mtime > ORPHAN_SECONDS:
                        self.remove(entry.name)
                        orphans += 1
        return orphans


async def named_files(reader: Reader) -> frozenset[str]:
    """Return the names of all files that a row names."""
    return frozenset(bytes(row["body"]).decode() for row in await reader.rows("payload_files"))


def _sync_folder(folder: Path) -> None:
    """Have the name of a new file on the disk, too (fsync(2))."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
