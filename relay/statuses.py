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

_WAITS = {
    "approval": "waits for approval until {}",
    "paused": "waits while its target is paused",
    "hours": "waits until {}, when its hours begin",
    "platform": "waits until {}, when its platform wants calls again",
    "breaker": "waits until {}, when the breaker lets a call through",
    "debounce": "waits until {} for a newer one",
    "order": "waits for an older one",
    "probe": "waits for how the probe ends",
    "rate": "waits until {}, when the rate allows it",
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


def wait_note(reason: str, until: str) -> str:
    """What a deploy waits for, in the few words that a list has room for; empty without a reason.

    ``reason`` is that of ``deploy.waiting``, ``until`` a time as it is to be shown.
    """
    if reason in _WAITS:
        return _WAITS[reason].format(until)
    return f"waits for {reason}" if reason else ""


def with_deploys(own: Status, deploys: Sequence[Status]) -> Status:
    """The word for a delivery: once it is matched it stands as its worst deploy stands."""
    if own != "succeeded":
        return own
    return next((status for status in _WORST_FIRST if status in deploys), own)
