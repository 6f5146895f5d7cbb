"""Whether people look: on a terminal output is coloured and fits, elsewhere it is plain text."""

from __future__ import annotations

import sys
from io import StringIO

import click
from rich.console import Console, RenderableType

_ANY_WIDTH = 10_000


def terminal(*, error: bool = False) -> Console | None:
    """The terminal that standard output, or standard error, is; None where it is none, or one that
    can but print (TERM=dumb). Without colours where NO_COLOR is set."""
    stream = sys.stderr if error else sys.stdout
    if not stream.isatty():
        return None
    console = Console(file=stream, highlight=False, markup=False, emoji=False)
    return None if console.is_dumb_terminal else console


def print_plainly(what: RenderableType) -> None:
    """As text without an escape, of whatever width it has."""
    console = Console(file=StringIO(), width=_ANY_WIDTH, color_system=None, highlight=False)
    with console.capture() as captured:
        console.print(what)
    for line in captured.get().rstrip().splitlines():
        click.echo(line.rstrip())
