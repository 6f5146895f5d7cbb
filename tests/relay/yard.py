"""A ledger with what a test puts there, and the command line beside it."""

from __future__ import annotations

import json
from typing import Any

import msgspec
from click.testing import CliRunner, Result

from relay.cli import main
from relay.events.event import Person, Push
from relay.events.ids import public_id
from relay.ledger.zstd import pack
from tests.harness import sha_of
from tests.relay.ledger.filled import AT, FilledLedger

REFUSED = "HTTP 404"
NO_ANSWER = "no answer in time"


class Yard(FilledLedger):
    """A ledger with what a test puts there, and the command line beside it."""

    def receive(self, name: str, *, repo: str = "acme/web", **columns: Any) -> str:
        """Insert a delivery, a push of its own commit to main, and return its id."""
        event = Push(
            *(repo, "refs/heads/main", sha_of("before"), sha_of(name)),
            message="\x1b[31mred",
            author=Person("Ada", login="ada"),
        )
        ref = self.ref(repo, "refs/heads/main")
        [states] = self.sql.execute(
            "SELECT count(*) FROM ref_state WHERE ref = ?", (ref,)
        ).fetchone()
        state = states + 1
        self.state(ref, state)
        self.sql.execute(
            "UPDATE ref SET newest = ?, newest_pos = ? WHERE id = ?", (state, state, ref)
        )
        number = self.delivery(
            repo=repo,
            sha=event.sha,
            message=event.message,
            event=msgspec.json.encode(event).decode(),
            ref=ref,
            state=state,
            **columns,
        )
        return public_id("delivery", number)

    def queue(
        self,
        name: str,
        status: str,
        target: str = "production",
        *,
        repo: str = "acme/web",
        **columns: Any,
    ) -> str:
        """Insert a deploy of a delivery of its own, and return its id. The last one of a ref that
        succeeded is live there."""
        delivery = int(self.receive(name, repo=repo).rpartition("-")[2])
        [ref, state] = self.sql.execute(
            "SELECT ref, state FROM delivery WHERE id = ?", (delivery,)
        ).fetchone()
        place = {"state": state, "pos": state}
        number = self.deploy(target, delivery=delivery, status=status, **{**place, **columns})
        if status == "succeeded":
            self.sql.execute(
                "INSERT INTO live (target, ref, deploy, pos) VALUES (?, ?, ?, ?) "
                "ON CONFLICT (target, ref) DO UPDATE SET deploy = excluded.deploy, "
                "pos = excluded.pos",
                (self.target(target), ref, number, state),
            )
        return public_id("deploy", number)

    def attempt(self, deploy: str, exchange: Any = None, **columns: Any) -> None:
        """Insert an attempt of a deploy."""
        kept = None if exchange is None else pack(msgspec.json.encode(exchange))
        number = int(deploy.rpartition("-")[2])
        row = {"number": 1, "called_at": AT, "outcome": "failed", "reason": "", **columns}
        self.insert("attempt", deploy=number, exchange=kept, **row)

    def column(self, id_: str, name: str) -> Any:
        """Return one column of a delivery or deploy."""
        table, _, number = id_.rpartition("-")
        query = f"SELECT {name} FROM {table} WHERE id = ?"  # noqa: S608
        return self.sql.execute(query, (int(number),)).fetchone()[0]

    def run(self, *args: str, code: int = 0, typed: str = "") -> Result:
        """Run a command; it shows no secret, no traceback and no control character."""
        result = CliRunner().invoke(main, args, input=typed)
        assert result.exit_code == code, (result.output, result.exception)
        for secret in ("secret", "Traceback", "\x1b"):
            assert secret not in result.output
        return result

    def listed(self, *args: str) -> list[tuple[str, str]]:
        """Return id and status of what a command lists."""
        lines = self.run(*args, "--json").stdout.splitlines()
        return [(entry["id"], entry["status"]) for entry in map(json.loads, lines)]
