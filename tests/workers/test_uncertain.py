"""Calls of which nobody knows whether the platform took them: held, or made again, as told."""

from __future__ import annotations

import asyncio

import pytest
from aiohttp import web
from rq.command import send_stop_job_command
from rq.serializers import JSONSerializer

from tests.harness import Target, sha_of, until
from tests.workers.desk import Desk, answering, shas

IMPATIENT = "    timeout: 200ms\n"
AGAIN = IMPATIENT + "    on_uncertain: retry\n"
HOLD = IMPATIENT + "    on_uncertain: hold\n"

NO_DECISION = "the platform may have deployed, so it is not called again without a human decision"


async def never(_: web.Request) -> web.StreamResponse:
    await asyncio.Event().wait()
    return web.Response()


@pytest.mark.parametrize("keys", [HOLD])
async def test_no_answer_in_time_is_held(desk: Desk, target: Target) -> None:
    target.answer = never
    desk.crew.start()
    deploy = await desk.push("a")
    [failed] = await desk.told("deploy.failed")

    [told] = desk.lines("deploy.uncertain")
    assert (told["attempt"], told["reason"], told["on_uncertain"], told["status"]) == (
        *(1, "no answer in time", "hold"),
        None,
    )
    assert failed["reason"] == f"no answer in time; {NO_DECISION}"
    row = await desk.reaches(deploy, "uncertain")
    assert row["reason"] == failed["reason"]
    assert len(target.calls) == 1


@pytest.mark.parametrize("keys", [AGAIN, IMPATIENT])
async def test_no_answer_in_time_is_tried_again(desk: Desk, target: Target) -> None:
    target.answers, target.answer = [never], answering(200)
    desk.crew.start()
    await desk.push("a")
    [succeeded] = await desk.told("deploy.succeeded")
    [told] = desk.lines("deploy.uncertain")
    assert (told["attempt"], told["on_uncertain"], succeeded["attempt"]) == (1, "retry", 2)
    assert desk.lines("deploy.failed") == []


@pytest.mark.parametrize("keys", ["    timeout: 500ms\n"])
async def test_what_is_no_longer_the_newest_is_held_by_default(desk: Desk, target: Target) -> None:
    target.answers, target.answer = [never], answering(200)
    desk.crew.start()
    first = await desk.push("a")
    await target.called.wait()
    await desk.push("b")
    [told] = await desk.told("deploy.uncertain")
    await desk.told("deploy.succeeded")
    assert (told["deploy"], told["on_uncertain"]) == (first, "hold")
    assert shas(target) == [sha_of("a"), sha_of("b")]


@pytest.mark.parametrize("keys", [AGAIN])
async def test_the_last_attempt_is_held(desk: Desk, target: Target) -> None:
    target.answer = never
    desk.crew.start()
    deploy = await desk.push("a")
    [failed] = await desk.told("deploy.failed")
    words = "no answer in time; attempt 2 was the last, and the platform may have deployed"
    assert failed["reason"] == words
    await desk.reaches(deploy, "uncertain")
    assert len(target.calls) == 2


async def test_connection_that_did_not_come_about_is_not_uncertain(
    desk: Desk, target: Target, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TEST_API_URL", "http://127.0.0.1:1/secret-path")
    desk.crew.start()
    await desk.push("a")
    [failed] = await desk.told("deploy.failed")
    assert failed["reason"].startswith("connection failed")
    assert desk.lines("deploy.uncertain") == []
    assert len(desk.lines("deploy.attempted")) == 2


async def test_a_target_that_may_not_be_called_fails_and_tells_nothing_of_it(
    desk: Desk, target: Target, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RELAY_ALLOWED_NETWORKS", "")
    desk.crew.start()
    deploy = await desk.push("a")
    [failed] = await desk.told("deploy.failed")
    assert failed["reason"].startswith("the target's address is refused: loopback")
    assert (await desk.row(deploy))["failures"] == 0


async def test_rq_stop_command_makes_a_call_uncertain(desk: Desk, target: Target) -> None:
    release = asyncio.Event()

    async def hold(_: web.Request) -> web.StreamResponse:
        await release.wait()
        return web.Response()

    target.answer = hold
    desk.crew.start()
    stopped, other = await desk.push("a", branch="a"), await desk.push("b", branch="b")
    store = desk.crew.store
    await until(lambda: store.hget(f"rq:job:{stopped}", "worker_name"))

    send_stop_job_command(store, stopped, serializer=JSONSerializer)

    [told] = await desk.told("deploy.uncertain")
    assert (told["deploy"], told["on_uncertain"]) == (stopped, "hold")
    await desk.reaches(stopped, "uncertain")
    release.set()
    await desk.told("deploy.succeeded", deploy=other)
    assert len(target.calls) == 2
    await until(lambda: not store.keys("rq:job:*"))
