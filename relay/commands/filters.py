"""The options that choose deliveries or deploys, and the filter that they make."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any

import click

from config.patterns import PatternSet
from relay.events.deploy_life import STATUSES
from relay.ledger.filters import Filter, repo_patterns, since
from relay.ledger.records import DELIVERY_STATUSES, RecordKind

MOST = 10_000
"""Deliveries or deploys of one command at most."""

Option = Callable[[Callable[..., Any]], Callable[..., Any]]

_FILTERED = "relay.filtered"


def is_filtered() -> bool:
    """Return whether the current command was given a filter."""
    return bool(click.get_current_context().meta.get(_FILTERED))


def filters(kind: RecordKind, *, limit: int) -> Option:
    """Return the options that choose; the command gets them as ``chosen`` and ``limit``."""
    name = "source" if kind == "delivery" else "target"
    statuses = DELIVERY_STATUSES if kind == "delivery" else STATUSES
    options = (
        click.option("--status", "statuses", multiple=True, type=click.Choice(statuses)),
        click.option("--repo", "repos", multiple=True, help="Name or glob, as in relay.yaml."),
        click.option(f"--{name}", "names", multiple=True, help=f"Name of a {name}."),
        click.option(
            "--since", "since_", default="", help="Created since: 2h, 3d, or an ISO 8601 time."
        ),
        click.option("--limit", type=click.IntRange(1, MOST), default=limit, show_default=True),
    )

    def wrap(command: Callable[..., Any]) -> Callable[..., Any]:
        # Options below this one are kept on the function by click.
        @wraps(command)
        @click.pass_context
        def run(
            context: click.Context,
            /,
            statuses: tuple[str, ...],
            repos: tuple[str, ...],
            names: tuple[str, ...],
            since_: str,
            **others: Any,
        ) -> Any:
            context.meta[_FILTERED] = bool(statuses or repos or names or since_)
            chosen = Filter(
                statuses=frozenset(statuses),
                repos=_patterns(repos),
                since=moment(since_, "--since"),
                sources=frozenset(names if kind == "delivery" else ()),
                targets=frozenset(names if kind == "deploy" else ()),
            )
            return command(chosen=chosen, **others)

        for option in reversed(options):
            run = option(run)
        return run

    return wrap


def _patterns(repos: tuple[str, ...]) -> PatternSet | None:
    try:
        return repo_patterns(repos)
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint="--repo") from None


def moment(text: str, option: str) -> float:
    """Return an option's time in seconds since the Unix epoch; 0 of an empty one."""
    try:
        return since(text)
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint=option) from None
