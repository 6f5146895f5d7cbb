"""The SQLite ledger: connections, transactions and errors. With sqlite_file.py
the only file that knows the database.

Statements run in the event loop's thread and take microseconds. Only COMMIT, which waits for the
disk, runs in another one: a thread that ran statements would have to get the interpreter's lock
back after each of them, and would hold the ledger's lock meanwhile.
"""

from __future__ import annotations

import asyncio
import functools
import re
import sqlite3
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from operator import itemgetter
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypeGuard, cast

from relay.errors import LedgerUnavailable, LedgerUnusable
from relay.ledger.lock import WriteLock
from relay.ledger.migrations import migrations
from relay.ledger.queries import growing_queries, named_queries
from relay.ledger.transaction import NO_PARAMS, Params, Row

FILE = "ledger.db"

Clock = Callable[[], int]
"""Microseconds since the Unix epoch."""

NARROW = 4
"""Columns up to which sqlite3.Row finds one by its name fast enough. It looks at one column after
the other for each name, which for fifty columns costs more than the query, so wider rows become
dicts."""

BUSY_PAUSE = 0.02
"""Seconds between two tries where a program that does not know the lock, such as sqlite3,
writes."""

OPEN_SECONDS = 10.0
"""Seconds that opening the file waits for another process that opens it."""

MOST_LOG_BYTES = 16_000_000
"""Size to which SQLite's log shrinks again."""

_PRAGMAS = (
    "PRAGMA foreign_keys = ON",
    "PRAGMA secure_delete = OFF",
    "PRAGMA temp_store = MEMORY",
    "PRAGMA cache_size = -16000",
    # At 8,000 pages the slowest commit in a thousand took 167 ms instead of 58.
    "PRAGMA wal_autocheckpoint = 1000",
    # The log grows as long as somebody reads, a backup or a person with sqlite3. Without a limit
    # it would keep that size on the disk when they have ended.
    f"PRAGMA journal_size_limit = {MOST_LOG_BYTES}",
)

_UNAVAILABLE: Mapping[int, str] = {
    sqlite3.SQLITE_FULL: "the disk is full",
    sqlite3.SQLITE_IOERR: "the disk reports an error",
    sqlite3.SQLITE_READONLY: "the file is read-only",
    sqlite3.SQLITE_BUSY: "another program writes to the file",
    sqlite3.SQLITE_LOCKED: "another program writes to the file",
    sqlite3.SQLITE_CORRUPT: "the file is damaged: run deploy-relay ledger check",
    sqlite3.SQLITE_NOTADB: "the file is damaged: run deploy-relay ledger check",
    sqlite3.SQLITE_CANTOPEN: "the file cannot be opened",
    sqlite3.SQLITE_PERM: "the file may not be opened",
    sqlite3.SQLITE_NOMEM: "there is no memory left",
    sqlite3.SQLITE_INTERRUPT: "the search took too long",
}


def system_clock() -> int:
    """Return the time in microseconds since the Unix epoch."""
    return time.time_ns() // 1_000


def unavailable(error: sqlite3.Error) -> LedgerUnavailable:
    """Return what is told of a database that refuses. It names no path."""
    return LedgerUnavailable(f"the ledger takes nothing: {reason_of(error)}")


def is_database_error(error: BaseException) -> TypeGuard[sqlite3.Error]:
    """Return whether the database or its disk is the cause, and not the work that was done."""
    return isinstance(error, sqlite3.Error) and _code(error) in _UNAVAILABLE


_known_names: dict[str, tuple[str, ...]] = {}


def _names(query: str, row: sqlite3.Row) -> tuple[str, ...]:
    """Return the names of a query's columns, which never change."""
    names = _known_names.get(query)
    if names is None:
        names = _known_names[query] = tuple(row.keys())
    return names


class SQLiteReader:
    """Named queries on one connection; see relay.ledger.transaction.Reader."""

    def __init__(self, connection: sqlite3.Connection, clock: Clock) -> None:
        self._connection = connection
        self._statements = _statements_by_name()
        self.now = clock()

    async def rows(self, query: str, params: Params = NO_PARAMS) -> list[Row]:
        """Return all rows of a named query."""
        rows = self._execute(query, params).fetchall()
        if not rows or len(rows[0]) <= NARROW:
            return rows
        names = _names(query, rows[0])
        return [dict(zip(names, row, strict=True)) for row in rows]

    async def row(self, query: str, params: Params = NO_PARAMS) -> Row | None:
        """Return the first row of a named query, if any."""
        row = self._execute(query, params).fetchone()
        if row is None or len(row) <= NARROW:
            return cast(Row | None, row)
        return dict(zip(_names(query, row), row, strict=True))

    def _execute(self, query: str, params: Params) -> sqlite3.Cursor:
        statement = self._statements[query]
        return self._connection.execute(statement.sql, statement.values(params))


