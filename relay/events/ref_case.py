"""An arrival beside the states of its ref: the questions that the rule asks. No I/O."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

import msgspec

from relay.events.ref_state import (
    POS_STEP,
    Arrival,
    Judgement,
    State,
    has_gap,
    place_between,
)
from relay.events.ref_state_list import StateList

CLOCK_TOLERANCE = 5.0
"""Seconds by which an event's own clock may be wrong: git servers write it when they make the
payload, and another push may have moved it by then."""


class Case:
    """An arrival and the kept states, oldest first. ``newest``, S in the rule, needs a state."""

    def __init__(
        self, arrival: Arrival, states: Sequence[State], known_body_of_id: bytes | None
    ) -> None:
        self.change = arrival.change
        self.body = arrival.body
        self.seen_at = arrival.seen_at
        self.states = states if isinstance(states, StateList) else StateList(states)
        self.known_body = known_body_of_id if arrival.delivery_id else None
        # Each part of the rule asks for it: a cached property would take its lock each time.
        if states:
            self.newest = self.states[-1]

    @property
    def starts_at_newest(self) -> bool:
        """Whether the event says that it starts where the ref stands."""
        return self.change.origin == self.newest.value

    @property
    def starts_elsewhere(self) -> bool:
        """Whether the event says that it starts elsewhere than where the ref stands."""
        return self.change.origin is not None and self.change.origin != self.newest.value

    @property
    def ends_where_newest_begins(self) -> bool:
        """Whether the event ends where the newest state, after a gap, begins."""
        last = len(self.states) - 1
        return self.newest.origin == self.change.value and has_gap(self.states, last)

    @property
    def seconds_after_newest(self) -> float | None:
        """How much later than the newest state the event is by the clock. None where one of them
        has no clock, or their clocks are of two kinds."""
        at, newest = self.change.at, self.newest
        if at is None or newest.at is None or self.change.own_clock != newest.own_clock:
            return None
        return at - newest.at

    @cached_property
    def usual(self) -> int:
        """How many webhooks a change of this ref usually causes."""
        return self.states.usual_copies()

    def expects_copy(self, state: State) -> bool:
        """Return whether a state has had fewer webhooks than usual."""
        return state.copies < self.usual

    def equal_moves(self) -> list[State]:
        """Return the kept states with the event's start, end and clock, newest first."""
        moves = self.states.with_move(self.change.origin, self.change.value)
        return [state for state in moves if self.may_have_clock_of(state)]

    def may_have_clock_of(self, state: State) -> bool:
        """Return whether the event may be of one change with a state as far as the clock tells: all
        webhooks of a change have one clock. Where one has none, they may be."""
        at = self.change.at
        if at is None or state.at is None:
            return True
        tolerance = CLOCK_TOLERANCE if self.change.own_clock and state.own_clock else 0.0
        return abs(at - state.at) <= tolerance

    def gap_at_end(self) -> int | None:
        """Return the index of the newest state after a gap that begins at the event's commit."""
        value = self.change.value
        if not value:
            return None
        for state in self.states.with_origin(value):
            index = self.states.place(state)
            if has_gap(self.states, index):
                return index
        return None

    def place_by_clock(self) -> int:
        """Return the index of the state that the event comes directly before by the clock; among
        states of its second the links tell."""
        at, states = self.change.at or 0.0, self.states
        index = len(states) - 1
        while index > 0:
            before = states[index - 1]
            if before.at is not None and before.at < at:
                break
            if before.at == at and before.origin != self.change.value:
                break
            index -= 1
        return index

    def known(self, rule: str) -> Judgement:
        """Return that this is the same request again; nothing changes."""
        state = next(iter(self.states.with_body(self.body)), None)
        newest_no = self.newest.no if self.states else 0
        return Judgement(
            verdict="known",
            no=state.no if state else 0,
            pos=state.pos if state else 0,
            is_newest=state is not None and state.no == newest_no,
            rule=rule,
            stood_at=self._stood_at(),
            newest_no=newest_no,
        )

    def same(
        self, rule: str, state: State, doubt: str = "", *, takes_clock: bool = False
    ) -> Judgement:
        """Return that this is another request about a state, whose clock may be later."""
        uncertain = _in_words(doubt)
        row = self._repeated(state, uncertain)
        if (
            takes_clock
            and self.change.at is not None
            and (row.at is None or row.at < self.change.at)
        ):
            row = msgspec.structs.replace(row, at=self.change.at)
        return Judgement(
            verdict="same",
            no=state.no,
            pos=state.pos,
            is_newest=state is self.newest,
            rule=rule,
            uncertain=uncertain,
            rows=(row,),
            stood_at=self._stood_at(),
            newest_no=self.newest.no,
        )

    def new(self, rule: str, doubt: str = "") -> Judgement:
        """Return that this is a state newer than all others."""
        pos = self.newest.pos + POS_STEP if self.states else POS_STEP
        row = self._row(pos, _in_words(doubt))
        return Judgement(
            verdict="new",
            no=row.no,
            pos=pos,
            is_newest=True,
            rule=rule,
            uncertain=row.uncertain,
            rows=(row,),
            stood_at=self._stood_at(),
            newest_no=row.no,
        )

    def late(self, rule: str, index: int, doubt: str = "") -> Judgement:
        """Return that this is a state directly older than the one at an index."""
        pos, moved = place_between(self.states, index)
        row = self._row(pos, _in_words(doubt))
        return Judgement(
            verdict="late",
            no=row.no,
            pos=pos,
            is_newest=False,
            rule=rule,
            uncertain=row.uncertain,
            rows=(row, *moved),
            stood_at=self._stood_at(),
            newest_no=self.newest.no,
        )

    def _stood_at(self) -> str | None:
        return self.newest.value if self.states else None

    def _row(self, pos: int, uncertain: str) -> State:
        change = self.change
        return State(
            no=self.states.highest_no + 1,
            pos=pos,
            origin=change.origin,
            value=change.value,
            at=change.at,
            own_clock=change.own_clock,
            body=self.body,
            copies=1,
            first_seen=self.seen_at,
            last_seen=self.seen_at,
            touched=change.touch,
            uncertain=uncertain,
        )

    def _repeated(self, state: State, uncertain: str) -> State:
        """The row after another webhook about it. The move of a state that only a touch had told
        fills in what the touch could not tell."""
        change = self.change
        fills_in = state.touched and not change.touch
        has_own_id = self.known_body is None
        return msgspec.structs.replace(
            state,
            origin=change.origin if fills_in else state.origin,
            touched=state.touched and not fills_in,
            copies=state.copies + (has_own_id and not change.touch and not fills_in),
            last_seen=max(state.last_seen, self.seen_at),
            uncertain=state.uncertain or uncertain,
        )


def _in_words(doubt: str) -> str:
    return f"uncertain order: {doubt}" if doubt else ""
