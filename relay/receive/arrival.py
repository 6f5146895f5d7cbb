"""From a verified webhook to what the ledger keeps of it, and from what became of it to the answer.
No I/O."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any, NamedTuple

from relay.audit_fields import delivery_line
from relay.errors import Malformed
from relay.events.event import MAX_EVENT, Event
from relay.events.ids import public_id
from relay.events.ref_change import ref_change, repository_key
from relay.http.responses import WebhookAnswer
from relay.ledger.intake import NewDelivery, Payload, RouteReason, StoredDelivery
from relay.ledger.rows import encode_event
from relay.receive.sources import ReadySource
from relay.routing import Router

MOST_ID = 128
"""Characters of a sender's id of a delivery; longer ones are hashed."""

MOST_REASONS = 100
"""Routes whose reason for ignoring a delivery is stored."""


class Webhook(NamedTuple):
    """A verified webhook, without its event."""

    source: ReadySource
    remote: str
    config: str
    sent_id: str
    """The sender's id of the delivery, as it stands in a header; empty without one."""
    fingerprint: str
    """Hexadecimal digits of a hash of the body."""
    received_at: float
    """Seconds since the Unix epoch."""

    def fields(self) -> dict[str, Any]:
        """Return the audit fields of a webhook whose event cannot be parsed."""
        return {
            "delivery": "",
            "source": self.source.name,
            "remote": self.remote,
            "config": self.config,
            "guid": guid(self.sent_id),
        }


def guid(sent_id: str) -> str:
    """Return a sender's id as it is stored: hashed where it is long or not plain text."""
    if len(sent_id) <= MOST_ID and sent_id.isascii() and sent_id.isprintable():
        return sent_id
    digest = hashlib.blake2b(sent_id.encode(errors="surrogatepass"), digest_size=16)
    return f"hash-{digest.hexdigest()}"


def audit_fields(webhook: Webhook, event: Event) -> dict[str, Any]:
    """Return the audit fields of a delivery that has no row yet."""
    fields = delivery_line(
        0, webhook.source.name, event, remote=webhook.remote, config=webhook.config
    )
    fields["guid"] = guid(webhook.sent_id)
    return fields


def new_delivery(
    webhook: Webhook, event: Event, router: Router, payload: Payload, trace: str
) -> NewDelivery:
    """Return the delivery for the ledger. Raises Malformed where its event is too large."""
    encoded = encode_event(event)
    if len(encoded) > MAX_EVENT:
        raise Malformed(
            f"the event has {len(encoded)} bytes even without its long texts, more than {MAX_EVENT}"
        )
    source = webhook.source
    is_wanted = router.wants(event, source.name)
    reasons = () if is_wanted else _reasons(event, router, source.name)
    return NewDelivery(
        source=source.name,
        repository=repository_key(event, source.server),
        guid=guid(webhook.sent_id),
        body_hash=bytes.fromhex(webhook.fingerprint),
        received_at=webhook.received_at,
        event=event,
        encoded_event=encoded,
        change=ref_change(event, keeps_id=source.provider.keeps_delivery_id),
        remote=webhook.remote,
        config=webhook.config,
        is_wanted=is_wanted,
        reasons=reasons,
        conditions=router.conditions(event, source.name),
        payload=payload,
        trace=trace,
    )


def _reasons(event: Event, router: Router, source: str) -> tuple[RouteReason, ...]:
    decisions = router.candidates(event, source)[:MOST_REASONS]
    return tuple(RouteReason(decision.route.name, decision.reason) for decision in decisions)


def traced_fields(fields: Mapping[str, Any], stored: StoredDelivery) -> dict[str, Any]:
    """Return what a trace says of a delivery: no person, and nobody's address."""
    named = {name: fields[name] for name in ("source", "kind", "repo", "ref", "sha")}
    return {"delivery": public_id("delivery", stored.id), **named}


def answer_ignored(reason: str) -> WebhookAnswer:
    """Return the answer to an event that leaves no delivery."""
    return WebhookAnswer(200, status="ignored", delivery="", reason=reason)


def answer_stored(stored: StoredDelivery) -> WebhookAnswer:
    """Return the answer to a webhook of which the ledger has a delivery."""
    name = public_id("delivery", stored.first or stored.id)
    if stored.first:
        return WebhookAnswer(200, status="duplicate", delivery=name)
    if stored.verdict == "late":
        return WebhookAnswer(200, status="late", delivery=name, reason=stored.reason)
    if stored.status == "ignored":
        return WebhookAnswer(200, status="ignored", delivery=name, reason=stored.reason)
    return WebhookAnswer(202, status="queued", delivery=name)
