"""The commands as an operator meets them: output, exit code, and no secret in either."""

from __future__ import annotations

import io
import json
import socket
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from relay.cli import main
from relay.ledger.ledger import prepare
from tests.harness import github_push, gitlab_merge_request

VALID = """\
sources:
  github: {provider: github, secrets: [{env: T_SECRET}]}
  gitlab: {provider: gitlab, secrets: [{env: T_TOKEN}]}
targets:
  production: {preset: flightcontrol, url: {env: T_HOOK}}
  preview: {preset: flightcontrol-preview, url: {env: T_PREVIEW}, force: true}
routes:
  - {name: web, repo: acme/web, on: push, branches: [main], deploy: [production]}
  - {name: previews, repo: acme/web, on: pull_request, deploy: [preview]}
  - {name: other, repo: acme/other, on: push, deploy: [production]}
"""
ENVIRON = {
    "T_SECRET": "very-secret-1",
    "T_TOKEN": "very-secret-2",
    "T_HOOK": "https://app.example.com/api/deploy-hook/1/very-secret-3",
    "T_PREVIEW": "https://app.example.com/api/deploy-hook/2/very-secret-4",
}
MISTAKEN = """\
sources:
  github: {provider: github, secrets: [{env: T_SECRET}]}
targets:
  production: {preset: flightcontrl, url: {env: T_HOOK}}
routes:
  - {name: web, repo: acme/web, on: push, brances: [main], deploy: [production]}
  - {name: other, repo: acme/other, on: push, deploy: [prodction]}
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "relay.yaml").write_text(VALID)
    (tmp_path / "push.json").write_bytes(github_push())
    (tmp_path / "mr.json").write_bytes(gitlab_merge_request())
    return tmp_path


def run(folder: Path, *args: str, environ: dict[str, str] | None = None) -> Result:
    known = ENVIRON if environ is None else environ
    result = CliRunner().invoke(
        main, [*args], env={"RELAY_CONFIG": str(folder / "relay.yaml"), **known}
    )
    assert "very-secret" not in result.output
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exc_info
    return result


def test_check_of_a_valid_file(folder: Path) -> None:
    result = run(folder, "check")

    assert result.exit_code == 0
    assert result.output.endswith("is valid: 2 sources, 2 targets, 3 routes\n")


def test_check_counts_one_as_one(folder: Path) -> None:
    (folder / "relay.yaml").write_text(
        "sources: {a: {provider: github, secrets: [{env: X}]}}\n"
        "targets: {b: {preset: http, url: 'https://deploy.example.com'}}\n"
        "routes: [{name: c, repo: acme/web, on: push, deploy: [b]}]\n"
    )

    result = run(folder, "check", "--no-secrets")

    assert result.output.endswith("is valid: 1 source, 1 target, 1 route\n")


def test_check_lists_every_mistake_with_its_place(folder: Path) -> None:
    file = folder / "relay.yaml"
    file.write_text(MISTAKEN)

    result = run(folder, "check")

    assert result.exit_code == 1
    assert [line.removeprefix(f"{file}:") for line in result.output.splitlines()] == [
        "4:24: targets.production.preset: no preset 'flightcontrl'; there are coolify, "
        "flightcontrol-preview, flightcontrol, http, netlify, render, vercel "
        "(did you mean 'flightcontrol'?)",
        "6:43: routes[0].brances: unknown key 'brances' (did you mean 'branches'?)",
        "7:56: routes[1].deploy[0]: no target 'prodction' (did you mean 'production'?)",
    ]


def test_check_without_secrets(folder: Path) -> None:
    empty = dict.fromkeys(ENVIRON)

    refused = run(folder, "check", environ=empty)  # type: ignore[arg-type]
    allowed = run(folder, "check", "--no-secrets", environ=empty)  # type: ignore[arg-type]

    assert refused.exit_code == 1
    assert "environment variable T_SECRET is not set" in refused.output
    assert allowed.exit_code == 0


def test_check_finds_templates_that_cannot_render(folder: Path) -> None:
    (folder / "relay.yaml").write_text(
        VALID.replace(
            "targets:\n",
            "targets:\n  api: {preset: http, url: 'https://x.example', json: "
            "{a: '{{ event.numbr }}'}}\n",
        )
    )

    result = run(folder, "check")

    assert result.exit_code == 1
    assert "relay.yaml:5:" in result.output
    assert "numbr" in result.output


def test_explain_push(folder: Path) -> None:
    result = run(folder, "explain", "--source", "github", str(folder / "push.json"), environ={})

    assert result.exit_code == 0
    assert "✓ web: all conditions hold" in result.output
    assert "GET <env T_HOOK>?commit=" in result.output
    assert "✗ previews: on is pull_request, this is a push" in result.output
    assert "✗ other: repo acme/web does not match acme/other" in result.output
    assert "1 of 3 routes match" in result.output


def test_explain_merge_request_as_json(folder: Path) -> None:
    result = run(folder, "explain", "--source", "gitlab", "--json", str(folder / "mr.json"))

    told = json.loads(result.output)
    [matched] = [route for route in told["routes"] if route["matched"]]
    assert matched["route"] == "previews"
    assert matched["calls"][0]["url"].startswith("<env T_PREVIEW>/7/")
    assert matched["calls"][0]["url"].endswith("?force=true")


def test_explain_asks_for_the_source(folder: Path) -> None:
    result = run(folder, "explain", str(folder / "push.json"))

    assert result.exit_code == 2
    assert "--source github | gitlab" in result.output


def test_explain_of_something_else(folder: Path) -> None:
    (folder / "x.json").write_text("[]")

    result = run(folder, "explain", "--source", "github", str(folder / "x.json"))

    assert result.exit_code == 1
    assert result.output == "the payload is not a JSON object\n"


def test_explain_of_what_is_not_recognised_says_how_to_name_it(folder: Path) -> None:
    (folder / "x.json").write_text('{"starred_at": "2026-01-01T00:00:00Z"}')
    explain = ("explain", "--source", "github", str(folder / "x.json"))

    unnamed, named = run(folder, *explain), run(folder, *explain, "--event", "star")

    assert unnamed.output == (
        "ignored: its fields tell of no event that deploys; if it is one, name its event header "
        "with --event\n"
    )
    assert named.output == "ignored: star events never deploy\n"


@pytest.mark.parametrize("name", ["pull_request/opened.with-null-body", "push/1", "ping/default"])
def test_explain_real_payloads(folder: Path, name: str) -> None:
    payload = Path(__file__).parents[2].parent / "shared" / "payloads" / "github" / f"{name}.json"
    if not payload.exists():
        pytest.skip("the real payloads are not beside the project")

    result = run(folder, "explain", "--source", "github", str(payload))

    assert result.exit_code == 0
    assert ("0 of 3 routes match" in result.output) != result.output.startswith("ignored: ping")


def test_send_to_nobody(folder: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as nobody:
        port = nobody.getsockname()[1]

    result = run(folder, "send", "github", "--url", f"http://127.0.0.1:{port}")

    assert result.exit_code == 1
    assert result.output == (
        f"no answer from http://127.0.0.1:{port}/hooks/github: connection refused: start "
        "deploy-relay up or serve, or name the receiver with --url\n"
    )


@pytest.mark.parametrize("url", ["nonsense", "ftp://127.0.0.1"])
def test_send_to_what_is_no_url(folder: Path, url: str) -> None:
    result = run(folder, "send", "github", "--url", url)

    assert result.exit_code == 1
    assert result.output == f"not sent: '{url}/hooks/github' is no http:// or https:// URL\n"


def test_send_with_an_id_that_no_header_can_hold(folder: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as somebody:
        url = f"http://127.0.0.1:{somebody.getsockname()[1]}"
        result = run(folder, "send", "github", "--url", url, "--delivery", "a\nX-Other: b")

    assert result.exit_code == 1
    assert result.output == "not sent: the delivery id or the token cannot stand in a header\n"


def test_send_to_a_receiver_on_ipv6(folder: Path) -> None:
    with socket.create_server(("::1", 0), family=socket.AF_INET6) as nobody:
        port = str(nobody.getsockname()[1])

    environ = {**ENVIRON, "RELAY_HOST": "::1", "RELAY_PORT": port}
    result = run(folder, "send", "github", environ=environ)

    assert result.exit_code == 1
    assert f"no answer from http://[::1]:{port}/hooks/github: connection refused" in result.output


def test_settings_that_cannot_be(folder: Path) -> None:
    result = run(folder, "serve", environ={**ENVIRON, "RELAY_PORT": "many"})

    assert result.exit_code == 1
    assert "RELAY_PORT" in result.output


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("RELAY_REDIS_URL", "redis://:s3cr/etpass@localhost:6379/0", "must be percent-encoded"),
        ("RELAY_STORE_TIMEOUT", "2m", "less than or equal to 60"),
        ("RELAY_LEDGER_FSYNC", "never", "Input should be 'full' or 'normal'"),
    ],
)
def test_settings_that_would_hurt_later(folder: Path, name: str, value: str, words: str) -> None:
    result = run(folder, "serve", environ=ENVIRON | {name: value})

    assert result.exit_code == 1
    assert f"{name}: " in result.output
    assert words in result.output
    assert "s3cr" not in result.output


def test_missing_file(tmp_path: Path) -> None:
    result = run(tmp_path, "check")

    assert result.exit_code == 1
    assert result.output == (
        f"{tmp_path}/relay.yaml: cannot be read: No such file or directory: create it, or name "
        "another one in RELAY_CONFIG\n"
    )


def test_schema_is_json(folder: Path) -> None:
    schema = json.loads(run(folder, "schema").output)

    assert schema["properties"].keys() == {"sources", "targets", "routes", "notify"}


def test_help_teaches(folder: Path) -> None:
    output = run(folder, "--help").output

    for command in ("up", "serve", "worker", "check", "explain", "send", "schema", "demo"):
        assert f"\n  {command} " in output


def test_a_target_is_paused_and_resumed(folder: Path, audited: io.BytesIO) -> None:
    environ = {"RELAY_DATA_DIR": str(folder)}
    prepare(folder)

    paused = run(folder, "targets", "pause", "preview", environ=environ)
    assert paused.exit_code == 0
    line = json.loads(paused.stdout)
    assert (line["event"], line["level"], line["target"]) == ("target.paused", "info", "preview")
    again = run(folder, "targets", "pause", "preview", environ=environ)
    assert (again.exit_code, again.stdout, again.stderr) == (0, "", "preview is paused already\n")

    listed = run(folder, "targets", "list", environ=environ)
    assert listed.exit_code == 0
    production, preview = listed.stdout.splitlines()
    assert production == "production  0 calling  0 waiting  ready"
    assert preview.startswith("preview     0 calling  0 waiting  paused since 20")

    resumed = run(folder, "targets", "resume", "preview", environ=environ)
    assert json.loads(resumed.stdout)["event"] == "target.resumed"
    again = run(folder, "targets", "resume", "preview", environ=environ)
    assert (again.exit_code, again.stdout, again.stderr) == (0, "", "preview is not paused\n")


def test_a_target_that_cannot_be_paused(folder: Path) -> None:
    unknown = run(folder, "targets", "pause", "prod")
    assert unknown.exit_code == 2
    assert "no target 'prod' in relay.yaml, which has production, preview" in unknown.stderr


def test_a_ledger_that_is_elsewhere_or_not_made_yet(folder: Path, tmp_path: Path) -> None:
    environ = {"RELAY_DATA_DIR": str(tmp_path / "other")}

    for command in (
        *(("targets", "list"), ("targets", "pause", "preview"), ("targets", "resume", "preview")),
        *(("deploys", "list"), ("token", "list"), ("top", "--once"), ("drain",)),
    ):
        away = run(folder, *command, environ=environ)
        assert (away.exit_code, away.stdout) == (1, "")
        assert away.stderr == (
            f"there is no ledger in {tmp_path}/other: start deploy-relay up or serve there, or "
            "name its folder in RELAY_DATA_DIR\n"
        )


def test_check_warns_of_addresses_that_are_not_allowed(folder: Path) -> None:
    environ = ENVIRON | {"T_HOOK": "http://10.0.0.7/very-secret-3"}

    warned = run(folder, "check", environ=environ)
    quiet = run(folder, "check", environ=environ | {"RELAY_ALLOWED_NETWORKS": "10.0.0.0/8"})

    assert (warned.exit_code, quiet.exit_code) == (0, 0)
    assert warned.stderr == (
        "warning: targets.production: its address is private (10.0.0.0/8), which a worker calls "
        "only if RELAY_ALLOWED_NETWORKS has it\n"
    )
    assert quiet.stderr == ""


NOTIFY = """\
notify:
  - {name: team chat, preset: slack, url: {env: T_CHAT}, on: [failure, recovery]}
  - {name: others, preset: slack, url: {env: T_CHAT}, repos: acme/other}
