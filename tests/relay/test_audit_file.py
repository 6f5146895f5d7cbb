"""The audit file on a real file system: many writers, killed ones, rotation, tampering."""

from __future__ import annotations

import asyncio
import json
import os
import random
import resource
import signal
import subprocess
import sys
from collections.abc import Callable
from datetime import datetime, tzinfo
from pathlib import Path
from typing import Any

import msgspec
import pytest
from click.testing import CliRunner, Result

from relay import audit
from relay.audit_file import AuditFile, Policy
from relay.audit_head import Head, finished_files, head_path, lock_path
from relay.audit_reading import followed_lines, prove
from relay.chain import Finding, digest
from relay.cli import main
from relay.errors import AuditUnavailable
from tests.harness import PATIENCE

KEY = b"key"
LARGE = 1_000_000
DAY = "2026-11-25"


class Noon(datetime):
    """The clock of a day that does not end while a test runs."""

    @classmethod
    def now(cls, tz: tzinfo | None = None) -> datetime:  # type: ignore[override]
        return datetime(2026, 11, 25, 12, tzinfo=tz)


@pytest.fixture(autouse=True)
def noon(monkeypatch: pytest.MonkeyPatch) -> None:
    # A new UTC day begins a new file, and the tests name the file in which a line stands.
    monkeypatch.setattr("relay.audit_file.datetime", Noon)


def policy(**changes: Any) -> Policy:
    return Policy(LARGE, 0, "never", KEY)._replace(**changes)


def line(number: int) -> bytes:
    return b'{"event":"test.line","number":%d}' % number


def written(path: Path, numbers: range, **changes: Any) -> AuditFile:
    file = AuditFile(path, policy(**changes))
    for number in numbers:
        file.add(line(number))
        file.flush()
    return file


def findings(path: Path, key: bytes | None = KEY) -> list[str]:
    found: list[Finding] = []
    prove(path, key, found.append, lambda _: None)
    return [str(finding) for finding in found]


def entries(path: Path) -> list[dict[str, Any]]:
    files = [*finished_files(path), path]
    return [json.loads(entry) for file in files for entry in file.read_bytes().splitlines()]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "audit" / "audit.jsonl"


def writer(path: Path, name: str, lines: int, max_bytes: int = LARGE) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "tests.relay.writer", str(path), name, str(lines)]
    return subprocess.Popen([*command, str(max_bytes)], stdout=subprocess.PIPE)


@pytest.mark.slow
def test_many_processes_write_one_chain_over_many_files(path: Path) -> None:
    writers = [writer(path, name, 5_000, max_bytes=100_000) for name in "abcd"]

    for process in writers:
        process.communicate(timeout=60)
        assert process.returncode == 0
    assert findings(path) == []
    told = entries(path)
    for name in "abcd":
        own = [entry["number"] for entry in told if entry.get("by") == name]
        assert own == list(range(5_000))
    assert len(finished_files(path)) > 5
    assert path.stat().st_mode & 0o077 == 0


@pytest.mark.slow
@pytest.mark.timeout(10 * PATIENCE)
def test_killed_writers_leave_a_chain_that_is_mended(path: Path) -> None:
    chance = random.Random(7)  # noqa: S311
    for number in range(30):
        with writer(path, f"w{number}", 1_000_000, max_bytes=30_000) as process:
            try:
                assert process.stdout is not None
                process.stdout.readline()
                files = len(finished_files(path))
                while len(finished_files(path)) < files + chance.randrange(1, 4):
                    assert process.poll() is None
            finally:
                process.send_signal(signal.SIGKILL)
    written(path, range(1))

    assert findings(path) == []


def test_an_unfinished_line_is_cut_off_and_kept_in_the_line_that_says_so(path: Path) -> None:
    written(path, range(2))
    with path.open("ab") as file:
        file.write(b'{"event":"half')

    written(path, range(2, 3))

    assert findings(path) == []
    mended, last = entries(path)[2:]
    assert (mended["event"], mended["level"]) == ("audit.mended", "warning")
    assert (mended["torn"], mended["torn_bytes"]) == ('{"event":"half', 14)
    assert last["number"] == 2


