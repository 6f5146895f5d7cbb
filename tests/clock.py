"""A wall clock that is ahead: for a command, or for each process that a test starts.

`python -m tests.clock --days 400 pytest tests/config` runs a command, and all processes that it
starts, 400 days ahead. The library that moves the clock is tests/clock.c, compiled when needed.
"""

from __future__ import annotations

import argparse
import os
import shutil
import struct
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import pytest

VARIABLE = "TEST_CLOCK"
"""The environment variable with the file that holds a process's shift."""

DAY = 86_400

_SOURCE = Path(__file__).with_suffix(".c")
_NANOSECONDS = struct.Struct("q")


def compile_clock(folder: Path) -> Path:
    """Return the compiled library. Skips the test where there is no C compiler."""
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        pytest.skip("needs a C compiler")
    library = folder / "clock.so"
    options = ["-shared", "-fPIC", "-O2", "-Wall", "-Wextra"]
    subprocess.run([compiler, *options, "-o", library, _SOURCE, "-ldl"], check=True)
    return library


def set_clock(file: Path, seconds: float) -> None:
    """Make the clock that a file holds so many seconds fast, compared with the test's clock."""
    total = seconds + own_shift()
    # Written in place: processes have the file mapped.
    number = os.open(file, os.O_WRONLY | os.O_CREAT, 0o600)
    os.pwrite(number, _NANOSECONDS.pack(round(total * 1e9)), 0)
    os.close(number)


def own_shift() -> float:
    """Return how many seconds the clock of this process is fast."""
    file = os.environ.get(VARIABLE)
    if file is None:
        return 0
    nanoseconds: int = _NANOSECONDS.unpack(Path(file).read_bytes())[0]
    return nanoseconds / 1e9


def clock_environ(library: Path, file: Path) -> dict[str, str]:
    """Return the environment variables of a process whose clock is the one in a file."""
    return {"LD_PRELOAD": str(library), VARIABLE: str(file)}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command by a clock that is ahead. Return its exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.clock")
    parser.add_argument("--days", type=float, required=True, help="how far the clock is ahead")
    parser.add_argument("command", nargs=argparse.REMAINDER)
    given = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(prefix="clock-") as name:
        folder = Path(name)
        file = folder / "ahead.clock"
        set_clock(file, given.days * DAY)
        environ = {
            **os.environ,
            **clock_environ(compile_clock(folder), file),
            # Compiled modules are valid for the time of their source, which is moved too.
            "PYTHONPYCACHEPREFIX": str(folder / "pycache"),
            "PYTHONDONTWRITEBYTECODE": "",
        }
        return subprocess.run(given.command, env=environ, check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
