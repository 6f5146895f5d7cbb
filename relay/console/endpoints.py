"""Endpoints of the API: entries of one table that serves the requests and from which
relay/console/openapi.py makes the OpenAPI document."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import (
    Annotated,
    Any,
    Generic,
    Literal,
    NamedTuple,
    TypeVar,
    get_args,
    get_origin,
    get_type_hints,
)

import msgspec
from aiohttp import web

from relay.console.access import CALLER, Caller, needs
from relay.console.context import CONTEXT, Context
from relay.errors import BodyTooSlow, Refused
from relay.tokens import Role

PREFIX = "/api/v1"

Q = TypeVar("Q", bound=msgspec.Struct)
B = TypeVar("B", bound=msgspec.Struct)


class Nothing(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The query or body of an endpoint that takes none."""


class ApiRequest(NamedTuple, Generic[Q, B]):
    """A valid request."""

    context: Context
    caller: Caller
    name: str
    """The id or name in the path."""
    query: Q
    body: B


@dataclass(frozen=True, slots=True)
class Endpoint(Generic[Q, B]):
    """One entry of the table."""

    method: Literal["GET", "POST"]
    path: str
    """Below ``PREFIX``; ``{id}`` or ``{name}`` may be its last part but one."""
    run: Callable[[ApiRequest[Q, B]], Awaitable[msgspec.Struct]]
    """Its docstring's first line is the summary. It raises Refused and the errors of faults.py."""
    answer: type[msgspec.Struct]
    query: type[Q]
    body: type[B]
    role: Role
    large: bool
    """Whether its body may be as large as a webhook."""

    @property
    def takes_body(self) -> bool:
        """Whether a body is expected."""
        return self.body is not Nothing


def endpoint(
    method: Literal["GET", "POST"],
    path: str,
    run: Callable[[ApiRequest[Q, B]], Awaitable[msgspec.Struct]],
    *,
    role: Role = "viewer",
    large: bool = False,
) -> Endpoint[Q, B]:
    """Return an entry of the table. The annotations of ``run`` name the types of its query, body
    and answer."""
    hints = get_type_hints(run)
    query, body = get_args(hints["request"])
    return Endpoint(method, path, run, hints["return"], query, body, role, large)


def add(app: web.Application, endpoint: Endpoint[Any, Any]) -> None:
    """Add an endpoint to the console."""

    @needs(endpoint.role)
    async def handle(request: web.Request) -> web.Response:
        api_request = ApiRequest(
            request.app[CONTEXT],
            request[CALLER],
            next(iter(request.match_info.values()), ""),
            _query(request, endpoint.query),
            await _body(request, endpoint),
        )
        return answer(await endpoint.run(api_request))

    # An id has a hyphen, so no verb in its place is taken for one.
    path = PREFIX + endpoint.path.replace("{id}", "{id:[^{}/]+-[^{}/]+}")
    if endpoint.method == "GET":
        app.router.add_get(path, handle)
    else:
        app.router.add_post(path, handle)


def answer(body: msgspec.Struct) -> web.Response:
    """Return the answer to a request that succeeded."""
    return web.Response(body=msgspec.json.encode(body), content_type="application/json")


def is_list(field: msgspec.structs.FieldInfo) -> bool:
    """Return whether a parameter may be given several times."""
    kind = field.type
    return get_origin(kind.__origin__ if get_origin(kind) is Annotated else kind) is tuple


def _query(request: web.Request, of: type[Q]) -> Q:
    lists = {field.encode_name for field in msgspec.structs.fields(of) if is_list(field)}
    given: dict[str, Any] = {}
    for name in request.query:
        values = request.query.getall(name)
        if name not in lists and len(values) > 1:
            raise Refused(f"{name} is given more than once")
        given[name] = values if name in lists else values[0]
    try:
        return msgspec.convert(given, of, strict=False)
    except (msgspec.ValidationError, RecursionError) as error:
        raise Refused(f"parameters: {error}") from None


async def _body(request: web.Request, endpoint: Endpoint[Any, B]) -> B:
    if not endpoint.takes_body:
        return endpoint.body()
    if request.content_type != "application/json":
        raise web.HTTPUnsupportedMediaType
    settings = request.app[CONTEXT].settings
    sized = request.clone(client_max_size=settings.max_body) if endpoint.large else request
    try:
        async with asyncio.timeout(settings.body_timeout):
            raw = await sized.read()
    except TimeoutError:
        raise BodyTooSlow(f"the body took more than {settings.body_timeout:g} s") from None
    try:
        return msgspec.json.decode(raw, type=endpoint.body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise Refused(f"body: {error}") from None
