"""The spool: a folder on this machine's disk where deliveries wait while Redis takes none.

It holds append-only files. A file belongs to the receiver that has its lock (flock(2)); the kernel
takes the lock back when that process ends, however it ends, and another receiver takes the file
over. A file is eight bytes, which say how far it has been forwarded, and then records
(relay/framing.py). It is removed when all of it has been forwarded.

All of this blocks; relay/forwarding.py calls it from threads, in which one call waits for another.
"""

from __future__ import annotations

import errno
import fcntl
import logging
import os
import threading
import time
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from relay.errors import CannotSpool, SpoolUnavailable
from relay.framing import MAX_FRAME, find, frame

SUFFIX = ".spool"

ASIDE = ".aside"
"""What a file is renamed to that has held something which could not be forwarded."""

MOST_IN_FILE = 8 * 1024 * 1024
"""Bytes after which the next file is begun, so that disk space is given back on the way."""

REMEMBERED = 30.0
"""Seconds for which a disk that refused a write is taken to refuse the next one. Whoever asks
before sending anything would otherwise never learn that it takes writes again."""

START = 8
"""Where the records begin, behind the position up to which they have been forwarded."""

_diagnostics = logging.getLogger("relay.spool")


class Batch(NamedTuple):
    """The records that come next."""

    records: list[bytes]
    last: bool
    """Whether the spool held no others when they were read."""
    file: _File | None
    end: int
    """Where in the file they end."""


