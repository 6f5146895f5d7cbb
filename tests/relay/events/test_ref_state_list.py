"""The list of states answers as looking through all of them would."""

from __future__ import annotations

from collections.abc import Sequence

from hypothesis import given
from hypothesis import strategies as st

from relay.events.ref_change import RefChange
from relay.events.ref_history import Arrival, State, StateList, apply, judge
from relay.events.ref_state import next_no
from relay.events.ref_state_list import KEPT_SECONDS, KEPT_STATES

values = st.sampled_from(["", "a", "b", "c", "d"])
changes = st.builds(
    RefChange,
    name=st.just("refs/heads/main"),
    origin=st.one_of(st.none(), values),
    value=values,
    at=st.one_of(st.none(), st.integers(0, 40).map(float)),
    own_clock=st.booleans(),
    touch=st.booleans(),
    keeps_id=st.booleans(),
)
arrivals = st.builds(
    Arrival,
    changes,
    st.sampled_from(["1", "2", ""]),
    st.sampled_from([b"x", b"y", b"z"]),
    st.integers(0, 2_000).map(float),
)


def check(states: StateList, expected: Sequence[State]) -> None:
    assert list(states) == expected
    assert states.highest_no == next_no(expected) - 1
    newest_first = expected[::-1]
    for value in ("", "a", "b", "c", "d"):
        assert list(states.with_value(value)) == [s for s in newest_first if s.value == value]
        assert list(states.with_origin(value)) == [s for s in newest_first if s.origin == value]
        for origin in (None, "", "a", "b", "c", "d"):
            assert list(states.with_move(origin, value)) == [
                s for s in newest_first if (s.origin, s.value) == (origin, value)
            ]
    for body in (b"x", b"y", b"z"):
        assert list(states.with_body(body)) == [s for s in newest_first if s.body == body]
    for index, state in enumerate(expected):
        assert states.place(state) == index


@given(st.lists(arrivals, max_size=30), st.sets(st.integers(0, 30)))
def test_it_changes_as_sorting_all_states_would(webhooks: list[Arrival], looks: set[int]) -> None:
    states, expected = StateList(), list[State]()
    for number, arrival in enumerate(webhooks):
        judgement = judge(arrival, states)
        assert judgement == judge(arrival, expected)
        states.take(judgement)
        expected = apply(judgement, expected)
        if number in looks:
            check(states, expected)
    check(states, expected)


def state(no: int, *, pos: int = 0, last_seen: float = 0.0) -> State:
    return State(
        no=no,
        pos=pos or no,
        origin=str(no - 1),
        value=str(no),
        at=None,
        own_clock=False,
        body=bytes([no % 256]),
        copies=1,
        first_seen=last_seen,
        last_seen=last_seen,
    )


def test_the_oldest_are_let_go() -> None:
    states = StateList([state(no) for no in range(1, KEPT_STATES + 6)])
    assert states.with_value("3")

    assert [gone.no for gone in states.let_go(1.0)] == [1, 2, 3, 4, 5]
    assert len(states) == KEPT_STATES
    assert not states.with_value("3")
    assert states.with_value("6")
    assert states.let_go(1.0) == []


def test_the_highest_number_and_the_newest_state_stay() -> None:
    states = StateList([state(9, pos=1), state(1, pos=2), state(2, pos=3)])

    assert [gone.no for gone in states.let_go(2 * KEPT_SECONDS)] == [1]
    assert [one.no for one in states] == [9, 2]
    assert states.highest_no == 9
