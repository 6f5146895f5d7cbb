"""The JSON API: what it tells, what it does, who may, and what the audit says of it."""

from __future__ import annotations

import asyncio
import io
import json
import zlib
from collections.abc import Callable
from typing import Any, TypeVar

import pytest
import redis
from redis.asyncio import Redis
from rq.job import Job, JobStatus
from yarl import URL

from config.model import Target
from config.settings import Settings
from relay import finding
from relay.console import asking
from relay.console.api import ENDPOINTS
from relay.console.endpoints import PREFIX, Endpoint
from relay.payloads_kept import MOST_BODY, TOO_LARGE, UNCLEAR, payload_key
from relay.tokens import Role
from tests.console.desk import Answer, Desk
from tests.harness import RELAY_YAML, github_push, sha_of
from tests.relay.yard import FAILED, HELD, QUEUE, Yard
from workers.deploys import Deploy, Wanted, queue_deploys

T = TypeVar("T")

WRITES = [one for one in ENDPOINTS if one.method == "POST" and one.path != "/explain"]


def path_of(endpoint: Endpoint[Any, Any]) -> str:
    return PREFIX + endpoint.path.replace("{id}", "a--b").replace("{name}", "production")


def body_of(endpoint: Endpoint[Any, Any]) -> dict[str, Any]:
    if endpoint.path == "/explain":
        return {"source": "github", "payload": json.loads(github_push())}
    return {"ids": ["a--b"]}


@pytest.fixture
def yard(store: redis.Redis, settings: Settings) -> Yard:
    return Yard(store, settings.redis_address())


async def prepared(work: Callable[[], T]) -> T:
    """What the yard does, which has event loops of its own."""
    return await asyncio.to_thread(work)


@pytest.mark.parametrize("endpoint", ENDPOINTS, ids=lambda one: f"{one.method} {one.path}")
async def test_roles(desk: Desk, endpoint: Endpoint[Any, Any]) -> None:
    async def status(role: Any) -> int:
        answer = await desk.ask(endpoint.method, path_of(endpoint), role, json=body_of(endpoint))
        return answer.status

    well = 404 if "{id}" in endpoint.path else 200
    assert await status(None) == 401
    assert await status("viewer") == (403 if endpoint in WRITES else well)
    assert await status("operator") == well
    refused = [(line["status"], line["by"]) for line in desk.audit("console.refused")]
    assert refused == [(401, "")] + [(403, "a-viewer")] * (endpoint in WRITES)


def test_all_that_changes_something_needs_an_operator() -> None:
    assert {one.path for one in ENDPOINTS if one.role == "operator"} == {
        *("/deliveries/replay", "/deliveries/cancel"),
        *("/deploys/replay", "/deploys/cancel", "/deploys/approve"),
        *("/targets/{name}/pause", "/targets/{name}/resume"),
    }


async def test_cookie_needs_the_sessions_token_to_write(desk: Desk) -> None:
    await desk.log_in("operator")
    [key] = desk.sessions()
    path = f"{PREFIX}/targets/production/pause"

    for headers in ({}, {"X-CSRF-Token": "wrong"}):
        answer = await desk.ask("POST", path, headers=headers)
        assert (answer.status, answer.body["error"]["code"]) == (403, "forbidden")
    # The session's token is no token.
    assert (await desk.ask("POST", path, token=desk.csrf(key))).status == 401
    assert (await desk.ask("GET", f"{PREFIX}/targets")).status == 200

    answer = await desk.ask("POST", path, headers={"X-CSRF-Token": desk.csrf(key)})
    assert (answer.status, answer.body["changed"]) == (200, True)


