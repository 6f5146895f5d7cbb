"""Whether a deploy may be called: the policy, asked without Redis and without waiting."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from config.model import Target
from config.policies import Breaker
from workers.gate import (
    Ahead,
    Expired,
    Go,
    Newest,
    Request,
    Standing,
    Superseded,
    Wait,
    decide,
    stays_open,
)

NOW = 1_700_000_000.0
"""A Tuesday, 22:13 UTC."""
TIMES = st.floats(NOW - 1_000, NOW + 1_000) | st.just(0.0)


def target(**keys: Any) -> Target:
    keys = {"debounce": {"quiet": 10, "cap": 30}, **keys}
    return Target.model_validate({"preset": "http", "url": "http://a/", **keys})


@pytest.mark.parametrize(
    ("newest", "standing", "expected"),
    [
        (None, Standing(), Go()),
        (Newest("it"), Standing(failures=99), Go()),
        (Newest("newer"), Standing(held=NOW + 9), Superseded("newer")),
        (Newest("newer"), Standing(paused=1), Superseded("newer")),
        (Newest("it"), Standing(paused=1, held=NOW + 9), Wait("paused", None, NOW + 60)),
        (None, Standing(held=NOW + 9), Wait("platform", NOW + 9, NOW + 9)),
        (None, Standing(held=NOW), Go()),
        (Newest("it", NOW - 9, NOW - 29), Standing(), Wait("debounce", NOW + 1, NOW + 1)),
        (Newest("it", NOW - 1, NOW - 29), Standing(), Wait("debounce", NOW + 1, NOW + 1)),
        (Newest("it", NOW - 1, NOW - 30), Standing(), Go()),
        (Newest("it", NOW - 10, NOW - 10), Standing(), Go()),
        (None, Standing(until=NOW + 9, opened=1), Wait("breaker", NOW + 9, NOW + 9)),
        (None, Standing(until=NOW, opened=1), Go(probe=True)),
        (None, Standing(held=NOW + 9, until=NOW, opened=1), Wait("platform", NOW + 9, NOW + 9)),
    ],
)
def test_decision(newest: Newest | None, standing: Standing, expected: object) -> None:
    decision = decide(Request("it", newest=newest), target(), standing, NOW)

    assert decision == expected
    assert type(decision) is type(expected)


@pytest.mark.parametrize(
    ("newest", "standing", "expected"),
    [
        (None, Standing(held=NOW + 3_604), Wait("platform", NOW + 3_604, NOW + 3_604)),
        (None, Standing(held=NOW + 3_606), Go()),
        (None, Standing(until=NOW + 1_804), Wait("breaker", NOW + 1_804, NOW + 1_804)),
        (None, Standing(until=NOW + 1_806), Go(probe=True)),
        (Newest("it", NOW + 4, NOW - 29), Standing(), Wait("debounce", NOW + 1, NOW + 1)),
        (Newest("it", NOW + 6, NOW + 6), Standing(), Go()),
    ],
)
def test_times_further_ahead_than_any_clock_put_them_hold_nobody(
    newest: Newest | None, standing: Standing, expected: object
) -> None:
    decision = decide(Request("it", newest=newest), target(), standing, NOW)

    assert decision == expected
    assert type(decision) is type(expected)


@pytest.mark.parametrize(
    ("request_", "standing", "expected"),
    [
        (Request("it"), Standing(), Wait("approval", NOW + 100, NOW + 60)),
        (Request("it", NOW + 10), Standing(paused=1), Wait("approval", NOW + 10, NOW + 10)),
        (Request("it", NOW), Standing(paused=1), Expired(NOW)),
        (Request("it", NOW, newest=Newest("newer")), Standing(), Superseded("newer")),
        (Request("it", NOW - 800, approved=True), Standing(), Go()),
        (Request("it", approved=True), Standing(paused=1), Wait("paused", None, NOW + 60)),
    ],
)
def test_a_deploy_that_a_person_must_approve(
    request_: Request, standing: Standing, expected: object
) -> None:
    decision = decide(request_, target(approval={"expires": 100}), standing, NOW)

    assert decision == expected
    assert type(decision) is type(expected)


@pytest.mark.parametrize(
    ("ahead", "expected"),
    [
        (Ahead("first"), Wait("order", None, NOW + 1, "first")),
        (Ahead("first", NOW + 9), Wait("order", NOW + 9, NOW + 10, "first")),
        (Ahead("first", NOW + 900), Wait("order", NOW + 900, NOW + 60, "first")),
        (Ahead("first", NOW - 9), Wait("order", None, NOW + 1, "first")),
        (Ahead("first", place=7), Wait("order", None, NOW + 1, "first", 7)),
    ],
)
def test_who_comes_later_waits_for_the_first(ahead: Ahead, expected: object) -> None:
    decision = decide(Request("it", ahead=ahead), target(), Standing(until=NOW - 1), NOW)

    assert decision == expected


@pytest.mark.parametrize(
    ("open_", "expected"),
    [
        ("22:00-23:00", Go()),
        ("22:14-23:00", Wait("hours", NOW + 40, NOW + 40)),
        ("wed 00:00-01:00", Wait("hours", NOW + 6_400, NOW + 300)),
    ],
)
def test_outside_its_hours_a_target_is_not_called(open_: str, expected: object) -> None:
    decision = decide(
        Request("it"),
        target(hours={"zone": "UTC", "open": open_}),
        Standing(held=NOW - 1),
        NOW,
    )

    assert decision == expected


@given(
    st.builds(Standing, held=TIMES, failures=st.integers(0, 9), until=TIMES),
    st.none() | st.builds(Newest, st.just("it"), TIMES, TIMES),
    st.sampled_from(["22:00-23:00", "wed 00:00-01:00", "thu 08:00-09:00"]),
)
def test_what_waits_goes_when_its_waits_are_over(
    standing: Standing, newest: Newest | None, open_: str
) -> None:
    now, told = NOW, set()
    for _ in range(1_000):
        decision = decide(
            Request("it", newest=newest),
            target(hours={"zone": "UTC", "open": open_}),
            standing,
            now,
        )
        if not isinstance(decision, Wait):
            break
        assert decision.look > now
        told.add((decision.reason, decision.until))
        now = decision.look

    assert decision == Go(probe=standing.until > 0)
    assert len(told) <= 4


@given(st.floats(0.001, 1e6), st.floats(0.001, 1e6), st.integers(0, 10_000), st.floats(0, 2e9))
def test_a_breaker_stays_open_longer_each_time(
    pause: float, cap: float, opened: int, now: float
) -> None:
    breaker = Breaker(pause=pause, cap=cap)
    this, following = (stays_open(breaker, times, now) for times in (opened, opened + 1))

    assert now <= this <= following <= now + cap
