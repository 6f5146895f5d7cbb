"""The command line: the roof of the house. It may import everything; nothing imports it."""

from __future__ import annotations

import asyncio
import os
import sys
import tempfile
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

import click
import orjson
import uvloop

from config.errors import ConfigError, RelayError
from config.loading import Loaded, load, secret_values
from config.model import RelayConfig
from config.schema import json_schema
from config.settings import Settings, load_settings
from relay import __version__, app, audit, demo
from relay.events import Ignored
from relay.explanation import as_text, explanation
from relay.operating import operating
from relay.planning import recipes, rehearse
from relay.processes import run_all, run_receivers
from relay.providers import DIALECTS
from relay.providers.recognise import event_header
from relay.replays import replay_deliveries
from relay.routing import Router
from relay.samples import sample
from relay.sending import send as send_webhook
from relay.store import asked
from workers.destinations import literal_refusal
from workers.replays import replay_deploys
from workers.targets import overview, pause, resume
from workers.worker import work

P = ParamSpec("P")
R = TypeVar("R")

_CONFIG = click.option(
    "--config",
    "-c",
    type=click.Path(dir_okay=False, path_type=Path),
    help="relay.yaml to use [env: RELAY_CONFIG, default: relay.yaml].",
)
_HOST = click.option("--host", help="Address to listen on [env: RELAY_HOST, default: 127.0.0.1].")
_PORT = click.option("--port", type=int, help="Port to listen on [env: RELAY_PORT, default: 8080].")


def _exits(command: Callable[P, R]) -> Callable[P, R]:
    """The one place where an error becomes an exit code."""

    @wraps(command)
    def run(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return command(*args, **kwargs)
        except RelayError as error:
            click.echo(str(error), err=True)
            sys.exit(1)

    return run


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="deploy-relay")
def main() -> None:
    """Receive signed git webhooks and call the right deploy hooks, once, with proof.

    \b
    To look around:      deploy-relay demo
    To set it up:        write relay.yaml, then  deploy-relay check
    To try a webhook:    deploy-relay explain payload.json
    To run it all:       deploy-relay up
    To run it in parts:  deploy-relay serve   and   deploy-relay worker
    To look after it:    deploy-relay deliveries list   and   deploy-relay deploys list

    Settings are environment variables RELAY_*; relay.yaml says what is deployed where.
    """


@main.command()
@_CONFIG
@_HOST
@_PORT
@_exits
def up(config: Path | None, host: str | None, port: int | None) -> None:
    """Run the receiver, a worker and, unless RELAY_REDIS_URL is set, a server of its own.

    The server's data is kept in RELAY_DATA_DIR (default: relay-data). SIGTERM stops everything in
    order with exit code 0; a part that dies stops the rest with exit code 1 and its reason.
    """
    settings = load_settings(config=config, host=host, port=port)
    loaded = _ready(settings)
    _configure_audit(settings, loaded.config)
    uvloop.run(run_all(settings, _environ(settings)))


@main.command()
@_CONFIG
@_HOST
@_PORT
@click.option("--processes", type=int, help="Processes on the port [env: RELAY_PROCESSES].")
@click.option("--share-port", is_flag=True, help="Let other processes listen on the port too.")
@_exits
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
    _configure_audit(settings, relay_config)
    if settings.processes == 1:
        uvloop.run(app.serve(settings, relay_config, origin, share_port=share_port))
    else:
        uvloop.run(run_receivers(settings, _environ(settings)))


@main.command()
@_CONFIG
@_exits
def worker(config: Path | None) -> None:
    """Run jobs: match deliveries against the routes and call deploy hooks.

    Any number of workers may run, on any number of machines. A stock `rq worker` can run the same
    jobs.
    """
    if config is not None:
        os.environ["RELAY_CONFIG"] = str(config)
    work()


