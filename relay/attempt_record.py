"""The request and the answer of each call, as they are stored for people, secrets redacted. Pure.

Secrets are redacted twice. By place: the stored request is a call made with the names of its
secrets (``Recipe.show``), the value of a header for credentials is redacted whatever it is, and
only the host of the URL is stored. By value: in all texts, as a platform may echo its request.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping
from typing import NamedTuple

import msgspec
from yarl import URL

from config.secret_values import MIN_SECRET_PART, url_parts, written_forms
from relay.audit import REDACTED
from relay.events.event import Event
from relay.planning import Call

MOST_BODY = 2_048
"""Bytes of a body that are stored."""

MOST_VALUE = 256
"""Bytes of a header's name or value, or of a reason, that are stored."""

MOST_HEADERS = 32
"""Headers of a request that are stored."""

ANSWER_HEADERS = ("Content-Type", "Retry-After", "Server", "X-Request-Id")
"""Headers of an answer that are stored."""

_CREDENTIAL = re.compile(
    r"auth|cookie|token|secret|password|credential|signature|key", re.IGNORECASE
)
"""Parts of the names of headers whose values are never stored."""

_CUT = "\N{HORIZONTAL ELLIPSIS}"


class AttemptRecord(msgspec.Struct, frozen=True, kw_only=True):
    """One attempt, as people may see it. A field is empty where its value is unknown."""

    at: str
    """When it began."""
    attempt: int
    outcome: str
    """succeeded, retry, failed or uncertain: the result of this call, not of its deploy."""
    reason: str = ""
    method: str = ""
    host: str = ""
    """With the port where the URL has one."""
    request_headers: dict[str, str] = {}
    request_body: str = ""
    status: int | None = None
    """None where no answer came."""
    response_headers: dict[str, str] = {}
    response_body: str = ""
    ms: float | None = None


class Received(NamedTuple):
    """What a platform answered."""

    status: int
    headers: Mapping[str, str]
    body: bytes


class Exchange(NamedTuple):
    """A call and its answer, with their secrets; it must never be logged."""

    call: Call
    shown: Call
    """The same call with the names of the secrets in their place."""
    event: Event
    received: Received | None

    def __repr__(self) -> str:
        return "Exchange"


def recorded(
    exchange: Exchange,
    *,
    at: str,
    attempt: int,
    outcome: str,
    reason: str,
    ms: float,
    redact: Callable[[str], str],
) -> AttemptRecord:
    """Return what is stored of one call. ``redact`` replaces every secret of relay.yaml."""
    call, shown, event, received = exchange
    own = _forms(_secrets_of(call, shown, event))

    def clean(text: str, most: int) -> str:
        # Redact before cutting: half a secret would not be found.
        text = redact(text)
        for secret in own:
            text = text.replace(secret, REDACTED)
        return _cut(text, most)

    def body(raw: bytes | None) -> str:
        return clean(raw.decode(errors="replace"), MOST_BODY) if raw else ""

    return AttemptRecord(
        at=at,
        attempt=attempt,
        outcome=outcome,
        reason=clean(reason, MOST_VALUE),
        method=call.method,
        host=_host(call.url),
        request_headers={
            _cut(name, MOST_VALUE): REDACTED
            if _CREDENTIAL.search(name)
            else clean(value, MOST_VALUE)
            for name, value in list(shown.headers.items())[:MOST_HEADERS]
        },
        request_body=body(shown.body),
        status=received.status if received else None,
        response_headers={
            name: clean(received.headers[name], MOST_VALUE)
            for name in ANSWER_HEADERS
            if name in received.headers
        }
        if received
        else {},
        response_body=body(received.body) if received else "",
        ms=ms,
    )


def _secrets_of(call: Call, shown: Call, event: Event) -> Collection[str]:
    """Return the texts of a call that may be secret, declared as such or not. The repository, ref
    and commit of its event are public."""
    parts = set(url_parts(call.url))
    for name, value in call.headers.items():
        if _CREDENTIAL.search(name) or shown.headers.get(name) != value:
            parts |= {value, value.rpartition(" ")[2]}
    public = {event.repo, event.ref, event.sha}
    return {part for part in parts - public if len(part) >= MIN_SECRET_PART}


def _forms(secrets: Collection[str]) -> list[str]:
    """Return all ways to write the secrets, the longest first, so that none leaves a remainder."""
    return sorted({form for one in secrets for form in written_forms(one)}, key=len, reverse=True)


def _host(url: str) -> str:
    try:
        parsed = URL(url, encoded=True)
        host, port = parsed.host_subcomponent or "", parsed.explicit_port
    except ValueError:
        return ""
    return _cut(host if port is None else f"{host}:{port}", MOST_VALUE)


def _cut(text: str, most: int) -> str:
    """Return ``most`` bytes of a text at most, with an ellipsis where it was cut."""
    raw = text.encode(errors="replace")
    if len(raw) <= most:
        return raw.decode()
    return raw[: most - len(_CUT.encode())].decode(errors="ignore") + _CUT
