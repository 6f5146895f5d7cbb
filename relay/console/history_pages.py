"""The page of the history: what happened, the newest first."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple
from urllib.parse import urlencode

from aiohttp import web

from relay.console.access import needs
from relay.console.context import CONTEXT
from relay.console.rendering import page
from relay.console.search import MOST_TEXT, beginning_of_commit, globs
from relay.console.words import branch, place
from relay.ledger.filters import since
from relay.ledger.history import HistoryFilter, HistoryPage, HistoryRow, read_history

ROWS = 100
"""Events of one page."""

MOST_NOTE = 400
"""Characters of a reason that are shown."""

_TONES = {
    "deploy.failed": "failed",
    "deploy.uncertain": "uncertain",
    "delivery.late": "waiting",
    "target.paused": "waiting",
}


class HistorySearch(NamedTuple):
    """The fields of the search; an empty one filters nothing."""

    since: str = ""
    until: str = ""
    event: str = ""
    repo: str = ""
    source: str = ""
    target: str = ""
    sha: str = ""
    by: str = ""
    delivery: str = ""
    deploy: str = ""
    cursor: str = ""

    def link(self, **changed: str) -> str:
        """Return the path of the history with this search."""
        fields = {**self._asdict(), **changed}
        query = urlencode({name: value for name, value in fields.items() if value})
        return f"/history?{query}" if query else "/history"


class ShownEvent(NamedTuple):
    """One event as the page shows it."""

    at: str
    event: str
    tone: str
    what: str
    sha: str
    place: str
    where: str
    note: str


def setup(app: web.Application) -> None:
    """Add the history to the console."""
    app.router.add_get("/history", history)


@needs("viewer")
async def history(request: web.Request) -> web.Response:
    """Show what happened, the newest first."""
    context = request.app[CONTEXT]
    search, mistake, events = _read_search(request.query), "", HistoryPage(rows=(), next="")
    try:
        chosen = filter_of(search)
        events = await context.ledger.read(
            lambda reader: read_history(reader, chosen, ROWS, search.cursor)
        )
    except ValueError as error:
        mistake = str(error)
    config = context.plan().config
    return page(
        request,
        "history.html",
        status=400 if mistake else 200,
        here="history",
        search=search,
        mistake=mistake,
        rows=[shown(row) for row in events.rows],
        older=search.link(cursor=events.next) if events.next else "",
        newest=search.link(cursor=""),
        sources=list(config.sources),
        targets=list(config.targets),
    )


def filter_of(search: HistorySearch) -> HistoryFilter:
    """Return the filter of a search. Raises ValueError with a sentence for people."""
    return HistoryFilter(
        since=since(search.since),
        until=since(search.until),
        events=globs(_given(search.event), "text"),
        repos=globs(_given(search.repo), ignore_case=True),
        sources=frozenset(_given(search.source)),
        targets=frozenset(_given(search.target)),
        sha=beginning_of_commit(search.sha),
        by=frozenset(_given(search.by)),
        deliveries=frozenset(_given(search.delivery)),
        deploys=frozenset(_given(search.deploy)),
    )


def shown(row: HistoryRow) -> ShownEvent:
    """Return an event in columns, with the page of what it is about."""
    subject = row.deploy or row.delivery
    path = ""
    if subject:
        path = place("deploy" if row.deploy else "delivery", subject)
    status = f"HTTP {row.status}" if row.status and str(row.status) not in row.reason else ""
    notes = (row.reason, status, f"by {row.by}" if row.by else "")
    note = "; ".join(each for each in notes if each)
    return ShownEvent(
        at=row.at,
        event=row.event,
        tone=_TONES.get(row.event, ""),
        what=f"{row.repo} {branch(row.ref)}".strip() or subject,
        sha=row.sha,
        place=path,
        where=row.target or row.source,
        note=note if len(note) <= MOST_NOTE else f"{note[:MOST_NOTE]}…",
    )


def _read_search(query: Mapping[str, str]) -> HistorySearch:
    fields = {name: query.get(name, "").strip()[:MOST_TEXT] for name in HistorySearch._fields}
    return HistorySearch(**fields)


def _given(text: str) -> Sequence[str]:
    return [text] if text else []