def test_lines_written_before_a_kill_that_the_head_does_not_know_are_taken_over(path: Path) -> None:
    written(path, range(2))
    before = head_path(path).read_bytes()
    written(path, range(2, 4))
    head_path(path).write_bytes(before)
    assert findings(path) == ["audit.jsonl:4: line numbers 3 to 4 are not known to the head"]

    written(path, range(4, 5))

    assert findings(path) == []
    assert [entry["number"] for entry in entries(path)] == [0, 1, 2, 3, 4]


def test_without_a_head_the_chain_goes_on_where_the_file_ends(path: Path) -> None:
    written(path, range(3), key=None)
    head_path(path).write_bytes(b"{")

    written(path, range(3, 4), key=None)

    assert findings(path, None) == []
    assert [entry["seq"] for entry in entries(path)] == [1, 2, 3, 4]


@pytest.mark.parametrize("how", ["missing", "unsigned"])
def test_a_tail_cut_off_with_its_head_stays_found_after_the_next_writer(
    path: Path, how: str
) -> None:
    running = written(path, range(4))
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(lines[:2]))
    if how == "missing":
        head_path(path).unlink()
        assert findings(path) == ["audit.jsonl.head:1: the head is missing"]
    else:
        end = Head(2, digest(lines[1].rstrip()), path.stat().st_size, 1, DAY, "0" * 64)
        head_path(path).write_bytes(msgspec.json.encode(end))
        assert findings(path) == ["audit.jsonl.head:1: the head is not signed with this key"]

    for file in (AuditFile(path, policy()), running):
        file.add(line(4))
        file.flush()

    told = entries(path)
    assert (told[2]["event"], told[2]["head"]) == ("audit.unproven", how)
    assert "audit.jsonl:3: what is before it was not vouched for by the head's key" in findings(
        path
    )


def test_a_kill_between_renaming_and_noting_it_costs_no_line(path: Path) -> None:
    written(path, range(10))
    path.rename(path.with_name("audit-000000000001.jsonl"))

    for numbers in (range(10, 13), range(13, 16)):
        written(path, numbers, max_bytes=10)

    assert findings(path) == []
    assert [entry["number"] for entry in entries(path)] == list(range(16))


def test_a_finished_file_is_never_written_over(path: Path) -> None:
    file = written(path, range(2))
    finished = path.with_name("audit-000000000001.jsonl")
    finished.write_bytes(b"kept")

    with pytest.raises(FileExistsError):
        written(path, range(2, 3), max_bytes=10)

    assert finished.read_bytes() == b"kept"
    file.flush()


def test_a_process_that_keeps_the_lock_makes_a_flush_fail_and_not_hang(path: Path) -> None:
    file = written(path, range(1))
    holder = subprocess.Popen(
        ["flock", str(lock_path(path)), "sh", "-c", "echo held; read end"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert holder.stdout is not None
    assert holder.stdout.readline() == b"held\n"
    file.add(line(1))
    with pytest.raises(BlockingIOError) as raised:
        file.flush()
    assert raised.value.filename == str(path)
    holder.communicate(b"\n")

    file.flush()

    assert findings(path) == []
    assert [entry["number"] for entry in entries(path)] == [0, 1]


def test_a_tail_that_was_cut_off_stays_missing(path: Path) -> None:
    written(path, range(4))
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(lines[:2]))
    assert findings(path) == [
        "audit.jsonl:2: line numbers 3 to 4 are missing after it, by the head"
    ]

    written(path, range(4, 5))

    assert findings(path) == ["audit.jsonl:3: line numbers 3 to 4 are missing before it"]
    assert entries(path)[2]["missing_bytes"] == sum(map(len, lines[2:]))


def test_a_head_that_was_written_anew_needs_the_key(path: Path) -> None:
    written(path, range(4))
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(lines[:2]))
    head_path(path).unlink()
    written(path, range(9, 10), key=None)

    assert findings(path, None) == []
    assert findings(path) == ["audit.jsonl.head:1: the head is not signed with this key"]


def test_a_finished_file_that_is_missing(path: Path) -> None:
    written(path, range(20), max_bytes=200)
    files = finished_files(path)
    assert len(files) > 3

    files[1].unlink()

    [told] = findings(path)
    assert told.startswith(f"{files[2].name}:1: line numbers ")
    assert told.endswith(" are missing before it")


