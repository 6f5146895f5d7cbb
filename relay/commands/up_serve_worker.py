"""The commands that run the relay, whole or in parts: up, serve, worker."""

from __future__ import annotations

import os
from pathlib import Path

import click
import uvloop

from config.loading import load
from config.settings import Settings, load_settings
from relay.commands.exits import exits
from relay.commands.options import CONFIG, HOST, PORT
from relay.commands.setup import configure_audit, ready
from relay.processes import run_all, run_receivers
from relay.receive.process import serve as receive
from workers.process import work


@click.command()
@CONFIG
@HOST
@PORT
@exits
def up(config: Path | None, host: str | None, port: int | None) -> None:
    """Run the receiver, a worker, the console and, unless RELAY_REDIS_URL is set, a server.

    The ledger is kept in RELAY_DATA_DIR (default: relay-data), on a disk of this machine. SIGTERM
    stops everything in order with exit code 0; a part that dies stops the rest with exit code 1 and
    its reason.
    """
    settings = load_settings(config=config, host=host, port=port)
    loaded = ready(settings)
    configure_audit(settings, loaded.config)
    uvloop.run(run_all(settings, _environ(settings)))


@click.command()
@CONFIG
@HOST
@PORT
@click.option("--processes", type=int, help="Processes on the port [env: RELAY_PROCESSES].")
@click.option("--share-port", is_flag=True, help="Let other processes listen on the port too.")
@exits
def serve(
    config: Path | None,
    host: str | None,
    port: int | None,
    processes: int | None,
    share_port: bool,
) -> None:
    """Receive webhooks: POST /hooks/<source>, GET /healthz, GET /readyz.

    One process uses one core. With several, the kernel spreads the connections over them.
    """
    settings = load_settings(config=config, host=host, port=port, processes=processes)
    relay_config, _, origin = load(settings.config, secrets_of=["sources"])
    configure_audit(settings, relay_config)
    if settings.processes == 1:
        uvloop.run(receive(settings, relay_config, origin, share_port=share_port))
    else:
        uvloop.run(run_receivers(settings, _environ(settings)))


@click.command()
@CONFIG
@exits
def worker(config: Path | None) -> None:
    """Run jobs: match deliveries against the routes and call deploy hooks.

    Any number of workers may run on the machine that has the ledger. `rq worker -S json` runs the
    same jobs, one at a time.
    """
    if config is not None:
        os.environ["RELAY_CONFIG"] = str(config)
    work()


def _environ(settings: Settings) -> dict[str, str]:
    """What the command line has overridden, for the children."""
    return {
        "RELAY_CONFIG": str(settings.config),
        "RELAY_HOST": settings.host,
        "RELAY_PORT": str(settings.port),
    }
