"""What RQ shows of a worker and asks of it: state, suspension, commands, the end."""

from __future__ import annotations

import asyncio

import pytest
from aiohttp import web
from rq import Worker
from rq.command import send_kill_horse_command, send_shutdown_command
from rq.suspension import resume, suspend

from relay import audit
from relay.errors import AuditUnavailable
from tests.harness import Target, sha_of, until
from tests.workers.desk import Desk, answering, shas

LIST = "rq:queue:deploy-relay"


class Gate:
    """A target's answer that waits until it is opened."""

    def __init__(self) -> None:
        self.open = asyncio.Event()

    async def __call__(self, _: web.Request) -> web.StreamResponse:
        await self.open.wait()
        return web.Response()


@pytest.fixture
def gate(target: Target) -> Gate:
    target.answer = gate = Gate()
    return gate


async def called(target: Target, count: int) -> None:
    await until(lambda: len(target.calls) == count)


async def test_as_many_as_asked_for_run_at_once_and_no_more(
    desk: Desk, target: Target, gate: Gate
) -> None:
    for number in range(30):
        await desk.send(f"{number}", branch=f"{number}")
    desk.crew.start(jobs_in_flight=20)
    await called(target, 20)
    gate.open.set()
    await desk.told("deploy.succeeded", count=30)
    steps = [
        1 if line["event"] == "deploy.attempted" else -1
        for line in desk.lines("deploy.attempted", "deploy.succeeded")
    ]
    assert max(sum(steps[: n + 1]) for n in range(len(steps))) == 20


async def test_rq_knows_the_worker_and_its_state(desk: Desk, target: Target, gate: Gate) -> None:
    store = desk.crew.store
    worker = desk.crew.start()
    await until(lambda: Worker.all(store) and Worker.all(store)[0].get_state() == "idle")
    await desk.push("a")
    await until(lambda: Worker.all(store)[0].get_state() == "busy")
    [known] = Worker.all(queue=desk.crew.queue)
    assert (known.name, known.pid, known.hostname) == (worker.name, worker.pid, worker.hostname)
    assert 0 < store.ttl(worker.key) <= 30
    gate.open.set()
    await until(lambda: Worker.all(store)[0].get_state() == "idle")
    worker.shut_down()
    await desk.crew.ended(worker)
    assert Worker.all(store) == []


async def test_a_worker_that_redis_forgot_is_known_again(desk: Desk) -> None:
    store = desk.crew.store
    worker = desk.crew.start()
    await until(lambda: Worker.all(store))
    store.flushall()
    await until(lambda: Worker.all(store))
    assert Worker.all(store)[0].name == worker.name


async def test_suspended_worker_makes_no_calls(desk: Desk, target: Target) -> None:
    target.answer = answering(200)
    store = desk.crew.store
    suspend(store)
    desk.crew.start()
    await until(lambda: Worker.all(store) and Worker.all(store)[0].get_state() == "suspended")
    await desk.send("a")
    await until(lambda: store.llen(LIST) == 1)
    assert target.calls == []
    resume(store)
    await desk.told("deploy.succeeded")


async def test_shutdown_command_lets_calls_end(desk: Desk, target: Target, gate: Gate) -> None:
    store = desk.crew.store
    worker = desk.crew.start()
    await desk.push("a", branch="a")
    await called(target, 1)

    send_kill_horse_command(store, worker.name)
    send_shutdown_command(store, worker.name)
    # Commands come one after the other; what is pushed after the second one must wait.
    await until(lambda: worker._stopping.is_set())
    await desk.send("b", branch="b")
    gate.open.set()

    await desk.crew.ended(worker)
    assert (await desk.row("deploy-1"))["status"] == "succeeded"
    assert shas(target) == [sha_of("a")]
    desk.crew.start()
    await desk.told("deploy.succeeded", count=2)


@pytest.mark.parametrize("keys", ["    on_uncertain: hold\n"])
@pytest.mark.parametrize("signals", [1, 2])
async def test_what_outlasts_the_grace_is_uncertain(
    desk: Desk, target: Target, gate: Gate, signals: int
) -> None:
    worker = desk.crew.start(shutdown_grace=0.1 if signals == 1 else 600)
    deploy = await desk.push("a")
    await called(target, 1)
    for _ in range(signals):
        worker.shut_down()
    await desk.crew.ended(worker)
    [told] = desk.lines("deploy.uncertain")
    assert told["reason"] == "attempt 1 was cut off before its answer came"
    assert (await desk.row(deploy))["status"] == "uncertain"
    gate.open.set()


async def test_two_workers_share_a_queue(desk: Desk, target: Target, gate: Gate) -> None:
    for number in range(4):
        await desk.send(f"{number}", branch=f"{number}")
    for _ in range(2):
        desk.crew.start(jobs_in_flight=2)
    await called(target, 4)
    gate.open.set()
    await desk.told("deploy.succeeded", count=4)


async def test_ids_that_are_nobody_s_are_dropped(desk: Desk, target: Target) -> None:
    target.answer = answering(200)
    junk = ("gone", "deploy-", "deploy-99", "deliveries-1-99999999999", "\xff")
    desk.crew.store.rpush(LIST, *junk)
    desk.crew.start()
    await desk.push("a")
    await desk.told("deploy.succeeded")
    assert desk.crew.store.llen(LIST) == 0


async def test_a_worker_whose_audit_is_not_written_makes_no_calls(
    desk: Desk, target: Target, monkeypatch: pytest.MonkeyPatch
) -> None:
    target.answer = answering(200)
    is_full = False

    def flush() -> None:
        if is_full:
            raise AuditUnavailable("the audit cannot be written: disk full")

    monkeypatch.setattr(audit, "flush", flush)
    monkeypatch.setattr("workers.deploy.run.AUDIT_PAUSE", 0.2)
    desk.crew.start()
    await desk.push("a")
    await desk.told("deploy.succeeded")
    is_full = True
    await desk.send("b")
    await desk.send("c")
    await asyncio.to_thread(lambda: None)
    assert shas(target) == [sha_of("a")]
    is_full = False
    await desk.told("deploy.succeeded", count=3)
    assert shas(target) == [sha_of(word) for word in "abc"]


async def test_the_next_call_does_not_wait_for_a_look(desk: Desk, target: Target) -> None:
    """A look every few seconds would do for everything else here."""
    target.answer = answering(200)
    desk.crew.start()
    await desk.push("0")
    await desk.told("deploy.succeeded")
    async with asyncio.timeout(3):
        for number in range(1, 6):
            await desk.push(f"{number}")
            await desk.told("deploy.succeeded", count=number + 1)
