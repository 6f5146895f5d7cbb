"""The command `console`: the pages and the API for people, as a process of its own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import click
import uvloop

from config.loading import load
from config.model import Target
from config.settings import Settings, load_settings
from relay.commands.exits import exits
from relay.commands.options import CONFIG
from relay.commands.preparing import configure_audit
from relay.console.app import serve
from relay.console.powers import Powers
from relay.store import asked
from workers.replays import replay_deploys
from workers.targets import Overview, overview, pause, resume


@click.command()
@CONFIG
@click.option("--host", help="Address to listen on [env: RELAY_CONSOLE_HOST].")
@click.option("--port", type=int, help="Port to listen on [env: RELAY_CONSOLE_PORT].")
@exits
def console(config: Path | None, host: str | None, port: int | None) -> None:
    """Serve the console: pages for people, and the JSON API under /api/v1.

    Who uses it needs a token: deploy-relay token create NAME --role viewer|operator. It needs no
    secret of relay.yaml.
    """
    settings = load_settings(config=config, console_host=host, console_port=port)
    loaded = load(settings.config, secrets_of=())
    configure_audit(settings, loaded.config)
    uvloop.run(serve(settings, loaded, powers(settings)))


def powers(settings: Settings) -> Powers:
    """What the workers lend to the console."""
    address, replicas = settings.redis_address(), settings.redis_replicas
    timeout, patience = settings.store_timeout, settings.store_timeout / 2

    def targets(known: Mapping[str, Target]) -> Sequence[Overview]:
        with asked(address, timeout=timeout) as redis:
            return overview(redis, known, settings.queue)

    def pause_target(name: str) -> bool:
        with asked(address, timeout=timeout) as redis:
            return pause(redis, name, replicas=replicas, patience=patience)

    def resume_target(name: str) -> bool:
        with asked(address, timeout=timeout) as redis:
            return resume(redis, name, settings.queue, replicas=replicas, patience=patience)

    return Powers(replay_deploys, targets, pause_target, resume_target)
