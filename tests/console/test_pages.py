"""The pages over real HTTP: what they show and to whom, and that a pusher's names stay names."""

from __future__ import annotations

import asyncio
import json
import re
from html import unescape
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import quote

import aiohttp
import pytest
from aiohttp import web

from config.settings import Settings
from relay import finding
from relay.console import live, pages
from relay.console.payload_pages import MOST_PAYLOAD
from relay.payload_reading import TOO_LARGE, payload_key
from tests.console.desk import Desk
from tests.harness import (
    GITHUB_SECRET,
    Relay,
    Target,
    github_headers,
    github_push,
    sha_of,
    until,
)

YAML = """\
sources:
  github: {provider: github, secrets: [{env: TEST_GITHUB_SECRET}]}
targets:
  production:
    preset: flightcontrol
    url: {env: TEST_PRODUCTION_HOOK}
    retry: {attempts: 1}
  gated:
    preset: http
    url: {env: TEST_API_URL}
    headers: {Authorization: {env: TEST_API_TOKEN}}
    json: {sha: "{{ event.sha }}"}
    approval: required
routes:
  - {name: everything, repo: "**", on: push, branches: ["**", "!held"], deploy: [production]}
  - {name: gated, repo: acme/api, on: push, deploy: [gated]}
  - {name: elsewhere, repo: other/thing, on: push, deploy: [production]}
"""

NASTY = "<script>alert(1)</script>"
NASTIER = "\"'><img src=x onerror=alert(2)>"


@pytest.fixture
async def settings(relay: Relay, server_socket: Path) -> Settings:
    relay.write(YAML)
    return Settings(
        config=relay.folder / "relay.yaml",
        redis_url=f"unix://{server_socket}",  # type: ignore[arg-type]
        store_timeout=5,
    )


@pytest.fixture
async def busy(desk: Desk, relay: Relay) -> Desk:
    """A desk beside a receiver and a worker."""
    await asyncio.gather(relay.serve(), relay.work())
    return desk


async def pushed(relay: Relay, *, author: str = "a", message: str = "", **push: Any) -> str:
    """The id of the delivery of a push."""
    body = json.loads(github_push(**push))
    body["head_commit"]["author"]["username"] = author
    body["head_commit"]["message"] = message or "Change it"
    body["commits"] = [body["head_commit"]]
    raw = json.dumps(body).encode()
    status, answer = await relay.post("github", raw, github_headers(raw))
    assert (status, answer["status"]) == (202, "queued")
    return str(answer["delivery"])


async def told(relay: Relay, event: str, **fields: Any) -> dict[str, Any]:
    """What the worker says."""
    [*_, line] = await relay.processes[1].wait_for(event, **fields)
    return line


async def stands(desk: Desk, id_: str, status: str) -> None:
    """Until Redis has it too: the audit says it a moment before."""
    await until(lambda: desk.store.hget(f"rq:job:{id_}", "status") == status.encode())


async def get(desk: Desk, path: str, status: int = 200) -> str:
    answer = await desk.ask("GET", path)
    assert answer.status == status, answer.body
    assert_is_safe(answer.body)
    return str(answer.body)


async def post(desk: Desk, path: str, **form: str) -> tuple[int, str, str]:
    [session] = desk.sessions()
    answer = await desk.ask("POST", path, data={"csrf": desk.csrf(session), **form})
    assert_is_safe(answer.body)
    return answer.status, answer.headers.get("Location", ""), answer.body


