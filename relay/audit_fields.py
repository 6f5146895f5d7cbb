"""What every line of the audit says of a delivery or a deploy: the one owner of those fields."""

from __future__ import annotations

from typing import Any

from relay.audit import event_fields, log
from relay.events.event import Event
from relay.events.ids import public_id
from relay.ledger.actions import ActionLine, DeliveryLine
from relay.ledger.holder import Stuck
from relay.ledger.records import iso
from relay.ledger.rows import DeployLine, microseconds


def delivery_line(
    number: int, source: str, event: Event, *, remote: str, config: str
) -> dict[str, Any]:
    """Return the fields of each line about a delivery.

    ``number`` is 0 where the delivery has no row yet.
    """
    return {
        "delivery": public_id("delivery", number) if number else "",
        "source": source,
        **event_fields(event),
        "sender": event.sender,
        "author": next(iter(event.author.names()), ""),
        "remote": remote,
        "config": config,
    }


def holder_fields(stuck: Stuck) -> dict[str, Any]:
    """Return the fields of a line about a process that kept the ledger's lock."""
    return {
        "pid": stuck.holder.pid,
        "started": iso(microseconds(stuck.holder.started_at)),
        "seconds": round(stuck.seconds, 1),
    }


def say_holder_killed(stuck: Stuck) -> None:
    """Write the line about a stopped process that kept the ledger's lock and was ended."""
    log.warning("ledger.holder_killed", **holder_fields(stuck))


def holder_in_words(stuck: Stuck) -> str:
    """Return who keeps the ledger's lock, and for how long."""
    return "process {pid}, started {started}, has kept the ledger's lock for {seconds:g} s".format(
        **holder_fields(stuck)
    )


def deploy_fields(line: DeployLine) -> dict[str, Any]:
    """Return the fields of each line about a deploy. ``live`` is the deploy that was live on its
    target and ref before it, empty without one."""
    pull_request = {"number": line.number, "action": line.action} if line.number else {}
    return {
        "delivery": public_id("delivery", line.delivery),
        "source": line.source,
        "kind": line.kind,
        "repo": line.repo,
        "ref": line.ref,
        "sha": line.sha,
        **pull_request,
        "sender": line.sender,
        "author": line.author.partition("\n")[0],
        "remote": line.remote,
        "config": line.config,
        "deploy": public_id("deploy", line.id),
        "route": line.route,
        "target": line.target,
        "attempt": line.attempt,
        "live": public_id("deploy", line.live) if line.live else "",
    }


def action_fields(line: ActionLine) -> dict[str, Any]:
    """Return all fields of a line that follows from what a person did."""
    subject = line.subject
    if isinstance(subject, DeployLine):
        return {**deploy_fields(subject), **line.fields}
    if isinstance(subject, DeliveryLine):
        of_delivery = delivery_line(
            subject.id,
            subject.source,
            subject.event,
            remote=subject.remote,
            config=subject.config,
        )
        return {**of_delivery, **line.fields}
    return dict(line.fields)
