"""Which deliveries and deploys are new or have changed since the last look, for live pages.

A look reads a few columns of the newest rows, of older ones that had not ended, and of those whose
pages are open; only what has changed is read whole.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence

import msgspec

from relay.events.deploy_life import ENDED
from relay.events.ids import row_number
from relay.ledger.records import Record, RecordKind, read_records
from relay.ledger.transaction import Reader, Row

NEWEST = 50
"""The newest deliveries, and as many deploys, that are watched."""

MOST_OPEN = 200
"""Of older ones that had not ended, so many are watched on."""

_COLUMNS: Mapping[RecordKind, Sequence[str]] = {
    "delivery": ("status", "redeliveries", "cancelled_by"),
    "deploy": (
        *("delivery", "status", "waits", "waits_until", "attempt"),
        *("overtaken", "replayed_by", "approved_by"),
    ),
}

_State = tuple[object, ...]


class Changed(msgspec.Struct, frozen=True, kw_only=True):
    """What a look found."""

    records: Mapping[RecordKind, Sequence[Record]]
    """What is new or has changed, the oldest first."""
    is_gap: bool
    """More came since the last look than is watched, so some are not among them."""


class Changes:
    """Remembers what the last look saw."""

    def __init__(self) -> None:
        self._deliveries: dict[int, _State] | None = None
        self._deploys: dict[int, _State] = {}
        self._open: dict[int, None] = {}

    async def read(self, reader: Reader, watched: Collection[str]) -> Changed:
        """Return what has changed since the last look; nothing the first time. ``watched`` are ids
        of deliveries and deploys whose pages are open."""
        deliveries = await _look(reader, "delivery", _numbers("delivery", watched))
        deploys = await _look(reader, "deploy", [*self._open, *_numbers("deploy", watched)])
        is_first = self._deliveries is None
        known = self._deliveries or {}
        new_deploys = _changed(self._deploys, deploys)
        # A delivery's record tells how its deploys stand.
        touched = {deploys[number][0] for number in new_deploys}
        affected = {number for number in deliveries if number in touched}
        new_deliveries = _changed(known, deliveries) | affected
        is_gap = _is_gap(known, deliveries) or _is_gap(self._deploys, deploys)
        self._deliveries, self._deploys = deliveries, deploys
        still_open = [number for number, state in deploys.items() if state[1] not in ENDED]
        self._open = dict.fromkeys(sorted(still_open, reverse=True)[:MOST_OPEN])
        if is_first:
            return Changed(records={}, is_gap=False)
        return Changed(
            records={
                "delivery": await read_records(reader, "delivery", sorted(new_deliveries)),
                "deploy": await read_records(reader, "deploy", sorted(new_deploys)),
            },
            is_gap=is_gap,
        )


async def _look(reader: Reader, kind: RecordKind, numbers: Iterable[int]) -> dict[int, _State]:
    newest = await reader.rows(f"newest_{kind}_states", {"most": NEWEST})
    states = {int(row["id"]): _state(row, kind) for row in newest}
    for number in numbers:
        if number not in states:
            row = await reader.row(f"{kind}_state", {kind: number})
            if row is not None:
                states[number] = _state(row, kind)
    return states


def _numbers(kind: RecordKind, ids: Iterable[str]) -> list[int]:
    numbers = (row_number(kind, id_) for id_ in ids)
    return [number for number in numbers if number is not None]


def _state(row: Row, kind: RecordKind) -> _State:
    return tuple(row[name] for name in _COLUMNS[kind])


def _changed(known: Mapping[int, _State], states: Mapping[int, _State]) -> set[int]:
    return {number for number, state in states.items() if known.get(number) != state}


def _is_gap(known: Mapping[int, _State], states: Mapping[int, _State]) -> bool:
    if not known or len(states) < NEWEST:
        return False
    newest = sorted(states, reverse=True)[:NEWEST]
    return newest[-1] > max(known) + 1
