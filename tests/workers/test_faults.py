"""What a killed, frozen or cut off worker, and a Redis that is away or emptied, lead to."""

from __future__ import annotations

import asyncio
import signal
import sys
from pathlib import Path

import pytest
import redis
from aiohttp import web

from relay.errors import LedgerUnavailable
from relay.ledger.sqlite import SQLiteWriter
from tests.harness import COMMAND, Process, Relay, Target, sha_of, until
from tests.workers.desk import Desk, answering, shas

QUEUE = "deploy-relay"


@pytest.fixture
def relay_env(relay: Relay, data_dir: Path) -> Relay:
    """The project of the processes, whose claims are short."""
    return Relay(
        relay.folder,
        {
            **relay.environ,
            "RELAY_DATA_DIR": str(data_dir),
            "RELAY_TEST_CLAIM_MARGIN": "0.5",
            "RELAY_CONFIG": str(relay.folder / "relay.yaml"),
            "PYTHONPATH": str(Path(__file__).parents[2]),
        },
        relay.processes,
    )


async def work(relay: Relay) -> Process:
    worker = await relay.start(*COMMAND, "worker")
    await worker.wait_for("worker.started")
    return worker


@pytest.mark.parametrize("keys", ["    timeout: 500ms\n    on_uncertain: retry\n"])
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGSTOP])
async def test_a_worker_that_is_cut_off_in_a_call_leaves_it_uncertain(
    desk: Desk, target: Target, relay_env: Relay, how: signal.Signals
) -> None:
    release = asyncio.Event()

    async def hold(_: web.Request) -> web.StreamResponse:
        await release.wait()
        return web.Response()

    target.answers = [hold]
    target.answer = answering(200)
    first = await work(relay_env)
    await desk.send("a")
    await target.called.wait()
    first.process.send_signal(how)
    second = await work(relay_env)
    [line] = await second.wait_for("deploy.uncertain")
    await second.wait_for("deploy.succeeded")
    release.set()

    assert line["reason"] == "attempt 1 was cut off before its answer came"
    assert (line["on_uncertain"], line["attempt"]) == ("retry", 1)
    assert len(target.calls) == 2
    if how == signal.SIGSTOP:
        first.process.send_signal(signal.SIGCONT)
        await first.wait_for("deploy.answered_late")
        assert (await desk.row("deploy-1"))["status"] == "succeeded"
        assert len(target.calls) == 2


@pytest.mark.parametrize("keys", ["    timeout: 500ms\n    on_uncertain: hold\n"])
async def test_an_uncertain_call_that_is_held_waits_for_a_person(
    desk: Desk, target: Target, relay_env: Relay
) -> None:
    async def never(_: web.Request) -> web.StreamResponse:
        await asyncio.sleep(60)
        return web.Response()

    target.answer = never
    first = await work(relay_env)
    await desk.send("a")
    await target.called.wait()
    await first.stop(signal.SIGKILL)
    second = await work(relay_env)
    await second.wait_for("deploy.failed")
    assert (await desk.row("deploy-1"))["status"] == "uncertain"
    assert len(target.calls) == 1


async def test_stock_worker_runs_the_same_jobs(
    desk: Desk, target: Target, relay_env: Relay, store: redis.Redis
) -> None:
    target.answer = answering(200)
    await desk.send("a")
    await until(lambda: store.llen(f"rq:queue:{QUEUE}") == 1)
    command = [sys.executable, "-m", "rq.cli", "worker", "-S", "json", "--burst", "-u"]
    worker = await relay_env.start(*command, relay_env.environ["RELAY_REDIS_URL"], QUEUE)
    async with asyncio.timeout(30):
        await worker.process.wait()
    assert shas(target) == [sha_of("a")]
    assert (await desk.row("deploy-1"))["status"] == "succeeded"
    assert store.llen(f"rq:queue:{QUEUE}") == 0
    assert not store.keys("rq:job:*")


async def test_redis_is_away(desk: Desk, target: Target, relay_env: Relay, tmp_path: Path) -> None:
    target.answers = [answering(503)]
    target.answer = answering(200)
    nowhere = {**relay_env.environ, "RELAY_REDIS_URL": f"unix://{tmp_path}/nobody.sock"}
    alone = Relay(relay_env.folder, nowhere, relay_env.processes)
    worker = await work(alone)
    [waiting] = worker.find("worker.waiting")
    assert "Redis does not answer" in waiting["reason"]
    await desk.send("a", wake=False)
    await worker.wait_for("deploy.succeeded")
    assert shas(target) == [sha_of("a")] * 2
    assert await worker.stop() == 0


async def test_redis_is_emptied(desk: Desk, target: Target, store: redis.Redis) -> None:
    target.answer = answering(200)
    desk.crew.start()
    await desk.push("a")
    await until(lambda: store.exists(f"relay:{QUEUE}:mark"))
    await asyncio.to_thread(store.flushall)
    await desk.send("b", wake=False)
    [line] = await desk.told("queue.rebuilt")
    await desk.told("deploy.succeeded", count=2)
    assert line["jobs"] in (0, 1)
    await until(lambda: store.exists(f"relay:{QUEUE}:mark"))
    await desk.push("c")
    assert len(desk.lines("queue.rebuilt")) == 1


async def test_redis_refuses_writes(desk: Desk, target: Target, store: redis.Redis) -> None:
    target.answer = answering(200)
    desk.crew.start()
    await desk.push("a")
    store.config_set("min-replicas-to-write", 1)
    try:
        for word in "bcd":
            await desk.send(word)
        await desk.told("deploy.succeeded", count=4)
    finally:
        store.config_set("min-replicas-to-write", 0)
    await desk.push("e")
    await desk.told("deploy.succeeded", count=5)
    assert shas(target) == [sha_of(word) for word in "abcde"]


async def test_outcome_whose_commit_did_not_answer_in_time_is_told_as_it_was(
    desk: Desk, target: Target, monkeypatch: pytest.MonkeyPatch
) -> None:
    really = SQLiteWriter.commit
    lost: list[int] = []

    async def commit(writer: SQLiteWriter, patience: float) -> None:
        await really(writer, patience)
        rows = writer._connection.execute("SELECT id FROM deploy WHERE status = 'succeeded'")
        if rows.fetchall() and not lost:
            lost.append(1)
            raise LedgerUnavailable("the ledger's disk does not answer")

    monkeypatch.setattr(SQLiteWriter, "commit", commit)
    target.answer = answering(200)
    desk.crew.start()
    deploy = await desk.push("a")

    [line] = await desk.told("deploy.succeeded", "deploy.answered_late")
    assert lost
    assert (line["event"], line["deploy"]) == ("deploy.succeeded", deploy)
    assert len(target.calls) == 1
