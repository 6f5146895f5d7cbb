"""From a signed webhook on the wire to the deploy call: everything in it is real."""

from __future__ import annotations

import asyncio
import signal
import sys
from collections import Counter
from collections.abc import AsyncIterator

import aiohttp
import redis
from aiohttp import web

from tests.harness import (
    PATIENCE,
    PREVIEW_PATH,
    PRODUCTION_PATH,
    RELAY_YAML,
    SECRETS,
    Answer,
    Relay,
    Target,
    github_headers,
    github_push,
    gitlab_headers,
    gitlab_merge_request,
    sha_of,
    until,
)


def status(code: int, **headers: str) -> Answer:
    async def answer(_: web.Request) -> web.StreamResponse:
        return web.Response(
            status=code, headers={key.replace("_", "-"): value for key, value in headers.items()}
        )

    return answer


async def test_push_and_merge_request_are_deployed_once_and_no_secret_shows(
    relay: Relay, target: Target
) -> None:
    receiver, worker = await relay.serve(), await relay.work()

    code, answer = await relay.push(delivery="guid-1")
    assert (code, answer) == (202, {"status": "queued", "delivery": "delivery-1"})
    code, _ = await relay.post("gitlab", gitlab_merge_request(), gitlab_headers(key="key-1"))
    assert code == 202
    [pushed] = await worker.wait_for("deploy.succeeded", target="production")
    [opened] = await worker.wait_for("deploy.succeeded", target="preview")

    assert Counter((method, path) for _, method, path, _, _ in target.calls) == {
        ("GET", f"{PRODUCTION_PATH}?commit={sha_of('a')}&branch=main"): 1,
        ("GET", f"{PREVIEW_PATH}/7/{sha_of('mr')}"): 1,
    }
    assert (pushed["delivery"], pushed["deploy"]) == ("delivery-1", "deploy-1")
    assert pushed["deployment_id"] == "dep-1"
    assert (pushed["repo"], pushed["ref"], pushed["sha"], pushed["route"], pushed["attempt"]) == (
        "acme/web",
        "refs/heads/main",
        sha_of("a"),
        "production",
        1,
    )
    assert opened["number"] == 7
    steps = [entry["event"] for entry in (*receiver.audit, *worker.audit)]
    for step in ("delivery.received", "delivery.queued", "route.matched", "deploy.queued"):
        assert steps.count(step) == 2
    [headers] = [h for _, _, path, h, _ in target.calls if path.startswith(PRODUCTION_PATH)]
    assert headers["Idempotency-Key"].startswith(f"{pushed['deploy']}-")
    assert headers["User-Agent"].startswith("deploy-relay/")
    assert await receiver.stop() == 0
    assert await worker.stop() == 0
    for secret in SECRETS:
        assert secret not in relay.output()


async def test_fifty_copies_at_once_are_one_deploy(relay: Relay, target: Target) -> None:
    receiver, worker = await relay.serve(), await relay.work()

    answers = await asyncio.gather(*(relay.push(delivery="same") for _ in range(50)))

    assert Counter(code for code, _ in answers) == {202: 1, 200: 49}
    assert {answer["delivery"] for _, answer in answers} == {"delivery-1"}
    await worker.wait_for("deploy.succeeded")
    assert len(receiver.find("delivery.duplicate", first="delivery-1")) == 49
    assert await worker.stop() == 0
    assert len(target.calls) == 1


async def test_captured_body_under_a_new_id_is_a_duplicate(relay: Relay, target: Target) -> None:
    await relay.serve()
    worker = await relay.work()
    body = github_push()

    first = await relay.post("github", body, github_headers(body, delivery="one"))
    second = await relay.post("github", body, github_headers(body, delivery="two"))

    assert first == (202, {"status": "queued", "delivery": "delivery-1"})
    # Its sender may have sent it: it is kept, and leads to the same deploy.
    assert second[0] in (200, 202)
    await worker.wait_for("deploy.succeeded")
    await relay.settle()
    assert len(target.calls) == 1


