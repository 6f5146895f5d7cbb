"""What the API tells of deliveries and deploys."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import msgspec
from msgspec import Meta

from config.patterns import PatternSet
from relay.archive import Archive
from relay.attempts_kept import AttemptRecord
from relay.console.context import Context
from relay.console.endpoints import Asked, Nothing
from relay.console.history_search import wanted
from relay.errors import NoSuchThing, Refused
from relay.filtering import Filter, since
from relay.finding import SECONDS
from relay.payload_reading import read_payload
from relay.reading import Record
from relay.statuses import Kind, Status

MOST = 200
"""Entries of one page."""

Few = Meta(max_length=10)
"""Of a parameter that may come several times."""

Short = Annotated[str, Meta(max_length=100)]

Id = Annotated[str, Meta(max_length=300)]

Repo = Annotated[str, Meta(max_length=100, pattern="^[A-Za-z0-9_.+~/*?-]+$")]

SINCE = (
    r"^(|[0-9]{1,9}(ms|s|m|h|d)?"
    r"|20[0-9]{2}-(0[1-9]|1[0-2])-(0[1-9]|[12][0-9]|3[01])"
    r"(T([01][0-9]|2[0-3]):[0-5][0-9](:[0-5][0-9])?(Z|[+-](0[0-9]|1[0-3]):[0-5][0-9])?)?)$"
)
"""What the document says of a time; ``relay.filtering.since`` reads it."""


class _Query(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    status: Annotated[tuple[Status, ...], Few] = ()
    repo: Annotated[tuple[Repo, ...], Few] = ()
    """Name or glob, as in relay.yaml."""
    sha: Annotated[str, Meta(pattern="^[0-9a-f]{0,64}$")] = ""
    """How the commit begins."""
    author: Short = ""
    """Login, name or email of the commit's author."""
    since: Annotated[str, Meta(pattern=SINCE)] = ""
    """2h, so long ago, or an ISO 8601 time."""
    limit: Annotated[int, Meta(ge=1, le=MOST)] = 50
    cursor: Annotated[str, Meta(max_length=350)] = ""
    """``next`` of the page before."""


