"""Audit lines on their way out: when they are written, and what a full disk does to them."""

from __future__ import annotations

import asyncio
import errno
import io

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
