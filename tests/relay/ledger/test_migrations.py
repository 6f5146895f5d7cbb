"""The numbered migrations, and the wheel that carries them."""

from __future__ import annotations

import multiprocessing
import sqlite3
import tomllib
from fnmatch import fnmatch
from pathlib import Path

import pytest

from relay.errors import LedgerUnusable
from relay.ledger import migrations as module
from relay.ledger import sqlite
from relay.ledger.ledger import Ledger, prepare
from relay.ledger.migrations import Migration, migrations
from relay.ledger.sqlite import FILE
from tests.relay.ledger.test_queries import ROOT


def version(folder: Path) -> int:
    with sqlite3.connect(folder / FILE) as connection:
        return int(connection.execute("PRAGMA user_version").fetchone()[0])


def more(*texts: str) -> tuple[Migration, ...]:
    known = migrations("sqlite")
    numbers = range(len(known) + 1, len(known) + len(texts) + 1)
    return (*known, *(Migration(n, "more", text) for n, text in zip(numbers, texts, strict=True)))


def test_a_new_ledger_has_the_newest_schema(tmp_path: Path) -> None:
    assert prepare(tmp_path / "data") == len(migrations("sqlite"))
    assert version(tmp_path / "data") == len(migrations("sqlite"))
    assert prepare(tmp_path / "data") == 0


def test_an_older_ledger_is_brought_to_the_newest_schema(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps = more("CREATE TABLE a (b);\nCREATE TABLE c (d);\n", "ALTER TABLE a ADD COLUMN e;\n")
    monkeypatch.setattr(sqlite, "migrations", lambda _: steps)
    assert prepare(folder) == 2
    with sqlite3.connect(folder / FILE) as connection:
        assert connection.execute("SELECT b, e FROM a").fetchall() == []


def test_a_migration_that_fails_changes_nothing(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps = more("CREATE TABLE a (b);\nINSERT INTO nowhere VALUES (1);\n")
    monkeypatch.setattr(sqlite, "migrations", lambda _: steps)
    with pytest.raises(LedgerUnusable, match="cannot be migrated: no such table: nowhere"):
        prepare(folder)
    assert version(folder) == len(migrations("sqlite"))
    monkeypatch.undo()
    assert prepare(folder) == 0


def test_a_newer_ledger_is_refused(folder: Path) -> None:
    with sqlite3.connect(folder / FILE) as connection:
        connection.execute("PRAGMA user_version = 99")
    with pytest.raises(LedgerUnusable, match="has schema 99 and this release knows 1: run"):
        prepare(folder)


def test_processes_that_start_at_once_make_one_ledger(tmp_path: Path) -> None:
    with multiprocessing.get_context("spawn").Pool(4) as pool:
        ran = pool.map(prepare, [tmp_path] * 8)
    assert sorted(ran) == [0] * 7 + [len(migrations("sqlite"))]


def test_a_ledger_with_nothing_to_migrate_opens_beside_a_writer(folder: Path) -> None:
    writer = sqlite3.connect(folder / FILE, isolation_level=None)
    writer.execute("BEGIN IMMEDIATE")
    assert prepare(folder) == 0
    writer.close()


async def test_each_ledger_has_a_name_of_its_own(tmp_path: Path) -> None:
    names = set()
    for part in ("a", "b"):
        prepare(tmp_path / part)
        ledger = Ledger(tmp_path / part)
        row = await ledger.glance(lambda reader: reader.row("instance_and_generation"))
        assert row is not None
        names.add(row["instance"])
        await ledger.close()
    assert len(names) == 2


def test_a_number_that_is_missing_is_a_mistake(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "migrations" / "sqlite"
    folder.mkdir(parents=True)
    (folder / "0001_first.sql").write_text("")
    (folder / "0001_first.sql.orig").write_text("")
    (folder / "0003_third.sql").write_text("")
    monkeypatch.setattr(module, "files", lambda _: tmp_path)
    with pytest.raises(ValueError, match="not numbered one by one"):
        migrations("sqlite")
    (folder / "0002_second.sql").write_text("")
    assert [step.name for step in migrations("sqlite")] == ["first", "second", "third"]


def test_the_wheel_carries_each_package_and_each_sql_file() -> None:
    told = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"][
        "setuptools"
    ]
    packages = {
        ".".join(file.parent.relative_to(ROOT).parts)
        for top in ("config", "relay", "workers")
        for file in (ROOT / top).rglob("*.py")
    }
    included = told["packages"]["find"]["include"]
    for package in packages:
        assert any(fnmatch(package, pattern) for pattern in included), package
    for file in (ROOT / "relay").rglob("*.sql"):
        carried = any(
            fnmatch(file.relative_to(ROOT / Path(*package.split("."))).as_posix(), pattern)
            for package, patterns in told["package-data"].items()
            if file.is_relative_to(ROOT / Path(*package.split(".")))
            for pattern in patterns
        )
        assert carried, file
