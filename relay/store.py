"""Connections to Redis, with the settings that this project relies on."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import redis
import redis.asyncio
from redis.asyncio.retry import Retry as AsyncRetry
from redis.backoff import NoBackoff
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import RedisError, ResponseError
from redis.retry import Retry

from relay.errors import StoreUnavailable

CONNECT_TIMEOUT = 5
"""Seconds to wait for a connection to Redis."""


def connect_async(url: str, *, timeout: float, repeats: bool = True) -> redis.asyncio.Redis:
    """A client for event loops. ``timeout`` is the seconds one command may take.

    With ``repeats`` a command whose connection broke is sent once more, which hides a restart of
    Redis from those who may be executed twice; beyond that errors are the caller's to judge.
    """
    return redis.asyncio.Redis.from_url(
        url,
        socket_timeout=timeout,
        socket_connect_timeout=min(timeout, CONNECT_TIMEOUT),
        retry=AsyncRetry(NoBackoff(), int(repeats), supported_errors=(RedisConnectionError,)),
        health_check_interval=0,
    )


@contextmanager
def asked(url: str) -> Iterator[redis.Redis]:
    """A blocking client for a command's few questions.

    Raises StoreUnavailable, which names no password, for whatever Redis does wrong.
    """
    try:
        with connect(url) as client:
            yield client
    except RedisError as error:
        raise StoreUnavailable(f"Redis does not answer ({type(error).__name__})") from None


def connect(url: str) -> redis.Redis:
    """A blocking client, as rq's own worker and registries need it."""
    return redis.Redis.from_url(
        url,
        socket_connect_timeout=CONNECT_TIMEOUT,
        retry=Retry(NoBackoff(), 1, supported_errors=(RedisConnectionError,)),
    )


def faults_the_command(error: Exception) -> bool:
    """Whether Redis found fault with what it was told, rather than being unable to do it."""
    return type(error) is ResponseError and (
        error.status_code == "ERR" or str(error).startswith("WRONGTYPE ")
    )


def name_of(error: Exception) -> str:
    """The kind of an error: Redis's own word for it, such as MISCONF, where the client has none."""
    word = str(error).partition(" ")[0]
    return word if type(error) is ResponseError and word.isupper() else type(error).__name__
