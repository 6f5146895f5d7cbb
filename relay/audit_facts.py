"""What the audit file knows that a ledger which went back in time does not.

Ids are taken from the fields that name them, never from texts that a sender could choose.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from relay.audit_query import moment_of, parsed
from relay.audit_reading import files_of, stored_lines
from relay.events.ids import Kind, row_number
from relay.ledger.acceptance import (
    ActionInAudit,
    AuditFacts,
    DeliveryInAudit,
    DeployInAudit,
    Kept,
)
from relay.ledger.generation import Behind, LastIds

_CHUNK = 1024 * 1024

SEARCHED = 64 * _CHUNK
"""Bytes of the audit's end at most in which the last ids are looked for."""

_OVERLAP = 256
"""Bytes by which chunks overlap, so that no id is cut in two."""

_LINE_AFTER = 2.0
"""Seconds within which the line of an action follows its commit."""

_IDS = re.compile(rb'"(delivery|deploy|notice)":"\1-([1-9][0-9]{0,17})"')

_REVOKED = b'"event":"token.revoked"'

_ENDS = frozenset(
    f"deploy.{end}"
    for end in ("succeeded", "failed", "uncertain", "cancelled", "superseded", "dismissed")
)

_ACTIONS = frozenset(
    {
        *("delivery.cancelled", "delivery.replayed", "deploy.approved", "deploy.cancelled"),
        *("deploy.dismissed", "deploy.replayed", "target.paused", "target.resumed"),
        *("token.created", "token.revoked"),
    }
)


def last_ids(path: Path) -> LastIds:
    """Return the largest ids that the end of the audit names. Raises OSError."""
    ids = LastIds()
    for chunk in _from_the_end(files_of(path)):
        ids = ids.united(_ids_in(chunk))
        if ids.delivery and ids.deploy:
            break
    return ids


def revoked_tokens(path: Path) -> frozenset[str]:
    """Return the ids of all tokens that were revoked. Raises OSError."""
    entries = (parsed(line) for line in stored_lines(path) if _REVOKED in line)
    return frozenset(_text("token", entry) for entry in entries if entry) - {""}


def read_facts(path: Path, behind: Behind, kept: Kept) -> AuditFacts:
    """Return what the audit says of deliveries and deploys that the ledger lacks, or that would go
    on in it, and what people did since. Raises OSError."""
    deliveries: dict[int, DeliveryInAudit] = {}
    deploys: dict[int, DeployInAudit] = {}
    actions = []
    ids = LastIds()
    for line in stored_lines(path):
        ids = ids.united(_ids_in(line))
        entry = parsed(line)
        if entry is None:
            continue
        event = str(entry.get("event", ""))
        if event in _ACTIONS and (since := moment_of(entry) - behind.acted_at) > 0:
            action = _action(event, entry)
            if since > _LINE_AFTER or action.subject not in kept.newest_actions:
                actions.append(action)
        delivery, deploy = _number("delivery", entry), _number("deploy", entry)
        is_lacking = delivery > behind.before.delivery and delivery not in kept.new_deliveries
        if is_lacking or delivery in kept.queued_deliveries:
            deliveries[delivery] = _delivery(delivery, event, entry, deliveries.get(delivery))
        is_lacking = deploy > behind.before.deploy and deploy not in kept.new_deploys
        if event != "deploy.duplicate" and (is_lacking or deploy in kept.open_deploys):
            deploys[deploy] = _deploy(deploy, event, entry, deploys.get(deploy))
    return AuditFacts(deliveries=deliveries, deploys=deploys, actions=tuple(actions), ids=ids)


def _delivery(
    number: int, event: str, entry: Mapping[str, Any], before: DeliveryInAudit | None
) -> DeliveryInAudit:
    was_routed = before is not None and before.is_routed
    return DeliveryInAudit(
        id=number,
        source=_text("source", entry),
        repo=_text("repo", entry),
        ref=_text("ref", entry),
        sha=_text("sha", entry),
        event=event if before is None or event.startswith("delivery.") else before.event,
        is_routed=was_routed or event.startswith("deploy."),
    )


def _deploy(
    number: int, event: str, entry: Mapping[str, Any], before: DeployInAudit | None
) -> DeployInAudit:
    attempt = entry.get("attempt", 0)
    return DeployInAudit(
        id=number,
        delivery=_number("delivery", entry) or (before.delivery if before else 0),
        target=_text("target", entry) or (before.target if before else ""),
        event=event,
        attempt=max(attempt if isinstance(attempt, int) else 0, before.attempt if before else 0),
        has_ended=event in _ENDS or (before is not None and before.has_ended),
    )


def _action(event: str, entry: Mapping[str, Any]) -> ActionInAudit:
    names = ("deploy", "delivery", "target", "name", "token")
    return ActionInAudit(
        at=_text("at", entry),
        by=_text("by", entry),
        event=event,
        subject=next((_text(name, entry) for name in names if _text(name, entry)), ""),
    )


def _number(kind: Kind, entry: Mapping[str, Any]) -> int:
    return row_number(kind, _text(kind, entry)) or 0


def _text(field: str, entry: Mapping[str, Any]) -> str:
    value = entry.get(field)
    return value if isinstance(value, str) else ""


def _ids_in(data: bytes) -> LastIds:
    largest: dict[str, int] = {}
    for kind, number in _IDS.findall(data):
        name = kind.decode()
        largest[name] = max(largest.get(name, 0), int(number))
    return LastIds(**largest)


def _from_the_end(files: Iterable[Path]) -> Iterator[bytes]:
    """Parts of the files, the newest first."""
    left = SEARCHED
    for path in reversed(list(files)):
        # A finished file may be dropped meanwhile.
        with suppress(FileNotFoundError), path.open("rb") as file:
            end = file.seek(0, os.SEEK_END)
            while end > 0 and left > 0:
                start = max(0, end - _CHUNK)
                file.seek(start)
                yield file.read(end - start + _OVERLAP)
                left -= end - start
                end = start
