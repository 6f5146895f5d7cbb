"""Group commit: order, company, failures and waiters that gave up."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from relay.group_commit import GroupCommit


class Ledger:
    """A commit that is released by hand and keeps the batches it was given."""

    def __init__(self) -> None:
        self.batches: list[list[int]] = []
        self.gate = asyncio.Event()

    async def commit(self, items: Sequence[int]) -> Sequence[int]:
        self.batches.append(list(items))
        await self.gate.wait()
        if -1 in items:
            raise ConnectionError("gone")
        return [item * 10 for item in items]


async def test_what_arrives_during_a_commit_shares_the_next_one() -> None:
    ledger = Ledger()
    group = GroupCommit(ledger.commit, most=3)
    results = [group.submit(1)]
    await asyncio.sleep(0)
    results += [group.submit(n) for n in range(2, 7)]
    ledger.gate.set()
    assert await asyncio.gather(*results) == [10, 20, 30, 40, 50, 60]
    assert ledger.batches == [[1], [2, 3, 4], [5, 6]]


async def test_a_failed_commit_fails_its_batch_and_no_other() -> None:
    ledger = Ledger()
    ledger.gate.set()
    group = GroupCommit(ledger.commit, most=2)
    first, second, third = group.submit(-1), group.submit(1), group.submit(2)
    for result in (first, second):
        with pytest.raises(ConnectionError):
            await result
    assert await third == 20


async def test_an_item_whose_waiter_gave_up_is_left_out() -> None:
    ledger = Ledger()
    group = GroupCommit(ledger.commit, most=8)
    first = group.submit(1)
    await asyncio.sleep(0)
    second, third = group.submit(2), group.submit(3)
    second.cancel()
    ledger.gate.set()
    await group.drain()
    assert first.result() == 10
    assert third.result() == 30
    assert ledger.batches == [[1], [3]]


async def test_drain_waits_for_all_and_a_group_can_be_used_again() -> None:
    ledger = Ledger()
    group = GroupCommit(ledger.commit, most=1)
    results = [group.submit(n) for n in (1, 2)]
    draining = asyncio.ensure_future(group.drain())
    await asyncio.sleep(0)
    assert not draining.done()
    ledger.gate.set()
    await draining
    assert [result.result() for result in results] == [10, 20]
    assert len(group) == 0
    assert await group.submit(3) == 30
