"""Runs deploy-relay by a clock that can be moved while it runs; the rest of the machine keeps time.

`python -m tests.faults.clock worker` is `deploy-relay worker` whose wall clock, as far as the relay
and RQ look at it to decide on anything, is shifted by the seconds that a file says.
"""

from __future__ import annotations

import os
import struct
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import rq.utils

from relay.cli import main
from tests.faults.rig import PART

FOLDER = "TEST_CLOCKS"
"""The variable with the folder in which each part has its shift."""

_SECONDS = struct.Struct("d")


def move(folder: Path, part: str, seconds: float) -> None:
    """Have the clock of a part be so many seconds fast."""
    file = os.open(folder / f"{part}.clock", os.O_WRONLY | os.O_CREAT, 0o600)
    os.pwrite(file, _SECONDS.pack(seconds), 0)
    os.close(file)


def _shift() -> Callable[[], float]:
    file = os.open(Path(os.environ[FOLDER]) / f"{os.environ[PART]}.clock", os.O_RDONLY)

    def read() -> float:
        seconds: float = _SECONDS.unpack(os.pread(file, _SECONDS.size, 0))[0]
        return seconds

    return read


def _install() -> None:
    shift, real, known = _shift(), time.time, rq.utils.now

    def now() -> datetime:
        return datetime.now(UTC) + timedelta(seconds=shift())

    time.time = lambda: real() + shift()
    for module in list(sys.modules.values()):
        if getattr(module, "now", None) is known:
            module.now = now  # type: ignore[attr-defined]


if __name__ == "__main__":
    _install()
    main()
