"""What Redis forgot, on pages and in the API: told by the audit files of a real relay."""

from __future__ import annotations

import asyncio
import io
import re
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

import orjson
import pytest
import redis

from config.settings import Settings
from relay import audit_history
from relay.audit_file import AuditFile, Policy
from relay.console import history, history_pages
from relay.console.history_search import searched, wanted_of
from relay.console.search import asked
from tests.console.desk import Desk, opened
from tests.console.test_pages import NASTIER, NASTY, assert_is_safe, text_of
from tests.harness import Relay, Target, sha_of


@pytest.fixture
def file(settings: Settings) -> Path:
    assert settings.audit_file is not None
    return settings.audit_file


def write(file: Path, *entries: Mapping[str, Any], max_bytes: int = 1_000_000) -> None:
    lines = AuditFile(file, Policy(max_bytes, 0, "never", None))
    for entry in entries:
        lines.add(orjson.dumps({"level": "info", "at": "2026-11-03T12:00:00Z", **entry}))
        lines.flush()


def numbered(*numbers: int) -> list[dict[str, Any]]:
    return [{"event": "test.line", "by": f"n{number}"} for number in numbers]


async def get(desk: Desk, path: str, status: int = 200) -> str:
    answer = await desk.ask("GET", path)
    assert answer.status == status, answer.body
    assert_is_safe(answer.body)
    return str(answer.body)


async def api(desk: Desk, query: str, status: int = 200) -> Any:
    answer = await desk.ask("GET", f"/api/v1/{query}", "viewer")
    assert answer.status == status, answer.body
    return answer.body


def told(page: str) -> list[str]:
    """Who is named by the lines of a page, in their order."""
    return re.findall(r'faint">by=(n\d+)<', page)


def linked(page: str, text: str) -> str:
    """Where the link of a text leads."""
    [place] = re.findall(rf'<a href="([^"]*)"[^>]*>{text}</a>', page)
    return str(place).replace("&amp;", "&")


async def test_what_redis_forgot_is_told_by_the_audit_file(
    relay: Relay, target: Target, settings: Settings, store: redis.Redis, audited: io.BytesIO
) -> None:
    path = relay.folder / "audit" / "audit.jsonl"
    relay.environ = {**relay.environ, "RELAY_AUDIT_FILE": str(path)}
    await relay.serve()
    worker = await relay.work()
    status, answer = await relay.push(repo="acme/web", after=sha_of("one"))
    assert status == 202
    [done] = await worker.wait_for("deploy.succeeded")
    delivery, deploy = answer["delivery"], done["deploy"]
    for process in relay.processes:
        await process.stop()
    for key in store.scan_iter("rq:*"):
        store.delete(key)

    kept = settings.model_copy(update={"audit_file": path})
    async with opened(kept, store, audited) as desk:
        await desk.log_in("operator")
        way = await get(desk, f"/deliveries/{quote(delivery, safe='')}")
        one = await get(desk, f"/deploys/{deploy}")
        found = await get(desk, "/history?target=production&event=deploy.*&repo=ACME/w*")
        gone = await get(desk, "/deliveries/github--nobody", 404)
        refused = await api(desk, f"deploys/{deploy}", 404)
        lines = await api(desk, f"history?deploy={deploy}&limit=2")

    events = re.findall(r'c-event ">([a-z._]+)<', way)
    assert events == [
        *("delivery.received", "delivery.queued"),
        *("route.matched", "route.skipped"),
        *("deploy.queued", "deploy.attempted", "deploy.succeeded"),
    ]
    assert "Redis does not have this delivery, or not any more" in way
    assert f'href="/deploys/{deploy}"' in way
    commit = f"acme/web main {sha_of('one')[:8]}"
    assert commit in text_of(way)
    assert f"production: {commit}" in text_of(one)
    assert re.findall(r'c-event ">([a-z._]+)<', one) == events[4:]
    assert "Redis does not have this deploy, or not any more" in one
    assert f'href="/deliveries/{quote(delivery, safe="")}"' in one
    for page in (way, one):
        assert "<button>" not in page.replace('<button class="plain">Log out</button>', "")
        assert "/replay" not in page
    assert re.findall(r'c-event ">([a-z._]+)<', found) == events[:3:-1]
    first = path.read_bytes().partition(b"\n")[0]
    started = orjson.loads(first)["at"][:19].replace("T", " ")
    assert f"nor does the audit file, which goes back to {started} UTC" in text_of(gone)
    assert "GET /history?deploy= may have it" in refused["error"]["message"]
    assert [line["event"] for line in lines["items"]] == events[:4:-1]
    assert (lines["complete"], lines["items"][0]["deploy"]) == (True, deploy)
    assert set(lines["items"][0]) > {"seq", "prev"}


