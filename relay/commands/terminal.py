"""Terminals: there output is coloured and fits the width, elsewhere it is plain text."""

from __future__ import annotations

import sys
from io import StringIO

import click
from rich.console import Console, RenderableType

_ANY_WIDTH = 10_000


def terminal(*, error: bool = False) -> Console | None:
    """Return the terminal of standard output, or of standard error; None where there is none, or a
    dumb one (TERM=dumb). It has no colours where NO_COLOR is set."""
    stream = sys.stderr if error else sys.stdout
    if not stream.isatty():
        return None
    console = Console(file=stream, highlight=False, markup=False, emoji=False)
    return None if console.is_dumb_terminal else console


def print_plainly(what: RenderableType) -> None:
    """Print as text without escapes, in its full width."""
    console = Console(file=StringIO(), width=_ANY_WIDTH, color_system=None, highlight=False)
    with console.capture() as captured:
        console.print(what)
    for line in captured.get().rstrip().splitlines():
        click.echo(line.rstrip())