@main.command()
@_CONFIG
@click.option("--no-secrets", is_flag=True, help="Do not look secrets up, as in a CI job.")
@_exits
def check(config: Path | None, no_secrets: bool) -> None:
    """Validate relay.yaml; exit 1 and list every mistake with file:line:column."""
    settings = load_settings(config=config)
    loaded = _ready(settings, secrets=not no_secrets)
    parts = loaded.config
    click.echo(
        f"{settings.config} is valid: {len(parts.sources)} sources, {len(parts.targets)} targets, "
        f"{len(parts.routes)} routes"
    )
    for name, target in parts.targets.items():
        url = target.url
        if isinstance(url, str) or url.is_loaded:
            why = literal_refusal(
                url if isinstance(url, str) else url.reveal(), settings.allowed_networks
            )
            if why:
                click.echo(
                    f"warning: targets.{name}: its address is {why}, which a worker calls only "
                    "if RELAY_ALLOWED_NETWORKS has it",
                    err=True,
                )


@main.command()
@_CONFIG
@click.option("--source", help="Source the payload comes from; needed where there are several.")
@click.option("--event", help="Value of the provider's event header; recognised if left out.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of text.")
@click.argument("payload", type=click.File("rb"))
@_exits
def explain(
    config: Path | None, source: str | None, event: str | None, as_json: bool, payload: Any
) -> None:
    """Say what a webhook PAYLOAD would cause: every route and why, and the exact calls.

    Nothing is sent and no secret is needed or shown. PAYLOAD is a file with the body, or - for
    standard input.

    \b
    deploy-relay explain --source github push.json
    """
    settings = load_settings(config=config)
    loaded = load(settings.config, secrets_of=())
    name = _source(loaded, source)
    dialect = DIALECTS[loaded.config.sources[name].provider]
    body = payload.read()
    parsed = dialect(["no secret is needed"]).parse(event_header(dialect.name, body, event), body)
    if isinstance(parsed, Ignored):
        told = {"ignored": parsed.reason}
        click.echo(orjson.dumps(told) if as_json else f"ignored: {parsed.reason}")
        return
    told_all = explanation(Router(loaded.config.routes), recipes(loaded), parsed, name)
    click.echo(orjson.dumps(told_all, option=orjson.OPT_INDENT_2) if as_json else as_text(told_all))


@main.command()
@_CONFIG
@click.option("--url", help="Base URL of the receiver [default: http://<host>:<port>].")
@click.option("--kind", type=click.Choice(["push", "tag", "pull_request"]), default="push")
@click.option("--repo", default="acme/web", show_default=True, help="For a sample payload.")
@click.option("--branch", default="main", show_default=True, help="For a sample payload.")
@click.option("--sha", default="", help="For a sample payload; made up if left out.")
@click.option("--delivery", default="", help="Delivery id; made up if left out.")
@click.argument("source")
@click.argument("payload", type=click.File("rb"), required=False)
@_exits
def send(
    config: Path | None,
    url: str | None,
    kind: str,
    repo: str,
    branch: str,
    sha: str,
    delivery: str,
    source: str,
    payload: Any,
) -> None:
    """Sign a PAYLOAD as the provider of SOURCE would, post it, and print the answer.

    The first secret of the source in relay.yaml signs. Without a PAYLOAD a small sample is sent.
    Exit 0 if the answer is 2xx.

    \b
    deploy-relay send github --repo acme/web --branch main
    """
    settings = load_settings(config=config)
    loaded = load(settings.config, secrets_of=["sources"])
    _source(loaded, source)
    dialect = app.senders(loaded.config.sources)[source].dialect
    body = (
        payload.read()
        if payload is not None
        else orjson.dumps(sample(dialect.name, kind, repo=repo, branch=branch, sha=sha))
    )
    base = url or f"http://{settings.host}:{settings.port}"
    reply = asyncio.run(
        send_webhook(f"{base}/hooks/{source}", dialect, body, kind=kind, delivery_id=delivery)
    )
    click.echo(f"{reply.status} {reply.body}")
    if not 200 <= reply.status < 300:
        sys.exit(1)


@main.group()
def targets() -> None:
    """Look at targets, pause them, let them go on."""


@targets.command(name="list")
@_CONFIG
@_exits
def list_targets(config: Path | None) -> None:
    """Say how each target stands, and how many deploys are called and wait there."""
    settings = load_settings(config=config)
    known = load(settings.config, secrets_of=()).config.targets
    with asked(settings.redis_address()) as redis:
        rows = overview(redis, known, settings.queue)
    width = max((len(name) for name in known), default=0)
    for row in rows:
        click.echo(f"{row.name:{width}}  {row.calling} calling  {row.waiting} waiting  {row.state}")


