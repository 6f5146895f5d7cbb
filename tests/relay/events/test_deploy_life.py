"""The life of a deploy: the table, walked on a real ledger; the schema and the diagram."""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from relay.events.deploy_life import (
    LIFE,
    OPEN,
    STATUSES,
    TRANSITIONS,
    WORST_FIRST,
    Status,
    Step,
    Transition,
    diagram,
    may,
)
from relay.events.ids import row_number
from relay.ledger.acceptance import accept_ledger
from relay.ledger.actions import Wish
from relay.ledger.approve import approve_deploy
from relay.ledger.cancel import cancel_deploy
from relay.ledger.dismiss import dismiss_deploy
from relay.ledger.generation import LastIds, note_behind
from relay.ledger.outcomes import Outcome, OutcomeKind
from relay.ledger.pause import pause_target
from relay.ledger.replay import replay_deploy
from relay.ledger.sqlite import FILE
from tests.relay.ledger.engine import CLAIM_SECONDS, Engine
from tests.relay.ledger.git_servers import GitServers
from tests.relay.ledger.model import Rules

ROOT = Path(__file__).parents[3]
ANN = Wish(by="ann")

RULES = {
    "web": Rules("web", newest_only=True, on_uncertain="retry"),
    "api": Rules("api", on_uncertain="hold"),
    "gated": Rules("gated", expires=3_600),
}


class Walk:
    """One deploy of one ref at a time, on a ledger of its own."""

    def __init__(self) -> None:
        self.engine = Engine()
        self.engine.begin(list(RULES.values()))
        self.git = GitServers("acme")
        self.ref = self.git.ref("main", "branch", has_clock=True, hooks=1)

    def queue(self, target: str) -> int:
        """Push and route; return the deploy."""
        self.git.push(self.ref, self.engine.now)
        stored = self.engine.store(self.ref.under_way.pop(), {}, is_wanted=True)
        routed = self.engine.route(stored.id, [(RULES[target], "")])
        assert routed is not None
        return routed.deploys[0].id

    def claim(self, deploy: int) -> str:
        """Ask for the call; return the claim."""
        asked = self.engine.claim(deploy)
        assert asked is not None
        return asked.claim

    def settle(self, deploy: int, claim: str, kind: OutcomeKind, status: Status) -> None:
        outcome = Outcome(
            deploy=deploy,
            claim=claim,
            attempt=1,
            kind=kind,
            status=status,
            again_at=self.engine.now + 1,
        )
        assert self.engine.settle(outcome).is_owner

    def called(self, kind: OutcomeKind, status: Status, target: str = "api") -> int:
        """Return a deploy whose call had this outcome."""
        deploy = self.queue(target)
        self.settle(deploy, self.claim(deploy), kind, status)
        return deploy

    def status(self, deploy: int) -> str:
        return str(self.engine.read("deploy", deploy=deploy)[0]["status"])

    def write(self, deploy: int, status: str) -> None:
        """Take a step for which there is no code yet."""
        with sqlite3.connect(self.engine.folder / FILE) as connection:
            connection.execute(
                "UPDATE deploy SET status = ?, ended_at = 1 WHERE id = ?", (status, deploy)
            )
        connection.close()


@pytest.fixture
def walk() -> Iterator[Walk]:
    world = Walk()
    yield world
    world.engine.close()


def _expire(walk: Walk) -> int:
    deploy = walk.queue("gated")
    walk.claim(deploy)
    walk.engine.now += 3_601
    walk.claim(deploy)
    return deploy


def _lose_target(walk: Walk) -> int:
    deploy = walk.queue("api")
    del walk.engine.targets["api"]
    walk.claim(deploy)
    return deploy


def _wait(walk: Walk) -> int:
    deploy = walk.queue("api")
    walk.engine.commit(lambda tx: pause_target(tx, "api", ANN))
    walk.claim(deploy)
    return deploy


def _approve(walk: Walk) -> int:
    deploy = walk.queue("gated")
    walk.claim(deploy)
    walk.engine.commit(lambda tx: approve_deploy(tx, deploy, ANN, walk.engine.targets))
    return deploy


def _cancel(walk: Walk) -> int:
    deploy = walk.queue("api")
    walk.engine.commit(lambda tx: cancel_deploy(tx, deploy, ANN))
    return deploy


