"""The first state machine: intake, routing, claims, outcomes and actions on a real ledger.

Each rule does something to the git servers, the ledger, the workers or the clock, tells the model,
and compares. There is no HTTP and nothing waits: the clock is the machine's.
"""

from __future__ import annotations

from hypothesis import strategies as st
from hypothesis.stateful import initialize, precondition, rule

from relay.events.gate import Lesson
from relay.ledger.outcomes import Outcome
from tests.relay.ledger.example import OTHERS, PUSHED, pick
from tests.relay.ledger.git_servers import Ref, Webhook
from tests.relay.ledger.model import Call, Deploy
from tests.relay.ledger.people import People

PICK = st.integers(0, 11)
"""Which of the things that a rule may concern; small, so that examples shrink."""


class LedgerMachine(People):
    """All rules."""

    @initialize(
        pushed=st.tuples(*[st.integers(0, len(PUSHED) - 1)] * 2),
        others=st.tuples(*[st.integers(0, len(OTHERS) - 1)] * 2),
        hooks=st.integers(1, 2),
    )
    def start(self, pushed: tuple[int, int], others: tuple[int, int], hooks: int) -> None:
        self.begin(pushed, others, hooks)

    # --- git servers

    @rule(number=PICK)
    def push(self, number: int) -> None:
        self._push(pick(self.refs, number))
        self.count("push")

    def _push(self, ref: Ref, commit: str = "") -> None:
        self.git.push(ref, self.engine.now, commit)
        self._sent(ref)

    def _sent(self, ref: Ref) -> None:
        self.engine.now = max(self.engine.now, ref.last_at)

    def _with_history(self) -> list[Ref]:
        return [ref for ref in self.refs if len(ref.commits) > 1 and ref.exists]

    @precondition(lambda self: self._with_history())
    @rule(number=PICK, commit=PICK)
    def force_back(self, number: int, commit: int) -> None:
        ref = pick(self._with_history(), number)
        older = [one for one in ref.commits if one != ref.head]
        self._push(ref, pick(older, commit))
        self.count("force_back" if ref.kind == "branch" else "move_tag_back")

    @precondition(lambda self: any(ref.exists for ref in self.refs))
    @rule(number=PICK)
    def delete(self, number: int) -> None:
        ref = pick([ref for ref in self.refs if ref.exists], number)
        self.git.delete(ref, self.engine.now)
        self._sent(ref)
        self.count("delete")

    @precondition(lambda self: any(ref.commits and not ref.exists for ref in self.refs))
    @rule(number=PICK)
    def restore(self, number: int) -> None:
        ref = pick([ref for ref in self.refs if ref.commits and not ref.exists], number)
        self._push(ref, ref.commits[-1])
        self.count("restore")

    @rule()
    def change_pull_request(self) -> None:
        action = "opened" if not self.pull.state else "reopened"
        if self.pull.is_open:
            action = "synchronize"
        self.git.change_pull(self.pull, self.engine.now, action)
        self._sent(self.pull)
        self.count("change_pull_request")

    @precondition(lambda self: self.pull.is_open)
    @rule()
    def close_pull_request(self) -> None:
        self.git.change_pull(self.pull, self.engine.now, "closed")
        self._sent(self.pull)
        self.count("close_pull_request")

    @precondition(lambda self: self.pull.is_open)
    @rule()
    def label(self) -> None:
        """The moves before it arrive first; only copies of them may still be under way."""
        for webhook in [*self.pull.under_way]:
            self._arrive(webhook)
        self.git.label(self.pull, self.engine.now, "preview")
        self._sent(self.pull)
        self._arrive(self.pull.under_way[-1])
        self.count("label")

    # --- arrivals

    def _arrive(self, webhook: Webhook) -> None:
        webhook.ref.under_way.remove(webhook)
        self.arrive(webhook)

    def _under_way(self) -> list[Ref]:
        return [ref for ref in (*self.refs, self.pull) if ref.under_way]

    @precondition(lambda self: self._under_way())
    @rule(number=PICK)
    def arrive_in_order(self, number: int) -> None:
        self._arrive(pick(self._under_way(), number).under_way[0])
        self.count("arrive_in_order")

    @precondition(lambda self: self._under_way())
    @rule()
    def arrive_all(self) -> None:
        self._arrive_all()
        self.count("arrive_all")

    def _arrive_all(self) -> None:
        for ref in self._under_way():
            for webhook in [*ref.under_way]:
                self._arrive(webhook)

    def _reorderable(self) -> list[Ref]:
        return [ref for ref in self._under_way() if ref.has_clock and len(ref.under_way) > 1]

    @precondition(lambda self: self._reorderable())
    @rule(number=PICK, place=PICK)
    def arrive_reordered(self, number: int, place: int) -> None:
        """The others are late, or arrive as second hooks of what is known."""
        ref = pick(self._reorderable(), number)
        self._arrive(pick(ref.under_way[1:], place))
        self.count("arrive_reordered")

    def _arrived(self) -> list[Webhook]:
        return [one for ref in (*self.refs, self.pull) for one in ref.arrived[-4:]]

    @precondition(lambda self: self._arrived())
    @rule(number=st.integers(0, 15))
    def redeliver(self, number: int) -> None:
        self.arrive(pick(self._arrived(), number))
        self.count("redeliver")

    @precondition(lambda self: any(one.ref.has_clock for one in self._arrived()))
    @rule(number=st.integers(0, 15))
    def redeliver_with_new_id(self, number: int) -> None:
        webhook = pick([one for one in self._arrived() if one.ref.has_clock], number)
        if webhook.is_touch:
            return
        self.arrive(self.git.again(webhook, new_id=True))
        self.count("redeliver_with_new_id")

    # --- workers

    @precondition(lambda self: self.engine.due_deliveries())
    @rule(number=PICK)
    def route_one(self, number: int) -> None:
        self.route(self.model.deliveries[pick(self.engine.due_deliveries(), number)])
        self.count("route_one")

    @precondition(lambda self: self.engine.due_deploys())
    @rule(number=PICK)
    def claim_one(self, number: int) -> None:
        self.claim(pick(self.engine.due_deploys(), number))
        self.count("claim_one")

    @rule()
    def work(self) -> None:
        """Workers do all that is due, but no call is answered."""
        self._work()
        self.count("work")

    def _work(self) -> None:
        for delivery in self.engine.due_deliveries():
            self.route(self.model.deliveries[delivery])
        for deploy in self.engine.due_deploys():
            self.claim(deploy)

    def _outcome(self, call: Call, kind: str, status: str, **more: object) -> Outcome:
        return Outcome(
            deploy=call.deploy.id,
            claim=call.claim,
            attempt=call.number,
            kind=kind,  # type: ignore[arg-type]
            status=status,  # type: ignore[arg-type]
            is_probe=call.is_probe,
            breaker=self.engine.targets[call.deploy.rules.name].breaker,
            subject=call.deploy.rules.name,
            rate_at=call.rate_at,
            **more,  # type: ignore[arg-type]
        )

    def _call(self, number: int) -> Call | None:
        """Return a call that is being made; workers begin some where there is none."""
        if not self.calls:
            self._work()
        if not self.calls:
            self._push(self.refs[0])
            self._arrive_all()
            self._work()
        return pick(self.calls, number) if self.calls else None

    def answer_well(self, call: Call) -> None:
        well = Lesson(answered=True, failed=False)
        if self.settle(call, self._outcome(call, "succeeded", "succeeded", lesson=well)):
            self.model.succeed(call)
            self.model.learn(call, self.engine.now, failed=False)
            self.finished(call)

    @rule(number=PICK)
    def answer_success(self, number: int) -> None:
        call = self._call(number)
        if call is None:
            return
        self.answer_well(call)
        self.count("answer_success")

    @rule(number=PICK)
    def answer_refused(self, number: int) -> None:
        call = self._call(number)
        if call is None:
            return
        well = Lesson(answered=True, failed=False)
        if self.settle(call, self._outcome(call, "failed", "failed", lesson=well)):
            call.deploy.status = "failed"
            self.model.learn(call, self.engine.now, failed=False)
            self.finished(call)
        self.count("answer_refused")

    @rule(number=PICK, pause=st.sampled_from([0.5, 8, 90]))
    def answer_error(self, number: int, pause: float) -> None:
        """503: the call is made again, or was the last one."""
        call = self._call(number)
        if call is None:
            return
        is_last = call.deploy.tries >= call.deploy.rules.attempts
        bad = Lesson(answered=False, failed=True)
        again = self.engine.now + pause
        if is_last:
            outcome = self._outcome(call, "failed", "failed", lesson=bad)
        else:
            outcome = self._outcome(call, "retry", "waiting", lesson=bad, again_at=again)
        if self.settle(call, outcome):
            self._waits_again(call.deploy, again, "failed" if is_last else "waiting")
            self.model.learn(call, self.engine.now, failed=True)
            self.finished(call)
        self.count("answer_error")

    def _waits_again(self, deploy: Deploy, again: float, status: str) -> None:
        deploy.status = status
        if status == "waiting":
            deploy.waits, deploy.retry_at = "retry", again - 0.001

    @rule(number=PICK, pause=st.sampled_from([5, 120]))
    def answer_busy(self, number: int, pause: float) -> None:
        """429: no attempt is used up, and nobody calls the target before."""
        call = self._call(number)
        if call is None:
            return
        until = self.engine.now + pause
        lesson = Lesson(answered=True, failed=False, limited_until=until)
        outcome = self._outcome(
            call, "retry", "waiting", lesson=lesson, again_at=until, counts=False
        )
        if self.settle(call, outcome):
            call.deploy.tries -= 1
            self._waits_again(call.deploy, until, "waiting")
            name = call.deploy.rules.name
            self.model.limited[name] = max(self.model.limited.get(name, 0), until - 0.001)
            self.model.learn(call, self.engine.now, failed=False)
            self.finished(call)
        self.count("answer_busy")

    @rule(number=PICK)
    def answer_lost(self, number: int) -> None:
        """The connection broke after the request was sent."""
        call = self._call(number)
        if call is None:
            return
        deploy = call.deploy
        is_newest = deploy.place >= self.model.refs[deploy.ref].newest
        policy = self.engine.on_uncertain(deploy.rules.name, is_newest=is_newest)
        retries = policy == "retry" and deploy.tries < deploy.rules.attempts
        status, again = ("waiting" if retries else "uncertain"), self.engine.now + 2
        bad = Lesson(answered=False, failed=True)
        outcome = self._outcome(call, "uncertain", status, lesson=bad, again_at=again)
        if self.settle(call, outcome):
            self._waits_again(deploy, again, status)
            self.model.learn(call, self.engine.now, failed=True)
            self.finished(call)
        self.count("answer_lost")

    @rule(number=PICK)
    def do_not_call(self, number: int) -> None:
        """The worker finds that it has no time left for the call, and gives the claim back."""
        call = self._call(number)
        if call is None:
            return
        outcome = self._outcome(call, "uncalled", "waiting", again_at=self.engine.now, counts=False)
        if self.settle(call, outcome):
            call.deploy.status, call.deploy.waits = "waiting", ""
            call.deploy.tries -= 1
            self.model.rate_calls[call.deploy.rules.name].remove(call.begun_at)
            call.is_made = False
            self.finished(call)
        self.count("do_not_call")

    # --- the clock

    @rule(seconds=st.sampled_from([0.2, 3, 12, 65, 700]))
    def let_time_pass(self, seconds: float) -> None:
        self.engine.now += seconds
        self.count("let_time_pass")

    @rule(hours=st.sampled_from([4, 8, 13]))
    def let_hours_pass(self, hours: int) -> None:
        self.engine.now += hours * 3_600
        self.count("let_hours_pass")

    @rule(number=PICK)
    def freeze_worker(self, number: int) -> None:
        """A worker is stopped for longer than its claim; another one finds the deploy."""
        call = self._call(number)
        if call is None:
            return
        self.engine.now = max(self.engine.now, call.until + 0.001)
        self.claim(call.deploy.id)
        self.count("freeze_worker")
