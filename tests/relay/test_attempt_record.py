"""What is kept of a call for people: its secrets are in none of it, and all of it is bounded."""

from __future__ import annotations

import html
import json
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote, urlencode

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import SecretStr

from config.model import Target
from config.preset import presets
from config.secret_values import MIN_SECRET_PART, written_forms
from relay.attempt_record import (
    MOST_BODY,
    MOST_HEADERS,
    MOST_VALUE,
    AttemptRecord,
    Exchange,
    Received,
    recorded,
)
from relay.audit import REDACTED, Redactor
from relay.events.event import Push
from relay.planning import Call, Recipe

EVENT = Push("acme/web", "refs/heads/main", "1" * 40, "2" * 40, message="Change it")
ABOUT = {"route": "r", "delivery": "github--1", "source": "github"}
PUBLIC = Received(202, {"Content-Type": "text/plain", "Set-Cookie": "session=abc"}, b"fine")


def exchange(
    keys: Mapping[str, Any], secrets: Mapping[str, str], received: Received | None = PUBLIC
) -> Exchange:
    """A call of a target whose secrets come from variables of these names."""
    target = Target.model_validate({"preset": "http", "url": "https://x.example/", **keys})
    refs = [target.url, *(target.headers or {}).values(), *(target.form or {}).values()]
    for ref in [*refs, *target.options.values()]:
        if not isinstance(ref, str | bool | int | float):
            ref.keep(SecretStr(secrets[str(ref.env)]))
    recipe = Recipe("t", target, presets()["http"])
    call = recipe.plan(EVENT, **ABOUT, reveal=lambda ref: ref.reveal())
    return Exchange(call, recipe.show(call, EVENT, **ABOUT), EVENT, received)


def record(of: Exchange, *known: str) -> AttemptRecord:
    facts: Any = {"at": "", "attempt": 1, "outcome": "failed", "reason": "HTTP 404", "ms": 1.0}
    return recorded(of, **facts, redact=Redactor(known))


def test_a_secret_of_the_request_is_named_and_not_shown() -> None:
    told = record(
        exchange(
            {
                "url": {"env": "URL"},
                "headers": {
                    "X-Team": {"env": "TEAM"},
                    "Authorization": "Bearer plain-in-the-file",
                    "X-Api-Key": "short",
                },
                "form": {"password": {"env": "PASSWORD"}, "sha": "{{ event.sha }}"},
            },
            {
                "URL": "https://hooks.example:8443/deploy/s3cr3t-path?key=s3cr3t-query",
                "TEAM": "team-blue",
                "PASSWORD": "pa ss",
            },
        )
    )

    assert (told.method, told.host) == ("POST", "hooks.example:8443")
    assert told.request_headers["X-Team"] == "<env TEAM>"
    assert told.request_headers["Authorization"] == REDACTED
    assert told.request_headers["X-Api-Key"] == REDACTED
    assert told.request_body == urlencode({"password": "<env PASSWORD>", "sha": "2" * 40})
    for secret in ("s3cr3t", "deploy/", "team-blue", "plain-in-the-file", "pa ss", "pa+ss"):
        assert secret not in msgspec.json.encode(told).decode()


def test_a_secret_in_an_option_is_named_wherever_a_template_puts_it() -> None:
    keys = {
        "json": {"nested": ["{{ target.token | upper }}", "{{ event.sha }}"]},
        "headers": {"X-Team": "team {{ target.token }}"},
        "options": {"token": {"env": "TOKEN"}},
    }
    told = record(exchange(keys, {"TOKEN": "a-token"}))

    assert json.loads(told.request_body) == {"nested": ["<ENV TOKEN>", "2" * 40]}
    assert told.request_headers["X-Team"] == "team <env TOKEN>"


def test_where_a_template_needs_its_secret_nothing_of_the_request_is_shown() -> None:
    keys = {
        "json": {"n": "{{ 10 // (target.token | int) }}"},
        "options": {"token": {"env": "TOKEN"}},
    }
    told = record(exchange(keys, {"TOKEN": "5"}))

    assert (told.request_headers, told.request_body) == ({}, "")
    assert told.host == "x.example"


