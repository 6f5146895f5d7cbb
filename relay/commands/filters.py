"""The options that choose deliveries or deploys, and the filter that they make."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC, datetime
from functools import wraps
from typing import Any

import click

from config.patterns import PatternSet
from config.values import parse_duration
from relay.archive import Filter
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
        click.option("--since", default="", help="Created since: 2h, 3d, or an ISO 8601 time."),
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
            since: str,
            **others: Any,
        ) -> Any:
            context.meta[_FILTERED] = bool(statuses or repos or names or since)
            wanted = Filter(
                frozenset(statuses), _patterns(repos), frozenset(names), moment(since, "--since")
            )
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
    if not text:
        return 0
    try:
        return time.time() - float(parse_duration(text))
    except ValueError:
        pass
    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        raise click.BadParameter(
            "write 30m, 2h, 3d, or a time such as 2026-01-31T12:00Z", param_hint=option
        ) from None
    return (at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp()
