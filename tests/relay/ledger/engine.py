"""The ledger as the first state machine drives it: one folder for all examples, a clock of its own.

It translates between the model's plain words and the project, and does what receivers, the sweep
and workers do around the ledger's transactions.
"""

from __future__ import annotations

import asyncio
import hashlib
import shutil
import tempfile
from collections.abc import Awaitable, Callable
from concurrent.futures import Executor, Future
from pathlib import Path
from typing import Any, TypeVar, cast
from unittest import mock

from config.model import OnUncertain, Target
from relay.events.event import Event, PullRequest, Push
from relay.events.ref_change import ref_change, repository_key
from relay.ledger import claims
from relay.ledger.claims import Asked, claim
from relay.ledger.due import due
from relay.ledger.intake import NewDelivery, StoredDelivery, store_delivery
from relay.ledger.ledger import Ledger, prepare
from relay.ledger.outcomes import Outcome, Settled, settle
from relay.ledger.queued_deliveries import Routed, WantedDeploy, route_delivery
from relay.ledger.refs import RefStates
from relay.ledger.transaction import Transaction
from tests.relay.ledger.git_servers import Ref, Webhook
from tests.relay.ledger.model import Rules

T = TypeVar("T")

START = 1_899_979_200.0
"""Seconds since the Unix epoch: noon of a day, UTC."""

CLAIM_SECONDS = 40.0
NO_COMMIT = "0" * 40
SHARED_MEMORY = Path("/dev/shm")  # noqa: S108 - a disk would only make it slower


class Engine:
    """The ledger, its clock, and two receivers that remember states of refs."""

    def __init__(self) -> None:
        parent = SHARED_MEMORY if SHARED_MEMORY.is_dir() else None
        self.folder = Path(tempfile.mkdtemp(prefix="relay-machine-", dir=parent))
        prepare(self.folder)
        self.loop = asyncio.new_event_loop()
        self.now = START
        # Claims end by the clock of the machine's boot, too, unless it is another machine's.
        self._no_boot = mock.patch.object(claims, "boot_id", return_value="")
        self._no_boot.start()
        self.ledger = Ledger(
            self.folder, full_sync=False, timeout=60, clock=lambda: round(self.now * 1e6)
        )
        # A COMMIT takes microseconds here; handing it to a thread takes longer.
        self.ledger.writer._thread = cast(Any, _AtOnce())
        self.receivers = (RefStates(), RefStates())
        self.targets: dict[str, Target] = {}
        self._rules: dict[str, Rules] = {}
        self._claims = 0
        self._arrivals = 0
        self.first = (0, 0)
        """The numbers of the last delivery and deploy before this example."""

    def close(self) -> None:
        """Close the ledger and delete its folder."""
        self._no_boot.stop()
        self.loop.run_until_complete(self.ledger.close())
        self.loop.close()
        shutil.rmtree(self.folder)

    def begin(self, rules: list[Rules]) -> None:
        """Begin an example, with targets of its own."""
        self.now = START + (self.now - START) // 86_400 * 86_400 + 86_400
        self._rules = {one.name: one for one in rules}
        self.targets = {one.name: _target(one) for one in rules}
        row = self.read("last_numbers")[0]
        self.first = (row["delivery"] or 0, row["deploy"] or 0)

    def commit(self, work: Callable[[Transaction], Awaitable[T]]) -> T:
        """Return what ``work`` returns, committed. Each transaction is a moment later."""
        self.now += 0.000_001
        return self.loop.run_until_complete(self.ledger.commit(work))

    def read(self, query: str, **params: Any) -> list[Any]:
        """Return the rows of a named query, or of one of the tests'."""

        async def rows(reader: Any) -> list[Any]:
            text = _QUERIES.get(query)
            if text is None:
                return list(await reader.rows(query, params))
            return list(reader._connection.execute(text, params))

        return self._glance(rows)

    def _glance(self, read: Callable[[Any], Awaitable[T]]) -> T:
        """Return what a read returns; it never waits, so it needs no event loop."""
        try:
            self.ledger.glance(read).send(None)
        except StopIteration as end:
            return cast(T, end.value)
        raise RuntimeError("a read waited")

    # --- what relay.yaml says (relay.ledger.claims.Policies)

    def target(self, name: str) -> Target | None:
        return self.targets.get(name)

    def on_uncertain(self, name: str, *, is_newest: bool) -> OnUncertain:
        rules = self._rules[name]
        if rules.on_uncertain == "retry" or (not rules.on_uncertain and is_newest):
            return "retry"
        return "hold"

    def claim_seconds(self, name: str) -> float:  # noqa: ARG002
        return CLAIM_SECONDS

    # --- receiver

    def store(
        self, webhook: Webhook, conditions: dict[str, bool], *, is_wanted: bool
    ) -> StoredDelivery:
        """Keep a webhook, by one of two receivers."""
        event = _event(webhook)
        new = NewDelivery(
            source="git",
            repository=repository_key(event, "git"),
            guid=webhook.guid,
            body_hash=hashlib.sha256(webhook.body).digest(),
            received_at=self.now,
            event=event,
            change=ref_change(event, keeps_id=True),
            is_wanted=is_wanted,
            conditions=conditions,
        )
        self._arrivals += 1
        receiver = self.receivers[self._arrivals % 2]
        return self.commit(lambda tx: store_delivery(tx, receiver, new))

    # --- worker and sweep

    def due_deliveries(self) -> list[int]:
        return [one for one in self._due()[0] if one > self.first[0]]

    def due_deploys(self) -> list[int]:
        return [one for one in self._due()[1] if one > self.first[1]]

    def next_due(self) -> float | None:
        """Return when the next deploy of this example is due."""
        row = self.read("next_due_of_example", deploy=self.first[1])[0]
        return None if row[0] is None else float(row[0]) / 1e6

    def _due(self) -> Any:
        return self._glance(due)

    def route(self, delivery: int, wanted: list[tuple[Rules, str]]) -> Routed | None:
        """Route a delivery."""
        deploys = [
            WantedDeploy(
                target=rules.name,
                route=f"route {key}",
                call_key=key,
                newest_only=self.targets[rules.name].newest_only,
            )
            for rules, key in wanted
        ]
        return self.commit(lambda tx: route_delivery(tx, delivery, deploys))

    def claim(self, deploy: int) -> Asked | None:
        """Have a worker ask for a deploy's call."""
        self._claims += 1
        name = f"claim-{self._claims}"
        return self.commit(lambda tx: claim(tx, deploy, name, self))

    def settle(self, outcome: Outcome) -> Settled:
        """Write what became of a call."""
        return self.commit(lambda tx: settle(tx, outcome))


