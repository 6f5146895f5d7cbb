"""Keeps a few child processes together: started in order, stopped in order, and if one of them
dies the others are stopped too, because half a relay is worse than one that is plainly down."""

from __future__ import annotations

import asyncio
import ctypes
import os
import signal
import sys
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field

from config.errors import RelayError
from relay.audit import log

_PR_SET_PDEATHSIG = 1
"""prctl(2): the signal a process gets when its parent dies."""


class ChildDied(RelayError):
    """A child process ended that should not have."""


@dataclass(slots=True)
class _Child:
    name: str
    process: asyncio.subprocess.Process
    readers: list[asyncio.Task[None]] = field(default_factory=list)

    def how_it_ended(self) -> str:
        code = self.process.returncode
        if code is not None and code < 0:
            return f"killed by {signal.Signals(-code).name}"
        return f"exit code {code}"


class Supervisor:
    """Child processes in the order of their start."""

    def __init__(self, *, grace: float, on_line: Callable[[str, str], None] | None = None) -> None:
        """``grace`` is the seconds a child gets to stop before it is killed.

        ``on_line`` is given the name and every line of standard output of each child; without it
        the children write to this process's own.
        """
        self._grace = grace
        self._on_line = on_line
        self._children: list[_Child] = []

    async def start(
        self, name: str, command: Sequence[str], environ: Mapping[str, str] | None = None
    ) -> None:
        """Start a child; those started first are stopped last."""
        process = await asyncio.create_subprocess_exec(
            *command,
            env=None if environ is None else {**os.environ, **environ},
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE if self._on_line else None,
            limit=1024 * 1024,
            # Ctrl-C in a terminal goes to the whole foreground group; the children must get their
            # signals from here, one after the other.
            start_new_session=True,
            preexec_fn=_before_exec,
        )
        child = _Child(name, process)
        if process.stdout is not None and self._on_line is not None:
            child.readers.append(
                asyncio.create_task(_read_lines(name, process.stdout, self._on_line))
            )
        self._children.append(child)

    async def wait(self) -> None:
        """Return only by raising ChildDied, as soon as the first child ends."""
        waits = {asyncio.create_task(child.process.wait()): child for child in list(self._children)}
        try:
            done, _ = await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for wait in waits:
                wait.cancel()
        child = waits[done.pop()]
        log.error("process.died", process=child.name, how=child.how_it_ended())
        raise ChildDied(f"{child.name} ended ({child.how_it_ended()}), so everything was stopped")

    async def stop(self) -> None:
        """Stop the children, last started first; each has ended before the next is asked to.

        Children of one name that were started one after the other are stopped together.
        """
        while self._children:
            name = self._children[-1].name
            together = []
            while self._children and self._children[-1].name == name:
                together.append(self._children.pop())
            await asyncio.gather(*map(self._stop, together))

    def pass_on(self, number: signal.Signals, names: Collection[str]) -> None:
        """Send a signal to the children of these names that run."""
        for child in self._children:
            if child.name in names and child.process.returncode is None:
                child.process.send_signal(number)

    async def _stop(self, child: _Child) -> None:
        if child.process.returncode is None:
            child.process.terminate()
            try:
                async with asyncio.timeout(self._grace):
                    await child.process.wait()
            except TimeoutError:
                log.warning("process.killed", process=child.name, seconds=self._grace)
                _kill_session(child.process.pid)
                await child.process.wait()
        await asyncio.gather(*child.readers)


async def _read_lines(
    name: str, stream: asyncio.StreamReader, on_line: Callable[[str, str], None]
) -> None:
    while line := await stream.readline():
        on_line(name, line.decode(errors="replace").rstrip("\n"))


def _kill_session(pid: int) -> None:
    try:
        os.killpg(pid, signal.SIGKILL)
    except ProcessLookupError:
        return


def _before_exec() -> None:
    # A child that has not come so far as to handle it must not die of a signal passed on.
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