async def test_lists_and_filters(desk: Desk, yard: Yard) -> None:
    web = await prepared(lambda: yard.match("a"))
    failed = await prepared(lambda: yard.end(yard.match("b"), JobStatus.FAILED, FAILED))
    api = await prepared(lambda: yard.match("c", "api", repo="acme/api"))
    [received] = await prepared(lambda: yard.receive("a"))

    async def ids(query: str, kind: str = "deploys") -> list[str]:
        answer = await desk.ask("GET", f"{PREFIX}/{kind}{query}", "viewer")
        assert answer.status == 200, answer.body
        assert answer.body["complete"] is True
        return [item["id"] for item in answer.body["items"]]

    assert await ids("") == [api.id, failed.id, web.id]
    assert await ids("?status=failed") == [failed.id]
    assert await ids("?status=failed&status=waiting&limit=2") == [api.id, failed.id]
    assert await ids("?repo=acme/a*") == [api.id]
    assert await ids("?target=api&target=production") == [api.id, failed.id, web.id]
    assert await ids("?target=api") == [api.id]
    assert await ids("?route=r") == [api.id, failed.id, web.id]
    assert await ids("?route=other") == []
    assert await ids(f"?sha={sha_of('a')[:7]}") == [web.id]
    assert await ids(f"?sha={sha_of('a')}") == [web.id]
    assert await ids(f"?sha={sha_of('a')[:-1]}0") == []
    assert await ids("?since=1h") == [api.id, failed.id, web.id]
    assert await ids("?since=2099-01-01") == []
    assert await ids("?source=github", "deliveries") == [received.id]
    assert await ids("?source=gitlab", "deliveries") == []


async def test_cursor_walks_all_without_gap_or_repeat(desk: Desk, yard: Yard) -> None:
    """1,200 deploys, a hundred of one moment each; some have ended, in another order."""
    target = Target.model_validate({"preset": "http", "url": "https://hooks.example"})

    def queue(number: int) -> list[Job]:
        async def work(connection: Redis) -> list[Job]:
            wanted = []
            for one in range(number, number + 100):
                delivery = yard.delivery(f"n{one}", repo=f"acme/r{one}")
                deploy = Deploy(delivery.id, "github", "r", "production", delivery.event)
                wanted.append(Wanted(delivery.id, [(deploy, target)]))
            queued = await queue_deploys(connection, wanted, queue=QUEUE, failure_ttl=600)
            return [Job.fetch(deploy.id, yard.store) for [deploy] in queued]

        return yard.with_redis(work)

    jobs = await prepared(lambda: [job for number in range(0, 1_200, 100) for job in queue(number)])
    ended = jobs[900:100:-1]
    await prepared(lambda: [yard.end(job, JobStatus.FINISHED, {}) for job in ended])
    yard.store.zrem("rq:rl:target:production:rate_limited", *(job.id for job in ended))
    # As if they had been queued at one moment each hundred.
    for number, job in enumerate(jobs):
        yard.store.hset(job.key, "created_at", f"2026-01-01T00:{number // 100:02}:00.000000Z")

    met: list[str] = []
    cursor = ""
    while True:
        query = {"limit": "97", "cursor": cursor}
        page = (await desk.ask("GET", f"{PREFIX}/deploys", "viewer", params=query)).body
        met += [item["id"] for item in page["items"]]
        if page["next"] is None:
            break
        cursor = page["next"]

    assert len(met) == 1_200
    assert set(met) == {job.id for job in jobs}


async def test_search_whose_time_is_over_goes_on(
    desk: Desk, yard: Yard, monkeypatch: pytest.MonkeyPatch
) -> None:
    jobs = await prepared(lambda: [yard.match(name, repo=f"a/{name}") for name in "abc"])
    monkeypatch.setattr(finding, "CLOSE_PAGE", 1)
    monkeypatch.setattr(asking, "SECONDS", 0)

    pages: list[tuple[list[str], str | None]] = []
    cursor: str | None = ""
    while cursor is not None:
        query = {"route": "r", "cursor": cursor}
        page = (await desk.ask("GET", f"{PREFIX}/deploys", "viewer", params=query)).body
        pages.append(([item["id"] for item in page["items"]], page["back_to"]))
        assert page["complete"] is (page["back_to"] is None)
        cursor = page["next"]
    made: list[Any] = [yard.store.hget(job.key, "created_at") for job in jobs]
    assert pages == [
        ([jobs[2].id], made[2].decode()),
        ([jobs[1].id], made[1].decode()),
        ([jobs[0].id], None),
    ]


