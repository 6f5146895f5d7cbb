"""What a scrape says, of real receivers and workers: as much as the audit says, however many
processes there are, and whatever became of them."""

from __future__ import annotations

import asyncio
import dataclasses
import os
import signal
import sqlite3
import time
from collections import Counter

import aiohttp
import pytest
from aiohttp import web
from prometheus_client.parser import text_string_to_metric_families

from relay.ledger.sqlite import FILE
from relay.metrics import CALLS, DELAY, DELIVERIES, DEPLOYS, INTAKE_BATCH, INTAKE_SECONDS
from tests.e2e.test_straight_line import status
from tests.harness import (
    COMMAND,
    PATIENCE,
    SECRETS,
    Process,
    Relay,
    Target,
    children,
    flightcontrol,
    github_headers,
    github_push,
    sha_of,
    until,
)

Page = dict[tuple[str, tuple[str, ...]], float]


@pytest.fixture
def measured(relay: Relay) -> Relay:
    environ = {**relay.environ, "RELAY_METRICS_PORT": "0"}
    return dataclasses.replace(relay, environ=environ, processes=relay.processes)


async def url_of(process: Process) -> str:
    [started] = await process.wait_for("metrics.started")
    return str(started["url"])


async def scrape(url: str) -> tuple[Page, str]:
    async with aiohttp.ClientSession() as session, session.get(url) as response:
        assert response.status == 200
        assert response.headers["Content-Type"].startswith("text/plain; version=0.0.4")
        text = await response.text()
    page = {
        (sample.name, tuple(value for _, value in sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }
    return page, text


async def scraped(url: str, key: tuple[str, tuple[str, ...]], value: float) -> Page:
    """The first page that has this value: other processes save theirs once a second."""
    async with asyncio.timeout(PATIENCE):
        while True:
            page, _ = await scrape(url)
            if page.get(key) == value:
                return page
            await asyncio.sleep(0.1)


async def test_counts_are_the_audits_and_no_secret_shows(measured: Relay, target: Target) -> None:
    target.answers = [status(500), flightcontrol, status(404)]
    receiver, worker = await measured.serve(), await measured.work()
    url = await url_of(receiver)

    await measured.push(delivery="1")
    await worker.wait_for("deploy.succeeded", target="production")
    await measured.push(delivery="1")
    await measured.push(delivery="2", repo="acme/nowhere")
    await measured.push(delivery="3", after=sha_of("b"))
    await worker.wait_for("deploy.failed", target="production")
    body = github_push()
    await measured.post("no-source-of-this-name", body, github_headers(body, secret="wrong"))
    await measured.post("github", body, github_headers(body, secret="wrong"))

    page = await scraped(url, (DEPLOYS, ("failed", "production")), 1)
    _, text = await scrape(url)
    lines = Counter(line["event"] for line in (*receiver.audit, *worker.audit))
    for outcome in ("queued", "duplicate", "ignored"):
        assert page[DELIVERIES, (outcome, "github")] == lines[f"delivery.{outcome}"] > 0
    for outcome in ("queued", "succeeded", "failed"):
        assert page[DEPLOYS, (outcome, "production")] == lines[f"deploy.{outcome}"] > 0
    rejected = "deploy_relay_deliveries_rejected_total"
    assert page[rejected, ("401",)] + page[rejected, ("404",)] == lines["delivery.rejected"] == 2
    ends = ("failed", "retried", "succeeded")
    calls = {outcome: page[CALLS, (outcome, "production")] for outcome in ends}
    assert calls == {"failed": 1, "retried": 1, "succeeded": 1}
    assert lines["deploy.attempted"] == len(target.calls) == 3
    # Two deploys have a first call.
    assert page[f"{DELAY}_count", ("production",)] == 2
    [first, _, second] = worker.find("deploy.attempted")
    assert page[f"{DELAY}_sum", ("production",)] == first["seconds"] + second["seconds"]
    # Duplicates and the ignored are written, too.
    assert page[f"{INTAKE_SECONDS}_count", ()] == page[f"{INTAKE_BATCH}_sum", ()] == 4
    assert page["deploy_relay_redis_up", ()] == 1
    assert page["deploy_relay_workers", ()] == 1
    await scraped(url, ("deploy_relay_attention_deploys", ("failed",)), 1)
    for secret in (*SECRETS, "no-source-of-this-name", "acme/web", sha_of("a"), sha_of("b")):
        assert secret not in text


async def test_one_process_answers_for_all_and_the_next_takes_over(measured: Relay) -> None:
    both = await measured.start(*COMMAND, "serve", "--processes", "2")
    started = await both.wait_for("receiver.started", count=2)
    measured.url = started[0]["url"].removesuffix("/hooks/")
    url = await url_of(both)

    answers = await asyncio.gather(*(measured.push(note=str(n)) for n in range(100)))

    assert {code for code, _ in answers} == {202}
    await scraped(url, (DELIVERIES, ("queued", "github")), 100)
    assert len(both.find("metrics.started")) == 1
    # Both are known by a lock of their own, or nothing would have been added up.
    assert len(list((measured.folder / "relay-data" / "metrics").glob("*.lock"))) == 2
    assert len(children(both)) == 2

    worker = await measured.work()
    assert await both.stop() == 0
    taken_over = await url_of(worker)
    page = await scraped(taken_over, (DELIVERIES, ("queued", "github")), 100)
    # No delivery was ever counted twice by the handover: what both had batched adds up as well.
    assert page[f"{INTAKE_BATCH}_sum", ()] == 100


async def test_what_a_killed_process_counted_stays(measured: Relay) -> None:
    receiver = await measured.serve()
    await measured.push(delivery="1")
    await scraped(await url_of(receiver), (DELIVERIES, ("queued", "github")), 1)

    await receiver.stop(signal.SIGKILL)
    second = await measured.serve()
    await measured.push(delivery="2", note="another")

    page = await scraped(await url_of(second), (DELIVERIES, ("queued", "github")), 2)
    assert page[f"{INTAKE_BATCH}_count", ()] == 2
    assert len(list((measured.folder / "relay-data" / "metrics").glob("*.lock"))) == 1


async def test_a_folder_that_cannot_be_written_costs_nothing_but_the_sum(measured: Relay) -> None:
    (measured.folder / "relay-data").mkdir()
    (measured.folder / "relay-data" / "metrics").write_text("in the way")
    receiver = await measured.serve()
    url = await url_of(receiver)

    assert (await measured.push())[0] == 202

    await scraped(url, (DELIVERIES, ("queued", "github")), 1)
    assert sum("kept in memory only" in line for line in receiver.output) == 1
    assert await receiver.stop() == 0


async def test_a_taken_port_is_said_and_webhooks_go_on(measured: Relay, target: Target) -> None:
    taken = target.url.rsplit(":", 1)[1]
    busy = dataclasses.replace(measured, environ={**measured.environ, "RELAY_METRICS_PORT": taken})
    receiver = await busy.serve()

    assert (await busy.push())[0] == 202

    await until(lambda: any("scrapes are not answered" in line for line in receiver.output))
    assert await receiver.stop() == 0


async def test_a_redis_that_is_away_is_said(measured: Relay) -> None:
    nowhere = {**measured.environ, "RELAY_REDIS_URL": "unix:///nowhere/redis.sock"}
    receiver = await dataclasses.replace(measured, environ=nowhere).serve()

    page, text = await scrape(await url_of(receiver))

    assert page["deploy_relay_redis_up", ()] == 0
    assert page["deploy_relay_ledger_up", ()] == 1
    assert ("deploy_relay_workers", ()) not in page
    assert page["deploy_relay_queue_jobs", ()] == 0
    assert "nowhere" not in text


async def test_states_of_targets_and_what_waits(measured: Relay, target: Target) -> None:
    release = asyncio.Event()

    async def slow(_: web.Request) -> web.StreamResponse:
        await release.wait()
        return web.Response(status=202)

    target.answer = slow
    await measured.serve()
    worker = await measured.work()
    await measured.push(repo="acme/api", after=sha_of("1"))
    await worker.wait_for("deploy.attempted")
    await measured.push(repo="acme/api", after=sha_of("2"))
    await worker.wait_for("deploy.queued", count=2)
    await measured.run("targets", "pause", "production")
    later = round((time.time() + 600) * 1e6)
    with sqlite3.connect(measured.data_dir / FILE, timeout=PATIENCE) as ledger:
        update = "UPDATE target SET limited_until = ?, open_until = ? WHERE name = ?"
        for name, limited in (("production", later), ("preview", 0)):
            ledger.execute("INSERT INTO target (name) VALUES (?) ON CONFLICT DO NOTHING", [name])
            ledger.execute(update, [limited, later, name])

    [receiver, _] = measured.processes
    url = await url_of(receiver)
    page = await scraped(url, ("deploy_relay_target_waiting_deploys", ("api",)), 1)

    assert page["deploy_relay_target_calls_in_flight", ("api",)] == 1
    assert page["deploy_relay_target_paused", ("production",)] == 1
    assert page["deploy_relay_target_paused", ("api",)] == 0
    # What its platform asked for is told whatever its breaker is.
    for name, held, is_open in (("production", 1, 1), ("preview", 0, 1), ("api", 0, 0)):
        assert page["deploy_relay_target_held", (name,)] == held
        assert page["deploy_relay_target_breaker_open", (name,)] == is_open
    assert page["deploy_relay_running_jobs", ()] == 1
    assert {labels for name, labels in page if name == "deploy_relay_target_breaker_open"} == {
        ("production",),
        ("preview",),
        ("api",),
    }
    release.set()
    await worker.wait_for("deploy.succeeded", count=2)


async def test_off_unless_asked_for(relay: Relay) -> None:
    receiver = await relay.serve()
    await relay.push()
    await receiver.wait_for("delivery.queued")
    assert await receiver.stop() == 0
    assert receiver.find("metrics.started") == []
    # What the console hands out is kept all the same.
    folder = relay.folder / "relay-data" / "metrics"
    assert os.listdir(folder)
