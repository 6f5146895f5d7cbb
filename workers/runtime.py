"""What the jobs work with: settings, routes, recipes, the ledger, and the connections they share.

A stock ``rq worker`` runs each job in a process of its own, and the job opens what it needs. Our
worker runs many jobs in one process, opens it once and shares it.
"""

from __future__ import annotations

import functools
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Protocol

import structlog

from config.loading import Loaded, load
from config.model import Target
from config.origin import Origin
from config.secret_places import Section, secret_values
from config.settings import Settings, load_settings
from relay import audit
from relay.audit_file import audit_file
from relay.ledger.claims import Asked
from relay.ledger.ledger import Ledger
from relay.ledger_start import open_ledger
from relay.notices import Messenger, messengers
from relay.planning import Recipe, recipes
from relay.queue.wakeups import Wakeups
from relay.reloading import Reloading
from relay.routing import Router
from workers.platform.http_client import PlatformClient, open_client
from workers.policies import TargetPolicies

SECRETS_OF: tuple[Section, ...] = ("targets", "notify")
"""The sections of relay.yaml whose secrets a worker needs."""


@dataclass(frozen=True, slots=True)
class Project:
    """An operator's decisions, compiled."""

    settings: Settings
    origin: Origin
    router: Router
    targets: Mapping[str, Target]
    recipes: Mapping[str, Recipe]
    policies: TargetPolicies
    messengers: Sequence[Messenger]


class Starter(Protocol):
    """Has what is due looked at, by this process or another one."""

    def wake_deploys(self, deploys: Iterable[int]) -> None:
        """Have these deploys looked at now."""

    def wake_deploy_at(self, deploy: int, at: float) -> None:
        """Have a deploy looked at when it is due. ``at`` is seconds since the Unix epoch."""

    def wake_notices(self, notices: Iterable[int]) -> None:
        """Have these notices looked at now."""

    def reserve(self, most: int) -> int:
        """Return how many calls this process may begin beside others, up to ``most``; they are
        reserved until ``release``."""

    def release(self, reserved: int) -> None:
        """Give back what ``reserve`` returned."""

    def follow(self, project: Project, asked: Asked, since: float) -> None:
        """Do in the background what was decided on a deploy that was claimed by this process."""


class Starts:
    """A stock worker's: what is due now goes to the queue, the rest is left to the sweep."""

    def __init__(self, wakeups: Wakeups) -> None:
        self.wake_deploys = wakeups.wake_deploys
        self.wake_notices = wakeups.wake_notices

    def wake_deploy_at(self, deploy: int, at: float) -> None:
        """Nothing: the sweep does it."""

    def reserve(self, most: int) -> int:  # noqa: ARG002
        """Return 0: a stock worker makes one call at a time, each in a job of its own."""
        return 0

    def release(self, reserved: int) -> None:
        """Nothing was reserved."""

    def follow(self, project: Project, asked: Asked, since: float) -> None:
        """Never called, as nothing is reserved."""


@dataclass(slots=True)
class Runtime:
    """A project and what jobs share."""

    reloading: Reloading[Project]
    ledger: Ledger
    wakeups: Wakeups
    client: PlatformClient
    starter: Starter

    @property
    def project(self) -> Project:
        """The current project. A job takes it once and ends with what it began with."""
        return self.reloading.current


_shared: ContextVar[Runtime | None] = ContextVar("shared_runtime", default=None)


@functools.cache
def project() -> Project:
    """Return the project that the environment names, as it is when the process begins.

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
    targets, compiled = loaded.config.targets, recipes(loaded)
    return Project(
        settings=settings,
        origin=loaded.origin,
        router=Router(loaded.config.routes),
        targets=targets,
        recipes=compiled,
        policies=TargetPolicies(targets, compiled),
        messengers=messengers(loaded),
    )


@asynccontextmanager
async def open_runtime() -> AsyncIterator[Runtime]:
    """Open the ledger and connections for as long as the block lasts.

    Raises LedgerUnusable and OSError.
    """
    opened = project()
    settings = opened.settings
    ledger = open_ledger(settings)
    wakeups = Wakeups(settings.redis_address(), settings.queue, timeout=settings.store_timeout)
    reloading = Reloading(
        settings,
        opened,
        opened.origin,
        process="worker",
        secrets_of=SECRETS_OF,
        make=functools.partial(_compiled, settings),
    )
    wakeups.start()
    try:
        async with open_client(settings.allowed_networks) as client:
            yield Runtime(reloading, ledger, wakeups, client, Starts(wakeups))
    finally:
        await wakeups.stop()
        await ledger.close()


@contextmanager
def shared(runtime: Runtime) -> Iterator[None]:
    """Have the jobs that run in this block use ``runtime``."""
    token = _shared.set(runtime)
    try:
        yield
    finally:
        _shared.reset(token)


@asynccontextmanager
async def runtime() -> AsyncIterator[Runtime]:
    """Open what this worker shares between jobs, or else a runtime for this job alone."""
    common = _shared.get()
    if common is not None:
        yield common
        return
    async with open_runtime() as own:
        yield own