async def test_timeline(desk: Desk, yard: Yard) -> None:
    [received] = await prepared(lambda: yard.receive("a"))
    deploy = await prepared(lambda: yard.end(yard.match("a"), JobStatus.FAILED, HELD))

    told = (await desk.ask("GET", f"{PREFIX}/deploys/{deploy.id}", "viewer")).body
    assert (told["record"]["status"], told["record"]["target"]) == ("held", "production")
    assert [run["reason"] for run in told["runs"]] == ["no answer in time"]
    assert told["event"]["after"] == sha_of("a")
    told = (await desk.ask("GET", f"{PREFIX}/deliveries/{received.id}", "viewer")).body
    assert [one["id"] for one in told["deploys"]] == [deploy.id]
    # One is not the other.
    answer = await desk.ask("GET", f"{PREFIX}/deploys/{received.id}", "viewer")
    assert (answer.status, answer.body["error"]["code"]) == (404, "not_found")


async def test_payload(desk: Desk, yard: Yard) -> None:
    [received] = await prepared(lambda: yard.receive("a"))
    place = f"{PREFIX}/deliveries/{received.id}/payload"
    desk.store.set(payload_key(received.id), zlib.compress(b'{"ref":1,"secret":"****"}'))

    answer = await desk.ask("GET", place, "viewer")
    assert (answer.status, answer.body) == (200, {"payload": {"ref": 1, "secret": "****"}})
    for value, why in [
        (TOO_LARGE, "the payload is not kept: it is larger than 1 MiB"),
        (UNCLEAR, "the payload is not kept: secrets in it could not be looked for"),
        (b"x", "the payload cannot be read"),
        (zlib.compress(b"{}" * MOST_BODY), "the payload cannot be read"),
        (zlib.compress(b'{"ref"'), "the payload cannot be read"),
    ]:
        desk.store.set(payload_key(received.id), value)
        answer = await desk.ask("GET", place, "viewer")
        assert answer.status == 404
        assert answer.body == {"error": {"code": "not_found", "message": why}}
    desk.store.delete(payload_key(received.id))
    answer = await desk.ask("GET", place, "viewer")
    # The yard's deliveries came a minute after the epoch.
    assert answer.body["error"]["message"].endswith("the spool keeps none")
    answer = await desk.ask("GET", f"{PREFIX}/deliveries/github--b/payload", "viewer")
    assert answer.body["error"]["message"] == "there is no such delivery, or not any more"


async def test_replay(desk: Desk, yard: Yard) -> None:
    old = await prepared(lambda: yard.end(yard.match("a"), JobStatus.FAILED, FAILED))
    waits = await prepared(lambda: yard.match("b", repo="acme/other"))
    ids = [old.id, waits.id, old.id]

    async def replay(**more: Any) -> Any:
        answer = await desk.ask(
            "POST", f"{PREFIX}/deploys/replay", "operator", json={"ids": ids, **more}
        )
        assert answer.status == 200
        return answer.body["results"]

    dry = await replay(dry_run=True)
    assert [(one["id"], one["done"]) for one in dry] == [(old.id, True), (waits.id, False)]
    assert desk.audit("console.acted") == []

    [done, refused] = await replay()
    new = f"{old.id}-2"
    assert (done["done"], done["new"]) == (True, new)
    assert (refused["refusal"], refused["message"]) == (
        "active",
        "it has not ended: it is queued in RQ",
    )
    assert yard.store.hget(f"rq:job:{new}", "requested_by") == b"a-operator"
    [acted] = desk.audit("console.acted")
    assert {key: acted[key] for key in ("by", "action", "deploy", "new")} == {
        "by": "a-operator",
        "action": "replay",
        "deploy": old.id,
        "new": new,
    }
    assert [one["refusal"] for one in await replay()] == ["replaying", "active"]


async def test_delivery_is_replayed_and_cancelled(desk: Desk, yard: Yard) -> None:
    old, waits = await prepared(lambda: yard.receive("a", "b"))
    await prepared(lambda: yard.end(old, JobStatus.FAILED, FAILED))

    answer = await desk.ask(
        "POST", f"{PREFIX}/deliveries/replay", "operator", json={"ids": [old.id]}
    )
    assert answer.body["results"][0]["new"] == f"{old.id}-replay-1"
    answer = await desk.ask(
        "POST", f"{PREFIX}/deliveries/cancel", "operator", json={"ids": [waits.id]}
    )
    assert answer.body["results"][0]["done"] is True
    assert Job.fetch(waits.id, yard.store).get_status() == JobStatus.CANCELED
    [cancelled] = desk.audit("delivery.cancelled")
    assert (cancelled["delivery"], cancelled["by"], cancelled["repo"]) == (
        waits.id,
        "a-operator",
        "acme/web",
    )
    assert [line["action"] for line in desk.audit("console.acted")] == ["replay", "cancel"]


