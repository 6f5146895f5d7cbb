"""The exact calls of every preset, and templates that cannot escape their place."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import SecretStr

from config.loading import load
from config.model import SecretRef, Target
from config.preset import presets
from relay.events import Event, PullRequest, Push
from relay.planning import Call, Recipe, masked, rehearse
from relay.templates import PlanError, Template

SHA = "2" * 40
HOOK = "https://host.example/hook/s%2Fcret?key=a%20b"
PUSH = Push(repo="acme/web", ref="refs/heads/main", before="1" * 40, after=SHA, message="m")
PULL = PullRequest(
    repo="acme/web",
    number=7,
    action="opened",
    head_sha=SHA,
    head_ref="topic",
    head_repo="acme/web",
    base_ref="main",
)


def plan(event: Event, preset: str, **keys: Any) -> Call:
    ref = SecretRef(env="HOOK")
    ref.keep(SecretStr(HOOK))
    target = Target.model_validate({"preset": preset, "url": ref} | keys)
    recipe = Recipe("t", target, presets()[preset])
    return recipe.plan(
        event, route="r", delivery="d", source="s", reveal=lambda found: found.reveal()
    )


@pytest.mark.parametrize(
    ("event", "preset", "options", "method", "url"),
    [
        (PUSH, "flightcontrol", {"force": False}, "GET", f"{HOOK}&commit={SHA}&branch=main"),
        (
            PUSH,
            "flightcontrol",
            {"force": True},
            "GET",
            f"{HOOK}&commit={SHA}&branch=main&force=true",
        ),
        (
            PULL,
            "flightcontrol-preview",
            {"force": True},
            "GET",
            f"https://host.example/hook/s%2Fcret/7/{SHA}?key=a%20b&force=true",
        ),
        (PUSH, "vercel", {}, "POST", HOOK),
        (
            PUSH,
            "netlify",
            {"clear_cache": True},
            "POST",
            f"{HOOK}&trigger_branch=main&trigger_title=acme%2Fweb%40{SHA[:12]}&clear_cache=true",
        ),
        (PUSH, "render", {"image_url": ""}, "POST", f"{HOOK}&ref={SHA}"),
        (PUSH, "render", {"image_url": "a/b:1"}, "POST", f"{HOOK}&imgURL=a%2Fb%3A1"),
    ],
)
def test_calls_of_presets(
    event: Event, preset: str, options: dict[str, Any], method: str, url: str
) -> None:
    assert plan(event, preset, options=options) == Call(method, url, {}, None)


def test_coolify() -> None:
    token = SecretRef(env="TOKEN")
    token.keep(SecretStr("t0ken"))
    options = {"token": token, "uuid": "u", "tag": "", "force": False}

    call = plan(PULL, "coolify", options=options)

    assert call.url == f"{HOOK}&uuid=u&pr=7"
    assert call.headers == {"Authorization": "Bearer t0ken"}


def test_http_says_everything_itself() -> None:
    call = plan(
        PUSH,
        "http",
        method="PUT",
        query={"a": "{{ event.branch }}", "none": ""},
        headers={"X-Route": "{{ route }}"},
        json={"n": 1, "list": ["{{ event.sha }}", None]},
    )

    assert (call.method, call.url) == ("PUT", f"{HOOK}&a=main")
    assert call.headers == {"X-Route": "r", "Content-Type": "application/json"}
    assert orjson.loads(call.body or b"") == {"n": 1, "list": [SHA, None]}


def test_form() -> None:
    call = plan(PUSH, "http", form={"a": "x y", "b": "{{ event.tag }}"})

    assert call.body == b"a=x+y"
    assert call.headers == {"Content-Type": "application/x-www-form-urlencoded"}


@given(st.text(min_size=1, max_size=30).filter(lambda text: text.strip(".")))
def test_values_stay_in_their_segment_and_parameter(branch: str) -> None:
    event = Push(repo="acme/web", ref=f"refs/heads/{branch}", before="1" * 40, after=SHA)
    target = Target.model_validate(
        {
            "preset": "http",
            "url": "https://host.example:1/a/{{ event.branch }}/b",
            "query": {"x": "{{ event.branch }}"},
        }
    )
    try:
        call = Recipe("t", target, presets()["http"]).plan(
            event, route="r", delivery="d", source="s", reveal=masked
        )
    except UnicodeEncodeError:  # a lone surrogate: no payload decodes to one
        return
    url = urlsplit(call.url)

    assert (url.scheme, url.netloc) == ("https", "host.example:1")
    assert url.path.count("/") == 3
    assert parse_qsl(url.query, keep_blank_values=True) == [("x", branch)]


@pytest.mark.parametrize(
    "template",
    [
        "{{ event.numbr }}",
        "{{ ''.__class__.__mro__ }}",
        "{{ event.__class__.__init__.__globals__ }}",
        "{{ 'a' * 100000 }}",
        "{{ range(10000000) | list }}",
        "{{ 1 / 0 }}",
        "{{ unclosed",
    ],
)
def test_templates_that_are_refused(template: str) -> None:
    with pytest.raises(PlanError, match=r"^json\.x: "):
        Template(template, "json.x").render({"event": {}})


def test_control_characters_in_headers_are_refused() -> None:
    with pytest.raises(PlanError, match=r"^headers\.X: a control character$"):
        plan(PUSH, "http", headers={"X": "a\r\nInjected: 1"})


def test_masked_plan_shows_no_secret() -> None:
    ref = SecretRef(env="HOOK")
    ref.keep(SecretStr(HOOK))
    target = Target.model_validate({"preset": "http", "url": ref, "headers": {"A": ref}})

    call = Recipe("t", target, presets()["http"]).plan(
        PUSH, route="r", delivery="d", source="s", reveal=masked
    )

    assert call == Call("POST", "<env HOOK>", {"A": "<env HOOK>"}, None)


def test_rehearsal_finds_what_a_kind_does_not_have(tmp_path: Path) -> None:
    file = tmp_path / "relay.yaml"
    file.write_text(
        "sources:\n  s: {provider: github, secrets: [{env: X}]}\n"
        "targets:\n  t:\n    preset: http\n    url: https://x.example\n"
        "    json: {n: '{{ event.number }}'}\n"
        "routes:\n  - {name: r, repo: a/b, on: [push, pull_request], deploy: t}\n"
    )

    [problem] = rehearse(load(file, secrets_of=()))

    assert (problem.line, problem.column) == (7, 11)
    assert "json.n" in problem.message
