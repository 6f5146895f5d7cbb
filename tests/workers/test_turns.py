"""Turns within rates: the script on a real server, with times of its own."""

from __future__ import annotations

import functools
import heapq
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import redis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from config.model import Target
from config.values import RateLimit
from relay.store import connect_async
from workers.gate import moment
from workers.targets import overview
from workers.turns import take_turn

CALLS = "relay:calls:api"
START = 1_700_000_000.0


class Clerk:
    """Who asks for turns, one after the other."""

    def __init__(self, socket: Path, *rates: tuple[int, float], start: float = START) -> None:
        self._start = start
        self._url = f"unix://{socket}"
        self._rates = [RateLimit(*rate) for rate in rates]

    async def ask(self, owner: str, now: float, call: str = "") -> float | None:
        """When to ask again, counted from the start."""
        async with connect_async(self._url, timeout=5) as server:
            told = await take_turn(
                server,
                "api",
                self._rates,
                owner=owner,
                call=call or f"{owner}#1",
                now=self._start + now,
            )
        return None if told is None else told - self._start


@pytest.fixture
def clerk_for(server_socket: Path, store: redis.Redis) -> Callable[..., Clerk]:
    return functools.partial(Clerk, server_socket)


async def test_who_waits_is_given_a_turn_of_its_own(
    clerk_for: Callable[..., Clerk],
) -> None:
    clerk = clerk_for((2, 60))

    assert [await clerk.ask(owner, 1) for owner in "abcdef"] == [None, None, 61, 61, 121, 121]
    # Asking again before it moves nobody, and who comes later stands behind.
    assert await clerk.ask("c", 2) == 61
    assert await clerk.ask("g", 3) == 181
    assert [await clerk.ask(owner, 61) for owner in "cd"] == [None, None]


async def test_a_turn_that_comes_late_is_counted_when_it_is_used(
    clerk_for: Callable[..., Clerk],
) -> None:
    clerk = clerk_for((1, 60))
    assert [await clerk.ask(owner, 0) for owner in "abc"] == [None, 60, 120]

    assert await clerk.ask("b", 90) is None
    assert await clerk.ask("c", 120) == 150
    assert await clerk.ask("c", 150) is None


async def test_a_branch_keeps_its_turn_whoever_is_its_newest(
    clerk_for: Callable[..., Clerk],
) -> None:
    clerk = clerk_for((1, 60))
    assert await clerk.ask("other", 0) is None

    assert await clerk.ask("main", 1, "older#1") == 60
    assert await clerk.ask("main", 2, "newer#1") == 60
    assert await clerk.ask("main", 60, "newer#1") is None
    # The retry of the same deploy is another call.
    assert await clerk.ask("main", 61, "newer#2") == 120


async def test_many_that_are_late_are_spread_again(clerk_for: Callable[..., Clerk]) -> None:
    clerk = clerk_for((1, 60))
    for owner in "abcd":
        await clerk.ask(owner, 0)

    # The target was paused meanwhile, say.
    assert [await clerk.ask(owner, 900) for owner in "bcd"] == [None, 960, 1020]


async def test_a_turn_that_nobody_uses_holds_up_no_longer_than_an_interval(
    clerk_for: Callable[..., Clerk],
) -> None:
    clerk = clerk_for((1, 60))
    assert [await clerk.ask(owner, 0) for owner in ("a", "cancelled", "c")] == [None, 60, 120]

    assert await clerk.ask("c", 120) is None


async def test_who_comes_new_does_not_take_the_turn_that_somebody_is_late_for(
    clerk_for: Callable[..., Clerk],
) -> None:
    clerk = clerk_for((1, 100))
    assert [await clerk.ask(owner, 0) for owner in "ab"] == [None, 100]

    assert await clerk.ask("new", 160) == 200
    assert await clerk.ask("b", 160.5) is None
    # That is kept for a minute: nobody has been seen of those whose turn has passed by more.
    assert await clerk.ask("new", 260.5) is None
    assert await clerk.ask("c", 261) == 360.5
    assert await clerk.ask("newest", 420.6) is None


