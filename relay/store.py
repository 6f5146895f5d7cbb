"""Connections to Redis, with the settings that this project relies on."""

from __future__ import annotations

from typing import Any

import redis
import redis.asyncio
import redis.asyncio.sentinel
import redis.sentinel
from redis.asyncio.retry import Retry as AsyncRetry
from redis.backoff import NoBackoff
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import ResponseError
from redis.retry import Retry

from config.redis_url import Sentinels, parse
from relay.errors import NoConnection, StoreUnavailable

CONNECT_TIMEOUT = 5
"""Seconds to wait for a connection to Redis."""

SENTINEL_TIMEOUT = 1
"""Seconds to wait for one sentinel at most. Asking all of them takes no longer than one command."""


class _Watched(redis.asyncio.Redis):
    """A client of the master that the sentinels name. It also closes its connections to them."""

    async def aclose(self, close_connection_pool: bool | None = None) -> None:
        await super().aclose(close_connection_pool)
        pool: Any = self.connection_pool
        await pool.sentinel_manager.aclose()


def connect_async(url: str, *, timeout: float, repeats: bool = True) -> redis.asyncio.Redis:
    """Return a client for event loops. ``timeout`` is the seconds that one command may take.

    With ``repeats`` a command whose connection broke is sent once more. Pass False for a command
    that must not be executed twice.

    Each new connection asks the sentinels for the master. A Redis that has become a replica
    answers a write with READONLY, which redis-py treats as a broken connection.
    """
    options: dict[str, Any] = {
        "socket_timeout": timeout,
        "socket_connect_timeout": min(timeout, CONNECT_TIMEOUT),
        "retry": AsyncRetry(NoBackoff(), int(repeats), supported_errors=(RedisConnectionError,)),
        "health_check_interval": 0,
    }
    parsed = parse(url)
    if not isinstance(parsed, Sentinels):
        return redis.asyncio.Redis.from_url(url, **options)
    sentinel: Any = redis.asyncio.sentinel.Sentinel(  # type: ignore[no-untyped-call]
        parsed.addresses,
        sentinel_kwargs={
            **parsed.sentinel_options,
            **_brief(parsed, timeout),
            "retry": AsyncRetry(NoBackoff(), 1, supported_errors=(RedisConnectionError,)),
        },
    )
    client: redis.asyncio.Redis = sentinel.master_for(
        parsed.service, redis_class=_Watched, **parsed.options, **options
    )
    return client


def unavailable(error: Exception) -> StoreUnavailable:
    """Return the error for a Redis that does not answer. It names no password and no address."""
    text = f"Redis does not answer ({name_of(error)})"
    # redis-py's subclasses of ConnectionError, such as a refused password, are answers of a Redis.
    return NoConnection(text) if type(error) is RedisConnectionError else StoreUnavailable(text)


def connect(url: str, *, timeout: float | None = None) -> redis.Redis:
    """Return a blocking client. ``timeout`` is the seconds that one command may take."""
    retry = Retry(NoBackoff(), 1, supported_errors=(RedisConnectionError,))
    options: dict[str, Any] = {"socket_connect_timeout": CONNECT_TIMEOUT, "retry": retry}
    if timeout is not None:
        options["socket_timeout"] = timeout
    parsed = parse(url)
    if not isinstance(parsed, Sentinels):
        return redis.Redis.from_url(url, **options)
    sentinel: Any = redis.sentinel.Sentinel(  # type: ignore[no-untyped-call]
        parsed.addresses,
        sentinel_kwargs={
            **parsed.sentinel_options,
            **_brief(parsed, CONNECT_TIMEOUT),
            "retry": retry,
        },
    )
    client: redis.Redis = sentinel.master_for(parsed.service, **parsed.options, **options)
    return client


def _brief(sentinels: Sentinels, timeout: float) -> dict[str, float]:
    """Return timeouts so short that one silent sentinel leaves time to ask the others."""
    seconds = min(SENTINEL_TIMEOUT, timeout / (len(sentinels.addresses) + 1))
    return {"socket_timeout": seconds, "socket_connect_timeout": seconds}


def name_of(error: Exception) -> str:
    """Return the kind of an error: Redis's code such as MISCONF, else the name of the class."""
    word = str(error).partition(" ")[0]
    return word if type(error) is ResponseError and word.isupper() else type(error).__name__