def test_files_that_are_old_enough_are_dropped_and_the_chain_says_so(path: Path) -> None:
    written(path, range(8), max_bytes=200)
    old = finished_files(path)
    for file in old:
        os.utime(file, (1, 1))

    written(path, range(8, 12), max_bytes=200, keep=3_600)

    assert not any(file.exists() for file in old)
    assert findings(path) == []
    dropped = [entry["file"] for entry in entries(path) if entry["event"] == "audit.dropped"]
    assert dropped == [file.name for file in old]


def test_a_day_has_its_own_file(path: Path) -> None:
    written(path, range(2))
    yesterday = head_path(path).read_text().replace(DAY, "2026-11-24")
    head_path(path).write_text(yesterday)

    written(path, range(2, 3))

    assert [file.name for file in finished_files(path)] == ["audit-000000000001.jsonl"]
    assert len(path.read_bytes().splitlines()) == 1
    assert findings(path) == []


def test_what_cannot_be_written_is_written_later(path: Path) -> None:
    file = written(path, range(2))
    _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (path.stat().st_size + 100, hard))
    try:
        file.add(line(2))
        with pytest.raises(OSError, match="too large") as raised:
            file.flush()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
        signal.signal(signal.SIGXFSZ, before)
    assert raised.value.filename == str(path)
    assert findings(path) == []

    file.flush()

    assert findings(path) == []
    assert [entry["number"] for entry in entries(path)] == [0, 1, 2]


def test_a_forked_child_writes_beside_its_parent(path: Path) -> None:
    file = written(path, range(1))
    child = os.fork()
    if not child:
        for number in range(200):
            file.add(line(number))
            file.flush()
        os._exit(0)
    for number in range(200):
        file.add(line(number))
        file.flush()
    assert os.waitpid(child, 0)[1] == 0

    assert findings(path) == []
    assert len(entries(path)) == 401


@pytest.mark.parametrize("style", ["json", "console"])
@pytest.mark.parametrize("fsync", ["never", "interval", "always"])
def test_lines_of_the_audit_stand_in_the_file_without_secrets(
    path: Path, style: audit.Style, fsync: str, audited: Any
) -> None:
    file = AuditFile(path, policy(fsync=fsync))
    audit.configure(style=style, secrets=["very-secret"], stream=audited, file=file)

    audit.log.info("deploy.queued", repo="acme/web", note="very-secret")
    audit.flush()

    [entry] = entries(path)
    assert (entry["event"], entry["repo"], entry["note"]) == ("deploy.queued", "acme/web", "****")
    assert b"deploy.queued" in audited.getvalue()
    assert findings(path) == []


@pytest.mark.parametrize("style", ["json", "console"])
async def test_the_file_has_what_standard_output_leaves_out(
    path: Path, style: audit.Style, audited: Any
) -> None:
    file = AuditFile(path, policy())
    audit.configure(style=style, level="error", secrets=["very-secret"], stream=audited, file=file)

    audit.log.debug("route.skipped")
    audit.log.info("deploy.queued", note="very-secret")
    audit.log.warning("deploy.retry_scheduled")
    # Nothing asks for these lines to be written but the end of the event loop's turn.
    await asyncio.sleep(0)
    assert len(entries(path)) == 2
    assert audited.getvalue() == b""
    audit.log.error("deploy.failed")
    audit.flush()

    events = ["deploy.queued", "deploy.retry_scheduled", "deploy.failed"]
    assert [(entry["event"], entry["level"]) for entry in entries(path)] == list(
        zip(events, ["info", "warning", "error"], strict=True)
    )
    assert entries(path)[0]["note"] == "****"
    assert [event for event in events if event.encode() in audited.getvalue()] == events[-1:]
    assert findings(path) == []


def test_an_audit_file_that_cannot_be_written_is_named(tmp_path: Path, audited: Any) -> None:
    (tmp_path / "folder").write_text("in the way")
    path = tmp_path / "folder" / "audit.jsonl"
    audit.configure(stream=audited, file=AuditFile(path, policy()))

    # Without an event loop a line is written at once.
    with pytest.raises(OSError, match=r"exists|directory"):
        audit.log.info("deploy.queued")
    with pytest.raises(AuditUnavailable, match=f"{path} does not take the audit"):
        audit.flush()
    assert b"deploy.queued" in audited.getvalue()


