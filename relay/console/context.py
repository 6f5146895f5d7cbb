"""What every request to the console has at hand."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from aiohttp import web
from redis.asyncio import Redis

from config.loading import Loaded
from config.model import RelayConfig
from config.settings import Settings
from relay.archive import Archive
from relay.console.history import History
from relay.console.powers import Powers
from relay.console.sessions import Sessions
from relay.notices import Messenger, messengers
from relay.planning import Recipe, recipes
from relay.routing import Router


class Plan(NamedTuple):
    """relay.yaml, and what explains by it."""

    config: RelayConfig
    router: Router
    recipes: Mapping[str, Recipe]
    messengers: Sequence[Messenger]
    version: str


@dataclass(frozen=True, slots=True)
class Context:
    """The parts that requests are answered with."""

    settings: Settings
    redis: Redis
    redis_once: Redis
    """Repeats no command whose connection broke: it might be executed twice."""
    archive: Archive
    history: History
    """What the archive does not have any more."""
    powers: Powers
    sessions: Sessions
    plan: Callable[[], Plan]
    """The relay.yaml of now; a request asks once."""


CONTEXT: web.AppKey[Context] = web.AppKey("context", Context)


def planned(loaded: Loaded) -> Plan:
    """Raises ConfigError."""
    return Plan(
        loaded.config,
        Router(loaded.config.routes),
        recipes(loaded),
        messengers(loaded),
        loaded.origin.version,
    )
