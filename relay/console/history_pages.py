"""The pages of what Redis does not have any more: the history, and one delivery or deploy of it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from urllib.parse import urlencode

from aiohttp import web

from relay.audit_history import Answer
from relay.console import words
from relay.console.access import needs
from relay.console.context import CONTEXT
from relay.console.history_search import named, row, searched, wanted_of
from relay.console.rendering import page
from relay.errors import NoSuchThing
from relay.statuses import Kind

ROWS = 100
"""Lines of one page."""

NOTHING = Answer((), "", True, "")


def setup(app: web.Application) -> None:
    """Add the history to the console."""
    app.cleanup_ctx.append(_closing)
    app.router.add_get("/history", history)


async def _closing(app: web.Application) -> AsyncIterator[None]:
    yield
    app[CONTEXT].history.close()


@needs("viewer")
async def history(request: web.Request) -> web.Response:
    """Lines of the audit, the newest first."""
    context = request.app[CONTEXT]
    search, mistake, found = searched(request.query), "", NOTHING
    try:
        wanted = wanted_of(search)
    except ValueError as error:
        mistake = str(error)
    else:
        if context.history.is_kept:
            found = await context.history.ask(wanted, ROWS, search.cursor)
    config = context.plan().config
    return page(
        request,
        "history.html",
        status=400 if mistake else 200,
        here="history",
        asked=search,
        mistake=mistake,
        is_kept=context.history.is_kept,
        days=context.settings.audit_keep / 86_400,
        found=found,
        rows=[row(entry) for entry in found.entries],
        older=search.link(cursor=found.next) if found.next else "",
        newest=search.link(cursor=""),
        sources=list(config.sources),
        targets=list(config.targets),
    )


async def story(request: web.Request, kind: Kind, id_: str) -> web.Response:
    """What the audit file tells of a delivery or deploy that Redis does not have. Raises
    NoSuchThing where it does not have it either."""
    history = request.app[CONTEXT].history
    if not history.is_kept:
        raise NoSuchThing(f"there is no such {kind}, or not any more: RELAY_AUDIT_FILE is not set")
    found = await history.tell(kind, id_, request.query.get("cursor", ""))
    if found.complete and not found.entries:
        until = f", which goes back to {words.moment(found.back_to)}" if found.back_to else ""
        raise NoSuchThing(
            f"there is no such {kind}: Redis does not have it, nor does the audit file{until}"
        )
    here = words.place(kind, id_)
    rows = [row(entry) for entry in found.entries]
    return page(
        request,
        "story.html",
        here=words.PLURALS[kind],
        kind=kind,
        id=id_,
        found=found,
        rows=rows,
        about=next((each for each in rows if each.sha), None),
        deliveries=[id_] if kind == "delivery" else named(found.entries, "delivery"),
        deploys=[id_] if kind == "deploy" else named(found.entries, "deploy"),
        further=f"{here}?{urlencode({'cursor': found.next})}" if found.next else "",
        newest=here if "cursor" in request.query else "",
    )
