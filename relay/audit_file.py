"""The audit file: the lines of the audit once more, as a chain (relay/chain.py) that many write.

Processes of one machine share a file. Whoever writes holds a lock (flock) for one append and one
note of the new end in ``<file>.head``, which is signed if there is a key. What a killed process
left unfinished is mended by the next one, and a line of the chain says so.
"""

from __future__ import annotations

import errno
import fcntl
import logging
import os
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal, NamedTuple

import msgspec
import orjson

from config.settings import Settings
from relay.audit_head import (
    HEAD_BYTES,
    Head,
    finished_files,
    head_path,
    lock_path,
    read_head,
    vouched,
)
from relay.chain import START, Link, chained, digest, link_of, seal

Fsync = Literal["never", "interval", "always"]

SYNC_INTERVAL = 1.0
"""Seconds after which ``interval`` syncs what was written, at the latest with the next line."""

MOST_WAITING = 20_000
"""Lines kept while the file takes none; later ones are lost, and the diagnostics say so."""

PATIENCE = 1.0
"""Seconds that a flush waits, once, for a process that keeps the lock."""

TRIES_AGAIN = 0.01
"""Seconds that the flushes after it wait."""

LOOK = 0.00005
"""Seconds between two looks at the lock."""

TORN_KEPT = 1_024
"""Bytes of an unfinished line that are kept in the line which says that it was mended."""

_MODE = 0o600

_diagnostics = logging.getLogger("relay.audit_file")


class Policy(NamedTuple):
    """How a file is kept."""

    max_bytes: int
    """Bytes after which a new file is begun; so it is with each UTC day."""
    keep: float
    """Seconds for which a finished file is kept; 0: for ever."""
    fsync: Fsync
    key: bytes | None
    """What the head is signed with."""


