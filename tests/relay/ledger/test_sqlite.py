"""What the SQLite ledger does on disks and files that are not as they should be."""

from __future__ import annotations

import json
import shutil
import sqlite3
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from relay.errors import LedgerUnavailable, LedgerUnusable
from relay.ledger.ledger import Ledger, prepare
from relay.ledger.sqlite import FILE, MOST_LOG_BYTES, connect
from relay.ledger.transaction import Reader, Transaction
from tests.faults.small_disk import on_small_disk

DAMAGED = "the file is damaged: run deploy-relay ledger check"


async def add(tx: Transaction) -> None:
    await tx.run("insert_target", {"name": "a"})


async def look(reader: Reader) -> object:
    return await reader.row("target_by_name", {"name": "a"})


def run(*command: str) -> Any:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def user(deed: str, folder: Path) -> list[str]:
    return [sys.executable, "-m", "tests.relay.ledger.disk_user", deed, str(folder)]


def test_a_full_disk_is_said_and_loses_nothing_that_was_kept(tmp_path: Path) -> None:
    command = on_small_disk(tmp_path, *user("full", tmp_path), free=900_000, filler=300_000)
    told = run(*command)
    assert told["reasons"] == ["the ledger takes nothing: the disk is full"]
    assert told["seconds"] < 4
    before, after = told["acknowledged"]
    assert before > 5
    assert after > 5
    assert told["kept"] == [before, before + after]


def test_a_disk_that_is_read_only_is_one_sentence_at_the_start(tmp_path: Path) -> None:
    script = 'mount -o remount,ro "$1" && shift && exec "$@"'
    command = ("sh", "-c", script, "sh", str(tmp_path), *user("prepare", tmp_path))
    told = run(*on_small_disk(tmp_path, *command))
    assert told["reasons"] == [
        f"the ledger's folder {tmp_path} cannot be used: Read-only file system"
    ]


def test_a_disk_that_is_full_at_the_start_is_one_sentence(tmp_path: Path) -> None:
    command = on_small_disk(tmp_path, *user("prepare", tmp_path), free=10_000, filler=90_000)
    [reason] = run(*command)["reasons"]
    assert reason.startswith(f"the ledger {tmp_path / FILE} cannot be ")
    assert reason.endswith("the disk is full")


async def test_a_file_that_became_read_only_is_said(ledger: Ledger) -> None:
    connection = ledger.writer._connection
    connection.execute("PRAGMA query_only = ON")
    with pytest.raises(LedgerUnavailable, match="the ledger takes nothing: the file is read-only"):
        await ledger.commit(add)
    connection.execute("PRAGMA query_only = OFF")
    await ledger.commit(add)


async def test_a_file_that_is_damaged_while_it_is_open_is_said(folder: Path) -> None:
    with sqlite3.connect(folder / FILE) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    ledger = Ledger(folder)
    size = (folder / FILE).stat().st_size
    with (folder / FILE).open("r+b") as file:
        file.seek(4_096)
        file.write(b"\xaa" * (size - 4_096))
    with pytest.raises(LedgerUnavailable, match=DAMAGED):
        await ledger.commit(add)
    with pytest.raises(LedgerUnavailable, match=DAMAGED):
        await ledger.read(look)
    with pytest.raises(LedgerUnavailable, match=DAMAGED):
        await ledger.glance(look)
    await ledger.close()


def test_a_file_that_is_none_is_said_at_the_start(tmp_path: Path) -> None:
    (tmp_path / FILE).write_bytes(b"no database " * 1_000)
    with pytest.raises(LedgerUnusable, match=DAMAGED):
        prepare(tmp_path)


async def test_a_file_that_is_gone_is_said(ledger: Ledger, folder: Path) -> None:
    idle = ledger._idle
    while idle:
        idle.pop().close()
    (folder / FILE).rename(folder / "elsewhere")
    with pytest.raises(LedgerUnavailable, match="the ledger's file cannot be opened"):
        await ledger.read(look)


def test_only_this_user_may_read_the_files(folder: Path) -> None:
    Ledger(folder)._writer._connection.execute("CREATE TABLE t (a)")
    files = {file.name: stat.S_IMODE(file.stat().st_mode) for file in folder.glob("ledger.*")}
    assert set(files) >= {FILE, f"{FILE}-wal", f"{FILE}-shm", "ledger.lock", "ledger.turn"}
    assert set(files.values()) == {0o600}


def test_a_file_that_others_could_read_is_closed_to_them(folder: Path) -> None:
    (folder / FILE).chmod(0o644)
    prepare(folder)
    assert stat.S_IMODE((folder / FILE).stat().st_mode) == 0o600


def test_foreign_keys_hold_and_commits_reach_the_disk(folder: Path) -> None:
    connection = connect(folder / FILE)
    pragmas = ("foreign_keys", "journal_mode", "synchronous")
    values = [connection.execute(f"PRAGMA {name}").fetchone()[0] for name in pragmas]
    assert values == [1, "wal", 2]
    relaxed = connect(folder / FILE, full_sync=False)
    assert relaxed.execute("PRAGMA synchronous").fetchone()[0] == 1
    connection.close()
    relaxed.close()


async def test_a_transaction_that_cannot_be_rolled_back_does_not_stay(folder: Path) -> None:
    ledger = Ledger(folder)
    await ledger.writer.begin(1)
    ledger.writer.lock.release()
    await ledger.commit(add)
    assert await ledger.read(look) is not None
    await ledger.close()
    shutil.rmtree(folder)


async def test_the_log_shrinks_again_when_a_long_reader_has_ended(folder: Path) -> None:
    ledger, log = Ledger(folder, full_sync=False), folder / f"{FILE}-wal"

    async def write(number: int) -> None:
        fact = {"name": str(number), "value": "x" * 1_000_000}
        await ledger.commit(lambda tx: tx.run("write_ledger_fact", fact))

    reader = sqlite3.connect(folder / FILE)
    reader.execute("BEGIN")
    reader.execute("SELECT * FROM target").fetchall()
    for number in range(24):
        await write(number)
    assert log.stat().st_size > 20_000_000
    reader.close()
    # The first copies the log to the file, the second begins it anew.
    await write(24)
    await write(25)

    assert log.stat().st_size <= MOST_LOG_BYTES
    await ledger.close()
