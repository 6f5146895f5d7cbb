"""The JSON API: what it tells, what it does, who may, and what the audit says of it."""

from __future__ import annotations

import io
import json
from typing import Any

import pytest
from yarl import URL

from relay.console.api import ENDPOINTS
from relay.console.endpoints import PREFIX, Endpoint
from relay.events.event import Person, Push
from relay.ledger.intake import RouteReason
from relay.tokens import Role
from tests.console.desk import Answer, Desk
from tests.harness import RELAY_YAML, github_push, sha_of

WRITES = [one for one in ENDPOINTS if one.method == "POST" and one.path != "/explain"]


def path_of(endpoint: Endpoint[Any, Any]) -> str:
    return PREFIX + endpoint.path.replace("{id}", "a-b").replace("{name}", "production")


def body_of(endpoint: Endpoint[Any, Any]) -> dict[str, Any]:
    if endpoint.path == "/explain":
        return {"source": "github", "payload": json.loads(github_push())}
    reason = {"reason": "looked at it"} if endpoint.path.endswith("dismiss") else {}
    return {"ids": ["a-b"], **reason}


async def post(desk: Desk, path: str, *ids: str, **more: Any) -> list[dict[str, Any]]:
    """The results of what an operator does."""
    answer = await desk.ask("POST", PREFIX + path, "operator", json={"ids": ids, **more})
    assert answer.status == 200, answer.body
    results: list[dict[str, Any]] = answer.body["results"]
    return results


async def get(desk: Desk, path: str, status: int = 200) -> Any:
    """What a viewer is told."""
    answer = await desk.ask("GET", PREFIX + path, "viewer")
    assert answer.status == status, answer.body
    return answer.body


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
        *("/deploys/replay", "/deploys/cancel", "/deploys/approve", "/deploys/dismiss"),
        *("/targets/{name}/pause", "/targets/{name}/resume"),
    }


async def test_cookie_needs_the_sessions_token_to_write(desk: Desk) -> None:
    await desk.log_in("operator")
    path = f"{PREFIX}/targets/production/pause"

    for headers in ({}, {"X-CSRF-Token": "wrong"}):
        answer = await desk.ask("POST", path, headers=headers)
        assert (answer.status, answer.body["error"]["code"]) == (403, "forbidden")
    # The session's token is no token.
    assert (await desk.ask("POST", path, token=desk.csrf())).status == 401
    assert (await desk.ask("GET", f"{PREFIX}/targets")).status == 200

    answer = await desk.ask("POST", path, headers={"X-CSRF-Token": desk.csrf()})
    assert (answer.status, answer.body["changed"]) == (200, True)


async def test_lists_and_filters(desk: Desk) -> None:
    rows = desk.rows
    bob = Person("Bob Byte", "bob@example.com", "bob")
    web = await rows.deploy("a", message="Mend the login page")
    failed = await rows.failed("b", repo="acme/shop", branch="topic/1")
    api = await rows.deploy("c", "api", repo="acme/api", route="other", author=bob)
    received = "delivery-1"

    async def ids(query: str, kind: str = "deploys") -> list[str]:
        return [item["id"] for item in (await get(desk, f"/{kind}{query}"))["items"]]

    assert await ids("") == [api, failed, web]
    assert await ids("?status=failed") == [failed]
    assert await ids("?status=failed&status=waiting&limit=2") == [api, failed]
    assert await ids("?attention=true") == [failed]
    assert await ids("?repo=acme/a*") == [api]
    assert await ids("?repo=ACME/a*&repo=acme/shop") == [api, failed]
    assert await ids("?branch=topic/*") == [failed]
    assert await ids("?target=api&target=production") == [api, failed, web]
    assert await ids("?target=api") == [api]
    assert await ids("?route=web") == [failed, web]
    assert await ids("?route=none") == []
    assert await ids("?author=BOB") == [api]
    assert await ids("?words=login+mend") == [web]
    assert await ids("?words=logout") == []
    assert await ids(f"?sha={sha_of('a')[:7]}") == [web]
    assert await ids(f"?sha={sha_of('a')}") == [web]
    assert await ids(f"?sha={sha_of('a')[:-1]}0") == []
    assert await ids("?since=1h") == [api, failed, web]
    assert await ids("?since=2099-01-01") == []
    assert await ids("?until=1h") == []
    assert await ids("?source=github") == [api, failed, web]
    assert await ids("?source=github&words=login", "deliveries") == [received]
    assert await ids("?source=gitlab", "deliveries") == []
    assert await ids("?status=routed&verdict=new&repo=acme/web", "deliveries") == [received]
    assert await ids("?status=ignored", "deliveries") == []


