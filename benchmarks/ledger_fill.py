"""A ledger as it is after a long time, filled by SQL."""

from __future__ import annotations

import json
import random
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple

from relay.ledger.ledger import prepare
from relay.ledger.sqlite import FILE

DAYS = 180
REPOSITORIES = 1_000
TARGETS = 200
AUTHORS = 300

WORDS = (
    *("add", "fix", "remove", "rename", "the", "a", "page", "button", "login", "cache", "test"),
    *("deploy", "docs", "typo", "update", "dependency", "release", "revert", "merge", "speed"),
    *(f"word{number}" for number in range(2_000)),
)

_DELIVERY = (
    *("id", "source", "guid", "body", "received_at", "kind", "action", "repo", "ref", "ref_name"),
    *("branch", "state", "sha", "sender", "author", "remote", "message", "event", "turns"),
    *("config", "verdict", "status", "reason", "uncertain", "next_at"),
)

_DEPLOY = (
    *("id", "delivery", "target", "ref", "repo", "branch", "state", "pos", "turn", "call_key"),
    *("route", "status", "waits", "next_at", "created_at", "line_at", "ended_at", "attempt"),
    *("overtaken", "reason"),
)


class Size(NamedTuple):
    """How much the ledger holds."""

    deliveries: int = 1_000_000
    deploys_each: int = 2


def fill(folder: Path, size: Size) -> None:
    """Make a ledger in ``folder``. The same size gives the same rows."""
    prepare(folder)
    with closing(sqlite3.connect(folder / FILE, isolation_level=None)) as connection:
        connection.execute("PRAGMA synchronous = OFF")
        connection.execute("PRAGMA foreign_keys = OFF")
        indexes = connection.execute(
            "SELECT name, sql FROM sqlite_master WHERE type = 'index' AND sql IS NOT NULL"
        ).fetchall()
        connection.execute("BEGIN")
        for name, _ in indexes:
            connection.execute(f"DROP INDEX {name}")
        _rows(connection, size)
        for _, sql in indexes:
            connection.execute(sql)
        connection.execute("COMMIT")
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")


def _rows(connection: sqlite3.Connection, size: Size) -> None:
    chance = random.Random(1)  # noqa: S311
    refs: dict[tuple[str, str], int] = {}
    connection.executemany(
        "INSERT INTO target (id, name) VALUES (?, ?)",
        [(number + 1, f"target-{number}") for number in range(TARGETS)],
    )
    deploys: list[tuple[Any, ...]] = []
    number = 0

    def deliveries() -> Iterator[tuple[Any, ...]]:
        nonlocal number
        for row, of_deploys in _history(chance, refs, size):
            for deploy in of_deploys:
                number += 1
                deploys.append((number, *deploy))
            yield row

    _insert(connection, "delivery", _DELIVERY, deliveries())
    _insert(connection, "deploy", _DEPLOY, iter(deploys))
    connection.executemany(
        "INSERT INTO ref (id, repository, name) VALUES (?, ?, ?)",
        [(ref, repository, name) for (repository, name), ref in refs.items()],
    )
    connection.execute(
        "INSERT INTO delivery_text (rowid, message) SELECT id, message FROM delivery"
    )
    connection.execute(
        "INSERT INTO live (target, ref, deploy, pos) SELECT target, ref, max(id), pos FROM deploy "
        "WHERE status = 'succeeded' GROUP BY target, ref"
    )


def _insert(
    connection: sqlite3.Connection, table: str, columns: tuple[str, ...], rows: Iterator[Any]
) -> None:
    places = ", ".join("?" * len(columns))
    statement = f"INSERT INTO {table} ({', '.join(columns)}) VALUES ({places})"  # noqa: S608
    connection.executemany(statement, rows)


def _history(
    chance: random.Random, refs: dict[tuple[str, str], int], size: Size
) -> Iterator[tuple[tuple[Any, ...], list[tuple[Any, ...]]]]:
    """Each delivery, and its deploys without their numbers."""
    span = DAYS * 86_400_000_000
    begin = time.time_ns() // 1_000 - span
    for number in range(1, size.deliveries + 1):
        at = begin + span * number // size.deliveries
        is_early = number < size.deliveries // 3
        repo = _repo(chance, is_early=is_early)
        branch = _branch(chance, number)
        ref = refs.setdefault((repo, f"refs/heads/{branch}"), len(refs) + 1)
        author = chance.randrange(AUTHORS)
        sha = f"{chance.getrandbits(160):040x}"
        message = " ".join(chance.choices(WORDS, k=8))
        verdict = "late" if number % 1_000 == 0 else "same" if number % 20 == 0 else "new"
        event = {
            "event": "push",
            "repo": repo,
            "ref": f"refs/heads/{branch}",
            "before": sha[::-1],
            "after": sha,
            "files": ["apps/web/index.html", "apps/web/style.css", "README.md"],
            "message": message,
            "author": {"name": f"Dev {author}", "email": f"dev{author}@example.org"},
            "sender": f"dev{author}",
        }
        row = (
            *(number, "gitlab" if number % 50 == 0 else "github", f"guid-{number}", b"\0" * 16),
            *(at, "push", "", repo, ref, f"refs/heads/{branch}", branch, number, sha),
            *(f"dev{author}", f"dev{author}\nDev {author}\ndev{author}@example.org"),
            *("192.0.2.1", message, json.dumps(event), "", "1", verdict),
            *("routed" if verdict == "new" else "duplicate", "", "", None),
        )
        is_last = number > size.deliveries - 200
        deploys = [
            _deploy(chance, number, ref, repo, branch, at, place, waits=is_last)
            for place in range(size.deploys_each)
        ]
        yield row, deploys


def _repo(chance: random.Random, *, is_early: bool) -> str:
    """A few repositories have most deliveries, and some had their last one long ago."""
    number = int(REPOSITORIES * chance.random() ** 3)
    if number % 10 == 9:
        return f"legacy/service-{number}" if is_early else "acme/web-0"
    return f"acme/web-{number}"


def _branch(chance: random.Random, number: int) -> str:
    draw = chance.random()
    if draw < 0.6:
        return "main"
    if draw < 0.65:
        return f"release/{number % 400}"
    return f"feature/{chance.randrange(100_000)}"


def _deploy(
    chance: random.Random,
    delivery: int,
    ref: int,
    repo: str,
    branch: str,
    at: int,
    place: int,
    *,
    waits: bool,
) -> tuple[Any, ...]:
    draw = chance.random()
    status = (
        "waiting"
        if waits
        else "failed"
        if draw < 0.02
        else "uncertain"
        if draw < 0.021
        else "superseded"
        if draw < 0.04
        else "cancelled"
        if draw < 0.05
        else "succeeded"
    )
    # Of failures nearly all were overtaken.
    overtaken = int(status in ("failed", "uncertain") and chance.random() < 0.98)
    target = 1 + (hash_of(repo) + place) % TARGETS
    return (
        *(delivery, target, ref, repo, branch, delivery, delivery, 0, f"call-{place}"),
        *(f"route-{hash_of(repo) % 500}", status, "rate" if waits else ""),
        *(at if waits else None, at, at, None if waits else at + 30_000_000, 1, overtaken),
        "HTTP 500" if status == "failed" else "",
    )


def hash_of(text: str) -> int:
    """Return a number of a text that is the same in each process."""
    return sum(ord(char) * (place + 7) for place, char in enumerate(text))