def _end_ref(walk: Walk) -> int:
    deploy = walk.queue("api")
    walk.git.delete(walk.ref, walk.engine.now)
    walk.engine.store(walk.ref.under_way.pop(), {}, is_wanted=False)
    return deploy


def _replace(walk: Walk) -> int:
    deploy = walk.queue("web")
    walk.queue("web")
    return deploy


def _newer_is_called(walk: Walk) -> tuple[int, int, str]:
    """An older deploy waits for a person, who approved the newer one."""
    older = walk.queue("gated")
    walk.claim(older)
    newer = _approve(walk)
    return older, newer, walk.claim(newer)


def _overtake(walk: Walk) -> int:
    older, newer, claim = _newer_is_called(walk)
    walk.settle(newer, claim, "succeeded", "succeeded")
    return older


def _approve_late(walk: Walk) -> int:
    older, _, _ = _newer_is_called(walk)
    forced = Wish(by="ann", forced=True)
    done = walk.engine.commit(lambda tx: approve_deploy(tx, older, forced, walk.engine.targets))
    assert row_number("deploy", done.new) == older + 2
    return older


def _claim(walk: Walk) -> int:
    deploy = walk.queue("api")
    walk.claim(deploy)
    return deploy


def _reclaim(walk: Walk) -> int:
    """It is retried, but not now: its target is paused."""
    deploy = walk.queue("web")
    walk.claim(deploy)
    walk.engine.commit(lambda tx: pause_target(tx, "web", ANN))
    walk.engine.now += CLAIM_SECONDS + 1
    walk.claim(deploy)
    return deploy


def _cut_off(walk: Walk) -> int:
    deploy = walk.queue("api")
    walk.claim(deploy)
    walk.engine.now += CLAIM_SECONDS + 1
    walk.claim(deploy)
    return deploy


def _restore(walk: Walk) -> int:
    """The audit names deploys that the ledger does not have; a person accepts that."""
    deploy = walk.queue("api")
    ids = LastIds(deploy=deploy + 9)
    walk.engine.commit(lambda tx: note_behind(tx, {}, ids, frozenset()))
    walk.engine.commit(lambda tx: accept_ledger(tx, "ann", None))
    return deploy


def _dismiss(walk: Walk, deploy: int) -> int:
    walk.engine.commit(lambda tx: dismiss_deploy(tx, deploy, ANN, "looked at it"))
    return deploy


def _unknown(walk: Walk) -> int:
    deploy = walk.called("succeeded", "accepted")
    walk.write(deploy, "unknown")
    return deploy


def _followed(status: Status) -> Callable[[Walk], int]:
    def take(walk: Walk) -> int:
        deploy = walk.called("succeeded", "accepted")
        assert walk.status(deploy) == "accepted"
        walk.write(deploy, status)
        return deploy

    return take


