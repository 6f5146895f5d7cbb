"""What the figures depend on: machine, versions, and where the data lies."""

from __future__ import annotations

import platform
import shutil
import subprocess
from importlib.metadata import version
from pathlib import Path

from benchmarks.lab import Lab
from benchmarks.store import Store

LIBRARIES = ("aiohttp", "uvloop", "redis", "hiredis", "rq", "msgspec", "orjson")


def describe(lab: Lab) -> dict[str, object]:
    """Facts to keep beside the figures."""
    store = Store(lab.new_folder() / "redis", core=lab.cores.others)
    server = store.version()
    store.stop()
    return {
        "processor": _processor(),
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "python": platform.python_version(),
        "libraries": {name: version(name) for name in LIBRARIES},
        "redis": server,
        "webhook": _webhook(),
        "data_on": filesystem(lab.folder),
        "cores": str(lab.cores),
        "load": "benchmarks/load.c",
    }


def filesystem(path: Path) -> str:
    """The kind of file system that a path is on, such as ext4."""
    kinds = {}
    for line in Path("/proc/mounts").read_text().splitlines():
        _, where, kind = line.split()[:3]
        kinds[Path(where)] = kind
    resolved = path.resolve()
    return next((kinds[at] for at in (resolved, *resolved.parents) if at in kinds), "unknown")


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return "unknown"


def _webhook() -> str | None:
    found = shutil.which("webhook")
    if found is None:
        return None
    said = subprocess.run([found, "-version"], capture_output=True, text=True)
    return said.stdout.strip()
