"""The API of relay.yaml: routes, sources, targets, and what a webhook would cause."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Sequence
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta
from yarl import URL

from config.model import Route, Source, Target
from relay import __version__
from relay.audit import REDACTED
from relay.console.context import Plan
from relay.console.endpoints import ApiRequest, Nothing
from relay.errors import NoSuchThing
from relay.events.event import Event, Ignored
from relay.explanation import explanation, understood
from relay.ledger.overview import TargetSeen, read_targets
from relay.ledger.work_left import read_remaining

_TELLING = re.compile(r"auth|cookie|key|secret|signature|token|passw", re.IGNORECASE)
"""Names of headers and parameters whose value is redacted even where relay.yaml has it in plain."""


class Health(msgspec.Struct, frozen=True, kw_only=True):
    """The state of the console."""

    status: Literal["ok"]
    version: str
    config: str
    """The version of relay.yaml, as in the audit."""
    queued: int
    """Deliveries, deploys and notices that a worker would take now."""


class RouteShown(msgspec.Struct, frozen=True, kw_only=True):
    """A route as relay.yaml has it."""

    name: str
    repo: Sequence[str]
    on: Sequence[str]
    deploy: Sequence[str]
    conditions: dict[str, Any]
    """Its other keys, such as ``branches``."""


class SourceShown(msgspec.Struct, frozen=True, kw_only=True):
    """A source without its secrets."""

    name: str
    provider: str
    path: str
    """Where its webhooks are received."""
    repos: Sequence[str]
    networks: Sequence[str]
    rate: str
    secrets: int
    """Number of secrets that may sign."""


class TargetShown(msgspec.Struct, frozen=True, kw_only=True):
    """A target and how it stands, without its URL."""

    name: str
    preset: str
    state: str
    """How it stands, in words."""
    paused: bool
    breaker: Literal["off", "closed", "open", "half-open"]
    """half-open: the next call, or the one under way, is the probe."""
    held: bool
    """It is rate limited: its platform wants no calls now."""
    until: str
    """When calls begin again; empty where that is unknown."""
    calling: int
    """Deploys that are being called."""
    waiting: int
    """Deploys that wait, for any reason."""
    concurrency: int
    supersede: bool
    approval: bool


class Routes(msgspec.Struct, frozen=True, kw_only=True):
    """All routes, in their order."""

    items: Sequence[RouteShown]


class Sources(msgspec.Struct, frozen=True, kw_only=True):
    """All sources."""

    items: Sequence[SourceShown]


class Targets(msgspec.Struct, frozen=True, kw_only=True):
    """All targets."""

    items: Sequence[TargetShown]


class Question(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A webhook that might come."""

    source: Annotated[str, Meta(max_length=200)]
    payload: dict[str, Any]
    event: Annotated[str, Meta(min_length=1, max_length=100, pattern="^[ -~]+$")] | None = None
    """Value of the provider's event header; detected if left out."""


class NotifierShown(msgspec.Struct, frozen=True, kw_only=True):
    """A notifier of a deploy, without its URL."""

    notifier: str
    on: Sequence[str]
    """The kinds of notices that it gets."""


class CallShown(msgspec.Struct, frozen=True, kw_only=True):
    """A call that would be made, secrets redacted."""

    target: str
    method: str = ""
    url: str = ""
    headers: dict[str, str] = {}
    body: str = ""
    error: str = ""
    """Why it cannot be made."""
    notifies: Sequence[NotifierShown] = ()


class Decision(msgspec.Struct, frozen=True, kw_only=True):
    """Whether a route matches, and why."""

    route: str
    matched: bool
    reason: str
    calls: Sequence[CallShown]


class Explained(msgspec.Struct, frozen=True, kw_only=True):
    """What a webhook would cause."""

    ignored: str = ""
    """Why it can never deploy; the rest is empty then."""
    event: dict[str, Any] = {}
    routes: Sequence[Decision] = ()


async def health(request: ApiRequest[Nothing, Nothing]) -> Health:
    """Return the state of the console."""
    context = request.context
    left = await context.ledger.read(read_remaining)
    version = context.plan().version
    return Health(status="ok", version=__version__, config=version, queued=left.queued)


