"""Whether a deploy may be called: the policy, asked without a ledger and without waiting."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from config.model import Target
from config.policies import Breaker
from relay.events.gate import (
    ENDED,
    LINE_LOOK,
    OVERTAKEN,
    PERSON_LOOK,
    REPLACED,
    Expired,
    Facts,
    Go,
    Learnt,
    Lesson,
    Superseded,
    TargetState,
    Wait,
    decide,
    learn,
    state_in_words,
    stays_open,
    turn_at,
)

NOW = 1_700_000_000.0
"""A Tuesday, 22:13 UTC."""

TIMES = st.floats(NOW - 1_000, NOW + 1_000) | st.just(0.0)


def target(**keys: Any) -> Target:
    return Target.model_validate({"preset": "http", "url": "http://a/", **keys})


def facts(state: dict[str, Any] | None = None, **more: Any) -> Facts:
    rested = {"created_at": NOW - 900, "line_at": NOW - 900}
    state_of_target = TargetState(name="web", **(state or {}))
    return Facts(deploy=5, target=state_of_target, **{**rested, **more})


def check(decision: object, expected: object) -> None:
    # Tuples of two kinds can be equal.
    assert decision == expected
    assert type(decision) is type(expected)


@pytest.mark.parametrize(
    ("state", "expected"),
    [
        ({}, Go()),
        ({"failures": 99}, Go()),
        ({"paused_at": 1, "limited_until": NOW + 9}, Wait("paused", None, NOW + PERSON_LOOK)),
        ({"limited_until": NOW + 9}, Wait("platform", NOW + 9, NOW + 9)),
        ({"limited_until": NOW}, Go()),
        ({"open_until": NOW + 9, "opened": 1}, Wait("breaker", NOW + 9, NOW + 9)),
        ({"open_until": NOW, "opened": 1}, Go(probe=True)),
        (
            {"limited_until": NOW + 9, "open_until": NOW, "opened": 1},
            Wait("platform", NOW + 9, NOW + 9),
        ),
    ],
)
def test_what_holds_a_target_back(state: dict[str, Any], expected: object) -> None:
    check(decide(facts(state), target(), NOW), expected)


@pytest.mark.parametrize(
    ("state", "expected"),
    [
        ({"limited_until": NOW + 3_604}, Wait("platform", NOW + 3_604, NOW + 3_604)),
        ({"limited_until": NOW + 3_606}, Go()),
        ({"open_until": NOW + 1_804}, Wait("breaker", NOW + 1_804, NOW + 1_804)),
        ({"open_until": NOW + 1_806}, Go(probe=True)),
    ],
)
def test_times_further_ahead_than_any_clock_put_them_hold_nobody(
    state: dict[str, Any], expected: object
) -> None:
    check(decide(facts(state), target(), NOW), expected)


@pytest.mark.parametrize(
    ("more", "policy", "expected"),
    [
        ({"ended": True, "live": 9, "newer": 9}, {}, Superseded(0, ENDED)),
        ({"live": 9}, {}, Superseded(9, OVERTAKEN)),
        ({"newer": 9}, {"supersede": True}, Superseded(9, REPLACED)),
        ({"newer": 9}, {"debounce": 10}, Superseded(9, REPLACED)),
        ({"newer": 9}, {}, Go()),
        ({"newer": 9, "state": {"paused_at": 1}}, {"supersede": True}, Superseded(9, REPLACED)),
    ],
)
def test_what_is_out_of_date_is_not_called(
    more: dict[str, Any], policy: dict[str, Any], expected: object
) -> None:
    check(decide(facts(**more), target(**policy), NOW), expected)


@pytest.mark.parametrize(
    ("more", "expected"),
    [
        ({}, Wait("approval", NOW + 100, NOW + 100)),
        ({"approval_until": NOW + 10}, Wait("approval", NOW + 10, NOW + 10)),
        (
            {"approval_until": NOW + 10, "state": {"paused_at": 1}},
            Wait("approval", NOW + 10, NOW + 10),
        ),
        ({"approval_until": NOW}, Expired(NOW)),
        ({"approval_until": NOW, "live": 9}, Superseded(9, OVERTAKEN)),
        ({"approval_until": NOW - 800, "approved": True}, Go()),
        (
            {"approved": True, "state": {"paused_at": 1}},
            Wait("paused", None, NOW + PERSON_LOOK),
        ),
    ],
)
def test_a_deploy_that_a_person_must_approve(more: dict[str, Any], expected: object) -> None:
    check(decide(facts(**more), target(approval={"expires": 100}), NOW), expected)


@pytest.mark.parametrize(
    ("due", "until"), [(0, None), (NOW + 9, NOW + 9), (NOW + 900, NOW + 900), (NOW - 9, None)]
)
def test_the_newer_one_waits_for_the_older_one(due: float, until: float | None) -> None:
    behind = facts({"open_until": NOW - 1, "paused_at": 1}, ahead=3, ahead_until=due)

    check(decide(behind, target(), NOW), Wait("order", until, NOW + LINE_LOOK, 3))


@pytest.mark.parametrize(
    ("more", "policy", "expected"),
    [
        ({"calling": 1}, {"concurrency": 2}, Go()),
        ({"calling": 2}, {"concurrency": 2}, Wait("slot", None, NOW + LINE_LOOK)),
        ({"rate_calls": [NOW - 60]}, {"rate": "2/m"}, Go()),
        ({"rate_calls": [NOW - 50]}, {"rate": "2/m"}, Wait("rate", NOW + 10, NOW + 10)),
        (
            {"rate_calls": [NOW - 50], "rate_place": 2},
            {"rate": "2/m"},
            Wait("rate", NOW + 70, NOW + 70),
        ),
        (
            {"rate_calls": [0.0, NOW]},
            {"rate": ["9/m", "1/h"]},
            Wait("rate", NOW + 3_600, NOW + 300),
        ),
        (
            {"state": {"open_until": NOW, "opened": 1}, "is_probed": True},
            {},
            Wait("probe", None, NOW + LINE_LOOK),
        ),
    ],
)
def test_calls_at_one_time_and_in_an_interval(
    more: dict[str, Any], policy: dict[str, Any], expected: object
) -> None:
    check(decide(facts(**more), target(**policy), NOW), expected)


@pytest.mark.parametrize(
    ("created", "line", "expected"),
    [
        (NOW - 9, NOW - 29, Wait("debounce", NOW + 1, NOW + 1)),
        (NOW - 1, NOW - 29, Wait("debounce", NOW + 1, NOW + 1)),
        (NOW - 1, NOW - 30, Go()),
        (NOW - 10, NOW - 10, Go()),
        (NOW + 4, NOW - 29, Wait("debounce", NOW + 1, NOW + 1)),
        (NOW + 6, NOW + 6, Go()),
    ],
)
def test_a_ref_rests_before_it_is_deployed(created: float, line: float, expected: object) -> None:
    policy = target(debounce={"quiet": 10, "cap": 30})
    deploy = facts(created_at=created, line_at=line)

    check(decide(deploy, policy, NOW), expected)
    check(decide(msgspec.structs.replace(deploy, attempt=1), policy, NOW), Go())


@pytest.mark.parametrize(
    ("open_", "expected"),
    [
        ("22:00-23:00", Go()),
        ("22:14-23:00", Wait("hours", NOW + 40, NOW + 40)),
        ("wed 00:00-01:00", Wait("hours", NOW + 6_400, NOW + 300)),
    ],
)
def test_outside_its_hours_a_target_is_not_called(open_: str, expected: object) -> None:
    policy = target(hours={"zone": "UTC", "open": open_})

    check(decide(facts({"limited_until": NOW - 1}), policy, NOW), expected)


@given(
    state=st.fixed_dictionaries(
        {"limited_until": TIMES, "failures": st.integers(0, 9), "open_until": TIMES}
    ),
    created=TIMES,
    line=TIMES,
    call=TIMES,
    open_=st.sampled_from(["22:00-23:00", "wed 00:00-01:00", "thu 08:00-09:00"]),
)
def test_what_waits_goes_when_its_waits_are_over(
    state: dict[str, Any], created: float, line: float, call: float, open_: str
) -> None:
    policy = target(
        hours={"zone": "UTC", "open": open_}, debounce={"quiet": 10, "cap": 30}, rate="3/h"
    )
    deploy = facts(state, created_at=created, line_at=line, rate_calls=[min(call, NOW)])
    now, told = NOW, set()
    for _ in range(1_000):
        decision = decide(deploy, policy, now)
        if not isinstance(decision, Wait):
            break
        assert decision.look > now
        told.add((decision.reason, decision.until))
        now = decision.look

    assert decision == Go(probe=state["open_until"] > 0)
    # Hours may be over when the others are.
    assert len(told) <= 6


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
    assert turn_at(target(rate=["2/m", "3/h"]).rate, calls, place) == turn


@given(st.lists(TIMES, min_size=1, max_size=3), st.integers(0, 50))
def test_a_later_place_in_the_line_has_a_later_turn(calls: list[float], place: int) -> None:
    rates = target(rate=["2/m", "5/h", "100/d"][: len(calls)]).rate

    assert turn_at(rates, calls, place) <= turn_at(rates, calls, place + 1)


BREAKER = Breaker(failures=2, pause=60)
WELL, BAD = Lesson(answered=True, failed=False), Lesson(answered=False, failed=True)


def after(*lessons: tuple[Lesson, bool]) -> Learnt:
    learnt = Learnt(TargetState(name="web"))
    for lesson, is_probe in lessons:
        learnt = learn(learnt.state, BREAKER, lesson, NOW, probe=is_probe)
    return learnt


def test_a_breaker_opens_after_failures_in_a_row_and_the_probe_closes_it() -> None:
    opened = after((BAD, False), (WELL, False), (BAD, False), (BAD, False))
    assert (opened.has_opened, opened.state.open_until) == (True, NOW + 60)

    other = learn(opened.state, BREAKER, WELL, NOW, probe=False)
    assert other.state == opened.state, "a call that began before says nothing of the time since"
    again = learn(opened.state, BREAKER, BAD, NOW, probe=True)
    assert (again.has_opened, again.state.open_until) == (True, NOW + 120)
    closed = learn(opened.state, BREAKER, WELL, NOW, probe=True)
    assert closed.has_closed
    assert (closed.state.open_until, closed.state.failures, closed.state.opened) == (0, 0, 0)


def test_the_latest_time_that_a_platform_names_counts() -> None:
    until = Lesson(answered=True, failed=False, limited_until=NOW + 9)
    first = learn(TargetState(name="web"), BREAKER, until, NOW, probe=False)
    assert (first.is_limited, first.state.limited_until) == (True, NOW + 9)

    sooner = Lesson(answered=True, failed=False, limited_until=NOW + 5)
    second = learn(first.state, BREAKER, sooner, NOW, probe=False)
    assert (second.is_limited, second.state.limited_until) == (False, NOW + 9)


@given(st.floats(0.001, 1e6), st.floats(0.001, 1e6), st.integers(0, 10_000), st.floats(0, 2e9))
def test_a_breaker_stays_open_longer_each_time(
    pause: float, cap: float, opened: int, now: float
) -> None:
    breaker = Breaker(pause=pause, cap=cap)
    this, following = (stays_open(breaker, times, now) for times in (opened, opened + 1))

    assert now <= this <= following <= now + cap


@pytest.mark.parametrize(
    ("state", "words"),
    [
        ({}, "ready"),
        ({"paused_at": NOW}, "paused since 2023-11-14T22:13:20Z"),
        ({"limited_until": NOW + 1}, "its platform wants no calls until 2023-11-14T22:13:21Z"),
        ({"open_until": NOW + 1}, "breaker open until 2023-11-14T22:13:21Z"),
        ({"open_until": NOW}, "breaker open, the next call is the probe"),
    ],
)
def test_how_a_target_stands_in_words(state: dict[str, Any], words: str) -> None:
    assert state_in_words(TargetState(name="web", **state), target(), NOW) == words
