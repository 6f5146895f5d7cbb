"""What the API tells of deliveries and deploys."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from config.patterns import PatternSet
from relay.console.context import Context
from relay.console.endpoints import ApiRequest, Nothing
from relay.console.payloads import payload_of
from relay.errors import NoSuchRecord, Refused
from relay.events.deploy_life import Status
from relay.ledger.details import Details, read_details
from relay.ledger.filters import Filter, since
from relay.ledger.history import HistoryFilter, HistoryRow, read_history
from relay.ledger.lists import list_records
from relay.ledger.records import Record, RecordKind

MOST = 200
"""Entries of one page."""

Few = Meta(max_length=10)
"""Of a parameter that may come several times."""

Short = Annotated[str, Meta(max_length=100)]

Id = Annotated[str, Meta(max_length=300)]

Repo = Annotated[str, Meta(max_length=100, pattern="^[A-Za-z0-9_.+~/*?-]+$")]

Branch = Annotated[str, Meta(max_length=100, pattern="^[A-Za-z0-9_.+~/*?#-]+$")]

Sha = Annotated[str, Meta(pattern="^[0-9a-f]{0,64}$")]

DAY = (
    r"(20[0-9]{2}-((0[1-9]|1[0-2])-(0[1-9]|1[0-9]|2[0-8])|(0[13-9]|1[0-2])-(29|30)"
    r"|(0[13578]|1[02])-31)|20([02468][048]|[13579][26])-02-29)"
)
"""A day of the calendar in this century."""

SINCE = (
    rf"^(|[0-9]{{1,9}}(ms|s|m|h|d)?|{DAY}"
    r"(T([01][0-9]|2[0-3]):[0-5][0-9](:[0-5][0-9])?(Z|[+-](0[0-9]|1[0-3]):[0-5][0-9])?)?)$"
)
"""What the document says of a time; ``relay.ledger.filters.since`` reads it."""

Moment = Annotated[str, Meta(pattern=SINCE)]

DeliveryStatus = Literal["queued", "routed", "ignored", "duplicate"]
Verdict = Literal["new", "same", "known", "late"]


class _Query(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    repo: Annotated[tuple[Repo, ...], Few] = ()
    """Name or glob, as in relay.yaml."""
    branch: Annotated[tuple[Branch, ...], Few] = ()
    """Name or glob of a branch or tag."""
    sha: Sha = ""
    """How the commit begins."""
    author: Short = ""
    """Login, name or email of the commit's author."""
    words: Short = ""
    """Words that stand in the commit's message or the pull request's title."""
    source: Annotated[tuple[Short, ...], Few] = ()
    since: Moment = ""
    """2h, so long ago, or an ISO 8601 time."""
    until: Moment = ""
    """The same."""
    limit: Annotated[int, Meta(ge=1, le=MOST)] = 50