async def test_one_push_through_two_webhooks_is_one_deploy(relay: Relay, target: Target) -> None:
    await relay.serve()
    worker = await relay.work()

    assert (await relay.push(source="github", note="repository hook"))[0] == 202
    assert (await relay.push(source="mirror", note="organisation hook"))[0] == 202

    [duplicate] = await worker.wait_for("deploy.duplicate")
    [succeeded] = await worker.wait_for("deploy.succeeded")
    assert duplicate["deploy"] == succeeded["deploy"]
    assert await worker.stop() == 0
    assert len(target.calls) == 1


async def test_branch_moved_back_is_deployed_again(relay: Relay, target: Target) -> None:
    await relay.serve()
    worker = await relay.work()
    a, b = sha_of("a"), sha_of("b")

    for count, (before, after) in enumerate((("", a), (a, b), (b, a)), start=1):
        assert (await relay.push(before=before, after=after))[0] == 202
        await worker.wait_for("deploy.succeeded", count=count)

    assert [path.split("commit=")[1][:40] for _, _, path, _, _ in target.calls] == [a, b, a]


async def test_third_attempt_succeeds(relay: Relay, target: Target) -> None:
    target.answers = [status(500), status(503)]
    await relay.serve()
    worker = await relay.work()

    await relay.push()

    [succeeded] = await worker.wait_for("deploy.succeeded")
    assert succeeded["attempt"] == 3
    assert [entry["reason"] for entry in worker.find("deploy.retry_scheduled")] == [
        "HTTP 500",
        "HTTP 503",
    ]
    assert len({headers["Idempotency-Key"] for _, _, _, headers, _ in target.calls}) == 1


async def test_attempts_run_out(relay: Relay, target: Target) -> None:
    target.answer = status(502)
    await relay.serve()
    worker = await relay.work()

    await relay.push()

    [failed] = await worker.wait_for("deploy.failed")
    assert failed["reason"] == "HTTP 502; attempt 3 was the last"
    assert await worker.stop() == 0
    assert len(target.calls) == 3


async def test_retry_after_is_honoured(relay: Relay, target: Target) -> None:
    target.answers = [status(429, Retry_After="2")]
    await relay.serve()
    worker = await relay.work()

    await relay.push()

    [succeeded] = await worker.wait_for("deploy.succeeded")
    assert succeeded["attempt"] == 2
    [scheduled] = worker.find("deploy.retry_scheduled")
    assert (scheduled["status"], scheduled["retry_after"]) == (429, True)
    first, second = (at for at, *_ in target.calls)
    assert second - first >= 2


async def test_final_failure_stays_and_a_replay_runs_again(relay: Relay, target: Target) -> None:
    target.answers = [status(404)]
    await relay.serve()
    worker = await relay.work()

    await relay.push(delivery="guid-1")
    [failed] = await worker.wait_for("deploy.failed")
    assert failed["reason"] == "HTTP 404"
    assert len(target.calls) == 1

    # A person repeats it, not a sender.
    assert (await relay.push(delivery="guid-1"))[0] == 200
    await relay.run("deploys", "replay", failed["deploy"])
    [done] = await worker.wait_for("deploy.succeeded")
    assert await worker.stop() == 0
    assert len(target.calls) == 2
    statuses = {row["id"]: row["status"] for row in relay.rows("SELECT id, status FROM deploy")}
    assert statuses == {1: "failed", 2: "succeeded"}
    assert done["deploy"] == "deploy-2"


async def test_http_200_with_success_false_is_a_failure(relay: Relay, target: Target) -> None:
    async def refused(_: web.Request) -> web.StreamResponse:
        return web.json_response({"success": False})

    target.answer = refused
    await relay.serve()
    worker = await relay.work()

    await relay.push()

    [failed] = await worker.wait_for("deploy.failed")
    assert failed["reason"] == "HTTP 200, but success is false"


async def test_wrong_signature_leaves_nothing(relay: Relay) -> None:
    receiver = await relay.serve()
    body = github_push()

    code, answer = await relay.post("github", body, github_headers(body, secret="wrong"))

    assert (code, answer["error"]) == (401, "signature missing or wrong")
    [rejected] = await receiver.wait_for("delivery.rejected")
    assert rejected["reason"] == "no configured secret made this signature"
    assert relay.rows("SELECT id FROM delivery") == []