"""


def test_check_warns_of_a_notifier_whose_address_is_not_allowed(folder: Path) -> None:
    near = NOTIFY.replace("{env: T_CHAT}, repos", "'http://127.0.0.1/chat', repos")
    (folder / "relay.yaml").write_text(VALID + near)

    result = run(folder, "check", environ=ENVIRON | {"T_CHAT": "https://chat.example/very-secret"})

    assert result.exit_code == 0
    assert result.stdout.endswith("2 sources, 2 targets, 3 routes, 2 notifiers\n")
    assert result.stderr == (
        "warning: notify[1]: its address is loopback (127.0.0.0/8), which a worker calls only if "
        "RELAY_ALLOWED_NETWORKS has it\n"
    )


def test_explain_says_who_is_told(folder: Path) -> None:
    (folder / "relay.yaml").write_text(VALID + NOTIFY)
    push = str(folder / "push.json")

    text = run(folder, "explain", "--source", "github", push, environ={})
    told = json.loads(run(folder, "explain", "--source", "github", "--json", push).output)

    assert "        notifies team chat of failure, recovery\n" in text.output
    assert "notifies others" not in text.output
    [call] = told["routes"][0]["calls"]
    assert call["notifies"] == [{"notifier": "team chat", "on": ["failure", "recovery"]}]
