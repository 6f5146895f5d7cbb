"""Audit lines on their way out: when they are written, and what a full disk does to them."""

from __future__ import annotations

import asyncio
import errno
import io
import os
from select import PIPE_BUF

import pytest

from relay import output
from relay.output import Output


class Stream(io.BytesIO):
    """Takes ``room`` bytes at a time and counts its writes; with no room it is a full disk."""

    def __init__(self, room: int = 1_000_000) -> None:
        super().__init__()
        self.room = room
        self.writes = 0

    def write(self, data: object) -> int:
        if not self.room:
            raise OSError(errno.ENOSPC, "No space left on device")
        self.writes += 1
        assert isinstance(data, bytes)
        return super().write(data[: self.room])


def test_without_a_loop_a_line_is_written_at_once() -> None:
    stream = Stream()
    Output(stream).info(b"one")
    assert stream.getvalue() == b"one\n"


async def test_lines_of_one_turn_are_one_write() -> None:
    stream = Stream()
    out = Output(stream)
    out.info(b"one")
    out.error(b"two")
    assert stream.getvalue() == b""
    await asyncio.sleep(0)
    assert stream.getvalue() == b"one\ntwo\n"
    assert stream.writes == 1


async def test_flush_does_not_wait_for_the_turn() -> None:
    stream = Stream()
    out = Output(stream)
    out.info(b"one")
    out.flush()
    assert stream.getvalue() == b"one\n"
    out.info(b"two")
    await asyncio.sleep(0)
    assert stream.getvalue() == b"one\ntwo\n"


def test_a_short_write_goes_on_where_it_stopped() -> None:
    stream = Stream(room=3)
    Output(stream).info(b"one line")
    assert stream.getvalue() == b"one line\n"
    assert stream.writes == 3


async def test_what_a_full_disk_does_not_take_is_written_later(
    caplog: pytest.LogCaptureFixture,
) -> None:
    stream = Stream(room=0)
    out = Output(stream)
    out.info(b"one")
    await asyncio.sleep(0)
    assert "the audit cannot be written: No space left on device" in caplog.text
    out.info(b"two")
    with pytest.raises(OSError, match="No space"):
        out.flush()
    stream.room = 5
    out.flush()
    assert stream.getvalue() == b"one\ntwo\n"


async def test_what_is_kept_is_bounded(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(output, "MOST_KEPT", 10)
    stream = Stream(room=0)
    out = Output(stream)
    for _ in range(20):
        out.info(b"123")
        with pytest.raises(OSError, match="No space"):
            out.flush()
    assert "an audit line is lost" in caplog.text
    stream.room = 100
    out.flush()
    assert stream.getvalue() == b"123\n" * 3
    out.info(b"and on")
    out.flush()
    assert stream.getvalue() == b"123\n" * 3 + b"and on\n"


async def test_writes_are_whole_lines_that_fit_a_pipe() -> None:
    pieces: list[bytes] = []

    class Pipe(io.BytesIO):
        def write(self, data: object) -> int:
            assert isinstance(data, bytes)
            pieces.append(data)
            return len(data)

    out = Output(Pipe())
    lines = [b"%d" % number * 60 for number in range(100, 300)]
    long = b"x" * (PIPE_BUF + 1)
    for line in [*lines, long, b"last"]:
        out.info(line)
    out.flush()

    assert b"".join(pieces).split(b"\n") == [*lines, long, b"last", b""]
    assert [piece for piece in pieces if not piece.endswith(b"\n")] == [long[:PIPE_BUF]]
    assert all(len(piece) <= PIPE_BUF for piece in pieces)
    assert len(pieces) < 20


async def test_a_reader_that_falls_behind_stops_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(output, "PATIENCE", 0.05)
    reader, writer = os.pipe()
    out = Output(os.fdopen(writer, "wb", buffering=0))
    lines = [b"%06d" % number for number in range(30_000)]
    for line in lines:
        out.info(line)

    with pytest.raises(BlockingIOError, match="reader has fallen behind"):
        out.flush()

    read = b""
    async with asyncio.timeout(10):
        while len(read) < 7 * len(lines):
            read += await asyncio.to_thread(os.read, reader, 65_536)
    assert read.split(b"\n") == [*lines, b""]
    out.stream.close()
    os.close(reader)


async def test_a_burst_that_fills_the_pipe_is_waited_for() -> None:
    reader, writer = os.pipe()
    out = Output(os.fdopen(writer, "wb", buffering=0))
    lines = [b"%06d" % number for number in range(30_000)]
    for line in lines:
        out.info(line)
    await asyncio.sleep(0)  # The end of the turn finds no room, and does not wait.

    whole = 7 * len(lines)
    reading = asyncio.create_task(asyncio.to_thread(_read, reader, whole))
    await asyncio.sleep(0)
    out.flush()

    assert (await reading).split(b"\n") == [*lines, b""]
    out.stream.close()
    os.close(reader)


def _read(reader: int, count: int) -> bytes:
    read = b""
    while len(read) < count:
        read += os.read(reader, 65_536)
    return read
