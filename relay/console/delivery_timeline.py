"""The timeline of a webhook: received, queued, routed, deployed. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from relay.attempt_record import AttemptRecord
from relay.console.words import VERDICTS, Line, sentence, stage, standing
from relay.ledger.details import ActionRecord, Details
from relay.ledger.records import Record
from relay.routing import RouteDecision


class ShownDeploy(NamedTuple):
    """A deploy as pages show it."""

    record: Record
    lines: Sequence[Line]
    calls: Sequence[AttemptRecord]
    no_calls: str
    """The sentence that stands in place of the attempts where there is none."""


class TimelineStep(NamedTuple):
    """One step of the timeline."""

    title: str
    at: str = ""
    text: str = ""
    lines: Sequence[str] = ()
    shows_routes: bool = False
    """The step shows what each route said."""
    deploy: ShownDeploy | None = None


class JudgedRoute(NamedTuple):
    """What one route says to the event."""

    route: str
    is_match: bool
    reason: str
    is_near: bool
    """The route is about this repository."""


def shown(record: Record, calls: Sequence[AttemptRecord]) -> ShownDeploy:
    """Return a deploy with its attempts."""
    missing = "No attempt was made." if stage(record.status).has_ended else "No attempt yet."
    return ShownDeploy(record, standing(record), calls, missing)


def steps(
    details: Details, calls: Mapping[str, Sequence[AttemptRecord]], judged: Sequence[JudgedRoute]
) -> list[TimelineStep]:
    """Return the timeline of a delivery, the oldest step first."""
    record = details.record
    timeline = [
        TimelineStep("Received", record.created_at, _received(record), _history_of(record)),
        _routing(details, judged),
    ]
    timeline += [
        TimelineStep(
            f"Deploy to {deploy.target}",
            deploy.created_at,
            "queued",
            deploy=shown(deploy, calls.get(deploy.id, ())),
        )
        for deploy in details.deploys
    ]
    timeline += [TimelineStep(_done(action), action.at, action.note) for action in details.actions]
    return timeline


def judged_routes(decisions: Iterable[RouteDecision], repo: str) -> list[JudgedRoute]:
    """Return what the routes of relay.yaml say, those that match first."""
    far = f"repo {repo} does not match "
    judged = [
        JudgedRoute(each.route.name, each.matched, each.reason, not each.reason.startswith(far))
        for each in decisions
    ]
    return sorted(judged, key=lambda route: not route.is_match)


def stored_routes(details: Details) -> list[JudgedRoute]:
    """Return what the routes said when the delivery was ignored."""
    return [JudgedRoute(each.route, False, each.reason, True) for each in details.reasons]


def _received(record: Record) -> str:
    if record.replay_of:
        return f"a replay, requested by {record.requested_by}"
    return f"from {record.source}, signature verified"


def _history_of(record: Record) -> list[str]:
    lines = [VERDICTS[record.verdict]] if record.verdict in VERDICTS else []
    if record.uncertain:
        lines.append(sentence(record.uncertain))
    if record.redeliveries:
        times = "once" if record.redeliveries == 1 else f"{record.redeliveries} times"
        lines.append(f"The git server sent it again {times}.")
    return lines


def _routing(details: Details, judged: Sequence[JudgedRoute]) -> TimelineStep:
    status = details.record.status
    matches = sum(route.is_match for route in judged)
    if status == "queued":
        text = f"Not yet. {matches} of {len(judged)} routes match now."
        return TimelineStep("Routing", "", text, shows_routes=True)
    if status == "duplicate":
        return TimelineStep("Duplicate", "", "It led to no deploy.")
    if details.record.verdict == "late":
        return TimelineStep("Ignored", "", "No route was asked.")
    if status == "ignored":
        return TimelineStep("Ignored", "", "It led to no deploy.", shows_routes=True)
    text = f"{matches} of {len(judged)} routes match now"
    return TimelineStep("Routed", "", text, shows_routes=True)


def _done(action: ActionRecord) -> str:
    words = {"replay": "Replayed", "cancel": "Cancelled"}
    return f"{words.get(action.what, action.what.capitalize())} by {action.by}"
