"""The history: what happened, newest first, in exact pages, out of the ledger."""

from __future__ import annotations

import re
from typing import Any
from urllib.parse import quote

import pytest

from config.patterns import PatternSet
from relay.console import history_pages
from relay.console.history_pages import HistorySearch, filter_of
from relay.events.event import Person
from relay.ledger import history
from relay.ledger.filters import since
from relay.ledger.history import HistoryFilter, HistoryRow, read_history
from relay.ledger.intake import RouteReason
from tests.console.desk import Desk
from tests.console.test_pages import NASTIER, NASTY, get, post, text_of
from tests.harness import sha_of


async def events(desk: Desk, limit: int = 200, **chosen: Any) -> list[HistoryRow]:
    """The newest events that fit, read in pages of ``limit``."""
    rows: list[HistoryRow] = []
    cursor, filter_ = "", HistoryFilter(**chosen)
    while True:
        before = cursor
        page = await desk.ledger.read(
            lambda reader, before=before: read_history(reader, filter_, limit, before)  # type: ignore[misc]
        )
        rows += page.rows
        cursor = page.next
        if not cursor:
            return rows


def names(rows: list[HistoryRow]) -> list[str]:
    return [row.event for row in rows]


async def busy_day(desk: Desk) -> None:
    """A delivery that led to nothing, one whose deploy failed, was replayed and dismissed, and one
    that waits; then a pause."""
    reasons = (RouteReason("web", "branch topic does not match main"),)
    await desk.rows.push("ignored", branch="topic", reasons=reasons)
    failed = await desk.rows.failed("a")
    await desk.rows.deploy("b", "api", repo="acme/api", author=Person(login="bob"))
    await desk.log_in("operator")
    assert (await post(desk, f"/deploys/{failed}/dismiss", reason="it is live"))[0] == 303
    assert (await post(desk, f"/deploys/{failed}/replay"))[0] == 303
    assert (await post(desk, "/deploys/deploy-2/cancel"))[0] == 303
    assert (await post(desk, "/targets/production/pause"))[0] == 303


NEWEST_FIRST = [
    "target.paused",
    "deploy.cancelled",
    "deploy.replayed",
    "deploy.queued",
    "deploy.dismissed",
    "deploy.queued",
    "delivery.queued",
    "deploy.failed",
    "deploy.queued",
    "delivery.queued",
    "delivery.ignored",
]


@pytest.mark.parametrize("limit", [1, 2, 3, 200])
async def test_all_that_happened_stands_in_it_once(desk: Desk, limit: int) -> None:
    await busy_day(desk)

    rows = await events(desk, limit)

    assert names(rows) == NEWEST_FIRST
    failed = rows[7]
    assert (failed.deploy, failed.target, failed.reason) == ("deploy-1", "production", "HTTP 404")
    assert (failed.repo, failed.ref, failed.sha) == ("acme/web", "refs/heads/main", sha_of("a"))
    dismissed = rows[4]
    assert (dismissed.by, dismissed.reason) == ("a-operator", "it is live")
    assert (dismissed.deploy, dismissed.repo) == ("deploy-1", "acme/web")
    assert (rows[0].target, rows[0].by) == ("production", "a-operator")
    assert rows[-1].reason == "web: branch topic does not match main"


