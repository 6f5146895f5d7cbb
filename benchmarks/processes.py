"""Processes under measurement: started on a core of their own, watched, and stopped.

Processor time and memory are read from /proc, so that all of this runs on Linux only.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
"""The tree that is measured: the one this file lies in."""

PATIENCE = 60
"""Seconds that a process may take to start, to stop, or to reach any other state."""

_TICK = os.sysconf("SC_CLK_TCK")
_PAGE = os.sysconf("SC_PAGE_SIZE")


class BenchmarkFailed(Exception):
    """A measurement that would be worthless; the message says why."""


@dataclass(frozen=True, slots=True)
class Cores:
    """Which core the server under test has, and which one everything else."""

    tested: int | None
    others: int | None

    @classmethod
    def available(cls) -> Cores:
        """Two different cores where there are two."""
        cores = sorted(os.sched_getaffinity(0))
        return cls(cores[0], cores[1]) if len(cores) > 1 else cls(None, None)

    def __str__(self) -> str:
        if self.tested is None:
            return "nothing is pinned: there is one core"
        return f"server under test on core {self.tested}; Redis and load on core {self.others}"


@contextmanager
def pinned(core: int | None) -> Iterator[None]:
    """Processes started in this block run on ``core`` only; on any if it is None."""
    before = os.sched_getaffinity(0)
    if core is not None:
        # Children inherit it from their first instruction on, as they would not if it were set
        # for them afterwards.
        os.sched_setaffinity(0, {core})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


class Running:
    """A process in a session of its own, whose output goes to files."""

    def __init__(
        self,
        name: str,
        command: Sequence[str],
        *,
        folder: Path,
        core: int | None,
        environ: Mapping[str, str] | None = None,
        root: Path = ROOT,
    ) -> None:
        """``root`` is the tree whose code runs."""
        self.name = name
        self.output = folder / f"{name}.out"
        self.errors = folder / f"{name}.err"
        given = {**os.environ, "PYTHONPATH": str(root), **(environ or {})}
        with pinned(core), self.output.open("wb") as out, self.errors.open("wb") as err:
            self.process = subprocess.Popen(
                command,
                cwd=root,
                env=given,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
                start_new_session=True,
            )

    def family(self) -> list[int]:
        """This process and all that descend from it."""
        parents: dict[int, int] = {}
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit():
                fields = _stat(int(entry.name))
                if fields:
                    parents[int(entry.name)] = int(fields[1])
        members = [self.process.pid]
        for member in members:
            members += [pid for pid, parent in parents.items() if parent == member]
        return members

    def cpu(self) -> float:
        """Seconds of processor time so far, with those of ended and living descendants."""
        ticks = 0
        for pid in self.family():
            fields = _stat(pid)
            ticks += sum(int(field) for field in fields[11:15]) if fields else 0
        return ticks / _TICK

    def rss(self) -> int:
        """Bytes in memory, of all descendants together; shared pages count for each."""
        total = 0
        for pid in self.family():
            fields = _stat(pid)
            total += int(fields[21]) * _PAGE if fields else 0
        return total

    def wait_for_port(self, port: int) -> None:
        """Return once it accepts connections."""
        self.wait_for(lambda: _accepts(port), f"accept connections on port {port}")

    def wait_for_output(self, text: str) -> None:
        """Return once it has written this to standard output."""
        self.wait_for(lambda: text.encode() in self.output.read_bytes(), f"say {text!r}")

    def wait_for(self, condition: Callable[[], bool], what: str) -> None:
        """Return once a condition holds. Raises BenchmarkFailed if the process ends before."""
        deadline = time.monotonic() + PATIENCE
        while not condition():
            if self.process.poll() is not None or time.monotonic() > deadline:
                raise BenchmarkFailed(f"{self.name} did not {what}:\n{self.tail()}")
            time.sleep(0.005)

    def tail(self) -> str:
        """The end of what it said, for a message."""
        said = (self.errors.read_bytes() or self.output.read_bytes())[-2_000:]
        return said.decode(errors="replace")

    def stop(self) -> None:
        """End it and everything it started."""
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(PATIENCE)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
                raise BenchmarkFailed(f"{self.name} did not stop:\n{self.tail()}") from None

    def kill(self) -> None:
        """End it and its descendants at once, for where nothing of their state matters."""
        for pid in self.family():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.process.wait()


def until(condition: Callable[[], bool], *, seconds: float = PATIENCE, pause: float = 0.01) -> bool:
    """Whether a condition comes to hold within so many seconds."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(pause)
    return True


def free_port() -> int:
    """A port of 127.0.0.1 that nobody uses at the moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


class Clock:
    """Tells how long something took, and how busy the machine was with anything else meanwhile."""

    def __init__(self) -> None:
        self._began = time.monotonic()
        self._own = time.process_time()
        self._worked, self._passed = _core_times()

    def elapsed(self) -> float:
        """Seconds since the start."""
        return time.monotonic() - self._began

    def others(self, known: float) -> float:
        """Share of the machine since the start that neither ``known`` seconds of processor time
        account for nor this process itself."""
        worked, passed = _core_times()
        known += time.process_time() - self._own
        return max(0.0, worked - self._worked - known) / max(passed - self._passed, 1e-9)


def _core_times() -> tuple[float, float]:
    """Seconds that all cores together have worked, and that have passed on them, since boot."""
    with Path("/proc/stat").open() as lines:
        ticks = [int(field) for field in lines.readline().split()[1:9]]
    idle = ticks[3] + ticks[4]
    return (sum(ticks) - idle) / _TICK, sum(ticks) / _TICK


def _stat(pid: int) -> list[str]:
    """Fields of /proc/PID/stat from the third on (proc(5)); none if the process is gone."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return []
    return text.rpartition(")")[2].split()


def _accepts(port: int) -> bool:
    with socket.socket() as probe:
        probe.settimeout(1)
        return probe.connect_ex(("127.0.0.1", port)) == 0
