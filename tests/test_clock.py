"""The clock that tests move: the wall clock and file times jump, waits keep their length."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from tests.clock import DAY, clock_environ, compile_clock, set_clock

_LOOK = """
import json, os, pathlib, sys, threading, time
file = pathlib.Path(sys.argv[1])
file.touch()
began, monotonic = time.time(), time.monotonic()
threading.Event().wait(0.05)
waited = time.monotonic() - monotonic
written = file.stat().st_mtime
os.utime(file, (1, 1))
look = {"time": began, "waited": waited, "written": written, "set": file.stat().st_mtime}
print(json.dumps(look | {"monotonic": monotonic}))
"""


@pytest.mark.parametrize("days", [-400, 0, 400])
def test_only_the_wall_clock_and_file_times_are_moved(tmp_path: Path, days: int) -> None:
    file = tmp_path / "process.clock"
    set_clock(file, days * DAY)
    environ = {**os.environ, **clock_environ(compile_clock(tmp_path), file)}
    earliest, monotonic = time.time(), time.monotonic()

    command = [sys.executable, "-c", _LOOK, str(tmp_path / "touched")]
    output = subprocess.run(command, env=environ, check=True, capture_output=True).stdout

    latest = time.time()
    look: dict[str, Any] = json.loads(output)
    # The kernel writes file times by a coarse clock, some milliseconds late.
    assert earliest - 1 <= look["time"] - days * DAY <= latest
    assert earliest - 1 <= look["written"] - days * DAY <= latest
    assert look["set"] == 1
    assert monotonic <= look["monotonic"] <= time.monotonic()
    assert 0.05 <= look["waited"] <= latest - earliest
