"""What every measurement needs: folders, cores, the load generator and the requests it plays."""

from __future__ import annotations

import array
import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import msgspec

from benchmarks.payloads import BRANCHES, Pushes
from benchmarks.processes import BenchmarkFailed, Cores, pinned

MEMORY = Path("/dev/shm")  # noqa: S108

HOOK = "/hooks/github"


class Load(msgspec.Struct):
    """What benchmarks/load.c prints."""

    requests: int
    seconds: float
    rps: float
    p50_us: float
    p90_us: float
    p99_us: float
    max_us: float
    answered: int
    errors: int
    reconnects: int
    busy: float
    """Share of its core that the generator needed."""
    cpu: float
    """Seconds of processor time of the generator, its preparations included."""
    statuses: dict[int, int]


class Requests(NamedTuple):
    """Prepared requests: a file of them, and a file of their lengths."""

    file: Path
    lengths: Path

    def remove(self) -> None:
        """Give the memory back."""
        self.file.unlink()
        self.lengths.unlink()


@dataclass(slots=True)
class Lab:
    """One run of the benchmarks."""

    folder: Path
    """For data that must be on a disk, such as append-only files."""
    memory: Path
    """For requests, which must not be read from a disk."""
    cores: Cores
    generator: Path
    _made: int = field(default=0)

    def new_folder(self) -> Path:
        """An empty one."""
        self._made += 1
        folder = self.folder / str(self._made)
        folder.mkdir()
        return folder

    def prepare(
        self,
        size: int,
        count: int,
        *,
        seed: int = 1,
        repo: str = "acme/web",
        branches: int = BRANCHES,
    ) -> Requests:
        """Signed pushes, no two alike; ``size`` is 8 or 80 kilobytes."""
        self._made += 1
        file = self.memory / f"requests-{self._made}"
        lengths = array.array("I")
        with file.open("wb") as out:
            for request in islice(
                Pushes(size, repo=repo, branches=branches).requests(HOOK, seed), count
            ):
                out.write(request)
                lengths.append(len(request))
        index = file.with_suffix(".lengths")
        index.write_bytes(lengths.tobytes())
        return Requests(file, index)

    def load(
        self,
        port: int,
        requests: Requests,
        *,
        connections: int,
        seconds: float,
        warm: int = 0,
        repeat: bool = False,
        timeout: float = 120,
    ) -> Load:
        """Play requests, each once unless ``repeat``, for at most ``seconds`` after ``warm`` ones.

        Raises BenchmarkFailed unless every request was answered.
        """
        with pinned(self.cores.others):
            done = subprocess.run(
                [
                    self.generator,
                    *map(str, (port, connections, seconds, warm, timeout, int(repeat))),
                    requests.file,
                    requests.lengths,
                ],
                capture_output=True,
                text=True,
                timeout=timeout + 30,
            )
        if done.returncode:
            raise BenchmarkFailed(done.stderr.strip())
        load = msgspec.json.decode(done.stdout, type=Load, strict=False)
        if load.errors or not load.requests:
            raise BenchmarkFailed(f"{load.errors} errors in {load.answered} answers")
        return load


@contextmanager
def open_lab() -> Iterator[Lab]:
    """Folders that are removed in the end, and the compiled generator."""
    if not hasattr(os, "sched_setaffinity") or not Path("/proc/self/stat").exists():
        raise BenchmarkFailed("the benchmarks read /proc and use epoll: they run on Linux only")
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        raise BenchmarkFailed(
            "the load generator needs a C compiler: apt-get install gcc libc6-dev"
        )
    with (
        tempfile.TemporaryDirectory(prefix="relay-bench-") as folder,
        tempfile.TemporaryDirectory(prefix="relay-bench-", dir=_roomy()) as memory,
    ):
        generator = Path(folder) / "load"
        source = Path(__file__).with_name("load.c")
        subprocess.run([compiler, "-O2", "-o", generator, source], check=True)
        yield Lab(Path(folder), Path(memory), Cores.available(), generator)


def _roomy() -> Path | None:
    """Where gigabytes fit in memory, if anywhere."""
    try:
        room = shutil.disk_usage(MEMORY).free
    except OSError:
        return None
    return MEMORY if room > 4 * 1024**3 and os.access(MEMORY, os.W_OK) else None


def dump(path: Path, results: object) -> None:
    """Write results as JSON."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
