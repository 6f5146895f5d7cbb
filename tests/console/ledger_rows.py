"""Rows of a ledger as receivers and workers write them, for tests of what shows them."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
from zstandard import ZstdCompressor

from config.model import OnUncertain, Target
from relay.attempt_record import AttemptRecord
from relay.events.deploy_life import Status
from relay.events.event import Event, Person, Push
from relay.events.gate import Lesson
from relay.events.ids import public_id, row_number
from relay.events.ref_change import ref_change, repository_key
from relay.ledger.claims import Asked, claim
from relay.ledger.intake import NewDelivery, Payload, RouteReason, StoredDelivery, store_delivery
from relay.ledger.ledger import Ledger
from relay.ledger.outcomes import Outcome, OutcomeKind, settle
from relay.ledger.queued_deliveries import WantedDeploy, route_delivery
from relay.ledger.refs import RefStates
from relay.ledger.rows import seconds
from relay.ledger.zstd import pack
from tests.harness import sha_of

NOTHING_BEFORE = "0" * 40


class _Policies:
    def __init__(self, policies: Mapping[str, Target]) -> None:
        self._policies = policies

    def target(self, name: str) -> Target | None:
        return self._policies.get(name)

    def on_uncertain(self, name: str, *, is_newest: bool) -> OnUncertain:  # noqa: ARG002
        return "hold"

    def claim_seconds(self, name: str) -> float:  # noqa: ARG002
        return 60


class LedgerRows:
    """Writes deliveries and deploys through the ledger's own functions."""

    def __init__(self, ledger: Ledger) -> None:
        self.ledger = ledger
        self._states = RefStates()
        self._heads: dict[tuple[str, str], str] = {}
        self._numbers = itertools.count(1)

    async def push(
        self,
        name: str,
        *,
        repo: str = "acme/web",
        branch: str = "main",
        before: str = "",
        message: str = "Change it",
        author: Person | None = None,
        **more: Any,
    ) -> str:
        """Store a push of the commit ``sha_of(name)`` and return its delivery's id."""
        ref, commit = f"refs/heads/{branch}", sha_of(name)
        origin = before or self._heads.get((repo, ref), NOTHING_BEFORE)
        self._heads[repo, ref] = commit
        person = author or Person("Ada Lovelace", "ada@example.com", "ada")
        event = Push(repo, ref, origin, commit, message=message, author=person, sender="ada")
        return public_id("delivery", (await self.store(event, **more)).id)

    async def store(
        self,
        event: Event,
        *,
        source: str = "github",
        reasons: Sequence[RouteReason] = (),
        payload: bytes | str | None = None,
        guid: str = "",
        body: bytes = b"",
    ) -> StoredDelivery:
        """Store a delivery; ``payload`` of text is the reason why it is not kept."""
        kept = None
        if isinstance(payload, str):
            kept = Payload("none", payload.encode())
        elif payload is not None:
            kept = Payload("zstd", ZstdCompressor().compress(payload))
        number = next(self._numbers)
        new = NewDelivery(
            source=source,
            repository=repository_key(event, source),
            guid=guid or f"guid-{number}",
            body_hash=hashlib.sha256(body or b"%d" % number).digest(),
            received_at=seconds(self.ledger.clock()),
            event=event,
            change=ref_change(event, keeps_id=True),
            remote="192.0.2.1",
            config="v1",
            is_wanted=not reasons,
            reasons=reasons,
            payload=kept,
        )
        return await self.ledger.commit(lambda tx: store_delivery(tx, self._states, new))

    async def route(
        self, delivery: str, target: str = "production", route: str = "web", **more: Any
    ) -> str:
        """Route a delivery to one target and return the deploy's id."""
        number = _number("delivery", delivery)
        wanted = WantedDeploy(target=target, route=route, **more)
        routed = await self.ledger.commit(lambda tx: route_delivery(tx, number, [wanted]))
        assert routed is not None
        return public_id("deploy", routed.deploys[0].id)

    async def deploy(self, name: str, target: str = "production", **push: Any) -> str:
        """Store a push and route it; return the deploy's id."""
        route = push.pop("route", "web")
        return await self.route(await self.push(name, **push), target, route)

    async def claim(self, deploy: str, target: str = "production", **policy: Any) -> Asked:
        """Have a deploy ask to be called, by a policy of its target."""
        number = _number("deploy", deploy)
        settings = {"preset": "http", "url": "https://hooks.example", **policy}
        policies = _Policies({target: Target.model_validate(settings)})
        name = f"claim-{next(self._numbers)}"
        asked = await self.ledger.commit(lambda tx: claim(tx, number, name, policies))
        assert asked is not None
        return asked

    async def end(
        self,
        deploy: str,
        status: Status = "succeeded",
        reason: str = "",
        *,
        target: str = "production",
        http: int | None = None,
        kept: AttemptRecord | None = None,
    ) -> str:
        """Call a deploy and write how it ended; return its id."""
        asked = await self.claim(deploy, target)
        kinds: dict[Status, OutcomeKind] = {"waiting": "retry", "uncertain": "uncertain"}
        other: OutcomeKind = "failed" if status == "failed" else "succeeded"
        exchange = pack(msgspec.json.encode(kept)) if kept else None
        outcome = Outcome(
            deploy=_number("deploy", deploy),
            claim=asked.claim,
            attempt=asked.attempt,
            kind=kinds.get(status, other),
            status=status,
            reason=reason,
            again_at=seconds(self.ledger.clock()) + 3_600 if status == "waiting" else 0,
            ms=12.5,
            http=http,
            exchange=exchange,
            lesson=Lesson(answered=True, failed=False),
        )
        settled = await self.ledger.commit(lambda tx: settle(tx, outcome))
        assert settled.is_owner
        return deploy

    async def failed(self, name: str, reason: str = "HTTP 404", **push: Any) -> str:
        """Return the id of a deploy that failed."""
        target = push.get("target", "production")
        return await self.end(await self.deploy(name, **push), "failed", reason, target=target)

    async def succeeded(self, name: str, **push: Any) -> str:
        """Return the id of a deploy that succeeded."""
        target = push.get("target", "production")
        return await self.end(await self.deploy(name, **push), "succeeded", target=target)


def _number(kind: Any, id_: str) -> int:
    number = row_number(kind, id_)
    assert number is not None
    return number
