"""Finds what fits a filter, the newest first. Exact, whatever the filter and the place.

1. Each field that an index knows is a cursor over that index. What all of them have in common is
   met by moving each on to where another one stands; without any the whole list is walked.
2. What the other fields say is compared in slices.
3. What costs more is read only where that did not fill a page soon: the deploys of all deliveries
   that fit, and the branches that a pattern fits.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import msgspec

from relay.ledger.filters import Filter
from relay.ledger.id_cursors import ListCursor, QueryCursor, take_chunk
from relay.ledger.predicates import (
    FIELDS_OF_DEPLOYS,
    Predicate,
    active_fields,
    fitting,
    predicates,
    words_query,
)
from relay.ledger.records import RecordKind
from relay.ledger.rows import microseconds
from relay.ledger.transaction import Reader
from relay.ledger.ways import LATEST, Bounds, Way, Ways, crossing

BOUNDS = Bounds()

_LARGEST_SLICE = 4_096

_NEAR = 50
"""Deliveries that lie no further apart are looked up in the full-text index at once."""

_OF_DELIVERIES = frozenset({"sources", "verdicts", "sha", "author", "words"})
"""Fields of which a deploy's row does not tell."""


_TIMES = frozenset({"since", "until"})


class Numbers(NamedTuple):
    """What a search returns."""

    numbers: list[int]
    is_complete: bool
    """False where ``most`` entries were compared before the end."""


async def search(
    reader: Reader,
    kind: RecordKind,
    chosen: Filter,
    limit: int,
    before: int,
    bounds: Bounds = BOUNDS,
    most: int | None = None,
) -> Numbers:
    """Return the highest ``limit`` numbers below ``before`` that fit; fewer where ``most`` entries
    were compared before that many were met."""
    fields = active_fields(chosen)
    if kind == "delivery" and fields & FIELDS_OF_DEPLOYS:
        return Numbers([], is_complete=True)
    if chosen.words and not words_query(chosen.words):
        return Numbers([], is_complete=True)
    return await _Search(reader, kind, chosen, fields, limit, before, bounds, most).run()


class _Search:
    def __init__(
        self,
        reader: Reader,
        kind: RecordKind,
        chosen: Filter,
        fields: frozenset[str],
        limit: int,
        before: int,
        bounds: Bounds,
        most: int | None,
    ) -> None:
        self._reader = reader
        self._kind = kind
        self._chosen = chosen
        self._fields = fields
        self._limit = limit
        self._before = before
        self._bounds = bounds
        self._most = most
        self._first = 0
        self._found: list[int] = []

    async def run(self) -> Numbers:
        """Return the numbers."""
        await self._bound()
        way = await self._way(await self._gathered(self._bounds.few_deliveries))
        is_over = await self._follow(way, self._bounds.compared)
        if not is_over:
            dear = await self._gathered(self._bounds.deliveries) or await self._by_branches(way)
            is_over = await self._follow(await self._way(dear), self._most)
        return Numbers(self._found, is_over)

    async def _way(self, besides: Way | None) -> Way:
        """Return the way from the place reached that all indexes know, and ``besides``."""
        ways = self._ways()
        known_ways = await ways.quick()
        known_ways += [besides] if besides is not None else []
        return crossing(known_ways) if known_ways else self._all()

    async def _by_branches(self, way: Way) -> Way | None:
        if "branches" in way.fields:
            return None
        return await self._ways().by_branch_patterns()

    async def _bound(self) -> None:
        """Set where the search begins and ends by the times that the filter names. Times and
        numbers rise together, but for what came within one moment."""
        of = "delivery" if self._kind == "delivery" else "deploy"
        if self._chosen.until:
            until = {"until": microseconds(self._chosen.until), "most": self._bounds.of_time}
            row = await self._reader.row(f"last_{of}_before", until)
            last = row["id"] if row is not None else None
            self._before = min(self._before, last + 1 if last is not None else 0)
        if self._chosen.since:
            since = {"since": microseconds(self._chosen.since), "most": self._bounds.of_time}
            row = await self._reader.row(f"first_{of}_since", since)
            first = row["id"] if row is not None else None
            self._first = first if first is not None else LATEST

    def _ways(self) -> Ways:
        return Ways(self._reader, self._kind, self._chosen, self._before, self._bounds)

    async def _gathered(self, most: int) -> Way | None:
        """Return the way through the deliveries that fit; None where ``most`` are not enough."""
        fields = self._fields & _OF_DELIVERIES
        if not fields or self._kind == "delivery":
            return None
        facets = {name: getattr(self._chosen, name) for name in fields}
        chosen = msgspec.structs.replace(Filter(), **facets)
        deliveries, is_complete = await search(
            self._reader, "delivery", chosen, most + 1, LATEST, self._bounds, most
        )
        if len(deliveries) > most or not is_complete:
            return None
        ids = {"ids": msgspec.json.encode(deliveries).decode()}
        rows = await self._reader.rows("deploy_ids_of_deliveries", ids)
        return Way(fields, ListCursor([row["id"] for row in rows], self._before))

    def _all(self) -> Way:
        query = "newest_deliveries" if self._kind == "delivery" else "newest_deploys"
        cursor = QueryCursor(self._reader, query, {}, self._before, self._bounds.slice)
        return Way(frozenset(), cursor)

    async def _follow(self, way: Way, most: int | None = None) -> bool:
        """Compare what a way leads to with the fields that it does not know. Return whether the
        search is over: the page is full, or the way at its end, before ``most`` were compared."""
        rest = self._fields - way.fields
        judges = predicates(self._chosen, rest)
        compared = 0
        # Nearly all that lie between the bounds fit the times.
        size = self._bounds.slice if rest - _TIMES else self._limit
        while len(self._found) < self._limit and (not rest or most is None or compared < most):
            numbers = await take_chunk(way.cursor, size, self._first)
            is_over = len(numbers) < size
            fitting_numbers = await self._compare(numbers, judges, rest) if rest else numbers
            self._found += fitting_numbers[: self._limit - len(self._found)]
            if is_over:
                return True
            self._before = numbers[-1]
            compared += len(numbers)
            size = min(2 * size, _LARGEST_SLICE)
        return len(self._found) >= self._limit

    async def _compare(
        self, numbers: list[int], judges: Sequence[Predicate], rest: frozenset[str]
    ) -> list[int]:
        query = "delivery_facts"
        if self._kind == "deploy":
            query = "deploy_and_delivery_facts" if rest & _OF_DELIVERIES else "deploy_facts"
        ids = {"ids": msgspec.json.encode(numbers).decode()}
        rows = fitting(await self._reader.rows(query, ids), judges)
        if "words" in rest and rows:
            with_words = await self._with_words([row["delivery"] for row in rows])
            rows = [row for row in rows if row["delivery"] in with_words]
        return [row["id"] for row in rows]

    async def _with_words(self, deliveries: list[int]) -> set[int]:
        """Return those of these deliveries, and perhaps others, whose message has the words."""
        words = words_query(self._chosen.words)
        first, last = min(deliveries), max(deliveries)
        if last - first < _NEAR * len(deliveries):
            span = {"words": words, "first": first, "last": last}
            return {row["id"] for row in await self._reader.rows("words_in_span", span)}
        spans = [{"words": words, "first": number, "last": number} for number in set(deliveries)]
        rows = [await self._reader.row("words_in_span", span) for span in spans]
        return {row["id"] for row in rows if row is not None}
