"""Connections to Redis, with the settings that this project relies on."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import redis
import redis.asyncio
import redis.asyncio.sentinel
import redis.sentinel
from redis.asyncio.retry import Retry as AsyncRetry
from redis.backoff import NoBackoff
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import RedisError, ResponseError
from redis.retry import Retry

from config.redis_url import Sentinels, parse
from relay.errors import NoConnection, StoreUnavailable

CONNECT_TIMEOUT = 5
"""Seconds to wait for a connection to Redis."""

SENTINEL_TIMEOUT = 1
"""Seconds to wait for one sentinel at most; all of them fit into the time of one command."""


class TooFewReplicas(RedisError):
    """Redis has what was written, but not enough replicas have confirmed it in time."""


class _Watched(redis.asyncio.Redis):
    """A client of the Redis that sentinels name. It also closes its connections to them."""

    async def aclose(self, close_connection_pool: bool | None = None) -> None:
        await super().aclose(close_connection_pool)
        pool: Any = self.connection_pool
        await pool.sentinel_manager.aclose()


def connect_async(url: str, *, timeout: float, repeats: bool = True) -> redis.asyncio.Redis:
    """A client for event loops. ``timeout`` is the seconds one command may take.

    With ``repeats`` a command whose connection broke is sent once more, which hides a restart of
    Redis from those who may be executed twice; beyond that errors are the caller's to judge.

    Sentinels are asked for each new connection. A Redis that has become a replica answers a write
    with READONLY, which redis-py makes a broken connection.
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
    asked: Any = redis.asyncio.sentinel.Sentinel(  # type: ignore[no-untyped-call]
        parsed.addresses,
        sentinel_kwargs={
            **parsed.sentinel_options,
            **_brief(parsed, timeout),
            "retry": AsyncRetry(NoBackoff(), 1, supported_errors=(RedisConnectionError,)),
        },
    )
    client: redis.asyncio.Redis = asked.master_for(
        parsed.service, redis_class=_Watched, **parsed.options, **options
    )
    return client


@contextmanager
def asked(url: str, *, timeout: float | None = None) -> Iterator[redis.Redis]:
    """A blocking client for a few questions, each of ``timeout`` seconds at most.

    Raises StoreUnavailable, which names no password, for whatever Redis does wrong.
    """
    try:
        with connect(url, timeout=timeout) as client:
            yield client
    except TooFewReplicas as error:
        raise StoreUnavailable(
            f"Redis has it, but only {error}: a failover may undo it, so run this again"
        ) from None
    except RedisError as error:
        raise unavailable(error) from None


def unavailable(error: Exception) -> StoreUnavailable:
    """What is told of a Redis that does not answer. It names no password and no address."""
    text = f"Redis does not answer ({name_of(error)})"
    # What redis-py derives from it, such as a password that is refused, was answered.
    return NoConnection(text) if type(error) is RedisConnectionError else StoreUnavailable(text)


def connect(url: str, *, timeout: float | None = None) -> redis.Redis:
    """A blocking client, as rq's own worker and registries need it. ``timeout`` is the seconds one
    command may take."""
    retry = Retry(NoBackoff(), 1, supported_errors=(RedisConnectionError,))
    options: dict[str, Any] = {"socket_connect_timeout": CONNECT_TIMEOUT, "retry": retry}
    if timeout is not None:
        options["socket_timeout"] = timeout
    parsed = parse(url)
    if not isinstance(parsed, Sentinels):
        return redis.Redis.from_url(url, **options)
    asked: Any = redis.sentinel.Sentinel(  # type: ignore[no-untyped-call]
        parsed.addresses,
        sentinel_kwargs={
            **parsed.sentinel_options,
            **_brief(parsed, CONNECT_TIMEOUT),
            "retry": retry,
        },
    )
    client: redis.Redis = asked.master_for(parsed.service, **parsed.options, **options)
    return client


async def execute(
    client: redis.asyncio.Redis,
    fill: Callable[[Any], object],
    *,
    replicas: int,
    patience: float,
) -> list[Any]:
    """The answers to the commands that ``fill`` puts into a pipeline, run as one transaction, once
    that many replicas have confirmed them. They must write something.

    ``patience`` is the seconds replicas get for it. Raises redis.exceptions.RedisError, and
    TooFewReplicas if Redis has run the commands, but too few have confirmed them.
    """
    async with client.pipeline(transaction=not replicas) as pipe:
        _write(pipe, fill, replicas, patience)
        return _confirmed(await pipe.execute(), replicas)


def execute_blocking(
    client: redis.Redis, fill: Callable[[Any], object], *, replicas: int, patience: float
) -> list[Any]:
    """As ``execute``, with a blocking client."""
    with client.pipeline(transaction=not replicas) as pipe:
        _write(pipe, fill, replicas, patience)
        return _confirmed(pipe.execute(), replicas)


def _write(pipe: Any, fill: Callable[[Any], object], replicas: int, patience: float) -> None:
    if not replicas:
        fill(pipe)
        return
    # WAIT is about the writes of its own connection and does not wait within a transaction, so
    # both travel in one pipeline. https://redis.io/docs/latest/commands/wait/
    pipe.execute_command("MULTI")
    fill(pipe)
    pipe.execute_command("EXEC")
    pipe.execute_command("WAIT", replicas, max(1, int(patience * 1000)))


def _confirmed(answers: list[Any], replicas: int) -> list[Any]:
    if not replicas:
        return answers
    *_, answers, confirmed = answers
    for answer in answers:
        if isinstance(answer, Exception):
            raise answer
    if confirmed < replicas:
        raise TooFewReplicas(f"{confirmed} of {replicas} replicas have it")
    return list(answers)


def _brief(sentinels: Sentinels, timeout: float) -> dict[str, float]:
    """A sentinel that does not answer must not take the time in which another one would."""
    seconds = min(SENTINEL_TIMEOUT, timeout / (len(sentinels.addresses) + 1))
    return {"socket_timeout": seconds, "socket_connect_timeout": seconds}


def faults_the_command(error: Exception) -> bool:
    """Whether Redis found fault with what it was told, rather than being unable to do it."""
    return type(error) is ResponseError and (
        error.status_code == "ERR" or str(error).startswith("WRONGTYPE ")
    )


def name_of(error: Exception) -> str:
    """The kind of an error: Redis's own word for it, such as MISCONF, where the client has none."""
    word = str(error).partition(" ")[0]
    return word if type(error) is ResponseError and word.isupper() else type(error).__name__
