"""Group commit, reads, and what callers are told when the ledger takes nothing."""

from __future__ import annotations

import asyncio
import os
import signal
import sqlite3
import threading
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from relay.errors import LedgerUnavailable, LedgerUnusable
from relay.ledger import ledger as ledger_module
from relay.ledger.ledger import Ledger, prepare
from relay.ledger.sqlite import FILE, SQLiteWriter, Statement
from relay.ledger.transaction import Reader, Transaction
from tests.harness import PATIENCE
from tests.relay.ledger.conftest import LockUser


def add(name: str) -> Callable[[Transaction], Awaitable[str]]:
    """Work that adds a target."""

    async def work(tx: Transaction) -> str:
        await tx.run("insert_target", {"name": name})
        return name

    return work


def fail(name: str) -> Callable[[Transaction], Awaitable[str]]:
    """Work that adds a target and then cannot go on."""

    async def work(tx: Transaction) -> str:
        await tx.run("insert_target", {"name": name})
        raise KeyError(name)

    return work


def targets(folder: Path) -> list[str]:
    """The names of all targets, in the order in which they were added."""
    with sqlite3.connect(folder / FILE) as connection:
        return [name for (name,) in connection.execute("SELECT name FROM target ORDER BY id")]


class Commits:
    """Counts the transactions of a ledger."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.count = 0
        finish = SQLiteWriter._finish

        def counted(writer: SQLiteWriter) -> None:
            self.count += 1
            finish(writer)

        monkeypatch.setattr(SQLiteWriter, "_finish", counted)


class HangingDisk:
    """A connection whose COMMIT waits until the disk answers again."""

    def __init__(self, ledger: Ledger) -> None:
        self.answers = threading.Event()
        self._connection = ledger.writer._connection
        ledger.writer._connection = self  # type: ignore[assignment]

    def execute(self, sql: str, *params: Any) -> sqlite3.Cursor:
        if sql == "COMMIT":
            assert self.answers.wait(PATIENCE)
        return self._connection.execute(sql, *params)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._connection, name)


async def test_what_waits_goes_into_one_transaction_in_its_order(
    ledger: Ledger, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    commits = Commits(monkeypatch)
    names = [f"target {number}" for number in range(10)]
    first, *others = await asyncio.gather(*(ledger.commit(add(name)) for name in names))
    assert [first, *others] == targets(folder) == names
    assert commits.count == 1


async def test_a_group_has_an_upper_bound(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    commits = Commits(monkeypatch)
    ledger = Ledger(folder, most=4)
    await asyncio.gather(*(ledger.commit(add(f"target {number}")) for number in range(10)))
    await ledger.close()
    assert (len(targets(folder)), commits.count) == (10, 3)


async def test_work_that_fails_harms_no_other_of_its_group(ledger: Ledger, folder: Path) -> None:
    results = await asyncio.gather(
        ledger.commit(add("a")),
        ledger.commit(fail("b")),
        ledger.commit(add("c")),
        ledger.commit(fail("d")),
        return_exceptions=True,
    )
    assert [str(result) for result in results] == ["a", "'b'", "c", "'d'"]
    assert isinstance(results[1], KeyError)
    assert targets(folder) == ["a", "c"]
    with pytest.raises(KeyError):
        await ledger.commit(fail("alone"))
    assert ledger.failure == ""


async def test_a_statement_that_is_wrong_concerns_only_its_own_work(
    ledger: Ledger, folder: Path
) -> None:
    async def broken(tx: Transaction) -> None:
        await tx.run("insert_attempt", {"deploy": 7, "number": 1, "now": 0})

    results = await asyncio.gather(
        ledger.commit(broken), ledger.commit(add("a")), return_exceptions=True
    )
    assert isinstance(results[0], sqlite3.IntegrityError)
    assert targets(folder) == ["a"]


async def test_a_cancelled_waiter_that_has_not_begun_is_left_out(
    ledger: Ledger, folder: Path
) -> None:
    disk = HangingDisk(ledger)
    first = asyncio.create_task(ledger.commit(add("first")))
    await asyncio.sleep(0)
    second = asyncio.create_task(ledger.commit(add("second")))
    third = asyncio.create_task(ledger.commit(add("third")))
    await asyncio.sleep(0)
    second.cancel()
    disk.answers.set()
    assert (await first, await third) == ("first", "third")
    assert second.cancelled()
    assert targets(folder) == ["first", "third"]


async def test_a_waiter_cancelled_during_its_commit_harms_no_other(
    ledger: Ledger, folder: Path
) -> None:
    disk = HangingDisk(ledger)
    first = asyncio.create_task(ledger.commit(add("first")))
    second = asyncio.create_task(ledger.commit(add("second")))
    await asyncio.sleep(0.05)
    first.cancel()
    disk.answers.set()
    assert await second == "second"
    assert await ledger.commit(add("third")) == "third"
    assert targets(folder) == ["first", "second", "third"]


async def test_a_commit_that_hangs_is_refused_in_time_and_the_next_ones_too(folder: Path) -> None:
    ledger = Ledger(folder, timeout=0.3)
    disk = HangingDisk(ledger)
    since = time.monotonic()
    with pytest.raises(LedgerUnavailable, match="the ledger's disk does not answer"):
        await ledger.commit(add("hangs"))
    with pytest.raises(LedgerUnavailable, match="the ledger's disk does not answer"):
        await ledger.commit(add("waits"))
    assert time.monotonic() - since < 4
    assert ledger.failure == "the ledger's disk does not answer"
    disk.answers.set()
    await ledger.commit(add("later"))
    assert ledger.failure == ""
    # Whoever was refused does not know whether it was kept.
    assert targets(folder) == ["hangs", "later"]
    await ledger.close()


async def test_a_ledger_whose_commit_hangs_can_be_closed(folder: Path) -> None:
    ledger = Ledger(folder, timeout=0.1)
    disk = HangingDisk(ledger)
    with pytest.raises(LedgerUnavailable):
        await ledger.commit(add("hangs"))
    await ledger.close()
    disk.answers.set()


async def test_what_waited_for_a_ledger_that_refuses_does_not_wait_again(folder: Path) -> None:
    ledger = Ledger(folder, timeout=0.5, most=1)
    disk = HangingDisk(ledger)
    since = time.monotonic()
    results = await asyncio.gather(
        *(ledger.commit(add(f"target {number}")) for number in range(20)), return_exceptions=True
    )
    assert {type(result) for result in results} == {LedgerUnavailable}
    assert time.monotonic() - since < 5
    disk.answers.set()
    await ledger.commit(add("later"))
    await ledger.close()


async def test_of_a_group_that_was_split_those_that_were_kept_are_told_so(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ledger = Ledger(folder)
    finish = SQLiteWriter._finish
    done: list[int] = []

    def full_after_one(writer: SQLiteWriter) -> None:
        if done:
            writer.rollback()
            error = sqlite3.OperationalError("database or disk is full")
            error.sqlite_errorcode = sqlite3.SQLITE_FULL
            raise error
        done.append(1)
        finish(writer)

    monkeypatch.setattr(SQLiteWriter, "_finish", full_after_one)
    results = await asyncio.gather(
        ledger.commit(fail("a")),
        ledger.commit(add("b")),
        ledger.commit(add("c")),
        ledger.commit(add("d")),
        return_exceptions=True,
    )
    assert [type(result) for result in results] == [
        KeyError,
        str,
        LedgerUnavailable,
        LedgerUnavailable,
    ]
    assert targets(folder) == ["b"]
    monkeypatch.undo()
    await ledger.close()


async def test_an_outside_writer_is_waited_for_and_then_told_of(folder: Path) -> None:
    ledger = Ledger(folder, timeout=0.3)
    outside = sqlite3.connect(folder / FILE, isolation_level=None)
    outside.execute("BEGIN IMMEDIATE")
    since = time.monotonic()
    with pytest.raises(LedgerUnavailable, match="another program writes to the file"):
        await ledger.commit(add("refused"))
    assert time.monotonic() - since < 3
    waiting = asyncio.create_task(ledger.commit(add("later")))
    await asyncio.sleep(0.05)
    outside.execute("COMMIT")
    assert await waiting == "later"
    assert targets(folder) == ["later"]
    outside.close()
    await ledger.close()


async def test_an_outside_writer_does_not_keep_the_lock_from_others(folder: Path) -> None:
    ledger, other = Ledger(folder, timeout=1), Ledger(folder, timeout=1)
    outside = sqlite3.connect(folder / FILE, isolation_level=None)
    outside.execute("BEGIN IMMEDIATE")
    results = await asyncio.gather(
        ledger.commit(add("a")), other.commit(add("b")), return_exceptions=True
    )
    assert {str(result) for result in results} == {
        "the ledger takes nothing: another program writes to the file"
    }
    outside.execute("ROLLBACK")
    outside.close()
    await asyncio.gather(ledger.commit(add("a")), other.commit(add("b")))
    assert sorted(targets(folder)) == ["a", "b"]
    await ledger.close()
    await other.close()


async def test_a_process_killed_in_its_transaction_leaves_nothing_of_it(
    ledger: Ledger, folder: Path, start: LockUser
) -> None:
    holder = start("transaction")
    waiting = asyncio.create_task(ledger.commit(add("after")))
    await asyncio.sleep(0)
    holder.kill()
    assert await waiting == "after"
    assert targets(folder) == ["after"]


async def test_a_process_stopped_in_its_transaction_is_named_in_time(
    folder: Path, start: LockUser
) -> None:
    ledger = Ledger(folder, timeout=0.3)
    holder = start("transaction")
    os.kill(holder.pid, signal.SIGSTOP)
    with pytest.raises(LedgerUnavailable, match=f"process {holder.pid} holds the ledger's lock"):
        await ledger.commit(add("refused"))
    holder.kill()
    assert await ledger.commit(add("after")) == "after"
    assert targets(folder) == ["after"]
    await ledger.close()


async def test_a_read_sees_one_state_and_is_broken_off_when_it_takes_too_long(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    endless = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT max(i) FROM n"
    monkeypatch.setattr(ledger_module, "READ_SECONDS", 0.05)

    async def read(reader: Reader) -> Any:
        reader._statements = {"endless": Statement(endless, lambda _: [])}  # type: ignore[attr-defined]
        return await reader.row("endless")

    with pytest.raises(LedgerUnavailable, match="the search took too long"):
        await ledger.read(read)
    monkeypatch.setattr(ledger_module, "READ_SECONDS", PATIENCE)

    async def quick(reader: Reader) -> int:
        return len(await reader.rows("last_ids"))

    assert [await ledger.read(quick) for _ in range(10)] == [4] * 10
    assert await ledger.glance(quick) == 4


async def test_a_read_may_not_wait_for_anything_else(ledger: Ledger) -> None:
    async def read(reader: Reader) -> None:
        await asyncio.sleep(0)

    with pytest.raises(RuntimeError, match="waited for something else"):
        await ledger.read(read)


async def test_reads_go_on_while_a_transaction_is_open(ledger: Ledger) -> None:
    transaction = await ledger.writer.begin(1)
    await transaction.run("insert_target", {"name": "not yet"})

    async def name(reader: Reader) -> Any:
        return await reader.row("target_by_name", {"name": "not yet"})

    assert await ledger.read(name) is None
    await ledger.writer.commit(1)
    assert await ledger.read(name) is not None


def test_a_folder_that_cannot_be_made_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(LedgerUnusable, match=r"the ledger's folder .*/file/data cannot be used: "):
        prepare(tmp_path / "file" / "data")


async def test_closing_keeps_what_waits(folder: Path) -> None:
    ledger = Ledger(folder)
    waiting = [asyncio.create_task(ledger.commit(add(f"target {n}"))) for n in range(5)]
    await asyncio.sleep(0)
    await ledger.close()
    assert len(await asyncio.gather(*waiting)) == 5
    assert len(targets(folder)) == 5
