"""Which lines of the audit are wanted, and how people read one. Pure."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from datetime import datetime
from typing import Any, NamedTuple

import orjson

from config.patterns import PatternSet, is_literal
from relay.ledger.records import RecordKind

_FIRST = ("at", "level", "event")
_CHAIN = ("seq", "prev")

_WITHOUT_DELIVERY = (
    *("deploy.retry_scheduled", "deploy.failed", "deploy.stopped", "deploy.put_back"),
    *("deploy.abandoned", "console.acted"),
)
"""Events that may name a deploy and not its delivery: nothing else was known of it."""

_WILD = re.compile(r"[*?]")


class Needles(NamedTuple):
    """Bytes without which nothing in lines is wanted, so that most need not be parsed. They are as
    the relay writes its lines: JSON without spaces."""

    groups: Sequence[Sequence[bytes]] = ()
    """Of each group one must be there."""
    repos: Sequence[bytes] = ()
    """So must one of these, in whatever case."""

    def may_be_in(self, lines: bytes) -> bool:
        """Whether one of the lines may be wanted."""
        for group in self.groups:
            if not any(needle in lines for needle in group):
                return False
        if not self.repos:
            return True
        small = lines.lower()
        return any(needle in small for needle in self.repos)


class Wanted(NamedTuple):
    """What is looked for; what is empty filters nothing."""

    since: float = 0
    """Seconds since the Unix epoch; so is ``until``."""
    until: float = 0
    events: PatternSet | None = None
    repos: PatternSet | None = None
    values: Mapping[str, frozenset[str]] = {}
    """Fields that must have one of these values."""
    shas: tuple[str, ...] = ()
    """How the commit begins, one of these."""

    def takes(self, entry: Mapping[str, Any]) -> bool:
        """Whether a line's entry is wanted."""
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

    def needles(self) -> Needles:
        """What every line has that is taken, as far as that can be told."""
        groups = [
            [_written(field, value) for value in values]
            for field, values in self.values.items()
            if all(values)
        ]
        groups.append([_written("sha", sha)[:-1] for sha in self.shas])
        groups.append(_beginnings(self.events))
        return Needles([group for group in groups if group], _names(self.repos))


class About(NamedTuple):
    """The lines of one delivery with those of its deploys, or of one deploy. Which deploys are a
    delivery's is known once its lines are: ``takes`` lets through more than ``told`` does."""

    kind: RecordKind
    id: str

    since: float = 0
    until: float = 0

    def takes(self, entry: Mapping[str, Any]) -> bool:
        """Whether a line may be one of them."""
        return self._names_it(entry) or (
            self.kind == "delivery" and "deploy" in entry and "delivery" not in entry
        )

    def told(self, entries: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
        """Those that are, of all that were let through."""
        # A duplicate names the deploy of another delivery.
        deploys = {
            str(entry.get("deploy", ""))
            for entry in entries
            if self._names_it(entry) and entry.get("event") != "deploy.duplicate"
        }
        return [
            entry
            for entry in entries
            if self._names_it(entry)
            or ("delivery" not in entry and str(entry.get("deploy")) in deploys)
        ]

    def needles(self) -> Needles:
        """What every line has that is taken."""
        own = orjson.dumps(self.id)
        others = _WITHOUT_DELIVERY if self.kind == "delivery" else ()
        return Needles([[own, *(_written("event", event) for event in others)]])

    def _names_it(self, entry: Mapping[str, Any]) -> bool:
        return self.id in (entry.get(self.kind), entry.get("replay_of"))


def parsed(line: bytes) -> dict[str, Any] | None:
    """A line's entry; None where it is no JSON object."""
    try:
        entry = orjson.loads(line)
    except orjson.JSONDecodeError:
        return None
    return entry if isinstance(entry, dict) else None


def moment_of(entry: Mapping[str, Any]) -> float:
    """When a line was written, in seconds since the Unix epoch; 0 if it does not say so."""
    try:
        return datetime.fromisoformat(str(entry.get("at", ""))).timestamp()
    except (ValueError, OverflowError):
        return 0


def as_text(entry: Mapping[str, Any]) -> str:
    """One line for people, without what would move a terminal's cursor."""
    at, level, event = (str(entry.get(name, "")) for name in _FIRST)
    told = f"{at[:23].rstrip('Z'):23}Z {level:7} {event:22} {rest_of(entry)}"
    return "".join(char if char.isprintable() else "\N{REPLACEMENT CHARACTER}" for char in told)


def rest_of(entry: Mapping[str, Any], without: Collection[str] = ()) -> str:
    """What a line has besides time, level, event and its place in the chain."""
    return " ".join(
        f"{key}={_plain(value)}"
        for key, value in entry.items()
        if key not in (*_FIRST, *_CHAIN, *without) and value not in ("", None)
    )


def _written(field: str, value: str) -> bytes:
    return orjson.dumps({field: value})[1:-1]


def _beginnings(events: PatternSet | None) -> list[bytes]:
    """How the lines of events begin to name them; nothing where a pattern does not tell."""
    wanted = [each for each in events.patterns if not each.startswith("!")] if events else []
    if any(each.startswith("re:") for each in wanted):
        return []
    return [
        _written("event", _WILD.split(each)[0])[: -1 if _WILD.search(each) else None]
        for each in wanted
    ]


def _names(repos: PatternSet | None) -> list[bytes]:
    """Repositories by name; nothing where a pattern is not one."""
    wanted = [each for each in repos.patterns if not each.startswith("!")] if repos else []
    if not all(is_literal(each) and each.isascii() for each in wanted):
        return []
    return [_written("repo", each).lower() for each in wanted]


def _plain(value: object) -> str:
    text = value if isinstance(value, str) else orjson.dumps(value).decode()
    return f'"{text}"' if " " in text else text
