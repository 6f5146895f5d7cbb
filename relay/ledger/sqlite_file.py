"""The SQLite ledger's file as a whole: check it, copy it while processes run, put a copy back.

Beside sqlite.py this is the only file that knows the database.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path

import msgspec

from relay.errors import LedgerUnusable
from relay.ledger.migrations import migrations
from relay.ledger.presence import alone
from relay.ledger.queries import named_queries
from relay.ledger.sqlite import FILE, connect, reason_of, schema_version

MOST_FAULTS = 20
"""Faults of each kind that a check tells of."""

_HEADER = b"SQLite format 3\0"
"""What each SQLite database begins with: https://www.sqlite.org/fileformat.html"""

_SIDE_FILES = ("", "-wal", "-shm")
"""SQLite's files of one database, by what follows its name."""


class Report(msgspec.Struct, frozen=True):
    """What a check found."""

    file: str
    bytes: int
    schema: int
    """The number of its last migration."""
    newest_schema: int
    """That of this release."""
    faults: tuple[str, ...]
    counts: dict[str, int]
    """Rows of the most important tables; empty where they cannot be counted."""

    @property
    def is_sound(self) -> bool:
        """Whether nothing is wrong with it."""
        return not self.faults


def check_file(file: Path, *, is_quick: bool = False) -> Report:
    """Return what is wrong with a ledger's file, and what is in it. A quick check does not compare
    indexes with their tables. Raises LedgerUnusable where it is not there or no database."""
    if not file.is_file():
        raise LedgerUnusable(f"there is no ledger {file}")
    if not _is_database(file):
        raise LedgerUnusable(f"{file} is no SQLite database: it is damaged, or another file")
    with closing(connect(file, mode="ro")) as connection, _told(file):
        if not _is_ledger(connection):
            raise LedgerUnusable(f"{file} is a database, but no ledger")
        faults = _faults(connection, is_quick)
        counts: dict[str, int] = {}
        size = file.stat().st_size
        with suppress(sqlite3.Error):
            # While processes run, most of a young ledger is in its write-ahead log.
            size = connection.execute(named_queries()["ledger_bytes"]).fetchone()["file"]
            rows = connection.execute(named_queries()["count_rows"]).fetchall()
            counts = {row["name"]: row["number"] for row in rows}
        return Report(
            file=str(file),
            bytes=size,
            schema=schema_version(connection),
            newest_schema=len(migrations("sqlite")),
            faults=tuple(faults),
            counts=counts,
        )


def back_up(folder: Path, goal: Path) -> int:
    """Copy the ledger of ``folder`` to a new file as it is at one moment, while other processes
    write to it. Return the copy's bytes. Raises LedgerUnusable."""
    source = folder / FILE
    if not source.is_file():
        raise LedgerUnusable(f"there is no ledger {source}")
    _copy(source, goal)
    report = check_file(goal, is_quick=True)
    if not report.is_sound:
        goal.unlink(missing_ok=True)
        raise LedgerUnusable(f"the ledger {source} is damaged: {report.faults[0]}")
    return report.bytes


def restore(folder: Path, backup: Path) -> Path | None:
    """Put a backup in the place of the ledger of ``folder``, which no process may have open. Return
    where the ledger that was there is kept now, if there was one. Raises LedgerUnusable."""
    report = check_file(backup)
    if not report.is_sound:
        raise LedgerUnusable(f"{backup} is damaged and is not restored: {report.faults[0]}")
    if report.schema > report.newest_schema:
        raise LedgerUnusable(
            f"{backup} has schema {report.schema} and this release knows {report.newest_schema}: "
            "run the newer release"
        )
    with _usable(folder), alone(folder):
        new = folder / f"{FILE}.new"
        new.unlink(missing_ok=True)
        _copy(backup, new)
        aside = _set_aside(folder)
        new.rename(folder / FILE)
        _sync(folder)
    return aside


def _set_aside(folder: Path) -> Path | None:
    file = folder / FILE
    if not file.exists():
        return None
    aside = folder / f"{FILE}.before-{datetime.now(UTC):%Y%m%dT%H%M%S.%fZ}"
    for ending in _SIDE_FILES:
        with suppress(FileNotFoundError):
            # SQLite finds these by the name of the database.
            Path(f"{file}{ending}").rename(f"{aside}{ending}")
    return aside


def _copy(source: Path, goal: Path) -> None:
    try:
        os.close(os.open(goal, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
    except FileExistsError:
        raise LedgerUnusable(f"{goal} exists already and is not overwritten") from None
    except OSError as error:
        raise LedgerUnusable(f"{goal} cannot be made: {error.strerror}") from None
    try:
        with (
            _told(source),
            closing(connect(source, mode="ro")) as reading,
            closing(sqlite3.connect(goal)) as writing,
        ):
            # In one step: in several, each commit of another process would begin it anew.
            reading.backup(writing)
            # One file, without a -wal beside it.
            writing.execute("PRAGMA journal_mode = DELETE")
        _sync(goal)
        _sync(goal.absolute().parent)
    except BaseException:
        goal.unlink(missing_ok=True)
        raise


def _is_database(file: Path) -> bool:
    """Return whether a file begins as a SQLite database does; an empty one is one, too."""
    try:
        with file.open("rb") as opened:
            return opened.read(len(_HEADER)) in (_HEADER, b"")
    except OSError:
        # SQLite says why it cannot be read.
        return True


def _is_ledger(connection: sqlite3.Connection) -> bool:
    tables = connection.execute("PRAGMA table_list").fetchall()
    return {"ledger", "delivery", "deploy"} <= {row["name"] for row in tables}


def _faults(connection: sqlite3.Connection, is_quick: bool) -> list[str]:
    check = "quick_check" if is_quick else "integrity_check"
    try:
        rows = connection.execute(f"PRAGMA {check}({MOST_FAULTS})").fetchall()
        faults = [str(row[0]) for row in rows if row[0] != "ok"]
        broken = connection.execute("PRAGMA foreign_key_check").fetchmany(MOST_FAULTS)
    except sqlite3.DatabaseError as error:
        return [reason_of(error)]
    return faults + [
        f"row {row['rowid']} of {row['table']} names a row of {row['parent']} that is not there"
        for row in broken
    ]


@contextmanager
def _told(file: Path) -> Iterator[None]:
    try:
        yield
    except sqlite3.Error as error:
        raise LedgerUnusable(f"{file} cannot be read: {reason_of(error)}") from None


@contextmanager
def _usable(folder: Path) -> Iterator[None]:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        yield
    except OSError as error:
        raise LedgerUnusable(
            f"the ledger's folder {folder} cannot be used: {error.strerror}"
        ) from None


def _sync(path: Path) -> None:
    number = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(number)
    finally:
        os.close(number)