@pytest.mark.parametrize("few", [0, 500])
async def test_it_is_searched(desk: Desk, few: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """By reading the rows of what fits, and by walking all, with the same result."""
    monkeypatch.setattr(history, "FEW", few)
    monkeypatch.setattr(history, "CHUNK", 2)
    await busy_day(desk)

    async def found(**chosen: Any) -> list[str]:
        return names(await events(desk, 2, **chosen))

    of_first = ["deploy.replayed", "deploy.queued", "deploy.dismissed", "deploy.failed"]
    of_first += ["deploy.queued", "delivery.queued"]
    assert await found(events=PatternSet(["target.*", "delivery.ignored"], "text")) == [
        *("target.paused", "delivery.ignored"),
    ]
    assert await found(events=PatternSet(["deploy.failed"], "text")) == ["deploy.failed"]
    assert await found(repos=PatternSet(["ACME/api"], "path", ignore_case=True)) == [
        *("deploy.cancelled", "deploy.queued", "delivery.queued"),
    ]
    assert await found(sha=sha_of("a")[:8]) == of_first
    assert await found(targets=frozenset({"production"})) == ["target.paused", *of_first[:-1]]
    assert await found(targets=frozenset({"api"})) == ["deploy.cancelled", "deploy.queued"]
    assert await found(sources=frozenset({"github"})) == [
        name for name in NEWEST_FIRST if name != "target.paused"
    ]
    assert await found(sources=frozenset({"gitlab"})) == []
    assert await found(by=frozenset({"a-operator"})) == [
        *("target.paused", "deploy.cancelled", "deploy.replayed", "deploy.dismissed"),
    ]
    assert await found(deliveries=frozenset({"delivery-2"})) == of_first
    assert await found(deploys=frozenset({"deploy-1"})) == [
        *("deploy.replayed", "deploy.dismissed", "deploy.failed", "deploy.queued"),
    ]
    assert await found(deploys=frozenset({"deploy-99", "odd"})) == []


async def test_it_is_bounded_by_times(desk: Desk) -> None:
    await busy_day(desk)
    times = [row.at for row in await events(desk)]
    middle = since(times[5])

    later = await events(desk, 2, since=middle)
    earlier = await events(desk, 2, until=middle)

    # What happened in the microsecond itself is later.
    assert names(later) == [
        name for name, at in zip(NEWEST_FIRST, times, strict=True) if at >= times[5]
    ]
    assert names(earlier) == [
        name for name, at in zip(NEWEST_FIRST, times, strict=True) if at < times[5]
    ]
    assert await events(desk, since=middle, until=middle) == []


async def test_pages_go_on_whatever_arrives_meanwhile(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(history_pages, "ROWS", 3)
    for number in range(4):
        await desk.rows.failed(f"n{number}", repo=f"acme/r{number}")
    await desk.log_in("viewer")

    seen, path, first = [], "/history?event=deploy.*", ""
    while path:
        page = await get(desk, path)
        first = first or page
        seen += re.findall(r"acme/(r\d|new)", text_of(page))
        older = re.search(r'href="([^"]+)" rel="next"', page)
        path = older[1].replace("&amp;", "&") if older else ""
        await desk.rows.failed(f"new{len(seen)}", repo="acme/new")

    assert seen == ["r3", "r3", "r2", "r2", "r1", "r1", "r0", "r0"]
    assert "← Newest" not in first


async def test_the_api_pages_by_its_cursor(desk: Desk) -> None:
    await busy_day(desk)

    async def ask(query: str, status: int = 200) -> Any:
        answer = await desk.ask("GET", f"/api/v1/history?{query}", "viewer")
        assert answer.status == status, answer.body
        return answer.body

    first = await ask("limit=2&event=deploy.*&event=target.*")
    rest = await ask(f"event=deploy.*&event=target.*&cursor={first['next']}")

    assert [row["event"] for row in first["items"]] == NEWEST_FIRST[:2]
    assert [row["event"] for row in rest["items"]] == [
        name for name in NEWEST_FIRST[2:] if not name.startswith("delivery")
    ]
    assert rest["next"] is None
    assert (await ask("delivery=delivery-1"))["items"][0]["event"] == "delivery.ignored"
    assert (await ask("cursor=1-2", 400))["error"]["code"] == "bad_request"


async def test_names_stay_names(desk: Desk) -> None:
    await desk.rows.failed("a", reason=f"{NASTY} {NASTIER}", repo=f"acme/{NASTY}", branch=NASTIER)
    await desk.log_in("viewer")

    page = await get(desk, "/history")
    assert "&lt;script&gt;" in page
    assert NASTIER not in page
    query = quote(NASTIER, safe="")
    await get(desk, f"/history?event={query}&by={query}&target={query}&since={query}", 400)


@pytest.mark.parametrize(
    ("query", "mistake"),
    [
        ("since=soon", "write 30m, 2h, 3d"),
        ("until=soon", "write 30m, 2h, 3d"),
        ("sha=xyz", "a commit is searched for by the digits"),
        ("repo=[", "without a closing"),
        ("repo=!re:(a%2b)%2b", "not a regular expression"),
        ("event=re:(a%2b)%2b", "not a regular expression"),
        ("cursor=../../etc", "is no place in the history"),
        ("cursor=1.2.3", "is no place in the history"),
    ],
)
async def test_search_that_cannot_be_understood(desk: Desk, query: str, mistake: str) -> None:
    await desk.log_in("viewer")

    assert mistake in text_of(await get(desk, f"/history?{query}", 400))


async def test_page_of_the_history(desk: Desk) -> None:
    await busy_day(desk)

    page = await get(desk, "/history?by=a-operator")

    assert 'href="/deploys/deploy-1"' in page
    assert "it is live; by a-operator" in text_of(page)
    assert "No event matches." in await get(desk, "/history?target=gated")


def test_a_search_takes_its_fields_from_the_query() -> None:
    chosen = filter_of(HistorySearch(sha="AB12", by="ann"))

    assert (chosen.sha, chosen.by) == ("ab12", frozenset({"ann"}))
    assert HistorySearch(sha="AB12", cursor="1").link(cursor="") == "/history?sha=AB12"
    assert HistorySearch().link() == "/history"
