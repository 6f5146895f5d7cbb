"""The states of a ref, and what a webhook is among them. The rule is in ref_rule.py. No I/O."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import msgspec

from relay.events.ref_change import RefChange

Verdict = Literal["new", "same", "known", "late"]
"""``new``: a state newer than all others. ``same``: another request about a state that is known.
``known``: the same request again. ``late``: a state older than the newest one."""

POS_STEP = 2**32
"""Distance between the places of two states, so that late ones fit between them."""


class State(msgspec.Struct, frozen=True):
    """One row of the history of a ref."""

    no: int
    """Names the state; never used again for another one of the ref."""
    pos: int
    """Place among the states of the ref: an older state has a smaller one."""
    origin: str | None
    """Value before; None where no webhook told it."""
    value: str
    """Value after, see RefChange.value."""
    at: float | None
    """Clock of the payload in seconds since the Unix epoch."""
    own_clock: bool
    """Whether ``at`` is the time of the change itself."""
    body: bytes
    """Hash of the first webhook's body."""
    copies: int
    """Webhooks about it that had delivery ids of their own; touches do not count."""
    first_seen: float
    last_seen: float
    touched: bool = False
    """True while only a touch, or the server's answer, has told of the state."""
    uncertain: str = ""
    """Why its place is uncertain, in words; empty if it is certain."""


class Arrival(msgspec.Struct, frozen=True):
    """One webhook that has arrived."""

    change: RefChange
    delivery_id: str
    """The sender's id of the delivery, the signed one where there is one; empty without."""
    body: bytes
    """Hash of the body."""
    seen_at: float
    """When it arrived here, in seconds since the Unix epoch."""


class Judgement(msgspec.Struct, frozen=True):
    """What an arrival is among the states of its ref, and what changes in them."""

    verdict: Verdict
    no: int
    """Number of the state that the arrival is about. Of a known one it is 0 where no kept state
    has its body: the stored delivery of that id has the number."""
    pos: int
    """Place of that state; 0 where ``no`` is 0."""
    is_newest: bool
    """Whether that state is the newest one. New ones, and same ones that are the newest, go
    through the routes."""
    rule: str
    """The part of the rule that decided, such as ``4 gap``; see RULES in ref_rule.py."""
    uncertain: str = ""
    """Why the order is uncertain, in words; empty if it is certain."""
    rows: tuple[State, ...] = ()
    """The rows to write: each is inserted if no row has its number, otherwise it takes the place of
    that row. The arrival's own state is the first; a second one is the state that the git server
    told when it was asked, or, rarely, states that move to make room for a late one."""
    stood_at: str | None = None
    """Value of the newest state before this arrival: the commit of a deletion that names none."""
    newest_no: int = 0
    """Number of the newest state after this arrival."""


def apply(judgement: Judgement, states: Sequence[State]) -> list[State]:
    """Return the states of a ref after a judgement has been stored, oldest first."""
    rows = {state.no: state for state in states}
    rows.update((row.no, row) for row in judgement.rows)
    return sorted(rows.values(), key=lambda state: state.pos)


def has_gap(states: Sequence[State], index: int) -> bool:
    """Return whether something may be missing before a state: it is the first one kept, does not
    start where the one before it ends, or does not tell and ends where the one before it ends."""
    if index == 0:
        return True
    state, ended_at = states[index], states[index - 1].value
    return state.value == ended_at if state.origin is None else state.origin != ended_at


def usual_copies(states: Sequence[State]) -> int:
    """Return the largest number from 1 to 5 of which at least one state in five has as many copies
    or more: as many webhooks as a change of this ref usually causes."""
    for copies in (5, 4, 3, 2):
        if 5 * sum(state.copies >= copies for state in states) >= len(states):
            return copies
    return 1


def place_between(states: Sequence[State], index: int) -> tuple[int, tuple[State, ...]]:
    """Return a place directly below the state at an index, and the states that move to make room.

    After 32 late states in one place there is no room left; then all older ones move down.
    """
    above = states[index].pos
    if index == 0:
        return above - POS_STEP, ()
    below = states[index - 1].pos
    if above - below > 1:
        return (below + above) // 2, ()
    moved = (msgspec.structs.replace(state, pos=state.pos - POS_STEP) for state in states[:index])
    return (below - POS_STEP + above) // 2, tuple(moved)


def next_no(states: Sequence[State]) -> int:
    """Return the number of the next state. ``kept`` never lets go of the highest one."""
    return max((state.no for state in states), default=0) + 1
