"""The commands `targets`: look at targets, pause them, let them go on."""

from __future__ import annotations

from pathlib import Path

import click
import msgspec

from config.loading import load
from config.settings import Settings, load_settings
from relay import audit
from relay.commands.exits import exits
from relay.commands.options import CONFIG, JSON
from relay.commands.preparing import configure_audit
from relay.commands.terminal import terminal
from relay.store import asked
from relay.tables import coloured_targets
from workers.targets import overview, pause, resume


@click.group()
def targets() -> None:
    """Look at targets, pause them, let them go on."""


@targets.command(name="list")
@CONFIG
@JSON
@exits
def list_targets(config: Path | None, as_json: bool) -> None:
    """Say how each target stands, and how many deploys are called and wait there."""
    settings = load_settings(config=config)
    known = load(settings.config, secrets_of=()).config.targets
    with asked(settings.redis_address()) as redis:
        rows = overview(redis, known, settings.queue)
    console = terminal()
    if as_json:
        for row in rows:
            click.echo(msgspec.json.encode(row._asdict()))
        return
    if console is not None:
        console.print(coloured_targets(rows))
        return
    width = max((len(name) for name in known), default=0)
    for row in rows:
        click.echo(f"{row.name:{width}}  {row.calling} calling  {row.waiting} waiting  {row.state}")


@targets.command(name="pause")
@CONFIG
@click.argument("name")
@exits
def pause_target(config: Path | None, name: str) -> None:
    """Have no call to target NAME begin; its deploys wait until it is resumed.

    Calls under way are not stopped. Of deploys that supersede each other the newest is kept.
    """
    settings = _target(config, name)
    with asked(settings.redis_address()) as redis:
        done = pause(
            redis,
            name,
            replicas=settings.redis_replicas,
            patience=settings.store_timeout / 2,
        )
    _told("target.paused", name, done, f"{name} is paused already")


@targets.command(name="resume")
@CONFIG
@click.argument("name")
@exits
def resume_target(config: Path | None, name: str) -> None:
    """Let calls to target NAME begin again, first of all those that waited for it."""
    settings = _target(config, name)
    with asked(settings.redis_address()) as redis:
        done = resume(
            redis,
            name,
            settings.queue,
            replicas=settings.redis_replicas,
            patience=settings.store_timeout / 2,
        )
    _told("target.resumed", name, done, f"{name} is not paused")


def _target(config: Path | None, name: str) -> Settings:
    """The settings, once it is sure that the target exists; and the audit, set up."""
    settings = load_settings(config=config)
    loaded = load(settings.config, secrets_of=())
    known = list(loaded.config.targets)
    if name not in known:
        raise click.UsageError(f"no target {name!r} in relay.yaml; there are {', '.join(known)}")
    configure_audit(settings, loaded.config)
    return settings


def _told(event: str, name: str, done: bool, otherwise: str) -> None:
    """An operator's decision is a line of the audit; that it changed nothing is none."""
    if done:
        audit.log.info(event, target=name)
        audit.flush()
    else:
        click.echo(otherwise, err=True)