async def test_cursor_walks_all_without_gap_or_repeat(desk: Desk) -> None:
    """230 deploys; while they are listed, some end and others come."""
    made = [await desk.rows.deploy(f"n{one}", repo=f"acme/r{one % 7}") for one in range(230)]

    met: list[str] = []
    cursor: str | None = ""
    while cursor is not None:
        page = await get(desk, f"/deploys?limit=50&cursor={cursor}")
        met += [item["id"] for item in page["items"]]
        cursor = page["next"]
        await desk.rows.deploy(f"later{len(met)}", repo="acme/later")

    assert met == made[::-1]


@pytest.mark.parametrize("path", ["deploys?cursor=delivery-1", "history?cursor=7"])
async def test_cursor_of_something_else(desk: Desk, path: str) -> None:
    assert (await get(desk, f"/{path}", 400))["error"]["code"] == "bad_request"


async def test_one_deploy_and_one_delivery(desk: Desk) -> None:
    live = await desk.rows.succeeded("a")
    deploy = await desk.rows.failed("b", reason="HTTP 404")

    told = await get(desk, f"/deploys/{deploy}")
    assert (told["record"]["status"], told["record"]["target"]) == ("failed", "production")
    assert [(one["attempt"], one["outcome"]) for one in told["attempts"]] == [(1, "failed")]
    assert told["event"]["after"] == sha_of("b")
    assert (told["live"]["deploy"], told["live"]["states_back"]) == (live, 0)
    told = await get(desk, f"/deliveries/{told['record']['delivery']}")
    assert [one["id"] for one in told["deploys"]] == [deploy]
    assert (told["record"]["verdict"], told["record"]["outcome"]) == ("new", "failed")
    # One is not the other.
    for path in ("/deploys/delivery-1", "/deliveries/deploy-1", "/deploys/deploy-99"):
        assert (await get(desk, path, 404))["error"]["code"] == "not_found"


async def test_reasons_of_what_was_ignored(desk: Desk) -> None:
    reasons = (RouteReason("web", "branch topic does not match main"),)
    delivery = await desk.rows.push("a", branch="topic", reasons=reasons)

    told = await get(desk, f"/deliveries/{delivery}")
    assert told["record"]["status"] == "ignored"
    assert told["reasons"] == [{"route": "web", "reason": "branch topic does not match main"}]


async def test_payload(desk: Desk) -> None:
    kept = await desk.rows.push("a", payload=b'{"ref":1,"secret":"****"}')

    told = await get(desk, f"/deliveries/{kept}/payload")
    assert told == {"payload": {"ref": 1, "secret": "****"}}
    for payload, why in (
        ("it is larger than 24 MiB", "the payload is not kept: it is larger than 24 MiB"),
        (None, "the payload is not kept any more: retention has deleted it"),
        (b'{"ref"', "the payload cannot be read: it is damaged"),
    ):
        without = await desk.rows.push("b", repo=f"acme/{len(why)}", payload=payload)
        told = await get(desk, f"/deliveries/{without}/payload", 404)
        assert told == {"error": {"code": "not_found", "message": why}}
    told = await get(desk, "/deliveries/delivery-99/payload", 404)
    assert told["error"]["message"] == "no delivery has the id delivery-99"


