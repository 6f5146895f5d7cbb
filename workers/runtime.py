"""What the jobs work with: settings, routes, recipes, and the connections they share.

A stock ``rq worker`` runs each job in a process of its own, and the job opens what it needs. Our
worker runs many jobs in one process, opens it once and shares it; what they write at one moment
then travels in one round trip.
"""

from __future__ import annotations

import asyncio
import functools
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from contextvars import ContextVar
from dataclasses import dataclass, field, replace
from typing import Any, cast

import structlog
from redis.asyncio import Redis
from redis.exceptions import RedisError

from config.loading import Loaded, load
from config.model import Target
from config.origin import Origin
from config.secret_places import Section, secret_values
from config.settings import Settings, load_settings
from relay import audit
from relay.audit_file import audit_file
from relay.batching import GroupCommit
from relay.notices import Messenger, messengers
from relay.packing import argument, pack
from relay.planning import Recipe, recipes
from relay.records import JOB_PREFIX
from relay.reloading import Reloading
from relay.routing import Router
from relay.store import connect_async, execute
from workers.along import Along, Command
from workers.client import Client, open_client
from workers.deploys import Queued, Wanted, queue_deploys

CALLING_FIELD = "calling"
"""Our field of a deploy's job: the attempt whose call has begun and not yet been answered."""

SECRETS_OF: tuple[Section, ...] = ("targets", "notify")
"""The sections of relay.yaml whose secrets a worker needs."""

MAX_TOGETHER = 256
"""Commands or deliveries of one round trip; bounds how long Redis is busy with it."""

# One packed argument, since taking hundreds of commands apart costs the client more than the rest.
_RUN = """
local answers = {}
for number, command in ipairs(cmsgpack.unpack(ARGV[1])) do
  answers[number] = redis.call(unpack(command))
end
return answers
"""


@dataclass(frozen=True, slots=True)
class Project:
    """An operator's decisions, compiled."""

    settings: Settings
    origin: Origin
    router: Router
    targets: Mapping[str, Target]
    recipes: Mapping[str, Recipe]
    messengers: Sequence[Messenger]


@dataclass(frozen=True, slots=True)
class Runtime:
    """A project and the connections that jobs share. A job ends with the project it began with."""

    project: Project
    reloading: Reloading[Project]
    redis: Redis
    client: Client
    commands: GroupCommit[Command, Any]
    deploys: GroupCommit[Wanted, list[Queued]]
    answered: set[str] = field(default_factory=set)
    """Ids of the jobs whose call is over. Whoever owns the runtime takes their note away: our
    worker together with the outcome, so that no moment is left in which neither is stored."""
    along: Along = field(default_factory=Along)
    """What else travels with the outcome."""

    def send(self, *command: str | bytes | int) -> asyncio.Future[Any]:
        """What Redis answers to one command. Raises redis.exceptions.RedisError."""
        return self.commands.submit(command)


_shared: ContextVar[Runtime | None] = ContextVar("shared_runtime", default=None)


@functools.cache
def project() -> Project:
    """The project that the environment names, as it is when the process begins.

    Sets up the audit where nobody has yet, as under a stock ``rq worker``. Raises ConfigError.
    """
    settings = load_settings()
    loaded = load(settings.config, secrets_of=SECRETS_OF)
    config = loaded.config
    if not structlog.is_configured():
        audit.configure(
            style=settings.log_format,
            level=settings.log_level,
            secrets=secret_values(config) | settings.secret_values(),
            file=audit_file(settings),
        )
    return _compiled(settings, loaded)


def _compiled(settings: Settings, loaded: Loaded) -> Project:
    return Project(
        settings=settings,
        origin=loaded.origin,
        router=Router(loaded.config.routes),
        targets=loaded.config.targets,
        recipes=recipes(loaded),
        messengers=messengers(loaded),
    )


@asynccontextmanager
async def open_runtime() -> AsyncIterator[Runtime]:
    """Connections for as long as the block lasts."""
    opened = project()
    settings = opened.settings
    redis = connect_async(settings.redis_address(), timeout=settings.store_timeout, repeats=False)
    replicas, patience = settings.redis_replicas, settings.store_timeout / 2

    reloading = Reloading(
        settings,
        opened,
        opened.origin,
        process="worker",
        secrets_of=SECRETS_OF,
        make=functools.partial(_compiled, settings),
    )
    run = redis.register_script(_RUN)

    async def send(batch: Sequence[Command]) -> Sequence[Any]:
        packed = pack([[argument(arg) for arg in command] for command in batch])
        if replicas:
            [answers] = await execute(
                redis,
                lambda pipe: pipe.eval(_RUN, 0, packed),
                replicas=replicas,
                patience=patience,
            )
        else:
            answers = await run(args=[packed])
        return cast(list[Any], answers)

    async def queue(batch: Sequence[Wanted]) -> Sequence[list[Queued]]:
        return await queue_deploys(
            redis,
            batch,
            queue=settings.queue,
            failure_ttl=settings.dead_letter_ttl,
            replicas=replicas,
            patience=patience,
        )

    try:
        async with open_client(settings.allowed_networks) as client:
            yield Runtime(
                opened,
                reloading,
                redis,
                client,
                GroupCommit(send, most=MAX_TOGETHER),
                GroupCommit(queue, most=MAX_TOGETHER),
            )
    finally:
        await redis.aclose()


@contextmanager
def shared(runtime: Runtime) -> Iterator[None]:
    """Have the job that runs in this block use ``runtime``."""
    token = _shared.set(runtime)
    try:
        yield
    finally:
        _shared.reset(token)


@asynccontextmanager
async def runtime() -> AsyncIterator[Runtime]:
    """What this worker shares between jobs, or else a runtime for this job alone."""
    common = _shared.get()
    if common is not None:
        latest = common.reloading.current
        yield common if latest is common.project else replace(common, project=latest)
        return
    async with open_runtime() as own:
        try:
            yield own
        finally:
            for job in own.answered:
                await own.send("HDEL", f"{JOB_PREFIX}{job}", CALLING_FIELD)
            with suppress(RedisError, OSError):
                for job in own.along.jobs:
                    await asyncio.gather(*(own.send(*one) for one in own.along.take(job)))
