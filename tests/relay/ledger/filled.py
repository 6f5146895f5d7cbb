"""A ledger that is filled by SQL, for tests of what reads it."""

from __future__ import annotations

import asyncio
import functools
import sqlite3
from collections.abc import Awaitable, Callable
from contextlib import closing
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, TypeVar

from relay.ledger.ledger import Ledger, prepare
from relay.ledger.sqlite import FILE
from relay.ledger.transaction import Reader

T = TypeVar("T")

AT = 1_700_000_000_000_000
"""When all begins, in microseconds."""

_DELIVERY: dict[str, Any] = {
    "source": "github",
    "guid": "",
    "body": b"",
    "received_at": AT,
    "kind": "push",
    "action": "",
    "repo": "acme/web",
    "ref": None,
    "ref_name": "refs/heads/main",
    "branch": "main",
    "state": 1,
    "sha": "2f1b" * 10,
    "sender": "ada",
    "author": "ada\nAda Lovelace\nada@example.com",
    "remote": "192.0.2.1",
    "message": "Add a page",
    "event": '{"event":"push","repo":"acme/web","ref":"refs/heads/main","before":"","after":""}',
    "turns": "",
    "config": "1",
    "verdict": "new",
    "status": "routed",
    "reason": "",
    "uncertain": "",
    "next_at": None,
}

_DEPLOY: dict[str, Any] = {
    "delivery": 1,
    "target": 1,
    "state": 1,
    "pos": 1,
    "turn": 0,
    "route": "web",
    "status": "succeeded",
    "next_at": None,
    "claim": None,
    "created_at": AT,
    "line_at": AT,
    "ended_at": AT,
}


@functools.cache
def _empty_ledger() -> bytes:
    """The file of an empty ledger; to make it takes longer than most tests."""
    with TemporaryDirectory() as folder:
        prepare(Path(folder))
        with closing(sqlite3.connect(Path(folder) / FILE)) as connection:
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        return (Path(folder) / FILE).read_bytes()


class FilledLedger:
    """A ledger of a test."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / FILE).write_bytes(_empty_ledger())
        self.folder = folder
        self.sql = sqlite3.connect(folder / FILE, isolation_level=None)
        self.sql.execute("PRAGMA synchronous = OFF")
        self.sql.row_factory = sqlite3.Row
        self._calls = 0

    def delivery(self, **columns: Any) -> int:
        """Insert a delivery and return its number."""
        row = {**_DELIVERY, **columns}
        if row["status"] == "queued" and row["next_at"] is None:
            row["next_at"] = row["received_at"]
        if row["ref"] is None:
            row["ref"] = self.ref(row["repo"], row["ref_name"])
        number = self._insert("delivery", row)
        if row["message"]:
            self.sql.execute(
                "INSERT INTO delivery_text (rowid, message) VALUES (?, ?)", (number, row["message"])
            )
        return number

    def deploy(self, target: str = "production", **columns: Any) -> int:
        """Insert a deploy and return its number."""
        row = {**_DEPLOY, **columns, "target": self.target(target)}
        delivery = self.sql.execute(
            "SELECT repo, branch, ref FROM delivery WHERE id = ?", (row["delivery"],)
        ).fetchone()
        self._calls += 1
        row |= {"repo": delivery["repo"], "branch": delivery["branch"], "ref": delivery["ref"]}
        row.setdefault("call_key", f"call {self._calls}")
        if row["status"] in ("waiting", "calling"):
            row["ended_at"] = None
            row["next_at"] = row["next_at"] or row["created_at"]
        if row["status"] == "calling":
            row["claim"] = row["claim"] or "a worker's"
        return self._insert("deploy", row)

    def target(self, name: str, **columns: Any) -> int:
        """Return the number of a target, which is made where there is none."""
        self.sql.execute("INSERT INTO target (name) VALUES (?) ON CONFLICT DO NOTHING", (name,))
        for column, value in columns.items():
            self.sql.execute(f"UPDATE target SET {column} = ? WHERE name = ?", (value, name))  # noqa: S608
        [number] = self.sql.execute("SELECT id FROM target WHERE name = ?", (name,)).fetchone()
        return int(number)

    def ref(self, repository: str, name: str) -> int:
        """Return the number of a ref, which is made where there is none."""
        self.sql.execute(
            "INSERT INTO ref (repository, name) VALUES (?, ?) ON CONFLICT DO NOTHING",
            (repository, name),
        )
        [number] = self.sql.execute(
            "SELECT id FROM ref WHERE repository = ? AND name = ?", (repository, name)
        ).fetchone()
        return int(number)

    def state(self, ref: int, number: int) -> None:
        """Insert a state of a ref, at the place of its number."""
        self.sql.execute(
            "INSERT INTO ref_state VALUES (?, ?, ?, NULL, ?, NULL, 0, 0, x'', 1, 0, 0, '')",
            (ref, number, number, f"{number:040x}"),
        )

    def read(self, read: Callable[[Reader], Awaitable[T]]) -> T:
        """Return what is read."""

        async def run() -> T:
            ledger = Ledger(self.folder)
            try:
                return await ledger.read(read)
            finally:
                await ledger.close()

        return asyncio.run(run())

    def insert(self, table: str, **columns: Any) -> int:
        """Insert a row and return its number."""
        return self._insert(table, columns)

    def close(self) -> None:
        """Close the file."""
        self.sql.close()

    def _insert(self, table: str, row: dict[str, Any]) -> int:
        names = ", ".join(row)
        places = ", ".join(f":{name}" for name in row)
        cursor = self.sql.execute(f"INSERT INTO {table} ({names}) VALUES ({places})", row)  # noqa: S608
        return int(cursor.lastrowid or 0)