class Spool:
    """The files that this process has locked, oldest first."""

    def __init__(self, folder: Path, *, max_bytes: int) -> None:
        """``max_bytes`` bounds what all processes together keep in the folder, but for a batch
        that each of them may be about to write. Raises CannotSpool."""
        self._folder = folder
        self._max_bytes = max_bytes
        self._most_in_file = min(MOST_IN_FILE, max_bytes // 8)
        self._files: deque[_File] = deque()
        self._writing: _File | None = None
        # Files of one process sort by their number, even if the clock is set back.
        self._name = f"{time.time_ns():019d}-{os.urandom(4).hex()}"
        self._made = 0
        self._broken = ""
        self._broken_until = 0.0
        self._wanted = 1
        self._lock = threading.Lock()
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            _sync_folder(folder.parent)
            _sync_folder(folder)
            if not os.access(folder, os.R_OK | os.W_OK | os.X_OK):
                raise PermissionError(0, "no right to write there")
        except OSError as error:
            raise CannotSpool(
                f"the spool {folder} cannot be used ({error.strerror}): set RELAY_DATA_DIR to a "
                "folder on a disk, or switch the spool off with RELAY_SPOOL_MAX_BYTES=0"
            ) from None

    def adopt(self) -> bool:
        """Take over the files of receivers that have ended; whether there is anything to forward.

        Files that cannot be read are left alone, and the diagnostics say so.
        """
        with self._lock:
            for path in sorted(self._folder.glob(f"*{SUFFIX}")):
                try:
                    file = _File.take_over(path)
                except OSError as error:
                    _diagnostics.error("the spool file %s: %s", path, error.strerror)
                    continue
                if file is not None:
                    self._files.append(file)
            return any(file.done < file.end for file in self._files)

    def append(self, records: Sequence[bytes]) -> None:
        """Return once the records are on the disk, all of them. Raises SpoolUnavailable."""
        data = b"".join(map(frame, records))
        with self._lock:
            try:
                self._wanted = len(data)
                full = self._full()
                if full:
                    raise SpoolUnavailable(full)
                self._file_to_write().append(data)
            except OSError as error:
                # What an error of fsync leaves of a file cannot be known (fsync(2)): no more of it.
                self._writing = None
                self._drop_empty()
                self._broken_until = time.monotonic() + REMEMBERED
                self._broken = f"the spool cannot be written ({error.strerror})"
                raise SpoolUnavailable(self._broken) from None
            self._broken_until, self._wanted = 0.0, 1

    def read(self, most: int) -> Batch:
        """The oldest records. They stay until they are forgotten. Raises OSError."""
        with self._lock:
            while self._files:
                file = self._files[0]
                records, end = file.read(most)
                if records:
                    last = end == file.end and len(self._files) == 1
                    return Batch(records, last, file, end)
                self._remove(file)
            return Batch([], last=True, file=None, end=0)

    def forget(self, batch: Batch, *, aside: bool = False) -> None:
        """Its records are not needed any more. With ``aside`` they could not be forwarded, and
        their file is kept for somebody to look at. Raises OSError."""
        file = batch.file
        if file is None:
            return
        with self._lock:
            file.aside = file.aside or aside
            file.forget(batch.end)
            if file.done == file.end:
                self._remove(file)

    def trouble(self) -> str:
        """Why the spool would take nothing, or not what it was given last; or an empty string."""
        with self._lock:
            try:
                broken = time.monotonic() < self._broken_until
                return self._broken if broken else self._full()
            except OSError as error:
                return f"the spool cannot be read ({error.strerror})"

    def close(self) -> None:
        """Leave what there is to the next receiver."""
        with self._lock:
            while self._files:
                self._files.popleft().close()
            self._writing = None

    def _full(self) -> str:
        sizes = 0
        with os.scandir(self._folder) as entries:
            for entry in entries:
                if entry.name.endswith(SUFFIX):
                    # Another process may remove its file at this moment.
                    with suppress(FileNotFoundError):
                        sizes += entry.stat().st_size
        full = sizes + self._wanted > self._max_bytes
        return f"the spool is full ({sizes} bytes)" if full else ""

    def _file_to_write(self) -> _File:
        file = self._writing
        if file is None or file.end >= self._most_in_file:
            file = None
            while file is None:
                self._made += 1
                file = _File.create(self._folder / f"{self._name}-{self._made:08d}{SUFFIX}")
            self._files.append(file)
            _sync_folder(self._folder)
            self._writing = file
        return file

    def _drop_empty(self) -> None:
        """Remove the file that was made for what was refused, or each refusal of a full disk would
        leave one, and leave it open."""
        if self._files and self._files[-1].end == START:
            with suppress(OSError):
                self._remove(self._files[-1])

    def _remove(self, file: _File) -> None:
        self._files.remove(file)
        if self._writing is file:
            self._writing = None
        try:
            if file.aside:
                aside = file.path.with_suffix(ASIDE)
                file.path.rename(aside)
                _diagnostics.error(
                    "not all of a spool file could be forwarded; it is kept: %s", aside
                )
            else:
                file.path.unlink(missing_ok=True)
        finally:
            file.close()


class _File:
    """One locked file."""

    def __init__(self, path: Path, number: int) -> None:
        self.path = path
        self._number = number
        self.end = max(START, os.fstat(number).st_size)
        """Where the next record is written. What may lie behind it was never acknowledged."""
        done = int.from_bytes(os.pread(number, START, 0), "big")
        self.done = done if START <= done <= self.end else START
        """Up to where it has been forwarded."""
        self.aside = False
        self._warned = 0

    @classmethod
    def create(cls, path: Path) -> _File | None:
        """A new file, unless another process was faster to lock it."""
        return cls._lock(path, os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600))

    @classmethod
    def take_over(cls, path: Path) -> _File | None:
        """A file that nobody has locked."""
        try:
            number = os.open(path, os.O_RDWR)
        except FileNotFoundError:
            return None
        return cls._lock(path, number)

    @classmethod
    def _lock(cls, path: Path, number: int) -> _File | None:
        try:
            fcntl.flock(number, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # Whoever had the lock may have removed the file after it was opened here.
            if os.fstat(number).st_nlink:
                return cls(path, number)
        except BlockingIOError:
            pass
        except OSError:
            os.close(number)
            raise
        os.close(number)
        return None

    def append(self, data: bytes) -> None:
        """Write and sync. Raises OSError; then nothing of it counts as written."""
        try:
            written = 0
            while written < len(data):
                written += os.pwrite(self._number, data[written:], self.end + written)
            os.fsync(self._number)
        except OSError:
            with suppress(OSError):
                os.ftruncate(self._number, self.end)
            raise
        self.end += len(data)

    def read(self, most: int) -> tuple[list[bytes], int]:
        """The records that come next, and where they end; none at the end of the file."""
        position = self.done
        while position < self.end:
            data = os.pread(self._number, min(MAX_FRAME, self.end - position), position)
            if not data:
                raise OSError(errno.EIO, "a spool file has become shorter")
            found = find(data, most=most, at_end=position + len(data) >= self.end)
            self._warn(position, found.damaged, found.torn)
            position += found.used
            if found.records:
                return found.records, position
        return [], position

    def forget(self, done: int) -> None:
        """Note that everything before this position has been forwarded."""
        self.done = done
        # It is not synced: should it get lost, Redis knows the records by their receipts. For the
        # same reason it may fail, as it does on a full disk that never writes in place.
        with suppress(OSError):
            os.pwrite(self._number, done.to_bytes(START, "big"), 0)

    def close(self) -> None:
        """Give the lock back."""
        os.close(self._number)

    def _warn(self, position: int, damaged: int, torn: int) -> None:
        if damaged + torn and position >= self._warned:
            self._warned = position + 1
            # A torn end is what a power cut leaves of a record that was not acknowledged yet.
            self.aside = self.aside or bool(damaged)
            _diagnostics.warning(
                "the spool file %s has %d bytes from %d on that are no whole record: skipped",
                self.path,
                damaged + torn,
                position,
            )


def _sync_folder(folder: Path) -> None:
    """Names of new files are on the disk once their folder is (fsync(2))."""
    number = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(number)
    finally:
        os.close(number)
