"""Which deliveries and deploys are new or have changed since the last look, for live pages.

A look reads the newest records, older ones of deploys that had not ended, and those whose pages are
open, and compares them with the records of the look before.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence

import msgspec

from relay.events.deploy_life import ENDED
from relay.events.ids import row_number
from relay.ledger.records import Record, RecordKind, read_records
from relay.ledger.transaction import Reader
from relay.ledger.ways import LATEST

NEWEST = 50
"""The newest deliveries, and as many deploys, that are watched."""

MOST_OPEN = 200
"""Of older ones that had not ended, so many are watched on."""


class Changed(msgspec.Struct, frozen=True, kw_only=True):
    """What a look found."""

    records: Mapping[RecordKind, Sequence[Record]]
    """What is new or has changed, the oldest first."""
    is_gap: bool
    """More came since the last look than is watched, so some are not among them."""


_Records = Mapping[int, Record]
"""By their numbers."""


class Changes:
    """Remembers what the last look saw."""

    def __init__(self) -> None:
        self._known: Mapping[RecordKind, _Records] = {}
        self._open: list[int] = []

    async def read(self, reader: Reader, watched: Collection[str]) -> Changed:
        """Return what has changed since the last look; nothing the first time. ``watched`` are ids
        of deliveries and deploys whose pages are open."""
        deliveries = await _look(reader, "delivery", _numbers("delivery", watched))
        deploys = await _look(reader, "deploy", [*self._open, *_numbers("deploy", watched)])
        still_open = [number for number, one in deploys.items() if one.status not in ENDED]
        self._open = sorted(still_open, reverse=True)[:MOST_OPEN]
        before = self._known
        self._known = {"delivery": deliveries, "deploy": deploys}
        if not before:
            return Changed(records={}, is_gap=False)
        changed_deploys = _changed(before["deploy"], deploys)
        # The page of a delivery shows its deploys.
        touched = {deploy.delivery for deploy in changed_deploys}
        return Changed(
            records={
                "delivery": _changed(before["delivery"], deliveries, touched),
                "deploy": changed_deploys,
            },
            is_gap=any(_is_gap(before[kind], now) for kind, now in self._known.items()),
        )


async def _look(reader: Reader, kind: RecordKind, numbers: Iterable[int]) -> _Records:
    query = "newest_deliveries" if kind == "delivery" else "newest_deploys"
    newest = await reader.rows(query, {"before": LATEST, "most": NEWEST})
    looked_at = sorted({*(int(row["id"]) for row in newest), *numbers})
    records = await read_records(reader, kind, looked_at)
    return {row_number(kind, record.id) or 0: record for record in records}


def _numbers(kind: RecordKind, ids: Iterable[str]) -> list[int]:
    numbers = (row_number(kind, id_) for id_ in ids)
    return [number for number in numbers if number is not None]


def _changed(
    before: _Records, now: _Records, touched: Collection[str] = frozenset()
) -> list[Record]:
    return [
        record
        for number, record in now.items()
        if before.get(number) != record or record.id in touched
    ]


def _is_gap(before: _Records, now: _Records) -> bool:
    if not before or len(now) < NEWEST:
        return False
    newest = sorted(now, reverse=True)[:NEWEST]
    return newest[-1] > max(before) + 1
