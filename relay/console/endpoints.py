"""What an endpoint of the API is: one entry of a table, out of which requests are served and the
OpenAPI document is made (relay/console/openapi.py)."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Annotated, Any, Generic, Literal, NamedTuple, TypeVar, get_origin

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
    """Of an endpoint that takes no parameters, or no body."""


class ApiRequest(NamedTuple, Generic[Q, B]):
    """A request that was understood."""

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
    """Its first line of documentation is the summary. Raises Refused, and what faults.py knows."""
    answer: type[msgspec.Struct]
    query: type[Q]
    body: type[B]
    role: Role = "viewer"
    large: bool = False
    """Whether its body may be as large as a webhook."""

    @property
    def takes_body(self) -> bool:
        """Whether a body is expected."""
        return self.body is not Nothing


def add(app: web.Application, endpoint: Endpoint[Any, Any]) -> None:
    """Have the console serve an endpoint."""

    @needs(endpoint.role)
    async def handle(request: web.Request) -> web.Response:
        asked = ApiRequest(
            request.app[CONTEXT],
            request[CALLER],
            next(iter(request.match_info.values()), ""),
            _query(request, endpoint.query),
            await _body(request, endpoint),
        )
        return answer(await endpoint.run(asked))

    # No verb that stands where an id could is one.
    path = PREFIX + endpoint.path.replace("{id}", "{id:[^{}/]+-[^{}/]+}")
    if endpoint.method == "GET":
        app.router.add_get(path, handle)
    else:
        app.router.add_post(path, handle)


def answer(told: msgspec.Struct) -> web.Response:
    """A success of the API."""
    return web.Response(body=msgspec.json.encode(told), content_type="application/json")


def is_list(field: msgspec.structs.FieldInfo) -> bool:
    """Whether a parameter may come several times."""
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
    asked = request.clone(client_max_size=settings.max_body) if endpoint.large else request
    try:
        async with asyncio.timeout(settings.body_timeout):
            raw = await asked.read()
    except TimeoutError:
        raise BodyTooSlow(f"the body took more than {settings.body_timeout:g} s") from None
    try:
        return msgspec.json.decode(raw, type=endpoint.body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise Refused(f"body: {error}") from None