class AuditFile:
    """One process's access to the file. Every method raises OSError."""

    def __init__(self, path: Path, policy: Policy) -> None:
        self._path = path.absolute()
        self._lock_path = str(lock_path(self._path))
        self._head_path = str(head_path(self._path))
        self._policy = policy
        self._lines: list[bytes] = []
        self._opened_by = 0
        self._synced = 0.0
        self._unsynced = False
        self._stalled = False
        self._known: tuple[Head, int] | None = None
        self._lock = self._head = self._file = -1

    def add(self, line: bytes) -> None:
        """Take a line, a JSON object, for the next ``flush``."""
        if len(self._lines) < MOST_WAITING:
            self._lines.append(line)
        else:
            _diagnostics.error("an audit line is lost: %s takes none", self._path)

    def flush(self) -> None:
        """Write all lines. Those that cannot be written stay for the next time."""
        if not self._lines:
            return
        try:
            self._flush()
        except OSError as error:
            raise OSError(error.errno, error.strerror, str(self._path)) from None

    def _flush(self) -> None:
        with self._locked():
            head = self._current()
            now = datetime.now(UTC)
            if head.first and (
                head.size >= self._policy.max_bytes or head.day != f"{now:%Y-%m-%d}"
            ):
                head = self._rotate(head)
            head = self._append(head, self._lines, now)
            self._lines = []
            self._note(head)
        if self._policy.fsync == "always":
            os.fdatasync(self._file)
        elif self._policy.fsync == "interval":
            self._sync_at_intervals()

    def sync(self) -> None:
        """Have the disk take what was written, if the policy is to sync at all."""
        if self._unsynced and self._opened_by == os.getpid():
            os.fdatasync(self._file)
            self._unsynced = False

    def _sync_at_intervals(self) -> None:
        self._unsynced = True
        now = time.monotonic()
        if now - self._synced >= SYNC_INTERVAL:
            self._synced = now
            self.sync()

    @contextmanager
    def _locked(self) -> Iterator[None]:
        # flock belongs to the open file, which a forked child would share with its parent.
        if self._opened_by != os.getpid():
            self._path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            self._lock = self._head = self._file = -1
            self._known, self._opened_by = None, os.getpid()
            self._open_both()
        self._wait_for_lock()
        # Who waited may hold a file that was taken away meanwhile, and with it nobody's lock.
        while self._open_both():
            self._wait_for_lock()
        try:
            yield
        finally:
            fcntl.flock(self._lock, fcntl.LOCK_UN)

    def _open_both(self) -> bool:
        """Open lock and head where those that are open are not the ones that have the names."""
        if _is_at(self._lock, self._lock_path) and _is_at(self._head, self._head_path):
            return False
        for number in (self._lock, self._head):
            if number >= 0:
                os.close(number)
        self._lock = self._head = -1
        self._lock = _open(self._lock_path, os.O_RDWR)
        self._head = _open(self._head_path, os.O_RDWR)
        return True

    def _wait_for_lock(self) -> None:
        """Take the lock; raises BlockingIOError where a stopped process, say, keeps it."""
        until = time.monotonic() + (TRIES_AGAIN if self._stalled else PATIENCE)
        while True:
            try:
                fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if time.monotonic() >= until:
                    self._stalled = True
                    raise
                time.sleep(LOOK)
            else:
                self._stalled = False
                return

    def _current(self) -> Head:
        """How the chain stands; mends what a killed process left."""
        try:
            found = os.stat(self._path)
        except FileNotFoundError:
            found = None
        if self._known and found is not None:
            head, inode = self._known
            if inode == found.st_ino and head.size == found.st_size:
                return head
        if self._file >= 0:
            os.close(self._file)
        self._file = _open(self._path, os.O_RDWR | os.O_APPEND)
        size = os.fstat(self._file).st_size
        noted = read_head(os.pread(self._head, HEAD_BYTES, 0))
        head = noted or Head(*START, 0, 0, "")
        proven = self._is_proven(noted)
        if noted is None and not size and not finished_files(self._path):
            # So that from the first line on a head that is missing was taken away.
            self._note(head)
            proven = True
        if size != head.size:
            head = self._mend(head, size)
        return head if proven else self._say_unproven(head, noted)

    def _is_proven(self, noted: Head | None) -> bool:
        key = self._policy.key
        return key is None or (noted is not None and vouched(noted, key))

    def _say_unproven(self, head: Head, noted: Head | None) -> Head:
        """A head that the key does not vouch for must not be signed as if it did."""
        now = datetime.now(UTC)
        line: dict[str, object] = {
            "event": "audit.unproven",
            "head": "unsigned" if noted else "missing",
        }
        head = self._append(head, [_line(line, now)], now)
        self._note(head)
        return head

    def _mend(self, head: Head, size: int) -> Head:
        if not size and self._was_rotated(head):
            return Head(head.seq, head.hash, 0, 0, "")
        missing = max(0, head.size - size)
        start = head.size if size > head.size else 0
        if missing:
            # What is missing stays missing in the chain; only an unfinished line is cut off.
            data = os.pread(self._file, size, 0)
            good = data.rfind(b"\n") + 1
            torn = data[good:]
        else:
            data = os.pread(self._file, size - start, start)
            head, good = _follow(head, data)
            torn = data[good:]
        if torn:
            os.ftruncate(self._file, start + good)
        head = msgspec.structs.replace(head, size=start + good)
        if not head.size:
            # Its name, once it is finished, is that of its own first line.
            head = msgspec.structs.replace(head, first=0, day="")
        if not torn and not missing:
            return head
        _diagnostics.warning(
            "the audit file was mended: %d bytes torn, %d missing", len(torn), missing
        )
        now = datetime.now(UTC)
        line = {
            "event": "audit.mended",
            "torn_bytes": len(torn),
            "torn": torn[:TORN_KEPT].decode(errors="replace"),
            "missing_bytes": missing,
        }
        head = self._append(head, [_line(line, now)], now)
        self._note(head)
        return head

    def _was_rotated(self, head: Head) -> bool:
        """Whether a process was killed between renaming the file and noting that."""
        try:
            return self._finished(head).stat().st_size == head.size
        except FileNotFoundError:
            return False

    def _finished(self, head: Head) -> Path:
        return self._path.with_name(f"{self._path.stem}-{head.first:012}{self._path.suffix}")

    def _append(self, head: Head, lines: Sequence[bytes], now: datetime) -> Head:
        end, linked = head.end, []
        for line in lines:
            written, end = chained(line, end)
            linked.append(written)
        data = b"\n".join(linked) + b"\n"
        try:
            _write_all(self._file, data)
        except OSError:
            # Half a line must not stand before the next one.
            with suppress(OSError):
                os.ftruncate(self._file, head.size)
            raise
        return Head(
            seq=end.seq,
            hash=end.hash,
            size=head.size + len(data),
            first=head.first or head.seq + 1,
            day=head.day if head.first else f"{now:%Y-%m-%d}",
        )

    def _note(self, head: Head) -> None:
        key = self._policy.key
        signed = msgspec.structs.replace(head, signature=seal(key, head.end) if key else "")
        os.pwrite(self._head, msgspec.json.encode(signed).ljust(HEAD_BYTES), 0)
        self._known = (head, os.fstat(self._file).st_ino)

    def _rotate(self, head: Head) -> Head:
        finished = self._finished(head)
        if finished.exists():
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST))
        if self._policy.fsync != "never":
            os.fdatasync(self._file)
        os.rename(self._path, finished)
        os.close(self._file)
        self._file = _open(self._path, os.O_RDWR | os.O_APPEND)
        head = Head(head.seq, head.hash, 0, 0, "")
        self._note(head)
        return self._drop(head) if self._policy.keep else head

    def _drop(self, head: Head) -> Head:
        """Delete what is kept for long enough. The chain says where it begins from then on."""
        files = finished_files(self._path)
        latest = time.time() - self._policy.keep
        for file, following in zip(files, [*files[1:], None], strict=True):
            if file.stat().st_mtime >= latest:
                break
            until = head.end if following is None else _beginning(following)
            if until is None:
                break
            now = datetime.now(UTC)
            line = {
                "event": "audit.dropped",
                "file": file.name,
                "until_seq": until.seq,
                "until_hash": until.hash,
            }
            head = self._append(head, [_line(line, now)], now)
            self._note(head)
            file.unlink()
        return head


