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
from relay.events.event import Event, PullRequest, Push
from relay.planning import Call, Recipe, placeholder, rehearse
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


def test_a_secret_in_json_is_sent_and_shown_by_its_name() -> None:
    target = Target.model_validate(
        {
            "preset": "http",
            "url": "https://host.example/hook",
            "method": "POST",
            "json": {"ref": "{{ event.ref }}", "auth": [{"env": "TOKEN"}], "n": 1},
        }
    )
    [ref] = target.json_body["auth"]
    ref.keep(SecretStr("very-secret"))
    recipe = Recipe("t", target, presets()["http"])
    about = {"route": "r", "delivery": "d", "source": "s"}

    call = recipe.plan(PUSH, reveal=lambda found: found.reveal(), **about)
    shown = recipe.show(call, PUSH, **about)

    said = {"ref": "refs/heads/main", "n": 1}
    assert orjson.loads(call.body or b"") == {**said, "auth": ["very-secret"]}
    assert orjson.loads(shown.body or b"") == {**said, "auth": ["<env TOKEN>"]}


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
    call = Recipe("t", target, presets()["http"]).plan(
        event, route="r", delivery="d", source="s", reveal=placeholder
    )
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
        "{{ " + "(" * 3_000,
        "{{ " + "9" * 5_000 + " }}",
        "{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}",
        r"{{ '\ud800' }}",
        "\ud800",
    ],
)
def test_templates_that_are_refused(template: str) -> None:
    with pytest.raises(PlanError, match=r"^json\.x: "):
        Template(template, "json.x").render({"event": {}})


@pytest.mark.parametrize("product", ["'ab' * event.n", "event.n * 'ab'", "[1, 2] * event.n"])
def test_a_product_is_refused_before_it_is_made(product: str) -> None:
    # Its length would fit the bound on output, which therefore cannot be what refuses it.
    template = Template(f"{{{{ ({product}) | length }}}}", "json.x")

    assert template.render({"event": {"n": 32_768}}) == "65536"
    with pytest.raises(PlanError, match=r"^json\.x: OverflowError in the template$"):
        template.render({"event": {"n": 32_769}})


@pytest.mark.parametrize(
    "template",
    [
        "{{ event[target.token] }}",
        "{{ event[[target.token]] }}",
        "{{ ''[target.token] }}",
        "{{ [event] | map(attribute=target.token) | first }}",
        "{{ [event] | map(target.token) | first }}",
        "{{ [event] | selectattr('sha', target.token) | first }}",
        "{{ event | attr(target.token) }}",
    ],
)
def test_an_error_quotes_no_secret(template: str) -> None:
    with pytest.raises(PlanError) as raised:
        Template(template, "json.x").render({"event": {"sha": SHA}, "target": {"token": "s3cret"}})

    assert "s3cret" not in str(raised.value)


def test_an_error_names_what_the_template_misspells() -> None:
    with pytest.raises(PlanError, match="has no attribute 'numbr'"):
        Template("{{ event.numbr }}", "json.x").render({"event": {}})


@pytest.mark.parametrize(
    ("template", "value", "refused"),
    [
        ("https://host.example/a/{{ x }}/b", "..", True),
        ("https://host.example/a/{{ x }}", ".", True),
        ("https://host.example/{{ x }}?y=1", "..", True),
        ("https://host.example/a/%2E{{ x }}", ".", True),
        ("/{{ x }}/b", "..", True),
        ("https://host.example/{{ x }}", "...", False),
        ("https://host.example/v1.{{ x }}", ".", False),
        ("https://host.example/a?y={{ x }}/../b", "..", False),
    ],
)
def test_values_take_no_segment_away(template: str, value: str, refused: bool) -> None:
    compiled = Template(template, "url", in_url=True)

    if refused:
        with pytest.raises(PlanError, match=r"^url: a path segment would be '\.' or '\.\.'$"):
            compiled.render({"x": value})
    else:
        assert compiled.render({"x": value}) == template.replace("{{ x }}", value)


def test_control_characters_in_headers_are_refused() -> None:
    with pytest.raises(PlanError, match=r"^headers\.X: a control character$"):
        plan(PUSH, "http", headers={"X": "a\r\nInjected: 1"})


def test_a_header_of_the_targets_own_replaces_the_presets_in_any_case() -> None:
    options = {"token": "t", "uuid": "u", "tag": "", "force": False}

    call = plan(PUSH, "coolify", options=options, headers={"authorization": "Basic x"})

    assert call.headers == {"authorization": "Basic x"}


@pytest.mark.parametrize("body", [{"json": {}}, {"form": {"a": "b"}}])
def test_a_content_type_of_the_targets_own_is_the_only_one(body: dict[str, Any]) -> None:
    call = plan(PUSH, "http", headers={"content-type": "text/x"}, **body)

    assert call.headers == {"content-type": "text/x"}


def test_one_header_in_two_cases_is_refused() -> None:
    with pytest.raises(PlanError, match=r"^headers: two names differ in nothing but case$"):
        plan(PUSH, "http", headers={"X-A": "1", "x-a": "2"})


@pytest.mark.parametrize("value", [{1: "a"}, [2**64]])
def test_what_json_cannot_say_is_refused(value: Any) -> None:
    with pytest.raises(PlanError, match=r"^json: "):
        plan(PUSH, "http", json=value)


def test_a_call_in_a_traceback_shows_no_secret() -> None:
    call = plan(PUSH, "http", headers={"A": "s3cret"}, form={"b": "s3cret"})

    assert repr(call) == "Call(method='POST')"


def test_masked_plan_shows_no_secret() -> None:
    ref = SecretRef(env="HOOK")
    ref.keep(SecretStr(HOOK))
    target = Target.model_validate({"preset": "http", "url": ref, "headers": {"A": ref}})

    call = Recipe("t", target, presets()["http"]).plan(
        PUSH, route="r", delivery="d", source="s", reveal=placeholder
    )

    assert call == Call("POST", "<env HOOK>", {"A": "<env HOOK>"}, None)


@pytest.mark.parametrize(
    ("body", "line", "column", "message"),
    [
        ("json: ['{{ event.numbr }}']", 6, 11, "json[0]: "),
        ("json: {1: a}", 6, 11, "json: "),
    ],
)
def test_rehearsal_points_at_the_body(
    tmp_path: Path, body: str, line: int, column: int, message: str
) -> None:
    file = tmp_path / "relay.yaml"
    file.write_text(
        "sources:\n  s: {provider: github, secrets: [{env: X}]}\n"
        f"targets:\n  t: {{preset: http, url: 'https://x.example',\n\n    {body}}}\n"
    )

    [problem] = rehearse(load(file, secrets_of=()))

    assert (problem.line, problem.column) == (line, column)
    assert problem.message.startswith(message)


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


@pytest.mark.parametrize("idempotent", [True, False])
@pytest.mark.parametrize("chosen", [None, "retry", "hold"])
def test_target_before_preset_says_what_follows_an_uncertain_call(
    idempotent: bool, chosen: str | None
) -> None:
    preset = presets()["http"].model_copy(update={"idempotent": idempotent})
    target = Target.model_validate({"preset": "http", "url": "x", "on_uncertain": chosen})

    told = Recipe("t", target, preset).on_uncertain

    assert told == (chosen or ("retry" if idempotent else None))
