"""Loading relay.yaml: every mistake with its place, and secrets that stay secret."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from config.errors import ConfigError
from config.loading import load
from config.model import NOTICE_KINDS
from config.policies import ApprovalPolicy
from config.secret_places import secret_values

ENVIRON = {
    "A": "very-secret-a",
    "B": "https://host.example/hooks/very-secret-b",
    "BLANK": " ",
    "TOKEN": "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
}
HEAD = """\
sources:
  git: {provider: github, secrets: [{env: A}]}
targets:
  web: {preset: flightcontrol, url: {env: B}}
"""


def mistakes(folder: Path, text: str | bytes) -> list[str]:
    file = folder / "relay.yaml"
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(ConfigError) as raised:
        load(file, environ=ENVIRON)
    assert "very-secret" not in str(raised.value)
    return [str(problem).removeprefix(str(file)) for problem in raised.value.problems]


def test_everything_an_operator_may_write(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("from-a-file-1\n")
    file = tmp_path / "relay.yaml"
    file.write_text(
        f"""\
sources:
  github:
    provider: github
    secrets: [{{env: A}}, {{file: {tmp_path}/token}}]
    repos: ["acme/*"]
  gitlab: {{provider: gitlab, signing_tokens: [{{env: TOKEN}}], tolerance: 2m}}
targets:
  web: {{preset: flightcontrol, url: {{env: B}}, force: true, concurrency: 1, supersede: true}}
  api:
    preset: http
    url: "https://x.example/{{{{ event.branch }}}}"
    headers: {{Authorization: {{env: A}}}}
    json: {{sha: "{{{{ event.sha }}}}", list: [1, true, null]}}
routes:
  - {{name: a, repo: "re:acme/(a|b)", on: [push, tag], tags: ["v*"], deploy: [web, api]}}
