"""Rules of the first state machine: what people do."""

from __future__ import annotations

from hypothesis import strategies as st
from hypothesis.stateful import precondition, rule

from relay.events.ids import row_number
from relay.ledger.actions import Done, Wish
from relay.ledger.approve import approve_deploy
from relay.ledger.cancel import cancel_delivery, cancel_deploy
from relay.ledger.dismiss import dismiss_deploy
from relay.ledger.pause import pause_target, resume_target
from relay.ledger.replay import replay_delivery, replay_deploy
from tests.relay.ledger.example import Example, pick
from tests.relay.ledger.model import DISMISSABLE, OPEN, Delivery, Deploy

NUMBER = st.integers(0, 11)

ANN = Wish(by="ann")
ANN_FORCES = Wish(by="ann", forced=True)


class People(Example):
    """The rules."""

    # --- targets

    @precondition(lambda self: len(self.model.paused) < len(self.model.rules))
    @rule(number=NUMBER)
    def pause(self, number: int) -> None:
        names = [one.name for one in self.model.rules if one.name not in self.model.paused]
        self._pause(pick(names, number))
        self.count("pause")

    def _pause(self, name: str) -> None:
        done = self.engine.commit(lambda tx: pause_target(tx, name, ANN))
        assert done.refusal == ("paused" if name in self.model.paused else "")
        self.model.paused.add(name)

    @precondition(lambda self: self.model.paused)
    @rule(number=NUMBER)
    def resume(self, number: int) -> None:
        self._resume(pick(sorted(self.model.paused), number))
        self.count("resume")

    def _resume(self, name: str) -> None:
        waiting = {
            one.id
            for one in self.model.deploys.values()
            if one.rules.name == name and (one.status, one.waits) == ("waiting", "paused")
        }
        done = self.engine.commit(lambda tx: resume_target(tx, name, ANN))
        assert not done.refusal
        assert set(done.woken) == waiting, "resume wakes all that waited for it"
        self.model.paused.discard(name)

    def resume_all(self) -> None:
        for name in sorted(self.model.paused):
            self._resume(name)

    # --- deploys

    def _deploys(self, *statuses: str) -> list[Deploy]:
        return [one for one in self.model.deploys.values() if one.status in statuses]

    @precondition(lambda self: self._deploys("waiting"))
    @rule(number=NUMBER)
    def cancel_waiting_deploy(self, number: int) -> None:
        self._cancel(pick(self._deploys("waiting"), number))
        self.count("cancel_waiting_deploy")

    @precondition(lambda self: self.model.deploys)
    @rule(number=NUMBER)
    def cancel_any_deploy(self, number: int) -> None:
        self._cancel(pick(list(self.model.deploys.values()), number))
        self.count("cancel_any_deploy")

    def _cancel(self, deploy: Deploy) -> None:
        refusals = {"waiting": "", "calling": "started"}
        done = self.engine.commit(lambda tx: cancel_deploy(tx, deploy.id, ANN))
        assert done.refusal == refusals.get(deploy.status, "gone")
        if not done.refusal:
            deploy.status = "cancelled"
        self.compare()

    @precondition(lambda self: self._deploys(*DISMISSABLE))
    @rule(number=NUMBER)
    def dismiss(self, number: int) -> None:
        deploy = pick(self._deploys(*DISMISSABLE), number)
        assert self._dismiss(deploy, " ").refusal == "untold"
        assert not self._dismiss(deploy, "looked at it").refusal
        deploy.status = "dismissed"
        self.compare()
        assert self._dismiss(deploy, "again").refusal == "undecided"
        self.count("dismiss")

    def _dismiss(self, deploy: Deploy, reason: str) -> Done:
        return self.engine.commit(lambda tx: dismiss_deploy(tx, deploy.id, ANN, reason))

    def _asked(self) -> list[Deploy]:
        return [one for one in self._deploys("waiting") if one.waits == "approval"]

    @precondition(lambda self: self._asked())
    @rule(number=NUMBER)
    def approve(self, number: int) -> None:
        deploy = pick(self._asked(), number)
        self._approve(deploy, ANN_FORCES if self.model.is_late_approval(deploy) else ANN)
        self.count("approve")

    def _answered_late(self) -> list[Deploy]:
        return [
            one
            for one in self.model.deploys.values()
            if one.asked_at
            and not one.is_approved
            and not one.replayed_by
            and (one.status == "superseded" or one.waits == "approval" == one.waits)
            and one.status in ("superseded", "waiting")
            and self.model.is_late_approval(one)
        ]

    @precondition(lambda self: self._answered_late())
    @rule(number=NUMBER, forced=st.booleans())
    def approve_late(self, number: int, forced: bool) -> None:
        self._approve(pick(self._answered_late(), number), ANN_FORCES if forced else ANN)
        self.count("approve_late")

    def _approve(self, deploy: Deploy, wish: Wish) -> None:
        is_late = self.model.is_late_approval(deploy)
        states_back = self.model.states_back(deploy)
        done = self.engine.commit(
            lambda tx: approve_deploy(tx, deploy.id, wish, self.engine.targets)
        )
        assert done.refusal == ("overtaken" if is_late and not wish.forced else "")
        assert done.consequence is not None
        assert done.consequence.states_back == states_back
        if not done.refusal and is_late:
            new = self._again(deploy, done)
            new.is_approved = True
            if deploy.status == "waiting":
                deploy.status = "superseded"
        elif not done.refusal:
            deploy.is_approved, deploy.waits = True, ""
        self.compare()

    @precondition(lambda self: self._deploys("failed", "uncertain", "cancelled", "superseded"))
    @rule(number=NUMBER, forced=st.booleans())
    def replay(self, number: int, forced: bool) -> None:
        ended = self._deploys("failed", "uncertain", "cancelled", "superseded")
        self._replay(pick(ended, number), forced=forced)
        self.count("replay")

    @precondition(lambda self: self.model.deploys)
    @rule(number=NUMBER, forced=st.booleans())
    def replay_any(self, number: int, forced: bool) -> None:
        self._replay(pick(list(self.model.deploys.values()), number), forced=forced)
        self.count("replay_any")

    def _replay(self, deploy: Deploy, *, forced: bool) -> None:
        model, wish = self.model, ANN_FORCES if forced else ANN
        refusal = model.replay_refusal(deploy, forced=forced)
        states_back, live = model.states_back(deploy), model.live(deploy)
        done = self.engine.commit(
            lambda tx: replay_deploy(tx, deploy.id, wish, self.engine.targets)
        )
        assert done.refusal == refusal, f"{done.refusal}, not {refusal}"
        if done.consequence is not None:
            told = done.consequence.live
            assert done.consequence.states_back == states_back
            assert (told and told.deploy) == (live and live.id), "another one is live"
        if not done.refusal:
            self._again(deploy, done)
        self.compare()

    def _again(self, deploy: Deploy, done: Done) -> Deploy:
        """A person had a deploy made again."""
        model = self.model
        number = row_number("deploy", done.new)
        assert number is not None
        new = Deploy(
            id=number,
            rules=deploy.rules,
            ref=deploy.ref,
            state=deploy.state,
            place=model.last_place(deploy.rules, deploy.ref, deploy.place),
            turn=deploy.turn,
            call_key=deploy.call_key,
            delivery=deploy.delivery,
            created_at=self.engine.now,
            line_at=self.engine.now,
            replay_of=deploy.id,
        )
        deploy.replayed_by = number
        model.queue(new)
        return new

    # --- deliveries

    def _deliveries(self, *, queued: bool) -> list[Delivery]:
        kept = self.model.deliveries.values()
        return [one for one in kept if (one.status == "queued") == queued]

    @precondition(lambda self: self._deliveries(queued=True))
    @rule(number=NUMBER)
    def cancel_queued_delivery(self, number: int) -> None:
        delivery = pick(self._deliveries(queued=True), number)
        done = self.engine.commit(lambda tx: cancel_delivery(tx, delivery.id, ANN))
        assert not done.refusal
        delivery.status, delivery.is_cancelled = "ignored", True
        self.compare()
        again = self.engine.commit(lambda tx: cancel_delivery(tx, delivery.id, ANN))
        assert again.refusal == "gone"
        self.count("cancel_queued_delivery")

    @precondition(lambda self: self._deliveries(queued=False))
    @rule(number=NUMBER, forced=st.booleans())
    def replay_kept_delivery(self, number: int, forced: bool) -> None:
        delivery = pick(self._deliveries(queued=False)[::-1], number)
        wish = ANN_FORCES if forced else ANN
        done = self.engine.commit(lambda tx: replay_delivery(tx, delivery.id, wish))
        if forced:
            is_queued = any(
                one.replay_of == delivery.id and one.status == "queued"
                for one in self.model.deliveries.values()
            )
            assert done.refusal == ("replaying" if is_queued else "")
        elif self._is_undone(delivery):
            assert done.refusal, "a replay that undoes something newer has to be forced"
        if not done.refusal:
            new = row_number("delivery", done.new)
            assert new is not None
            self.model.deliveries[new] = Delivery(
                new, delivery.webhook, delivery.state, "queued", delivery.turns, delivery.id
            )
        self.compare()
        self.count("replay_kept_delivery")

    def _is_undone(self, delivery: Delivery) -> bool:
        deploys = [one for one in self.model.deploys.values() if one.ref is delivery.webhook.ref]
        return any(
            one.state > delivery.state and (one.status in OPEN or one is self.model.live(one))
            for one in deploys
        )
