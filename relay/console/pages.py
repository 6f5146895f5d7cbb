"""The pages for people: their paths, the lists, the actions and the live updates."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from typing import cast
from urllib.parse import quote

from aiohttp import web

from relay.console import action_texts, actions, detail_pages, explain_page, live, payloads, words
from relay.console.access import CALLER, is_let_in, needs, see_other
from relay.console.context import CONTEXT, Context
from relay.console.faults import ERROR_PAGE, Fault
from relay.console.live import LIVE, Live, Watcher
from relay.console.overview import Overviews
from relay.console.rendering import STATIC, message_of, page
from relay.console.search import STATUSES_OF, Search, filter_of, is_in_list, read_search
from relay.errors import NoSuchRecord, NoSuchThing, Refused, StoreUnavailable
from relay.events.ids import row_number
from relay.ledger.filters import Filter
from relay.ledger.lists import Listed, count, list_records
from relay.ledger.records import VERDICTS, Record, RecordKind, read_delivery, read_records

ROWS = 50
"""Rows of one page of a list."""

KINDS: dict[str, RecordKind] = {plural: kind for kind, plural in words.PLURALS.items()}

OVERVIEWS: web.AppKey[Overviews] = web.AppKey("overviews", Overviews)

_ID = r"{plural:deliveries|deploys}/{id:[^/]{1,300}}"

_ACTION = "{action:approve|cancel|replay|dismiss}"


def setup(app: web.Application) -> None:
    """Add the pages to the console."""
    app[OVERVIEWS] = Overviews(app[CONTEXT])
    app[LIVE] = Live(app[CONTEXT].ledger)
    app[ERROR_PAGE] = error_page
    app.cleanup_ctx.append(live.running)
    app.on_shutdown.append(live.closing)
    app.router.add_static("/static/", STATIC)
    app.router.add_get("/", overview)
    app.router.add_get("/login", login)
    app.router.add_get("/live", live_updates)
    app.router.add_get("/routes", explain_page.routes_page)
    app.router.add_post("/routes", explain_page.explain)
    app.router.add_get("/{plural:deliveries|deploys}", listed)
    app.router.add_get("/deliveries/{id:[^/]{1,300}}", detail_pages.delivery)
    app.router.add_get("/deploys/{id:[^/]{1,300}}", detail_pages.deploy)
    app.router.add_get("/deliveries/{id:[^/]{1,300}}/payload", payloads.payload)
    app.router.add_get(f"/{_ID}/{_ACTION}", ask_to_act)
    app.router.add_post(f"/{_ID}/{_ACTION}", act)
    app.router.add_get("/targets/{name}/{action:pause|resume}", ask_to_switch)
    app.router.add_post("/targets/{name}/{action:pause|resume}", switch)


@needs(None)
async def login(request: web.Request) -> web.Response:
    """Show the form."""
    return page(request, "login.html", mistake="")


async def error_page(request: web.Request, fault: Fault) -> web.Response:
    """Show a fault to people; a login that failed may be tried again at once."""
    if request.path == "/login":
        return page(request, "login.html", status=fault.status, mistake=fault.message)
    title = fault.code.replace("_", " ").capitalize()
    return page(request, "error.html", status=fault.status, title=title, reason=fault.message)


async def overview(request: web.Request) -> web.Response:
    """Show how all stands."""
    made = await request.app[OVERVIEWS].now()
    return page(
        request,
        "overview.html",
        here="overview",
        live="/live",
        message=message_of(request),
        **made._asdict(),
    )


async def listed(request: web.Request) -> web.Response:
    """List deliveries or deploys, the newest first."""
    context = request.app[CONTEXT]
    kind = KINDS[request.match_info["plural"]]
    search, mistake = read_search(request.query), ""
    shown, number = Listed(records=(), next=""), ""
    try:
        chosen = filter_of(kind, search)
        shown = await context.ledger.read(
            lambda reader: list_records(reader, kind, chosen, ROWS, search.cursor)
        )
        number = await _number(context, kind, search, chosen, shown)
    except ValueError as error:
        mistake = f"{error}"
    config = context.plan().config
    return page(
        request,
        "list.html",
        status=400 if mistake else 200,
        here=words.PLURALS[kind],
        kind=kind,
        plural=words.PLURALS[kind],
        search=search,
        mistake=mistake,
        records=shown.records,
        number=number,
        searched=search.is_search,
        older=search.link(kind, cursor=shown.next) if shown.next else "",
        newest=search.link(kind, cursor=""),
        most=2 * ROWS,
        statuses=STATUSES_OF[kind],
        verdicts=VERDICTS,
        sources=list(config.sources),
        targets=list(config.targets),
        routes=[route.name for route in config.routes][: explain_page.MOST_ROUTES],
        live=f"/live?kind={kind}&{search.query()}",
    )


async def _number(
    context: Context, kind: RecordKind, search: Search, chosen: Filter, shown: Listed
) -> str:
    """Return how many a search has found; empty where nothing is searched for, or where counting
    takes too long."""
    if not search.is_search or not shown.records:
        return ""
    if not shown.next and not search.cursor:
        return f"{len(shown.records)}"
    with suppress(StoreUnavailable):
        return str(await context.ledger.read(lambda reader: count(reader, kind, chosen)))
    return ""


async def live_updates(request: web.Request) -> web.StreamResponse:
    """Send what happens, as far as the page that asks shows it."""
    return await live.stream(request, await _watcher(request), lambda: is_let_in(request))


async def _watcher(request: web.Request) -> Watcher:
    query = request.query
    if "deploy" in query:
        id_ = query["deploy"]
        return Watcher(lambda _, record: record.id == id_, rows=False, watched=[id_])
    if "delivery" in query:
        id_ = query["delivery"]
        return Watcher(
            lambda _, record: id_ in (record.id, record.delivery),
            rows=False,
            watched=[id_, *await _deploys_of(request, id_)],
        )
    if query.get("kind") not in words.PLURALS:
        return Watcher(lambda *_: True, rows=False)
    kind, search = cast(RecordKind, query["kind"]), read_search(query)
    try:
        chosen = filter_of(kind, search._replace(status=""))
        filter_of(kind, search)
    except ValueError as error:
        raise Refused(str(error)) from None
    return Watcher(
        lambda of, record: of == kind and is_in_list(chosen, record),
        # A row does not tell all of these, and one whose status has changed may have to go.
        rows=not (search.author or search.words or search.status or search.attention),
    )


async def _deploys_of(request: web.Request, delivery: str) -> Sequence[str]:
    number = row_number("delivery", delivery)
    if number is None:
        return ()
    record = await request.app[CONTEXT].ledger.read(lambda reader: read_delivery(reader, number))
    return record.deploys if record is not None else ()


@needs("operator")
async def ask_to_act(request: web.Request) -> web.Response:
    """Ask whether it is really meant, and say what it would do."""
    kind, id_, action = _named(request)
    record = await _record(request, kind, id_)
    warning = ""
    if action in ("replay", "approve"):
        context, caller = request.app[CONTEXT], request[CALLER]
        [would] = await actions.act(context, caller, kind, action, [id_], dry=True)
        warning = action_texts.warning(would)
    return _confirm(request, kind, record, action, warning)


async def act(request: web.Request) -> web.Response:
    """Do it, and show what came of it. What would replace something newer is asked for twice."""
    kind, id_, action = _named(request)
    form = await request.post()
    reason, forced = str(form.get("reason", "")), form.get("force") == "yes"
    context, caller = request.app[CONTEXT], request[CALLER]
    if action == "dismiss" and not reason.strip():
        record = await _record(request, kind, id_)
        return _confirm(request, kind, record, action, mistake="Write down why.", status=400)
    [done] = await actions.act(context, caller, kind, action, [id_], forced=forced, reason=reason)
    request.app[OVERVIEWS].forget()
    if done.done:
        return see_other(f"{words.place(kind, done.new or id_)}?done={action}")
    why = words.sentence(action_texts.reason_of(done))
    if action_texts.is_forceable(done) and not forced:
        record = await _record(request, kind, id_)
        return _confirm(request, kind, record, action, why, status=409, is_second=True)
    title = f"Not {action_texts.DONE[action]}"
    return page(request, "error.html", status=409, title=title, reason=why)


def _confirm(
    request: web.Request,
    kind: RecordKind,
    record: Record,
    action: words.Action,
    warning: str = "",
    *,
    mistake: str = "",
    status: int = 200,
    is_second: bool = False,
) -> web.Response:
    place = words.place(kind, record.id)
    return page(
        request,
        "confirm.html",
        status=status,
        here=words.PLURALS[kind],
        action=action,
        subject=f"this {kind}",
        consequence=action_texts.CONSEQUENCES[kind, action],
        warning=warning,
        mistake=mistake,
        is_second=is_second,
        record=record,
        place=place,
        back=place,
    )


@needs("operator")
async def ask_to_switch(request: web.Request) -> web.Response:
    """Ask whether a target is really to be paused or resumed."""
    name, action = _target(request)
    return page(
        request,
        "confirm.html",
        here="overview",
        action=action,
        subject=name,
        consequence=action_texts.SWITCHES[action],
        warning="",
        mistake="",
        is_second=False,
        record=None,
        place=f"/targets/{quote(name, safe='')}",
        back="/#targets",
    )


async def switch(request: web.Request) -> web.Response:
    """Pause or resume a target."""
    name, action = _target(request)
    await actions.switch(request.app[CONTEXT], request[CALLER], name, pause=action == "pause")
    request.app[OVERVIEWS].forget()
    return see_other(f"/?done={action}")


def _named(request: web.Request) -> tuple[RecordKind, str, words.Action]:
    parts = request.match_info
    kind, action = KINDS[parts["plural"]], cast(words.Action, parts["action"])
    if (kind, action) not in action_texts.CONSEQUENCES:
        raise NoSuchThing(f"no {kind} can be {action_texts.DONE[action]}")
    return kind, parts["id"], action


async def _record(request: web.Request, kind: RecordKind, id_: str) -> Record:
    number = row_number(kind, id_)
    numbers = [number] if number is not None else []
    ledger = request.app[CONTEXT].ledger
    records = await ledger.read(lambda reader: read_records(reader, kind, numbers))
    if not records:
        raise NoSuchRecord(kind, id_)
    return records[0]


def _target(request: web.Request) -> tuple[str, action_texts.Switch]:
    name, action = request.match_info["name"], request.match_info["action"]
    if name not in request.app[CONTEXT].plan().config.targets:
        raise NoSuchThing(f"relay.yaml has no target {name}")
    return name, cast(action_texts.Switch, action)
