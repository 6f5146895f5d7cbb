"""The lock of the ledger between real processes: fair turns, and holders that die."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from relay.errors import LedgerUnavailable
from relay.ledger.holder import read_holder
from relay.ledger.lock import WriteLock
from tests.harness import PATIENCE
from tests.relay.ledger.conftest import LockUser

GREEDY = 20
"""Turns that the test tries to take while another process waits."""


@pytest.fixture
def lock(folder: Path) -> Iterator[WriteLock]:
    opened = WriteLock(folder)
    yield opened
    opened.close()


async def is_in_line(pid: int, file: Path) -> None:
    """Return once the kernel says that a process waits for a lock file."""
    await asyncio.to_thread(_wait_until_in_line, pid, file)


def _wait_until_in_line(pid: int, file: Path) -> None:
    end, deadline = f":{file.stat().st_ino} ", time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        locks = Path("/proc/locks").read_text(encoding="ascii").splitlines()
        if any("->" in line and f" {pid} " in line and end in line for line in locks):
            return
        time.sleep(0.001)
    raise AssertionError(f"process {pid} does not wait for {file}")


async def test_who_waits_is_next_however_eager_the_holder_is(
    lock: WriteLock, start: LockUser, folder: Path
) -> None:
    await lock.take(PATIENCE)
    other = start("once")
    await is_in_line(other.pid, folder / "ledger.lock")
    turns = ""
    for _ in range(GREEDY):
        lock.release()
        await lock.take(PATIENCE)
        with (folder / "order").open("a", encoding="ascii") as order:
            order.write("A")
        turns = (folder / "order").read_text(encoding="ascii")
    assert turns == "B" + "A" * GREEDY


async def test_the_holder_is_named_when_patience_ends(lock: WriteLock, start: LockUser) -> None:
    holder = start("hold")
    with pytest.raises(LedgerUnavailable, match=f"process {holder.pid} holds the ledger's lock"):
        await lock.take(0.05)
    named = lock.holder()
    assert named is not None
    assert (named.pid, named.namespace) == (holder.pid, os.readlink("/proc/self/ns/pid"))
    assert named.started > 0


async def test_a_killed_process_gives_the_lock_back(lock: WriteLock, start: LockUser) -> None:
    holder = start("hold")
    waiting = asyncio.create_task(lock.take(PATIENCE))
    await asyncio.sleep(0)
    holder.kill()
    await waiting
    lock.release()


async def test_a_process_killed_while_it_has_the_turn_gives_it_back(
    lock: WriteLock, start: LockUser
) -> None:
    holder = start("turn")
    with pytest.raises(LedgerUnavailable, match=f"process {holder.pid} holds the ledger's lock"):
        await lock.take(0.05)
    holder.kill()
    await lock.take(PATIENCE)


async def test_a_lock_that_comes_when_patience_has_ended_is_given_back(
    lock: WriteLock, start: LockUser, folder: Path
) -> None:
    holder = start("hold")
    with pytest.raises(LedgerUnavailable):
        await lock.take(0.05)
    await is_in_line(os.getpid(), folder / "ledger.lock")
    holder.kill()
    # Its thread gets the lock now, and nobody in this process waits any more.
    other = start("once")
    assert await asyncio.to_thread(other.wait, PATIENCE) == 0


async def test_a_cancelled_waiter_leaves_no_lock_behind(
    lock: WriteLock, start: LockUser, folder: Path
) -> None:
    holder = start("hold")
    waiting = asyncio.create_task(lock.take(PATIENCE))
    await is_in_line(os.getpid(), folder / "ledger.lock")
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    holder.kill()
    other = start("once")
    assert await asyncio.to_thread(other.wait, PATIENCE) == 0
    await lock.take(PATIENCE)


async def test_patience_that_ends_in_the_moment_of_the_lock_keeps_it(
    lock: WriteLock, folder: Path
) -> None:
    """The task is woken by its clock, finds the lock taken, and goes on with it."""
    waiting: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    lock._waiting = waiting
    waiting.add_done_callback(lock._let_go_unless_wanted)
    task = asyncio.create_task(lock.take(0))
    await asyncio.sleep(0)
    assert lock._take_now()
    asyncio.get_running_loop().call_later(0, waiting.set_result, None)
    await task
    await asyncio.sleep(0)
    other = WriteLock(folder)
    with pytest.raises(LedgerUnavailable):
        await other.take(0)
    other.close()


async def test_a_thread_that_outlives_its_loop_keeps_nothing(start: LockUser, folder: Path) -> None:
    holder = start("hold")

    async def give_up() -> None:
        lock = WriteLock(folder)
        with pytest.raises(LedgerUnavailable):
            await lock.take(0)
        await is_in_line(os.getpid(), folder / "ledger.lock")
        lock.close()

    await asyncio.to_thread(asyncio.run, give_up())
    holder.kill()
    other = start("once")
    assert await asyncio.to_thread(other.wait, PATIENCE) == 0


async def test_a_stopped_holder_is_named_and_what_waits_goes_on_after_it(
    lock: WriteLock, start: LockUser
) -> None:
    holder = start("hold")
    os.kill(holder.pid, signal.SIGSTOP)
    with pytest.raises(LedgerUnavailable, match=f"process {holder.pid} "):
        await lock.take(0.05)
    waiting = asyncio.create_task(lock.take(PATIENCE))
    await asyncio.sleep(0)
    os.kill(holder.pid, signal.SIGCONT)
    assert holder.stdin is not None
    holder.stdin.write("\n")
    holder.stdin.flush()
    await waiting


async def test_a_full_disk_names_no_wrong_holder(
    lock: WriteLock, monkeypatch: pytest.MonkeyPatch
) -> None:
    await lock.take(PATIENCE)
    assert lock.holder() is not None
    lock.release()

    def full(*_: object) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "pwrite", full)
    await lock.take(PATIENCE)
    assert read_holder(lock._lock) is None
    holder = lock.holder()
    assert holder is not None
    # The kernel knows, where the file cannot say.
    assert holder.pid == os.getpid()
    lock.release()
    assert lock.holder() is None
