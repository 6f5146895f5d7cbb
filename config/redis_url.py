"""Where Redis is: a URL as redis-py knows it, or one that names sentinels. No message quotes it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qsl, quote, unquote, urlencode

from redis.connection import parse_url as _parse_url

SENTINEL_PORT = 26_379

MAX_SENTINELS = 16

_URL = re.compile(
    r"redis(?P<tls>s?)\+sentinel://(?:(?P<user>[^/?#@:]*)(?::(?P<password>[^/?#@]*))?@)?"
    r"(?P<hosts>[^/?#@]+)/(?P<service>[A-Za-z0-9._-]+)(?:/(?P<db>[0-9]{1,5}))?/?"
    r"(?:\?(?P<query>[^#]*))?",
    re.ASCII,
)
_HOST = re.compile(
    r"(?:\[(?P<six>[0-9A-Fa-f:.]+)\]|(?P<name>[A-Za-z0-9._-]+))(?::(?P<port>\d{1,5}))?"
)

_SENTINEL_OPTIONS = {"sentinel_user": "username", "sentinel_password": "password"}

_TLS_OPTIONS = frozenset(
    {"ssl_ca_certs", "ssl_ca_path", "ssl_certfile", "ssl_keyfile", "ssl_check_hostname"}
)


class NoRedisUrl(ValueError):
    """This is no address of a Redis; the text says why and quotes nothing."""


@dataclass(frozen=True, slots=True)
class Sentinels:
    """Sentinels, and the Redis that they watch over under the name ``service``.

    ``options`` are redis-py's for connections to that Redis, ``sentinel_options`` those for
    connections to the sentinels. Both may hold a password.
    """

    addresses: tuple[tuple[str, int], ...]
    service: str
    options: Mapping[str, Any]
    sentinel_options: Mapping[str, Any]


def parse(url: str) -> Sentinels | Mapping[str, Any]:
    """Sentinels, or redis-py's options of a redis://, rediss:// or unix:// URL.

    ``redis+sentinel://[user:password@]host[:port][,host[:port]…]/service[/db][?option=value&…]``,
    and ``rediss+sentinel://`` where both Redis and sentinels speak TLS. User and password are those
    of Redis; the options ``sentinel_user`` and ``sentinel_password`` are those of the sentinels,
    and ``ssl_…`` are redis-py's. Raises NoRedisUrl.
    """
    if "+sentinel:" in url[: len("rediss+sentinel:")]:
        return _sentinels(url)
    try:
        options: dict[str, Any] = _parse_url(url)  # type: ignore[no-untyped-call]
    except ValueError:
        raise NoRedisUrl(
            "not a redis://, rediss://, unix:// or redis+sentinel:// URL; a password's special "
            "characters must be percent-encoded"
        ) from None
    return options


def passwords(url: str) -> frozenset[str]:
    """The passwords in a URL, as they are and as they are sent. Raises NoRedisUrl."""
    parsed = parse(url)
    holders = (
        (parsed.options, parsed.sentinel_options) if isinstance(parsed, Sentinels) else (parsed,)
    )
    found = {str(options["password"]) for options in holders if options.get("password")}
    return frozenset(found | {quote(password, safe="") for password in found})


def _sentinels(url: str) -> Sentinels:
    match = _URL.fullmatch(url)
    if match is None:
        raise NoRedisUrl(
            "not redis+sentinel://[user:password@]host:port[,host:port…]/service[/db]; a "
            "password's special characters must be percent-encoded"
        )
    try:
        given = parse_qsl(match["query"] or "", keep_blank_values=True, strict_parsing=True)
    except ValueError:
        if match["query"]:
            raise NoRedisUrl("what follows the ? is not option=value&option=value") from None
        given = []
    query = dict(given)
    if len(query) < len(given):
        raise NoRedisUrl("an option stands there twice")
    own = {ours: query.pop(name) for name, ours in _SENTINEL_OPTIONS.items() if name in query}
    if query.keys() - (_TLS_OPTIONS if match["tls"] else frozenset()):
        known = [*_SENTINEL_OPTIONS, *sorted(_TLS_OPTIONS)]
        raise NoRedisUrl(
            f"an unknown option; there are {', '.join(known)}, the last ones only in "
            "rediss+sentinel:// URLs"
        )
    # The options of TLS are read as in any other URL of redis-py's.
    tls: dict[str, Any] = _parse_url(f"rediss://?{urlencode(query)}")  # type: ignore[no-untyped-call]
    del tls["connection_class"]
    if match["tls"]:
        tls["ssl"] = True
    login = {"username": match["user"], "password": match["password"]}
    return Sentinels(
        addresses=_addresses(match["hosts"]),
        service=match["service"],
        options={
            **{name: unquote(value) for name, value in login.items() if value},
            "db": int(match["db"] or 0),
            **tls,
        },
        sentinel_options={**{name: value for name, value in own.items() if value}, **tls},
    )


def _addresses(hosts: str) -> tuple[tuple[str, int], ...]:
    found = []
    for host in hosts.split(","):
        match = _HOST.fullmatch(host)
        port = int(match["port"] or SENTINEL_PORT) if match else 0
        if match is None or not 0 < port < 65_536:
            raise NoRedisUrl("a sentinel is not host:port, 127.0.0.1:26379 for example")
        found.append((match["six"] or match["name"], port))
    if len(found) > MAX_SENTINELS:
        raise NoRedisUrl(f"more than {MAX_SENTINELS} sentinels")
    return tuple(found)
