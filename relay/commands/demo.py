"""The command `demo`: runs the whole relay and shows how two webhooks become deploys."""

from __future__ import annotations

import asyncio
import os
import sys
import tempfile
from pathlib import Path

import click

from config.settings import load_settings
from relay import audit, demo
from relay.commands.exits import exits
from relay.commands.options import PORT
from relay.processes import run_all


@click.command(name="demo")
@click.option("--once", is_flag=True, help="Stop when both deploys are confirmed; exit 1 if not.")
@PORT
@exits
def demonstrate(once: bool, port: int | None) -> None:
    """Run everything on this machine and watch two signed webhooks become deploys."""
    with tempfile.TemporaryDirectory(prefix="deploy-relay-") as folder:
        confirmed = asyncio.run(_demonstrate(Path(folder), once, port))
    if not confirmed:
        click.echo("the demonstration failed: the deploys were not confirmed in time", err=True)
        sys.exit(1)


async def _demonstrate(folder: Path, once: bool, port: int | None) -> bool:
    # The demonstration runs the embedded server, whatever Redis the environment names.
    os.environ.pop("RELAY_REDIS_URL", None)
    # Its new ledger would be behind the audit file of another one.
    os.environ.pop("RELAY_AUDIT_FILE", None)
    platform = demo.Platform()
    environ = demo.write_project(folder, await platform.start())
    settings = load_settings(
        config=Path(environ["RELAY_CONFIG"]),
        data_dir=folder / "data",
        log_format="console",
        console_port="off",
    )
    host = settings.host
    chosen = demo.free_port(host, settings.port if port is None else port)
    receiver = f"http://{host}:{chosen}"
    data = str(settings.data_dir)
    environ |= {"RELAY_HOST": host, "RELAY_PORT": str(chosen), "RELAY_DATA_DIR": data}
    trail = demo.Trail(say=click.echo)
    confirmed = False

    async def meanwhile() -> bool:
        nonlocal confirmed
        confirmed = await demo.run_through(receiver, environ, trail)
        if not confirmed or once:
            return False
        click.echo(
            f"\nBoth deploys are confirmed; the platform was called {len(platform.calls)} times."
            f"\nStill serving: point a git server at {receiver}/hooks/github, or write a relay.yaml"
            "\nand run `deploy-relay up`. Ctrl-C stops."
        )
        return True

    audit.configure(style="console")
    try:
        await run_all(settings, environ, on_line=trail.line, meanwhile=meanwhile)
    finally:
        await platform.stop()
    if confirmed and once:
        click.echo(
            f"both deploys are confirmed; the platform was called {len(platform.calls)} times"
        )
    return confirmed
