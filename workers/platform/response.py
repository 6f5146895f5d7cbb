"""What an answer of a deploy platform means. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import msgspec

from config.policies import Success

RETRYABLE = frozenset({408, 425, 429, *range(500, 600)})
"""Statuses that may be different next time. All other failures are final."""

REDIRECTS = frozenset({301, 302, 303, 307, 308})
"""Redirects; the client returns those that it does not follow."""

_MISSING = object()

_INDEX = re.compile(r"[0-9]{1,9}")


@dataclass(frozen=True, slots=True)
class Answer:
    """The answer of a platform, as far as it was read."""

    status: int
    headers: Mapping[str, str]
    body: bytes


@dataclass(frozen=True, slots=True)
class Verdict:
    """``retry``: trying again may help; ``failed``: it will not; ``uncertain``: the platform may
    have taken the call."""

    outcome: Literal["succeeded", "retry", "failed", "uncertain"]
    reason: str = ""
    deployment_id: str = ""


def judge(answer: Answer, success: Success, deployment_id: str | None) -> Verdict:
    """Judge an answer by what its platform documents.

    ``deployment_id`` is the dotted path of the platform's id of the deployment. Reasons name a
    status or a field, never what else the body says: a platform may echo the secret URL.
    """
    if answer.status not in success.status:
        outcome: Literal["retry", "failed"] = "retry" if answer.status in RETRYABLE else "failed"
        unfollowed = ", a redirect that is not followed" if answer.status in REDIRECTS else ""
        return Verdict(outcome, f"HTTP {answer.status}{unfollowed}")
    if not success.body and deployment_id is None:
        return Verdict("succeeded")
    try:
        document = msgspec.json.decode(answer.body)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
        if success.body:
            return Verdict("failed", f"HTTP {answer.status}, but the answer is not JSON")
        return Verdict("succeeded")
    for path, accepted in success.body.items():
        value = pick(document, path)
        allowed = accepted if isinstance(accepted, tuple) else (accepted,)
        if not any(_same(value, one) for one in allowed):
            return Verdict("failed", f"HTTP {answer.status}, but {path} is {_shown(value)}")
    id_ = pick(document, deployment_id) if deployment_id else _MISSING
    is_id = isinstance(id_, str | int) and not isinstance(id_, bool)
    return Verdict("succeeded", deployment_id=str(id_)[:200] if is_id else "")


def pick(document: Any, path: str) -> Any:
    """The value at a dotted path such as ``deployments.0.uuid``; a marker where there is none."""
    for part in path.split("."):
        if isinstance(document, dict):
            document = document.get(part, _MISSING)
        elif isinstance(document, list) and _INDEX.fullmatch(part) and int(part) < len(document):
            document = document[int(part)]
        else:
            return _MISSING
    return document


def _same(value: Any, other: Any) -> bool:
    # True == 1 in Python, but not in JSON.
    return isinstance(value, bool) == isinstance(other, bool) and bool(value == other)


def _shown(value: Any) -> str:
    if value is _MISSING:
        return "missing"
    if isinstance(value, bool) or value is None:
        return {True: "true", False: "false", None: "null"}[value]
    return "something else"
