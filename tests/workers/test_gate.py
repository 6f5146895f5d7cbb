"""Whether a deploy may be called: the policy, asked without Redis and without waiting."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from config.model import Breaker, Debounce
from workers.gate import Go, Newest, Standing, Superseded, Wait, decide, opening

NOW = 1_700_000_000.0
DEBOUNCE = Debounce(quiet=10, cap=30)
TIMES = st.floats(NOW - 1_000, NOW + 1_000) | st.just(0.0)


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
    decision = decide("it", newest, DEBOUNCE, standing, NOW)

    assert decision == expected
    assert type(decision) is type(expected)


@given(
    st.builds(Standing, held=TIMES, failures=st.integers(0, 9), until=TIMES),
    st.none() | st.builds(Newest, st.just("it"), TIMES, TIMES),
)
def test_what_waits_goes_when_its_waits_are_over(standing: Standing, newest: Newest | None) -> None:
    now = NOW
    for _ in range(4):
        decision = decide("it", newest, DEBOUNCE, standing, now)
        if not isinstance(decision, Wait):
            break
        assert decision.look > now
        now = decision.look

    assert decision == Go(probe=standing.until > 0)


@given(st.floats(0.001, 1e6), st.floats(0.001, 1e6), st.integers(0, 10_000), st.floats(0, 2e9))
def test_a_breaker_stays_open_longer_each_time(
    pause: float, cap: float, opened: int, now: float
) -> None:
    breaker = Breaker(pause=pause, cap=cap)
    this, following = opening(breaker, opened, now), opening(breaker, opened + 1, now)

    assert now <= this <= following <= now + cap