async def test_approval(desk: Desk, yard: Yard) -> None:
    asks = await prepared(lambda: yard.match("a"))
    other = await prepared(lambda: yard.match("b", repo="acme/other"))
    yard.store.hset(asks.key, "waiting", "approval 2999-01-01T00:00:00Z")

    answer = await desk.ask(
        "POST", f"{PREFIX}/deploys/approve", "operator", json={"ids": [asks.id, other.id]}
    )

    assert [one["refusal"] for one in answer.body["results"]] == ["", "unasked"]
    assert yard.store.hget(asks.key, "approved_by") == b"a-operator"
    assert [line["deploy"] for line in desk.audit("console.acted")] == [asks.id]


async def test_target_is_paused_and_resumed(desk: Desk, yard: Yard) -> None:
    await prepared(lambda: yard.match("a"))

    async def production() -> Any:
        items = (await desk.ask("GET", f"{PREFIX}/targets", "viewer")).body["items"]
        return next(item for item in items if item["name"] == "production")

    before = await production()
    assert (before["state"], before["breaker"], before["calling"]) == ("ready", "closed", 1)
    for changed in (True, False):
        answer = await desk.ask("POST", f"{PREFIX}/targets/production/pause", "operator")
        assert answer.body == {"name": "production", "paused": True, "changed": changed}
    assert (await production())["paused"] is True
    answer = await desk.ask("POST", f"{PREFIX}/targets/production/resume", "operator")
    assert answer.body == {"name": "production", "paused": False, "changed": True}
    assert (await production())["state"] == "ready"
    answer = await desk.ask("POST", f"{PREFIX}/targets/nothing/pause", "operator")
    assert answer.status == 404

    assert [(one["action"], one["target"]) for one in desk.audit("console.acted")] == [
        ("pause", "production"),
        ("resume", "production"),
    ]
    assert desk.audit("target.paused")[0]["by"] == "a-operator"
    yard.store.hset("relay:target:production", mapping={"until": 4_000_000_000, "failures": 5})
    opened = await production()
    assert (opened["breaker"], opened["until"]) == ("open", "2096-10-02T07:06:40Z")


async def test_routes_and_sources(desk: Desk) -> None:
    routes = (await desk.ask("GET", f"{PREFIX}/routes", "viewer")).body["items"]
    assert routes[0] == {
        "name": "production",
        "repo": ["acme/web"],
        "on": ["push"],
        "deploy": ["production"],
        "conditions": {"branches": ["main"]},
    }
    sources = (await desk.ask("GET", f"{PREFIX}/sources", "viewer")).body["items"]
    assert [(one["name"], one["path"], one["secrets"]) for one in sources] == [
        ("github", "/hooks/github", 1),
        ("mirror", "/hooks/mirror", 1),
        ("gitlab", "/hooks/gitlab", 1),
    ]


async def test_explain(desk: Desk) -> None:
    async def explain(**question: Any) -> Any:
        return await desk.ask("POST", f"{PREFIX}/explain", "viewer", json=question)

    payload = json.loads(github_push())
    told = (await explain(source="github", payload=payload)).body
    assert [(one["route"], one["matched"]) for one in told["routes"]] == [
        ("production", True),
        ("previews", False),
        ("api", False),
    ]
    [call] = told["routes"][0]["calls"]
    assert call["url"].startswith("<env TEST_PRODUCTION_HOOK>")
    told = (await explain(source="github", payload={"zen": "Speak."}, event="ping")).body
    assert (told["ignored"], told["routes"]) == ("ping: the webhook is set up", [])
    told = (await explain(source="github", payload={"starred_at": ""})).body
    assert told["ignored"].endswith("; if it is one, say what its event header was")
    answer = await explain(source="nothing", payload=payload)
    assert (answer.status, answer.body["error"]["code"]) == (404, "not_found")
    answer = await explain(source="github", payload={"ref": 1, "after": 2})
    assert (answer.status, answer.body["error"]["code"]) == (400, "body_not_understood")


