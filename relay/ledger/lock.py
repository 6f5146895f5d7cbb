"""The lock of the SQLite ledger: one writer at a time over all processes, in fair turns.

SQLite's own waiting sleeps up to 100 ms at a time and starves: beside a busy worker a receiver
waited for seconds. Two flock files before ``BEGIN IMMEDIATE`` form a turnstile: a process first
takes the turn, then waits for the lock, then lets the next one take the turn. The kernel gives
both back when a process dies. Both files say who holds them, so that a stopped process can be
named, and ended (relay/ledger/holder.py).
"""

from __future__ import annotations

import asyncio
import fcntl
import itertools
import os
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from queue import SimpleQueue

import msgspec

from relay.errors import LedgerUnavailable
from relay.ledger.holder import (
    RECORD_BYTES,
    Holder,
    Stuck,
    end_if_stopped,
    find_holder,
    this_process,
    write_holder,
)

STUCK_SECONDS = 10.0
"""Seconds after which a process that keeps the lock is named, and ended if it is stopped."""

LOOK_SECONDS = 1.0
"""Seconds between two looks at who keeps the lock."""


class WriteLock:
    """The turnstile of one process. Not for several tasks at once."""

    def __init__(self, folder: Path, *, stuck_seconds: float = STUCK_SECONDS) -> None:
        """Open the files in ``folder``. Raises OSError."""
        self._turn = _open(folder / "ledger.turn")
        self._lock = _open(folder / "ledger.lock")
        self._me = this_process()
        self._turns = itertools.count(1)
        self._waiter = _Waiter()
        self._stuck_seconds = stuck_seconds
        self._waiting: asyncio.Future[None] | None = None
        self._is_wanted = False
        self._is_closed = False
        self._blocked_by = self._turn
        self._timer: asyncio.TimerHandle | None = None
        self._looked_at: tuple[Holder, float] | None = None
        self.stuck: Stuck | None = None
        """Who has kept the lock for too long while this process waits for it."""
        self.on_killed: Callable[[Stuck], None] = lambda _: None
        """Is told of each process that was ended."""

    async def take(self, patience: float) -> None:
        """Return once this process has the lock. Raises LedgerUnavailable after ``patience``
        seconds, which names the holder."""
        try:
            if self._waiting is not None or not self._take_now():
                await self._wait(patience)
        except OSError as error:
            raise LedgerUnavailable(f"the ledger's lock fails: {error.strerror}") from None

    def release(self) -> None:
        """Let another process write."""
        fcntl.flock(self._lock, fcntl.LOCK_UN)

    def holder(self) -> Holder | None:
        """Return the process that took the lock last, if the file names one."""
        return find_holder(self._lock)

    def close(self) -> None:
        """Close the files. A thread that still waits for the lock gets it when it can, and lets
        go."""
        self._is_closed = True
        if self._waiting is None:
            self._close_files()

    async def _wait(self, patience: float) -> None:
        if self._waiting is None:
            self._waiting = self._waiter.run(self._take_blocking, self._abandon)
            self._waiting.add_done_callback(self._let_go_unless_wanted)
            self._waiting.add_done_callback(self._stop_looking)
            self._looked_at = None
            self._look_later()
        waiting, self._is_wanted = self._waiting, True
        try:
            await asyncio.wait([waiting], timeout=max(0.0, patience))
        except asyncio.CancelledError:
            if waiting.done():
                self._let_go(waiting)
            raise
        finally:
            self._is_wanted = False
        if not waiting.done():
            raise LedgerUnavailable(f"{self._holder_in_words()} holds the ledger's lock")
        self._waiting = self.stuck = None
        waiting.result()

    def _let_go_unless_wanted(self, waiting: asyncio.Future[None]) -> None:
        """The thread has the lock, perhaps long after the last task stopped waiting for it."""
        # A task that was woken before this has the lock already and waits for nothing.
        if self._waiting is waiting and not self._is_wanted:
            self._let_go(waiting)

    def _let_go(self, waiting: asyncio.Future[None]) -> None:
        self._waiting = self.stuck = None
        if waiting.exception() is None:
            self.release()
        if self._is_closed:
            self._close_files()

    def _look_later(self) -> None:
        loop = asyncio.get_running_loop()
        self._timer = loop.call_later(min(LOOK_SECONDS, self._stuck_seconds), self._look)

    def _stop_looking(self, _: asyncio.Future[None]) -> None:
        if self._timer is not None:
            self._timer.cancel()

    def _look(self) -> None:
        """Note who keeps the lock for too long, and end that process if it is stopped."""
        if self._is_closed:
            return
        self._look_later()
        file, now = self._blocked_by, time.monotonic()
        holder = find_holder(file)
        if holder is None or self._looked_at is None or self._looked_at[0] != holder:
            self._looked_at = None if holder is None else (holder, now)
            self.stuck = None
            return
        seconds = now - self._looked_at[1]
        if seconds < self._stuck_seconds:
            return
        was_killed = self.stuck is not None and self.stuck.is_killed
        is_killed = was_killed or end_if_stopped(file, holder)
        self.stuck = Stuck(holder, seconds, is_killed)
        if is_killed and not was_killed:
            self.on_killed(self.stuck)

    def _take_now(self) -> bool:
        if not _try(self._turn):
            return False
        try:
            if not _try(self._lock):
                return False
        finally:
            fcntl.flock(self._turn, fcntl.LOCK_UN)
        self._sign(self._lock)
        return True

    def _take_blocking(self) -> None:
        self._blocked_by = self._turn
        fcntl.flock(self._turn, fcntl.LOCK_EX)
        self._sign(self._turn)
        self._blocked_by = self._lock
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX)
        finally:
            fcntl.flock(self._turn, fcntl.LOCK_UN)
        self._sign(self._lock)

    def _abandon(self) -> None:
        """The thread has the lock, and the event loop that wanted it is gone."""
        self.release()
        if self._is_closed:
            self._close_files()

    def _sign(self, file: int) -> None:
        write_holder(file, msgspec.structs.replace(self._me, turn=next(self._turns)))

    def _holder_in_words(self) -> str:
        holder = find_holder(self._blocked_by)
        return f"process {holder.pid}" if holder else "another process"

    def _close_files(self) -> None:
        self._waiter.close()
        os.close(self._lock)
        os.close(self._turn)