async def test_replay(desk: Desk) -> None:
    old = await desk.rows.failed("a")
    waits = await desk.rows.deploy("b", repo="acme/other")
    ids = (old, waits, old)

    dry = await post(desk, "/deploys/replay", *ids, dry_run=True)
    assert [(one["id"], one["done"]) for one in dry] == [(old, True), (waits, False)]
    assert desk.audit("console.acted") == []

    [done, refused] = await post(desk, "/deploys/replay", *ids)
    assert (done["done"], done["new"]) == (True, "deploy-3")
    assert (refused["refusal"], refused["message"]) == (
        "active",
        "it has not ended: it is waiting",
    )
    record = (await get(desk, "/deploys/deploy-3"))["record"]
    assert (record["requested_by"], record["replay_of"]) == ("a-operator", old)
    [acted] = desk.audit("console.acted")
    assert {key: acted[key] for key in ("by", "action", "deploy", "new")} == {
        "by": "a-operator",
        "action": "replay",
        "deploy": old,
        "new": "deploy-3",
    }
    [queued] = desk.audit("deploy.queued")
    assert (queued["deploy"], queued["sender"]) == ("deploy-3", "ada")
    again = await post(desk, "/deploys/replay", *ids)
    assert [one["refusal"] for one in again] == ["replaying", "active"]


async def test_replay_says_what_it_would_replace(desk: Desk) -> None:
    old = await desk.rows.failed("a")
    await desk.rows.succeeded("b")
    live = await desk.rows.succeeded("c")

    for dry in (True, False):
        [refused] = await post(desk, "/deploys/replay", old, dry_run=dry)
        assert (refused["done"], refused["refusal"]) == (False, "overtaken")
        assert refused["live"]["deploy"] == live
        assert refused["live"]["sha"] == sha_of("c")
        assert (refused["replaces"], refused["states_back"]) == (sha_of("a"), 2)
        assert f"{live} with {sha_of('c')[:12]} is live there" in refused["message"]
    assert desk.audit("console.acted") == []

    [done] = await post(desk, "/deploys/replay", old, force=True)
    assert (done["done"], done["states_back"], done["live"]["deploy"]) == (True, 2, live)
    # A newer success has made the failure a matter of the past.
    assert (await get(desk, "/deploys?attention=true"))["items"] == []


async def test_dismiss(desk: Desk) -> None:
    uncertain = await desk.rows.end(await desk.rows.deploy("a"), "uncertain", "no answer")
    fine = await desk.rows.succeeded("b", repo="acme/fine")

    [done, refused] = await post(
        desk, "/deploys/dismiss", uncertain, fine, reason="deployed, I looked"
    )

    assert done["done"] is True
    assert (refused["refusal"], refused["message"]) == (
        "undecided",
        "only failed, uncertain and unknown deploys are dismissed; it is succeeded",
    )
    told = await get(desk, f"/deploys/{uncertain}")
    assert (told["record"]["status"], told["record"]["dismissed_by"]) == ("dismissed", "a-operator")
    assert [(one["what"], one["note"]) for one in told["actions"]] == [
        ("dismiss", "deployed, I looked")
    ]
    [dismissed] = desk.audit("deploy.dismissed")
    assert (dismissed["deploy"], dismissed["reason"]) == (uncertain, "deployed, I looked")
    for body in ({"ids": [uncertain]}, {"ids": [uncertain], "reason": " "}):
        answer = await desk.ask("POST", f"{PREFIX}/deploys/dismiss", "operator", json=body)
        assert answer.status == 400