""".replace("[web, api]", "[api]")
    )

    config = load(file, environ=ENVIRON).config

    assert [ref.reveal() for ref in config.sources["github"].secrets] == [
        "very-secret-a",
        "from-a-file-1",
    ]
    assert config.sources["gitlab"].tolerance == 120
    assert config.targets["web"].options == {"force": True}
    assert config.targets["api"].json_body["list"] == [1, True, None]
    assert config.routes[0].on == ("push", "tag")
    assert "very-secret" not in repr(config)
    assert {"very-secret-a", ENVIRON["B"], "/hooks/very-secret-b"} <= secret_values(config)


@pytest.mark.parametrize(
    ("rest", "mistake"),
    [
        (
            "routes:\n  - {name: a, repo: a/b, on: push, brances: [x], deploy: [web]}",
            ":6:36: routes[0].brances: unknown key 'brances' (did you mean 'branches'?)",
        ),
        (
            "routes:\n  - {name: a, on: push, deploy: [web]}",
            ":6:5: routes[0].repo: required key 'repo' is missing",
        ),
        (
            "routes:\n  - {name: a, repo: a/b, on: pusch, deploy: [web]}",
            ":6:30: routes[0].on[0]: 'pusch' is not one of push, tag, pull_request, delete "
            "(did you mean 'push'?)",
        ),
        (
            "routes:\n  - {name: a, repo: a/b, on: push, deploy: [wbe]}",
            ":6:45: routes[0].deploy[0]: no target 'wbe' (did you mean 'web'?)",
        ),
        (
            "routes:\n  - {name: a, repo: a/b, on: push, sources: [gti], deploy: [web]}",
            ":6:46: routes[0].sources[0]: no source 'gti' (did you mean 'git'?)",
        ),
        (
            "routes:\n  - {name: a, repo: a/b, on: pull_request, deploy: [web]}",
            ":6:53: routes[0].deploy[0]: target 'web' cannot deploy a pull_request: preset "
            "flightcontrol is for push",
        ),
        (
            "routes:\n  - {name: a, repo: a/b, on: push, drafts: true, deploy: [web]}",
            ":6:36: routes[0].drafts: never applies: it concerns pull_request, but on is push",
        ),
        (
            "routes:\n  - {name: a, repo: 're:(', on: push, deploy: [web]}",
            ":6:21: routes[0].repo: pattern 're:(': not a regular expression: "
            "missing ), unterminated subpattern",
        ),
        (
            "  c: {preset: colify, url: 'https://x.example'}",
            ":5:15: targets.c.preset: no preset 'colify'; there are coolify, "
            "flightcontrol-preview, flightcontrol, http, netlify, render, vercel "
            "(did you mean 'coolify'?)",
        ),
        (
            "  c: {preset: coolify, url: 'https://x.example'}",
            ":5:6: targets.c: preset coolify requires key 'token'",
        ),
        (
            "  c: {preset: netlify, url: 'https://x.example', clear_cache: 1}",
            ":5:63: targets.c.clear_cache: must be true or false",
        ),
        (
            "  c: {preset: http, url: 'ftp://x.example'}",
            ":5:26: targets.c.url: a URL must start with https:// or http://",
        ),
        (
            "  c: {preset: http, url: 'https://{{ event.repo }}/x'}",
            ":5:26: targets.c.url: host and port cannot be templates",
        ),
        (
            "  c: {preset: http, url: {env: NOWHERE}}",
            ":5:26: targets.c.url: environment variable NOWHERE is not set",
        ),
        (
            "  c: {preset: http, url: {env: BLANK}}",
            ":5:26: targets.c.url: environment variable BLANK is empty: an empty secret would "
            "let anyone deploy",
        ),
        (
            "  c: {preset: http, url: 'https://x.example', json: {inputs: [{env: production}]}}",
            ":5:63: targets.c.json.inputs[0]: environment variable production is not set (is it no "
            "secret? then write {env: \"{{ 'production' }}\"})",
        ),
        (
            "  web: {preset: http, url: {env: B}}",
            ":5:3: targets.web: key 'web' stands here twice",
        ),
        (
            "  c: {preset: http, url: 'https://x.example', timeout: 3x}",
            ":5:56: targets.c.timeout: not a duration: write a number of seconds, or 10s, 5m, "
            "2h, 3d",
        ),
    ],
)
def test_one_mistake(tmp_path: Path, rest: str, mistake: str) -> None:
    assert mistakes(tmp_path, HEAD + rest) == [mistake]


def test_mistakes_of_all_kinds_at_once_in_the_order_of_the_file(tmp_path: Path) -> None:
    found = mistakes(
        tmp_path,
        "sources:\n  git: {provider: githb, secrets: [{env: A}]}\n"
        "targets:\n  web: {preset: flightcontrol, url: {env: NOWHERE}}\n"
        "routes:\n  - {name: a, repo: a/b, on: push, deploy: [wbe]}\n",
    )

    assert [line.split(": ")[0] for line in found] == [":2:19", ":4:37", ":6:45"]


@pytest.mark.parametrize(
    ("text", "mistake"),
    [
        (b"", ": is empty"),
        (b"\xff\xfe", ": is not UTF-8 text"),
        (b"- a", ":1:1: the file must hold sources, targets and routes"),
        (b"a: [", ":2:1: not valid YAML: did not find expected node content"),
        (b"sources: {}", ":1:10: sources: must name at least one git server"),
    ],
)
def test_files_that_are_none(tmp_path: Path, text: bytes, mistake: str) -> None:
    assert mistakes(tmp_path, text) == [mistake]


@pytest.mark.parametrize("text", ["a: !!python/object:os.system {}", "a: &x [*x]", "? [1]\n: 2"])
def test_tricks_of_yaml_are_refused(tmp_path: Path, text: str) -> None:
    [mistake] = mistakes(tmp_path, text)
    assert "not valid YAML" in mistake


def test_source_without_a_secret_is_refused(tmp_path: Path) -> None:
    [mistake] = mistakes(tmp_path, "sources:\n  git: {provider: github}\n")
    assert mistake.startswith(":2:8: sources.git: without a secret anyone could deploy")


def test_secrets_of_other_sections_are_not_looked_up(tmp_path: Path) -> None:
    file = tmp_path / "relay.yaml"
    file.write_text(HEAD)

    config = load(file, secrets_of=["sources"], environ={"A": "very-secret-a"}).config

    assert config.sources["git"].secrets[0].reveal() == "very-secret-a"
    with pytest.raises(LookupError):
        config.targets["web"].url.reveal()  # type: ignore[union-attr]


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.one_of(st.binary(max_size=60), st.text(max_size=60).map(str.encode)))
def test_any_bytes_are_loaded_or_refused(tmp_path: Path, text: bytes) -> None:
    file = tmp_path / "relay.yaml"
    file.write_bytes(HEAD.encode() + text)
    try:
        load(file, environ=ENVIRON)
    except ConfigError as error:
        assert error.problems  # noqa: PT017


def test_where_a_source_sends_from_and_how_much(tmp_path: Path) -> None:
    file = tmp_path / "relay.yaml"
    more = "networks: [192.30.252.0/22, '2a0a:a440::/29'], rate: 600/m"
    file.write_text(f"sources: {{git: {{provider: github, secrets: [{{env: A}}], {more}}}}}\n")

    source = load(file, environ=ENVIRON).config.sources["git"]

    assert [str(network) for network in source.networks] == ["192.30.252.0/22", "2a0a:a440::/29"]
    assert source.rate == (600, 60)


@pytest.mark.parametrize(
    ("key", "mistake"),
    [
        (
            "networks: [10.0.0.0/8, 10.0.0.1/8]",
            ":3:28: sources.git.networks[1]: '10.0.0.1/8' is not a network such as 10.0.0.0/8 "
            "or fd00::/8",
        ),
        ("networks: 7", ":3:15: sources.git.networks: must be a list"),
        ("rate: 5", ":3:11: sources.git.rate: not a rate: write 100/s, 600/m, 1000/h or 500/30d"),
        ("rate: 0/s", ":3:11: sources.git.rate: not a rate: write 100/s, 600/m, 1000/h or 500/30d"),
    ],
)
def test_networks_and_rates_that_are_none(tmp_path: Path, key: str, mistake: str) -> None:
    text = HEAD.replace("[{env: A}]}", "[{env: A}],\n    " + key + "}")

    assert mistakes(tmp_path, text) == [mistake]


@pytest.mark.parametrize(
    ("keys", "mistake"),
    [
        (
            "rate: [10/m, 500/mo]",
            "rate[1]: not a rate: write 100/s, 600/m, 1000/h or 500/30d",
        ),
        ("rate: 100001/d", "rate: a rate counts 100000 calls at most"),
        (
            "hours: {zone: Berlin, open: sat}",
            "hours.zone: not a time zone: write UTC, or a name such as Europe/Berlin",
        ),
        (
            "hours: {zone: UTC, open: [sat, mon 9-17]}",
            "hours.open[1]: not opening hours: write mon-thu 09:00-17:00, 22:00-02:00, or sat,sun",
        ),
        (
            "hours: {zone: UTC, frozen: 2026-12-24}",
            "hours.frozen: unknown key 'frozen' (did you mean 'freeze'?)",
        ),
        ("hours: {zone: UTC}", "hours: say when it is open, or give a freeze"),
        ("approval: wanted", "approval: write required, or {expires: 3d}"),
        (
            "approval: {expires: soon}",
            "approval.expires: not a duration: write a number of seconds, or 10s, 5m, 2h, 3d",
        ),
    ],
)
def test_what_holds_deploys_back_is_checked(tmp_path: Path, keys: str, mistake: str) -> None:
    text = HEAD.replace("url: {env: B}}", "url: {env: B}, " + keys + "}")
    assert text != HEAD

    [told] = mistakes(tmp_path, text)

    assert told.partition(": targets.web.")[2] == mistake


def test_what_holds_deploys_back(tmp_path: Path) -> None:
    file = tmp_path / "relay.yaml"
    more = (
        "rate: [10/m, 500/30d], approval: {expires: 3d}, "
        "hours: {zone: Europe/Berlin, open: mon-thu 09:00-17:00, freeze: 2026-12-24}"
    )
    file.write_text(HEAD.replace("url: {env: B}}", "url: {env: B}, " + more + "}"))

    target = load(file, environ=ENVIRON).config.targets["web"]

    assert target.rate == ((10, 60), (500, 30 * 86_400))
    assert target.approval == ApprovalPolicy(expires=3 * 86_400)
    assert target.hours is not None
    assert target.hours.zone.key == "Europe/Berlin"


@pytest.mark.parametrize(
    ("keys", "mistake"),
    [
        ("ons: failure", ":6:48: notify[0].ons: unknown key 'ons' (did you mean 'on'?)"),
        (
            "on: [failure, recovry]",
            ":6:62: notify[0].on[1]: 'recovry' is not one of failure, recovery, held, approval "
            "(did you mean 'recovery'?)",
        ),
        ("on: []", ":6:52: notify[0].on: must not be empty"),
        (
            "targets: wbe",
            ":6:57: notify[0].targets[0]: no target 'wbe' (did you mean 'web'?)",
        ),
        (
            "repos: 're:('",
            ":6:55: notify[0].repos: pattern 're:(': not a regular expression: missing ), "
            "unterminated subpattern",
        ),
        (
            "json: {text: hello}",
            ":6:5: notify[0]: headers and json are of preset http; slack has its own",
        ),
        (
            "rate: 5",
            ":6:54: notify[0].rate: not a rate: write 100/s, 600/m, 1000/h or 500/30d",
        ),
        ("rate: 100001/d", ":6:54: notify[0].rate: a rate counts 100000 calls at most"),
    ],
)
def test_a_notifier_that_is_not_right(tmp_path: Path, keys: str, mistake: str) -> None:
    found = mistakes(
        tmp_path, HEAD + f"notify:\n  - {{name: chat, preset: slack, url: {{env: B}}, {keys}}}"
    )

    assert found == [mistake]


def test_a_notifier_without_its_keys(tmp_path: Path) -> None:
    found = mistakes(
        tmp_path,
        HEAD
        + "notify:\n"
        + "  - {name: a, preset: slak, url: {env: B}}\n"
        + "  - {name: b, preset: slack}\n"
        + "  - {name: c, preset: http, url: 'chat.example'}\n"
        + "  - {name: c, preset: http, url: {env: NOWHERE}}\n",
    )

    assert found == [
        ":6:23: notify[0].preset: 'slak' is not one of slack, http (did you mean 'slack'?)",
        ":7:5: notify[1].url: required key 'url' is missing",
        ":8:34: notify[2].url: a URL must start with https:// or http://",
        ":9:12: notify[3].name: notify[2] has this name already",
    ]


def test_secrets_in_a_body_and_what_only_looks_like_one(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("from-a-file-1\n")
    file = tmp_path / "relay.yaml"
    file.write_text(
        HEAD
        + "  c:\n    preset: http\n    url: https://x.example\n    json:\n"
        + f"      auth: [{{env: A}}, {{file: {tmp_path}/token}}]\n"
        + "      inputs: {env: \"{{ 'production' }}\"}\n"
        + "      others: [{env: A, more: 1}, {env: 1}, {env: ''}, {environ: A}]\n"
        + "notify: [{name: n, preset: http, url: 'https://x.example', json: {key: {env: B}}}]\n"
    )

    loaded = load(file, environ=ENVIRON)
    body = loaded.config.targets["c"].json_body
    assert [ref.reveal() for ref in body["auth"]] == ["very-secret-a", "from-a-file-1"]
    assert body["inputs"] == {"env": "{{ 'production' }}"}
    assert body["others"] == [{"env": "A", "more": 1}, {"env": 1}, {"env": ""}, {"environ": "A"}]
    assert {"from-a-file-1", ENVIRON["B"]} <= secret_values(loaded.config)
    assert tmp_path / "token" in loaded.origin.stamps
    without = load(file, secrets_of=(), environ={}).config.targets["c"].json_body
    assert str(without["auth"][0]) == "<env A>"


def test_a_secret_in_a_body_is_no_url_and_no_signing_token_for_its_key_alone(
    tmp_path: Path,
) -> None:
    file = tmp_path / "relay.yaml"
    file.write_text(
        HEAD
        + "  signing_tokens: {preset: http, url: {env: B}, headers: {X: {env: A}}, json: "
        + "{url: {env: A}, signing_tokens: [{env: A}]}, query: {url: {env: A}}}\n"
    )

    environ = {**ENVIRON, "A": "http://[no-url"}
    assert "http://[no-url" in secret_values(load(file, environ=environ).config)
    target = load(file, environ=ENVIRON).config.targets["signing_tokens"]
    assert target.json_body["url"].reveal() == "very-secret-a"
    assert target.json_body["signing_tokens"][0].reveal() == "very-secret-a"
    with pytest.raises(ConfigError, match="a URL must start with https:// or http://"):
        load(file, environ={**ENVIRON, "B": "no-url"})


def test_notifiers_and_their_secrets(tmp_path: Path) -> None:
    file = tmp_path / "relay.yaml"
    file.write_text(
        HEAD
        + "notify:\n"
        + "  - {name: team chat, preset: slack, url: {env: B}, on: held, targets: web}\n"
        + "  - {name: pager, preset: http, url: 'https://x.example', headers: {X: {env: A}}}\n"
    )

    chat, pager = load(file, environ=ENVIRON).config.notify
    assert (chat.on, chat.targets, chat.rate) == (("held",), ("web",), (10, 60))
    assert (pager.on, pager.targets, pager.repos) == (NOTICE_KINDS, None, ("**",))
    config = load(file, secrets_of=["notify"], environ=ENVIRON).config
    assert secret_values(config) == {
        *("very-secret-a", "very-secret-b", "/hooks/very-secret-b"),
        ENVIRON["B"],
    }
