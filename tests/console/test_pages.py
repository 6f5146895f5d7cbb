"""The pages over real HTTP: what they show and to whom, and that a pusher's names stay names."""

from __future__ import annotations

import asyncio
import json
import re
from html import unescape
from html.parser import HTMLParser
from urllib.parse import quote

import aiohttp
import pytest

from relay.attempt_record import AttemptRecord
from relay.console import live, pages
from relay.console.payloads import MOST_PAYLOAD
from relay.console.words import CHECK_PLATFORM
from relay.events.event import Person, Push
from relay.ledger import lists
from relay.ledger.intake import RouteReason
from tests.console.desk import Desk
from tests.harness import github_push, sha_of

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
  - {name: everything, repo: "**", on: push, deploy: [production]}
  - {name: gated, repo: acme/api, on: push, deploy: [gated]}
  - {name: elsewhere, repo: other/thing, on: push, deploy: [production]}
"""

NASTY = "<script>alert(1)</script>"
NASTIER = "\"'><img src=x onerror=alert(2)>"


@pytest.fixture
def relay_yaml() -> str:
    return YAML


async def get(desk: Desk, path: str, status: int = 200) -> str:
    answer = await desk.ask("GET", path)
    assert answer.status == status, answer.body
    assert_is_safe(answer.body)
    return str(answer.body)


async def post(desk: Desk, path: str, **form: str) -> tuple[int, str, str]:
    answer = await desk.ask("POST", path, data={"csrf": desk.csrf(), **form})
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


async def test_timeline_of_a_webhook(desk: Desk) -> None:
    deploy = await desk.rows.succeeded("a", route="everything")
    delivery = "delivery-1"
    await desk.log_in("viewer")

    html = await get(desk, f"/deliveries/{delivery}")
    text = text_of(html)

    order = ["Received", "It is a new state of its ref", "Routed", "1 of 3 routes match now"]
    order += ["Deploy to production", "The event as stored"]
    assert [text.index(word) for word in order] == sorted(text.index(word) for word in order)
    assert "everything : all conditions hold" in text
    assert "repo acme/web does not match acme/api" in text
    assert "The platform accepted it" in text
    assert "It is live." in text
    assert f'href="/deploys/{deploy}"' in html
    assert "Change it" in html
    page = text_of(await get(desk, f"/deploys/{deploy}"))
    assert "production" in page
    assert delivery in page
    assert "Attempt 1: succeeded" in page


async def test_verdicts_are_told_in_words(desk: Desk) -> None:
    late = Push(
        "acme/web", "refs/heads/main", "0" * 40, sha_of("a"), changed_at=1e9, own_clock=True
    )
    newer = Push(
        "acme/web", "refs/heads/main", sha_of("x"), sha_of("b"), changed_at=1.5e9, own_clock=True
    )
    await desk.rows.store(newer)
    stored = await desk.rows.store(late)
    await desk.log_in("viewer")

    text = text_of(await get(desk, f"/deliveries/delivery-{stored.id}"))

    assert stored.verdict == "late"
    assert "It is late: its ref has moved on since, so it is not deployed." in text
    assert "No route was asked." in text
    first = text_of(await get(desk, "/deliveries/delivery-1"))
    assert "Uncertain order: it is the first one and already old." in first
    assert "order uncertain" in text_of(await get(desk, "/deliveries"))
    rows = await get(desk, "/deliveries?verdict=late")
    assert re.findall(r'<tr id="row-([^"]+)"', rows) == ["delivery-2"]


async def test_of_an_ignored_delivery_each_route_is_told(desk: Desk) -> None:
    reasons = (RouteReason("everything", "branch topic does not match main"),)
    delivery = await desk.rows.push("a", branch="topic", reasons=reasons)
    await desk.log_in("operator")

    html = await get(desk, f"/deliveries/{delivery}")

    assert "everything : branch topic does not match main" in text_of(html)
    assert f'href="/routes?delivery={delivery}"' in html
    assert "It led to no deploy." in html
    # relay.yaml may have a route for it by now.
    assert f'href="/deliveries/{delivery}/replay"' in html


async def test_a_payload_is_shown(desk: Desk) -> None:
    body = {"ref": 1, "secret": "****", "pusher": {"name": NASTY, "note": "**** </pre>"}}
    delivery = await desk.rows.push("a", payload=json.dumps(body).encode())
    path = f"/deliveries/{delivery}"

    assert (await desk.ask("GET", f"{path}/payload")).status == 303
    await desk.log_in("viewer")
    html = await get(desk, path)

    assert f'href="{path}/payload"' in html
    assert "This is the beginning" not in html
    shown = unescape(html.partition('aria-label="The payload">')[2].partition("</pre>")[0])
    assert json.loads(shown) == body
    whole = await desk.ask("GET", f"{path}/payload")
    assert (whole.status, whole.body) == (200, shown)
    assert whole.headers["Content-Type"] == "text/plain; charset=utf-8"
    assert whole.headers["Content-Security-Policy"] == "default-src 'none'; sandbox"
    assert whole.headers["X-Content-Type-Options"] == "nosniff"


async def test_of_a_long_payload_the_page_has_the_beginning(desk: Desk) -> None:
    raw = github_push(note="x" * 2 * MOST_PAYLOAD)
    delivery = await desk.rows.push("a", payload=raw)
    await desk.log_in("viewer")

    html = await get(desk, f"/deliveries/{delivery}")

    assert "This is the beginning." in text_of(html)
    assert html.count("x" * 1_000) < 2 * MOST_PAYLOAD // 1_000
    whole = await desk.ask("GET", f"/deliveries/{delivery}/payload")
    assert json.loads(whole.body) == json.loads(raw)


async def test_why_there_is_no_payload(desk: Desk) -> None:
    delivery = await desk.rows.push("a", payload="it is larger than 24 MiB")
    await desk.log_in("viewer")

    for path in (f"/deliveries/{delivery}", f"/deliveries/{delivery}/payload"):
        page = text_of(await get(desk, path, 404 if path.endswith("payload") else 200))
        assert "he payload is not kept: it is larger than 24 MiB" in page
    assert "no delivery has the id" in await get(desk, "/deliveries/delivery-9/payload", 404)


async def test_attempts_show_request_and_answer(desk: Desk) -> None:
    deploy = await desk.rows.deploy("a")
    kept = AttemptRecord(
        at="",
        attempt=0,
        outcome="",
        method="POST",
        host="platform.example",
        request_headers={"Authorization": "****"},
        request_body=NASTY,
        response_headers={"Retry-After": "2"},
        response_body=NASTIER,
    )
    await desk.rows.end(deploy, "waiting", "HTTP 503", http=503, kept=kept)
    await desk.log_in("viewer")

    for path in (f"/deploys/{deploy}", "/deliveries/delivery-1"):
        html = await get(desk, path)
        # By these a refreshed page knows which were open.
        assert re.findall(r'<details id="(attempt-[^"]*)"', html) == [f"attempt-{deploy}-0"]
        assert "Attempt 1: retry, HTTP 503, 12.5 ms: HTTP 503" in html
        assert "POST platform.example" in html
        assert "Authorization: ****" in html
        assert "Retry-After: 2" in html
        assert "&lt;script&gt;alert(1)&lt;/script&gt;</pre>" in html
        assert "Its call did not succeed. It is made again" in html


async def test_lists_are_searched(desk: Desk) -> None:
    ann, bob = Person(login="ann"), Person(login="bob")
    await desk.rows.succeeded("x", author=ann, message="Mend the login")
    gated = await desk.rows.deploy(
        "y", "gated", repo="acme/api", branch="topic/1", author=bob, route="gated"
    )
    await desk.log_in("viewer")

    async def found(path: str) -> set[str]:
        rows = re.findall(r'<tr id="row-.*?</tr>', await get(desk, path), re.DOTALL)
        return {match for row in rows for match in re.findall(r"acme/\w+", text_of(row))}

    assert await found("/deliveries") == {"acme/web", "acme/api"}
    for query in (
        "repo=acme/w*",
        "branch=main",
        f"sha={sha_of('x')[:7]}",
        f"sha={sha_of('x').upper()}",
        "author=ANN",
        "words=LOGIN+mend",
    ):
        assert await found(f"/deliveries?{query}") == {"acme/web"}, query
    assert await found("/deliveries?source=github&since=1h") == {"acme/web", "acme/api"}
    assert await found("/deliveries?until=1h") == set()
    assert await found("/deliveries?source=other") == set()
    assert await found("/deliveries?status=routed&verdict=new") == {"acme/web", "acme/api"}
    assert await found("/deploys?status=succeeded") == {"acme/web"}
    assert await found("/deploys?target=gated") == {"acme/api"}
    assert await found("/deploys?route=gated&status=waiting&branch=topic/*") == {"acme/api"}
    assert await found("/deploys?route=elsewhere") == set()
    assert await found("/deploys?attention=yes") == set()
    assert gated in await get(desk, "/deploys?words=change")


async def test_counts_stop_somewhere(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(4):
        await desk.rows.push(f"n{number}", repo=f"acme/r{number}")
    await desk.log_in("viewer")

    assert "4 deliveries match." in text_of(await get(desk, "/deliveries?repo=acme/*"))
    assert "1 delivery matches." in text_of(await get(desk, "/deliveries?repo=acme/r1"))
    assert "match." not in text_of(await get(desk, "/deliveries"))
    monkeypatch.setattr(lists, "MOST_COUNTED", 3)
    monkeypatch.setattr(pages, "ROWS", 2)
    text = text_of(await get(desk, "/deliveries?repo=acme/*"))
    assert "More than 3 deliveries match." in text


async def test_pages_of_a_long_list_leave_no_gap(desk: Desk) -> None:
    ids = [await desk.rows.push(f"c{n}", repo=f"acme/r{n}") for n in range(120)]
    await desk.log_in("viewer")

    seen, path = [], "/deliveries"
    while path:
        html = await get(desk, path)
        seen += re.findall(r'<tr id="row-([^"]+)"', html)
        older = re.search(r'href="([^"]+)" rel="next"', html)
        path = older[1].replace("&amp;", "&") if older else ""

    assert seen == ids[::-1]


async def test_names_that_a_pusher_chose_stay_names(desk: Desk) -> None:
    deploy = await desk.rows.succeeded(
        "a",
        repo=f"acme/{NASTY}",
        branch=NASTIER,
        author=Person(login=f"{NASTY}{NASTIER}"),
        message=f"{NASTY} {NASTIER} </pre><script>",
    )
    delivery = "delivery-1"
    await desk.log_in("operator")

    for path in (
        "/",
        "/deliveries",
        "/deploys",
        f"/deploys?repo={quote(NASTIER)}&author={quote(NASTY)}&route={quote(NASTIER)}",
        f"/deploys?words={quote(NASTY)}",
        f"/deliveries/{delivery}",
        f"/deploys/{deploy}",
        f"/deliveries/{delivery}/replay",
        "/history",
        f"/history?by={quote(NASTY)}",
        "/routes",
        f"/routes?delivery={quote(NASTIER)}",
    ):
        html = await get(desk, path)
        assert NASTY not in html
        assert "onerror=alert(2)>" not in html
    assert "&lt;script&gt;alert(1)" in await get(desk, "/deliveries")
    assert (await post(desk, "/routes", delivery=delivery))[0] == 200
    assert (await post(desk, "/routes", payload=NASTY, source="github"))[0] == 400
    await get(desk, f"/deliveries/{quote(NASTY, safe='')}", 404)


async def test_viewers_look_and_operators_act(desk: Desk) -> None:
    deploy = await desk.rows.failed("a")
    path = f"/deploys/{deploy}"
    await desk.log_in("viewer")
    html = await get(desk, path)
    assert "HTTP 404" in html
    assert "Replay…" not in html
    assert "Pause…" not in await get(desk, "/")
    for place in (f"{path}/replay", "/targets/production/pause"):
        assert "role operator" in await get(desk, place, 403)
        assert (await post(desk, place))[0] == 403
    assert [line["by"] for line in desk.audit("console.refused")] == ["a-viewer"] * 4
    assert desk.audit("console.acted") == []
    await post(desk, "/logout")

    await desk.log_in("operator")
    overview = text_of(await get(desk, "/"))
    assert "1 deploy failed" in overview
    assert "0 of 1 in the last hour" in overview
    assert f'href="{path}/replay"' in await get(desk, path)
    assert "Yes, replay" in await get(desk, f"{path}/replay")
    assert (await desk.ask("POST", f"{path}/replay", data={"csrf": "wrong"})).status == 403
    status, place, _ = await post(desk, f"{path}/replay")
    assert status == 303
    assert place == "/deploys/deploy-2?done=replay"
    assert "This is the replay" in await get(desk, place)
    assert f'href="{path}"' in await get(desk, place)
    assert "requested by a-operator" in text_of(await get(desk, place))
    assert "Replay…" not in await get(desk, path)
    status, _, html = await post(desk, f"{path}/replay")
    assert status == 409
    assert "Not replayed" in html
    [acted] = desk.audit("console.acted")
    assert (acted["by"], acted["action"], acted["deploy"]) == ("a-operator", "replay", deploy)


async def test_what_would_replace_something_newer_is_asked_for_twice(desk: Desk) -> None:
    old = await desk.rows.failed("a")
    live_now = await desk.rows.succeeded("b")
    path = f"/deploys/{old}/replay"
    told = f"{live_now} with {sha_of('b')[:12]} is live there"
    await desk.log_in("operator")

    # What has been overtaken needs nobody's attention.
    assert "Nothing. No deploy has failed" in text_of(await get(desk, "/"))
    assert "A newer deploy of its target and branch has succeeded since." in await get(
        desk, f"/deploys/{old}"
    )
    page = text_of(await get(desk, path)).lower()
    assert told in page
    assert "1 state back" in page
    status, _, html = await post(desk, path)
    assert status == 409
    assert told in text_of(html).lower()
    assert '<input type="hidden" name="force" value="yes">' in html
    assert desk.audit("console.acted") == []
    status, place, _ = await post(desk, path, force="yes")
    assert (status, place) == (303, "/deploys/deploy-3?done=replay")
    assert len(desk.audit("console.acted")) == 1


async def test_what_is_live_is_told_before_a_replay(desk: Desk) -> None:
    live_now = await desk.rows.succeeded("a")
    failed = await desk.rows.failed("b")
    await desk.log_in("operator")

    page = text_of(await get(desk, f"/deploys/{failed}/replay"))
    assert f"{live_now} with {sha_of('a')[:12]} is live at production now." in page
    assert f"Live there {live_now}" in text_of(await get(desk, f"/deploys/{failed}"))


async def test_dismiss_needs_a_reason(desk: Desk) -> None:
    deploy = await desk.rows.end(await desk.rows.deploy("a"), "uncertain", "no answer in 5 s")
    path = f"/deploys/{deploy}"
    await desk.log_in("operator")
    assert f"{CHECK_PLATFORM}" in text_of(await get(desk, path))
    assert "1 deploy uncertain" in text_of(await get(desk, "/"))
    form = await get(desk, f"{path}/dismiss")
    assert 'name="reason"' in form
    assert "Nothing is called." in form

    status, _, html = await post(desk, f"{path}/dismiss", reason="  ")
    assert (status, "Write down why." in html) == (400, True)
    status, place, _ = await post(desk, f"{path}/dismiss", reason=f"it is live {NASTY}")

    assert (status, place) == (303, f"{path}?done=dismiss")
    html = await get(desk, place)
    assert "a-operator dismissed it." in html
    assert "dismiss by a-operator: it is live &lt;script&gt;" in html
    assert "Nothing. No deploy has failed" in text_of(await get(desk, "/"))
    await get(desk, "/deliveries/delivery-1/dismiss", 404)


async def test_approve_and_cancel(desk: Desk) -> None:
    first = await desk.rows.deploy("1", "gated", repo="acme/api")
    second = await desk.rows.deploy("2", "gated", repo="acme/other")
    for deploy in (first, second):
        await desk.rows.claim(deploy, "gated", approval="required")
    await desk.log_in("operator")
    assert "2 deploys waiting for approval" in text_of(await get(desk, "/"))
    html = await get(desk, f"/deploys/{first}")
    assert html.index("Approve…") < html.index("Cancel…")
    assert "Waits for an operator to approve it" in html

    assert (await post(desk, f"/deploys/{first}/approve"))[0] == 303
    assert (await post(desk, f"/deploys/{second}/cancel"))[0] == 303

    assert "Approved by a-operator" in await get(desk, f"/deploys/{first}")
    assert "Cancelled by a-operator" in await get(desk, f"/deploys/{second}")
    assert [line["action"] for line in desk.audit("console.acted")] == ["approve", "cancel"]
    await get(desk, "/deliveries/delivery-1/approve", 404)


async def test_targets_are_paused_and_resumed(desk: Desk) -> None:
    await desk.log_in("operator")
    assert "Yes, pause" in await get(desk, "/targets/production/pause")

    assert (await post(desk, "/targets/production/pause"))[:2] == (303, "/?done=pause")
    html = await get(desk, "/?done=pause")
    assert "The target is paused." in html
    assert "/targets/production/resume" in html
    assert "paused since" in text_of(html).partition("Now")[0]
    assert (await post(desk, "/targets/production/resume"))[0] == 303
    assert "/targets/production/pause" in await get(desk, "/")
    assert (await post(desk, "/targets/nothing/pause"))[0] == 404
    assert [line["action"] for line in desk.audit("console.acted")] == ["pause", "resume"]


async def test_what_a_webhook_would_cause(desk: Desk) -> None:
    delivery = await desk.rows.push("a", repo="acme/api")
    await desk.log_in("viewer")
    html = await get(desk, "/routes")
    assert "everything" in html
    assert f'<option value="{delivery}">' in html

    for form in (
        {"source": "github", "payload": github_push(repo="acme/api").decode()},
        {"delivery": delivery},
    ):
        status, _, html = await post(desk, "/routes", **form)
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
        ({"delivery": "delivery-99"}, "No delivery has the id"),
        ({}, "Paste a payload"),
    ):
        status, _, html = await post(desk, "/routes", **form)
        assert status == 400
        assert mistake in html
    status, _, html = await post(
        desk, "/routes", source="github", payload='{"zen": "x", "hook_id": 1}', event="ping"
    )
    assert status == 200
    assert "It would be ignored: ping" in html
    _, _, html = await post(desk, "/routes", source="github", payload='{"starred_at": ""}')
    assert "if it is one, say what its event header was" in html


async def test_rows_come_live(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live, "MOST_CLIENTS", 2)
    await desk.log_in("viewer")
    async with (
        desk.http.get("/live?kind=delivery&repo=acme/w*") as rows,
        desk.http.get("/live") as all_of_it,
    ):
        assert rows.content_type == "text/event-stream"
        assert "default-src 'none'" in rows.headers["Content-Security-Policy"]
        assert (await desk.ask("GET", "/live")).status == 503
        # What happened between the page and its stream was sent to nobody.
        for stream in (rows, all_of_it):
            while await message(stream) != ("missed", ""):
                pass
        await desk.rows.push("a", repo="acme/other")
        delivery = await desk.rows.push("b", branch=NASTIER)

        name, data = await message(rows)
        assert name == "row"
        row = json.loads(data)
        assert row["id"] == f"row-{delivery}"
        assert "acme/web" in row["text"]
        assert_is_safe(row["html"])
        assert await message(all_of_it) == ("changed", "")
        monkeypatch.setattr(live, "MOST_CLIENTS", 3)
        async with desk.http.get("/live") as later:
            while await message(later) != ("missed", ""):
                pass
    await get(desk, "/live?kind=delivery&status=odd", 400)


async def test_a_row_that_changes_comes_again(desk: Desk) -> None:
    """Also an old one whose page is open, and the row of its delivery."""
    deploy = await desk.rows.deploy("old")
    for number in range(60):
        await desk.rows.failed(f"n{number}", repo=f"acme/r{number}")
    await desk.log_in("viewer")
    async with (
        desk.http.get(f"/live?deploy={deploy}") as of_deploy,
        desk.http.get("/live?delivery=delivery-1") as of_delivery,
        desk.http.get("/live?kind=deploy") as rows,
    ):
        for stream in (of_deploy, of_delivery, rows):
            while await message(stream) != ("missed", ""):
                pass
        await desk.rows.end(deploy)

        assert await message(of_deploy) == ("changed", "")
        assert await message(of_delivery) == ("changed", "")
        newest = await desk.rows.failed("newest", repo="acme/newest")
        name, data = await message(rows)
        while name != "row" or json.loads(data)["id"] != f"row-{newest}":
            name, data = await message(rows)
        assert "failed" in json.loads(data)["text"]


async def message(stream: aiohttp.ClientResponse) -> tuple[str, str]:
    """The next event's name and data."""
    async with asyncio.timeout(20):
        while True:
            part = (await stream.content.readuntil(b"\n\n")).decode()
            if not part.startswith(":"):
                name, data = part.rstrip("\n").split("\n")
                return name.removeprefix("event: "), data.removeprefix("data: ")
