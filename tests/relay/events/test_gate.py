"""Whether a deploy may be called: the policy, asked without a ledger and without waiting."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from config.model import Target
from config.policies import Breaker
from config.values import RateLimit
from relay.events.gate import (
    ENDED,
    LINE_LOOK,
    OVERTAKEN,
    REPLACED,
    Expired,
    Facts,
    Go,
    Lesson,
    Superseded,
    TargetState,
    Wait,
    decide,
    learn,
    stays_open,
    turn_at,
)

NOW = 1_700_000_000.0
"""A Tuesday, 22:13 UTC."""
TIMES = st.floats(NOW - 1_000, NOW + 1_000) | st.just(0.0)


def target(**keys: Any) -> Target:
    keys = {"debounce": {"quiet": 10, "cap": 30}, **keys}
    return Target.model_validate({"preset": "http", "url": "http://a/", **keys})


def stands(**fields: Any) -> TargetState:
    return TargetState(name="t", **fields)


def facts(state: TargetState | None = None, **fields: Any) -> Facts:
    return Facts(deploy=7, target=state or stands(), **fields)


def judged(given_facts: Facts, **keys: Any) -> object:
    return decide(given_facts, target(**keys), NOW)


@pytest.mark.parametrize(
    ("given_facts", "expected"),
    [
        (facts(), Go()),
        (facts(stands(failures=99)), Go()),
        (facts(stands(limited_until=NOW + 9), newer=8), Superseded(8, REPLACED)),
        (facts(stands(paused_at=1), newer=8), Superseded(8, REPLACED)),
        (facts(ended=True, newer=8), Superseded(0, ENDED)),
        (facts(live=9, ahead=6), Superseded(9, OVERTAKEN)),
        (facts(stands(paused_at=1, limited_until=NOW + 9)), Wait("paused", None, NOW + 3_600)),
        (facts(stands(limited_until=NOW + 9)), Wait("platform", NOW + 9, NOW + 9)),
        (facts(stands(limited_until=NOW)), Go()),
        (facts(created_at=NOW - 9, line_at=NOW - 29), Wait("debounce", NOW + 1, NOW + 1)),
        (facts(created_at=NOW - 1, line_at=NOW - 29), Wait("debounce", NOW + 1, NOW + 1)),
        (facts(created_at=NOW - 1, line_at=NOW - 30), Go()),
        (facts(created_at=NOW - 10, line_at=NOW - 10), Go()),
        (facts(created_at=NOW - 1, line_at=NOW - 1, attempt=1), Go()),
        (facts(stands(open_until=NOW + 9, opened=1)), Wait("breaker", NOW + 9, NOW + 9)),
        (facts(stands(open_until=NOW, opened=1)), Go(probe=True)),
        (
            facts(stands(open_until=NOW, opened=1), is_probed=True),
            Wait("probe", None, NOW + LINE_LOOK),
        ),
        (
            facts(stands(limited_until=NOW + 9, open_until=NOW, opened=1)),
            Wait("platform", NOW + 9, NOW + 9),
        ),
    ],
)
def test_decision(given_facts: Facts, expected: object) -> None:
    decision = judged(given_facts)

    assert decision == expected
    assert type(decision) is type(expected)


def test_a_newer_one_replaces_only_where_the_newest_counts() -> None:
    assert judged(facts(newer=8), debounce=None, supersede=False) == Go()
    assert judged(facts(newer=8), debounce=None, supersede=True) == Superseded(8, REPLACED)


@pytest.mark.parametrize(
    ("given_facts", "expected"),
    [
        (facts(stands(limited_until=NOW + 3_604)), Wait("platform", NOW + 3_604, NOW + 3_604)),
        (facts(stands(limited_until=NOW + 3_606)), Go()),
        (facts(stands(open_until=NOW + 1_804)), Wait("breaker", NOW + 1_804, NOW + 1_804)),
        (facts(stands(open_until=NOW + 1_806)), Go(probe=True)),
        (facts(created_at=NOW + 4, line_at=NOW - 29), Wait("debounce", NOW + 1, NOW + 1)),
        (facts(created_at=NOW + 6, line_at=NOW + 6), Go()),
    ],
)
def test_times_further_ahead_than_any_clock_put_them_hold_nobody(
    given_facts: Facts, expected: object
) -> None:
    decision = judged(given_facts)

    assert decision == expected
    assert type(decision) is type(expected)


@pytest.mark.parametrize(
    ("given_facts", "expected"),
    [
        (facts(), Wait("approval", NOW + 100, NOW + 100)),
        (
            facts(stands(paused_at=1), approval_until=NOW + 10),
            Wait("approval", NOW + 10, NOW + 10),
        ),
        (facts(stands(paused_at=1), approval_until=NOW), Expired(NOW)),
        (facts(approval_until=NOW, newer=8), Superseded(8, REPLACED)),
        (facts(approval_until=NOW - 800, approved=True), Go()),
        (facts(stands(paused_at=1), approved=True), Wait("paused", None, NOW + 3_600)),
    ],
)
def test_a_deploy_that_a_person_must_approve(given_facts: Facts, expected: object) -> None:
    decision = judged(given_facts, approval={"expires": 100})

    assert decision == expected
    assert type(decision) is type(expected)


@pytest.mark.parametrize(
    ("until", "expected"),
    [
        (0, Wait("order", None, NOW + LINE_LOOK, 6)),
        (NOW + 9, Wait("order", NOW + 9, NOW + LINE_LOOK, 6)),
        (NOW - 9, Wait("order", None, NOW + LINE_LOOK, 6)),
    ],
)
def test_what_comes_later_waits_for_the_first(until: float, expected: object) -> None:
    assert judged(facts(stands(open_until=NOW - 1), ahead=6, ahead_until=until)) == expected


@pytest.mark.parametrize(
    ("calling", "expected"), [(1, Go()), (2, Wait("slot", None, NOW + LINE_LOOK))]
)
def test_no_more_calls_than_slots(calling: int, expected: object) -> None:
    assert judged(facts(calling=calling), concurrency=2) == expected


@pytest.mark.parametrize(
    ("open_", "expected"),
    [
        ("22:00-23:00", Go()),
        ("22:14-23:00", Wait("hours", NOW + 40, NOW + 40)),
        ("wed 00:00-01:00", Wait("hours", NOW + 6_400, NOW + 300)),
    ],
)
def test_outside_its_hours_a_target_is_not_called(open_: str, expected: object) -> None:
    state = stands(limited_until=NOW - 1)
    assert judged(facts(state), hours={"zone": "UTC", "open": open_}) == expected


@given(
    st.builds(stands, limited_until=TIMES, failures=st.integers(0, 9), open_until=TIMES),
    TIMES,
    TIMES,
    st.sampled_from(["22:00-23:00", "wed 00:00-01:00", "thu 08:00-09:00"]),
)
def test_what_waits_goes_when_its_waits_are_over(
    state: TargetState, created_at: float, line_at: float, open_: str
) -> None:
    now, told = NOW, set()
    for _ in range(1_000):
        decision = decide(
            facts(state, created_at=created_at, line_at=line_at),
            target(hours={"zone": "UTC", "open": open_}),
            now,
        )
        if not isinstance(decision, Wait):
            break
        assert decision.look > now
        told.add((decision.reason, decision.until))
        now = decision.look

    assert decision == Go(probe=state.open_until > 0)
    assert len(told) <= 4


@pytest.mark.parametrize(
    ("calls", "place", "turn"),
    [
        ((0.0, 0.0), 0, 0.0),
        ((NOW - 1, 0.0), 0, NOW + 59),
        ((NOW - 1, NOW - 10), 0, NOW + 3_590),
        ((NOW - 1, 0.0), 1, NOW + 59),
        ((NOW - 1, 0.0), 2, NOW + 119),
        ((NOW - 61, 0.0), 0, NOW - 1),
    ],
)
def test_the_turn_within_rates(calls: tuple[float, float], place: int, turn: float) -> None:
    """Two calls a minute, and three an hour."""
    assert turn_at((RateLimit(2, 60), RateLimit(3, 3_600)), calls, place) == turn


@given(st.floats(0.001, 1e6), st.floats(0.001, 1e6), st.integers(0, 10_000), st.floats(0, 2e9))
def test_a_breaker_stays_open_longer_each_time(
    pause: float, cap: float, opened: int, now: float
) -> None:
    breaker = Breaker(pause=pause, cap=cap)
    this, following = (stays_open(breaker, times, now) for times in (opened, opened + 1))

    assert now <= this <= following <= now + cap


FAILED, ANSWERED = Lesson(answered=False, failed=True), Lesson(answered=True, failed=False)


@pytest.mark.parametrize(
    ("before", "lesson", "probe", "after", "opened", "closed"),
    [
        (stands(), FAILED, False, stands(failures=1), False, False),
        (
            *(stands(failures=1), FAILED, False),
            *(stands(failures=2, opened=1, open_until=NOW + 60), True, False),
        ),
        (stands(failures=1), ANSWERED, False, stands(), False, False),
        (
            *(stands(failures=2, opened=1, open_until=NOW), FAILED, True),
            *(stands(failures=3, opened=2, open_until=NOW + 120), True, False),
        ),
        (stands(failures=2, opened=1, open_until=NOW), ANSWERED, True, stands(), False, True),
        (
            *(stands(failures=2, opened=1, open_until=NOW), ANSWERED, False),
            *(stands(failures=2, opened=1, open_until=NOW), False, False),
        ),
        (
            *(stands(), Lesson(answered=False, failed=False, limited_until=NOW + 9), False),
            *(stands(limited_until=NOW + 9), False, False),
        ),
    ],
)
def test_what_a_call_tells_of_its_target(
    before: TargetState,
    lesson: Lesson,
    probe: bool,
    after: TargetState,
    opened: bool,
    closed: bool,
) -> None:
    learnt = learn(before, Breaker(failures=2), lesson, NOW, probe=probe)
    assert learnt.state == after
    assert (learnt.has_opened, learnt.has_closed) == (opened, closed)
