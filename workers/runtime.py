"""What the jobs work with: settings, routes, recipes, and the connections they share.

A stock ``rq worker`` runs each job in a process of its own, and the job opens what it needs. A
worker that runs many jobs in one process opens it once and hands it to them.
"""

from __future__ import annotations

import functools
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from contextvars import ContextVar
from dataclasses import dataclass

import structlog
from redis.asyncio import Redis

from config.loading import load, secret_values
from config.model import Target
from config.settings import Settings, load_settings
from relay import audit
from relay.planning import Recipe, recipes
from relay.routing import Router
from relay.store import connect_async
from workers.client import Client, open_client


@dataclass(frozen=True, slots=True)
class Project:
    """An operator's decisions, compiled: what is read once, before any job runs."""

    settings: Settings
    router: Router
    targets: Mapping[str, Target]
    recipes: Mapping[str, Recipe]


@dataclass(frozen=True, slots=True)
class Runtime:
    """A project and the connections that jobs share."""

    project: Project
    redis: Redis
    client: Client


_shared: ContextVar[Runtime | None] = ContextVar("shared_runtime", default=None)


@functools.cache
def project() -> Project:
    """The project that the environment names; read once a process.

    Sets up the audit where nobody has yet, as under a stock ``rq worker``. Raises ConfigError.
    """
    settings = load_settings()
    loaded = load(settings.config, secrets_of=["targets"])
    config = loaded.config
    if not structlog.is_configured():
        audit.configure(
            style=settings.log_format, level=settings.log_level, secrets=secret_values(config)
        )
    return Project(
        settings=settings,
        router=Router(config.routes),
        targets=config.targets,
        recipes=recipes(loaded),
    )


@asynccontextmanager
async def open_runtime() -> AsyncIterator[Runtime]:
    """Connections for as long as the block lasts."""
    opened = project()
    redis = connect_async(opened.settings.redis_address(), timeout=opened.settings.store_timeout)
    try:
        async with open_client() as client:
            yield Runtime(opened, redis, client)
    finally:
        await redis.aclose()


@asynccontextmanager
async def runtime() -> AsyncIterator[Runtime]:
    """What this worker shares between jobs, or else a runtime for this job alone."""
    shared = _shared.get()
    if shared is not None:
        yield shared
        return
    async with open_runtime() as own:
        yield own