def _open(file: Path) -> int:
    number = os.open(file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    with suppress(OSError):
        # So that the holder can be named when the disk is full. macOS does not have it.
        if os.fstat(number).st_size < RECORD_BYTES and hasattr(os, "posix_fallocate"):
            os.posix_fallocate(number, 0, RECORD_BYTES)
    return number


def _try(file: int) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


class _Waiter:
    """A thread for what cannot be interrupted, which does not keep the process from ending. It is
    one for all waits: starting a thread for each would cost four times as much as the wait."""

    def __init__(self) -> None:
        self._jobs: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        self._has_begun = False

    def run(self, wait: Callable[[], None], abandon: Callable[[], None]) -> asyncio.Future[None]:
        """Run ``wait`` in the thread. Where the event loop is closed meanwhile, ``abandon`` what
        it got."""
        loop = asyncio.get_running_loop()
        done: asyncio.Future[None] = loop.create_future()

        def finish(error: BaseException | None) -> None:
            if not done.done():
                done.set_exception(error) if error else done.set_result(None)

        def job() -> None:
            error: BaseException | None = None
            try:
                wait()
            except OSError as raised:
                error = raised
            try:
                loop.call_soon_threadsafe(finish, error)
            except RuntimeError:
                if error is None:
                    abandon()

        if not self._has_begun:
            self._has_begun = True
            threading.Thread(target=self._work, name="ledger-lock", daemon=True).start()
        self._jobs.put(job)
        return done

    def close(self) -> None:
        """Have the thread end after what it waits for."""
        self._jobs.put(None)

    def _work(self) -> None:
        while (job := self._jobs.get()) is not None:
            job()
