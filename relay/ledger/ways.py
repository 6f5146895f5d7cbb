"""Ways into a list: for each field of a filter the cursor that its index gives, if there is one.

A way leads to all numbers that fit its fields and to no others. Names that a pattern fits are read
from an index first, so that a pattern costs as much as the names that it may fit.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any, NamedTuple

from config.patterns import PatternSet, compile_pattern, is_literal, literal_part
from relay.ledger.filters import Filter
from relay.ledger.id_cursors import (
    IdCursor,
    IntersectedCursor,
    MergedCursor,
    QueryCursor,
)
from relay.ledger.predicates import is_author, words_query
from relay.ledger.records import RecordKind
from relay.ledger.transaction import Reader


class Bounds(NamedTuple):
    """What decides which way is taken. Whatever they are, what is found is the same."""

    compared: int = 2_048
    """Entries that are compared before anything is read that costs more."""
    of_time: int = 5_000
    """Entries among which the first and the last one of a span of time are looked for: what came
    within one moment has no order."""
    few_deliveries: int = 4_000
    """Deliveries whose deploys are gathered at once."""
    deliveries: int = 20_000
    """Deliveries whose deploys are gathered after that."""
    names: int = 3_000
    """Names whose numbers are merged. What fits more is frequent, and is met soon."""
    slice: int = 128
    """Entries that are compared at first; each time after that twice as many."""


LATEST = 2**62
"""A time, or a number, after all others."""

_FEW = 16

_AFTER_HEX = "g"

_AFTER_TEXT = "\U0010ffff"


class Way(NamedTuple):
    """A cursor, and the fields of the filter that all its numbers fit."""

    fields: frozenset[str]
    cursor: IdCursor


def crossing(ways: Sequence[Way]) -> Way:
    """Return the way to what all of these ways lead to."""
    if len(ways) == 1:
        return ways[0]
    fields = frozenset[str]().union(*(way.fields for way in ways))
    return Way(fields, IntersectedCursor([way.cursor for way in ways]))


class Ways:
    """The ways to what a filter is about, of the numbers below ``before``."""

    def __init__(
        self, reader: Reader, kind: RecordKind, chosen: Filter, before: int, bounds: Bounds
    ) -> None:
        self._reader = reader
        self._kind = kind
        self._chosen = chosen
        self._before = before
        self._bounds = bounds
        self._list = "deliveries" if kind == "delivery" else "deploys"

    async def quick(self) -> list[Way]:
        """Return the ways that cost next to nothing."""
        chosen = self._chosen
        ways: list[Way] = []
        if chosen.statuses and not (self._kind == "deploy" and chosen.targets):
            ways.append(self._keys("statuses", "status", chosen.statuses))
        if chosen.repos is not None and chosen.repos.includes_anything:
            names = await self._repo_names(chosen.repos)
            if len(names) <= self._bounds.names:
                ways.append(self._keys("repos", "repo", names))
        if chosen.branches is not None and _is_literal(chosen.branches):
            ways.append(self._keys("branches", "branch", chosen.branches.patterns))
        if self._kind == "deploy":
            return ways + self._deploy_ways()
        return ways + await self._delivery_ways()

    async def by_branch_patterns(self) -> Way | None:
        """Return the way by the names of branches that patterns fit: it reads an index, of the
        whole list where no pattern says how the names begin."""
        patterns = self._chosen.branches
        if patterns is None or _is_literal(patterns) or not patterns.includes_anything:
            return None
        names: set[str] = set()
        for pattern in patterns.patterns:
            if pattern.startswith("!"):
                continue
            # There may be hundreds of thousands, so each costs one call.
            search = compile_pattern(pattern, "path").search
            rows = await self._reader.rows("names_of_branches", _range(pattern))
            names.update(row["name"] for row in rows if search(row["name"]))
        fitting = [name for name in names if not patterns.excludes(name)]
        if len(fitting) > self._bounds.names:
            return None
        return self._keys("branches", "branch", fitting)

    def _deploy_ways(self) -> list[Way]:
        chosen = self._chosen
        ways = []
        if chosen.targets and chosen.statuses:
            keys = [
                {"key": key, "status": one} for key in chosen.targets for one in chosen.statuses
            ]
            cursors = [self._cursor("deploys_of_target_and_status", key) for key in keys]
            ways.append(Way(frozenset({"targets", "statuses"}), _merged(cursors)))
        elif chosen.targets:
            ways.append(self._keys("targets", "target", chosen.targets))
        if chosen.routes:
            ways.append(self._keys("routes", "route", chosen.routes))
        if chosen.attention:
            ways.append(self._query("attention", "deploys_of_attention", {}))
        return ways

    async def _delivery_ways(self) -> list[Way]:
        chosen = self._chosen
        ways = []
        if chosen.sources:
            ways.append(self._keys("sources", "source", chosen.sources))
        if chosen.verdicts and "new" not in chosen.verdicts:
            ways.append(self._keys("verdicts", "verdict", chosen.verdicts))
        if chosen.sha:
            span = {"first": chosen.sha, "last": chosen.sha + _AFTER_HEX}
            ways.append(self._query("sha", "deliveries_of_commit", span))
        if chosen.words:
            query = {"words": words_query(chosen.words)}
            ways.append(self._query("words", "deliveries_of_words", query))
        if chosen.author:
            rows = await self._reader.rows("names_of_authors")
            names = [row["name"] for row in rows if is_author(row["name"], chosen.author)]
            ways.append(self._keys("author", "author", names))
        return ways

    async def _repo_names(self, patterns: PatternSet) -> list[str]:
        if _is_literal(patterns) and all(pattern.isascii() for pattern in patterns.patterns):
            return list({pattern.lower() for pattern in patterns.patterns})
        rows = await self._reader.rows("names_of_repos")
        return [row["name"] for row in rows if patterns.matches(row["name"])]

    def _keys(self, field: str, column: str, keys: Collection[str]) -> Way:
        """Return the way by the values of one column."""
        query = f"{self._list}_of_{column}"
        chunk = 64 if len(keys) <= _FEW else 2
        cursors = [self._cursor(query, {"key": key}, chunk) for key in keys]
        return Way(frozenset({field}), _merged(cursors))

    def _query(self, field: str, query: str, params: Mapping[str, Any]) -> Way:
        return Way(frozenset({field}), self._cursor(query, params))

    def _cursor(self, query: str, params: Mapping[str, Any], chunk: int = 64) -> QueryCursor:
        return QueryCursor(self._reader, query, params, self._before, chunk)


def _merged(cursors: list[QueryCursor]) -> IdCursor:
    return cursors[0] if len(cursors) == 1 else MergedCursor(cursors)


def _is_literal(patterns: PatternSet) -> bool:
    return all(is_literal(pattern) for pattern in patterns.patterns)


def _range(pattern: str) -> dict[str, str]:
    """Return how names begin and end that a pattern fits, and which text stands in them."""
    begin = ""
    if not pattern.startswith("re:"):
        for char in pattern:
            if char in "*?[]{}":
                break
            begin += char
    like = literal_part(pattern)
    for char in "\\%_":
        like = like.replace(char, "\\" + char)
    return {"first": begin, "last": begin + _AFTER_TEXT, "like": f"%{like}%"}
