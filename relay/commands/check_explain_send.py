"""The commands that test a relay.yaml: check, explain, send, schema."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Sized
from pathlib import Path
from typing import Any

import click
import orjson
from yarl import URL

from config.loading import Loaded, load
from config.model import Text
from config.schema import json_schema
from config.settings import load_settings
from relay.commands.exits import exits
from relay.commands.options import CONFIG
from relay.commands.setup import ready
from relay.events.event import Ignored
from relay.explanation import as_text, explanation, understood
from relay.notices import messengers
from relay.planning import recipes
from relay.receive.sources import ready_sources
from relay.routing import Router
from relay.samples import sample
from relay.sending import send as send_webhook
from workers.platform.allowed_addresses import literal_refusal


@click.command()
@CONFIG
@click.option("--no-secrets", is_flag=True, help="Do not read secrets, as in a CI job.")
@exits
def check(config: Path | None, no_secrets: bool) -> None:
    """Validate relay.yaml; exit 1 and list every mistake with file:line:column."""
    settings = load_settings(config=config)
    loaded = ready(settings, secrets=not no_secrets)
    parts = loaded.config
    click.echo(
        f"{settings.config} is valid: {_counted(parts.sources, 'source')}, "
        f"{_counted(parts.targets, 'target')}, {_counted(parts.routes, 'route')}"
        + (f", {_counted(parts.notify, 'notifier')}" * bool(parts.notify))
    )
    called: list[tuple[str, Text]] = [
        (f"targets.{name}", target.url) for name, target in parts.targets.items()
    ]
    called += [(f"notify[{n}]", notifier.url) for n, notifier in enumerate(parts.notify)]
    for where, url in called:
        if isinstance(url, str) or url.is_loaded:
            why = literal_refusal(
                url if isinstance(url, str) else url.reveal(), settings.allowed_networks
            )
            if why:
                click.echo(
                    f"warning: {where}: its address is {why}, which a worker calls only "
                    "if RELAY_ALLOWED_NETWORKS has it",
                    err=True,
                )


@click.command()
@CONFIG
@click.option("--source", help="Source the payload comes from; needed where there are several.")
@click.option("--event", help="Value of the provider's event header; detected if left out.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of text.")
@click.argument("payload", type=click.File("rb"))
@exits
def explain(
    config: Path | None, source: str | None, event: str | None, as_json: bool, payload: Any
) -> None:
    """Print what a webhook PAYLOAD would cause: every route with its reason, and the exact calls.

    Nothing is sent and no secret is needed or shown. PAYLOAD is a file with the body, or - for
    standard input.

    \b
    deploy-relay explain --source github push.json
    """
    settings = load_settings(config=config)
    loaded = load(settings.config, secrets_of=())
    name = _source(loaded, source)
    provider = loaded.config.sources[name].provider
    parsed = understood(
        provider,
        payload.read(),
        event,
        hint="name its event header with --event",
    )
    if isinstance(parsed, Ignored):
        fields = {"ignored": parsed.reason}
        click.echo(orjson.dumps(fields) if as_json else f"ignored: {parsed.reason}")
        return
    explained = explanation(
        Router(loaded.config.routes),
        recipes(loaded),
        parsed,
        name,
        messengers(loaded),
        provider=provider,
    )
    click.echo(
        orjson.dumps(explained, option=orjson.OPT_INDENT_2) if as_json else as_text(explained)
    )


@click.command()
@CONFIG
@click.option("--url", help="Base URL of the receiver [default: http://<host>:<port>].")
@click.option("--kind", type=click.Choice(["push", "tag", "pull_request"]), default="push")
@click.option("--repo", default="acme/web", show_default=True, help="For a sample payload.")
@click.option("--branch", default="main", show_default=True, help="For a sample payload.")
@click.option("--sha", default="", help="For a sample payload; generated if left out.")
@click.option("--delivery", default="", help="Delivery id; generated if left out.")
@click.argument("source")
@click.argument("payload", type=click.File("rb"), required=False)
@exits
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
    provider = ready_sources(loaded.config.sources)[source].provider
    body = (
        payload.read()
        if payload is not None
        else orjson.dumps(sample(provider.name, kind, repo=repo, branch=branch, sha=sha))
    )
    base = url or str(URL.build(scheme="http", host=settings.host, port=settings.port))
    where = f"{base.rstrip('/')}/hooks/{source}"
    reply = asyncio.run(send_webhook(where, provider, body, kind=kind, delivery_id=delivery))
    click.echo(f"{reply.status} {reply.body}")
    if not 200 <= reply.status < 300:
        sys.exit(1)


@click.command()
def schema() -> None:
    """Print the JSON Schema of relay.yaml, for editors."""
    click.echo(orjson.dumps(json_schema(), option=orjson.OPT_INDENT_2))


def _counted(things: Sized, name: str) -> str:
    return f"{len(things)} {name}{'' if len(things) == 1 else 's'}"


def _source(loaded: Loaded, name: str | None) -> str:
    names = list(loaded.config.sources)
    if name is None and len(names) == 1:
        return names[0]
    if name is None:
        raise click.UsageError(f"several sources are configured: add --source {' | '.join(names)}")
    if name not in names:
        raise click.UsageError(f"no source {name!r} in relay.yaml, which has {', '.join(names)}")
    return name