class DeliveryQuery(_Query, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which deliveries."""

    status: Annotated[tuple[DeliveryStatus, ...], Few] = ()
    verdict: Annotated[tuple[Verdict, ...], Few] = ()
    """What the history of the ref says of the delivery."""
    cursor: Annotated[str, Meta(pattern="^(delivery-[1-9][0-9]{0,17})?$")] = ""
    """``next`` of the page before."""


class DeployQuery(_Query, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which deploys."""

    status: Annotated[tuple[Status, ...], Few] = ()
    target: Annotated[tuple[Short, ...], Few] = ()
    route: Annotated[tuple[Short, ...], Few] = ()
    attention: bool = False
    """Only deploys that failed or are uncertain, that no newer success has overtaken and that were
    not replayed."""
    cursor: Annotated[str, Meta(pattern="^(deploy-[1-9][0-9]{0,17})?$")] = ""
    """``next`` of the page before."""


class Page(msgspec.Struct, frozen=True, kw_only=True):
    """A page of a list, the newest first."""

    items: Sequence[Record]
    next: str | None
    """The ``cursor`` of the next page; null where there is none."""


class Payload(msgspec.Struct, frozen=True, kw_only=True):
    """The body of a webhook, as JSON, secrets redacted."""

    payload: msgspec.Raw


class HistoryQuery(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which events of the history."""

    since: Moment = ""
    """2h, so long ago, or an ISO 8601 time."""
    until: Moment = ""
    """The same."""
    event: Annotated[tuple[Annotated[str, Meta(pattern="^!?[a-z_.*?]{1,60}$")], ...], Few] = ()
    """Name or glob, as deploy.*"""
    repo: Annotated[tuple[Repo, ...], Few] = ()
    """Name or glob, as in relay.yaml."""
    source: Annotated[tuple[Short, ...], Few] = ()
    target: Annotated[tuple[Short, ...], Few] = ()
    sha: Sha = ""
    """How the commit begins."""
    by: Annotated[tuple[Short, ...], Few] = ()
    """Who acted."""
    delivery: Annotated[tuple[Id, ...], Few] = ()
    deploy: Annotated[tuple[Id, ...], Few] = ()
    limit: Annotated[int, Meta(ge=1, le=MOST)] = 100
    cursor: Annotated[str, Meta(pattern=r"^([0-9]{1,18}(\.[0-9]{1,18}){4})?$")] = ""
    """``next`` of the page before."""


class HistoryPage(msgspec.Struct, frozen=True, kw_only=True):
    """A page of the history, the newest first."""

    items: Sequence[HistoryRow]
    next: str | None
    """The ``cursor`` of the next page; null where there is none."""


async def list_history(request: ApiRequest[HistoryQuery, Nothing]) -> HistoryPage:
    """List what happened, the newest first."""
    query = request.query
    try:
        chosen = HistoryFilter(
            since=since(query.since),
            until=since(query.until),
            events=PatternSet(query.event, "text") if query.event else None,
            repos=_patterns(query.repo, ignore_case=True),
            sources=frozenset(query.source),
            targets=frozenset(query.target),
            sha=query.sha,
            by=frozenset(query.by),
            deliveries=frozenset(query.delivery),
            deploys=frozenset(query.deploy),
        )
        ledger, limit, cursor = request.context.ledger, query.limit, query.cursor
        page = await ledger.read(lambda reader: read_history(reader, chosen, limit, cursor))
    except ValueError as error:
        raise Refused(f"parameters: {error}") from None
    return HistoryPage(items=page.rows, next=page.next or None)


async def list_deliveries(request: ApiRequest[DeliveryQuery, Nothing]) -> Page:
    """List deliveries, the newest first."""
    query = request.query
    return await _page(
        request.context,
        "delivery",
        query,
        Filter(statuses=frozenset(query.status), verdicts=frozenset(query.verdict)),
    )


async def list_deploys(request: ApiRequest[DeployQuery, Nothing]) -> Page:
    """List deploys, the newest first."""
    query = request.query
    return await _page(
        request.context,
        "deploy",
        query,
        Filter(
            statuses=frozenset(query.status),
            targets=frozenset(query.target),
            routes=frozenset(query.route),
            attention=query.attention,
        ),
    )


async def show_delivery(request: ApiRequest[Nothing, Nothing]) -> Details:
    """Tell all that is known of a delivery."""
    return await details_of(request.context, "delivery", request.name)


async def show_payload(request: ApiRequest[Nothing, Nothing]) -> Payload:
    """Give the payload of a delivery, secrets redacted; 404 says why it is not kept."""
    return Payload(payload=msgspec.Raw(await payload_of(request.context, request.name)))


async def show_deploy(request: ApiRequest[Nothing, Nothing]) -> Details:
    """Tell all that is known of a deploy."""
    return await details_of(request.context, "deploy", request.name)


async def details_of(context: Context, kind: RecordKind, id_: str) -> Details:
    """Return all that is known of one. Raises NoSuchThing and LedgerUnavailable."""
    details = await context.ledger.read(lambda reader: read_details(reader, kind, id_))
    if details is None:
        raise NoSuchRecord(kind, id_)
    return details


async def _page(
    context: Context, kind: RecordKind, query: DeliveryQuery | DeployQuery, own: Filter
) -> Page:
    try:
        chosen = msgspec.structs.replace(
            own,
            sources=frozenset(query.source),
            repos=_patterns(query.repo, ignore_case=True),
            branches=_patterns(query.branch),
            sha=query.sha,
            author=query.author,
            words=query.words,
            since=since(query.since),
            until=since(query.until),
        )
        page = await context.ledger.read(
            lambda reader: list_records(reader, kind, chosen, query.limit, query.cursor)
        )
    except ValueError as error:
        raise Refused(f"parameters: {error}") from None
    return Page(items=page.records, next=page.next or None)


def _patterns(patterns: Sequence[str], *, ignore_case: bool = False) -> PatternSet | None:
    return PatternSet(patterns, "path", ignore_case=ignore_case) if patterns else None
