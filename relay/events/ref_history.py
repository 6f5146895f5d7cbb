"""The history of a ref: which webhook is a new state, which is known and which is late. No I/O.

The ledger calls ``judge`` in the transaction that locks the ref's row, and stores what it returns.
The parts of the rule are in ref_rule.py, one function each.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from relay.events.ref_case import Case
from relay.events.ref_rule import RULES
from relay.events.ref_state import (
    POS_STEP,
    Arrival,
    Judgement,
    State,
    Verdict,
    apply,
    next_no,
    place_between,
)
from relay.events.ref_state_list import KEPT_SECONDS, KEPT_STATES, StateList

__all__ = [
    "KEPT_SECONDS",
    "KEPT_STATES",
    "Arrival",
    "Judgement",
    "State",
    "StateList",
    "Verdict",
    "apply",
    "asks",
    "judge",
    "judge_again",
    "kept",
]


def judge(
    arrival: Arrival, states: Sequence[State], known_body_of_id: bytes | None = None
) -> Judgement:
    """Return what an arrival is among the kept states of its ref, which are sorted by ``pos``.

    ``known_body_of_id`` is the hash of the body that came first with this delivery id; None if the
    id is new.
    """
    case = Case(arrival, states, known_body_of_id)
    for rule in RULES:
        judgement = rule(case)
        if judgement is not None:
            return judgement
    raise AssertionError("the last part of the rule always answers")


def asks(judgement: Judgement) -> bool:
    """Return whether the git server's answer would help: the order is uncertain, and the ref may
    stand at one of two values."""
    return bool(judgement.uncertain) and judgement.rows[0].value != judgement.stood_at


def judge_again(
    arrival: Arrival, first: Judgement, head: str, states: Sequence[State]
) -> Judgement:
    """Return what an uncertain arrival is after the git server told where the ref stands.

    ``first`` is its judgement, which is stored in ``states``. ``head`` is a value as in
    RefChange: empty if the ref does not exist, ``<commit> open`` for a pull request. If a newer
    webhook was stored meanwhile, the answer may be older than it and changes nothing.
    """
    own = next((state for state in states if state.no == first.no), None)
    if own is None or states[-1].no != first.newest_no:
        return _answer_too_old(first, states, own)
    if head == arrival.change.value:
        return _arrival_is_newest(arrival, first, own, states)
    if head == first.stood_at:
        return _arrival_is_older(first, own, states)
    return _head_is_newest(arrival, first, own, states, head)


def kept(states: Sequence[State], now: float) -> list[State]:
    """Return the states to keep, sorted as given; see StateList.let_go."""
    rest = StateList(states)
    rest.let_go(now)
    return list(rest)


def _answer_too_old(first: Judgement, states: Sequence[State], own: State | None) -> Judgement:
    newest_no = states[-1].no if states else 0
    return msgspec.structs.replace(
        first,
        pos=own.pos if own else first.pos,
        is_newest=own is not None and own.no == newest_no,
        rule="asked, answer too old",
        rows=(),
        newest_no=newest_no,
    )


def _arrival_is_newest(
    arrival: Arrival, first: Judgement, own: State, states: Sequence[State]
) -> Judgement:
    """The ref stands where the arrival ends: it is new. What was taken for a copy of an older state
    gets a row of its own."""
    if first.verdict == "same":
        new = Case(arrival, states, None).new("asked, new")
        older = msgspec.structs.replace(own, copies=max(1, own.copies - 1), uncertain="")
        return msgspec.structs.replace(new, rows=(*new.rows, older))
    pos = states[-1].pos + POS_STEP if first.verdict == "late" else own.pos
    return msgspec.structs.replace(
        first,
        verdict="new",
        pos=pos,
        is_newest=True,
        rule="asked, new",
        uncertain="",
        rows=(_certain(own, pos),),
        newest_no=own.no,
    )


def _arrival_is_older(first: Judgement, own: State, states: Sequence[State]) -> Judgement:
    """The ref stands where it stood before the arrival, which is older than that: late, or still
    another request about an older state."""
    if first.verdict != "new":
        return _settled(first, first.verdict, (_certain(own, own.pos),), first.newest_no)
    others = [state for state in states if state.no != own.no]
    pos, moved = place_between(others, len(others) - 1)
    return _settled(first, "late", (_certain(own, pos), *moved), others[-1].no)


def _head_is_newest(
    arrival: Arrival, first: Judgement, own: State, states: Sequence[State], head: str
) -> Judgement:
    """The ref stands somewhere else: that is a state too, the newest. Its own webhook may still
    come and fill in where it starts; until then its clock is the latest one that is known."""
    newest = State(
        no=next_no(states),
        pos=states[-1].pos + POS_STEP,
        origin=None,
        value=head,
        at=max((state.at for state in states if state.at is not None), default=None),
        own_clock=arrival.change.own_clock,
        body=b"",
        copies=1,
        first_seen=arrival.seen_at,
        last_seen=arrival.seen_at,
        touched=True,
    )
    verdict: Verdict = "same" if first.verdict == "same" else "late"
    judgement = _settled(first, verdict, (_certain(own, own.pos), newest), newest.no)
    return msgspec.structs.replace(judgement, rule="asked, elsewhere")


def _settled(
    first: Judgement, verdict: Verdict, rows: tuple[State, ...], newest_no: int
) -> Judgement:
    return msgspec.structs.replace(
        first,
        verdict=verdict,
        pos=rows[0].pos,
        is_newest=first.no == newest_no,
        rule=f"asked, {verdict}",
        uncertain="",
        rows=rows,
        newest_no=newest_no,
    )


def _certain(state: State, pos: int) -> State:
    return msgspec.structs.replace(state, pos=pos, uncertain="")
