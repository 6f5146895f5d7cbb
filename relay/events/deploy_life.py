"""The life of a deploy: every status, what each one allows, and every step between them. Pure.

1. A deploy begins as ``waiting`` and ends in one of the statuses whose ``has_ended`` is true.
2. Only ``calling`` has a claim: the worker that owns it writes the outcome, and nobody else does.
3. What has ended is never called again. A replay is a deploy of its own.
4. ``uncertain`` has ended for the relay, not for people: a person looks at the platform, and then
   dismisses the deploy or replays it.
5. ``accepted`` and ``unknown`` belong to deployments that are followed after the call.

Lists, the API, pages, metrics, the schema's CHECK and the diagram in docs/architecture.md follow
from this file; tests walk it on a real ledger.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Literal

Status = Literal[
    "waiting",
    "calling",
    "accepted",
    "succeeded",
    "failed",
    "uncertain",
    "unknown",
    "cancelled",
    "superseded",
    "dismissed",
]

Actor = Literal["routing", "worker", "sweep", "receiver", "person"]
"""Who takes a step. The sweep runs in every receiver and worker, one at a time."""


@dataclass(frozen=True, slots=True)
class Stage:
    """What one status means and allows."""

    label: str
    """The word that people read."""
    is_open: bool = False
    """It can still be called: it waits, or its call is being made."""
    has_ended: bool = True
    """Nothing more happens to it by itself."""
    is_replayable: bool = False
    """A replay needs no ``--force``."""
    is_cancellable: bool = False
    is_approvable: bool = False
    is_dismissable: bool = False
    needs_attention: bool = False
    """A person has to decide, unless a newer success of its target and ref has overtaken it."""


LIFE: Mapping[Status, Stage] = {
    "waiting": Stage(
        "waiting", is_open=True, has_ended=False, is_cancellable=True, is_approvable=True
    ),
    "calling": Stage("calling", is_open=True, has_ended=False),
    "accepted": Stage("deploying", has_ended=False),
    "succeeded": Stage("succeeded"),
    "failed": Stage("failed", is_replayable=True, is_dismissable=True, needs_attention=True),
    "uncertain": Stage("uncertain", is_replayable=True, is_dismissable=True, needs_attention=True),
    "unknown": Stage("unknown", is_replayable=True, is_dismissable=True),
    "cancelled": Stage("cancelled", is_replayable=True),
    "superseded": Stage("superseded"),
    "dismissed": Stage("dismissed", is_replayable=True),
}
"""Every status, in the order in which lists and pages name them."""

STATUSES: tuple[Status, ...] = tuple(LIFE)


class Step(StrEnum):
    """What happens to a deploy. The values are words for documents and tests."""

    QUEUE = "queue"
    CLAIM = "claim"
    WAIT = "wait"
    SUCCEED = "succeed"
    ACCEPT = "accept"
    FAIL = "fail"
    RETRY = "retry"
    DOUBT = "doubt"
    RECLAIM = "reclaim"
    CANCEL = "cancel"
    SUPERSEDE = "supersede"
    DISMISS = "dismiss"
    APPROVE = "approve"
    EXPIRE = "expire"
    FINISH = "finish"
    BREAK = "break"
    LOSE = "lose"


@dataclass(frozen=True, slots=True)
class Transition:
    """One arrow of the diagram."""

    source: Status | None
    """None where the step makes the deploy."""
    step: Step
    goal: Status
    by: Actor
    why: str


TRANSITIONS: tuple[Transition, ...] = (
    Transition(None, Step.QUEUE, "waiting", "routing", "a route wants it, or a person replays it"),
    Transition("waiting", Step.CLAIM, "calling", "worker", "it is due and nothing holds it back"),
    Transition("waiting", Step.WAIT, "waiting", "worker", "something holds it back"),
    Transition("waiting", Step.APPROVE, "waiting", "person", "a person approves it"),
    Transition("waiting", Step.EXPIRE, "failed", "worker", "nobody approved it in time"),
    Transition("waiting", Step.FAIL, "failed", "worker", "it has no target or no call to make"),
    Transition("waiting", Step.CANCEL, "cancelled", "person", "a person cancels it"),
    Transition("waiting", Step.DOUBT, "uncertain", "person", "it is a restored ledger's"),
    Transition("waiting", Step.SUPERSEDE, "superseded", "receiver", "its ref ended"),
    Transition("waiting", Step.SUPERSEDE, "superseded", "routing", "a newer state of its ref came"),
    Transition("waiting", Step.SUPERSEDE, "superseded", "worker", "a newer state went live"),
    Transition("waiting", Step.SUPERSEDE, "superseded", "person", "it was approved as a new one"),
    Transition("calling", Step.SUCCEED, "succeeded", "worker", "the platform took the call"),
    Transition("calling", Step.ACCEPT, "accepted", "worker", "it did, and the deploy is followed"),
    Transition("calling", Step.FAIL, "failed", "worker", "the platform refused, or no try is left"),
    Transition("calling", Step.RETRY, "waiting", "worker", "it is to be called again"),
    Transition("calling", Step.DOUBT, "uncertain", "worker", "the call was sent and not answered"),
    Transition("calling", Step.RECLAIM, "waiting", "sweep", "its claim ran out, and it is retried"),
    Transition("calling", Step.DOUBT, "uncertain", "sweep", "its claim ran out"),
    Transition("accepted", Step.FINISH, "succeeded", "worker", "the deployment is live"),
    Transition("accepted", Step.BREAK, "failed", "worker", "the deployment failed"),
    Transition("accepted", Step.CANCEL, "cancelled", "worker", "the platform cancelled it"),
    Transition("accepted", Step.SUPERSEDE, "superseded", "worker", "the platform skipped it"),
    Transition("accepted", Step.LOSE, "unknown", "worker", "no end was seen before the deadline"),
    Transition("failed", Step.DISMISS, "dismissed", "person", "a person has seen to it"),
    Transition("uncertain", Step.DISMISS, "dismissed", "person", "a person has seen to it"),
    Transition("unknown", Step.DISMISS, "dismissed", "person", "a person has seen to it"),
)

OPEN: frozenset[Status] = frozenset(name for name, stage in LIFE.items() if stage.is_open)
"""Not ended and not yet taken by the platform."""

ENDED: frozenset[Status] = frozenset(name for name, stage in LIFE.items() if stage.has_ended)

REPLAYABLE: frozenset[Status] = frozenset(n for n, stage in LIFE.items() if stage.is_replayable)

ATTENTION: frozenset[Status] = frozenset(n for n, stage in LIFE.items() if stage.needs_attention)

WORST_FIRST: tuple[Status, ...] = (
    *("uncertain", "failed", "unknown", "calling", "waiting", "accepted"),
    *("cancelled", "superseded", "dismissed", "succeeded"),
)
"""The order in which the deploys of one delivery decide what the delivery is shown as."""


WaitReason = Literal[
    "retry",
    "approval",
    "paused",
    "hours",
    "platform",
    "breaker",
    "probe",
    "debounce",
    "order",
    "slot",
    "rate",
]
"""What a waiting deploy waits for; empty in the ledger where it waits for a worker only."""

_WAITS: Mapping[WaitReason, str] = {
    "retry": "waits until {} for its next attempt",
    "approval": "waits for approval until {}",
    "paused": "waits while its target is paused",
    "hours": "waits until {}, when its hours begin",
    "platform": "waits until {}, when its platform wants calls again",
    "breaker": "waits until {}, when the breaker lets a call through",
    "probe": "waits for how the probe ends",
    "debounce": "waits until {} for a newer one",
    "order": "waits for an older one",
    "slot": "waits for a slot at its target",
    "rate": "waits until {}, when the rate allows it",
}


def wait_note(reason: str, until: str) -> str:
    """Return what a deploy waits for, in a few words; empty without a reason.

    ``reason`` is a WaitReason or empty, ``until`` a time as it is to be shown.
    """
    sentence = next((text for name, text in _WAITS.items() if name == reason), "")
    return sentence.format(until)


def may(source: Status | None, step: Step, goal: Status) -> bool:
    """Return whether the diagram has this arrow."""
    return any(
        (arrow.source, arrow.step, arrow.goal) == (source, step, goal) for arrow in TRANSITIONS
    )


def diagram() -> str:
    """Return the life as a Mermaid state diagram, for docs/architecture.md."""
    arrows = dict.fromkeys(
        (arrow.source or "[*]", arrow.goal, arrow.step.value) for arrow in TRANSITIONS
    )
    lines = [f"    {source} --> {goal}: {step}" for source, goal, step in arrows]
    ends = [f"    {status} --> [*]" for status in STATUSES if _is_final(status)]
    return "\n".join(["stateDiagram-v2", *lines, *ends])


def _is_final(status: Status) -> bool:
    return not any(arrow.source == status for arrow in TRANSITIONS)