class SQLiteTransaction(SQLiteReader):
    """Named queries and statements; see relay.ledger.transaction.Transaction."""

    def __init__(self, connection: sqlite3.Connection, clock: Clock) -> None:
        super().__init__(connection, clock)
        self.has_grown = False
        self.is_behind = False

    async def run(self, query: str, params: Params = NO_PARAMS) -> int:
        """Run a named statement and return how many rows it changed."""
        return self._execute(query, params).rowcount

    async def insert(self, query: str, params: Params = NO_PARAMS) -> int:
        """Run a named INSERT of one row and return its id."""
        return cast(int, self._execute(f"{query} without RETURNING", params).lastrowid)

    async def run_many(self, query: str, params: Iterable[Params]) -> None:
        """Run a named statement once for each of ``params``."""
        statement = self._statements[query]
        self.has_grown = self.has_grown or statement.grows
        self._connection.executemany(statement.sql, map(statement.values, params))

    def _execute(self, query: str, params: Params) -> sqlite3.Cursor:
        statement = self._statements[query]
        if statement.grows:
            self.has_grown = True
        return self._connection.execute(statement.sql, statement.values(params))


class Statement(NamedTuple):
    """A named query as SQLite is given it: parameters by number, which are bound several times as
    fast as parameters by name."""

    sql: str
    values: Callable[[Params], Sequence[Any]]
    """Returns the parameters in the order of their numbers."""
    grows: bool = False
    """The ledger's generation grows with it; see relay.ledger.queries.growing_queries."""


_PARAMETER = re.compile(r"(?<![:\w]):([a-z_]\w*)")

_RETURNING = re.compile(r"\s+RETURNING id\Z")


@functools.cache
def _statements_by_name() -> Mapping[str, Statement]:
    """Return all named queries, and those that return the id of a row without it, too: SQLite tells
    it anyway, and would make a table of the answer, which costs a fifth of an insert."""
    statements = {}
    for name, query in named_queries().items():
        grows = name in growing_queries()
        statements[name] = _statement(query, grows)
        if _RETURNING.search(query):
            statements[f"{name} without RETURNING"] = _statement(_RETURNING.sub("", query), grows)
    return statements


def _statement(query: str, grows: bool) -> Statement:
    names = list(dict.fromkeys(_PARAMETER.findall(query)))
    sql = _PARAMETER.sub(lambda match: f"?{names.index(match[1]) + 1}", query)
    if len(names) > 1:
        return Statement(sql, itemgetter(*names), grows)
    return Statement(sql, lambda params: [params[name] for name in names], grows)


class SQLiteWriter:
    """The one connection of a process that writes. Not for several tasks at once."""

    def __init__(
        self, folder: Path, *, full_sync: bool = True, clock: Clock = system_clock
    ) -> None:
        """Open the ledger of ``folder``. Raises LedgerUnusable and OSError."""
        self._connection = connect(folder / FILE, full_sync=full_sync)
        self._clock = clock
        self._lock = WriteLock(folder)
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="ledger-commit")
        self._hanging: asyncio.Future[None] | None = None

    async def begin(self, patience: float) -> SQLiteTransaction:
        """Return a transaction that has the lock. Raises LedgerUnavailable after ``patience``
        seconds."""
        deadline = time.monotonic() + patience
        if self._hanging is not None:
            await asyncio.wait([self._hanging], timeout=patience)
            if self._is_hanging():
                raise LedgerUnavailable("the ledger's disk does not answer")
        await self._lock.take(deadline - time.monotonic())
        while True:
            try:
                if self._connection.in_transaction:
                    # The one before could not even be rolled back.
                    self._connection.execute("ROLLBACK")
                self._connection.execute("BEGIN IMMEDIATE")
                return SQLiteTransaction(self._connection, self._clock)
            except sqlite3.Error as error:
                self._lock.release()
                if not _is_busy(error) or time.monotonic() + BUSY_PAUSE > deadline:
                    raise unavailable(error) from None
            await asyncio.sleep(BUSY_PAUSE)
            await self._lock.take(deadline - time.monotonic())

    async def commit(self, patience: float) -> None:
        """Return once the transaction is on the disk. Raises LedgerUnavailable, after ``patience``
        seconds at the latest; then it may have been committed all the same."""
        loop = asyncio.get_running_loop()
        self._hanging = committing = loop.run_in_executor(self._thread, self._finish)
        committing.add_done_callback(_look_at)
        await asyncio.wait([committing], timeout=patience)
        if self._is_hanging():
            raise LedgerUnavailable("the ledger's disk does not answer")
        try:
            committing.result()
        except sqlite3.Error as error:
            raise unavailable(error) from None

    def rollback(self) -> None:
        """Undo the transaction and let go of the lock."""
        with suppress(sqlite3.Error):
            self._connection.execute("ROLLBACK")
        self._lock.release()

    def close(self) -> None:
        """Close the connection; a COMMIT that hangs is left to itself."""
        is_hanging = self._is_hanging()
        self._thread.shutdown(wait=not is_hanging)
        if is_hanging:
            return
        self._connection.close()
        self._lock.close()

    @property
    def lock(self) -> WriteLock:
        """The lock that all writers of this machine share."""
        return self._lock

    def _is_hanging(self) -> bool:
        """Whether the last COMMIT still waits for the disk; then the lock is not free either."""
        if self._hanging is not None and self._hanging.done():
            self._hanging = None
        return self._hanging is not None

    def _finish(self) -> None:
        try:
            self._connection.execute("COMMIT")
        except sqlite3.Error:
            with suppress(sqlite3.Error):
                self._connection.execute("ROLLBACK")
            raise
        finally:
            self._lock.release()


