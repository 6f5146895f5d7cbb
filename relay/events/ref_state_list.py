"""The kept states of one ref, and quick answers to what the rule asks of all of them. No I/O.

A busy branch has hundreds of states, and each of its webhooks is judged among them. So they are
found by what they have in common with it, and a new one is added without sorting all others.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterator, Sequence
from operator import attrgetter
from typing import overload

from relay.events.ref_state import Judgement, State, apply, usual_copies

KEPT_STATES = 200
"""States kept of a ref."""

KEPT_SECONDS = 30 * 86_400.0
"""Seconds for which a state is kept after its last webhook."""

_KEYS: dict[str, Callable[[State], object]] = {
    "value": attrgetter("value"),
    "origin": attrgetter("origin"),
    "move": attrgetter("origin", "value"),
    "body": attrgetter("body"),
}
"""What states are grouped by."""

_POS = attrgetter("pos")


class StateList(Sequence[State]):
    """The states of a ref, oldest first."""

    __slots__ = ("_groups", "_states", "highest_no")

    def __init__(self, states: Sequence[State] = ()) -> None:
        self._states = list(states)
        self._groups: dict[str, dict[object, list[State]]] = {}
        """For each of _KEYS that was asked for: the states by their key, oldest first."""
        self.highest_no = max((state.no for state in states), default=0)
        """The highest number that was given out."""

    def __len__(self) -> int:
        return len(self._states)

    def __iter__(self) -> Iterator[State]:
        return iter(self._states)

    @overload
    def __getitem__(self, index: int) -> State: ...
    @overload
    def __getitem__(self, index: slice) -> list[State]: ...
    def __getitem__(self, index: int | slice) -> State | list[State]:
        return self._states[index]

    def place(self, state: State) -> int:
        """Return the index of a state of this list."""
        return _place(self._states, state)

    def with_value(self, value: str) -> Sequence[State]:
        """Return the states that end at a value, newest first."""
        return self._with("value", value)

    def with_origin(self, origin: str) -> Sequence[State]:
        """Return the states that start at a value, newest first."""
        return self._with("origin", origin)

    def with_move(self, origin: str | None, value: str) -> Sequence[State]:
        """Return the states with this start and end, newest first."""
        return self._with("move", (origin, value))

    def with_body(self, body: bytes) -> Sequence[State]:
        """Return the states whose first webhook had this body, newest first."""
        return self._with("body", body)

    def usual_copies(self) -> int:
        """See relay.events.ref_state.usual_copies."""
        return usual_copies(self._states)

    def take(self, judgement: Judgement) -> None:
        """Change the list as a judgement says; see relay.events.ref_state.apply."""
        rows = judgement.rows
        if len(rows) == 1 and (not self._states or rows[0].pos > self._states[-1].pos):
            if rows[0].no > self.highest_no:
                self._append(rows[0])
                return
        elif len(rows) == 1 and self._replace(rows[0]):
            return
        self._states = apply(judgement, self._states)
        self.highest_no = max([self.highest_no, *(row.no for row in rows)])
        self._groups.clear()

    def let_go(self, now: float) -> list[State]:
        """Remove the oldest states that need not be kept any more, and return them: all but the
        200 newest of the last 30 days, and never the newest one or the one with the highest number,
        so that no number is used again. ``now`` is in seconds since the Unix epoch."""
        states = self._states
        gone: list[State] = []
        kept: list[State] = []
        for index, state in enumerate(states[:-1]):
            is_kept = len(states) - index <= KEPT_STATES and now - state.last_seen <= KEPT_SECONDS
            if is_kept:
                break
            (kept if state.no == self.highest_no else gone).append(state)
        if gone:
            self._states = kept + states[len(gone) + len(kept) :]
            for state in gone:
                for kind, groups in self._groups.items():
                    group = groups[_KEYS[kind](state)]
                    del group[_place(group, state)]
        return gone

    def _append(self, state: State) -> None:
        self._states.append(state)
        self.highest_no = state.no
        for kind, groups in self._groups.items():
            groups.setdefault(_KEYS[kind](state), []).append(state)

    def _replace(self, row: State) -> bool:
        """Put a row in the place of the one with its number. Return False where more changes than
        what no state is found by."""
        index = self.place(row)
        before = self._states[index] if index < len(self._states) else None
        if before is None or (before.no, before.pos) != (row.no, row.pos):
            return False
        if any(key(before) != key(row) for key in _KEYS.values()):
            return False
        self._states[index] = row
        for kind, groups in self._groups.items():
            group = groups[_KEYS[kind](row)]
            group[_place(group, row)] = row
        return True

    def _with(self, kind: str, key: object) -> Sequence[State]:
        groups = self._groups.get(kind)
        if groups is None:
            groups = self._groups[kind] = {}
            for state in self._states:
                groups.setdefault(_KEYS[kind](state), []).append(state)
        return groups.get(key, ())[::-1]


def _place(states: Sequence[State], state: State) -> int:
    return bisect_left(states, state.pos, key=_POS)
