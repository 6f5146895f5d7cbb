"""Filters lines of the audit, and writes them for people. Pure."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from datetime import datetime
from typing import Any, NamedTuple

import orjson

from config.patterns import PatternSet

_FIRST = ("at", "level", "event")
_CHAIN = ("seq", "prev")


class LineFilter(NamedTuple):
    """A filter of audit lines. An empty field filters nothing."""

    since: float = 0
    """Seconds since the Unix epoch; so is ``until``."""
    until: float = 0
    events: PatternSet | None = None
    repos: PatternSet | None = None
    values: Mapping[str, frozenset[str]] = {}
    """Fields that must have one of these values."""
    shas: tuple[str, ...] = ()
    """Beginnings of the commit."""

    def matches(self, entry: Mapping[str, Any]) -> bool:
        """Return whether the filter has a line's entry."""
        for field, values in self.values.items():
            if str(entry.get(field, "")) not in values:
                return False
        if self.shas and not str(entry.get("sha", "")).startswith(self.shas):
            return False
        if self.events is not None and not self.events.matches(str(entry.get("event", ""))):
            return False
        if self.repos is not None and not self.repos.matches(str(entry.get("repo", ""))):
            return False
        if not self.since and not self.until:
            return True
        at = moment_of(entry)
        return self.since <= at and (not self.until or at < self.until)


def parsed(line: bytes) -> dict[str, Any] | None:
    """Return a line's entry; None where it is no JSON object."""
    try:
        entry = orjson.loads(line)
    except orjson.JSONDecodeError:
        return None
    return entry if isinstance(entry, dict) else None


def moment_of(entry: Mapping[str, Any]) -> float:
    """Return when a line was written, in seconds since the Unix epoch; 0 if it does not say so."""
    try:
        return datetime.fromisoformat(str(entry.get("at", ""))).timestamp()
    except (ValueError, OverflowError):
        return 0


def as_text(entry: Mapping[str, Any]) -> str:
    """Return a line for people, without characters that move a terminal's cursor."""
    at, level, event = (str(entry.get(name, "")) for name in _FIRST)
    text = f"{at[:23].rstrip('Z'):23}Z {level:7} {event:22} {rest_of(entry)}"
    return "".join(char if char.isprintable() else "\N{REPLACEMENT CHARACTER}" for char in text)


def rest_of(entry: Mapping[str, Any], without: Collection[str] = ()) -> str:
    """Return the fields of a line besides time, level, event and its place in the chain."""
    return " ".join(
        f"{key}={_plain(value)}"
        for key, value in entry.items()
        if key not in (*_FIRST, *_CHAIN, *without) and value not in ("", None)
    )


def _plain(value: object) -> str:
    text = value if isinstance(value, str) else orjson.dumps(value).decode()
    return f'"{text}"' if " " in text else text
