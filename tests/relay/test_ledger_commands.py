"""The commands `ledger`: check, backup, restore, accept, beside real processes."""

from __future__ import annotations

import asyncio
import io
import json
import sqlite3
import stat
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from config.settings import load_settings
from relay import audit
from relay.audit_file import audit_file
from relay.cli import main
from relay.ledger.ledger import Ledger, prepare
from relay.ledger.sqlite import FILE
from tests.relay.ledger.rows import add_deploy, sql, statuses


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A data folder with a ledger of one deploy, and an audit file."""
    data = tmp_path / "data"
    monkeypatch.setenv("RELAY_DATA_DIR", str(data))
    monkeypatch.setenv("RELAY_AUDIT_FILE", str(tmp_path / "audit.jsonl"))
    prepare(data)
    fill(data, "a")
    yield data
    audit.configure()


def fill(data: Path, *words: str) -> None:
    """Add a deploy for each word."""

    async def work() -> None:
        ledger = Ledger(data)
        for word in words:
            await add_deploy(ledger, word, word)
        await ledger.close()

    asyncio.run(work())


def say(event: str, **fields: Any) -> None:
    """Have the audit file say something."""
    audit.configure(stream=io.BytesIO(), file=audit_file(load_settings()))
    audit.log.info(event, **fields)
    audit.flush()


def run(*arguments: str, code: int = 0) -> Result:
    result = CliRunner().invoke(main, ["ledger", *arguments])
    assert result.exit_code == code, (result.output, result.stderr, result.exception)
    return result


def audited(folder: Path) -> list[dict[str, Any]]:
    lines = (folder.parent / "audit.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines]


def test_check_says_what_is_in_a_whole_ledger(folder: Path) -> None:
    result = run("check")
    assert "1 deliveries, 1 refs, 1 deploys, 1 open deploys" in result.stdout
    assert result.stdout.endswith("the ledger is whole\n")
    told = json.loads(run("check", "--json", "--quick").stdout)
    assert (told["sound"], told["faults"], told["counts"]["deploys"]) == (True, [], 1)
    assert told["schema"] == told["newest_schema"]


def test_check_counts_what_is_only_in_the_log_yet(folder: Path) -> None:
    with closing(sqlite3.connect(folder / FILE)) as user:
        # The log is copied into the file only when its last user closes it.
        user.execute("SELECT count(*) FROM deploy").fetchone()
        fill(folder, *(f"branch-{number}" for number in range(40)))
        [pages], [size] = (
            user.execute(f"PRAGMA {what}").fetchone() for what in ("page_count", "page_size")
        )
        told = json.loads(run("check", "--json").stdout)
        assert told["bytes"] == pages * size > (folder / FILE).stat().st_size


def test_check_without_a_ledger_is_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RELAY_DATA_DIR", str(tmp_path))
    assert run("check", code=1).stderr == f"there is no ledger {tmp_path / FILE}\n"


def test_check_finds_a_row_whose_parent_is_gone(folder: Path) -> None:
    sql(folder, "DELETE FROM delivery")
    result = run("check", code=1)
    assert "of deploy names a row of delivery that is not there" in result.stderr
    assert result.stderr.endswith("the ledger is damaged: deploy-relay ledger restore FILE\n")
    assert json.loads(run("check", "--json", code=1).stdout)["sound"] is False


def test_check_finds_damaged_pages(folder: Path) -> None:
    damage(folder / FILE)
    result = run("check", code=1)
    assert "the ledger is damaged" in result.stderr
    assert "Traceback" not in result.output


def test_check_of_what_is_no_database_is_one_sentence(folder: Path) -> None:
    (folder / FILE).write_bytes(b"nothing " * 1_000)
    assert run("check", code=1).stderr == (
        f"{folder / FILE} is no SQLite database: it is damaged, or another file\n"
    )


def damage(file: Path) -> None:
    with sqlite3.connect(file) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        pages = connection.execute(
            "SELECT rootpage FROM sqlite_schema WHERE name IN ('deploy', 'deploy_ref')"
        ).fetchall()
    connection.close()
    with file.open("r+b") as data:
        for (page,) in pages:
            data.seek((page - 1) * 4_096)
            data.write(b"\xaa" * 4_096)


def test_a_backup_is_one_whole_file_for_this_user_only(folder: Path, tmp_path: Path) -> None:
    goal = tmp_path / "backup.db"
    result = run("backup", str(goal))
    assert result.stdout == f"{goal}: {goal.stat().st_size} bytes, checked\n"
    assert stat.S_IMODE(goal.stat().st_mode) == 0o600
    assert [file.name for file in tmp_path.glob("backup*")] == ["backup.db"]
    with sqlite3.connect(goal) as connection:
        assert connection.execute("SELECT count(*) FROM deploy").fetchone() == (1,)
    connection.close()
    again = run("backup", str(goal), code=1)
    assert again.stderr == f"{goal} exists already and is not overwritten\n"


def test_a_backup_that_cannot_be_written_is_one_sentence(folder: Path, tmp_path: Path) -> None:
    result = run("backup", str(tmp_path / "nowhere" / "backup.db"), code=1)
    assert result.stderr.endswith("cannot be made: No such file or directory\n")


def test_a_damaged_ledger_is_not_backed_up(folder: Path, tmp_path: Path) -> None:
    damage(folder / FILE)
    run("backup", str(tmp_path / "backup.db"), code=1)
    assert not (tmp_path / "backup.db").exists()


def test_a_backup_beside_a_busy_process_is_one_moment(folder: Path, tmp_path: Path) -> None:
    """Each delivery has its deploy, in the backup too, whenever it is made."""
    writer = subprocess.Popen(
        [sys.executable, "-m", "tests.relay.ledger.busy_user", str(folder)],
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert writer.stdout is not None
        assert writer.stdout.readline() == "writing\n"
        counts = []
        for number in range(5):
            goal = tmp_path / f"backup-{number}.db"
            run("backup", str(goal))
            with sqlite3.connect(goal) as connection:
                [row] = connection.execute(
                    "SELECT (SELECT max(id) FROM target), (SELECT count(*) FROM target),"
                    " (SELECT number FROM ledger WHERE name = 'generation')"
                ).fetchall()
            connection.close()
            assert row[0] == row[1]
            # The busy process adds ten targets a transaction.
            assert (row[1] - 1) % 10 == 0
            counts.append(row[1])
        assert counts == sorted(counts)
        assert counts[-1] > counts[0]
        assert writer.poll() is None
    finally:
        writer.kill()
        writer.communicate()


def test_a_restore_keeps_the_ledger_that_was_there(folder: Path, tmp_path: Path) -> None:
    run("backup", str(tmp_path / "backup.db"))
    fill(folder, "b")
    result = run("restore", str(tmp_path / "backup.db"))
    [aside] = [
        file for file in folder.glob(f"{FILE}.before-*") if not file.name.endswith(("-wal", "-shm"))
    ]
    assert result.stdout == (
        f"{tmp_path / 'backup.db'} is the ledger now; the one before is {aside}\n"
    )
    assert statuses(folder) == {1: "waiting"}
    with sqlite3.connect(aside) as connection:
        assert connection.execute("SELECT count(*) FROM deploy").fetchone() == (2,)
    connection.close()
    assert stat.S_IMODE((folder / FILE).stat().st_mode) == 0o600
    [line] = [line for line in audited(folder) if line["event"] == "ledger.restored"]
    assert line["kept"] == aside.name


def test_a_restore_into_an_empty_folder(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run("backup", str(tmp_path / "backup.db"))
    monkeypatch.setenv("RELAY_DATA_DIR", str(tmp_path / "new"))
    assert run("restore", str(tmp_path / "backup.db")).stdout.endswith("is the ledger now\n")
    assert statuses(tmp_path / "new") == {1: "waiting"}


def test_a_restore_is_refused_while_a_process_has_the_ledger_open(
    folder: Path, tmp_path: Path
) -> None:
    run("backup", str(tmp_path / "backup.db"))
    user = subprocess.Popen(
        [sys.executable, "-m", "tests.relay.ledger.busy_user", str(folder)],
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert user.stdout is not None
        assert user.stdout.readline() == "writing\n"
        result = run("restore", str(tmp_path / "backup.db"), code=1)
        assert result.stderr == (
            f"process {user.pid} uses the ledger in {folder}: stop deploy-relay first\n"
        )
    finally:
        user.kill()
        user.communicate()
    run("restore", str(tmp_path / "backup.db"))


def test_what_is_no_whole_ledger_is_not_restored(folder: Path, tmp_path: Path) -> None:
    bad = tmp_path / "bad.db"
    assert run("restore", str(bad), code=1).stderr == f"there is no ledger {bad}\n"
    bad.write_bytes(b"nothing " * 1_000)
    assert run("restore", str(bad), code=1).stderr == (
        f"{bad} is no SQLite database: it is damaged, or another file\n"
    )
    bad.unlink()
    with sqlite3.connect(bad) as connection:
        connection.execute("CREATE TABLE other (a)")
    connection.close()
    assert run("restore", str(bad), code=1).stderr == f"{bad} is a database, but no ledger\n"
    run("backup", str(tmp_path / "backup.db"))
    damage(tmp_path / "backup.db")
    assert "is damaged and is not restored" in run(
        "restore", str(tmp_path / "backup.db"), code=1
    ).stderr.replace("\n", " ")
    run("backup", str(tmp_path / "newer.db"))
    with sqlite3.connect(tmp_path / "newer.db") as connection:
        connection.execute("PRAGMA user_version = 99")
    connection.close()
    assert "run the newer release" in run("restore", str(tmp_path / "newer.db"), code=1).stderr
    assert statuses(folder) == {1: "waiting"}
    assert list(folder.glob(f"{FILE}.*-*")) == []


def test_accept_says_when_there_is_nothing_to_accept(folder: Path) -> None:
    result = run("accept", code=1)
    assert result.stderr == "the ledger is not behind: there is nothing to accept\n"


def test_accept_lists_what_is_missing_and_runs_none_of_it(folder: Path, tmp_path: Path) -> None:
    run("backup", str(tmp_path / "backup.db"))
    fill(folder, "b")
    about = {"delivery": "delivery-2", "repo": "acme/web", "ref": "refs/heads/b", "sha": "b" * 40}
    say("delivery.queued", **about)
    say("deploy.queued", **about, deploy="deploy-2", target="production", attempt=0)
    say("deploy.succeeded", **about, deploy="deploy-2", target="production", attempt=1)
    say("deploy.succeeded", deploy="deploy-1", target="production", attempt=1)
    say("target.paused", target="production", by="ann")
    run("restore", str(tmp_path / "backup.db"))

    listed = run("accept", "--dry-run")
    assert listed.stdout.endswith("\nnothing is accepted yet: leave out --dry-run\n")
    # What becomes uncertain is only known once it is accepted: no "0" that is not true.
    assert "uncertain now" not in listed.stdout
    assert statuses(folder) == {1: "waiting"}

    told = json.loads(run("accept", "--dry-run", "--json").stdout)
    assert (told["accepted"], [one["id"] for one in told["deploys"]]) == (False, ["deploy-2"])

    result = run("accept")
    text = result.stdout
    assert "deliveries that the ledger lacks: 1\n  delivery-2  acme/web  refs/heads/b" in text
    assert "deploys that the ledger lacks: 1\n  deploy-2  production  attempt 1  deploy.suc" in text
    assert "actions that the ledger lacks: 1\n" in text
    assert "target.paused  production  ann\n" in text
    assert "deploys that are uncertain now: 1\n  deploy-1  production  the ledger was" in text
    assert text.endswith("the ledger is accepted: calls are made again\n")
    assert statuses(folder) == {1: "uncertain"}
    assert sql(folder, "SELECT what, subject FROM action") == [("accept", "ledger")]
    events = [line["event"] for line in audited(folder)]
    assert events.count("ledger.behind") == 1
    assert events[-2:] == ["deploy.uncertain", "ledger.accepted"]
    accepted = audited(folder)[-1]
    counts = [accepted[name] for name in ("deliveries", "deploys", "actions", "uncertain")]
    assert counts == [1, 1, 1, 1]
    fill(folder, "c")
    assert sql(folder, "SELECT max(id) FROM deploy") == [(3,)]
    run("accept", code=1)


def test_accept_does_not_list_an_action_that_the_ledger_has(folder: Path, tmp_path: Path) -> None:
    pause = ["targets", "pause", "production", "--config", str(tmp_path / "relay.yaml")]
    (tmp_path / "relay.yaml").write_text(
        "sources: {github: {provider: github, secrets: [{env: A}]}}\n"
        "targets: {production: {preset: vercel, url: {env: B}}}\n"
        "routes: [{name: a, repo: a/b, on: push, deploy: [production]}]\n",
        encoding="utf-8",
    )
    paused = CliRunner().invoke(main, pause)
    assert paused.exit_code == 0, paused.output
    assert [line["event"] for line in audited(folder)] == ["target.paused"]
    run("backup", str(tmp_path / "backup.db"))
    fill(folder, "b")
    run("restore", str(tmp_path / "backup.db"))
    assert "actions that the ledger lacks: 0\n" in run("accept", "--dry-run").stdout
    say("target.paused", target="preview", by="ann")
    assert "actions that the ledger lacks: 1\n" in run("accept").stdout


def test_drain_says_why_nothing_goes_on(folder: Path, tmp_path: Path) -> None:
    run("backup", str(tmp_path / "backup.db"))
    fill(folder, "b")
    run("restore", str(tmp_path / "backup.db"))
    run("accept", "--dry-run")
    result = CliRunner().invoke(main, ["drain", "--timeout", "0"])
    assert result.exit_code == 1
    assert result.stderr.startswith(
        "the ledger went back in time: nothing is called until you run deploy-relay ledger accept\n"
    )


def test_accept_without_an_audit_file_says_so(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("RELAY_AUDIT_FILE")
    run("backup", str(tmp_path / "backup.db"))
    fill(folder, "b")
    run("restore", str(tmp_path / "backup.db"))
    assert "no audit file is kept (RELAY_AUDIT_FILE)" in run("accept").stdout
    assert statuses(folder) == {1: "uncertain"}