@targets.command(name="pause")
@_CONFIG
@click.argument("name")
@_exits
def pause_target(config: Path | None, name: str) -> None:
    """Have no call to target NAME begin; its deploys wait until it is resumed.

    Calls under way are not stopped. Of deploys that supersede each other the newest is kept.
    """
    settings = _target(config, name)
    with asked(settings.redis_address()) as redis:
        done = pause(redis, name)
    _told("target.paused", name, done, f"{name} is paused already")


@targets.command(name="resume")
@_CONFIG
@click.argument("name")
@_exits
def resume_target(config: Path | None, name: str) -> None:
    """Let calls to target NAME begin again, first of all those that waited for it."""
    settings = _target(config, name)
    with asked(settings.redis_address()) as redis:
        done = resume(redis, name, settings.queue)
    _told("target.resumed", name, done, f"{name} is not paused")


def _target(config: Path | None, name: str) -> Settings:
    """The settings, once it is sure that the target exists; and the audit, set up."""
    settings = load_settings(config=config)
    loaded = load(settings.config, secrets_of=())
    known = list(loaded.config.targets)
    if name not in known:
        raise click.UsageError(f"no target {name!r} in relay.yaml; there are {', '.join(known)}")
    _configure_audit(settings, loaded.config)
    return settings


def _told(event: str, name: str, done: bool, otherwise: str) -> None:
    """An operator's decision is a line of the audit; that it changed nothing is none."""
    if done:
        audit.log.info(event, target=name)
        audit.flush()
    else:
        click.echo(otherwise, err=True)


for _group in (operating("delivery", replay_deliveries), operating("deploy", replay_deploys)):
    for _command in _group.commands.values():
        if _command.callback is not None:
            _command.callback = _exits(_command.callback)
    main.add_command(_group)


@main.command()
def schema() -> None:
    """Print the JSON Schema of relay.yaml, for editors."""
    click.echo(orjson.dumps(json_schema(), option=orjson.OPT_INDENT_2))


@main.command(name="demo")
@click.option("--once", is_flag=True, help="Stop when both deploys are confirmed; exit 1 if not.")
@_PORT
@_exits
def demonstrate(once: bool, port: int | None) -> None:
    """Run everything on this machine and watch two signed webhooks become deploys."""
    with tempfile.TemporaryDirectory(prefix="deploy-relay-") as folder:
        confirmed = asyncio.run(_demonstrate(Path(folder), once, port))
    if not confirmed:
        click.echo("the deploys were not confirmed", err=True)
        sys.exit(1)


async def _demonstrate(folder: Path, once: bool, port: int | None) -> bool:
    # The demonstration shows the embedded default, whatever else this machine is set up for.
    os.environ.pop("RELAY_REDIS_URL", None)
    platform = demo.Platform()
    environ = demo.write_project(folder, await platform.start())
    settings = load_settings(
        config=Path(environ["RELAY_CONFIG"]), data_dir=folder / "data", log_format="console"
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


def _ready(settings: Settings, *, secrets: bool = True) -> Loaded:
    """relay.yaml, checked as thoroughly as can be without calling anyone."""
    loaded = load(settings.config, secrets_of=("sources", "targets") if secrets else ())
    problems = rehearse(loaded)
    if problems:
        raise ConfigError(problems)
    return loaded


def _configure_audit(settings: Settings, config: RelayConfig) -> None:
    audit.configure(
        style=settings.log_format,
        level=settings.log_level,
        secrets=secret_values(config) | settings.secret_values(),
    )


def _environ(settings: Settings) -> dict[str, str]:
    """What the command line has overridden, for the children."""
    return {
        "RELAY_CONFIG": str(settings.config),
        "RELAY_HOST": settings.host,
        "RELAY_PORT": str(settings.port),
    }


def _source(loaded: Loaded, name: str | None) -> str:
    known = list(loaded.config.sources)
    if name is None and len(known) == 1:
        return known[0]
    if name is None:
        raise click.UsageError(f"say which source it comes from: --source {' | '.join(known)}")
    if name not in known:
        raise click.UsageError(f"no source {name!r} in relay.yaml; there are {', '.join(known)}")
    return name


if __name__ == "__main__":
    main()
