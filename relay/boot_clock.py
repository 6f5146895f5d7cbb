"""A clock that never jumps, and is the same for all processes of one machine until it boots."""

from __future__ import annotations

import functools
import time
from contextlib import suppress
from pathlib import Path


def boot_seconds() -> float:
    """Return seconds of a clock that goes on while the machine sleeps or a process is stopped."""
    clock = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)
    return time.clock_gettime(clock)


@functools.cache
def boot_id() -> str:
    """Return the name of this boot of this machine; empty where the system does not tell one. Only
    processes of one boot can compare their boot_seconds()."""
    with suppress(OSError):
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    return ""