ECHOED = 'q"u&o<t>e/ä d'


@pytest.mark.parametrize(
    "echo",
    [
        ECHOED,
        json.dumps(ECHOED),
        json.dumps(ECHOED).replace("/", "\\/"),
        json.dumps(ECHOED, ensure_ascii=False),
        json.dumps(ECHOED).replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e"),
        quote(ECHOED),
        quote(ECHOED, safe=""),
        urlencode({"key": ECHOED}),
        html.escape(ECHOED),
    ],
)
def test_a_secret_that_the_platform_echoes_is_masked_however_it_writes_it(echo: str) -> None:
    received = Received(200, {"Server": f"hook {echo}"}, f"you sent {echo}!".encode())
    told = record(exchange({}, {}, received), ECHOED)

    assert told.response_body.startswith("you sent ")
    assert told.response_body.endswith("!")
    assert REDACTED in told.response_body
    assert REDACTED in told.response_headers["Server"]
    for part in ('q"u', "&o", "u0026o", "%26", "t>", "t\\u003e", "amp;o"):
        assert part not in told.response_body


def test_what_the_request_held_is_masked_in_the_answer_though_no_secret_was_declared() -> None:
    url = "https://x.example/deploys/plain-path-secret?key=plain%2Dquery-secret&ref={{ event.sha }}"
    keys = {"url": url, "headers": {"Authorization": "Bearer plain-header-secret"}}
    said = (
        "plain-path-secret, plain%2Dquery-secret, plain-query-secret, plain-header-secret of "
        + "2" * 40
    )
    told = record(exchange(keys, {}, Received(404, {}, said.encode())))

    assert told.response_body == f"{REDACTED}, {REDACTED}, {REDACTED}, {REDACTED} of " + "2" * 40


def test_only_a_few_headers_of_the_answer_are_kept() -> None:
    told = record(exchange({}, {}))

    assert (told.status, told.response_headers) == (202, {"Content-Type": "text/plain"})
    assert told.response_body == "fine"


def test_without_an_answer_there_is_nothing_of_it() -> None:
    told = record(exchange({}, {}, received=None))

    assert (told.status, told.response_headers, told.response_body) == (None, {}, "")
    assert told.host == "x.example"


@given(st.text(max_size=10), st.integers(0, 3_000), st.integers(0, 40))
def test_all_of_it_is_bounded(text: str, length: int, number: int) -> None:
    long = ((text or "x") * length)[:3_000]
    call = Call("POST", "https://x.example/", {f"X-{n}-{long}": long for n in range(number)}, None)
    call = Call(call.method, call.url, call.headers, long.encode(errors="replace"))
    received = Received(500, {"Server": long}, call.body or b"")
    told = record(Exchange(call, call, EVENT, received))

    assert len(told.request_headers) <= MOST_HEADERS
    for value in (*told.request_headers, *told.request_headers.values()):
        assert len(value.encode()) <= MOST_VALUE
    assert len(told.response_headers["Server"].encode()) <= MOST_VALUE
    assert len(told.request_body.encode()) <= MOST_BODY
    assert len(told.response_body.encode()) <= MOST_BODY


@given(st.integers(0, 60))
def test_a_secret_is_masked_before_a_body_is_cut(before: int) -> None:
    secret = "0123456789abcdef" * 2
    body = "x" * (MOST_BODY - before) + secret + "x" * 100
    told = record(exchange({}, {}, Received(200, {}, body.encode())), secret)

    assert "0" not in told.response_body


@given(st.text(min_size=MIN_SECRET_PART, alphabet=st.characters(exclude_categories=["Cs"])))
def test_the_forms_of_a_secret_include_itself(secret: str) -> None:
    assert {secret, json.dumps(secret)[1:-1], quote(secret, safe="")} <= written_forms(secret)
