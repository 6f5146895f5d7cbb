"""What a notice says: who is told, with names that do no harm, bounded."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import SecretStr

from config.loading import load
from config.model import NOTICE_KINDS, Notifier
from relay.events.event import PullRequest, Push
from relay.notices import Messenger, Notice, rehearse_notices
from relay.planning import placeholder

PUSH = Push("acme/web", "refs/heads/main", "1" * 40, "2" * 40)
LINK = "https://relay.example"


def messenger(**keys: Any) -> Messenger:
    keys = {"name": "chat", "preset": "slack", "url": {"env": "HOOK"}, **keys}
    return Messenger(Notifier.model_validate(keys))


def notice(event: Any = PUSH, *, target: str = "production", **keys: Any) -> Notice:
    about = {"kind": "failure", "deploy": "production--1", "delivery": "github--1", **keys}
    return Notice(source="github", route="r", target=target, event=event, **about)


def text_of(one: Messenger, what: Notice, **options: Any) -> str:
    body = one.call(what, placeholder, **options).body
    assert body is not None
    return str(json.loads(body)["text"])


def test_it_says_what_happened_where_and_why() -> None:
    said = text_of(messenger(), notice(reason="HTTP 404"), console=LINK + "/")

    assert said == (
        "Deploy failed: `production`, `acme/web` `main` `222222222222`: HTTP 404 "
        "<https://relay.example/deploys/production--1|open>"
    )


def test_a_pull_request_is_named_by_its_number() -> None:
    event = PullRequest("acme/web", 7, "opened", "2" * 40, "topic", "acme/web", "main")

    assert "`acme/web` `#7`" in text_of(messenger(), notice(event))


def test_what_others_there_were_is_summed_up() -> None:
    more = {"failure": 2, "approval": 5, "held": 0}

    assert text_of(messenger(), notice(), more=more).endswith("\nand 7 more: approval 5, failure 2")
    alone = text_of(messenger(), notice(), more=more, told=True)
    assert alone == "and 7 more: approval 5, failure 2"


def test_names_that_pushers_choose_are_no_markup() -> None:
    ref = "refs/heads/<!channel>`*@all*`&amp;<https://evil.example|click>\x1b"
    event = Push("acme/web", ref, "1" * 40, "2" * 40)
    said = text_of(messenger(), notice(event, reason="a <reason>"))

    assert "`&lt;!channel&gt;'*@all*'&amp;amp;&lt;https://evil.example|click&gt;\ufffd`" in said
    assert said.endswith(": a &lt;reason&gt;")


@given(st.text(), st.text(), st.text())
def test_a_message_is_bounded_and_code_stays_closed(repo: str, ref: str, reason: str) -> None:
    said = text_of(
        messenger(), notice(Push(repo * 50, ref * 50, "1" * 40, "2" * 40), reason=reason * 50)
    )

    assert len(said) < 5_000
    assert "<" not in said
    assert ">" not in said
    assert said.partition(": ")[2].split("`")[0] == ""
    assert said.count("`") - reason.count("`") * 50 <= 8


def test_http_tells_all_that_is_known_unless_a_template_says_what() -> None:
    plain = messenger(preset="http", headers={"X-Key": {"env": "KEY"}})
    call = plain.call(notice(reason="HTTP 404"), placeholder, console=LINK, more={"held": 3})

    assert json.loads(call.body or b"") == {
        "text": "Deploy failed: production, acme/web main 222222222222: HTTP 404 "
        "https://relay.example/deploys/production--1\nand 3 more: held 3",
        "kind": "failure",
        "reason": "HTTP 404",
        "more": "3",
        "link": "https://relay.example/deploys/production--1",
        "deploy": "production--1",
        "target": "production",
        "route": "r",
        "delivery": "github--1",
        "repo": "acme/web",
        "ref": "refs/heads/main",
        "sha": "2" * 40,
    }
    assert (call.method, call.url, call.headers["X-Key"]) == ("POST", "<env HOOK>", "<env KEY>")
    own = messenger(preset="http", json={"n": ["{{ notice.kind }}", 1], "by": "{{ event.sender }}"})
    assert json.loads(own.call(notice(), placeholder).body or b"") == {
        "n": ["failure", 1],
        "by": "",
    }


@pytest.mark.parametrize(
    ("keys", "wanted"),
    [
        ({}, True),
        ({"on": "failure"}, True),
        ({"on": ["recovery", "held"]}, False),
        ({"targets": "production"}, True),
        ({"targets": ["staging"]}, False),
        ({"repos": "ACME/*"}, True),
        ({"repos": ["acme/*", "!acme/web"]}, False),
    ],
)
def test_who_is_told(keys: dict[str, Any], wanted: bool) -> None:
    assert messenger(**keys).wants("failure", "production", "acme/web") is wanted


def test_all_kinds_are_told_unless_relay_yaml_says_which() -> None:
    assert messenger().kinds == NOTICE_KINDS


def test_the_secret_url_is_called() -> None:
    notifier = Notifier.model_validate({"name": "c", "preset": "slack", "url": {"env": "HOOK"}})
    assert not isinstance(notifier.url, str)
    notifier.url.keep(SecretStr("https://chat.example/hook/secret?x=1"))
    call = Messenger(notifier).call(notice(), lambda ref: ref.reveal())

    assert call.url == "https://chat.example/hook/secret?x=1"
    assert "secret" not in repr(call)


def test_a_template_that_cannot_render_is_found_where_it_stands(tmp_path: Path) -> None:
    file = tmp_path / "relay.yaml"
    file.write_text(
        "sources: {git: {provider: github, secrets: [{env: A}]}}\n"
        "notify:\n"
        "  - {name: a, preset: slack, url: {env: HOOK}}\n"
        "  - name: b\n"
        "    preset: http\n"
        "    url: https://chat.example/\n"
        "    json: {text: '{{ notice.txt }}'}\n"
    )

    [problem] = rehearse_notices(load(file, secrets_of=()))
    assert str(problem).startswith(f"{file}:7:11: notify[1].json: json.text: ")
    assert "no attribute 'txt'" in problem.message


def test_long_names_are_cut() -> None:
    event = Push("a" * 10_000, "b" * 10_000, "1" * 40, "2" * 40)

    assert len(text_of(messenger(), notice(event, reason="c" * 10_000))) < 1_000
