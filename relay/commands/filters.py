"""The options that choose deliveries or deploys, and the filter that they make."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any

import click

from config.patterns import PatternSet
from relay.filtering import Filter, since
from relay.statuses import STATUSES, Kind, Status

MOST = 10_000
"""Jobs of one command, at most."""

Option = Callable[[Callable[..., Any]], Callable[..., Any]]

_FILTERED = "relay.filtered"


def filtered() -> bool:
    """Whether the command that runs was given a filter."""
    return bool(click.get_current_context().meta.get(_FILTERED))


def filters(kind: Kind, *, limit: int) -> Option:
    """The options that choose jobs; the command gets them as ``wanted`` and ``limit``."""
    name = "source" if kind == "delivery" else "target"
    options = (
        click.option("--status", "statuses", multiple=True, type=click.Choice(STATUSES)),
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
            statuses: tuple[Status, ...],
            repos: tuple[str, ...],
            names: tuple[str, ...],
            since_: str,
            **others: Any,
        ) -> Any:
            context.meta[_FILTERED] = bool(statuses or repos or names or since_)
            created = moment(since_, "--since")
            wanted = Filter(frozenset(statuses), _patterns(repos), frozenset(names), created)
            return command(wanted=wanted, **others)

        for option in reversed(options):
            run = option(run)
        return run

    return wrap


def _patterns(repos: tuple[str, ...]) -> PatternSet | None:
    try:
        return PatternSet(repos, "path", ignore_case=True) if repos else None
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint="--repo") from None


def moment(text: str, option: str) -> float:
    """Seconds since the Unix epoch of what an option says; 0 of nothing."""
    try:
        return since(text)
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint=option) from None
