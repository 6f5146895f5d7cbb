"""Which deliveries or deploys a list, a count or a command is about. Pure."""

from __future__ import annotations

import time
from contextlib import suppress
from datetime import UTC, datetime

import msgspec

from config.patterns import PatternSet
from config.values import parse_duration


class Filter(msgspec.Struct, frozen=True, kw_only=True):
    """What is looked for; a field that is empty filters nothing. Within a field one value has to
    fit, and each field has to."""

    statuses: frozenset[str] = frozenset()
    """Of deploys those of relay/events/deploy_life.py, of deliveries DELIVERY_STATUSES."""
    sources: frozenset[str] = frozenset()
    targets: frozenset[str] = frozenset()
    """Of deploys; no delivery has a target."""
    routes: frozenset[str] = frozenset()
    """Of deploys; no delivery has a route."""
    verdicts: frozenset[str] = frozenset()
    repos: PatternSet | None = None
    """Patterns as in relay.yaml, without regard to case."""
    branches: PatternSet | None = None
    """Names of branches and tags; patterns as in relay.yaml."""
    sha: str = ""
    """How the commit begins."""
    author: str = ""
    """Login, name or email of the commit's author, in any case."""
    words: str = ""
    """Words that all stand in the commit's message or the pull request's title, in any case."""
    since: float = 0
    """Created no earlier, in seconds since the Unix epoch; 0: at any time."""
    until: float = 0
    """Created earlier than this, in seconds since the Unix epoch; 0: at any time."""
    attention: bool = False
    """Only deploys that failed or are uncertain, that no newer success has overtaken and that were
    not replayed."""


def repo_patterns(patterns: tuple[str, ...]) -> PatternSet | None:
    """Return patterns of repositories as a filter has them. Raises ValueError."""
    return PatternSet(patterns, "path", ignore_case=True) if patterns else None


def branch_patterns(patterns: tuple[str, ...]) -> PatternSet | None:
    """Return patterns of branches and tags as a filter has them. Raises ValueError."""
    return PatternSet(patterns, "path") if patterns else None


def since(text: str) -> float:
    """Return the seconds since the Unix epoch of ``2h`` (ago) or of an ISO 8601 time, UTC unless it
    says otherwise; 0 of an empty text. Raises ValueError."""
    if not text:
        return 0
    with suppress(ValueError):
        return time.time() - float(parse_duration(text))
    try:
        moment = datetime.fromisoformat(text)
        return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
    except (ValueError, OverflowError):
        raise ValueError("write 30m, 2h, 3d, or a time such as 2026-01-31T12:00Z") from None
