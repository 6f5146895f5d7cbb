"""Lists of deliveries and deploys: exact pages, newest first, and counts."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from relay.events.ids import public_id, row_number
from relay.ledger.filters import Filter
from relay.ledger.records import Record, RecordKind, read_records
from relay.ledger.search import search
from relay.ledger.transaction import Reader
from relay.ledger.ways import LATEST

MOST_COUNTED = 10_000
"""A count stops here."""

MOST_COMPARED = 20_000
"""Entries that are compared for a count."""


class Listed(msgspec.Struct, frozen=True, kw_only=True):
    """One page of a list."""

    records: Sequence[Record]
    """The newest first."""
    next: str
    """The ``before`` of the next page; empty where this is the last one."""


class Count(msgspec.Struct, frozen=True, kw_only=True):
    """How many fit a filter."""

    number: int
    is_more: bool
    """There are more than ``number``."""

    def __str__(self) -> str:
        return f"more than {self.number:,}" if self.is_more else f"{self.number:,}"


async def list_records(
    reader: Reader, kind: RecordKind, chosen: Filter, limit: int, before: str = ""
) -> Listed:
    """Return the newest ``limit`` that fit, of those that come after ``before`` in the list: the
    ``next`` of the page before. Raises ValueError for a ``before`` that is none."""
    numbers = await list_numbers(reader, kind, chosen, limit + 1, before)
    shown = numbers[:limit]
    more = public_id(kind, shown[-1]) if len(numbers) > limit else ""
    return Listed(records=await read_records(reader, kind, shown), next=more)


async def list_numbers(
    reader: Reader, kind: RecordKind, chosen: Filter, limit: int, before: str = ""
) -> list[int]:
    """Return the numbers alone, as ``list_records`` does."""
    start = row_number(kind, before) if before else LATEST
    if start is None:
        raise ValueError(f"{before!r} is no {kind} after which a list goes on")
    return (await search(reader, kind, chosen, limit, start)).numbers


async def count(reader: Reader, kind: RecordKind, chosen: Filter) -> Count:
    """Return how many fit, up to MOST_COUNTED; fewer than that, with ``is_more``, where they lie
    among too many others."""
    numbers, is_complete = await search(
        reader, kind, chosen, MOST_COUNTED + 1, LATEST, most=MOST_COMPARED
    )
    number = min(len(numbers), MOST_COUNTED)
    return Count(number=number, is_more=len(numbers) > MOST_COUNTED or not is_complete)
