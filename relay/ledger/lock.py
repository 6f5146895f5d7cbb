"""The lock of the SQLite ledger: one writer at a time over all processes, in fair turns.

SQLite's own waiting sleeps up to 100 ms at a time and starves: beside a busy worker a receiver
waited for seconds. Two flock files before ``BEGIN IMMEDIATE`` form a turnstile: a process first
takes the turn, then waits for the lock, then lets the next one take the turn. The kernel gives
both back when a process dies. The lock file says who holds it, so that a stopped process can be
named, and ended.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import msgspec

from relay.errors import LedgerUnavailable

_RECORD = 256
"""Bytes of the lock file that say who holds the lock, padded with blanks."""


class Holder(msgspec.Struct, frozen=True):
    """The process that took the lock last."""

    pid: int
    started: int
    """When it started, in clock ticks since boot (proc(5), field 22 of stat)."""
    namespace: str
    """Its namespace of process ids, as /proc/self/ns/pid says it; empty where that is not told."""


def started_at(pid: int) -> int:
    """Return when a process started, in clock ticks since boot; 0 where it is not there."""
    with suppress(OSError, ValueError, IndexError):
        text = Path(f"/proc/{pid}/stat").read_text(encoding="ascii", errors="replace")
        # The name of the program stands in brackets and may hold anything.
        return int(text.rpartition(")")[2].split()[19])
    return 0


def this_process() -> Holder:
    """Return this process, as a lock file names it."""
    namespace = ""
    with suppress(OSError):
        namespace = os.readlink("/proc/self/ns/pid")
    return Holder(os.getpid(), started_at(os.getpid()), namespace)


class WriteLock:
    """The turnstile of one process. Not for several tasks at once."""

    def __init__(self, folder: Path) -> None:
        """Open the files in ``folder``. Raises OSError."""
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC
        self._turn = os.open(folder / "ledger.turn", flags, 0o600)
        self._lock = os.open(folder / "ledger.lock", flags, 0o600)
        self._me = msgspec.json.encode(this_process()).ljust(_RECORD)
        self._waiting: asyncio.Future[None] | None = None
        self._is_wanted = False

    async def take(self, patience: float) -> None:
        """Return once this process has the lock. Raises LedgerUnavailable after ``patience``
        seconds, which names the holder."""
        if self._waiting is not None or not self._take_now():
            await self._wait(patience)
        os.pwrite(self._lock, self._me, 0)

    def release(self) -> None:
        """Let another process write."""
        fcntl.flock(self._lock, fcntl.LOCK_UN)

    def holder(self) -> Holder | None:
        """Return the process that took the lock last, if the file names one."""
        try:
            return msgspec.json.decode(os.pread(self._lock, _RECORD, 0), type=Holder)
        except (msgspec.DecodeError, OSError):
            return None

    def close(self) -> None:
        """Close the files. A thread that still waits for the lock gets it when it can, and lets
        go."""
        if self._waiting is not None:
            self._waiting.add_done_callback(lambda _: self._close_files())
        else:
            self._close_files()

    async def _wait(self, patience: float) -> None:
        if self._waiting is None:
            self._waiting = _in_thread(self._take_blocking)
            self._waiting.add_done_callback(self._let_go_unless_wanted)
        waiting, self._is_wanted = self._waiting, True
        try:
            await asyncio.wait([waiting], timeout=patience)
        except asyncio.CancelledError:
            if waiting.done():
                self._let_go(waiting)
            raise
        finally:
            self._is_wanted = False
        if not waiting.done():
            raise LedgerUnavailable(f"{self._holder_in_words()} holds the ledger's lock")
        self._waiting = None
        waiting.result()

    def _let_go_unless_wanted(self, waited: asyncio.Future[None]) -> None:
        """The thread has the lock, perhaps long after everybody stopped waiting for it."""
        if not self._is_wanted:
            self._let_go(waited)

    def _let_go(self, waited: asyncio.Future[None]) -> None:
        self._waiting = None
        if waited.exception() is None:
            self.release()

    def _take_now(self) -> bool:
        if not _try(self._turn):
            return False
        if _try(self._lock):
            fcntl.flock(self._turn, fcntl.LOCK_UN)
            return True
        fcntl.flock(self._turn, fcntl.LOCK_UN)
        return False

    def _take_blocking(self) -> None:
        fcntl.flock(self._turn, fcntl.LOCK_EX)
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX)
        finally:
            fcntl.flock(self._turn, fcntl.LOCK_UN)

    def _holder_in_words(self) -> str:
        holder = self.holder()
        return f"process {holder.pid}" if holder else "another process"

    def _close_files(self) -> None:
        os.close(self._lock)
        os.close(self._turn)


def _try(file: int) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _in_thread(wait: Callable[[], None]) -> asyncio.Future[None]:
    """Run what cannot be interrupted in a thread that does not keep the process from ending."""
    loop = asyncio.get_running_loop()
    done: asyncio.Future[None] = loop.create_future()

    def tell(error: BaseException | None) -> None:
        if not done.done():
            done.set_exception(error) if error else done.set_result(None)

    def run() -> None:
        error: BaseException | None = None
        try:
            wait()
        except OSError as raised:
            error = raised
        # The loop may have been closed meanwhile; then nobody waits.
        with suppress(RuntimeError):
            loop.call_soon_threadsafe(tell, error)

    threading.Thread(target=run, name="ledger-lock", daemon=True).start()
    return done
