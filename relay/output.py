"""Where audit lines go: one write for all lines of one turn of the event loop.

A system call a line is what makes logging slow. Lines are kept until the loop's turn ends, or until
``flush``, which whoever is about to do what the lines announce calls first: intake before it
acknowledges, a deploy job before it calls out. Without a running loop each line is written at once.
"""

from __future__ import annotations

import asyncio
import logging
from typing import BinaryIO

MOST_KEPT = 4 * 1024 * 1024
"""Bytes kept while the stream takes none; later lines are lost, and the diagnostics say so."""

_diagnostics = logging.getLogger("relay.output")


class Output:
    """A byte stream for whole lines. ``stream`` may be unbuffered, and may be exchanged."""

    def __init__(self, stream: BinaryIO) -> None:
        self.stream = stream
        self._lines: list[bytes] = []
        self._kept = 0
        self._loop: asyncio.AbstractEventLoop | None = None

    def msg(self, line: bytes) -> None:
        """Write one line, without its line feed, no later than when this turn of the loop ends."""
        if self._kept < MOST_KEPT:
            self._lines.append(line + b"\n")
            self._kept += len(line) + 1
        else:
            _diagnostics.error("an audit line is lost: standard output takes none")
        if self._loop is None:
            try:
                self._loop = asyncio.get_running_loop()
            except RuntimeError:
                self.flush()
            else:
                self._loop.call_soon(self._end_of_turn)

    debug = info = warning = error = critical = exception = msg

    def flush(self) -> None:
        """Hand over all lines to the operating system. What it does not take is kept.

        Raises OSError.
        """
        while self._lines:
            lines, self._lines = b"".join(self._lines), []
            written = 0
            try:
                written = self.stream.write(lines) or 0
            finally:
                self._kept -= written
                if written < len(lines):
                    self._lines.insert(0, lines[written:])
            if not written:
                raise BlockingIOError("standard output takes nothing now")

    def _end_of_turn(self) -> None:
        self._loop = None
        try:
            self.flush()
        except OSError as error:
            _diagnostics.error("the audit cannot be written: %s", error.strerror)