async def test_delivery_is_replayed_and_cancelled(desk: Desk) -> None:
    reasons = (RouteReason("web", "branch topic does not match main"),)
    old = await desk.rows.push("a", branch="topic", reasons=reasons)
    waits = await desk.rows.push("b", repo="acme/other")

    [done] = await post(desk, "/deliveries/replay", old)
    assert done["new"] == "delivery-3"
    [done] = await post(desk, "/deliveries/cancel", waits)
    assert done["done"] is True
    record = (await get(desk, f"/deliveries/{waits}"))["record"]
    assert (record["status"], record["cancelled_by"]) == ("ignored", "a-operator")
    [cancelled] = desk.audit("delivery.cancelled")
    assert (cancelled["delivery"], cancelled["by"], cancelled["repo"]) == (
        waits,
        "a-operator",
        "acme/other",
    )
    assert [line["action"] for line in desk.audit("console.acted")] == ["replay", "cancel"]
    [refused] = await post(desk, "/deliveries/cancel", "deploy-1")
    assert refused["refusal"] == "unknown"


async def test_approval(desk: Desk) -> None:
    asks = await desk.rows.deploy("a", "gated")
    await desk.rows.claim(asks, "gated", approval="required")
    other = await desk.rows.deploy("b", repo="acme/other")

    results = await post(desk, "/deploys/approve", asks, other)

    assert [one["refusal"] for one in results] == ["", "unasked"]
    record = (await get(desk, f"/deploys/{asks}"))["record"]
    assert (record["approved_by"], record["waits_for"]) == ("a-operator", "")
    assert [line["deploy"] for line in desk.audit("console.acted")] == [asks]


async def test_late_approval_says_what_it_would_replace(desk: Desk) -> None:
    asks = await desk.rows.deploy("a", "api")
    await desk.rows.claim(asks, "api", approval="required")
    live = await desk.rows.succeeded("b", target="api")

    [refused] = await post(desk, "/deploys/approve", asks)
    assert (refused["refusal"], refused["states_back"]) == ("overtaken", 1)
    assert refused["live"]["deploy"] == live
    [done] = await post(desk, "/deploys/approve", asks, force=True)
    assert (done["done"], done["new"]) == (True, "deploy-3")


async def test_many_are_done_in_several_transactions(desk: Desk) -> None:
    waiting = [await desk.rows.deploy(f"n{one}", repo=f"acme/r{one}") for one in range(60)]

    results = await post(desk, "/deploys/cancel", *waiting, "deploy-99", waiting[0])

    assert [one["id"] for one in results] == [*waiting, "deploy-99"]
    assert [one["done"] for one in results] == [True] * 60 + [False]
    assert len(desk.audit("deploy.cancelled")) == 60


async def test_target_is_paused_and_resumed(desk: Desk) -> None:
    deploy = await desk.rows.deploy("a")
    await desk.rows.claim(deploy)

    async def production() -> Any:
        items = (await get(desk, "/targets"))["items"]
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


async def test_health_counts_what_a_worker_would_take(desk: Desk) -> None:
    await desk.rows.push("a")
    await desk.rows.deploy("b", repo="acme/other")
    await desk.rows.succeeded("c", repo="acme/third")

    assert (await get(desk, "/health"))["queued"] == 2


async def test_tag_has_its_name(desk: Desk) -> None:
    event = Push("acme/web", "refs/tags/v1", "0" * 40, sha_of("a"), created=True)
    await desk.rows.store(event)

    [item] = (await get(desk, "/deliveries?branch=v*"))["items"]
    assert (item["branch"], item["ref"]) == ("v1", "refs/tags/v1")


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
    page = await desk.ask("POST", "/routes", data={"csrf": desk.csrf(), **form})
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
    ["deploys?cursor=%ff%fe", "deploys?author=%ed%a0%80", "deploys/%ff-a", "deploys?repo=%00"],
)
async def test_text_that_is_none(desk: Desk, path: str) -> None:
    answer = await desk.ask("GET", URL(f"{PREFIX}/{path}", encoded=True), "viewer")

    assert answer.status in (200, 400, 404)
