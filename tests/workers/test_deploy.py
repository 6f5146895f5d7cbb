"""A deploy from its delivery to its outcome, by our worker, on a real ledger."""

from __future__ import annotations

import pytest

from tests.harness import Target, sha_of
from tests.workers.desk import Desk, answering, shas


async def test_a_push_is_deployed_and_told(desk: Desk, target: Target) -> None:
    target.answer = answering(200)
    desk.crew.start()
    deploy = await desk.push("a")
    [line] = await desk.told("deploy.succeeded")

    assert deploy == "deploy-1"
    assert line["deploy"] == deploy
    assert line["delivery"] == "delivery-1"
    assert (line["attempt"], line["status"], line["live"]) == (1, 200, "")
    assert [
        one["event"]
        for one in desk.lines(
            "route.matched", "deploy.queued", "deploy.attempted", "deploy.succeeded"
        )
    ] == [
        "route.matched",
        "deploy.queued",
        "deploy.attempted",
        "deploy.succeeded",
    ]
    row = await desk.reaches(deploy, "succeeded")
    assert (row["http"], row["attempt"], row["tries"]) == (200, 1, 1)
    key = f"{deploy}-{row['created_at']}"
    assert [headers["Idempotency-Key"] for _, _, _, headers, _ in target.calls] == [key]


async def test_a_failed_call_is_made_again(desk: Desk, target: Target) -> None:
    target.answers = [answering(503), answering(200)]
    desk.crew.start()
    deploy = await desk.push("a")
    [line] = await desk.told("deploy.succeeded")
    assert line["attempt"] == 2
    [again] = desk.lines("deploy.retry_scheduled")
    assert (again["reason"], again["status"], again["retry_after"]) == ("HTTP 503", 503, False)
    assert (await desk.row(deploy))["tries"] == 2


async def test_after_the_last_attempt_it_fails(desk: Desk, target: Target) -> None:
    target.answer = answering(500)
    desk.crew.start()
    deploy = await desk.push("a")
    [line] = await desk.told("deploy.failed")
    assert line["reason"] == "HTTP 500; attempt 2 was the last"
    assert (await desk.row(deploy))["status"] == "failed"
    assert len(target.calls) == 2


async def test_pushes_are_called_in_order(desk: Desk, target: Target) -> None:
    target.answers = [answering(503)]
    target.answer = answering(200)
    for word in "abcd":
        await desk.send(word)
    desk.crew.start()
    await desk.told("deploy.succeeded", count=4)
    assert shas(target) == [sha_of(word) for word in "aabcd"]


@pytest.mark.parametrize("keys", ["    supersede: true\n"])
async def test_where_the_newest_counts_the_others_are_superseded(
    desk: Desk, target: Target
) -> None:
    for word in "abc":
        await desk.send(word, wake=False)
    desk.wakeups.wake_deliveries(1, 3)
    desk.crew.start(jobs_in_flight=1)
    await desk.told("deploy.succeeded")
    assert shas(target)[-1] == sha_of("c")
    ended = await desk.told("deploy.superseded", count=4 - len(target.calls) - 0 - 1)
    assert all(line["by"] for line in ended)