class _AtOnce(Executor):
    """Runs what it is given before it returns."""

    def submit(self, fn: Any, /, *args: Any, **kwargs: Any) -> Future[Any]:
        done: Future[Any] = Future()
        try:
            done.set_result(fn(*args, **kwargs))
        except BaseException as error:
            done.set_exception(error)
        return done


_QUERIES = {
    "last_numbers": "SELECT (SELECT max(id) FROM delivery) AS delivery, "
    "(SELECT max(id) FROM deploy) AS deploy",
    "statuses": "SELECT id, status FROM deploy WHERE id > :deploy ORDER BY id",
    "delivery_statuses": "SELECT id, status FROM delivery WHERE id > :delivery ORDER BY id",
    "next_due_of_example": "SELECT min(next_at) FROM deploy WHERE id > :deploy",
    "attempts": "SELECT deploy, number, outcome FROM attempt WHERE deploy > :deploy",
    "deploy": "SELECT * FROM deploy WHERE id = :deploy",
}


def _target(rules: Rules) -> Target:
    keys: dict[str, Any] = {
        "preset": "http",
        "url": "http://platform.example/",
        "concurrency": rules.concurrency,
        "supersede": rules.newest_only,
        "retry": {"attempts": rules.attempts},
        "breaker": None,
    }
    if rules.most:
        keys["rate"] = f"{rules.most}/{rules.interval:.0f}s"
    if (rules.opens_at, rules.closes_at) != (0, 24):
        keys["hours"] = {
            "zone": "UTC",
            "open": [f"{rules.opens_at:02}:00-{rules.closes_at:02}:00"],
        }
    if rules.expires:
        keys["approval"] = {"expires": rules.expires}
    if rules.quiet:
        keys["debounce"] = {"quiet": rules.quiet, "cap": rules.cap}
    if rules.failures:
        keys["breaker"] = {"failures": rules.failures, "pause": rules.pause}
    return Target.model_validate(keys)


def _event(webhook: Webhook) -> Event:
    ref = webhook.ref
    at = webhook.at if ref.has_clock else None
    if ref.kind == "pull":
        action: Any = webhook.action
        return PullRequest(
            repo=ref.repo,
            number=int(ref.name),
            action=action,
            head_sha=webhook.after,
            head_ref="topic",
            head_repo=ref.repo,
            base_ref="main",
            title="A change",
            labels=tuple(sorted(webhook.labels)),
            before_sha=webhook.before,
            changed_at=at,
        )
    folder = "tags" if ref.kind == "tag" else "heads"
    return Push(
        repo=ref.repo,
        ref=f"refs/{folder}/{ref.name}",
        before=webhook.before or NO_COMMIT,
        after=webhook.after or NO_COMMIT,
        created=not webhook.before,
        deleted=not webhook.after,
        changed_at=at,
        own_clock=ref.has_clock,
    )


def describe(ref: Ref) -> str:
    """Return a ref for people who read a failing example."""
    return f"{ref.repo.rpartition('/')[2]} {ref.kind} {ref.name}"
