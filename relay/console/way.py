"""The way of a webhook step by step: received, queued, matched, deployed. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from relay.archive import Details
from relay.attempts_kept import AttemptRecord
from relay.console.words import Line, standing
from relay.events.event import Delivery
from relay.reading import Record, epoch, iso
from relay.routing import Decision
from relay.statuses import ACTIVE


class ShownDeploy(NamedTuple):
    """A deploy as pages show it."""

    record: Record
    lines: Sequence[Line]
    calls: Sequence[AttemptRecord]
    no_calls: str
    """What stands instead of the attempts where none was kept."""


class Step(NamedTuple):
    """One step of the way."""

    title: str
    at: str = ""
    text: str = ""
    name: str = ""
    deploy: ShownDeploy | None = None


class Judged(NamedTuple):
    """What one route says to the event."""

    route: str
    matched: bool
    reason: str
    near: bool
    """Whether the route is about this repository at all."""


def shown(record: Record, calls: Sequence[AttemptRecord]) -> ShownDeploy:
    """A deploy with its attempts."""
    if record.attempts:
        made = "1 attempt was" if record.attempts == 1 else f"{record.attempts} attempts were"
        missing = f"{made} made; the request and the answer were not kept."
    else:
        missing = "No attempt yet." if record.status in ACTIVE else "No attempt was made."
    return ShownDeploy(record, standing(record), calls, missing)


def steps(
    details: Details,
    delivery: Delivery | None,
    deploys: Iterable[Record],
    calls: Mapping[str, Sequence[AttemptRecord]],
    judged: Sequence[Judged],
) -> list[Step]:
    """The way of one delivery, in the order in which it went."""
    record = details.record
    way: list[Step] = []
    if delivery is not None and delivery.received_at:
        way.append(
            Step("Received", iso(delivery.received_at), f"from {record.source}, signature verified")
        )
    way.append(Step("Queued", record.created_at, _later(delivery, record)))
    way.append(_matching(details, judged))
    way += [
        Step(f"Deploy to {deploy.target}", deploy.created_at, "queued", deploy=shown(deploy, kept))
        for deploy in deploys
        for kept in (calls.get(deploy.id, ()),)
    ]
    return way


def judged(decisions: Iterable[Decision], repo: str) -> list[Judged]:
    """What the routes say, those that match first."""
    far = f"repo {repo} does not match "
    told = [
        Judged(each.route.name, each.matched, each.reason, not each.reason.startswith(far))
        for each in decisions
    ]
    return sorted(told, key=lambda route: not route.matched)


def _later(delivery: Delivery | None, record: Record) -> str:
    if delivery is None or not delivery.received_at:
        return ""
    seconds = epoch(record.created_at) - delivery.received_at
    return f"in Redis {seconds:.1f} s later" if seconds >= 1 else "in Redis, and acknowledged"


def _matching(details: Details, judged: Sequence[Judged]) -> Step:
    runs = [run for run in details.runs if run.how == "successful"]
    taken = sum(route.matched for route in judged)
    if details.record.stripped:
        count = len(details.record.deploys)
        return Step("Matched", "", f"It led to {count} {'deploy' if count == 1 else 'deploys'}")
    if runs:
        return Step("Matched", runs[-1].at, f"{taken} of {len(judged)} routes match", "routes")
    if details.record.status in ACTIVE and not details.record.deploys:
        text = f"Not yet. {taken} of {len(judged)} routes would match now."
    else:
        text = f"{taken} of {len(judged)} routes match now"
    return Step("Matching", "", text, "routes")
