"""What makes a deploy wait: rates, hours, a person's approval, a pause, the breaker, its order."""

from __future__ import annotations

import itertools
from datetime import UTC, datetime, timedelta

import pytest

from config.model import Target as ConfiguredTarget
from relay.events import gate
from relay.events.ids import row_number
from relay.ledger.actions import Done, Wish
from relay.ledger.approve import approve_deploy
from relay.ledger.cancel import cancel_deploy
from relay.ledger.pause import pause_target, resume_target
from relay.ledger.transaction import Transaction
from tests.harness import Relay, Target, sha_of
from tests.workers.desk import YAML, Desk, answering, shas
from workers.runtime import project

API = ConfiguredTarget.model_validate({"preset": "http", "url": "http://a/"})


def number_of(deploy: str) -> int:
    number = row_number("deploy", deploy)
    assert number is not None
    return number


async def approve(desk: Desk, deploy: str, by: str = "lead") -> Done:
    async def work(tx: Transaction) -> Done:
        return await approve_deploy(tx, number_of(deploy), Wish(by=by), {"api": API})

    done = await desk.ledger.commit(work)
    desk.wakeups.wake_deploys(done.woken)
    return done


async def pause(desk: Desk) -> None:
    await desk.ledger.commit(lambda tx: pause_target(tx, "api", Wish(by="ops")))


async def resume(desk: Desk) -> None:
    done = await desk.ledger.commit(lambda tx: resume_target(tx, "api", Wish(by="ops")))
    desk.wakeups.wake_deploys(done.woken)


async def cancel(desk: Desk, deploy: str) -> None:
    number = number_of(deploy)
    done = await desk.ledger.commit(lambda tx: cancel_deploy(tx, number, Wish(by="ops")))
    assert done.refusal == ""
    desk.wakeups.wake_deploys(done.woken)


async def restart(desk: Desk, relay: Relay, keys: str) -> None:
    """End the worker and start another one with other keys of the target."""
    worker, _ = desk.crew.workers[-1]
    worker.shut_down()
    await desk.crew.ended(worker)
    relay.write(YAML.replace("KEYS\n", keys))
    project.cache_clear()
    desk.crew.start()


@pytest.mark.parametrize("keys", ["    rate: [2/1s, 100/d]\n"])
async def test_no_more_calls_than_the_rate_allows(desk: Desk, target: Target) -> None:
    desk.crew.start()
    words = "abcde"
    for word in words:
        await desk.push(word, branch=word)
    ends = await desk.told("deploy.succeeded", count=len(words))

    assert {line["attempt"] for line in ends} == {1}
    # Two that become free at one moment may go in either order.
    assert {line["sha"] for line in desk.lines("deploy.attempted")} == {
        sha_of(word) for word in words
    }
    moments = [moment for moment, *_ in target.calls]
    # A moment is taken when the request arrives, and calls are counted before it is sent.
    assert all(third - first > 0.9 for first, _, third in _triples(moments))
    waiting = desk.lines("deploy.waiting", sha=sha_of("e"))
    assert [line["reason"] for line in waiting] == ["rate"]
    assert waiting[0]["until"] is not None


def _triples(moments: list[float]) -> list[tuple[float, float, float]]:
    return list(zip(moments, moments[1:], moments[2:], strict=False))


@pytest.mark.parametrize("keys", ["    rate: 1/h\n    supersede: true\n"])
async def test_the_newest_of_a_branch_inherits_the_turn(desk: Desk, target: Target) -> None:
    desk.crew.start()
    await desk.push("a")
    await desk.told("deploy.succeeded")
    older = await desk.push("b")
    [waiting] = await desk.told("deploy.waiting", deploy=older)
    other = await desk.push("x", branch="x")
    [behind] = await desk.told("deploy.waiting", deploy=other)

    newer = await desk.push("c")

    [inherits] = await desk.told("deploy.waiting", deploy=newer)
    assert waiting["until"] == inherits["until"] < behind["until"]
    await desk.told("deploy.superseded", deploy=older, by=newer)
    assert len(target.calls) == 1


@pytest.mark.parametrize(
    "keys", ["    rate: 1/h\n    breaker: {failures: 1, pause: 300ms, cap: 300ms}\n"]
)
async def test_a_deploy_that_waits_for_its_rate_is_no_probe(desk: Desk, target: Target) -> None:
    target.answers = [answering(404)]
    desk.crew.start()
    await desk.push("a", branch="a")
    await desk.told("deploy.failed")
    deploy = await desk.push("b", branch="b")
    row = await desk.reaches(deploy, "waiting", "rate")
    assert row["probe"] == 0


