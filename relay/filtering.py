"""Which deliveries and deploys are looked for. Pure.

Most of it is told by a few small fields of a job; only the rest needs its event.
"""

from __future__ import annotations

import time
from contextlib import suppress
from datetime import UTC, datetime
from typing import NamedTuple

from config.patterns import PatternSet
from config.values import parse_duration
from relay.reading import Task
from relay.statuses import Status

SHA_TOLD = 12
"""Digits of the commit in RQ's description of a job."""


class Filter(NamedTuple):
    """What is looked for; what is empty filters nothing."""

    statuses: frozenset[Status] = frozenset()
    repos: PatternSet | None = None
    names: frozenset[str] = frozenset()
    """Sources of deliveries, targets of deploys."""
    since: float = 0
    """Created no earlier than this, in seconds since the Unix epoch."""
    routes: frozenset[str] = frozenset()
    """Routes of deploys."""
    sha: str = ""
    """How the commit begins."""
    author: str = ""
    """Login, name or email of the commit's author, in whatever case."""
    branches: PatternSet | None = None
    """Names of branches and tags."""
    before: str = ""
    """Further down the list than the place that this names (``place_of``)."""

    @property
    def reads_event(self) -> bool:
        """Whether the small fields of a job do not tell."""
        return bool(self.routes or self.author or self.branches or len(self.sha) > SHA_TOLD)


def since(text: str) -> float:
    """Seconds since the Unix epoch of ``2h``, so long ago, or of an ISO 8601 time, UTC unless it
    says otherwise; 0 of nothing. Raises ValueError."""
    if not text:
        return 0
    with suppress(ValueError):
        return time.time() - float(parse_duration(text))
    try:
        moment = datetime.fromisoformat(text)
        return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
    except (ValueError, OverflowError):
        raise ValueError("write 30m, 2h, 3d, or a time such as 2026-01-31T12:00Z") from None


def place_of(created_at: str, id_: str) -> str:
    """The place of a delivery or deploy in the list of all of them; such texts are in its order."""
    return f"{created_at} {id_}"


def kind_of(description: bytes | None) -> str:
    """Of which kind a job is, by RQ's description of it."""
    return (description or b"").decode().partition(":")[0]


def is_described(description: str, wanted: Filter) -> bool:
    """Whether a job is wanted as far as RQ's description of it tells its repository and commit,
    such as ``delivery: push acme/web@2f1b…`` or ``deploy: production acme/web@2f1b…``."""
    if wanted.sha and not description.rpartition("@")[2].startswith(wanted.sha[:SHA_TOLD]):
        return False
    if wanted.repos is None:
        return True
    return wanted.repos.matches(description.rpartition("@")[0].split(" ", 2)[-1])


def is_event_wanted(task: Task | None, wanted: Filter) -> bool:
    """Whether a job is wanted as far as its event tells; one that cannot be read is not."""
    if task is None:
        return False
    if wanted.routes and task.route not in wanted.routes:
        return False
    if not task.event.sha.startswith(wanted.sha):
        return False
    name = task.event.ref.removeprefix("refs/heads/").removeprefix("refs/tags/")
    if wanted.branches is not None and not wanted.branches.matches(name):
        return False
    names = [name.casefold() for name in task.event.author.names()]
    return not wanted.author or wanted.author.casefold() in names
