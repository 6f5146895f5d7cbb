"""What Redis itself can tell of a search, by comparing texts. Pure.

It leaves out most of what is not looked for, and nothing that is: what it lets pass is looked at
again (relay/filtering.py).
"""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Sequence
from typing import Any

import msgspec

from config.patterns import PatternSet, literal_part
from relay.filtering import SHA_TOLD, Filter
from relay.packing import packed
from relay.statuses import Kind, Status

_IN_RQ: dict[Status, Sequence[str]] = {
    "waiting": ("queued", "deferred", "created", "rate_limited", "ready_to_enqueue"),
    "running": ("started",),
    "retrying": ("scheduled",),
    "succeeded": ("finished",),
    "cancelled": ("canceled",),
    "stopped": ("stopped",),
    "failed": ("failed",),
    "held": ("failed",),
}
"""RQ's statuses of jobs that may stand so. More than its status tells of a job that is scheduled
whether it waits, and of one that is finished whether it was superseded, or cancelled as it ran."""

_SUPERSEDED = b"superseded_by"


def in_description(kind: Kind, wanted: Filter) -> dict[str, Any]:
    """What a job's id and description must have; see the scripts of relay/looking.py."""
    return {
        "kind": f"{kind}:",
        "names": dict.fromkeys(wanted.names, True) or None,
        "sha": f"@{wanted.sha[:SHA_TOLD]}" if wanted.sha else None,
        "repos": _parts(wanted.repos, folded=True),
        "described": bool(wanted.sha or wanted.repos),
    }


def in_job(kind: Kind, wanted: Filter) -> dict[str, Any] | None:
    """What the rest of a job must have; see the scripts of relay/looking.py. None where nothing is
    known of it."""
    branches = _parts(wanted.branches, folded=False)
    groups = [
        [b'"route":' + _json(route) for route in sorted(wanted.routes)],
        [_json(part)[1:-1] for part in branches or ()],
        [b'"' + wanted.sha.encode()] if len(wanted.sha) > SHA_TOLD else [],
    ]
    texts = [[packed(text) for text in group] for group in groups if group]
    told = bool(wanted.statuses) and "unknown" not in wanted.statuses
    if not (texts or wanted.author or told):
        return None
    return {
        "texts": texts,
        "author": packed(_json(wanted.author.casefold()).lower()) if wanted.author else None,
        "reads": bool(texts or wanted.author),
        "statuses": {name: True for status in wanted.statuses for name in _IN_RQ.get(status, ())}
        if told
        else None,
        "superseded": _in_base64(_SUPERSEDED) if "superseded" in wanted.statuses else (),
        "by_deploys": kind == "delivery",
    }


def _parts(patterns: PatternSet | None, *, folded: bool) -> list[str] | None:
    """One of these stands in all that matches; None where no such thing is known."""
    if patterns is None:
        return None
    found = [literal_part(pattern) for pattern in patterns.patterns if pattern[:1] != "!"]
    if folded:
        # Redis folds no other letters.
        found = [part.lower() if part.isascii() else "" for part in found]
    return found if found and all(found) else None


def _in_base64(text: bytes) -> list[str]:
    """How a text looks in Base64, wherever it begins."""
    found = []
    for skipped in range(3):
        encoded = b64encode(bytes(skipped) + text)
        # Its first and last letters have bits of what stands before and behind.
        first, last = -(-skipped * 8 // 6), (skipped + len(text)) * 8 // 6
        found.append(encoded[first:last].decode())
    return found


def _json(text: str) -> bytes:
    return msgspec.json.encode(text)
