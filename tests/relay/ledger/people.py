"""Rules of the first state machine: what people do."""

from __future__ import annotations

from hypothesis import strategies as st
from hypothesis.stateful import rule

from relay.events.ids import row_number
from relay.ledger.actions import Done, Wish
from relay.ledger.approve import approve_deploy
from relay.ledger.cancel import cancel_delivery, cancel_deploy
from relay.ledger.dismiss import dismiss_deploy
from relay.ledger.pause import pause_target, resume_target
from relay.ledger.replay import replay_delivery, replay_deploy
from tests.relay.ledger.answers import Answers
from tests.relay.ledger.example import pick
from tests.relay.ledger.git_servers import Ref
from tests.relay.ledger.model import DISMISSABLE, OPEN, Delivery, Deploy
from tests.relay.ledger.pushes import NUMBER

ANN = Wish(by="ann")
ANN_FORCES = Wish(by="ann", forced=True)


class People(Answers):
    """The rules."""

    # --- targets

    @rule(number=NUMBER)
    def pause(self, number: int) -> None:
        self._pause(pick(self.model.rules, number).name)
        self.count("pause")

    def _pause(self, name: str) -> None:
        done = self.engine.commit(lambda tx: pause_target(tx, name, ANN))
        assert done.refusal == ("paused" if name in self.model.paused else "")
        self.model.paused.add(name)

    @rule(number=NUMBER)
    def resume(self, number: int) -> None:
        if not self.model.paused:
            self._pause(pick(self.model.rules, number).name)
            self.work_once()
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
        assert set(done.woken) <= waiting <= set(self.engine.due_deploys()), "resume wakes all"
        self.model.paused.discard(name)

    def resume_all(self) -> None:
        for name in sorted(self.model.paused):
            self._resume(name)

    # --- deploys

    def _deploys(self, *statuses: str) -> list[Deploy]:
        return [one for one in self.model.deploys.values() if one.status in statuses]

    def _bring_deploys(self, number: int) -> list[Deploy]:
        """Return all deploys; a push brings some where there are none."""
        if not self.model.deploys:
            self.push_to(pick(self.refs, number))
            self.arrive_everything()
            for delivery in self.engine.due_deliveries():
                self.route(self.model.deliveries[delivery])
        return list(self.model.deploys.values())

    @rule(number=NUMBER)
    def cancel_a_deploy(self, number: int) -> None:
        deploys = self._bring_deploys(number)
        self._cancel(pick(self._deploys("waiting") or deploys, number))
        self.count("cancel_a_deploy")

    @rule(number=NUMBER)
    def cancel_any_deploy(self, number: int) -> None:
        self._cancel(pick(self._bring_deploys(number), number))
        self.count("cancel_any_deploy")

    def _cancel(self, deploy: Deploy) -> None:
        refusals = {"waiting": "", "calling": "started"}
        done = self.engine.commit(lambda tx: cancel_deploy(tx, deploy.id, ANN))
        assert done.refusal == refusals.get(deploy.status, "gone")
        if not done.refusal:
            deploy.status = "cancelled"
        self.compare()

    @rule(number=NUMBER)
    def dismiss(self, number: int) -> None:
        if not self._deploys(*DISMISSABLE):
            call = self.bring_call(number)
            if call is not None:
                self.refuse(call)
        if not self._deploys(*DISMISSABLE):
            return
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

    def _bring_asked(self, ref: Ref) -> list[Deploy]:
        """Return deploys that wait for approval; a push brings some if a target asks for it."""
        if not self._asked() and any(one.expires for one in self.model.rules):
            self.push_to(ref)
            self.arrive_everything()
            self.work_once()
        return self._asked()

    @rule(number=NUMBER)
    def approve(self, number: int) -> None:
        asked = self._bring_asked(self.refs[0])
        if asked:
            deploy = pick(asked, number)
            self._approve(deploy, ANN_FORCES if self.model.is_late_approval(deploy) else ANN)
            self.count("approve")

    def _too_late(self) -> list[Deploy]:
        return [
            one
            for one in self._deploys("superseded", "waiting")
            if one.asked_at
            and not one.is_approved
            and not one.replayed_by
            and (one.status == "superseded" or one.waits == "approval")
            and self.model.is_late_approval(one)
        ]

    @rule(number=NUMBER, forced=st.booleans())
    def approve_late(self, number: int, forced: bool) -> None:
        """A newer one was approved and called before."""
        if not self._too_late() and self._bring_asked(self.refs[0]):
            asked = pick(self._asked(), number)
            if asked.ref is not self.pull:
                self.push_to(asked.ref)
            self.arrive_everything()
            self.work_once()
            newest = self._asked()[-1:]
            if newest and not self.model.is_late_approval(newest[0]):
                self._approve(newest[0], ANN)
                self.work_once()
        if self._too_late():
            self._approve(pick(self._too_late(), number), ANN_FORCES if forced else ANN)
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

    @rule(number=NUMBER, forced=st.booleans())
    def replay_ended_deploy(self, number: int, forced: bool) -> None:
        deploys = self._bring_deploys(number)
        ended = self._deploys("failed", "uncertain", "cancelled", "superseded")
        self._replay(pick(ended or deploys, number), forced=forced)
        self.count("replay_ended_deploy")

    @rule(number=NUMBER, forced=st.booleans())
    def replay_any_deploy(self, number: int, forced: bool) -> None:
        self._replay(pick(self._bring_deploys(number), number), forced=forced)
        self.count("replay_any_deploy")

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

    @rule(number=NUMBER)
    def cancel_queued_delivery(self, number: int) -> None:
        self.bring_deliveries()
        delivery = pick(self._deliveries(queued=True), number)
        done = self.engine.commit(lambda tx: cancel_delivery(tx, delivery.id, ANN))
        assert not done.refusal
        delivery.status, delivery.is_cancelled = "ignored", True
        self.compare()
        again = self.engine.commit(lambda tx: cancel_delivery(tx, delivery.id, ANN))
        assert again.refusal == "gone"
        self.count("cancel_queued_delivery")

    @rule(number=NUMBER, forced=st.booleans())
    def replay_kept_delivery(self, number: int, forced: bool) -> None:
        self._bring_deploys(number)
        if not self._deliveries(queued=False):
            return
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
