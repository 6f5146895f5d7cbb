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
"""Answers that the client hands on only where it does not follow them."""

_MISSING = object()

_INDEX = re.compile(r"[0-9]{1,9}")


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back, as far as it was read."""

    status: int
    headers: Mapping[str, str]
    body: bytes


@dataclass(frozen=True, slots=True)
class Verdict:
    """``retry`` means that trying again may help, ``failed`` that it will not, ``uncertain`` that
    nobody knows whether the platform took it."""

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
        found = pick(document, path)
        wanted = accepted if isinstance(accepted, tuple) else (accepted,)
        if not any(_same(found, value) for value in wanted):
            return Verdict("failed", f"HTTP {answer.status}, but {path} is {_shown(found)}")
    found = pick(document, deployment_id) if deployment_id else _MISSING
    known = isinstance(found, str | int) and not isinstance(found, bool)
    return Verdict("succeeded", deployment_id=str(found)[:200] if known else "")


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


def _same(found: Any, wanted: Any) -> bool:
    # True == 1 in Python, but not in JSON.
    return isinstance(found, bool) == isinstance(wanted, bool) and bool(found == wanted)


def _shown(found: Any) -> str:
    if found is _MISSING:
        return "missing"
    if isinstance(found, bool) or found is None:
        return {True: "true", False: "false", None: "null"}[found]
    return "something else"
