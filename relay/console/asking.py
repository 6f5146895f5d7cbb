"""What the API tells of deliveries and deploys."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

import msgspec
from msgspec import Meta

from config.patterns import PatternSet
from relay.archive import Archive
from relay.attempts_kept import AttemptRecord
from relay.console.endpoints import Asked, Nothing
from relay.errors import NoSuchThing, Refused
from relay.filtering import Filter, since
from relay.finding import SECONDS
from relay.reading import Record
from relay.statuses import Kind, Status

MOST = 200
"""Entries of one page."""

Few = Meta(max_length=10)
"""Of a parameter that may come several times."""

Short = Annotated[str, Meta(max_length=100)]


SINCE = (
    r"^(|[0-9]{1,9}(ms|s|m|h|d)?"
    r"|20[0-9]{2}-(0[1-9]|1[0-2])-(0[1-9]|[12][0-9]|3[01])"
    r"(T([01][0-9]|2[0-3]):[0-5][0-9](:[0-5][0-9])?(Z|[+-](0[0-9]|1[0-3]):[0-5][0-9])?)?)$"
)
"""What the document says of a time; ``relay.archive.since`` reads it."""


class _Query(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    status: Annotated[tuple[Status, ...], Few] = ()
    repo: Annotated[
        tuple[Annotated[str, Meta(max_length=100, pattern="^[A-Za-z0-9_.+~/*?-]+$")], ...], Few
    ] = ()
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
    searched_to: str | None
    """Where the time of one request did not suffice for all: what was created before this was not
    looked at, and ``next`` goes on there, even if ``items`` is empty. Otherwise null."""


class Run(msgspec.Struct, frozen=True, kw_only=True):
    """How one run of a job ended."""

    at: str
    how: str
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


async def list_deliveries(asked: Asked[DeliveryQuery, Nothing]) -> Page:
    """List deliveries, the newest first."""
    return await _page(asked.context.archive, "delivery", asked.query, asked.query.source)


async def list_deploys(asked: Asked[DeployQuery, Nothing]) -> Page:
    """List deploys, the newest first."""
    query = asked.query
    return await _page(asked.context.archive, "deploy", query, query.target, query.route)


async def show_delivery(asked: Asked[Nothing, Nothing]) -> Timeline:
    """Tell all that is known of a delivery."""
    return await timeline(asked.context.archive, "delivery", asked.name)


async def show_deploy(asked: Asked[Nothing, Nothing]) -> Timeline:
    """Tell all that is known of a deploy."""
    return await timeline(asked.context.archive, "deploy", asked.name)


async def timeline(archive: Archive, kind: Kind, id_: str) -> Timeline:
    """All that is known of one. Raises NoSuchThing, redis.exceptions.RedisError."""
    details = await archive.details(kind, id_)
    if details is None:
        raise NoSuchThing(f"there is no such {kind}, or not any more")
    record, event, runs, attempts = details
    return Timeline(
        record=record,
        event=dict(event),
        runs=[
            Run(at=run.at, how=run.how, reason=run.reason, value=dict(run.value)) for run in runs
        ],
        attempts=attempts,
        deploys=await archive.read("deploy", record.deploys),
    )


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
        searched_to=found.searched_to or None,
    )
