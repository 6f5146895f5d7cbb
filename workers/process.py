"""Starts the worker process, also while Redis is away."""

from __future__ import annotations

import asyncio
import gc
import logging
import ssl
from uuid import uuid4

import uvloop
from redis.exceptions import (
    AuthenticationError,
    AuthorizationError,
    InvalidResponse,
    MasterDownError,
    RedisError,
)
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeoutError
from rq import Queue
from rq.serializers import JSONSerializer

from config.settings import Settings
from relay.audit import log
from relay.errors import NoConnection, StoreUnavailable
from relay.ledger_marks import check_at_start
from relay.metrics_endpoint import counted
from relay.queue.former_release import refuse_former_release
from relay.signals import on_signals
from relay.store import connect, connect_async, unavailable
from relay.tracing import traced
from workers.runtime import open_runtime, project
from workers.worker import RelayWorker

COLLECTOR = (50_000, 20, 100)
"""Thresholds of Python's cyclic garbage collector; see gc.set_threshold."""


def work() -> None:
    """Run jobs until SIGTERM or SIGINT; jobs that run then get their grace to end.

    Raises ConfigError, FormerRelease, and StoreUnavailable where Redis will not do what a worker
    needs.
    """
    logging.getLogger("rq.worker").setLevel(logging.WARNING)
    # Hundreds of calls in flight are many objects and no cycles: at Python's own thresholds the
    # collector takes a seventh of the worker's time.
    gc.freeze()
    gc.set_threshold(*COLLECTOR)
    try:
        uvloop.run(_work(project().settings))
    except RedisError as error:
        raise unavailable(error) from None


async def _work(settings: Settings) -> None:
    await refuse_former_release(settings)
    name = uuid4().hex
    stopping = asyncio.Event()
    async with (
        traced(settings, "worker"),
        open_runtime() as runtime,
        counted(settings, "worker", lambda: runtime.reloading.current.targets),
    ):
        on_signals(stop=stopping.set, reload=runtime.reloading.hurry)
        await _look_at_redis(settings, name)
        await check_at_start(runtime.ledger, settings)
        if stopping.is_set():
            log.info("worker.stopped", worker=name)
            return
        # No pause from here until its signals are the worker's, or one could get lost.
        connection = connect(settings.redis_address())
        worker = RelayWorker(
            Queue(settings.queue, connection=connection, serializer=JSONSerializer),
            name,
            connection=connection,
            jobs_in_flight=settings.jobs_in_flight,
            shutdown_grace=settings.shutdown_grace,
        )
        on_signals(stop=worker.shut_down, reload=runtime.reloading.hurry)
        watching = asyncio.create_task(runtime.reloading.run())
        try:
            await worker.run(runtime)
        finally:
            watching.cancel()


async def _look_at_redis(settings: Settings, worker: str) -> None:
    """Write an audit line where Redis does not answer yet; the worker then reads the ledger.

    Raises StoreUnavailable for what waiting does not change.
    """
    redis = connect_async(settings.redis_address(), timeout=settings.store_timeout, repeats=False)
    try:
        # A server that loads its file answers some commands, but none that reads a key.
        await redis.exists(f"{RelayWorker.redis_worker_namespace_prefix}{worker}")
    except (RedisError, OSError) as error:
        cause = _cause(error)
        reason = _lasting(cause)
        if reason:
            raise StoreUnavailable(reason) from None
        problem = unavailable(cause)
        whose = settings.whose_redis if isinstance(problem, NoConnection) else ""
        log.warning("worker.waiting", worker=worker, reason=f"{problem}{whose}")
    finally:
        await redis.aclose()


def _cause(error: Exception) -> Exception:
    """Return the cause of an error. redis-py reports errors of TLS as a broken connection, and on a
    Unix socket also the server's errors about the user, the password and the database."""
    while isinstance(error.__context__, RedisError | ssl.SSLError):
        error = error.__context__
    return error


def _lasting(cause: Exception) -> str:
    """Return why another try would not help; empty where it may. It quotes no server."""
    if isinstance(cause, AuthenticationError | AuthorizationError):
        return "Redis refuses the user or the password in RELAY_REDIS_URL"
    if isinstance(cause, InvalidResponse):
        return "what answers at RELAY_REDIS_URL is no Redis"
    if isinstance(cause, ssl.SSLError):
        return f"TLS with Redis fails ({type(cause).__name__})"
    if isinstance(cause, RedisConnectionError | RedisTimeoutError | MasterDownError | OSError):
        return ""
    return f"Redis refuses what a worker asks ({type(cause).__name__})"
