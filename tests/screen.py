"""A command on a terminal of its own, a real pty of a given size."""

from __future__ import annotations

import codecs
import fcntl
import os
import pty
import re
import select
import signal
import struct
import subprocess
import termios
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from tests.harness import COMMAND, PATIENCE

_ESCAPES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
HOME = "\x1b[H"

_FIXED = ("NO_COLOR", "COLUMNS", "LINES")
"""What would say how the terminal is, in its place. What started the tests may have set it."""


class Screen:
    """What a command has written, and a keyboard."""

    def __init__(self, number: int, process: subprocess.Popen[bytes]) -> None:
        self._number = number
        self.process = process
        self.output = ""
        self._decode = codecs.getincrementaldecoder("utf-8")().decode

    @property
    def text(self) -> str:
        """All that was written, without escapes."""
        return _ESCAPES.sub("", self.output)

    @property
    def lines(self) -> list[str]:
        """The last whole frame of a live view."""
        *_, whole, _ = self.output.split(HOME)
        return [line.rstrip() for line in _ESCAPES.sub("", whole).split("\r\n")]

    def resize(self, lines: int, columns: int) -> None:
        """Give the terminal another size, of which the kernel tells the command."""
        size = struct.pack("HHHH", lines, columns, 0, 0)
        fcntl.ioctl(self._number, termios.TIOCSWINSZ, size)

    def type(self, keys: str) -> None:
        os.write(self._number, keys.encode())

    def until(self, holds: Callable[[Screen], Any]) -> None:
        """Read on until it holds, or the command has ended."""
        deadline = time.monotonic() + PATIENCE
        while not _true(holds, self):
            assert time.monotonic() < deadline, self.text
            ready, _, _ = select.select([self._number], [], [], 0.1)
            if ready and not self._read():
                assert _true(holds, self), self.text
                return

    def end(self) -> int:
        """The exit code, once all that it wrote is read."""
        while self._read():
            pass
        return self.process.wait(PATIENCE)

    def _read(self) -> bool:
        try:
            piece = os.read(self._number, 65_536)
        except OSError:
            # So Linux tells that nobody has the other end open any more.
            return False
        self.output += self._decode(piece)
        return bool(piece)


def _true(holds: Callable[[Screen], Any], screen: Screen) -> bool:
    try:
        return bool(holds(screen))
    except ValueError:
        return False


@contextmanager
def on_terminal(
    *args: str, lines: int = 24, columns: int = 80, environ: Mapping[str, str] | None = None
) -> Iterator[Screen]:
    """Run `deploy-relay` with these arguments."""
    ours, theirs = pty.openpty()
    known = {key: value for key, value in os.environ.items() if key not in _FIXED}
    screen = None
    try:
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))
        process = subprocess.Popen(
            [*COMMAND, *args],
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            env={**known, "TERM": "xterm-256color", **(environ or {})},
            start_new_session=True,
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0) and None,
        )
        os.close(theirs)
        screen = Screen(ours, process)
        yield screen
    finally:
        if screen is not None and screen.process.poll() is None:
            screen.process.send_signal(signal.SIGKILL)
            screen.process.wait(PATIENCE)
        os.close(ours)
