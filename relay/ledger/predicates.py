"""Whether one delivery or deploy fits a filter. Pure."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Mapping, Sequence

from relay.ledger.filters import Filter
from relay.ledger.rows import microseconds
from relay.ledger.transaction import Row

Predicate = Callable[[Row], bool]
"""Judges a row of ``delivery_facts`` or ``deploy_facts``."""

FIELDS_OF_DEPLOYS = frozenset({"targets", "routes", "attention"})
"""Fields of a filter that no delivery fits."""

_WORD = re.compile(r"[^\W_]+")


def active_fields(chosen: Filter) -> frozenset[str]:
    """Return the fields that filter anything."""
    plain = Filter()
    return frozenset(
        name for name in chosen.__struct_fields__ if getattr(chosen, name) != getattr(plain, name)
    )


def predicates(chosen: Filter, fields: frozenset[str]) -> list[Predicate]:
    """Return what judges these fields of a filter. ``words`` are not among them: the full-text
    index alone knows."""
    return [_MAKE[name](chosen) for name in _MAKE if name in fields]


def words_query(words: str) -> str:
    """Return words as a query of the full-text index; empty where there are none. The index splits
    texts in the same way."""
    return " ".join(f'"{word}"' for word in _WORD.findall(unicodedata.normalize("NFC", words)))


def is_author(forms: str, author: str) -> bool:
    """Return whether one of the forms of an author's name, one a line, is this one."""
    folded = author.casefold()
    return any(form.casefold() == folded for form in forms.split("\n"))


def _one_of(column: str, values: frozenset[str]) -> Predicate:
    return lambda row: row[column] in values


def _repos(chosen: Filter) -> Predicate:
    matches = _remembered(chosen.repos.matches if chosen.repos else lambda _: True)
    return lambda row: matches(row["repo"])


def _branches(chosen: Filter) -> Predicate:
    matches = _remembered(chosen.branches.matches if chosen.branches else lambda _: True)
    return lambda row: matches(row["branch"])


def _author(chosen: Filter) -> Predicate:
    matches = _remembered(lambda forms: is_author(forms, chosen.author))
    return lambda row: matches(row["author"])


def _sha(chosen: Filter) -> Predicate:
    return lambda row: row["sha"].startswith(chosen.sha)


def _since(chosen: Filter) -> Predicate:
    since = microseconds(chosen.since)
    return lambda row: row["at"] >= since


def _until(chosen: Filter) -> Predicate:
    until = microseconds(chosen.until)
    return lambda row: row["at"] < until


def _remembered(matches: Callable[[str], bool]) -> Callable[[str], bool]:
    """Judge each text once."""
    judged: dict[str, bool] = {}

    def judge(text: str) -> bool:
        if text not in judged:
            judged[text] = matches(text)
        return judged[text]

    return judge


_MAKE: Mapping[str, Callable[[Filter], Predicate]] = {
    "statuses": lambda chosen: _one_of("status", chosen.statuses),
    "sources": lambda chosen: _one_of("source", chosen.sources),
    "targets": lambda chosen: _one_of("target", chosen.targets),
    "routes": lambda chosen: _one_of("route", chosen.routes),
    "verdicts": lambda chosen: _one_of("verdict", chosen.verdicts),
    "attention": lambda _: lambda row: bool(row["attention"]),
    "repos": _repos,
    "branches": _branches,
    "author": _author,
    "sha": _sha,
    "since": _since,
    "until": _until,
}


def fitting(rows: Sequence[Row], judges: Sequence[Predicate]) -> list[Row]:
    """Return the rows that all judges take."""
    return [row for row in rows if all(judge(row) for judge in judges)]
