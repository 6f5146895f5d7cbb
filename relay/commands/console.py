"""The command `console`: the pages and the API for people, as a process of its own."""

from __future__ import annotations

from pathlib import Path

import click
import uvloop

from config.loading import load
from config.settings import load_settings
from relay.commands.exits import exits
from relay.commands.options import CONFIG
from relay.commands.setup import configure_audit
from relay.console.app import serve


@click.command()
@CONFIG
@click.option("--host", help="Address to listen on [env: RELAY_CONSOLE_HOST].")
@click.option("--port", type=int, help="Port to listen on [env: RELAY_CONSOLE_PORT].")
@exits
def console(config: Path | None, host: str | None, port: int | None) -> None:
    """Serve the console: pages for people, and the JSON API under /api/v1.

    Users need a token: deploy-relay token create NAME --role viewer|operator. The console needs no
    secret of relay.yaml.
    """
    settings = load_settings(config=config, console_host=host, console_port=port)
    loaded = load(settings.config, secrets_of=())
    configure_audit(settings, loaded.config)
    uvloop.run(serve(settings, loaded))