@pytest.fixture
def command(path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Result]:
    monkeypatch.setenv("RELAY_AUDIT_FILE", str(path))
    monkeypatch.setenv("RELAY_AUDIT_KEY", KEY.decode())

    def run(*args: str, code: int = 0) -> Result:
        result = CliRunner().invoke(main, args)
        assert result.exit_code == code, result.output
        return result

    return run


def test_verify_says_whether_the_chain_is_whole(
    path: Path, command: Callable[..., Result], monkeypatch: pytest.MonkeyPatch
) -> None:
    missing = f"{path} does not exist: check RELAY_AUDIT_FILE, or name FILE\n"
    assert command("audit", "verify", code=1).output == missing
    written(path, range(5))

    told = command("audit", "verify").stdout
    assert told.startswith("the chain is whole up to its signed head: 5 lines in 1 file, ")
    data = path.read_bytes()
    path.write_bytes(data.replace(b'"number":2', b'"number":7'))
    broken = command("audit", "verify", code=1)
    assert broken.stdout == (
        "audit.jsonl:3: was edited: the next line, audit.jsonl:4, was not written after it\n"
    )
    assert broken.stderr.startswith("the chain is broken in 1 place: 5 lines in 1 file, ")
    path.write_bytes(data)
    monkeypatch.delenv("RELAY_AUDIT_KEY")
    assert "not proven without RELAY_AUDIT_KEY" in command("audit", "verify").stdout
    monkeypatch.delenv("RELAY_AUDIT_FILE")
    assert "set RELAY_AUDIT_FILE" in command("audit", "verify", code=1).output
    assert command("audit", "verify", str(path)).stdout.startswith("the chain is whole, but ")


def test_query_and_tail_take_what_the_filters_say(
    path: Path, command: Callable[..., Result], monkeypatch: pytest.MonkeyPatch
) -> None:
    file = AuditFile(path, policy())
    for number, (event, repo) in enumerate(
        [("deploy.queued", "acme/web"), ("deploy.failed", "acme/api"), ("target.paused", "")]
    ):
        entry = {"event": event, "level": "info", "at": f"2026-11-2{number}T12:00:00.5Z"}
        file.add(json.dumps({**entry, "repo": repo, "by": "ops\x1b[31m"}).encode())
    file.flush()

    def events(*args: str) -> list[str]:
        lines = command(*args, "--json").stdout.splitlines()
        return [json.loads(entry)["event"] for entry in lines]

    assert events("audit", "query") == ["deploy.queued", "deploy.failed", "target.paused"]
    assert events("audit", "query", "--event", "deploy.*", "--repo", "acme/*") == [
        "deploy.queued",
        "deploy.failed",
    ]
    assert events("audit", "query", "--since", "2026-11-21T00:00Z") == [
        "deploy.failed",
        "target.paused",
    ]
    assert events("audit", "query", "--until", "2026-11-21T12:00:00.5Z") == ["deploy.queued"]
    assert events("audit", "query", "--by", "ops\x1b[31m", "--repo", "acme/api") == [
        "deploy.failed"
    ]
    assert events("tail", "-n", "1") == ["target.paused"]
    assert events("audit", "tail", "--event", "deploy.*", "-n", "1") == ["deploy.failed"]
    monkeypatch.setenv("RELAY_AUDIT_FILE", f"{path}.other")
    assert events("audit", "query", str(path), "--event", "target.*") == ["target.paused"]
    assert events("audit", "tail", "-n", "1", str(path)) == ["target.paused"]
    monkeypatch.setenv("RELAY_AUDIT_FILE", str(path))
    text = command("audit", "query", "--event", "deploy.failed").stdout
    assert text.startswith("2026-11-21T12:00:00.5")
    assert "repo=acme/api" in text
    assert "\x1b" not in text
    assert command("audit", "query", "--since", "soon", code=2).output
    assert command("audit", "query", "--repo", "re:(", code=2).output


def test_following_goes_on_over_new_files(path: Path) -> None:
    file = written(path, range(2), max_bytes=250)
    lines = followed_lines(path)
    for number in range(2, 9):
        file.add(line(number))
        file.flush()

    told = [json.loads(next(lines))["number"] for _ in range(2, 9)]
    lines.close()

    assert told == list(range(2, 9))
    assert len(finished_files(path)) >= 2