class _Tags(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.scripts: list[str | None] = []
        self.unsafe: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        names = dict(attrs)
        if tag == "script":
            self.scripts.append(names.get("src"))
        if tag in ("style", "img", "iframe", "base"):
            self.unsafe.append(tag)
        self.unsafe += [name for name in names if name.startswith("on") or name == "style"]
        for name in ("href", "src", "action"):
            if not (names.get(name) or "/").startswith(("/", "#")):
                self.unsafe.append(f"{name}={names[name]}")


def assert_is_safe(html: str) -> None:
    """No script, style or place but our own."""
    tags = _Tags()
    tags.feed(html)
    assert tags.unsafe == []
    assert set(tags.scripts) <= {"/static/console.js"}


def text_of(html: str) -> str:
    """What a person reads."""
    return re.sub(r"\s+", " ", re.sub(r"<[^>]*>", " ", html))


async def test_login(desk: Desk) -> None:
    assert 'name="token"' in await get(desk, "/login")
    answer = await desk.ask("GET", "/deliveries")
    assert (answer.status, answer.headers["Location"]) == (303, "/login")

    answer = await desk.ask("POST", "/login", data={"token": "drt_no"})
    assert answer.status == 401
    assert 'role="alert"' in answer.body
    assert 'name="token"' in answer.body

    assert (await desk.log_in("viewer")).headers["Location"] == "/"
    assert "a-viewer, viewer" in text_of(await get(desk, "/"))
    status, place, _ = await post(desk, "/logout")
    assert (status, place) == (303, "/login")
    assert (await desk.ask("GET", "/")).status == 303


async def test_empty_pages_say_what_to_do(desk: Desk) -> None:
    await desk.log_in("viewer")

    assert "Nothing. No deploy has failed" in text_of(await get(desk, "/"))
    assert "deploy-relay send github" in await get(desk, "/deliveries")
    assert "Nothing has been deployed yet" in await get(desk, "/deploys")
    assert "Show all deploys" in await get(desk, "/deploys?repo=acme/nothing")
    assert "There" not in await get(desk, "/deploys?status=failed")


@pytest.mark.parametrize(
    ("query", "mistake"),
    [
        ("status=odd", "there is no status odd"),
        ("sha=xyz", "a commit is searched for by the digits"),
        ("since=soon", "write 30m, 2h, 3d"),
        ("repo=re:.*", "write a glob"),
        ("branch=!re:.*", "write a glob"),
        ("repo=[", "without a closing"),
    ],
)
async def test_search_that_cannot_be_understood(desk: Desk, query: str, mistake: str) -> None:
    await desk.log_in("viewer")

    assert mistake in await get(desk, f"/deploys?{query}", 400)


async def test_way_of_a_webhook(busy: Desk, relay: Relay) -> None:
    delivery = await pushed(relay, repo="acme/web")
    deploy = (await told(relay, "deploy.succeeded"))["deploy"]
    await stands(busy, deploy, "finished")
    await busy.log_in("viewer")

    html = await get(busy, f"/deliveries/{quote(delivery, safe='')}")
    text = text_of(html)

    order = ["Received", "Queued", "Matched", "1 of 3 routes match", "Deploy to production"]
    assert [text.index(word) for word in order] == sorted(text.index(word) for word in order)
    assert "everything : all conditions hold" in text
    assert "repo acme/web does not match acme/api" in text
    assert "The platform accepted it at" in text
    assert f'href="/deploys/{deploy}"' in html
    assert "Change it" in html
    page = text_of(await get(busy, f"/deploys/{deploy}"))
    assert "production" in page
    assert delivery in page
    assert "Attempt 1: succeeded, HTTP 200" in page


async def test_a_payload_is_shown_without_its_secrets(busy: Desk, relay: Relay) -> None:
    body = json.loads(github_push())
    body["secret"] = "hook-secret-of-gogs"
    body["pusher"] = {"name": NASTY, "note": f"{GITHUB_SECRET} </pre>"}
    raw = json.dumps(body).replace("github-", "\\u0067ithub-").encode()
    _, answer = await relay.post("github", raw, github_headers(raw))
    delivery = str(answer["delivery"])
    await until(lambda: busy.store.exists(payload_key(delivery)))
    place = f"/deliveries/{quote(delivery, safe='')}"

    assert (await busy.ask("GET", f"{place}/payload")).status == 303
    await busy.log_in("viewer")
    html = await get(busy, place)

    assert f'href="{place}/payload"' in html
    assert "This is the beginning" not in html
    shown = unescape(html.partition('aria-label="The payload">')[2].partition("</pre>")[0])
    assert json.loads(shown) == {
        **body,
        "secret": "****",
        "pusher": {"name": NASTY, "note": "**** </pre>"},
    }
    whole = await busy.ask("GET", f"{place}/payload")
    assert (whole.status, whole.body) == (200, shown)
    assert whole.headers["Content-Type"] == "text/plain; charset=utf-8"
    assert whole.headers["Content-Security-Policy"] == "default-src 'none'; sandbox"
    assert whole.headers["X-Content-Type-Options"] == "nosniff"


async def test_of_a_long_payload_the_page_has_the_beginning(busy: Desk, relay: Relay) -> None:
    await busy.log_in("viewer")
    raw = github_push(note="x" * 2 * MOST_PAYLOAD)
    _, answer = await relay.post("github", raw, github_headers(raw))
    delivery = str(answer["delivery"])
    await until(lambda: busy.store.exists(payload_key(delivery)))
    place = f"/deliveries/{quote(delivery, safe='')}"

    html = await get(busy, place)

    assert "This is the beginning." in text_of(html)
    assert html.count("x" * 1_000) < 2 * MOST_PAYLOAD // 1_000
    assert json.loads((await busy.ask("GET", f"{place}/payload")).body) == json.loads(raw)


async def test_why_there_is_no_payload(busy: Desk, relay: Relay) -> None:
    await busy.log_in("viewer")
    delivery = await pushed(relay)
    await until(lambda: busy.store.exists(payload_key(delivery)))
    busy.store.set(payload_key(delivery), TOO_LARGE)
    place = f"/deliveries/{quote(delivery, safe='')}"

    assert "The payload is not kept: it is larger than 1 MiB." in text_of(await get(busy, place))
    page = text_of(await get(busy, f"{place}/payload", 404))
    assert "the payload is not kept: it is larger than 1 MiB" in page
    assert "no such delivery" in await get(busy, "/deliveries/github--nothing/payload", 404)


async def test_attempts_show_request_and_answer(busy: Desk, relay: Relay) -> None:
    delivery = await pushed(relay, repo="acme/web")
    deploy = (await told(relay, "deploy.succeeded"))["deploy"]
    await stands(busy, deploy, "finished")
    kept = {
        "at": "2026-11-25T12:00:00Z",
        "attempt": 1,
        "outcome": "retry",
        "reason": "HTTP 503",
        "method": "POST",
        "host": "platform.example",
        "request_headers": {"Authorization": "****"},
        "request_body": NASTY,
        "status": 503,
        "response_headers": {"Retry-After": "2"},
        "response_body": NASTIER,
        "ms": 12.5,
    }
    key = f"relay:attempts:{deploy}"
    busy.store.delete(key)
    busy.store.rpush(key, json.dumps(kept), b"\xff", json.dumps({"attempt": "two"}))
    busy.store.rpush(key, *[json.dumps({**kept, "attempt": n}) for n in range(2, 31)])
    await busy.log_in("viewer")

    for path in (f"/deploys/{deploy}", f"/deliveries/{quote(delivery, safe='')}"):
        html = await get(busy, path)
        assert html.count("<summary>Attempt ") == 20
        # By these a refreshed page knows which were open.
        anchors = re.findall(r'<details id="(attempt-[^"]*)"', html)
        assert anchors == [f"attempt-{deploy}-{number}" for number in range(20)]
        assert "Attempt 30: retry, HTTP 503, 12.5 ms: HTTP 503" in html
        assert "Attempt 10:" not in html
        assert "POST platform.example" in html
        assert "Authorization: ****" in html
        assert "Retry-After: 2" in html
        assert "&lt;script&gt;alert(1)&lt;/script&gt;</pre>" in html
    busy.store.ltrim(key, 0, 2)
    assert (await get(busy, f"/deploys/{deploy}")).count("<summary>Attempt ") == 1


async def test_lists_are_searched(busy: Desk, relay: Relay) -> None:
    await pushed(relay, repo="acme/web", ref="refs/heads/main", after=sha_of("x"), author="ann")
    await pushed(relay, repo="acme/api", ref="refs/heads/topic/1", after=sha_of("y"), author="bob")
    await told(relay, "deploy.succeeded", repo="acme/web")
    await told(relay, "deploy.succeeded", repo="acme/api")
    await told(relay, "deploy.waiting", repo="acme/api")
    await until(lambda: busy.store.zcard("rq:scheduled:deploy-relay") == 1)
    await until(lambda: busy.store.zcard("rq:finished:deploy-relay") == 4)
    await busy.log_in("viewer")

    async def found(path: str) -> set[str]:
        rows = re.findall(r'<tr id="row-.*?</tr>', await get(busy, path), re.DOTALL)
        return {match for row in rows for match in re.findall(r"acme/\w+", text_of(row))}

    assert await found("/deliveries") == {"acme/web", "acme/api"}
    for query in (
        "repo=acme/w*",
        "branch=main",
        f"sha={sha_of('x')[:7]}",
        f"sha={sha_of('x').upper()}",
        "author=ANN",
        "status=succeeded",
    ):
        assert await found(f"/deliveries?{query}") == {"acme/web"}, query
    assert await found("/deliveries?source=github&since=1h") == {"acme/web", "acme/api"}
    assert await found("/deliveries?source=other") == set()
    assert await found("/deploys?target=gated") == {"acme/api"}
    assert await found("/deploys?route=gated&status=waiting&branch=topic/*") == {"acme/api"}
    assert await found("/deploys?route=elsewhere") == set()


async def test_pages_of_a_long_list_leave_no_gap(busy: Desk, relay: Relay) -> None:
    busy.store.hset("relay:target:production", "paused", "1")
    ids = await asyncio.gather(
        *(pushed(relay, repo=f"acme/r{n}", after=sha_of(f"c{n}")) for n in range(120))
    )
    await relay.processes[1].wait_for("deploy.queued", count=120)
    await busy.log_in("viewer")

    seen, path = [], "/deliveries"
    while path:
        html = await get(busy, path)
        seen += re.findall(r'<tr id="row-([^"]+)"', html)
        older = re.search(r'href="([^"]+)" rel="next"', html)
        path = older[1].replace("&amp;", "&") if older else ""

    assert len(seen) == len(set(seen)) == 120
    assert set(seen) == set(ids)


async def test_a_search_whose_time_is_over_says_how_far_it_came(
    busy: Desk, relay: Relay, monkeypatch: pytest.MonkeyPatch
) -> None:
    older = await pushed(relay, repo="acme/older", author="ann")
    newer = await pushed(relay, repo="acme/newer", author="bob")
    await told(relay, "deploy.succeeded", repo="acme/newer")
    await busy.log_in("viewer")
    monkeypatch.setattr(finding, "CLOSE_PAGE", 1)
    monkeypatch.setattr(pages, "SECONDS", 0)

    html = await get(busy, "/deliveries?author=ann")

    made: Any = busy.store.hget(f"rq:job:{newer}", "created_at")
    assert re.search(rf'Looked back to\s+<time datetime="{made.decode()}"', html)
    assert "and found nothing." in text_of(html)
    assert "Nothing of what was looked at is like that." in html
    assert 'id="row-' not in html
    [further] = re.findall(r'<a href="([^"]+)" rel="next">([^<]+)</a>', html)
    assert further[1] == "Look further"
    html = await get(busy, further[0].replace("&amp;", "&"))
    assert re.findall(r'<tr id="row-([^"]+)"', html) == [older]
    assert "Looked back" not in html
    assert 'rel="next"' not in html


async def test_names_that_a_pusher_chose_stay_names(busy: Desk, relay: Relay) -> None:
    delivery = await pushed(
        relay,
        repo=f"acme/{NASTY}",
        ref=f"refs/heads/{NASTIER}",
        author=f"{NASTY}{NASTIER}",
        message=f"{NASTY} {NASTIER} </pre><script>",
    )
    deploy = (await told(relay, "deploy.succeeded"))["deploy"]
    await busy.log_in("operator")

    for path in (
        "/",
        "/deliveries",
        "/deploys",
        f"/deploys?repo={quote(NASTIER)}&author={quote(NASTY)}&route={quote(NASTIER)}",
        f"/deliveries/{quote(delivery, safe='')}",
        f"/deploys/{deploy}",
        "/routes",
        f"/routes?delivery={quote(NASTIER)}",
    ):
        html = await get(busy, path)
        assert NASTY not in html
        assert "onerror=alert(2)>" not in html
    assert "&lt;script&gt;alert(1)" in await get(busy, "/deliveries")
    assert (await post(busy, "/routes", delivery=delivery))[0] == 200
    assert (await post(busy, "/routes", payload=NASTY, source="github"))[0] == 400
    await get(busy, f"/deliveries/{quote(NASTY, safe='')}", 404)


async def test_viewers_look_and_operators_act(busy: Desk, relay: Relay, target: Target) -> None:
    async def no(_: web.Request) -> web.StreamResponse:
        return web.Response(status=404)

    target.answer = no
    await pushed(relay, repo="acme/web")
    deploy = (await told(relay, "deploy.failed"))["deploy"]
    await stands(busy, deploy, "failed")
    path = f"/deploys/{deploy}"
    await busy.log_in("viewer")
    html = await get(busy, path)
    assert "HTTP 404" in html
    assert "Replay…" not in html
    assert "Pause…" not in await get(busy, "/")
    for place in (f"{path}/replay", "/targets/production/pause"):
        assert "role operator" in await get(busy, place, 403)
        assert (await post(busy, place))[0] == 403
    assert [line["by"] for line in busy.audit("console.refused")] == ["a-viewer"] * 4
    assert busy.audit("console.acted") == []
    await post(busy, "/logout")

    await busy.log_in("operator")
    overview = text_of(await get(busy, "/"))
    assert "1 deploy failed" in overview
    assert "0 of 1 in the last hour" in overview
    assert f'href="{path}/replay"' in await get(busy, path)
    assert "Yes, replay" in await get(busy, f"{path}/replay")
    assert (await busy.ask("POST", f"{path}/replay", data={"csrf": "wrong"})).status == 403
    status, place, _ = await post(busy, f"{path}/replay")
    assert status == 303
    assert place == f"/deploys/{deploy}-2?told=replay"
    assert "This is the replay" in await get(busy, place)
    assert f'href="{path}"' in await get(busy, place)
    assert "asked for by a-operator" in text_of(await get(busy, place))
    assert "Replay…" not in await get(busy, path)
    status, _, html = await post(busy, f"{path}/replay")
    assert status == 409
    assert "Not replayed" in html
    [acted] = busy.audit("console.acted")
    assert (acted["by"], acted["action"], acted["deploy"]) == ("a-operator", "replay", deploy)
    assert (await told(relay, "deploy.replayed"))["by"] == "a-operator"


async def test_approve_and_cancel(busy: Desk, relay: Relay) -> None:
    await pushed(relay, repo="acme/api", ref="refs/heads/held", after=sha_of("1"))
    first = (await told(relay, "deploy.waiting", sha=sha_of("1")))["deploy"]
    await pushed(relay, repo="acme/api", ref="refs/heads/held", after=sha_of("2"))
    second = (await told(relay, "deploy.waiting", sha=sha_of("2")))["deploy"]
    await until(lambda: busy.store.zcard("rq:scheduled:deploy-relay") == 2)
    await busy.log_in("operator")
    assert "2 deploys waiting for approval" in text_of(await get(busy, "/"))
    html = await get(busy, f"/deploys/{first}")
    assert html.index("Approve…") < html.index("Cancel…")
    assert "Waits for somebody to approve it" in html

    assert (await post(busy, f"/deploys/{first}/approve"))[0] == 303
    assert (await post(busy, f"/deploys/{second}/cancel"))[0] == 303

    assert (await told(relay, "deploy.approved", deploy=first))["by"] == "a-operator"
    await told(relay, "deploy.succeeded", deploy=first)
    await stands(busy, first, "finished")
    assert "Approved by a-operator" in await get(busy, f"/deploys/{first}")
    assert "Cancelled by a-operator" in await get(busy, f"/deploys/{second}")
    assert [line["action"] for line in busy.audit("console.acted")] == ["approve", "cancel"]
    await get(busy, "/deliveries/x/approve", 404)


async def test_targets_are_paused_and_resumed(desk: Desk) -> None:
    await desk.log_in("operator")
    assert "Yes, pause" in await get(desk, "/targets/production/pause")

    assert (await post(desk, "/targets/production/pause"))[:2] == (303, "/?told=pause")
    html = await get(desk, "/?told=pause")
    assert "The target is paused." in html
    assert "/targets/production/resume" in html
    assert "paused since" in text_of(html).partition("Now")[0]
    assert (await post(desk, "/targets/production/resume"))[0] == 303
    assert "/targets/production/pause" in await get(desk, "/")
    assert (await post(desk, "/targets/nothing/pause"))[0] == 404
    assert [line["action"] for line in desk.audit("console.acted")] == ["pause", "resume"]


async def test_what_would_happen_if(busy: Desk, relay: Relay) -> None:
    busy.store.hset("relay:target:production", "paused", "1")
    delivery = await pushed(relay, repo="acme/api")
    await busy.log_in("viewer")
    html = await get(busy, "/routes")
    assert "everything" in html
    assert f'<option value="{delivery}">' in html

    for form in (
        {"source": "github", "payload": github_push(repo="acme/api").decode()},
        {"delivery": delivery},
    ):
        status, _, html = await post(busy, "/routes", **form)
        assert status == 200
        text = text_of(html)
        assert "2 of 3 routes match" in text
        assert "GET &lt;env TEST_PRODUCTION_HOOK&gt;?commit=" in html
        assert "Authorization: ****" in html
        assert "elsewhere : repo acme/api does not match other/thing" in text
        assert "redelivery has the same delivery id" in text

    for form, mistake in (
        ({"source": "github", "payload": "{"}, "The payload is not understood"),
        ({"source": "nobody", "payload": "{}"}, "No source"),
        ({"delivery": "github--gone"}, "There is no such delivery"),
        ({}, "Paste a payload"),
    ):
        status, _, html = await post(busy, "/routes", **form)
        assert status == 400
        assert mistake in html
    status, _, html = await post(
        busy, "/routes", source="github", payload='{"zen": "x", "hook_id": 1}', event="ping"
    )
    assert status == 200
    assert "It would be ignored: ping" in html
    _, _, html = await post(busy, "/routes", source="github", payload='{"starred_at": ""}')
    assert "if it is one, say what its event header was" in html


async def test_rows_come_live(busy: Desk, relay: Relay, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live, "MOST_CLIENTS", 2)
    await busy.log_in("viewer")
    async with (
        busy.http.get("/live?kind=delivery&repo=acme/w*") as rows,
        busy.http.get("/live") as all_of_it,
    ):
        assert rows.content_type == "text/event-stream"
        assert "default-src 'none'" in rows.headers["Content-Security-Policy"]
        assert (await busy.ask("GET", "/live")).status == 503
        # What happened between the page and its stream nobody has told.
        for stream in (rows, all_of_it):
            while await message(stream) != ("missed", ""):
                pass
        await pushed(relay, repo="acme/other")
        delivery = await pushed(relay, repo="acme/web", ref=f"refs/heads/{NASTIER}")

        name, data = await message(rows)
        assert name == "row"
        row = json.loads(data)
        assert row["id"] == f"row-{delivery}"
        assert "acme/web" in row["text"]
        assert_is_safe(row["html"])
        assert await message(all_of_it) == ("changed", "")
        monkeypatch.setattr(live, "MOST_CLIENTS", 3)
        async with busy.http.get("/live") as later:
            while await message(later) != ("missed", ""):
                pass
    await get(busy, "/live?kind=delivery&status=odd", 400)


async def message(stream: aiohttp.ClientResponse) -> tuple[str, str]:
    """The next event's name and data."""
    async with asyncio.timeout(20):
        while True:
            part = (await stream.content.readuntil(b"\n\n")).decode()
            if not part.startswith(":"):
                name, data = part.rstrip("\n").split("\n")
                return name.removeprefix("event: "), data.removeprefix("data: ")
