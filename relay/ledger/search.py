"""Finds what fits a filter, the newest first. Exact, whatever the filter and the place.

1. A filter of one field that an index knows is read from that index.
2. Otherwise the way that leads through the fewest entries is taken, or the whole list where there
   is none, and what the other fields say is compared in slices.
3. A pattern of branches is looked up, which costs more, only where that did not fill a page soon.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from relay.ledger.filters import Filter
from relay.ledger.id_cursors import ListCursor, QueryCursor, ResumedCursor, take_chunk
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
from relay.ledger.ways import LATEST, Bounds, Way, Ways

BOUNDS = Bounds()

_LARGEST_SLICE = 4_096

_OF_DELIVERIES = frozenset({"sources", "verdicts", "sha", "author", "words"})
"""Fields of which a deploy's row does not tell."""


async def search(
    reader: Reader,
    kind: RecordKind,
    chosen: Filter,
    limit: int,
    before: int,
    bounds: Bounds = BOUNDS,
) -> list[int]:
    """Return the highest ``limit`` numbers below ``before`` that fit."""
    fields = active_fields(chosen)
    if kind == "delivery" and fields & FIELDS_OF_DEPLOYS:
        return []
    if chosen.words and not words_query(chosen.words):
        return []
    return await _Search(reader, kind, chosen, fields, limit, before, bounds).run()


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
    ) -> None:
        self._reader = reader
        self._kind = kind
        self._chosen = chosen
        self._fields = fields
        self._limit = limit
        self._before = before
        self._bounds = bounds
        self._first = 0
        self._found: list[int] = []

    async def run(self) -> list[int]:
        """Return the numbers."""
        await self._bound()
        best, is_short = await self._best()
        patterns = self._chosen.branches
        if is_short or "branches" in best.fields or patterns is None:
            await self._follow(best)
        elif not await self._follow(best, self._bounds.compared):
            by_branch = await self._ways().by_branch_patterns()
            await self._follow(by_branch or best)
        return self._found

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

    async def _best(self) -> tuple[Way, bool]:
        """Return the way with the fewest entries, as far as their beginnings tell, and whether it
        is short."""
        ways = self._ways()
        candidates = await ways.quick()
        if self._fields & {"since", "until"}:
            by_time = await ways.by_time(max(self._bounds.of_time, self._limit))
            candidates += [by_time] if by_time is not None else []
        if len(candidates) == 1 and candidates[0].fields >= self._fields:
            return candidates[0], True
        best, rank = self._all(), (2, 0)
        for way in candidates:
            beginning = await take_chunk(way.cursor, self._bounds.short)
            # Of two that go on, the one that has come further is the sparser one.
            is_long = len(beginning) == self._bounds.short
            own_rank = (1, beginning[-1]) if is_long else (0, len(beginning))
            if own_rank < rank:
                rank, best = own_rank, Way(way.fields, ResumedCursor(beginning, way.cursor))
        if self._kind == "deploy" and rank[0]:
            gathered = await self._gathered()
            if gathered is not None:
                return gathered, True
        return best, not rank[0]

    async def _gathered(self) -> Way | None:
        """Return the way through the deliveries of a deploy; None where they are too many."""
        fields = self._fields & _OF_DELIVERIES
        if not fields:
            return None
        facets = {name: getattr(self._chosen, name) for name in fields}
        chosen = msgspec.structs.replace(Filter(), **facets)
        most = self._bounds.deliveries
        deliveries = await search(self._reader, "delivery", chosen, most + 1, LATEST, self._bounds)
        if len(deliveries) > most:
            return None
        deploys: list[int] = []
        for delivery in deliveries:
            rows = await self._reader.rows("deploy_ids_of_delivery", {"delivery": delivery})
            deploys += [row["id"] for row in rows]
        return Way(fields, ListCursor(deploys, self._before))

    def _all(self) -> Way:
        query = "newest_deliveries" if self._kind == "delivery" else "newest_deploys"
        cursor = QueryCursor(self._reader, query, {}, self._before, self._bounds.slice)
        return Way(frozenset(), cursor)

    async def _follow(self, way: Way, most: int | None = None) -> bool:
        """Compare what a way leads to with the fields that it does not know. Return whether the
        search is over: the page is full, or the way at its end, before ``most`` were compared."""
        rest = self._fields - way.fields
        judges = predicates(self._chosen, rest)
        compared, size = 0, self._bounds.slice if rest else self._limit
        while len(self._found) < self._limit and (most is None or compared < most):
            numbers = await take_chunk(way.cursor, size)
            is_over = len(numbers) < size or numbers[-1] < self._first
            fitting_numbers = numbers
            if rest:
                fitting_numbers = await self._compare(numbers, judges, "words" in rest)
            self._found += fitting_numbers[: self._limit - len(self._found)]
            if is_over:
                return True
            self._before = numbers[-1]
            compared += len(numbers)
            size = min(2 * size, _LARGEST_SLICE)
        return len(self._found) >= self._limit

    async def _compare(
        self, numbers: list[int], judges: Sequence[Predicate], with_words: bool
    ) -> list[int]:
        query = "delivery_facts" if self._kind == "delivery" else "deploy_facts"
        ids = {"ids": msgspec.json.encode(numbers).decode()}
        rows = fitting(await self._reader.rows(query, ids), judges)
        if with_words:
            words = words_query(self._chosen.words)
            kept = []
            for row in rows:
                place = {"words": words, "delivery": row["delivery"]}
                if await self._reader.row("has_words", place) is not None:
                    kept.append(row)
            rows = kept
        return [row["id"] for row in rows]