@pytest.mark.parametrize(
    "keys", ["    retry: {attempts: 1}\n    breaker: {failures: 1, pause: 300ms, cap: 300ms}\n"]
)
async def test_the_breaker_opens_lets_one_through_and_closes(
    desk: Desk, target: Target, relay: Relay
) -> None:
    relay.write(
        (relay.folder / "relay.yaml")
        .read_text()
        .replace("    retry: {attempts: 2, base: 10ms}\n", "")
    )
    target.answers = [answering(500)]
    desk.crew.start()
    first = await desk.push("a", branch="a")
    [opened] = await desk.told("target.opened")
    assert (opened["target"], opened["reason"]) == ("api", "HTTP 500")
    assert [line["event"] for line in desk.lines("target.opened", "deploy.failed")] == [
        "target.opened",
        "deploy.failed",
    ]
    others = [await desk.push(word, branch=word) for word in "bcd"]
    [closed] = await desk.told("target.closed")
    await desk.told("deploy.succeeded", count=3)
    assert closed["target"] == "api"
    assert len(target.calls) == 4
    assert {line["deploy"] for line in desk.lines("deploy.waiting")} <= {*others}
    assert (await desk.row(first))["status"] == "failed"


async def test_a_platform_that_wants_a_pause_gets_it(desk: Desk, target: Target) -> None:
    target.answers = [answering(429, Retry_After="1")]
    desk.crew.start()
    first = await desk.push("a", branch="a")
    [held] = await desk.told("target.held")
    second = await desk.push("b", branch="b")
    [waiting] = await desk.told("deploy.waiting", deploy=second)
    await desk.told("deploy.succeeded", count=2)

    [again] = desk.lines("deploy.retry_scheduled")
    assert (again["deploy"], again["retry_after"], again["seconds"]) == (first, True, 1)
    assert (held["target"], held["reason"]) == ("api", "HTTP 429")
    assert (waiting["reason"], waiting["until"]) == ("platform", held["until"])
    early, late, _ = (moment for moment, *_ in target.calls)
    assert late - early > 0.9


TODAY = datetime.now(UTC).date()
"""Read once, so that the tests agree on it also at midnight."""


def closed_now() -> str:
    """A freeze of this day and the next one."""
    return f"{TODAY - timedelta(1)} to {TODAY + timedelta(1)}"


HOURS = f"    hours: {{zone: UTC, freeze: {closed_now()}}}\n"


@pytest.mark.parametrize("keys", [HOURS + "    supersede: true\n"])
async def test_in_a_freeze_deploys_wait_and_say_until_when(
    desk: Desk, relay: Relay, target: Target, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gate, "HOURS_LOOK", 0.5)
    over = TODAY + timedelta(2)
    desk.crew.start()

    first = await desk.push("b")
    [waiting] = await desk.told("deploy.waiting", deploy=first)
    newest = await desk.push("c")
    await desk.told("deploy.superseded", deploy=first, by=newest)
    await desk.told("deploy.waiting", deploy=newest)
    assert (waiting["reason"], waiting["until"]) == ("hours", f"{over}T00:00:00Z")

    # Hours that were changed meanwhile count from the next look on.
    await restart(desk, relay, "    supersede: true\n")
    [succeeded] = await desk.told("deploy.succeeded")

    assert (succeeded["deploy"], succeeded["attempt"]) == (newest, 1)
    assert shas(target) == [sha_of("c")]
    assert len(desk.lines("deploy.waiting", deploy=newest)) == 1


@pytest.mark.parametrize("keys", ["    approval: required\n"])
async def test_a_deploy_waits_until_somebody_approves_it(desk: Desk, target: Target) -> None:
    target.answers = [answering(503)]
    desk.crew.start()
    deploy, other = await desk.push("a", branch="a"), await desk.push("b", branch="b")
    [waiting] = await desk.told("deploy.waiting", deploy=deploy)
    assert waiting["reason"] == "approval"
    await desk.reaches(other, "waiting", "approval")
    await desk.reaches(deploy, "waiting", "approval")

    assert (await approve(desk, deploy)).refusal == ""

    [succeeded] = await desk.told("deploy.succeeded")
    assert (succeeded["deploy"], succeeded["attempt"]) == (deploy, 2)
    assert shas(target) == [sha_of("a")] * 2
    assert len(desk.lines("deploy.waiting", deploy=deploy)) == 1
    [line] = desk.lines("deploy.approved")
    assert (line["deploy"], line["by"]) == (deploy, "lead")
    await desk.reaches(other, "waiting", "approval")


@pytest.mark.parametrize("keys", ["    approval: {expires: 500ms}\n"])
async def test_a_deploy_that_nobody_approves_in_time_fails(desk: Desk, target: Target) -> None:
    desk.crew.start()
    deploy = await desk.push("a")
    [failed] = await desk.told("deploy.failed")
    [waiting] = desk.lines("deploy.waiting")
    assert failed["deploy"] == deploy
    assert failed["reason"] == f"nobody approved it until {waiting['until']}"
    assert target.calls == []


async def test_a_deploy_older_than_the_approval_that_it_needs_by_now_is_asked_for(
    desk: Desk, relay: Relay, target: Target
) -> None:
    desk.crew.start()
    await pause(desk)
    deploy = await desk.push("a")
    await desk.reaches(deploy, "waiting", "paused")
    await restart(desk, relay, "    approval: required\n")
    await resume(desk)
    await desk.told("deploy.waiting", deploy=deploy, reason="approval")
    await desk.reaches(deploy, "waiting", "approval")
    await approve(desk, deploy)
    await desk.told("deploy.succeeded", deploy=deploy)


