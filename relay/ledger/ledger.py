"""The ledger as other rooms use it: commit work, read, open and close.

Group commit: all work that waits at one moment goes into the next transaction, so that under load
one COMMIT serves many. Work is a function of a transaction; it uses nothing else that waits.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple, TypeVar, cast

from relay.errors import LedgerUnavailable, LedgerUnusable
from relay.group_commit import GroupCommit
from relay.ledger.file_system import refuse_network_file_system
from relay.ledger.generation import Behind, read_behind, read_mark, write_mark_file
from relay.ledger.holder import Stuck
from relay.ledger.presence import share_presence
from relay.ledger.sqlite import (
    FILE,
    Clock,
    SQLiteReader,
    SQLiteWriter,
    connect,
    is_database_error,
    migrate,
    system_clock,
    unavailable,
)
from relay.ledger.transaction import Reader, Transaction

T = TypeVar("T")

Work = Callable[[Transaction], Awaitable[T]]

READERS = 4
"""Reads of one process at a time."""

MARK_SECONDS = 1.0
"""Seconds between two writes of the mark beside the ledger."""

READ_SECONDS = 5.0
"""Seconds after which a read is broken off."""

LEAST_SECONDS = 0.3
"""Seconds that a commit gets at least, however long its work has waited for those before it."""

MOST_OF_A_RECEIVER = 256
MOST_OF_A_WORKER = 64
"""Pieces of work in one transaction at most; larger groups keep other processes waiting."""


class _Item(NamedTuple):
    since: float
    work: Work[Any]


class _Result(NamedTuple):
    value: Any
    error: Exception | None = None


class Ledger:
    """One process's access to the ledger."""

    def __init__(
        self,
        folder: Path,
        *,
        timeout: float = 3,
        most: int = MOST_OF_A_WORKER,
        full_sync: bool = True,
        clock: Clock = system_clock,
        on_holder_killed: Callable[[Stuck], None] = lambda _: None,
    ) -> None:
        """Open the ledger of ``folder``, which has been prepared. ``timeout`` is the seconds that a
        commit may take. ``on_holder_killed`` is told of a stopped process that kept the lock and
        was ended. Raises LedgerUnusable and OSError."""
        self.folder = folder
        self.clock = clock
        self.behind: Behind | None = None
        """What was noted of it when it was found to be older than a mark; as of the last commit."""
        self._timeout = timeout
        self._presence = share_presence(folder)
        self._writer = SQLiteWriter(folder, full_sync=full_sync, clock=clock)
        self._writer.lock.on_killed = on_holder_killed
        self._group: GroupCommit[_Item, _Result] = GroupCommit(self._commit, most=most)
        self._failed_at = -1.0
        self._failure: LedgerUnavailable | None = None
        self._marked_at = -MARK_SECONDS
        self._has_grown = False
        self._is_closed = False
        self._readers = ThreadPoolExecutor(READERS, thread_name_prefix="ledger-read")
        self._idle = [connect(folder / FILE, mode="ro")]
        self._glance = connect(folder / FILE, mode="ro")

    async def commit(self, work: Work[T], since: float | None = None) -> T:
        """Return what ``work`` returns, once it is on the disk.

        ``since`` is when the work began to wait, by time.monotonic(), if not now.
        Raises LedgerUnavailable where nothing may have been kept, and what ``work`` raises; then
        nothing of it was kept, and others in the same transaction are not concerned.
        """
        began = time.monotonic() if since is None else since
        result = await self._group.submit(_Item(began, work))
        if result.error is not None:
            raise result.error
        return cast(T, result.value)

    async def glance(self, read: Callable[[Reader], Awaitable[T]]) -> T:
        """Return what ``read`` returns. It runs in the event loop, so it has to be short: a few
        rows by their ids. Raises LedgerUnavailable."""
        try:
            return await read(SQLiteReader(self._glance, self.clock))
        except Exception as error:
            raise _told(error) from None

    async def read(self, read: Callable[[Reader], Awaitable[T]]) -> T:
        """Return what ``read`` returns, of one state of the ledger. It runs in a thread, and is
        broken off after READ_SECONDS. Raises LedgerUnavailable."""
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._readers, self._read, read)

    @property
    def failure(self) -> str:
        """Why the last commit was refused; empty after one that was not."""
        return str(self._failure) if self._failure else ""

    async def refresh(self) -> bool:
        """Read again whether the ledger is behind, and return it. Raises LedgerUnavailable."""
        self.behind = await self.glance(read_behind)
        return self.is_behind

    @property
    def is_behind(self) -> bool:
        """Whether nothing may be called, because the ledger went back in time; as of the last
        commit. A transaction knows it of now."""
        return self.behind is not None

    @property
    def stuck(self) -> Stuck | None:
        """The process that has kept the lock for more than 10 s while this one waits for it."""
        return self._writer.lock.stuck

    @property
    def writer(self) -> SQLiteWriter:
        """The connection that writes."""
        return self._writer

    async def close(self) -> None:
        """Return once what waits is committed or refused, and all files are closed."""
        if self._is_closed:
            return
        self._is_closed = True
        await self._group.drain()
        await self._write_mark()
        self._writer.close()
        self._readers.shutdown(wait=True)
        for connection in (*self._idle, self._glance):
            connection.close()
        os.close(self._presence)

    async def _commit(self, batch: Sequence[_Item]) -> Sequence[_Result]:
        if batch[0].since <= self._failed_at and self._failure is not None:
            # It waited while the ledger refused. If each batch that did tried again, the last
            # sender would wait for many timeouts.
            raise self._failure
        try:
            try:
                return [_Result(value) for value in await self._run(batch)]
            except LedgerUnavailable:
                raise
            except Exception as error:
                if len(batch) == 1:
                    return [_Result(None, error)]
        except LedgerUnavailable as error:
            self._fail(error)
            raise
        # One of them cannot be done. Nothing was kept, so each is done for itself.
        return [await self._run_alone(item) for item in batch]

    async def _run_alone(self, item: _Item) -> _Result:
        if item.since <= self._failed_at and self._failure is not None:
            return _Result(None, self._failure)
        try:
            [value] = await self._run([item])
        except LedgerUnavailable as error:
            # Others of its group may have been kept: it is not raised for all of them.
            self._fail(error)
            return _Result(None, error)
        except Exception as error:
            return _Result(None, error)
        return _Result(value)

    def _fail(self, error: LedgerUnavailable) -> None:
        self._failed_at, self._failure = time.monotonic(), error

    async def _run(self, batch: Sequence[_Item]) -> list[Any]:
        """Do all of a batch in one transaction."""
        now = time.monotonic()
        deadline = max(batch[0].since + self._timeout, now + LEAST_SECONDS)
        transaction = await self._writer.begin(deadline - now)
        try:
            behind = await read_behind(transaction)
            transaction.is_behind = behind is not None
            values = [await item.work(transaction) for item in batch]
            if transaction.has_grown:
                await transaction.run("grow_generation")
        except BaseException as error:
            self._writer.rollback()
            if is_database_error(error):
                raise _told(error) from None
            raise
        await self._writer.commit(max(LEAST_SECONDS, deadline - time.monotonic()))
        self._failure = None
        self.behind = behind
        self._has_grown = self._has_grown or transaction.has_grown
        if time.monotonic() - self._marked_at >= MARK_SECONDS:
            await self._write_mark()
        return values

    async def _write_mark(self) -> None:
        """Say beside the ledger how far it has come, unless a mark there is ahead of it."""
        if self._has_grown and self.behind is None:
            self._marked_at, self._has_grown = time.monotonic(), False
            with suppress(OSError, LedgerUnavailable):
                write_mark_file(self.folder, await self.glance(read_mark))

    def _read(self, read: Callable[[Reader], Awaitable[T]]) -> T:
        try:
            connection = self._idle.pop() if self._idle else connect(self.folder / FILE, mode="ro")
            deadline = time.monotonic() + READ_SECONDS
            connection.set_progress_handler(lambda: time.monotonic() > deadline, 10_000)
            try:
                connection.execute("BEGIN")
                result = _drive(read(SQLiteReader(connection, self.clock)))
                connection.execute("COMMIT")
            except BaseException:
                connection.close()
                raise
        except Exception as error:
            raise _told(error) from None
        self._idle.append(connection)
        return result


