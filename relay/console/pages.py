"""The pages for people: what they show is made by the modules beside this one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast
from urllib.parse import quote

import orjson
from aiohttp import web

from relay.console import acting, doing, explaining, history_pages, live, payload_pages, words
from relay.console.access import CALLER, needs, see_other
from relay.console.context import CONTEXT
from relay.console.faults import ERROR_PAGE, Fault
from relay.console.live import LIVE, Live, Watcher
from relay.console.overview import Overviews
from relay.console.rendering import STATIC, Told, page
from relay.console.search import asked, filter_of, is_wanted
from relay.console.way import judged, shown, steps
from relay.errors import NoSuchThing, Refused
from relay.events.event import Delivery
from relay.finding import SECONDS
from relay.reading import Record, read_argument
from relay.records import JOB_PREFIX
from relay.statuses import STATUSES, Kind

ROWS = 50
"""Rows of one page of a list."""

KINDS: dict[str, Kind] = {plural: kind for kind, plural in words.PLURALS.items()}

OVERVIEWS: web.AppKey[Overviews] = web.AppKey("overviews", Overviews)

_ID = r"{plural:deliveries|deploys}/{id:[^/]{1,300}}"


def setup(app: web.Application) -> None:
    """Add the pages to the console."""
    app[OVERVIEWS] = Overviews(app[CONTEXT])
    app[LIVE] = Live(app[CONTEXT].archive)
    app[ERROR_PAGE] = error_page
    app.cleanup_ctx.append(live.running)
    app.on_shutdown.append(live.closing)
    app.router.add_static("/static/", STATIC)
    app.router.add_get("/", overview)
    app.router.add_get("/login", login)
    app.router.add_get("/live", live_updates)
    app.router.add_get("/routes", explaining.routes_page)
    app.router.add_post("/routes", explaining.explain)
    app.router.add_get("/{plural:deliveries|deploys}", listed)
    app.router.add_get(f"/{_ID}", one)
    app.router.add_get("/deliveries/{id:[^/]{1,300}}/payload", payload_pages.payload)
    app.router.add_get(f"/{_ID}/{{action:approve|cancel|replay}}", ask_to_act)
    app.router.add_post(f"/{_ID}/{{action:approve|cancel|replay}}", act)
    app.router.add_get("/targets/{name}/{action:pause|resume}", ask_to_switch)
    app.router.add_post("/targets/{name}/{action:pause|resume}", switch)


@needs(None)
async def login(request: web.Request) -> web.Response:
    """The form."""
    return page(request, "login.html", mistake="")


async def error_page(request: web.Request, fault: Fault) -> web.Response:
    """What people see of a fault; a login that failed may be tried again at once."""
    if request.path == "/login":
        return page(request, "login.html", status=fault.status, mistake=fault.message)
    title = fault.code.replace("_", " ").capitalize()
    return page(request, "error.html", status=fault.status, title=title, reason=fault.message)


async def overview(request: web.Request) -> web.Response:
    """How all stands."""
    made = await request.app[OVERVIEWS].now()
    return page(
        request,
        "overview.html",
        here="overview",
        live="/live",
        told=_told(request),
        **made._asdict(),
    )


async def listed(request: web.Request) -> web.Response:
    """Deliveries or deploys, the newest first."""
    context = request.app[CONTEXT]
    kind = KINDS[request.match_info["plural"]]
    search, mistake = asked(request.query), ""
    records: Sequence[Record] = ()
    older, back_to, is_complete = "", "", True
    try:
        wanted = filter_of(kind, search)
    except ValueError as error:
        mistake = f"{error}"
    else:
        found = await context.archive.find(kind, wanted, ROWS, seconds=SECONDS)
        records = await context.archive.read(kind, found.ids)
        is_complete, back_to = found.complete, found.back_to
        older = search.link(kind, cursor=found.next) if found.next else ""
    config = context.plan().config
    return page(
        request,
        "list.html",
        status=400 if mistake else 200,
        here=words.PLURALS[kind],
        kind=kind,
        plural=words.PLURALS[kind],
        asked=search,
        mistake=mistake,
        records=records,
        searched=search.searches,
        older=older,
        is_complete=is_complete,
        back_to=back_to,
        newest=search.link(kind, cursor=""),
        most=2 * ROWS,
        statuses=STATUSES,
        names=list(config.sources if kind == "delivery" else config.targets),
        routes=[route.name for route in config.routes][: explaining.MOST_ROUTES],
        live=f"/live?kind={kind}&{search.query()}",
    )


async def one(request: web.Request) -> web.Response:
    """The way of a delivery, or all that is known of a deploy."""
    show = _delivery if request.match_info["plural"] == "deliveries" else _deploy
    return await show(request, request.match_info["id"])


async def _delivery(request: web.Request, id_: str) -> web.Response:
    context = request.app[CONTEXT]
    details = await context.archive.details("delivery", id_)
    if details is None:
        return await history_pages.story(request, "delivery", id_)
    deploys = await context.archive.read("deploy", details.record.deploys)
    calls = await context.archive.attempts([deploy.id for deploy in deploys])
    data: Any = await context.redis.hget(JOB_PREFIX + id_, "data")
    delivery = read_argument(data or b"", Delivery)
    plan = context.plan()
    told = (
        judged(plan.router.decide(delivery.event, delivery.source), delivery.event.repo)
        if delivery
        else []
    )
    said, no_payload = await payload_pages.beginning_of(context, details.record)
    return page(
        request,
        "delivery.html",
        here="deliveries",
        record=details.record,
        payload=said,
        payload_is_cut=len(said) >= payload_pages.MOST_PAYLOAD,
        no_payload=no_payload,
        steps=steps(details, delivery, deploys, calls, told),
        explained=told,
        plan_changed=bool(delivery and delivery.config and delivery.config != plan.version),
        event=_as_text(details.event),
        live=f"/live?delivery={quote(id_, safe='')}",
        told=_told(request),
    )


async def _deploy(request: web.Request, id_: str) -> web.Response:
    context = request.app[CONTEXT]
    details = await context.archive.details("deploy", id_)
    if details is None:
        return await history_pages.story(request, "deploy", id_)
    return page(
        request,
        "deploy.html",
        here="deploys",
        record=details.record,
        deploy=shown(details.record, details.calls),
        runs=details.runs,
        event=_as_text(details.event),
        live=f"/live?deploy={quote(id_, safe='')}",
        told=_told(request),
    )


async def live_updates(request: web.Request) -> web.StreamResponse:
    """What happens, as far as the page that asks shows it."""
    return await live.stream(request, await _watcher(request))


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
    kind, search = cast(Kind, query["kind"]), asked(query)
    try:
        wanted = filter_of(kind, search)
    except ValueError as error:
        raise Refused(str(error)) from None
    return Watcher(
        lambda of, record: (
            of == kind and is_wanted(kind, wanted._replace(statuses=frozenset()), record)
        ),
        # A row does not tell its author, and one whose status has changed may have to go.
        rows=not (search.author or search.status),
    )


async def _deploys_of(request: web.Request, delivery: str) -> Sequence[str]:
    found = await request.app[CONTEXT].archive.read("delivery", [delivery])
    return found[0].deploys if found else ()


@needs("operator")
async def ask_to_act(request: web.Request) -> web.Response:
    """Whether it is really meant."""
    kind, id_, action = _named(request)
    found = await request.app[CONTEXT].archive.read(kind, [id_])
    if not found:
        raise NoSuchThing(f"there is no such {kind}, or not any more")
    return page(
        request,
        "confirm.html",
        here=words.PLURALS[kind],
        action=action,
        subject=f"this {kind}",
        consequence=doing.CONSEQUENCES[kind, action],
        record=found[0],
        place=words.place(kind, id_),
        back=words.place(kind, id_),
    )


async def act(request: web.Request) -> web.Response:
    """Do it, and show what came of it."""
    kind, id_, action = _named(request)
    [done] = await acting.act(request.app[CONTEXT], request[CALLER], kind, action, [id_])
    request.app[OVERVIEWS].forget()
    if not done.done:
        return page(
            request,
            "error.html",
            status=409,
            title=f"Not {doing.DONE[action]}",
            reason=words.sentence(done.message),
        )
    return see_other(f"{words.place(kind, done.new or id_)}?told={action}")


@needs("operator")
async def ask_to_switch(request: web.Request) -> web.Response:
    """Whether a target is really to be paused or resumed."""
    name, action = _target(request)
    return page(
        request,
        "confirm.html",
        here="overview",
        action=action,
        subject=name,
        consequence=doing.SWITCHES[action],
        record=None,
        place=f"/targets/{quote(name, safe='')}",
        back="/#targets",
    )


async def switch(request: web.Request) -> web.Response:
    """Pause or resume a target."""
    name, action = _target(request)
    await acting.hold(request.app[CONTEXT], request[CALLER], name, pause=action == "pause")
    request.app[OVERVIEWS].forget()
    return see_other(f"/?told={action}")


def _named(request: web.Request) -> tuple[Kind, str, words.Action]:
    found = request.match_info
    kind, action = KINDS[found["plural"]], cast(words.Action, found["action"])
    if (kind, action) not in doing.CONSEQUENCES:
        raise NoSuchThing(f"nobody can {action} a {kind}")
    return kind, found["id"], action


def _target(request: web.Request) -> tuple[str, doing.Switch]:
    name, action = request.match_info["name"], request.match_info["action"]
    if name not in request.app[CONTEXT].plan().config.targets:
        raise NoSuchThing(f"relay.yaml has no target {name}")
    return name, cast(doing.Switch, action)


def _told(request: web.Request) -> Told | None:
    text = doing.TOLD.get(request.query.get("told", ""))
    return Told(text) if text else None


def _as_text(event: Any) -> str:
    return orjson.dumps(event, option=orjson.OPT_INDENT_2).decode()