def connect(
    file: Path, *, full_sync: bool = True, mode: Literal["rwc", "rw", "ro"] = "rw"
) -> sqlite3.Connection:
    """Return a connection to a ledger's file. Raises LedgerUnusable."""
    try:
        connection = sqlite3.connect(
            f"{file.absolute().as_uri()}?mode={mode}",
            uri=True,
            timeout=0,
            isolation_level=None,
            check_same_thread=False,
            cached_statements=512,
        )
        connection.row_factory = sqlite3.Row
        if mode != "ro":
            journal = _patiently(connection, "PRAGMA journal_mode = WAL")
            if journal != "wal":
                connection.close()
                raise LedgerUnusable(
                    f"the ledger {file} cannot be opened: its file system has no shared memory"
                )
        for pragma in _PRAGMAS:
            _patiently(connection, pragma)
        connection.execute(f"PRAGMA synchronous = {'FULL' if full_sync else 'NORMAL'}")
    except sqlite3.Error as error:
        raise LedgerUnusable(f"the ledger {file} cannot be opened: {reason_of(error)}") from None
    return connection


def schema_version(connection: sqlite3.Connection) -> int:
    """Return the number of the last migration; 0 of an empty file."""
    return int(connection.execute("PRAGMA user_version").fetchone()[0])


def migrate(file: Path) -> int:
    """Bring a ledger's file to the newest schema, or make it, readable by this user only. Return
    how many migrations ran. Blocking. Raises LedgerUnusable and OSError."""
    steps = migrations("sqlite")
    file.touch(mode=0o600, exist_ok=True)
    file.chmod(0o600)
    connection = connect(file, mode="rw")
    try:
        if schema_version(connection) == len(steps):
            return 0
        connection.execute("PRAGMA busy_timeout = 60000")
        connection.execute("BEGIN IMMEDIATE")
        version = schema_version(connection)
        if version > len(steps):
            raise LedgerUnusable(
                f"the ledger {file} has schema {version} and this release knows {len(steps)}: "
                "run the newer release"
            )
        for step in steps[version:]:
            for statement in _statements(step.sql):
                connection.execute(statement)
        connection.execute(f"PRAGMA user_version = {len(steps)}")
        connection.execute("COMMIT")
        return len(steps) - version
    except sqlite3.Error as error:
        raise LedgerUnusable(f"the ledger {file} cannot be migrated: {reason_of(error)}") from None
    finally:
        connection.close()


def _statements(sql: str) -> list[str]:
    """Split a script; unlike ``executescript`` it then runs within one transaction."""
    statements, begun = [], ""
    for line in sql.splitlines(keepends=True):
        begun += line
        if sqlite3.complete_statement(begun):
            statements.append(begun)
            begun = ""
    return statements


def _patiently(connection: sqlite3.Connection, pragma: str) -> str:
    """Run a pragma that needs the file for a moment while another process opens it, too. Return
    what it answers, if anything."""
    deadline = time.monotonic() + OPEN_SECONDS
    while True:
        try:
            row = connection.execute(pragma).fetchone()
        except sqlite3.OperationalError as error:
            if not _is_busy(error) or time.monotonic() > deadline:
                raise
            time.sleep(BUSY_PAUSE)
        else:
            return str(row[0]) if row else ""


def _is_busy(error: sqlite3.Error) -> bool:
    return _code(error) == sqlite3.SQLITE_BUSY


def _code(error: sqlite3.Error) -> int:
    """Return SQLite's primary result code; 0 where the error is the module's own."""
    return int(getattr(error, "sqlite_errorcode", 0)) & 0xFF


def reason_of(error: sqlite3.Error) -> str:
    """Return in a few words why the database refuses."""
    if getattr(error, "sqlite_errorcode", 0) == sqlite3.SQLITE_IOERR_SHMSIZE:
        # The file of the shared memory could not grow.
        return _UNAVAILABLE[sqlite3.SQLITE_FULL]
    return _UNAVAILABLE.get(_code(error), str(error))


def _look_at(done: asyncio.Future[Any]) -> None:
    # An exception that nobody looks at would be reported when it is collected.
    if not done.cancelled():
        done.exception()