class DeliveryQuery(_Query, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which deliveries."""

    source: Annotated[tuple[Short, ...], Few] = ()


class DeployQuery(_Query, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which deploys."""

    target: Annotated[tuple[Short, ...], Few] = ()
    route: Annotated[tuple[Short, ...], Few] = ()


class Page(msgspec.Struct, frozen=True, kw_only=True):
    """A part of a list, the newest first."""

    items: Sequence[Record]
    next: str | None
    """The ``cursor`` of the next page; null where there is none."""
    complete: bool
    """False where not all jobs were looked at."""
    back_to: str | None
    """Where the time of one request did not suffice for all: what was created before this was not
    looked at, and ``next`` goes on there, even if ``items`` is empty. Otherwise null."""


class Run(msgspec.Struct, frozen=True, kw_only=True):
    """How one run of a job ended."""

    at: str
    how: str
    """In RQ's words, but for a run that only waited, which is ``waited``."""
    reason: str
    value: dict[str, Any]


class Timeline(msgspec.Struct, frozen=True, kw_only=True):
    """All that is known of one delivery or deploy. It holds no secret and no URL."""

    record: Record
    event: dict[str, Any]
    """What the webhook said, of its files only their number."""
    runs: Sequence[Run]
    """The last ones, the newest first."""
    attempts: Sequence[AttemptRecord]
    """Of a deploy: its calls, the newest last."""
    deploys: Sequence[Record]
    """Of a delivery."""


class Payload(msgspec.Struct, frozen=True, kw_only=True):
    """What a webhook said, as JSON, with its secrets masked."""

    payload: msgspec.Raw


class HistoryQuery(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which lines of the audit."""

    since: Annotated[str, Meta(pattern=SINCE)] = ""
    """2h, so long ago, or an ISO 8601 time."""
    until: Annotated[str, Meta(pattern=SINCE)] = ""
    """The same."""
    event: Annotated[tuple[Annotated[str, Meta(pattern="^!?[a-z_.*?]{1,60}$")], ...], Few] = ()
    """Name or glob, as deploy.*"""
    repo: Annotated[tuple[Repo, ...], Few] = ()
    """Name or glob, as in relay.yaml."""
    source: Annotated[tuple[Short, ...], Few] = ()
    target: Annotated[tuple[Short, ...], Few] = ()
    sha: Annotated[str, Meta(pattern="^[0-9a-f]{0,64}$")] = ""
    """How the commit begins."""
    by: Annotated[tuple[Short, ...], Few] = ()
    delivery: Annotated[tuple[Id, ...], Few] = ()
    deploy: Annotated[tuple[Id, ...], Few] = ()
    limit: Annotated[int, Meta(ge=1, le=MOST)] = 100
    cursor: Annotated[str, Meta(pattern="^([0-9]{1,18}-[0-9]{1,18})?$")] = ""
    """``next`` of the page before."""


class HistoryPage(msgspec.Struct, frozen=True, kw_only=True):
    """A part of the audit file, the newest first."""

    items: Sequence[Mapping[str, Any]]
    """Lines of the audit."""
    next: str | None
    """The ``cursor`` of the next page; null where there is none."""
    complete: bool
    """False where it was not looked far enough back to find as many as asked for: ``next`` leads
    further."""
    back_to: str | None
    """When the oldest line was written that was looked at."""


async def list_history(asked: Asked[HistoryQuery, Nothing]) -> HistoryPage:
    """List lines of the audit, also of what Redis does not have any more, the newest first."""
    query = asked.query
    names = ("source", "target", "by", "delivery", "deploy")
    values = {name: getattr(query, name) for name in names if getattr(query, name)}
    try:
        lines = wanted(query.since, query.until, query.event, query.repo, query.sha, values)
    except ValueError as error:
        raise Refused(f"parameters: {error}") from None
    found = await asked.context.history.ask(lines, query.limit, query.cursor)
    return HistoryPage(
        items=found.entries,
        next=found.next or None,
        complete=found.complete,
        back_to=found.back_to or None,
    )


async def list_deliveries(asked: Asked[DeliveryQuery, Nothing]) -> Page:
    """List deliveries, the newest first."""
    return await _page(asked.context.archive, "delivery", asked.query, asked.query.source)


async def list_deploys(asked: Asked[DeployQuery, Nothing]) -> Page:
    """List deploys, the newest first."""
    query = asked.query
    return await _page(asked.context.archive, "deploy", query, query.target, query.route)


async def show_delivery(asked: Asked[Nothing, Nothing]) -> Timeline:
    """Tell all that is known of a delivery."""
    return await timeline(asked.context, "delivery", asked.name)


async def show_payload(asked: Asked[Nothing, Nothing]) -> Payload:
    """Give the payload of a delivery, its secrets masked; 404 says why it is not kept."""
    return Payload(payload=msgspec.Raw(await payload(asked.context, asked.name)))


async def show_deploy(asked: Asked[Nothing, Nothing]) -> Timeline:
    """Tell all that is known of a deploy."""
    return await timeline(asked.context, "deploy", asked.name)


async def timeline(context: Context, kind: Kind, id_: str) -> Timeline:
    """All that is known of one. Raises NoSuchThing, redis.exceptions.RedisError."""
    details = await context.archive.details(kind, id_)
    if details is None:
        place = f"; GET /history?{kind}= may have it" if context.history.is_kept else ""
        raise NoSuchThing(f"there is no such {kind}, or not any more{place}")
    record, event, runs, attempts = details
    return Timeline(
        record=record,
        event=dict(event),
        runs=[
            Run(at=run.at, how=run.how, reason=run.reason, value=dict(run.value)) for run in runs
        ],
        attempts=attempts,
        deploys=await context.archive.read("deploy", record.deploys),
    )


async def payload(context: Context, id_: str) -> bytes:
    """That of a delivery. Raises NoSuchThing, redis.exceptions.RedisError."""
    records = await context.archive.read("delivery", [id_])
    if not records:
        raise NoSuchThing("there is no such delivery, or not any more")
    return await read_payload(context.redis, records[0], context.settings)


async def _page(
    archive: Archive,
    kind: Kind,
    query: _Query,
    names: Sequence[str],
    routes: Sequence[str] = (),
) -> Page:
    try:
        wanted = Filter(
            statuses=frozenset(query.status),
            repos=PatternSet(query.repo, "path", ignore_case=True) if query.repo else None,
            names=frozenset(names),
            since=since(query.since),
            routes=frozenset(routes),
            sha=query.sha,
            author=query.author,
            before=query.cursor,
        )
    except ValueError as error:
        raise Refused(f"parameters: {error}") from None
    found = await archive.find(kind, wanted, query.limit, seconds=SECONDS)
    items = await archive.read(kind, found.ids)
    return Page(
        items=items,
        next=found.next or None,
        complete=found.complete,
        back_to=found.back_to or None,
    )
