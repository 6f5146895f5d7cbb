"""The order machine: pushes, faults and answers in any order, against real processes.

The model imports nothing of the project. It knows what each branch stands at, and that is all: when
everything has calmed down, the last call that a target answered with success for a branch is the
newest state of that branch. Each example has a repository of its own; the processes live on.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import Any, ClassVar

from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, initialize, precondition, rule

from tests.faults.order_platform import AnswerKind
from tests.faults.order_world import PATIENCE, TARGETS, World

NO_COMMIT = "0" * 40

TICK = 10
"""Seconds of the git server's clock between two changes, so that it tells their order."""

ANSWERS: tuple[AnswerKind, ...] = ("500", "502", "503", "429", "slow", "silent")

FAULTS = ("freeze", "kill", "flush", "redis stopped", "429", "silent")
"""What has to happen in a run at least once each."""

_repositories = itertools.count(1)


@dataclass(frozen=True)
class Webhook:
    """A request that a git server sends."""

    body: bytes
    delivery: str


@dataclass
class Branch:
    """What a branch stands at, and stood at."""

    ref: str
    values: list[str] = field(default_factory=list)
    """Commits, and empty texts where it did not exist; the newest last."""

    @property
    def value(self) -> str:
        """Where it stands; empty where it does not exist."""
        return self.values[-1] if self.values else ""

    def commits(self) -> list[str]:
        """The commits that it stood at."""
        return [value for value in self.values if value]