@pytest.mark.parametrize("keys", ["    rate: 1/d\n"])
@pytest.mark.parametrize("changed", ["", "    rate: 2/d\n"])
async def test_a_rate_that_is_changed_counts_from_the_next_look_on(
    desk: Desk, relay: Relay, monkeypatch: pytest.MonkeyPatch, changed: str
) -> None:
    monkeypatch.setattr(gate, "RATE_LOOK", 0.5)
    desk.crew.start()
    await desk.push("a", branch="a")
    await desk.told("deploy.succeeded")
    deploy = await desk.push("b", branch="b")
    await desk.reaches(deploy, "waiting", "rate")
    await restart(desk, relay, changed)
    await desk.told("deploy.succeeded", deploy=deploy)
    assert len(desk.lines("deploy.waiting", deploy=deploy)) == 1


@pytest.mark.parametrize("keys", ["    rate: 1/d\n"])
async def test_what_is_cancelled_gives_its_turn_back(desk: Desk) -> None:
    desk.crew.start()
    await desk.push("a", branch="a")
    await desk.told("deploy.succeeded")
    first = await desk.push("b", branch="b")
    [waiting] = await desk.told("deploy.waiting", deploy=first)
    await desk.reaches(first, "waiting", "rate")
    await cancel(desk, first)
    second = await desk.push("c", branch="c")
    [behind] = await desk.told("deploy.waiting", deploy=second)
    assert behind["until"] == waiting["until"]


@pytest.mark.parametrize("keys", ["    debounce: {quiet: 400ms, cap: 10s}\n"])
async def test_a_branch_rests_before_it_is_deployed(desk: Desk, target: Target) -> None:
    desk.crew.start()
    deploys = [await desk.push(word) for word in "abc"]
    [succeeded] = await desk.told("deploy.succeeded")
    assert succeeded["deploy"] == deploys[-1]
    assert shas(target) == [sha_of("c")]
    assert {line["reason"] for line in desk.lines("deploy.waiting")} == {"debounce"}
    assert [line["by"] for line in desk.lines("deploy.superseded")] == deploys[1:]


async def test_a_retry_comes_before_what_came_later(desk: Desk, target: Target) -> None:
    target.answers = [answering(429, Retry_After="1")]
    desk.crew.start()
    first = await desk.push("a")
    await desk.told("deploy.retry_scheduled", deploy=first)
    second = await desk.push("b")
    await desk.push("c")
    await desk.told("deploy.succeeded", count=3)

    assert shas(target) == [sha_of(word) for word in "aabc"]
    waiting = desk.lines("deploy.waiting", deploy=second)
    assert [(line["reason"], line["behind"]) for line in waiting] == [("order", first)]


@pytest.mark.parametrize("keys", ["    concurrency: 1\n"])
async def test_what_waited_together_goes_in_the_order_of_arrival(
    desk: Desk, target: Target
) -> None:
    await pause(desk)
    desk.crew.start()
    words = "abcdef"
    for word in words:
        await desk.reaches(await desk.push(word), "waiting")
    await resume(desk)
    await desk.told("deploy.succeeded", count=len(words))
    assert shas(target) == [sha_of(word) for word in words]


@pytest.mark.parametrize("keys", ["    approval: required\n"])
async def test_who_waits_for_a_person_holds_up_nobody(desk: Desk, target: Target) -> None:
    desk.crew.start()
    deploys = [await desk.push(word) for word in "abc"]
    for deploy in deploys:
        await desk.reaches(deploy, "waiting", "approval")
    await approve(desk, deploys[1])
    [succeeded] = await desk.told("deploy.succeeded")
    assert succeeded["deploy"] == deploys[1]
    assert shas(target) == [sha_of("b")]
    [ended] = await desk.told("deploy.superseded", deploy=deploys[0])
    assert ended["by"] == deploys[1]


async def test_what_was_cancelled_or_has_failed_holds_up_nobody(desk: Desk, target: Target) -> None:
    target.answers = [answering(404)]
    desk.crew.start()
    await desk.push("a")
    await desk.told("deploy.failed")
    await pause(desk)
    second, third = await desk.push("b"), await desk.push("c")
    await desk.reaches(second, "waiting", "paused")
    await cancel(desk, second)
    await resume(desk)
    [succeeded] = await desk.told("deploy.succeeded")
    assert succeeded["deploy"] == third
    assert shas(target) == [sha_of("a"), sha_of("c")]


@pytest.mark.parametrize("keys", ["    concurrency: 2\n"])
async def test_no_more_calls_at_a_time_than_the_target_allows(desk: Desk, target: Target) -> None:
    desk.crew.start()
    for word in "abcdefgh":
        await desk.send(word, branch=word)
    await desk.told("deploy.succeeded", count=8)
    steps = [
        1 if line["event"] == "deploy.attempted" else -1
        for line in desk.lines("deploy.attempted", "deploy.succeeded")
    ]
    assert max(itertools.accumulate(steps)) <= 2
