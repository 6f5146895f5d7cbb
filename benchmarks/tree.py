"""The trees that are measured: the one this folder lies in, and a commit before beside it.

RELAY_BENCH_BEFORE names a checkout of that commit. Its own ``.venv`` is used if it has one, else
this Python, which then needs the libraries of both.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import NamedTuple

from benchmarks.processes import ROOT, BenchmarkFailed


class Tree(NamedTuple):
    """A checkout of deploy-relay."""

    name: str
    """In tables."""
    root: Path

    @property
    def command(self) -> list[str]:
        """Its command line; to be run in ``root``."""
        own = self.root / ".venv" / "bin" / "python"
        return [str(own) if own.exists() else sys.executable, "-m", "relay.cli"]

    @property
    def has_ledger(self) -> bool:
        """False of releases that kept everything in Redis."""
        return (self.root / "relay" / "ledger").is_dir()


OURS = Tree("ours", ROOT)


def before() -> Tree | None:
    """The commit before, if RELAY_BENCH_BEFORE names one. Raises BenchmarkFailed if it has none."""
    given = os.environ.get("RELAY_BENCH_BEFORE")
    if not given:
        return None
    root = Path(given).resolve()
    if not (root / "relay" / "cli.py").is_file():
        raise BenchmarkFailed(f"RELAY_BENCH_BEFORE: {given} is no checkout of deploy-relay")
    return Tree("before", root)