async def list_routes(request: ApiRequest[Nothing, Nothing]) -> Routes:
    """List the routes, in their order."""
    return Routes(items=[route_shown(route) for route in request.context.plan().config.routes])


async def list_sources(request: ApiRequest[Nothing, Nothing]) -> Sources:
    """List the sources."""
    sources = request.context.plan().config.sources
    return Sources(items=[_source(name, source) for name, source in sources.items()])


async def list_targets(request: ApiRequest[Nothing, Nothing]) -> Targets:
    """List the targets and how they stand."""
    policies = request.context.plan().config.targets
    standings = await request.context.ledger.read(lambda reader: read_targets(reader, policies))
    return Targets(items=[_target(policies[one.name], one) for one in standings])


async def explain(request: ApiRequest[Nothing, Question]) -> Explained:
    """Return what a webhook would cause: every route with its reason, and the calls."""
    question = request.body
    return await asyncio.to_thread(
        explained,
        request.context.plan(),
        question.source,
        msgspec.json.encode(question.payload),
        question.event,
    )


def explained(plan: Plan, source: str, payload: bytes, event: str | None) -> Explained:
    """Return what a webhook would cause. Slow for a large payload: run it in a thread. Raises
    NoSuchThing and Malformed."""
    if source not in plan.config.sources:
        raise NoSuchThing(f"no source {source!r} in relay.yaml")
    provider = plan.config.sources[source].provider
    parsed = understood(provider, payload, event, hint="say what its event header was")
    if isinstance(parsed, Ignored):
        return Explained(ignored=parsed.reason)
    return explained_event(plan, source, parsed)


def explained_event(plan: Plan, source: str, event: Event) -> Explained:
    """Return what a parsed event would cause."""
    configured = plan.config.sources.get(source)
    answer = msgspec.convert(
        explanation(
            plan.router,
            plan.recipes,
            event,
            source,
            plan.messengers,
            provider=configured.provider if configured else None,
        ),
        Explained,
    )
    return msgspec.structs.replace(
        answer,
        routes=[
            msgspec.structs.replace(route, calls=[_redacted(call) for call in route.calls])
            for route in answer.routes
        ],
    )


def _redacted(call: CallShown) -> CallShown:
    """Return a call with the values redacted that may be secrets although relay.yaml has them in
    plain: viewers need not know them."""
    return msgspec.structs.replace(
        call,
        url=_redacted_url(call.url),
        headers={
            name: REDACTED if _TELLING.search(name) else value
            for name, value in call.headers.items()
        },
    )


def _redacted_url(text: str) -> str:
    """Return a URL with its path redacted, which may be the secret. ``<env NAME>`` stays."""
    address, mark, query = text.partition("?")
    if address.startswith(("http://", "https://")):
        address = f"{URL(address, encoded=True).origin()}/{REDACTED}"
    pairs = [pair.partition("=") for pair in query.split("&")] if mark else []
    shown = [
        f"{name}={REDACTED}" if _TELLING.search(name) else name + equals + value
        for name, equals, value in pairs
    ]
    return address + mark + "&".join(shown)


def route_shown(route: Route) -> RouteShown:
    """Return the keys of a route that relay.yaml sets."""
    keys = route.model_dump(mode="json", exclude_unset=True)
    shown = {"name", "repo", "on", "deploy"}
    return RouteShown(
        name=route.name,
        repo=route.repo,
        on=route.on,
        deploy=route.deploy,
        conditions={key: value for key, value in keys.items() if key not in shown},
    )


def _source(name: str, source: Source) -> SourceShown:
    rate = source.rate
    return SourceShown(
        name=name,
        provider=source.provider,
        path=f"/hooks/{name}",
        repos=source.repos,
        networks=[str(network) for network in source.networks],
        rate=f"{rate.most} in {rate.seconds:g} s" if rate else "",
        secrets=len(source.secrets) + len(source.signing_tokens),
    )


def _target(target: Target, standing: TargetSeen) -> TargetShown:
    return TargetShown(
        name=standing.name,
        preset=target.preset,
        state=standing.state,
        paused=standing.paused,
        breaker=standing.breaker,
        held=standing.held,
        until=standing.until,
        calling=standing.calling,
        waiting=standing.waiting,
        concurrency=target.concurrency,
        supersede=target.newest_only,
        approval=target.approval is not None,
    )
