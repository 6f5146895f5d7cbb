"""What an explanation says of the ref that an event is about."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from relay.cli import main
from relay.events.event import NO_COMMIT, Action, PullRequest, Push
from relay.explanation import as_text, explanation
from relay.routing import Router

OLD, NEW = "a" * 40, "b" * 40
SECONDS, AT = 1_769_860_800.25, "2026-01-31T12:00:00Z"
RELAY_YAML = """\
sources: {forge: {provider: gitea, secrets: [{env: T_SECRET}]}}
targets: {shop: {preset: http, url: "https://deploy.example.com"}}
routes: [{name: shop, repo: acme/shop, on: tag, deploy: [shop]}]
"""


def push(before: str = OLD, after: str = NEW, **fields: Any) -> Push:
    return Push("acme/shop", "refs/heads/main", before, after, **fields)


def pull(action: Action, **fields: Any) -> PullRequest:
    return PullRequest("acme/shop", 7, action, NEW, "topic", "acme/shop", "main", **fields)


def explained(event: Push | PullRequest, provider: Any = "github") -> tuple[dict[str, Any], str]:
    told = explanation(Router([]), {}, event, "forge", provider=provider)
    return told["event"], as_text(told)


@pytest.mark.parametrize(
    ("event", "before", "after", "lines"),
    [
        (push(), OLD, NEW, (f"before:     {OLD}", f"after:      {NEW}")),
        (push(before=NO_COMMIT), "", NEW, ("before:     none: the ref did not exist",)),
        (push(before="0" * 64), "", NEW, ("before:     none: the ref did not exist",)),
        (push(after=NO_COMMIT, deleted=True), OLD, "", ("after:      none: the ref is deleted",)),
        (push(before=NO_COMMIT, before_told=False), None, NEW, ("before:     not told",)),
        (pull("opened"), None, f"{NEW} open", ("before:     not told",)),
        (pull("synchronize", before_sha=OLD), OLD, f"{NEW} open", (f"before:     {OLD}",)),
        (pull("closed"), None, f"{NEW} closed", (f"after:      {NEW} closed",)),
        (pull("labeled"), None, NEW, (f"after:      {NEW}\n",)),
    ],
)
def test_where_the_ref_stood_and_stands(
    event: Push | PullRequest, before: str | None, after: str, lines: tuple[str, ...]
) -> None:
    described, text = explained(event)
    assert (described["before"], described["after"]) == (before, after)
    assert all(line in text for line in lines)


@pytest.mark.parametrize(
    ("event", "own_clock", "words"),
    [
        (push(changed_at=SECONDS, own_clock=True), True, f"{AT}, the time of this event"),
        (
            push(changed_at=SECONDS),
            False,
            f"{AT}, the time of the repository's change before this event",
        ),
        (pull("opened", changed_at=SECONDS), True, f"{AT}, the time of this event"),
        (push(), False, "none"),
        (pull("opened"), False, "none"),
    ],
)
def test_the_clock(event: Push | PullRequest, own_clock: bool, words: str) -> None:
    described, text = explained(event)
    assert described["clock"] == (None if words == "none" else AT)
    assert described["own_clock"] is own_clock
    assert f"clock:      {words}\n" in text


@pytest.mark.parametrize(
    ("provider", "keeps", "line"),
    [
        ("gogs", True, "redelivery: has the same delivery id"),
        ("forgejo", False, "redelivery: has a new delivery id"),
        (None, None, ""),
    ],
)
def test_whether_a_redelivery_keeps_its_id(
    provider: str | None, keeps: bool | None, line: str
) -> None:
    described, text = explained(push(repo_id="42"), provider)
    assert described["redelivery_keeps_id"] is keeps
    assert line in text
    assert ("redelivery" in text) == bool(line)
    assert described["repo_id"] == "42"
    assert "repo id:    42\n" in text


def test_the_command_tells_it_of_a_payload(tmp_path: Path) -> None:
    (tmp_path / "relay.yaml").write_text(RELAY_YAML)
    repository = {"full_name": "acme/shop", "id": 42, "updated_at": AT}
    payload = {"ref": "refs/tags/v1", "before": NO_COMMIT, "after": NEW, "repository": repository}
    (tmp_path / "tag.json").write_text(json.dumps(payload))
    environ = {"RELAY_CONFIG": str(tmp_path / "relay.yaml")}

    result = CliRunner().invoke(
        main, ["explain", "--json", str(tmp_path / "tag.json")], env=environ
    )

    assert json.loads(result.output)["event"] == {
        "kind": "tag",
        "repo": "acme/shop",
        "ref": "refs/tags/v1",
        "sha": NEW,
        "author": "",
        "files": "0 changed, and perhaps more: the sender's list is incomplete",
        "repo_id": "42",
        "before": None,
        "after": NEW,
        "clock": AT,
        "own_clock": False,
        "redelivery_keeps_id": False,
    }
