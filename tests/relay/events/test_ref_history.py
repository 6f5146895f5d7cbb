"""What holds for every history of a ref, whatever arrives."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from relay.events.ref_change import RefChange
from relay.events.ref_history import (
    KEPT_SECONDS,
    KEPT_STATES,
    Arrival,
    State,
    apply,
    asks,
    judge,
    judge_again,
    kept,
)
from relay.events.ref_state import POS_STEP
from tests.relay.events.webhooks import github, gitlab, in_words, play, pull, touch

_values = st.sampled_from(["", "A", "B", "C", "A open", "A closed", "B open"])
_clocks = st.none() | st.integers(0, 20).map(float) | st.sampled_from([math.nan, math.inf, 2.5])

_changes = st.builds(
    RefChange,
    name=st.just("refs/heads/main"),
    origin=st.none() | _values,
    value=_values,
    at=_clocks,
    own_clock=st.booleans(),
    touch=st.booleans(),
    opened=st.booleans(),
    moves_head=st.booleans(),
    keeps_id=st.booleans(),
)
_arrivals = st.builds(
    Arrival,
    change=_changes,
    delivery_id=st.sampled_from(["", "1", "2", "3", "4", "5"]),
    body=st.sampled_from([b"1", b"2", b"3", b"4", b"5"]),
    seen_at=st.floats(0, 2_000),
)
_histories = st.lists(_arrivals, max_size=25)


@given(_histories)
def test_every_arrival_is_judged_and_the_states_stay_in_order(arrivals: list[Arrival]) -> None:
    states: list[State] = []
    bodies: dict[str, bytes] = {}
    numbers: set[int] = set()
    for arrival in arrivals:
        judgement = judge(arrival, states, bodies.get(arrival.delivery_id))
        bodies.setdefault(arrival.delivery_id, arrival.body)
        is_added = judgement.verdict in ("new", "late")
        assert is_added == (judgement.no not in numbers and judgement.no > 0)
        assert not is_added or judgement.no == max(numbers, default=0) + 1
        assert (judgement.verdict == "known") == (judgement.rows == ())
        before = {state.no: state for state in states}
        states = apply(judgement, states)
        numbers = {state.no for state in states}
        assert len(states) == len(numbers) == len(before) + is_added
        assert all(older.pos < newer.pos for older, newer in pairwise(states))
        assert judgement.newest_no == (states[-1].no if states else 0)
        assert judgement.is_newest == (judgement.no == judgement.newest_no and judgement.no > 0)
        assert not asks(judgement) or judgement.uncertain


@given(_histories, _arrivals, _values)
def test_an_answer_of_the_git_server_decides_what_is_newest(
    arrivals: list[Arrival], last: Arrival, head: str
) -> None:
    _, states = play(arrivals)
    first = judge(last, states, None)
    states = apply(first, states)
    if not first.rows:
        return
    second = judge_again(last, first, head, states)
    after = apply(second, states)
    assert after[-1].value == head or not asks(first)
    assert second.newest_no == after[-1].no
    assert second.is_newest == (second.no == second.newest_no)
    assert all(older.pos < newer.pos for older, newer in pairwise(after))
    assert len({state.no for state in after}) == len(after) <= len(states) + 1
    assert {state.no for state in states} <= {state.no for state in after}


@given(_histories, _arrivals)
def test_the_same_request_again_is_known(arrivals: list[Arrival], last: Arrival) -> None:
    last = msgspec.structs.replace(last, delivery_id="its own")
    _, states = play(arrivals)
    states = apply(judge(last, states, None), states)
    again = judge(last, states, last.body)
    assert again.verdict == "known"
    assert apply(again, states) == states


@given(st.lists(st.integers(6, 10_000), min_size=1, max_size=12), st.randoms(use_true_random=False))
def test_distinct_clocks_put_any_order_of_arrival_right(pauses: list[int], shuffle: Any) -> None:
    arrivals = _chain(pauses)
    shuffle.shuffle(arrivals)
    _, states = play(arrivals)
    assert [state.value for state in states] == [f"{n + 1}" for n in range(len(pauses))]


@given(st.lists(st.integers(0, 10_000), min_size=1, max_size=12))
def test_a_history_in_order_is_new_and_certain_and_second_hooks_are_the_same(
    pauses: list[int],
) -> None:
    twice = [
        hook
        for arrival in _chain(pauses)
        for hook in (arrival, msgspec.structs.replace(arrival, delivery_id=f"{arrival.body!r}"))
    ]
    judgements, states = play(twice)
    for number, (first, second) in enumerate(zip(judgements[::2], judgements[1::2], strict=True)):
        assert in_words(first) == f"new {number + 1}"
        assert in_words(second) == f"same {number + 1}"
        assert second.is_newest
    assert all(state.copies == 2 for state in states)


def _chain(pauses: Sequence[int]) -> list[Arrival]:
    """Pushes of new commits, with so many seconds between them."""
    return [
        github(f"{number}" if number else "", f"{number + 1}", float(sum(pauses[: number + 1])))
        for number in range(len(pauses))
    ]


def test_a_long_outage_sent_again_in_reverse_finds_room() -> None:
    pushes = [github(f"{n}" if n else "", f"{n + 1}", 100.0 * n) for n in range(120)]
    judgements, states = play([pushes[0], *reversed(pushes[1:])])
    assert [state.value for state in states] == [f"{n + 1}" for n in range(120)]
    assert any(len(judgement.rows) > 1 for judgement in judgements)
    assert len({state.no for state in states}) == 120


def test_a_late_state_stands_in_the_middle_between_its_neighbours() -> None:
    _, states = play([github("", "A", 100), github("B", "C", 300), github("A", "B", 200)])
    assert [state.pos for state in states] == [POS_STEP, POS_STEP * 3 // 2, 2 * POS_STEP]


def test_a_move_fills_in_what_the_touch_before_it_could_not_tell() -> None:
    _, states = play([touch("A open", 101), pull("X open", "A open", 100)])
    assert [(state.origin, state.touched, state.copies) for state in states] == [
        ("X open", False, 1)
    ]


def test_copies_count_ids_of_their_own_but_no_touches() -> None:
    push = github("", "A", 100, id="1")
    _, states = play(
        [push, github("", "A", 100, id="2"), github("", "A", 100, id="1", body="installation")]
    )
    assert states[0].copies == 2
    _, states = play([pull("", "A open", 100), touch("A open", 200), touch("A open", 300)])
    assert (states[0].copies, states[0].last_seen) == (1, 301)


def test_without_an_id_a_repeat_is_the_same_and_not_known() -> None:
    judgements, _ = play([github("", "A", 100, id=""), github("", "A", 100, id="")])
    assert [in_words(judgement) for judgement in judgements] == ["new 1", "same 1"]


def test_an_empty_id_is_never_known() -> None:
    push = github("", "A", 100, id="")
    _, states = play([push])
    assert in_words(judge(push, states, push.body)) == "same 1"


def test_late_ones_of_one_second_are_placed_by_their_links() -> None:
    _, states = play(
        [github("", "A", 100), github("B", "C", 200), github("C", "D", 300), github("A", "B", 200)]
    )
    assert [state.value for state in states] == ["A", "B", "C", "D"]


def test_the_answer_makes_a_late_one_of_what_seemed_new() -> None:
    arrivals = [gitlab("", "A", 100), gitlab("X", "Y", 200)]
    (_, first), states = play(arrivals)
    assert asks(first)
    second = judge_again(arrivals[-1], first, "A", states)
    after = apply(second, states)
    assert (in_words(second), second.is_newest) == ("late 2", False)
    assert [(state.value, state.uncertain) for state in after] == [("Y", ""), ("A", "")]


def test_the_answer_makes_a_new_one_of_what_seemed_late_or_a_copy() -> None:
    for arrivals in (
        [github("", "A", 10_000), github("A", "B", 1_000, seen=10_100)],
        [
            gitlab("", "A", 1),
            gitlab("", "A", 1, id="2"),
            gitlab("A", "B", 2),
            gitlab("B", "A", 3),
            gitlab("A", "B", 4),
        ],
    ):
        judgements, states = play(arrivals)
        assert judgements[-1].verdict in ("late", "same")
        second = judge_again(arrivals[-1], judgements[-1], "B", states)
        after = apply(second, states)
        assert (second.verdict, second.is_newest, after[-1].value) == ("new", True, "B")
        assert not any(state.uncertain for state in after)


def test_the_answer_may_tell_of_a_change_whose_webhook_comes_later() -> None:
    arrivals = [github("", "A", 100), github("A", "B", 200, seen=201), github("C", "D", 200)]
    judgements, states = play(arrivals)
    second = judge_again(arrivals[-1], judgements[-1], "E", states)
    assert (second.verdict, second.is_newest, second.newest_no) == ("late", False, 4)
    states = apply(second, states)
    last = judge(github("D", "E", 230), states)
    assert in_words(last) == "same 4"
    assert apply(last, states)[-1].origin == "D"


def test_an_answer_that_is_older_than_the_newest_webhook_changes_nothing() -> None:
    arrivals = [gitlab("", "A", 100), gitlab("X", "Y", 200)]
    (_, first), states = play(arrivals)
    states = apply(judge(gitlab("Y", "Z", 201), states), states)
    second = judge_again(arrivals[-1], first, "A", states)
    assert (second.rows, second.is_newest) == ((), False)


def test_asking_does_not_help_where_the_ref_stands_at_that_value_anyway() -> None:
    (_, first), _ = play([gitlab("", "A", 100), gitlab("X", "A", 200)])
    assert first.uncertain
    assert not asks(first)


def test_two_hundred_states_of_thirty_days_are_kept_and_always_the_newest() -> None:
    _, states = play([github(f"{n}", f"{n + 1}", 100.0 * n) for n in range(250)])
    now = states[-1].last_seen
    assert kept(states, now) == states[-KEPT_STATES:]
    assert kept(states, now + 2 * KEPT_SECONDS) == states[-1:]
    assert kept(states, now + KEPT_SECONDS - 150) == states[-2:]
    assert kept([], now) == []


def test_the_highest_number_is_kept_so_that_it_is_never_given_again() -> None:
    _, states = play([github(f"{n}", f"{n + 1}", 100.0 * n) for n in range(250)])
    late = judge(github("x", "y", 1, id="late", seen=25_000), states)
    states = apply(late, states)
    rest = kept(states, 10 * KEPT_SECONDS)
    assert [state.no for state in rest] == [late.no, states[-1].no]
    assert judge(github("y", "z", 1e9), rest).no == late.no + 1
