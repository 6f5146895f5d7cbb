"""The commands `show` where Redis has forgotten: on a real server, beside a real audit file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import orjson
import pytest
from click.testing import CliRunner
from rq.job import JobStatus

from relay.audit_file import AuditFile, Policy
from relay.cli import main
from tests.harness import sha_of
from tests.relay.yard import Yard

PUSH = {"delivery": "github--a", "source": "github", "repo": "acme/web", "sha": sha_of("a")}
DEPLOY = {**PUSH, "deploy": "production--1", "target": "production"}


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "audit" / "audit.jsonl"
    monkeypatch.setenv("RELAY_AUDIT_FILE", str(path))
    return path


@pytest.fixture
def told(path: Path) -> list[dict[str, Any]]:
    """What was written, over several files, the oldest first."""
    lines: list[dict[str, Any]] = [
        {"event": "receiver.started"},
        {**PUSH, "event": "delivery.received"},
        {**DEPLOY, "event": "deploy.queued"},
        {"deploy": "production--1", "event": "deploy.stopped", "reason": "\x1b[31mred"},
        {"event": "worker.stopped"},
    ]
    file = AuditFile(path, Policy(1, 0, "never", None))
    for number, line in enumerate(lines):
        at = f"2026-11-03T12:00:0{number}.500000Z"
        file.add(orjson.dumps({**line, "level": "info", "at": at}))
        file.flush()
    return lines


def test_lines_of_the_audit_file_are_shown_instead(yard: Yard, told: list[dict[str, Any]]) -> None:
    delivery = yard.run("deliveries", "show", "github--a")
    deploy = yard.run("deploys", "show", "production--1")

    assert [line.split()[2] for line in delivery.stdout.splitlines()] == [
        line["event"] for line in told[1:4]
    ]
    assert "Redis does not have this delivery, or not any more" in delivery.stderr
    assert delivery.stdout.splitlines()[1:] == deploy.stdout.splitlines()
    assert "Redis does not have this deploy, or not any more" in deploy.stderr
    as_json = json.loads(yard.run("deliveries", "show", "github--a", "--json").stdout)
    assert (as_json["id"], as_json["complete"]) == ("github--a", True)
    assert [line["seq"] for line in as_json["history"]] == [2, 3, 4]


def test_what_redis_has_is_shown_from_there(yard: Yard, told: list[dict[str, Any]]) -> None:
    yard.end(yard.receive("a")[0], JobStatus.FINISHED, [])

    shown = yard.run("deliveries", "show", "github--a")

    assert "succeeded" in shown.stdout
    assert "Redis does not have" not in shown.stderr


def test_what_neither_has_is_not_there(
    yard: Yard, told: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    refused = yard.run("deploys", "show", "production--2", code=1)
    assert "there is no such deploy, or not any more" in refused.stderr
    assert "nor in the audit file, which goes back to 2026-11-03T12:00:00.500000Z" in refused.stderr

    monkeypatch.delenv("RELAY_AUDIT_FILE")
    refused = yard.run("deploys", "show", "production--1", code=1)
    assert refused.stderr == "Error: there is no such deploy, or not any more\n"


def test_a_file_that_cannot_be_read_is_said(yard: Yard, path: Path) -> None:
    finished = path.with_name("audit-000000000001.jsonl")
    finished.mkdir(parents=True)

    refused = yard.run("deploys", "show", "production--1", code=1)

    assert refused.stderr == f"{finished} cannot be read (Is a directory)\n"


def test_lines_are_found_by_how_their_commit_begins(told: list[dict[str, Any]]) -> None:
    def found(*options: str) -> list[int]:
        result = CliRunner().invoke(main, ["audit", "query", "--json", *options])
        assert result.exit_code == 0, result.output
        return [json.loads(line)["seq"] for line in result.stdout.splitlines()]

    assert found("--sha", sha_of("a")[:7]) == [2, 3]
    assert found("--sha", sha_of("a"), "--sha", "0000000") == [2, 3]
    assert found("--sha", sha_of("a")[1:8]) == []
