"""Patterns, durations, presets, the schema and the settings."""

from __future__ import annotations

import string
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from config.errors import ConfigError
from config.model import Target
from config.patterns import PatternSet, compile_pattern
from config.policies import Debounce
from config.preset import presets
from config.schema import json_schema
from config.settings import load_settings
from config.values import parse_duration


@pytest.mark.parametrize(
    ("patterns", "value", "matches"),
    [
        (["main"], "main", True),
        (["main"], "main2", False),
        (["release/*"], "release/1", True),
        (["release/*"], "release/1/2", False),
        (["release/**"], "release/1/2", True),
        (["**/*.md"], "README.md", True),
        (["**/*.md"], "a/b/README.md", True),
        (["apps/**", "!**/*.md"], "apps/a.md", False),
        (["!docs/**"], "src/a", True),
        (["!docs/**"], "docs/a", False),
        (["v[0-9]?"], "v12", True),
        (["v[!0-9]"], "v1", False),
        (["{a,b}/c"], "b/c", True),
        (["re:a|b"], "b", True),
        (["re:a|b"], "xb", False),
        (["a.c"], "abc", False),
    ],
)
def test_path_patterns(patterns: list[str], value: str, matches: bool) -> None:
    assert PatternSet(patterns, "path").matches(value) is matches


@pytest.mark.parametrize(
    ("pattern", "value", "matches"),
    [
        ("dependabot[bot]", "dependabot[bot]", True),
        ("*@example.com", "a/b@example.com", True),
        ("re:^fix", "fix it\nnow", True),
        ("fix", "fix it", False),
    ],
)
def test_text_patterns(pattern: str, value: str, matches: bool) -> None:
    assert PatternSet([pattern], "text").matches(value) is matches


@given(st.text(max_size=30), st.sampled_from(["path", "text"]))
def test_any_pattern_compiles_or_says_why_not(pattern: str, flavour: str) -> None:
    try:
        compile_pattern(pattern, flavour)
    except ValueError as error:
        assert str(error)  # noqa: PT017


@given(st.text(alphabet=string.ascii_letters + "/.-_", min_size=1))
def test_plain_text_matches_itself_alone(text: str) -> None:
    pattern = PatternSet([text], "path")
    assert pattern.matches(text)
    assert not pattern.matches(text + "x")


@pytest.mark.parametrize(
    ("text", "seconds"), [("10s", 10), ("1.5h", 5400), ("3d", 259_200), ("250ms", 0.25), ("7", 7)]
)
def test_durations(text: str, seconds: float) -> None:
    assert parse_duration(text) == seconds


@pytest.mark.parametrize("value", ["3x", "", "-1s", "9" * 400, True])
def test_durations_that_are_none(value: object) -> None:
    with pytest.raises(ValueError, match="not a duration"):
        parse_duration(value)


def test_presets_are_complete() -> None:
    assert set(presets()) == {
        "coolify",
        "flightcontrol",
        "flightcontrol-preview",
        "http",
        "netlify",
        "render",
        "vercel",
    }
    assert all(preset.documentation.startswith("https://") for preset in presets().values())


def test_schema_knows_presets_and_their_options() -> None:
    target = json_schema()["$defs"]["Target"]

    assert target["additionalProperties"] is False
    assert set(target["properties"]["preset"]["enum"]) == set(presets())
    assert {"force", "token", "json", "url"} <= target["properties"].keys()
    assert "options" not in target["properties"]


def test_settings_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RELAY_REDIS_URL", "redis://:very-secret@host/0")
    monkeypatch.setenv("RELAY_BODY_TIMEOUT", "2m")

    settings = load_settings(port=1)

    assert settings.port == 1
    assert settings.body_timeout == 120
    assert settings.redis_address() == "redis://:very-secret@host/0"
    assert "very-secret" not in repr(settings)


def test_settings_that_cannot_be(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RELAY_PORT", "70000")

    with pytest.raises(ConfigError, match="RELAY_PORT"):
        load_settings()


@pytest.mark.parametrize("written", ["", "{folder}"])
def test_an_audit_file_that_is_none_is_refused(
    written: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RELAY_AUDIT_FILE", written.format(folder=tmp_path))

    with pytest.raises(ConfigError) as refused:
        load_settings()

    assert str(refused.value) == (
        "environment: RELAY_AUDIT_FILE: it is empty or names a folder, where the name of a file is "
        "needed"
    )


def test_an_audit_file_that_cannot_be_looked_at_is_left_to_who_writes_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("RELAY_AUDIT_FILE", "x" * 300)

    assert load_settings().audit_file == Path("x" * 300)


@pytest.mark.parametrize(
    ("written", "quiet", "cap"),
    [("10s", 10, 300), (2.5, 2.5, 300), ({"quiet": "1m", "cap": "2m"}, 60, 120)],
)
def test_debounce_is_a_duration_or_two(written: object, quiet: float, cap: float) -> None:
    target = Target.model_validate({"preset": "http", "url": "http://a/", "debounce": written})

    assert target.debounce == Debounce(quiet=quiet, cap=cap)
    assert target.newest_only


@pytest.mark.parametrize("written", ["soon", 0, {"cap": "2m"}, {"quiet": 1, "most": 2}])
def test_debounce_that_is_none(written: object) -> None:
    with pytest.raises(ValidationError, match="debounce"):
        Target.model_validate({"preset": "http", "url": "http://a/", "debounce": written})


def test_networks_in_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RELAY_ALLOWED_NETWORKS", "10.0.0.0/8, fd00::/8,192.0.2.1,")
    monkeypatch.setenv("RELAY_TRUSTED_PROXIES", "")

    settings = load_settings()

    told = [str(network) for network in settings.allowed_networks]
    assert told == ["10.0.0.0/8", "fd00::/8", "192.0.2.1/32"]
    assert settings.trusted_proxies == ()


@pytest.mark.parametrize("text", ["10.0.0.0/33", "10.0.0.1/8", "everywhere", "10.0.0.0/8 fd00::/8"])
def test_networks_that_are_none(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setenv("RELAY_ALLOWED_NETWORKS", text)

    with pytest.raises(ConfigError, match=r"RELAY_ALLOWED_NETWORKS: '.*' is not a network such as"):
        load_settings()
