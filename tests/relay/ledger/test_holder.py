"""A process that keeps the ledger's lock: named, and ended where it is stopped."""

from __future__ import annotations

import asyncio
import errno
import os
import signal
import sqlite3
import subprocess
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from relay.errors import LedgerUnavailable
from relay.ledger import holder as module
from relay.ledger import lock as lock_module
from relay.ledger.holder import (
    Holder,
    Stuck,
    end_if_stopped,
    is_locked_by,
    is_stopped,
    read_holder,
    this_process,
)
from relay.ledger.ledger import Ledger
from relay.ledger.lock import WriteLock
from relay.ledger.sqlite import FILE
from tests.harness import PATIENCE
from tests.relay.ledger.conftest import LockUser
from tests.relay.ledger.test_ledger import add, targets


@pytest.fixture
def lock(folder: Path) -> Iterator[WriteLock]:
    opened = WriteLock(folder, stuck_seconds=0.1)
    yield opened
    opened.close()


def stop(process: subprocess.Popen[str]) -> None:
    """Stop a process, and return once it is."""
    os.kill(process.pid, signal.SIGSTOP)
    os.waitid(os.P_PID, process.pid, os.WSTOPPED | os.WNOWAIT)


def named(lock: WriteLock) -> Holder:
    holder = lock.holder()
    assert holder is not None
    return holder


@pytest.mark.parametrize("deed", ["hold", "turn", "unsigned"])
async def test_a_stopped_process_that_keeps_the_lock_is_ended(
    lock: WriteLock, start: LockUser, deed: str
) -> None:
    told: list[Stuck] = []
    lock.on_killed = told.append
    process = start(deed)
    stop(process)
    await lock.take(PATIENCE)
    assert process.wait(PATIENCE) == -signal.SIGKILL
    [stuck] = told
    assert (stuck.holder.pid, stuck.is_killed) == (process.pid, True)
    assert stuck.seconds >= 0.1
    assert stuck.holder.started_at > 1_000_000_000
    assert lock.stuck is None


async def test_a_transaction_of_a_process_that_was_ended_is_rolled_back(
    folder: Path, start: LockUser, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[Stuck] = []
    ledger = Ledger(folder, timeout=PATIENCE, on_holder_killed=told.append)
    monkeypatch.setattr(ledger.writer.lock, "_stuck_seconds", 0.1)
    process = start("transaction")
    stop(process)
    await ledger.commit(add("after"))
    assert targets(folder) == ["after"]
    assert [stuck.holder.pid for stuck in told] == [process.pid]
    with sqlite3.connect(folder / FILE) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    await ledger.close()


async def test_it_is_ended_though_each_caller_waits_for_a_shorter_time(
    folder: Path, start: LockUser, monkeypatch: pytest.MonkeyPatch
) -> None:
    ledger = Ledger(folder, timeout=0.05)
    monkeypatch.setattr(ledger.writer.lock, "_stuck_seconds", 0.3)
    process = start("transaction")
    stop(process)
    refused = 0
    async with asyncio.timeout(PATIENCE):
        while True:
            try:
                await ledger.commit(add("after"))
                break
            except LedgerUnavailable:
                refused += 1
    assert refused > 0
    assert process.wait(PATIENCE) == -signal.SIGKILL
    await ledger.close()


async def test_a_process_that_runs_is_named_and_not_ended(lock: WriteLock, start: LockUser) -> None:
    process = start("hold")
    waiting = asyncio.create_task(lock.take(PATIENCE))
    for _ in range(100 * PATIENCE):
        if lock.stuck is not None:
            break
        await asyncio.sleep(0.01)
    assert lock.stuck is not None
    assert (lock.stuck.holder.pid, lock.stuck.is_killed) == (process.pid, False)
    assert process.poll() is None
    assert process.stdin is not None
    process.stdin.write("\n")
    process.stdin.flush()
    await waiting
    assert lock.stuck is None
    assert process.wait(PATIENCE) == 0


async def test_many_turns_of_one_process_are_not_one_long_one(
    lock: WriteLock, folder: Path
) -> None:
    """A busy process has the lock at each look, but never the same turn."""
    busy = WriteLock(folder)
    await busy.take(PATIENCE)
    waiting = asyncio.create_task(lock.take(PATIENCE))
    for _ in range(20):
        await asyncio.sleep(0.02)
        busy._sign(busy._lock)
        assert lock.stuck is None
    busy.release()
    await waiting
    busy.close()


async def test_a_process_that_was_stopped_before_it_signed_is_named_by_the_kernel(
    lock: WriteLock, start: LockUser
) -> None:
    await lock.take(PATIENCE)
    lock.release()
    assert named(lock).pid == os.getpid()
    process = start("unsigned")
    assert named(lock).pid == process.pid
    stop(process)
    await lock.take(PATIENCE)
    assert process.wait(PATIENCE) == -signal.SIGKILL


def test_another_namespace_or_a_pid_that_was_given_out_again_ends_nothing(
    lock: WriteLock, start: LockUser, monkeypatch: pytest.MonkeyPatch
) -> None:
    process = start("hold")
    stop(process)
    holder, file = named(lock), lock._lock
    replaced = msgspec.structs.replace
    assert not end_if_stopped(file, replaced(holder, started=holder.started + 1))
    assert not end_if_stopped(file, replaced(holder, namespace="pid:[1]"))
    assert not end_if_stopped(file, replaced(holder, namespace=""))
    assert not end_if_stopped(lock._turn, holder), "it has another lock"
    monkeypatch.setattr(os, "geteuid", lambda: 4_321)
    assert not end_if_stopped(file, holder), "it is another user's"
    monkeypatch.undo()
    assert process.poll() is None
    assert end_if_stopped(file, holder)
    assert process.wait(PATIENCE) == -signal.SIGKILL
    assert not end_if_stopped(file, holder)


def test_without_descriptors_of_processes_it_is_ended_by_its_pid(
    lock: WriteLock, start: LockUser, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(pid: int) -> int:
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))

    monkeypatch.setattr(os, "pidfd_open", refused)
    process = start("hold")
    assert not end_if_stopped(lock._lock, named(lock))
    stop(process)
    assert end_if_stopped(lock._lock, named(lock))
    assert process.wait(PATIENCE) == -signal.SIGKILL


def test_a_process_never_ends_itself_or_one_that_runs(lock: WriteLock, start: LockUser) -> None:
    assert lock._take_now()
    assert is_locked_by(lock._lock, os.getpid())
    assert not end_if_stopped(lock._lock, this_process())
    lock.release()
    assert not is_locked_by(lock._lock, os.getpid())
    process = start("hold")
    assert not end_if_stopped(lock._lock, named(lock))
    assert process.poll() is None


def test_who_is_traced_is_not_stopped(monkeypatch: pytest.MonkeyPatch) -> None:
    states: Iterator[str] = iter("TtSDZ")

    def stat(pid: int) -> tuple[str, int]:
        return next(states), 5

    monkeypatch.setattr(module, "_stat", stat)
    holder = Holder(pid=7, started=5)
    assert [is_stopped(holder) for _ in range(5)] == [True, False, False, False, False]


def test_a_file_that_names_nobody_is_no_holder(tmp_path: Path) -> None:
    for text in (b"", b"\0" * 256, b"{}".ljust(256), b'{"pid": "x"}'.ljust(256)):
        (tmp_path / "lock").write_bytes(text)
        with (tmp_path / "lock").open("rb") as file:
            assert read_holder(file.fileno()) is None


def test_ten_seconds_are_what_the_documents_say() -> None:
    assert lock_module.STUCK_SECONDS == 10