def audit_file(settings: Settings) -> AuditFile | None:
    """The file that the settings name."""
    if settings.audit_file is None:
        return None
    key = settings.audit_key
    policy = Policy(
        settings.audit_max_bytes,
        settings.audit_keep,
        settings.audit_fsync,
        key.get_secret_value().encode() if key else None,
    )
    return AuditFile(settings.audit_file, policy)


def _follow(head: Head, data: bytes) -> tuple[Head, int]:
    """The head after all lines of ``data`` that go on with the chain, and how far those reach."""
    good = 0
    while (end := data.find(b"\n", good)) >= 0:
        line = data[good:end]
        link = link_of(line)
        if link is None or (head.seq and link != Link(head.seq + 1, head.hash)):
            break
        head = msgspec.structs.replace(
            head,
            seq=link.seq,
            hash=digest(line),
            first=head.first or link.seq,
            day=head.day or f"{datetime.now(UTC):%Y-%m-%d}",
        )
        good = end + 1
    return head, good


def _beginning(file: Path) -> Link | None:
    """What the first line of a file was written after."""
    with file.open("rb") as lines:
        link = link_of(lines.readline().rstrip(b"\n"))
    return None if link is None else Link(link.seq - 1, link.hash)


def _line(entry: dict[str, object], now: datetime) -> bytes:
    return orjson.dumps({**entry, "level": "warning", "at": now}, option=orjson.OPT_UTC_Z)


def _is_at(number: int, path: str) -> bool:
    """Whether an open file is still the one with this name."""
    try:
        return number >= 0 and os.path.samestat(os.fstat(number), os.stat(path))
    except FileNotFoundError:
        return False


def _open(path: Path | str, flags: int) -> int:
    return os.open(path, flags | os.O_CREAT | os.O_CLOEXEC, _MODE)


def _write_all(file: int, data: bytes) -> None:
    written = os.write(file, data)
    while written < len(data):
        more = os.write(file, data[written:])
        if not more:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        written += more