async def test_who_never_comes_is_forgotten_after_a_day(
    clerk_for: Callable[..., Clerk], store: redis.Redis
) -> None:
    clerk = clerk_for((1, 10))
    assert [await clerk.ask(owner, 0) for owner in "ab"] == [None, 10]
    for key in ("relay:turns:api", "relay:rates:api"):
        assert 86_400 < store.ttl(key) <= 86_410

    assert await clerk.ask("c", 86_409) is None
    assert store.zcard("relay:turns:api") == 1
    assert await clerk.ask("d", 86_420) is None
    assert store.zcard("relay:turns:api") == 0


async def test_all_rates_hold(clerk_for: Callable[..., Clerk], store: redis.Redis) -> None:
    clerk = clerk_for((1, 10), (3, 100))

    assert [await clerk.ask(owner, 0) for owner in "abcd"] == [None, 10, 20, 100]
    assert 0 < store.ttl(CALLS) <= 100


async def test_a_target_says_until_when_its_rate_is_used_up(
    clerk_for: Callable[..., Clerk], store: redis.Redis
) -> None:
    target = Target.model_validate({"preset": "http", "url": "http://a/", "rate": ["2/m", "3/d"]})
    start = time.time() - 30
    clerk = clerk_for((2, 60), (3, 86_400), start=start)

    def said() -> tuple[str, str]:
        [row] = overview(store, {"api": target}, "deploy-relay")
        return row.state, row.until

    async def called(owner: str, now: float) -> None:
        assert await clerk.ask(owner, now) is None

    await called("a", -80)
    await called("b", 0)
    assert said() == ("ready", "")
    await called("c", 10)
    # Of both rates the one that keeps it longest, although the other has room sooner.
    until = moment(start - 80 + 86_400)
    assert said() == (f"its rate is used up until {until}", until)
    store.zrem(CALLS, "a#1")
    assert said() == (f"its rate is used up until {moment(start + 60)}", moment(start + 60))
    store.hset("relay:target:api", "held", start + 50)
    assert said() == (
        f"its platform wants no calls until {moment(start + 50)}",
        moment(start + 60),
    )


async def test_what_is_older_than_the_longest_interval_is_forgotten(
    clerk_for: Callable[..., Clerk], store: redis.Redis
) -> None:
    clerk = clerk_for((5, 10))
    for number in range(50):
        assert await clerk.ask(str(number), number * 5) is None

    assert store.zcard(CALLS) <= 3


@settings(
    max_examples=40,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(
    st.lists(st.tuples(st.integers(1, 4), st.integers(1, 40)), min_size=1, max_size=2),
    st.lists(st.integers(0, 60), min_size=1, max_size=12),
    st.lists(st.floats(0, 25), min_size=1, max_size=7),
)
async def test_no_interval_ever_has_more_calls(
    server_socket: Path,
    store: redis.Redis,
    rates: Sequence[tuple[int, float]],
    arrivals: Sequence[int],
    lateness: Sequence[float],
) -> None:
    store.flushall()
    clerk, calls, asked = Clerk(server_socket, *rates, start=0), [], 0
    due = [(START + arrival, f"deploy-{number}") for number, arrival in enumerate(arrivals)]
    heapq.heapify(due)
    while due:
        now, owner = heapq.heappop(due)
        told = await clerk.ask(owner, now)
        asked += 1
        if told is None:
            calls.append(now)
            continue
        assert told > now
        # RQ's scheduler and a busy queue make everything late.
        heapq.heappush(due, (told + lateness[asked % len(lateness)], owner))
        assert asked < 20 * len(arrivals), "somebody is never called"

    assert len(calls) == len(arrivals)
    for most, seconds in rates:
        for first, last in zip(calls, calls[most:], strict=False):
            assert last >= first + seconds
