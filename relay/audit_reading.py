"""Reads audit files: all lines of the chain for a proof, the latest ones as they are written."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import ExitStack, suppress
from itertools import count, pairwise
from pathlib import Path
from typing import BinaryIO, NamedTuple

from relay.audit_head import (
    HEAD_BYTES,
    Head,
    at_rest,
    finished_files,
    head_path,
    read_head,
    vouched,
)
from relay.chain import Finding, Place, Verifier

LONGEST_LINE = 4 * 1024 * 1024
"""Bytes of a line at most; a longer one is taken for several."""

LOOK = 0.2
"""Seconds between two looks for new lines."""


class Proof(NamedTuple):
    """What was read of a chain, and what is wrong with it."""

    files: int
    lines: int
    head: Head | None
    signed: bool
    """The head was signed with the key that was given."""


def files_of(path: Path) -> list[Path]:
    """All files of the chain, the oldest first."""
    return [*finished_files(path), *([path] if path.exists() else [])]


def size_of(path: Path) -> int:
    """Bytes of all files of the chain."""
    return sum(file.stat().st_size for file in files_of(path))


def prove(
    path: Path,
    key: bytes | None,
    found: Callable[[Finding], None],
    read: Callable[[int], None],
) -> Proof:
    """Follow the whole chain of the audit file ``path``; ``found`` is told what is wrong, ``read``
    how many bytes have been read. What is written meanwhile is left out. Raises OSError."""
    verifier = Verifier()
    with ExitStack() as opened:
        with ExitStack() as rest:
            with suppress(FileNotFoundError, PermissionError):
                rest.enter_context(at_rest(path))
            files = [opened.enter_context(file.open("rb")) for file in files_of(path)]
            sizes = [os.fstat(file.fileno()).st_size for file in files]
            head = _head(path)
        for file, size in zip(files, sizes, strict=True):
            name, left = Path(file.name).name, size
            for number in count(1):
                line = file.readline(min(left, LONGEST_LINE))
                if not line:
                    break
                for finding in verifier.read(name, number, line.removesuffix(b"\n")):
                    found(finding)
                left -= len(line)
                read(len(line))
    signed = bool(key and head and vouched(head, key))
    if key and head and not signed:
        found(Finding(Place(head_path(path).name, 1), "the head is not signed with this key"))
    if key and head is None and files:
        found(Finding(Place(head_path(path).name, 1), "the head is missing"))
    for finding in verifier.finish(head.end if head else None):
        found(finding)
    return Proof(len(files), verifier.lines, head, signed)


def stored_lines(path: Path, since: float = 0) -> Iterator[bytes]:
    """All lines, the oldest first, but for files finished before ``since``. Raises OSError."""
    for name in files_of(path):
        if name.stat().st_mtime >= since:
            with name.open("rb") as file:
                yield from file


def followed_lines(path: Path) -> Generator[bytes, None, None]:
    """Lines as they are written from now on, over new files, for ever. Raises OSError."""
    file = path.open("rb")
    file.seek(0, os.SEEK_END)
    return _follow(path, file)


def _follow(path: Path, file: BinaryIO) -> Generator[bytes, None, None]:
    kept, last_look = b"", False
    try:
        while True:
            line = file.readline()
            if line:
                kept += line
                if kept.endswith(b"\n"):
                    yield kept
                    kept = b""
            elif last_look:
                following = _next_file(path, file)
                file.close()
                file, kept, last_look = following.open("rb"), b"", False
            elif _is_finished(path, file):
                # What was written to it until then comes first.
                last_look = True
            else:
                time.sleep(LOOK)
    finally:
        file.close()


def _is_finished(path: Path, file: BinaryIO) -> bool:
    try:
        return not os.path.samestat(path.stat(), os.fstat(file.fileno()))
    except FileNotFoundError:
        return False


def _next_file(path: Path, file: BinaryIO) -> Path:
    """The file after this one, or the oldest one if this one has been dropped."""
    own, files = os.fstat(file.fileno()), files_of(path)
    for this, following in pairwise(files):
        if os.path.samestat(this.stat(), own):
            return following
    return files[0]


def _head(path: Path) -> Head | None:
    with suppress(FileNotFoundError), head_path(path).open("rb") as file:
        return read_head(file.read(HEAD_BYTES))
    return None