async def test_pages_of_the_history_go_on_though_the_file_is_finished_meanwhile(
    desk: Desk, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(history_pages, "ROWS", 3)
    write(file, *numbered(*range(7)))
    await desk.log_in("viewer")

    first = await get(desk, "/history?event=test.*")
    write(file, *numbered(7, 8), max_bytes=1)
    second = await get(desk, linked(first, "Older →"))
    third = await get(desk, linked(second, "Older →"))

    assert told(first) == ["n6", "n5", "n4"]
    assert told(second) == ["n3", "n2", "n1"]
    assert told(third) == ["n0"]
    assert "Older" not in third
    assert "goes back to 2026-11-03 12:00:00 UTC" in text_of(third)
    assert told(await get(desk, linked(third, "← Newest"))) == ["n8", "n7", "n6"]


async def test_where_a_bound_is_met_it_says_how_far_back_was_looked(
    desk: Desk, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(history, "BOUNDS", audit_history.Bounds(1))
    monkeypatch.setattr(history, "BOUNDS_OF_ONE", audit_history.Bounds(1))
    monkeypatch.setattr(audit_history, "BLOCK", 200)
    write(file, {"event": "deploy.queued", "deploy": "a--b", "by": "n0"}, *numbered(1, 2, 3))
    await desk.log_in("viewer")

    page = await get(desk, "/history?by=n1")
    assert "Looked back to 2026-11-03 12:00:00 UTC" in text_of(page)
    assert "Nothing is like that" not in page
    found = [told(page)]
    while "Look further" in page:
        page = await get(desk, linked(page, "Look further"))
        found.append(told(page))
    assert found == [[], [], ["n1"], []]

    page = await get(desk, "/deploys/a--b")
    assert "and found nothing" in text_of(page)
    while "Look further" in page:
        page = await get(desk, linked(page, "Look further"))
    assert told(page) == ["n0"]


async def test_names_in_lines_stay_names(desk: Desk, file: Path) -> None:
    write(
        file,
        {
            "event": NASTY,
            "repo": NASTY,
            "ref": NASTIER,
            "sha": NASTIER,
            "target": NASTIER,
            "delivery": NASTIER,
            "deploy": f"x/{NASTIER}",
            "reason": [NASTY],
            "at": NASTIER,
        },
    )
    await desk.log_in("viewer")

    page = await get(desk, "/history")
    assert "&lt;script&gt;" in page
    assert NASTIER not in page
    query = quote(NASTIER, safe="")
    await get(desk, f"/history?event={query}&by={query}&target={query}&since={query}", 400)
    await get(desk, f"/deliveries/{query.replace('/', '')}")


@pytest.mark.parametrize(
    ("query", "mistake"),
    [
        ("since=soon", "write 30m, 2h, 3d"),
        ("until=soon", "write 30m, 2h, 3d"),
        ("sha=xyz", "a commit is searched for by the digits"),
        ("repo=[", "without a closing"),
        ("repo=!re:(a%2b)%2b", "not a regular expression"),
        ("event=re:(a%2b)%2b", "not a regular expression"),
        ("cursor=../../etc", "the cursor is none that was given"),
        ("cursor=1-2-3", "the cursor is none that was given"),
    ],
)
async def test_search_that_cannot_be_understood(desk: Desk, query: str, mistake: str) -> None:
    await desk.log_in("viewer")

    assert mistake in text_of(await get(desk, f"/history?{query}", 400))


async def test_a_cursor_that_is_none_is_refused(desk: Desk) -> None:
    answer = await api(desk, "history?cursor=..%2F1-1", 400)
    assert answer["error"]["code"] == "bad_request"
    await desk.log_in("viewer")
    page = await get(desk, "/deploys/a--b?cursor=..%2F1-1", 400)
    assert "the cursor is none that was given" in page


async def test_the_api_pages_by_its_cursor(desk: Desk, file: Path) -> None:
    write(file, *numbered(*range(5)), max_bytes=1)

    first = await api(desk, "history?limit=3&event=test.line&event=x.*")
    rest = await api(desk, f"history?limit=3&cursor={first['next']}")

    assert [line["by"] for line in first["items"]] == ["n4", "n3", "n2"]
    assert [line["by"] for line in rest["items"]] == ["n1", "n0"]
    assert (first["complete"], rest["complete"], rest["next"]) == (True, True, None)
    assert rest["back_to"] == "2026-11-03T12:00:00Z"


async def test_an_audit_file_that_cannot_be_read_is_said_and_no_accident(
    desk: Desk, file: Path
) -> None:
    await asyncio.to_thread(file.mkdir)
    await desk.log_in("viewer")

    for path in ("/history", "/deploys/a--b"):
        page = text_of(await get(desk, path, 503))
        assert "the audit files cannot be read (Is a directory)" in page
        assert str(file) not in page
    answer = await api(desk, "history", 503)
    assert answer["error"]["code"] == "audit_unavailable"


async def test_without_an_audit_file_it_says_what_to_set(
    settings: Settings, store: redis.Redis, audited: io.BytesIO
) -> None:
    bare = settings.model_copy(update={"audit_file": None})
    async with opened(bare, store, audited) as desk:
        await desk.log_in("viewer")
        assert "Set RELAY_AUDIT_FILE" in text_of(await get(desk, "/history"))
        assert "RELAY_AUDIT_FILE is not set" in await get(desk, "/deliveries/github--x", 404)
        assert "RELAY_AUDIT_FILE" in (await api(desk, "history", 503))["error"]["message"]
        answer = await api(desk, "deliveries/github--x", 404)
        assert answer["error"]["message"] == "there is no such delivery, or not any more"


@contextmanager
def slow_reading(monkeypatch: pytest.MonkeyPatch) -> Iterator[threading.Semaphore]:
    """A disk that answers nothing until it is let; how many ask it."""
    asking, let = threading.Semaphore(0), threading.Event()

    def stuck(*_: Any) -> Any:
        asking.release()
        let.wait()
        return audit_history.Answer([], "", True, "")

    monkeypatch.setattr(history, "ask", stuck)
    try:
        yield asking
    finally:
        let.set()


async def test_a_slow_disk_stops_neither_other_pages_nor_takes_more_threads(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(history, "PATIENCE", 0.5)
    with slow_reading(monkeypatch) as asking:
        questions = [asyncio.create_task(api(desk, "history", 503)) for _ in range(5)]
        for _ in range(history.AT_ONCE):
            assert await asyncio.to_thread(asking.acquire, timeout=20)
        await api(desk, "health")
        answers = await asyncio.gather(*questions)

        assert {answer["error"]["code"] for answer in answers} == {"audit_unavailable"}
        assert "busy" in answers[0]["error"]["message"]
        # Those that waited in vain are never read for.
        assert not asking.acquire(blocking=False)


async def test_lists_lead_on_to_the_history(desk: Desk) -> None:
    await desk.log_in("viewer")

    for path, place in (
        ("/deploys", "/history?event=deploy.%2A"),
        (
            "/deploys?status=failed&repo=acme/*&target=production&sha=ab&branch=main",
            "/history?event=deploy.failed&repo=acme%2F%2A&sha=ab&target=production",
        ),
        ("/deploys?status=held", "/history?event=deploy.%2A"),
        (
            "/deliveries?source=github&status=failed&since=30d",
            "/history?event=delivery.%2A&since=30d&source=github",
        ),
    ):
        page = await get(desk, path)
        assert linked(page, "history") == place
        await get(desk, place)


def test_a_search_takes_its_fields_from_the_query() -> None:
    search = searched({"sha": " AB12 ", "by": "ann", "odd": "x", "cursor": "1-2"})
    lines = wanted_of(search)

    assert lines.shas == ("ab12",)
    assert lines.values == {"by": frozenset({"ann"})}
    assert search.link(cursor="") == "/history?sha=AB12&by=ann"
    assert searched({}).link() == "/history"
    assert asked({}).history("deploy") == "/history?event=deploy.%2A"
