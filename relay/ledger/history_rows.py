"""One row of the history, and whether a search wants it. Pure."""

from __future__ import annotations

from typing import Any

import msgspec

from config.patterns import PatternSet
from relay.events.deploy_life import STATUSES
from relay.events.ids import public_id, row_number
from relay.ledger.records import iso
from relay.ledger.rows import seconds, shown_ref
from relay.ledger.transaction import Row

DELIVERY_EVENTS = ("delivery.queued", "delivery.ignored", "delivery.late", "delivery.duplicate")
QUEUED_EVENTS = ("deploy.queued",)
END_EVENTS = tuple(f"deploy.{status}" for status in STATUSES)
ACTION_EVENTS = (
    *("deploy.replayed", "deploy.cancelled", "deploy.approved", "deploy.dismissed"),
    *("delivery.replayed", "delivery.cancelled", "target.paused", "target.resumed"),
    *("token.revoked", "ledger.accepted"),
)

_DONE = {
    "replay": "replayed",
    "cancel": "cancelled",
    "approve": "approved",
    "dismiss": "dismissed",
    "pause": "paused",
    "resume": "resumed",
    "revoke": "revoked",
    "accept": "accepted",
}
_SUBJECTS = {"revoke": "token", "accept": "ledger"}


class HistoryRow(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that happened. The names are those of the audit's lines; a field is empty where
    there is none."""

    at: str
    event: str
    delivery: str = ""
    deploy: str = ""
    source: str = ""
    kind: str = ""
    repo: str = ""
    ref: str = ""
    sha: str = ""
    route: str = ""
    target: str = ""
    by: str = ""
    """Who acted."""
    reason: str = ""
    status: int | None = None
    """The HTTP status of the platform's last answer."""


class HistoryFilter(msgspec.Struct, frozen=True, kw_only=True):
    """What is looked for; a field that is empty filters nothing. Within a field one value has to
    fit, and each field has to."""

    since: float = 0
    """Not earlier, in seconds since the Unix epoch; 0: at any time."""
    until: float = 0
    """Earlier than this, in seconds since the Unix epoch; 0: at any time."""
    events: PatternSet | None = None
    repos: PatternSet | None = None
    sources: frozenset[str] = frozenset()
    targets: frozenset[str] = frozenset()
    sha: str = ""
    by: frozenset[str] = frozenset()
    deliveries: frozenset[str] = frozenset()
    deploys: frozenset[str] = frozenset()

    def wants_event(self, event: str) -> bool:
        """Return whether an event of this name is looked for."""
        return self.events is None or self.events.matches(event)

    def wants(self, row: HistoryRow, at: int) -> bool:
        """Return whether a row of this time, in microseconds, is looked for."""
        when = seconds(at)
        return (
            self.wants_event(row.event)
            and when >= self.since
            and (not self.until or when < self.until)
            and (self.repos is None or self.repos.matches(row.repo))
            and (not self.sources or row.source in self.sources)
            and (not self.targets or row.target in self.targets)
            and row.sha.startswith(self.sha)
            and (not self.by or row.by in self.by)
            and (not self.deliveries or row.delivery in self.deliveries)
            and (not self.deploys or row.deploy in self.deploys)
        )


def delivery_statuses(chosen: HistoryFilter) -> frozenset[str]:
    """Return which statuses deliveries have whose events are looked for; none where all may be."""
    of_event = {
        "delivery.queued": ("queued", "routed"),
        "delivery.ignored": ("ignored",),
        "delivery.late": ("ignored",),
        "delivery.duplicate": ("duplicate",),
    }
    wanted = [event for event in DELIVERY_EVENTS if chosen.wants_event(event)]
    if len(wanted) == len(DELIVERY_EVENTS):
        return frozenset()
    return frozenset(status for event in wanted for status in of_event[event])


def end_statuses(chosen: HistoryFilter) -> frozenset[str]:
    """Return which statuses deploys have whose ends are looked for; none where all may be."""
    wanted = {status for status in STATUSES if chosen.wants_event(f"deploy.{status}")}
    if len(wanted) == len(STATUSES):
        return frozenset()
    # A dismissed one had failed or was uncertain before.
    return frozenset(wanted | {"dismissed"} if wanted & {"failed", "uncertain"} else wanted)


def delivery_row(row: Row) -> HistoryRow:
    """Return a row of ``delivery``, as it came."""
    event = "queued" if row["status"] in ("queued", "routed") else row["status"]
    if row["verdict"] == "late" and event == "ignored":
        event = "late"
    return HistoryRow(
        at=iso(row["received_at"]),
        event=f"delivery.{event}",
        delivery=public_id("delivery", row["id"]),
        by=row["requested_by"],
        reason=row["reason"] or row["uncertain"],
        **_of_event(row),
    )


def queued_row(row: Row) -> HistoryRow:
    """Return a row of ``deploy``, as it was queued."""
    return HistoryRow(at=iso(row["created_at"]), event="deploy.queued", **_of_deploy(row))


def end_row(row: Row) -> HistoryRow | None:
    """Return a row of ``deploy``, as it ended; None of a cancelled one: its action tells of it."""
    if row["cancelled_by"]:
        return None
    status = row["status"]
    if status == "dismissed":
        status = "uncertain" if row["last_outcome"] == "uncertain" else "failed"
    return HistoryRow(
        at=iso(row["ended_at"]),
        event=f"deploy.{status}",
        by=public_id("deploy", row["superseded_by"]) if row["superseded_by"] else "",
        reason=row["reason"],
        status=row["http"],
        **_of_deploy(row),
    )


def action_row(row: Row, subject: HistoryRow | None) -> HistoryRow:
    """Return a row of ``history_actions``. ``subject`` is a row about its delivery or deploy."""
    what = row["what"]
    kind = _SUBJECTS.get(what, "target")
    if row_number("deploy", row["subject"]) is not None:
        kind = "deploy"
    elif row_number("delivery", row["subject"]) is not None:
        kind = "delivery"
    action = HistoryRow(
        at=iso(row["at"]),
        event=f"{kind}.{_DONE.get(what, what)}",
        target=row["subject"] if kind == "target" else "",
        by=row["by"],
        reason=row["note"],
    )
    if subject is None:
        return action
    return msgspec.structs.replace(
        subject, at=action.at, event=action.event, by=action.by, reason=action.reason, status=None
    )


def _of_deploy(row: Row) -> dict[str, Any]:
    return {
        "deploy": public_id("deploy", row["id"]),
        "delivery": public_id("delivery", row["delivery"]),
        "route": row["route"],
        "target": row["target_name"],
        **_of_event(row),
    }


def _of_event(row: Row) -> dict[str, Any]:
    return {
        "source": row["source"],
        "kind": row["kind"],
        "repo": row["repo"],
        "ref": shown_ref(row),
        "sha": row["sha"],
    }
