"""The rate of a source and the budget of bodies."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.http.limits import FREE, ByteBudget, TokenBucket

pauses = st.lists(st.floats(0, 3, allow_nan=False), max_size=200)


@given(count=st.integers(1, 20), seconds=st.sampled_from([1.0, 60.0]), pauses=pauses)
def test_never_more_than_twice_the_count_in_any_interval(
    count: int, seconds: float, pauses: list[float]
) -> None:
    bucket, now, taken = TokenBucket(count, seconds), 1000.0, []
    for pause in pauses:
        now += pause
        if bucket.take(now) == 0:
            taken.append(now)
    for start in taken:
        within = [moment for moment in taken if start <= moment < start + seconds]
        assert len(within) <= 2 * count


@given(count=st.integers(1, 20), pauses=pauses)
def test_whoever_waits_as_long_as_told_gets_one(count: int, pauses: list[float]) -> None:
    bucket, now = TokenBucket(count, 10), 0.0
    for pause in pauses:
        now += pause
        seconds = bucket.take(now)
        assert 0 <= seconds <= 10 / count + 1e-9
        if seconds:
            now += seconds + 1e-6
            assert bucket.take(now) == 0


def test_a_burst_passes_and_then_one_after_the_other() -> None:
    bucket = TokenBucket(3, 6)

    assert [bucket.take(0) for _ in range(4)] == [0, 0, 0, 2]
    assert [bucket.take(now) for now in (1, 2, 2, 100, 100, 100, 100)] == [1, 0, 2, 0, 0, 0, 2]


def test_a_clock_that_stands_still_gives_nothing() -> None:
    bucket = TokenBucket(1, 1)

    assert [bucket.take(5), bucket.take(4), bucket.take(4)] == [0, 1, 1]


@given(
    limit=st.integers(1, 10 * FREE),
    steps=st.lists(st.tuples(st.integers(0, 4), st.integers(0, 5 * FREE)), max_size=60),
)
def test_shares_never_exceed_the_budget_and_all_of_it_comes_back(
    limit: int, steps: list[tuple[int, int]]
) -> None:
    budget = ByteBudget(limit)
    shares = [budget.share() for _ in range(5)]
    sizes = [0] * 5
    for number, more in steps:
        if shares[number].grow(sizes[number] + more):
            sizes[number] += more
        assert budget.held == sum(max(0, size - FREE) for size in sizes) <= limit
    for share in shares:
        share.release()
        share.release()
    assert budget.held == 0


@pytest.mark.parametrize(("size", "fits"), [(0, True), (FREE + 5, True), (FREE + 6, False)])
def test_what_fits(size: int, *, fits: bool) -> None:
    budget = ByteBudget(10)
    budget.share().grow(FREE + 5)

    assert budget.fits(size) is fits


def test_small_bodies_are_read_though_the_budget_is_used_up() -> None:
    budget = ByteBudget(1)
    assert budget.share().grow(FREE + 1)

    assert budget.share().grow(FREE)
    assert not budget.share().grow(FREE + 1)
