"""One example of the first state machine: its world, what is compared, and how it ends."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

from hypothesis.stateful import RuleBasedStateMachine, invariant

from relay.events.deploy_life import TRANSITIONS
from relay.events.gate import Expired, Go, Superseded, Wait
from relay.ledger.claims import Asked
from relay.ledger.outcomes import Outcome
from tests.relay.ledger.engine import START, Engine
from tests.relay.ledger.git_servers import GitServers, Ref, Webhook
from tests.relay.ledger.model import OPEN, Call, Delivery, Deploy, Model, Rules, is_newer

T = TypeVar("T")

STEPS = {(arrow.source, arrow.goal) for arrow in TRANSITIONS}

ROUNDS = 1_000
"""Rounds of workers after which an example has to have ended."""

PUSHED = (
    Rules("web", newest_only=True),
    Rules("api", concurrency=2, on_uncertain="retry"),
    Rules("slow", concurrency=1, most=2, interval=60, attempts=2),
    Rules("gated", expires=3_600, on_uncertain="hold"),
    Rules("asked", expires=3_600, newest_only=True),
    Rules("night", opens_at=9, closes_at=17, newest_only=True),
    Rules("office", opens_at=9, closes_at=17, concurrency=1),
    Rules("calm", newest_only=True, quiet=10, cap=30),
    Rules("fragile", failures=2, pause=60),
    Rules("shared", call_keys=("a", "b"), newest_only=True),
    Rules("twice", call_keys=("a", "b"), attempts=2),
)
"""Targets of pushes; each example has two of them."""

SECOND = (*PUSHED, *[rules for rules in PUSHED if rules.expires] * 6)
"""Those that wait for a person are the second one more often: most rules for people need them."""

OTHERS = (
    Rules("preview", kinds=("preview",), newest_only=True),
    Rules("janitor", kinds=("delete", "close")),
    Rules("review", kinds=("preview", "close")),
)
"""Targets of pull requests and deletions; each example has two of them."""


def pick(items: Sequence[T], number: int) -> T:
    """Return one of the things that a rule may concern."""
    return items[number % len(items)]


class Example(RuleBasedStateMachine):
    """The world of one example. The engine is shared by all, and made by the first."""

    engine: ClassVar[Engine]
    fired: ClassVar[Counter[str]] = Counter()
    """How often each rule did something, over all examples."""
    ended: ClassVar[Counter[str]] = Counter()
    """Examples and steps that came to their end."""

    def __init__(self) -> None:
        super().__init__()
        self.steps = 0
        self.rules_of_targets: list[Rules] = []
        self.model = Model([])
        self.refs: list[Ref] = []
        self.pull: Ref
        self.calls: list[Call] = []
        self.statuses: dict[int, str] = {}

    def begin(self, chosen: Sequence[Rules], hooks: int) -> None:
        """Make the world: four refs and up to four targets."""
        number = Example.ended["begun"] = Example.ended["begun"] + 1
        named = [
            Rules(**{**rules.__dict__, "name": f"{rules.name}-{number}"})
            for rules in dict.fromkeys(chosen)
        ]
        self.model = Model(named)
        self.engine.begin(named)
        self.git = GitServers(f"example{number}")
        self.pull = self.git.ref("7", "pull", has_clock=True, hooks=hooks)
        self.refs = [
            self.git.ref("main", "branch", has_clock=True, hooks=hooks),
            self.git.ref("topic", "branch", has_clock=False, hooks=1),
            self.git.ref("v1", "tag", has_clock=True, hooks=hooks),
        ]

    def count(self, name: str) -> None:
        """Note that a rule did something."""
        Example.fired[name] += 1

    @invariant()
    def step(self) -> None:
        """Count the steps; what must be true is compared after each commit."""
        self.steps += 1

    # --- receiver

    def arrive(self, webhook: Webhook) -> None:
        """A webhook comes in; the relay and the model say what it is."""
        wanted = self.model.wanted(webhook)
        stored = self.engine.store(webhook, self.model.conditions(webhook), is_wanted=bool(wanted))
        verdict, status, delivery = self.model.arrive(webhook)
        assert stored.verdict == verdict, f"{stored.rule}: {stored.verdict}, not {verdict}"
        if delivery is not None:
            assert stored.status == status, f"{stored.status}, not {status}"
            delivery.id = stored.id
            self.model.deliveries[stored.id] = delivery
        webhook.ref.arrived.append(webhook)
        self.compare()

    # --- workers

    def route(self, delivery: Delivery) -> None:
        """A worker routes a delivery."""
        webhook, model = delivery.webhook, self.model
        wanted = model.wanted(webhook)
        expected = [
            model.same_call(delivery, rules, key, only_open=bool(delivery.replay_of))
            for rules, key in wanted
        ]
        routed = self.engine.route(delivery.id, wanted)
        if delivery.status != "queued" or not model.may_route(delivery):
            assert routed is None, "routed out of turn"
            return
        assert routed is not None, "not routed"
        for (rules, key), same, made in zip(wanted, expected, routed.deploys, strict=True):
            assert made.is_new == (same is None), f"{rules.name}: {made}, but {same}"
            if made.is_new:
                self.queued(delivery, rules, key, made.id)
            elif same is not None:
                assert made.id == same.id or delivery.replay_of
        is_new = any(made.is_new for made in routed.deploys)
        delivery.status = "routed" if is_new else "duplicate" if wanted else "ignored"
        assert routed.status == delivery.status
        self.compare()

    def queued(self, delivery: Delivery, rules: Rules, key: str, number: int) -> None:
        """A delivery led to a deploy."""
        ref, place = delivery.webhook.ref, delivery.state
        if delivery.replay_of:
            place = self.model.last_place(rules, ref, place)
        self.model.queue(
            Deploy(
                id=number,
                rules=rules,
                ref=ref,
                state=delivery.state,
                place=place,
                turn=delivery.turns.get(rules.name, 0),
                call_key=key,
                delivery=delivery.id,
                created_at=self.engine.now,
                line_at=self.engine.now,
            )
        )

    def claim(self, number: int) -> None:
        """A worker asks for the call of a deploy."""
        deploy = self.model.deploys[number]
        asked = self.engine.claim(number)
        if asked is None:
            return
        cut_off = deploy.status == "calling"
        assert (asked.uncertain is not None) == cut_off, "a call is cut off if its claim ran out"
        if isinstance(asked.decision, Go):
            call = Call(
                deploy=deploy,
                number=asked.attempt,
                claim=asked.claim,
                begun_at=self.engine.now,
                until=asked.until,
                is_probe=asked.is_probe,
                rate_at=asked.rate_at,
            )
            self.model.begin(call, self.engine.now, told_uncertain=cut_off)
            self.calls.append(call)
        else:
            self._not_called(deploy, asked, cut_off=cut_off)
        self.compare()

    def _not_called(self, deploy: Deploy, asked: Asked, *, cut_off: bool) -> None:
        if cut_off:
            deploy.calls[-1].is_cut_off = True
        if isinstance(asked.decision, Wait):
            deploy.status, deploy.waits = "waiting", asked.decision.reason
            if asked.decision.reason == "approval":
                assert deploy.rules.expires, "nobody has to approve it"
                deploy.asked_at = deploy.asked_at or self.engine.now
        elif isinstance(asked.decision, Superseded):
            self.model.superseded(deploy)
            if cut_off:
                deploy.status = "uncertain"
        elif isinstance(asked.decision, Expired):
            assert self.engine.now >= deploy.asked_at + deploy.rules.expires > 0
            deploy.status = "failed"
        else:
            assert asked.status == "uncertain", asked
            assert cut_off
            deploy.status = "uncertain"

    def settle(self, call: Call, outcome: Outcome) -> bool:
        """Write an outcome. Return whether the ledger took it as the owner's."""
        settled = self.engine.settle(outcome)
        assert settled.is_owner == (not call.is_cut_off), "only the owner writes the outcome"
        if not settled.is_owner:
            self.calls.remove(call)
            return False
        return True

    def finished(self, call: Call) -> None:
        """Forget a call that has its outcome, and compare."""
        call.is_settled = True
        self.calls.remove(call)
        self.compare()

    # --- what is compared

    def compare(self) -> None:
        """Compare all statuses, and see that each step is one of the diagram's."""
        rows = self.engine.read("statuses", deploy=self.engine.first[1])
        told = {row[0]: row[1] for row in rows}
        meant = {deploy.id: deploy.status for deploy in self.model.deploys.values()}
        differing = [one for one in told.keys() | meant.keys() if told.get(one) != meant.get(one)]
        assert not differing, f"{differing}{self._lines(differing)}"
        for number, status in told.items():
            before = self.statuses.get(number)
            assert status == before or (before, status) in STEPS, f"{before} to {status}"
        self.statuses = told

    def _lines(self, numbers: list[int]) -> str:
        """Describe the deploys beside these."""
        lines = {self.model.deploys[number].line for number in numbers}
        text = f"\nnow {self.engine.now - START:.3f}"
        for one in self.model.deploys.values():
            if one.line in lines:
                row = self.engine.read("deploy", deploy=one.id)[0]
                due = (row["next_at"] or 0) / 1e6 - START
                text += f"\n{one.id} {one.rules.name} state {one.state} place {one.place} "
                text += f"({row['pos'] / 2**32}) key {one.call_key!r}: {row['status']}, "
                text += f"not {one.status}; {row['waits']!r} {due:.3f} {row['reason']}"
        return text

    # --- the end

    def teardown(self) -> None:
        """Let all webhooks arrive and the clock run, answer everything well, and look at it."""
        if not self.refs or sys.exc_info()[0] is not None:
            return  # It has failed already.
        for ref in (*self.refs, self.pull):
            while ref.under_way:
                self.arrive(ref.under_way.pop(0))
        self.resume_all()
        for number in range(ROUNDS):
            # Those that wait for an older one look every minute; a night is not watched that way.
            if not self.work_round(0.01 if number < 30 else 900) and not self._open():
                break
        else:
            raise AssertionError(f"still open: {self._open()}{self._lines(self._open())}")
        for line in self.model.lines():
            self._check_line(line)
        self._check_attempts()
        Example.ended["examples"] += 1
        Example.ended["steps"] += self.steps
        Example.ended["long examples"] += self.steps > 30

    if TYPE_CHECKING:
        # The classes that extend this one have them: people.py and answers.py.
        def resume_all(self) -> None: ...

        def answer_well(self, call: Call) -> None: ...

    def _open(self) -> list[int]:
        return [one.id for one in self.model.deploys.values() if one.status in OPEN]

    def work_round(self, pause: float) -> bool:
        """Do all that is due, or let the clock run for ``pause`` seconds at least until something
        is. Return whether anything was done."""
        work: list[Any] = self.engine.due_deliveries()
        for number in work:
            self.route(self.model.deliveries[number])
        calls = list(self.calls)
        for call in calls:
            self.answer_well(call)
        numbers = self.engine.due_deploys()
        for number in numbers:
            self.claim(number)
        if work or calls or numbers:
            return True
        if self._open():
            coming = self.engine.next_due()
            self.engine.now = max(self.engine.now + pause, coming or 0)
            return True
        return False

    def _check_line(self, line: list[Deploy]) -> None:
        """The last call that its target answered with success is that of the newest deploy which
        had no other end."""
        calls = sorted((call for one in line for call in one.calls), key=lambda one: one.begun_at)
        succeeded = [call.deploy for call in calls if call.succeeded]
        keys = {one.call_key for one in line}
        for key in keys:
            of_key = [one for one in line if one.call_key == key and one.status != "cancelled"]
            done = [one for one in succeeded if one.call_key == key]
            if not of_key:
                continue
            newest = max(of_key, key=lambda one: (one.place, one.id))
            if newest.status == "superseded":
                # A newer one of another call of a later state took its place, or its ref ended.
                known = self.model.refs[newest.ref]
                newer = [one for one in line if is_newer(one, newest)]
                assert newer or known.ended > newest.place, self._lines([newest.id])
            if newest.status == "succeeded":
                assert done[-1] is newest, "an older one was called last"
            elif done:
                assert done[-1] is max(done, key=lambda one: (one.place, one.id)), "out of order"

    def _check_attempts(self) -> None:
        """Each call has one note, and none is left without an outcome."""
        rows = self.engine.read("attempts", deploy=self.engine.first[1])
        noted = {(row[0], row[1]): row[2] for row in rows}
        made = {
            (one.id, call.number): call for one in self.model.deploys.values() for call in one.calls
        }
        assert noted.keys() == made.keys()
        for key, call in made.items():
            assert noted[key] != "calling", f"attempt {key} has no outcome"
            assert not call.is_cut_off or noted[key] == "uncertain", "cut off without a mark"