PLAIN = """\
sources: {github: {provider: github, secrets: [{env: TEST_GITHUB_SECRET}]}}
targets:
  hook:
    preset: http
    url: https://hooks.example/deploy/Gq3x7TmVb2
    query: {sha: "{{ event.sha }}", token: Gq3x7TmVb2}
    headers: {X-Api-Key: Gq3x7TmVb2, X-Ref: "{{ event.ref }}"}
routes: [{name: all, repo: acme/web, on: push, deploy: [hook]}]
"""


@pytest.mark.parametrize("relay_yaml", [PLAIN])
async def test_what_relay_yaml_has_in_plain_is_masked(desk: Desk) -> None:
    question = {"source": "github", "payload": json.loads(github_push())}
    answer = await desk.ask("POST", f"{PREFIX}/explain", "viewer", json=question)

    [call] = answer.body["routes"][0]["calls"]
    assert call["url"] == f"https://hooks.example/****?sha={sha_of('a')}&token=****"
    assert call["headers"]["X-Api-Key"] == "****"
    assert call["headers"]["X-Ref"] == "refs/heads/main"
    for path in ("targets", "routes", "sources"):
        answer = await desk.ask("GET", f"{PREFIX}/{path}", "viewer")
        assert answer.status == 200
        assert "Gq3x7TmVb2" not in str(answer.body)


CHAT = "https://chat.example/hooks/Gq3x7TmVb2"


@pytest.mark.parametrize(
    "relay_yaml",
    [
        RELAY_YAML
        + f"""\
notify:
  - {{name: team, preset: slack, url: {CHAT}, on: [failure, held], targets: [production]}}
  - {{name: others, preset: slack, url: {CHAT}, targets: [preview]}}
"""
    ],
)
async def test_explain_says_who_is_told(desk: Desk) -> None:
    question = {"source": "github", "payload": json.loads(github_push())}
    answer = await desk.ask("POST", f"{PREFIX}/explain", "viewer", json=question)

    [call] = answer.body["routes"][0]["calls"]
    assert call["notifies"] == [{"notifier": "team", "on": ["failure", "held"]}]
    assert "chat.example" not in str(answer.body)

    await desk.log_in("viewer")
    form = {"source": "github", "payload": github_push().decode()}
    page = await desk.ask("POST", "/routes", data={"csrf": desk.csrf(desk.sessions()[0]), **form})
    assert "Notifies team of failure, held" in page.body
    assert "others" not in page.body
    assert "chat.example" not in page.body


async def test_bodies_are_bounded(desk: Desk) -> None:
    async def send(path: str, body: bytes, role: Role) -> Answer:
        return await desk.ask(
            *("POST", PREFIX + path, role),
            data=io.BytesIO(body),
            headers={"Content-Type": "application/json"},
        )

    large = {"source": "github", "payload": {"zen": "x" * 1_500_000}, "event": "ping"}
    assert (await send("/explain", json.dumps(large).encode(), "viewer")).status == 200
    answer = await send("/deploys/cancel", json.dumps(large).encode(), "operator")
    assert (answer.status, answer.body["error"]["code"]) == (413, "request_entity_too_large")
    path = f"{PREFIX}/deploys/cancel"
    answer = await desk.ask("POST", path, "operator", json={"ids": ["x"] * 1_001})
    assert (answer.status, answer.body["error"]["code"]) == (400, "bad_request")
    answer = await desk.ask("POST", path, "operator", data=b"ids=x")
    assert answer.status == 415
    deep = b'{"source":"github","payload":' + b'{"a":' * 50_000 + b"1" + b"}" * 50_001
    answer = await send("/explain", deep, "viewer")
    assert answer.status == 400


@pytest.mark.parametrize(
    "query", ["limit=0", "limit=201", "status=well", "page=2", "limit=1&limit=2"]
)
async def test_parameters_that_are_refused(desk: Desk, query: str) -> None:
    answer = await desk.ask("GET", f"{PREFIX}/deploys?{query}", "viewer")

    assert (answer.status, answer.body["error"]["code"]) == (400, "bad_request")


@pytest.mark.parametrize(
    "path",
    ["deploys?cursor=%ff%fe", "deploys?author=%ed%a0%80", "deploys/%ff--a", "deploys?repo=%00"],
)
async def test_text_that_is_none(desk: Desk, path: str) -> None:
    answer = await desk.ask("GET", URL(f"{PREFIX}/{path}", encoded=True), "viewer")

    assert answer.status in (200, 400, 404)