WAYS: dict[tuple[Status | None, Step, Status, str], Callable[[Walk], int]] = {
    (None, Step.QUEUE, "waiting", "routing"): lambda walk: walk.queue("api"),
    ("waiting", Step.CLAIM, "calling", "worker"): _claim,
    ("waiting", Step.WAIT, "waiting", "worker"): _wait,
    ("waiting", Step.APPROVE, "waiting", "person"): _approve,
    ("waiting", Step.EXPIRE, "failed", "worker"): _expire,
    ("waiting", Step.FAIL, "failed", "worker"): _lose_target,
    ("waiting", Step.CANCEL, "cancelled", "person"): _cancel,
    ("waiting", Step.DOUBT, "uncertain", "person"): _restore,
    ("waiting", Step.SUPERSEDE, "superseded", "receiver"): _end_ref,
    ("waiting", Step.SUPERSEDE, "superseded", "routing"): _replace,
    ("waiting", Step.SUPERSEDE, "superseded", "worker"): _overtake,
    ("waiting", Step.SUPERSEDE, "superseded", "person"): _approve_late,
    ("calling", Step.SUCCEED, "succeeded", "worker"): lambda w: w.called("succeeded", "succeeded"),
    ("calling", Step.ACCEPT, "accepted", "worker"): lambda w: w.called("succeeded", "accepted"),
    ("calling", Step.FAIL, "failed", "worker"): lambda w: w.called("failed", "failed"),
    ("calling", Step.RETRY, "waiting", "worker"): lambda w: w.called("retry", "waiting"),
    ("calling", Step.DOUBT, "uncertain", "worker"): lambda w: w.called("uncertain", "uncertain"),
    ("calling", Step.RECLAIM, "waiting", "sweep"): _reclaim,
    ("calling", Step.DOUBT, "uncertain", "sweep"): _cut_off,
    ("accepted", Step.FINISH, "succeeded", "worker"): _followed("succeeded"),
    ("accepted", Step.BREAK, "failed", "worker"): _followed("failed"),
    ("accepted", Step.CANCEL, "cancelled", "worker"): _followed("cancelled"),
    ("accepted", Step.SUPERSEDE, "superseded", "worker"): _followed("superseded"),
    ("accepted", Step.LOSE, "unknown", "worker"): _followed("unknown"),
    ("failed", Step.DISMISS, "dismissed", "person"): lambda w: _dismiss(
        w, w.called("failed", "failed")
    ),
    ("uncertain", Step.DISMISS, "dismissed", "person"): lambda w: _dismiss(
        w, w.called("uncertain", "uncertain")
    ),
    ("unknown", Step.DISMISS, "dismissed", "person"): lambda w: _dismiss(w, _unknown(w)),
}


@pytest.mark.parametrize("arrow", TRANSITIONS, ids=lambda a: f"{a.source}-{a.step}-{a.by}")
def test_each_step_can_be_taken(arrow: Transition, walk: Walk) -> None:
    deploy = WAYS[arrow.source, arrow.step, arrow.goal, arrow.by](walk)

    assert walk.status(deploy) == arrow.goal
    assert may(arrow.source, arrow.step, arrow.goal)
    row = walk.engine.read("deploy", deploy=deploy)[0]
    assert (row["ended_at"] is not None) == LIFE[arrow.goal].has_ended
    assert (row["next_at"] is not None) == (arrow.goal in OPEN)


@pytest.mark.parametrize("status", STATUSES)
def test_the_schema_knows_each_status_and_no_other(status: Status, walk: Walk) -> None:
    deploy = walk.called("failed", "failed")
    with sqlite3.connect(walk.engine.folder / FILE) as connection:
        connection.execute(
            "UPDATE deploy SET status = ?, next_at = iif(? IN ('waiting', 'calling'), 1, NULL), "
            "claim = iif(? = 'calling', 'claim', NULL) WHERE id = ?",
            (status, status, status, deploy),
        )
        with pytest.raises(sqlite3.IntegrityError):
            connection.execute("UPDATE deploy SET status = 'held' WHERE id = ?", (deploy,))
    connection.close()
    assert walk.status(deploy) == status


def test_what_people_may_do_follows_from_the_table() -> None:
    for status, stage in LIFE.items():
        assert stage.is_dismissable == may(status, Step.DISMISS, "dismissed")
        assert stage.is_approvable == may(status, Step.APPROVE, "waiting")
        assert not (stage.is_open and stage.has_ended)
        assert not (stage.is_replayable and not stage.has_ended), "a replay needs an end"
    assert sorted(WORST_FIRST) == sorted(STATUSES)


@pytest.mark.parametrize("status", ["superseded", "succeeded"])
def test_a_replay_is_a_deploy_of_its_own(status: Status, walk: Walk) -> None:
    deploy = walk.called("succeeded", "succeeded")
    walk.write(deploy, status)
    targets = walk.engine.targets
    refused = walk.engine.commit(lambda tx: replay_deploy(tx, deploy, ANN, targets))
    assert refused.refusal == "succeeded"

    forced = Wish(by="ann", forced=True)
    done = walk.engine.commit(lambda tx: replay_deploy(tx, deploy, forced, targets))
    new = row_number("deploy", done.new)
    assert new is not None
    assert walk.status(deploy) == status
    assert walk.status(new) == "waiting"


def test_the_diagram_in_the_documents_is_the_tables() -> None:
    text = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    drawn = re.findall(r"```mermaid\n(stateDiagram-v2.*?)\n```", text, re.DOTALL)

    assert drawn == [diagram()]
