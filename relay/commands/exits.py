"""Turns errors of commands into messages and exit codes."""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import wraps
from typing import ParamSpec, TypeVar

import click

from config.errors import RelayError
from config.settings import load_settings
from relay.errors import NoConnection

P = ParamSpec("P")
R = TypeVar("R")


def exits(command: Callable[P, R]) -> Callable[P, R]:
    """Decorate a command: an error becomes its message on standard error and exit code 1."""

    @wraps(command)
    def run(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return command(*args, **kwargs)
        except NoConnection as error:
            click.echo(f"{error}{load_settings().whose_redis}", err=True)
            sys.exit(1)
        except RelayError as error:
            click.echo(str(error), err=True)
            sys.exit(1)

    return run