async def test_stock_rq_worker_runs_the_jobs(
    relay: Relay, target: Target, store: redis.Redis
) -> None:
    await relay.serve()
    await relay.push()

    url = relay.environ["RELAY_REDIS_URL"]
    await until(lambda: store.llen("rq:queue:deploy-relay"))
    worker = await relay.start(
        *(sys.executable, "-m", "rq.cli", "worker", "-S", "json"),
        *("deploy-relay", "--url", url, "--burst"),
    )
    async with asyncio.timeout(40):
        assert await worker.process.wait() == 0

    assert [path for _, _, path, _, _ in target.calls] == [
        f"{PRODUCTION_PATH}?commit={sha_of('a')}&branch=main"
    ]
    assert relay.rows("SELECT status FROM deploy") == [{"status": "succeeded"}]
    assert relay.rows("SELECT outcome FROM attempt") == [{"outcome": "succeeded"}]
    for secret in SECRETS:
        assert secret not in relay.output()


async def test_concurrency_and_supersede_keep_the_newest(relay: Relay, target: Target) -> None:
    release = asyncio.Event()

    async def slow(_: web.Request) -> web.StreamResponse:
        await release.wait()
        return web.Response(status=202)

    target.answer = slow
    await relay.serve()
    workers = [await relay.work(), await relay.work()]

    def seen(event: str) -> int:
        return sum(len(worker.find(event)) for worker in workers)

    commits = [sha_of(word) for word in ("1", "2", "3")]
    await relay.push(repo="acme/api", after=commits[0])
    async with asyncio.timeout(20):
        await target.called.wait()
    for count, commit in enumerate(commits[1:], start=2):
        await relay.push(repo="acme/api", after=commit)
        # The one free worker queues it; the target's only slot is taken.
        await until(lambda: seen("deploy.queued") == count)  # noqa: B023
    assert len(target.calls) == 1
    release.set()

    await until(lambda: seen("deploy.succeeded") == 2)
    superseded = [entry for worker in workers for entry in worker.find("deploy.superseded")]
    assert [entry["sha"] for entry in superseded] == [commits[1]]
    assert [commits.index(body.decode()[8:48]) for *_, body in target.calls] == [0, 2]


async def test_call_cut_off_by_a_crash_waits_for_a_person(relay: Relay, target: Target) -> None:
    async def never(_: web.Request) -> web.StreamResponse:
        await asyncio.Event().wait()
        return web.Response()

    target.answer = never
    relay.environ = {**relay.environ, "RELAY_TEST_CLAIM_MARGIN": "1"}
    relay.write(RELAY_YAML.replace("timeout: 30s", "timeout: 2s\n    on_uncertain: hold"))
    await relay.serve()
    worker = await relay.work()
    await relay.push(repo="acme/api")
    async with asyncio.timeout(20):
        await target.called.wait()

    await worker.stop(signal.SIGKILL)
    other = await relay.work()

    [uncertain] = await other.wait_for("deploy.uncertain")
    assert uncertain["reason"].startswith("attempt 1 was cut off before its answer came")
    await relay.settle()
    assert len(target.calls) == 1
    assert relay.rows("SELECT status FROM deploy") == [{"status": "uncertain"}]


async def test_receiver_finishes_requests_in_flight_on_sigterm(relay: Relay) -> None:
    receiver = await relay.serve()
    body = github_push()
    sent = asyncio.Event()

    async def slowly() -> AsyncIterator[bytes]:
        yield body[:10]
        sent.set()
        await stopping.wait()
        yield body[10:]

    stopping = asyncio.Event()
    async with aiohttp.ClientSession() as session:
        request = asyncio.create_task(
            session.post(
                f"{relay.url}/hooks/github", data=slowly(), headers=github_headers(body)
            ).__aenter__()
        )
        await sent.wait()
        receiver.process.send_signal(signal.SIGTERM)
        stopping.set()
        response = await request
        assert response.status == 202
    # Another signal could meet the process when it no longer handles any.
    async with asyncio.timeout(PATIENCE):
        assert await receiver.process.wait() == 0
    assert relay.rows("SELECT status FROM delivery") == [{"status": "queued"}]
