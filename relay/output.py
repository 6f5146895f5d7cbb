"""Where audit lines go: one write for all lines of one turn of the event loop.

A system call a line is what makes logging slow. Lines are kept until the loop's turn ends, or until
``flush``, which whoever is about to do what the lines announce calls first: intake before it
acknowledges, a deploy job before it calls out. Without a running loop each line is written at once.

Several processes may share one pipe: receivers, workers, and what started them. No write is longer
than a pipe takes in one piece (PIPE_BUF, pipe(7)), so that lines of different processes do not mix,
and so that a pipe which has room at all takes it without blocking.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import os
import select
import stat
from contextlib import suppress
from select import PIPE_BUF
from typing import BinaryIO

from relay.audit_file import AuditFile

MOST_KEPT = 4 * 1024 * 1024
"""Bytes kept while the stream takes none; later lines are lost, and the diagnostics say so."""

PATIENCE = 1.0
"""Seconds that ``flush`` waits, once, for a reader that has fallen behind."""

LATER = 0.1
"""Seconds until lines that were not taken are offered again."""

_diagnostics = logging.getLogger("relay.output")


class Output:
    """A byte stream for whole lines. ``stream`` may be unbuffered, and may be exchanged."""

    def __init__(self, stream: BinaryIO) -> None:
        self.stream = stream
        self.file: AuditFile | None = None
        """Where lines go too, before they go to the stream. They are added to it apart, as JSON."""
        self._lines: list[bytes] = []
        self._kept = 0
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stalled = False

    @property
    def stream(self) -> BinaryIO:
        """Where lines go."""
        return self._stream

    @stream.setter
    def stream(self, stream: BinaryIO) -> None:
        self._stream = stream
        self._room = _Room.of(stream)

    def msg(self, line: bytes) -> None:
        """Write one line, without its line feed, no later than when this turn of the loop ends."""
        if self._kept < MOST_KEPT:
            self._lines.append(line + b"\n")
            self._kept += len(line) + 1
        else:
            _diagnostics.error("an audit line is lost: standard output takes none")
        self.soon()

    def soon(self) -> None:
        """Have what waits, for the file too, be written no later than when this turn ends."""
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

        Raises OSError, at the latest after PATIENCE seconds, in which the event loop stands still.
        """
        self._write(0 if self._stalled else PATIENCE)

    def last_words(self) -> None:
        """``flush`` at the end of the process, where nobody is left to tell."""
        with suppress(OSError, ValueError):
            self.flush()
        with suppress(OSError):
            if self.file is not None:
                self.file.sync()

    def _write(self, seconds: float) -> None:
        refused: OSError | None = None
        if self.file is not None:
            try:
                self.file.flush()
            except OSError as error:
                refused = error
        self._write_stream(seconds)
        if refused is not None:
            raise refused

    def _write_stream(self, seconds: float) -> None:
        while self._lines:
            if self._room is not None and not self._room.comes(seconds):
                # Who has not waited does not know whether it is more than a burst of lines.
                self._stalled = self._stalled or seconds > 0
                raise BlockingIOError(errno.EAGAIN, "its reader has fallen behind")
            portion = self._portion()
            written = 0
            try:
                written = self._stream.write(portion) or 0
            finally:
                self._kept -= written
                if written < len(portion):
                    self._lines.insert(0, portion[written:])
            if not written:
                raise BlockingIOError(errno.EAGAIN, "it takes nothing now")
        self._stalled = False

    def _portion(self) -> bytes:
        """As many whole lines as a pipe takes in one piece, or a piece of one that is longer."""
        size = number = 0
        for line in self._lines:
            size += len(line)
            if size > PIPE_BUF:
                break
            number += 1
        if not number:
            long = self._lines[0]
            self._lines[0] = long[PIPE_BUF:]
            return long[:PIPE_BUF]
        lines, self._lines = self._lines[:number], self._lines[number:]
        return b"".join(lines)

    def _end_of_turn(self) -> None:
        loop, self._loop = self._loop, None
        try:
            self._write(0)
        except BlockingIOError:
            if loop is not None:
                self._loop = loop
                loop.call_later(LATER, self._end_of_turn)
        except OSError as error:
            _diagnostics.error("the audit cannot be written: %s", error.strerror)


class _Room:
    """Whether a pipe, a socket or a terminal takes a write now. Files always do."""

    def __init__(self, number: int) -> None:
        self._poll = select.poll()
        self._poll.register(number, select.POLLOUT)

    @classmethod
    def of(cls, stream: BinaryIO) -> _Room | None:
        try:
            number = stream.fileno()
        except (OSError, AttributeError):
            return None
        return None if stat.S_ISREG(os.fstat(number).st_mode) else cls(number)

    def comes(self, seconds: float) -> bool:
        """Whether there is room within so many seconds, or an error to be had from writing."""
        return bool(self._poll.poll(seconds * 1000))