def prepare(folder: Path) -> int:
    """Make the ledger of ``folder`` or bring it to this release's schema, and return how many
    migrations ran. Blocking. Raises LedgerUnusable."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        refuse_network_file_system(folder)
        presence = share_presence(folder)
        try:
            return migrate(folder / FILE)
        finally:
            os.close(presence)
    except OSError as error:
        raise LedgerUnusable(
            f"the ledger's folder {folder} cannot be used: {error.strerror}"
        ) from None


def read_blocking(folder: Path, read: Callable[[Reader], Awaitable[T]]) -> T:
    """Return what ``read`` returns of the ledger of ``folder``, from a connection of its own.
    Blocking, READ_SECONDS at most. Raises LedgerUnavailable and LedgerUnusable."""
    connection = connect(folder / FILE, mode="ro")
    try:
        deadline = time.monotonic() + READ_SECONDS
        connection.set_progress_handler(lambda: time.monotonic() > deadline, 10_000)
        connection.execute("BEGIN")
        return _drive(read(SQLiteReader(connection, system_clock)))
    except Exception as error:
        raise _told(error) from None
    finally:
        connection.close()


def _drive(reading: Awaitable[T]) -> T:
    """Run a coroutine to its end that never waits, without an event loop."""
    steps = reading.__await__()
    try:
        next(steps)
    except StopIteration as end:
        return cast(T, end.value)
    raise RuntimeError("a read of the ledger waited for something else")


def _told(error: BaseException) -> BaseException:
    """Return what callers are told of an error in work or in a read."""
    if is_database_error(error):
        return unavailable(error)
    if isinstance(error, LedgerUnusable):
        return LedgerUnavailable("the ledger's file cannot be opened")
    return error
