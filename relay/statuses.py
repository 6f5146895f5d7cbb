"""In which words a delivery or deploy is told of, and what may be done to it. Pure.

RQ's statuses say where a job is; these say what it means. docs/dead-letter.md has the table.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, get_args

Kind = Literal["delivery", "deploy"]

Status = Literal[
    "waiting",
    "running",
    "retrying",
    "succeeded",
    "superseded",
    "cancelled",
    "stopped",
    "failed",
    "held",
    "unknown",
]

STATUSES: tuple[Status, ...] = get_args(Status)

ACTIVE: frozenset[Status] = frozenset({"waiting", "running", "retrying"})
"""What has not ended; it is never replayed."""

REPLAYABLE: frozenset[Status] = frozenset({"failed", "held", "stopped", "cancelled"})
"""What may be replayed without force."""

ACTIVE_IN_RQ = (
    *("queued", "started", "scheduled", "deferred"),
    *("created", "rate_limited", "ready_to_enqueue"),
)
"""RQ's statuses of a job that has not ended."""

_WORDS: dict[str, Status] = {
    "started": "running",
    "scheduled": "retrying",
    "canceled": "cancelled",
    "stopped": "stopped",
}

_WORST_FIRST: tuple[Status, ...] = (
    *("held", "failed", "stopped", "running", "retrying", "waiting"),
    *("cancelled", "superseded", "succeeded"),
)


def status_of(
    rq_status: str, *, waits: bool, held: bool, superseded: bool, cancelled: bool
) -> Status:
    """The word for one job. ``waits``: what is scheduled is no further attempt, but waits for what
    ``deploy.waiting`` told. ``held``, ``superseded`` and ``cancelled`` are what its end says."""
    if rq_status == "scheduled" and waits:
        return "waiting"
    if rq_status == "finished":
        if cancelled:
            return "cancelled"
        return "superseded" if superseded else "succeeded"
    if rq_status == "failed":
        return "held" if held else "failed"
    if rq_status in _WORDS:
        return _WORDS[rq_status]
    return "waiting" if rq_status in ACTIVE_IN_RQ else "unknown"


def with_deploys(own: Status, deploys: Sequence[Status]) -> Status:
    """The word for a delivery: once it is matched it stands as its worst deploy stands."""
    if own != "succeeded":
        return own
    return next((status for status in _WORST_FIRST if status in deploys), own)
