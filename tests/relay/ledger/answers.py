"""Rules of the first state machine: workers, the answers of platforms, and the clock."""

from __future__ import annotations

from hypothesis import strategies as st
from hypothesis.stateful import rule

from relay.events.gate import Lesson
from relay.ledger.outcomes import Outcome
from tests.relay.ledger.example import pick
from tests.relay.ledger.model import Call, Deploy
from tests.relay.ledger.pushes import NUMBER, Pushes

WELL = Lesson(answered=True, failed=False)
BAD = Lesson(answered=False, failed=True)


class Answers(Pushes):
    """The rules."""

    # --- workers

    def bring_deliveries(self) -> list[int]:
        """Return deliveries that are due; a push brings some where there are none."""
        if not self.engine.due_deliveries():
            self.push_to(self.refs[0])
            self.arrive_everything()
        return self.engine.due_deliveries()

    @rule(number=NUMBER)
    def route_one(self, number: int) -> None:
        self.route(self.model.deliveries[pick(self.bring_deliveries(), number)])
        self.count("route_one")

    @rule(number=NUMBER)
    def claim_one(self, number: int) -> None:
        if not self.engine.due_deploys():
            for delivery in self.bring_deliveries():
                self.route(self.model.deliveries[delivery])
        if self.engine.due_deploys():
            self.claim(pick(self.engine.due_deploys(), number))
            self.count("claim_one")

    @rule()
    def work(self) -> None:
        """Workers do all that is due, but no call is answered."""
        self.work_once()
        self.count("work")

    def work_once(self) -> None:
        """Route and claim all that is due."""
        for delivery in self.engine.due_deliveries():
            self.route(self.model.deliveries[delivery])
        for deploy in self.engine.due_deploys():
            self.claim(deploy)

    @rule(number=NUMBER)
    def freeze_worker(self, number: int) -> None:
        """A worker is stopped for longer than its claim; another one finds the deploy. What the
        first one has to say later is told by one of the other rules."""
        call = self.bring_call(number)
        if call is not None:
            self.engine.now = max(self.engine.now, call.until + 0.001)
            self.claim(call.deploy.id)
            self.count("freeze_worker")

    # --- answers

    def bring_call(self, number: int) -> Call | None:
        """Return a call that is being made; a push brings one where there is none."""
        if not self.calls:
            self.work_once()
        if not self.calls:
            self.push_to(self.refs[number % 2])
            self.arrive_everything()
            self.work_once()
        return pick(self.calls, number) if self.calls else None

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

    def answer_well(self, call: Call) -> None:
        if self.settle(call, self._outcome(call, "succeeded", "succeeded", lesson=WELL)):
            self.model.succeed(call)
            self.model.learn(call, self.engine.now, failed=False)
            self.finished(call)

    @rule(number=NUMBER)
    def answer_success(self, number: int) -> None:
        call = self.bring_call(number)
        if call is not None:
            self.answer_well(call)
            self.count("answer_success")

    @rule(number=NUMBER)
    def answer_refused(self, number: int) -> None:
        call = self.bring_call(number)
        if call is not None:
            self.refuse(call)
            self.count("answer_refused")

    def refuse(self, call: Call) -> None:
        """The platform answers that it does not want the deploy."""
        if self.settle(call, self._outcome(call, "failed", "failed", lesson=WELL)):
            call.deploy.status = "failed"
            self.model.learn(call, self.engine.now, failed=False)
            self.finished(call)

    @rule(number=NUMBER, pause=st.sampled_from([0.5, 8, 90]))
    def answer_error(self, number: int, pause: float) -> None:
        """503: the call is made again, or was the last one."""
        call = self.bring_call(number)
        if call is None:
            return
        again = self.engine.now + pause
        is_last = call.deploy.tries >= call.deploy.rules.attempts
        if is_last:
            outcome = self._outcome(call, "failed", "failed", lesson=BAD)
        else:
            outcome = self._outcome(call, "retry", "waiting", lesson=BAD, again_at=again)
        if self.settle(call, outcome):
            self._goes_on(call.deploy, again, "failed" if is_last else "waiting")
            self.model.learn(call, self.engine.now, failed=True)
            self.finished(call)
        self.count("answer_error")

    def _goes_on(self, deploy: Deploy, again: float, status: str) -> None:
        deploy.status = status
        if status == "waiting":
            deploy.waits, deploy.retry_at = "retry", again - 0.001

    @rule(number=NUMBER, pause=st.sampled_from([5, 120]))
    def answer_busy(self, number: int, pause: float) -> None:
        """429: no attempt is used up, and nobody calls the target before."""
        call = self.bring_call(number)
        if call is None:
            return
        until = self.engine.now + pause
        lesson = Lesson(answered=True, failed=False, limited_until=until)
        outcome = self._outcome(
            call, "retry", "waiting", lesson=lesson, again_at=until, counts=False
        )
        if self.settle(call, outcome):
            call.deploy.tries -= 1
            self._goes_on(call.deploy, until, "waiting")
            name = call.deploy.rules.name
            self.model.limited[name] = max(self.model.limited.get(name, 0), until - 0.001)
            self.model.learn(call, self.engine.now, failed=False)
            self.finished(call)
        self.count("answer_busy")

    @rule(number=NUMBER)
    def answer_lost(self, number: int) -> None:
        """The connection broke after the request was sent."""
        call = self.bring_call(number)
        if call is None:
            return
        deploy, again = call.deploy, self.engine.now + 2
        is_newest = deploy.place >= self.model.refs[deploy.ref].newest
        policy = self.engine.on_uncertain(deploy.rules.name, is_newest=is_newest)
        retries = policy == "retry" and deploy.tries < deploy.rules.attempts
        status = "waiting" if retries else "uncertain"
        outcome = self._outcome(call, "uncertain", status, lesson=BAD, again_at=again)
        if self.settle(call, outcome):
            self._goes_on(deploy, again, status)
            self.model.learn(call, self.engine.now, failed=True)
            self.finished(call)
        self.count("answer_lost")

    @rule(number=NUMBER)
    def do_not_call(self, number: int) -> None:
        """The worker finds that it has no time left for the call, and gives the claim back."""
        call = self.bring_call(number)
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
