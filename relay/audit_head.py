"""The head of the audit file: where its chain ends, beside it in ``<file>.head``; and its lock."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec

from relay.chain import Link, is_sealed

HEAD_BYTES = 512
"""Size of the head: one sector, so that it is written as a whole."""


class Head(msgspec.Struct, frozen=True):
    """Where the chain ends, and how the current file stands."""

    seq: int
    hash: str
    size: int
    """Bytes of the current file."""
    first: int
    """Number of its first line; 0 while it has none."""
    day: str
    """UTC day of that line."""
    signature: str = ""

    @property
    def end(self) -> Link:
        """The last line of the chain."""
        return Link(self.seq, self.hash)


def lock_path(path: Path) -> Path:
    """What writers lock."""
    return path.with_name(f"{path.name}.lock")


def head_path(path: Path) -> Path:
    """Where the end of the chain is noted."""
    return path.with_name(f"{path.name}.head")


def finished_files(path: Path) -> list[Path]:
    """The files that are written no more, the oldest first."""
    return sorted(path.parent.glob(f"{path.stem}-{'[0-9]' * 12}{path.suffix}"))


def read_head(raw: bytes) -> Head | None:
    """What the head says; None where that cannot be read."""
    try:
        return msgspec.json.decode(raw.strip(b" \0"), type=Head)
    except msgspec.DecodeError:
        return None


@contextmanager
def at_rest(path: Path) -> Iterator[None]:
    """Nobody writes in this block. Raises OSError."""
    lock = os.open(lock_path(path), os.O_RDONLY | os.O_CLOEXEC)
    try:
        fcntl.flock(lock, fcntl.LOCK_SH)
        yield
    finally:
        os.close(lock)


def vouched(head: Head, key: bytes) -> bool:
    """Whether the head was signed with this key."""
    return is_sealed(key, head.end, head.signature)
