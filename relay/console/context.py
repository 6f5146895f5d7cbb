"""What every request to the console has at hand."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from aiohttp import web

from config.loading import Loaded
from config.model import RelayConfig
from config.settings import Settings
from relay.console.sessions import Sessions
from relay.ledger.ledger import Ledger
from relay.notices import Messenger, messengers
from relay.planning import Recipe, recipes
from relay.routing import Router
from relay.worker_list import Workers


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
    ledger: Ledger
    sessions: Sessions
    workers: Workers
    plan: Callable[[], Plan]
    """Returns the current relay.yaml; a request asks once."""


CONTEXT: web.AppKey[Context] = web.AppKey("context", Context)


def planned(loaded: Loaded) -> Plan:
    """Return the plan of a relay.yaml. Raises ConfigError."""
    return Plan(
        loaded.config,
        Router(loaded.config.routes),
        recipes(loaded),
        messengers(loaded),
        loaded.origin.version,
    )
