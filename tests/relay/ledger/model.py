"""What must be: the first state machine's model of deliveries, deploys and calls.

Plain Python; nothing of the project is imported. What the ledger does is told to the model, which
says what must follow, and fails where something was done that may not be.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from tests.relay.ledger.git_servers import OPENING, Ref, Webhook

OPEN = ("waiting", "calling")
REPLAYABLE = ("failed", "uncertain", "unknown", "cancelled", "dismissed")
DISMISSABLE = ("failed", "uncertain", "unknown")


@dataclass(frozen=True)
class Rules:
    """How one target wants to be called."""

    name: str
    newest_only: bool = False
    concurrency: int = 50
    most: int = 0
    """Calls in ``interval``; 0 without a rate."""
    interval: float = 0
    opens_at: int = 0
    closes_at: int = 24
    """Hours of the day, UTC."""
    expires: float = 0
    """Seconds within which a person has to approve; 0 where nobody is asked."""
    quiet: float = 0
    cap: float = 0
    attempts: int = 3
    on_uncertain: str = ""
    """retry, hold, or empty: retry where the state is the newest of its ref."""
    failures: int = 0
    """Failures in a row that open the breaker; 0 without one."""
    pause: float = 0
    call_keys: tuple[str, ...] = ("",)
    """Of each route that calls it."""
    kinds: tuple[str, ...] = ("push",)
    """What it is called for: push, delete, preview, close."""


@dataclass(eq=False)
class Call:
    """One call: noted in the ledger, then made."""

    deploy: Deploy
    number: int
    claim: str
    begun_at: float
    until: float
    is_probe: bool = False
    rate_at: int = 0
    is_settled: bool = False
    is_cut_off: bool = False
    is_made: bool = True
    """False where the worker gave the claim back instead."""
    succeeded: bool = False


@dataclass(eq=False)
class Deploy:
    """One deploy of one target and ref."""

    id: int
    rules: Rules
    ref: Ref
    state: int
    place: int
    """An end of the ref in a later place ends it. In one place, higher ids are newer."""
    turn: int
    call_key: str
    delivery: int
    created_at: float
    line_at: float
    replay_of: int = 0
    replayed_by: int = 0
    status: str = "waiting"
    waits: str = ""
    tries: int = 0
    retry_at: float = 0
    calls: list[Call] = field(default_factory=list)
    is_approved: bool = False
    asked_at: float = 0

    @property
    def identity(self) -> tuple[object, ...]:
        return (self.rules.name, self.ref, self.state, self.turn, self.call_key)

    @property
    def line(self) -> tuple[object, ...]:
        return (self.rules.name, self.ref)


def is_newer(one: Deploy, other: Deploy) -> bool:
    """Another call of the same state is not newer: it is a deploy of its own."""
    is_sibling = one.state == other.state and one.call_key != other.call_key
    is_behind = (one.place, one.id) > (other.place, other.id)
    return one.line == other.line and is_behind and not is_sibling


@dataclass(eq=False)
class Delivery:
    """One webhook that was kept."""

    id: int
    webhook: Webhook
    state: int
    status: str
    turns: dict[str, int]
    replay_of: int = 0
    is_cancelled: bool = False


@dataclass(eq=False)
class KnownRef:
    """What the relay has been told of a ref."""

    states: set[int] = field(default_factory=set)
    newest: int = 0
    value: str | None = None
    ended: int = 0
    requests: set[tuple[str, bytes]] = field(default_factory=set)
    turns: dict[str, tuple[int, bool]] = field(default_factory=dict)
    turn_at: float = 0


class Model:
    """All that must be true of one example."""

    def __init__(self, rules: list[Rules]) -> None:
        self.rules = rules
        self.refs: dict[Ref, KnownRef] = {}
        self.deliveries: dict[int, Delivery] = {}
        self.deploys: dict[int, Deploy] = {}
        self.paused: set[str] = set()
        self.limited: dict[str, float] = {}
        self.rate_calls: dict[str, list[float]] = {}
        self.failed_in_a_row: dict[str, int] = {}
        self.closed_until: dict[str, float] = {}

    # --- deliveries

    def wanted(self, webhook: Webhook) -> list[tuple[Rules, str]]:
        """The calls that the routes want for a webhook."""
        if webhook.ref.kind == "pull":
            is_preview = webhook.action in OPENING and "preview" in webhook.labels
            kind = "preview" if is_preview else "close" if webhook.action == "closed" else ""
        else:
            kind = "delete" if webhook.action == "delete" else "push"
        return [(one, key) for one in self.rules if kind in one.kinds for key in one.call_keys]

    def conditions(self, webhook: Webhook) -> dict[str, bool]:
        """Whether the label that a preview needs is there."""
        if webhook.ref.kind != "pull":
            return {}
        holds = "preview" in webhook.labels
        return {rules.name: holds for rules in self.rules if "preview" in rules.kinds}

    def arrive(self, webhook: Webhook) -> tuple[str, str, Delivery | None]:
        """Return verdict and status that a webhook must get, and what it is, without an id; None
        where it is known."""
        known = self.refs.setdefault(webhook.ref, KnownRef())
        if (webhook.guid, webhook.body) in known.requests:
            return "known", "", None
        known.requests.add((webhook.guid, webhook.body))
        verdict, state = self._verdict(known, webhook)
        is_newest = state == known.newest
        if webhook.ends and verdict in ("new", "late"):
            known.ended = max(known.ended, state)
            for deploy in self._of_ref(webhook.ref):
                if deploy.status == "waiting" and deploy.place < state:
                    deploy.status = "superseded"
        turns = self._turns(known, webhook) if is_newest else {}
        status = "queued"
        if verdict == "late":
            status = "ignored"
        elif not is_newest:
            status = "duplicate"
        elif not self.wanted(webhook):
            status = "ignored"
        elif verdict == "same" and any(
            one.is_cancelled
            and (one.webhook.ref, one.state, one.turns) == (webhook.ref, state, turns)
            for one in self.deliveries.values()
        ):
            status = "duplicate"
        return verdict, status, Delivery(0, webhook, state, status, turns)

    @staticmethod
    def _verdict(known: KnownRef, webhook: Webhook) -> tuple[str, int]:
        if webhook.is_touch and webhook.value == known.value:
            return "same", known.newest
        if webhook.state in known.states:
            return "same", webhook.state
        known.states.add(webhook.state)
        if webhook.state < known.newest:
            return "late", webhook.state
        known.newest, known.value = webhook.state, webhook.value
        return "new", webhook.state

    def _turns(self, known: KnownRef, webhook: Webhook) -> dict[str, int]:
        """How often the label came back."""
        turns = {}
        for target, holds in self.conditions(webhook).items():
            turn, held = known.turns.get(target, (0, True))
            if webhook.at >= known.turn_at:
                turn += holds and not held
                known.turns[target] = (turn, holds)
            if turn:
                turns[target] = turn
        known.turn_at = max(known.turn_at, webhook.at)
        return turns

    def may_route(self, delivery: Delivery) -> bool:
        """The deliveries of one ref are routed in the order of their arrival."""
        return not any(
            one.status == "queued" and one.webhook.ref is delivery.webhook.ref
            for one in self.deliveries.values()
            if one.id < delivery.id
        )

    def same_call(
        self, delivery: Delivery, rules: Rules, call_key: str, *, only_open: bool
    ) -> Deploy | None:
        """The first deploy that made this call for this state."""
        turn = delivery.turns.get(rules.name, 0)
        identity = (rules.name, delivery.webhook.ref, delivery.state, turn, call_key)
        for deploy in self.deploys.values():
            if deploy.identity == identity and (not only_open or deploy.status in OPEN):
                return deploy
        return None

    # --- deploys

    def queue(self, deploy: Deploy) -> None:
        """A deploy was made."""
        self.deploys[deploy.id] = deploy
        if deploy.rules.newest_only:
            older = [one for one in self.waiting(deploy) if is_newer(deploy, one)]
            for one in older:
                one.status = "superseded"
                if not one.calls:
                    deploy.line_at = min(deploy.line_at, one.line_at)

    def begin(self, call: Call, now: float, *, told_uncertain: bool) -> None:
        """A call begins: every reason against it is checked."""
        deploy, rules = call.deploy, call.deploy.rules
        others = [one for one in self._of_line(deploy) if one is not deploy]
        assert not [one for one in others if one.status == "calling"], "two calls at once"
        if deploy.calls:
            last = deploy.calls[-1]
            last.is_cut_off |= told_uncertain
            assert last.is_settled or last.is_cut_off, "called twice without a mark"
        newer = [one for one in others if is_newer(one, deploy)]
        called = [one for one in newer if any(call.is_made for call in one.calls)]
        assert not called, "a newer one was called before"
        if rules.newest_only:
            assert not [one for one in newer if one.status != "cancelled"], "a newer one exists"
        assert self.refs[deploy.ref].ended <= deploy.place, "called after the end of its ref"
        self._check_target(deploy, now)
        deploy.status, deploy.waits = "calling", ""
        deploy.tries += 1
        deploy.calls.append(call)
        self.rate_calls.setdefault(rules.name, []).append(now)

    def _check_target(self, deploy: Deploy, now: float) -> None:
        rules = deploy.rules
        assert rules.name not in self.paused, "called while paused"
        assert now >= self.limited.get(rules.name, 0), "called before its platform wants calls"
        assert now >= deploy.retry_at, "called before its retry is due"
        hour = now % 86_400 / 3_600
        assert rules.opens_at <= hour < rules.closes_at, "called outside of its hours"
        assert not rules.expires or deploy.is_approved, "called without approval"
        calling = [
            one
            for one in self.deploys.values()
            if one.rules is rules and one.status == "calling" and one is not deploy
        ]
        assert len(calling) < rules.concurrency, "more calls than slots"
        begun = self.rate_calls.get(rules.name, [])
        recent = [at for at in begun if at > now - rules.interval + 0.001]
        assert not rules.most or len(recent) < rules.most, "more calls than the rate allows"
        if rules.quiet and not deploy.calls:
            rested = min(deploy.created_at + rules.quiet, deploy.line_at + rules.cap)
            assert now >= rested, "called before its ref rested"
        closed = self.closed_until.get(rules.name, 0)
        assert now >= closed, "called while the breaker is open"

    def superseded(self, deploy: Deploy) -> None:
        """A deploy that asked to be called ended as superseded: there must be a reason."""
        newer = [one for one in self._of_line(deploy) if is_newer(one, deploy)]
        reasons = [
            self.refs[deploy.ref].ended > deploy.place,
            any(one.status == "succeeded" for one in newer),
            deploy.rules.newest_only and any(one.status != "cancelled" for one in newer),
        ]
        assert any(reasons), "superseded without a reason"
        deploy.status = "superseded"

    def succeed(self, call: Call) -> None:
        call.is_settled = call.succeeded = True
        call.deploy.status = "succeeded"
        for one in self.waiting(call.deploy):
            if is_newer(call.deploy, one):
                one.status = "superseded"

    def learn(self, call: Call, now: float, *, failed: bool) -> None:
        """Count failures in a row, as the breaker does."""
        rules = call.deploy.rules
        if not rules.failures:
            return
        if not failed:
            if call.is_probe or not self.closed_until.get(rules.name):
                self.failed_in_a_row[rules.name] = 0
                self.closed_until[rules.name] = 0
            return
        number = self.failed_in_a_row[rules.name] = self.failed_in_a_row.get(rules.name, 0) + 1
        is_closed = not self.closed_until.get(rules.name)
        if call.is_probe or (number >= rules.failures and is_closed):
            self.closed_until[rules.name] = now + rules.pause

    # --- actions

    def states_back(self, deploy: Deploy) -> int:
        """How many newer states its target was to get."""
        others = [one for one in self._of_line(deploy) if one.status != "cancelled"]
        newer = {one.state for one in others if one.state > deploy.state}
        ended = self.refs[deploy.ref].ended
        brought = [one for one in others if one.state == ended]
        return len(newer) + (ended > deploy.state and not brought)

    def live(self, deploy: Deploy) -> Deploy | None:
        """The newest deploy that succeeded on its line."""
        done = [one for one in self._of_line(deploy) if any(c.succeeded for c in one.calls)]
        return max(done, key=lambda one: (one.place, one.id), default=None)

    def replay_refusal(self, deploy: Deploy, *, forced: bool) -> str:
        replay = self.deploys.get(deploy.replayed_by)
        if replay is not None and replay.status in OPEN:
            return "replaying"
        if deploy.status in OPEN:
            return "active"
        same = [one for one in self.deploys.values() if one.identity == deploy.identity]
        if any(one.status in OPEN for one in same):
            return "busy"
        if forced:
            return ""
        if replay is not None:
            return "replayed"
        if deploy.status not in REPLAYABLE:
            return "succeeded"
        if any(one.status == "succeeded" and one.id > deploy.id for one in same):
            return "done"
        newer = [one for one in self._of_line(deploy) if is_newer(one, deploy)]
        is_undone = any(one.status in OPEN or one is self.live(deploy) for one in newer)
        return "overtaken" if is_undone or self.states_back(deploy) else ""

    def is_late_approval(self, deploy: Deploy) -> bool:
        newer = [one for one in self._of_line(deploy) if is_newer(one, deploy)]
        return deploy.status == "superseded" or any(one.calls for one in newer)

    # --- sets of deploys

    def waiting(self, deploy: Deploy) -> list[Deploy]:
        return [one for one in self._of_line(deploy) if one.status == "waiting"]

    def lines(self) -> Iterator[list[Deploy]]:
        """The deploys of each target and ref, in their order."""
        by_line: dict[tuple[object, ...], list[Deploy]] = {}
        for deploy in self.deploys.values():
            by_line.setdefault(deploy.line, []).append(deploy)
        yield from by_line.values()

    def last_place(self, rules: Rules, ref: Ref, place: int) -> int:
        """The place behind all deploys of a target and ref, and behind the end of the ref."""
        line = [one.place for one in self.deploys.values() if one.line == (rules.name, ref)]
        return max([place, self.refs[ref].ended, *line])

    def _of_line(self, deploy: Deploy) -> list[Deploy]:
        return [one for one in self.deploys.values() if one.line == deploy.line]

    def _of_ref(self, ref: Ref) -> list[Deploy]:
        return [one for one in self.deploys.values() if one.ref is ref]