class OrderMachine(RuleBasedStateMachine):
    """One repository on one git server, whose webhooks come in any order."""

    world: ClassVar[World]
    happened: ClassVar[Counter[str]] = Counter()
    steps: ClassVar[int] = 0
    examples: ClassVar[int] = 0

    sent = Bundle("sent")

    @initialize()
    def begin(self) -> None:
        """Take a repository that nobody has used."""
        type(self).examples += 1
        self.repo = f"acme/r{next(_repositories)}"
        self.branches = {name: Branch(f"refs/heads/{name}") for name in ("main", "topic")}
        self.clock = int(time.time())
        self.commits = 0
        self.deliveries = 0
        self.delayed: list[Webhook] = []
        self.disturbances = 0
        """Calls that may be made twice, because nobody can know their outcome."""

    @rule(target=sent, name=st.sampled_from(["main", "topic"]))
    def push(self, name: str) -> Webhook:
        """A new commit on a branch, which is made if it does not exist."""
        return self._send(self._move(name, self._commit()))

    @rule(target=sent, name=st.sampled_from(["main", "topic"]), data=st.data())
    def move_back(self, name: str, data: Any) -> Webhook:
        """A forced push to a commit where the branch stood before, or to a new one."""
        before = self.branches[name].commits()
        value = data.draw(st.sampled_from(before)) if before else self._commit()
        if value == self.branches[name].value:
            value = self._commit()
        return self._send(self._move(name, value, forced=True))

    @rule(target=sent, name=st.sampled_from(["main", "topic"]))
    def delete(self, name: str) -> Webhook:
        """The branch is deleted; made first where it does not exist."""
        if not self.branches[name].value:
            return self._send(self._move(name, self._commit()))
        return self._send(self._move(name, ""))

    @rule(target=sent, name=st.sampled_from(["main", "topic"]))
    def restore(self, name: str) -> Webhook:
        """The branch is made again where it stood last."""
        branch = self.branches[name]
        commits = branch.commits()
        if branch.value or not commits:
            return self._send(self._move(name, self._commit()))
        return self._send(self._move(name, commits[-1]))

    @rule(webhook=sent)
    def redeliver(self, webhook: Webhook) -> None:
        """The same request again."""
        self._deliver(webhook)

    @rule(webhook=sent)
    def second_hook(self, webhook: Webhook) -> None:
        """Another webhook of the repository tells of the same change, under an id of its own."""
        body = json.loads(webhook.body)
        body["organization"] = {"login": "acme"}
        self._deliver(Webhook(json.dumps(body).encode(), self._delivery_id()))

    @rule(name=st.sampled_from(["main", "topic"]))
    def push_without_webhook_yet(self, name: str) -> None:
        """A push whose webhook is late."""
        self.delayed.append(self._move(name, self._commit()))

    @precondition(lambda self: self.delayed)
    @rule(target=sent, data=st.data())
    def late_webhook(self, data: Any) -> Webhook:
        """One of the late webhooks comes."""
        place = data.draw(st.integers(0, len(self.delayed) - 1))
        return self._send(self.delayed.pop(place))

    @rule(kinds=st.lists(st.sampled_from(ANSWERS), min_size=1, max_size=3))
    def plan_answers(self, kinds: list[AnswerKind]) -> None:
        """The platform will answer the next calls like this."""
        for kind in kinds:
            self.world.platform.plan(self.repo, kind)
            if kind in FAULTS:
                self.happened[kind] += 1
            # A call without an answer may be made again.
            self.disturbances += kind == "silent"

    @precondition(lambda self: self.disturbances < 6)
    @rule(target=sent, name=st.sampled_from(["main", "topic"]))
    def kill_in_a_call(self, name: str) -> Webhook:
        """Both workers are killed while the platform has a call of theirs."""
        webhook = self._send_and_hold(name)
        self.world.kill_workers()
        self.world.platform.let_go()
        self._count("kill", calls=2)
        return webhook

    @precondition(lambda self: self.disturbances < 6)
    @rule(target=sent, name=st.sampled_from(["main", "topic"]))
    def freeze_in_a_call(self, name: str) -> Webhook:
        """Both workers stand still for longer than a claim holds, one of them in a call."""
        webhook = self._send_and_hold(name)
        self.world.freeze_workers()
        self.world.platform.let_go()
        self._count("freeze", calls=2)
        return webhook

    @rule()
    def flush_redis(self) -> None:
        """Redis forgets everything."""
        if not self.world.is_redis_away:
            self.world.flush()
            self._count("flush")

    @precondition(lambda self: not self.world.is_redis_away)
    @rule()
    def stop_redis(self) -> None:
        """Redis goes away."""
        self.world.stop_redis()
        self._count("redis stopped")

    @precondition(lambda self: self.world.is_redis_away)
    @rule()
    def start_redis(self) -> None:
        """Redis comes back, empty."""
        self.world.start_redis()

    def teardown(self) -> None:
        """Let everything calm down, and compare what is live with where the branches stand."""
        if not hasattr(self, "repo"):
            return
        for webhook in self.delayed:
            self._deliver(webhook)
        self.world.settle()
        for branch in self.branches.values():
            for target in TARGETS:
                self._compare(branch, target)

    def _compare(self, branch: Branch, target: str) -> None:
        platform = self.world.platform
        if branch.value:
            live = platform.last_success(target, self.repo, branch.ref)
            where = f"{target}: {branch.ref} stands at {branch.value[:8]}"
            assert live == branch.value, f"{where}, {live[:8] or 'nothing'} is live"
        for commit in set(branch.commits()):
            made = platform.successes(target, self.repo, branch.ref, commit)
            possible = branch.values.count(commit) + self.disturbances
            assert made <= possible, f"{target}: {commit[:8]} was deployed {made} times"

    def _send(self, webhook: Webhook) -> Webhook:
        self._deliver(webhook)
        return webhook

    def _send_and_hold(self, name: str) -> Webhook:
        """A push whose call the platform holds."""
        platform = self.world.platform
        platform.hold_next(self.repo)
        webhook = self._send(self._move(name, self._commit()))
        assert platform.held.wait(PATIENCE), "the platform was not called"
        return webhook

    def _deliver(self, webhook: Webhook) -> None:
        type(self).steps += 1
        self.world.send(webhook.body, webhook.delivery)

    def _count(self, fault: str, *, calls: int = 0) -> None:
        type(self).steps += 1
        self.happened[fault] += 1
        self.disturbances += calls

    def _move(self, name: str, value: str, *, forced: bool = False) -> Webhook:
        """Move a branch on the git server, and return the webhook that tells of it."""
        branch = self.branches[name]
        before = branch.value
        branch.values.append(value)
        self.clock += TICK
        commit = {"id": value, "message": "Change it", "added": [], "modified": [], "removed": []}
        body = {
            "ref": branch.ref,
            "before": before or NO_COMMIT,
            "after": value or NO_COMMIT,
            "created": not before,
            "deleted": not value,
            "forced": forced,
            "commits": [commit] if value else [],
            "head_commit": commit if value else None,
            "repository": {
                "full_name": self.repo,
                "id": int(self.repo.removeprefix("acme/r")),
                "pushed_at": self.clock,
            },
            "sender": {"login": "ada"},
        }
        return Webhook(json.dumps(body).encode(), self._delivery_id())

    def _commit(self) -> str:
        self.commits += 1
        text = f"{self.repo} {self.commits}"
        return hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest()

    def _delivery_id(self) -> str:
        self.deliveries += 1
        return f"{self.repo.replace('/', '-')}-{self.deliveries}"


def scripted(fault: str) -> None:
    """Run one example in which a fault happens for certain."""
    machine = OrderMachine()
    machine.begin()
    machine.push("main")
    if fault == "freeze":
        machine.freeze_in_a_call("main")
    elif fault == "kill":
        machine.kill_in_a_call("main")
    elif fault == "flush":
        machine.flush_redis()
    elif fault == "redis stopped":
        machine.stop_redis()
    else:
        machine.plan_answers(["429" if fault == "429" else "silent"])
    machine.push("main")
    machine.teardown()
