"""The command line of the tools of this folder: their options, and what they print at the end."""

from __future__ import annotations

import argparse
import asyncio
import random
import sys
import tempfile
from collections.abc import Awaitable, Callable
from pathlib import Path

from tests.faults.books import Balance


def options(description: str | None) -> argparse.ArgumentParser:
    """The options that the tools of this folder share."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--seed", type=int, default=random.randrange(1_000_000))  # noqa: S311
    parser.add_argument("--keep", action="store_true", help="keep logs and ledger in any case")
    return parser


def report(run: Callable[[Path], Awaitable[Balance]], *, seed: int, keep: bool) -> None:
    """Run a tool in a folder and print what came of it; exit code 1 if the books do not balance."""
    sys.stdout.write(f"seed {seed}\n")
    with tempfile.TemporaryDirectory(prefix="relay-", ignore_cleanup_errors=True) as name:
        folder = Path(name)

        async def in_folder() -> Balance:
            return await run(folder)

        result = asyncio.run(in_folder())
        sys.stdout.write(f"{result}\n")
        bad = result.wrong()
        if keep or bad:
            kept = Path(tempfile.mkdtemp(prefix="faults-"))
            for log in folder.glob("*.log"):
                (kept / log.name).write_bytes(log.read_bytes())
            for file in folder.glob("data/ledger.db*"):
                (kept / file.name).write_bytes(file.read_bytes())
            sys.stdout.write(f"wrong: {bad}\nlogs and ledger in {kept}\n")
    if bad:
        sys.exit(1)
