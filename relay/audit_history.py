"""Older history: reads the chain's files from the newest line backwards, within bounds.

Nothing is locked. A line that has no line feed yet is left out, and so is one that is longer than
``LONGEST_LINE``. A place in the chain is named by the number of its file's first line and a number
of bytes, both of which stay when the file is finished and gets its other name.
"""

from __future__ import annotations

import math
import os
import re
import sys
import time
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, suppress
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from relay.audit_head import finished_files
from relay.audit_query import About, Wanted, moment_of, parsed
from relay.audit_reading import LONGEST_LINE
from relay.chain import link_of
from relay.statuses import Kind

BLOCK = 262_144
"""Bytes read at a time."""

SLACK = 3_600
"""Seconds by which a line may stand behind those of its time: a process keeps what the file does
not take."""

MOST_TOLD = 5_000
"""Lines of one delivery or deploy."""

_PLACE = re.compile(r"([0-9]{1,18})-([0-9]{1,18})")


class Bounds(NamedTuple):
    """What one question may cost. The first block is always read."""

    size: int = sys.maxsize
    """Bytes looked at."""
    seconds: float = math.inf


UNBOUNDED = Bounds()


class Place(NamedTuple):
    """Before a line of the chain."""

    first: int
    """The number of its file's first line."""
    offset: int
    """Bytes of that file before it."""

    def __str__(self) -> str:
        return f"{self.first}-{self.offset}"


END = Place(sys.maxsize, 0)
"""After the newest line."""


class Answer(NamedTuple):
    """Entries, and how far was looked."""

    entries: Sequence[Mapping[str, Any]]
    next: str
    """The place from which the next question goes on; empty where nothing is left."""
    complete: bool
    """False where a bound ended it before it had found enough."""
    back_to: str
    """When the oldest line was written that was looked at; empty if none was."""


def place_of(text: str) -> Place:
    """What a place is written as; empty is the end. Any two numbers do no harm: it is looked at
    whole lines before them. Raises ValueError."""
    if not text:
        return END
    found = _PLACE.fullmatch(text)
    if found is None:
        raise ValueError("the cursor is none that was given")
    return Place(int(found[1]), int(found[2]))


def ask(
    path: Path, wanted: Wanted, limit: int, bounds: Bounds = UNBOUNDED, cursor: str = ""
) -> Answer:
    """The newest ``limit`` entries that are wanted, the newest first, before the place ``cursor``.
    Raises ValueError of such a place, OSError."""
    found, look = _found(path, wanted, limit, bounds, cursor)
    if len(found) <= limit:
        return Answer([entry for _, entry in found], look.next, look.complete, look.back_to)
    shown = found[:limit]
    place, oldest = shown[-1]
    return Answer([entry for _, entry in shown], str(place), True, str(oldest.get("at", "")))


def tell(path: Path, kind: Kind, id_: str, bounds: Bounds = UNBOUNDED, cursor: str = "") -> Answer:
    """The lines of one delivery with those of its deploys, or of one deploy, the oldest first,
    before the place ``cursor``. Raises as ``ask`` does."""
    about = About(kind, id_)
    found, look = _found(path, about, MOST_TOLD, bounds, cursor)
    is_cut = len(found) > MOST_TOLD
    entries = about.told([entry for _, entry in reversed(found[:MOST_TOLD])])
    place = str(found[MOST_TOLD - 1][0]) if is_cut else look.next
    return Answer(entries, place, look.complete and not is_cut, look.back_to)


Found = tuple[Place, Mapping[str, Any]]


def _found(
    path: Path, sought: Wanted | About, limit: int, bounds: Bounds, cursor: str
) -> tuple[list[Found], _Look]:
    """One more than the limit tells that there are more."""
    look = _Look(sought, bounds)
    with closing(look.through(path, place_of(cursor))) as found:
        return list(islice(found, limit + 1)), look


class _Look:
    """One look through the chain; what it says of itself counts once that has ended."""

    def __init__(self, sought: Wanted | About, bounds: Bounds) -> None:
        self.next = ""
        self.complete = True
        self.back_to = ""
        self._sought = sought
        self._needles = sought.needles()
        self._left = bounds.size
        self._until = time.monotonic() + bounds.seconds
        self._has_looked = False

    def through(self, path: Path, place: Place) -> Generator[Found, None, None]:
        """The entries that are looked for, the newest first, each with its place."""
        earliest = self._sought.since - SLACK
        for first, file in _files(path):
            if first > place.first:
                continue
            stat = os.fstat(file.fileno())
            if self._sought.since and stat.st_mtime < earliest:
                return
            end = min(stat.st_size, place.offset) if first == place.first else stat.st_size
            if self._sought.until:
                end = _end_before(file, end, self._sought.until + SLACK)
            for start, block in blocks(file, end):
                if self._has_looked and (self._left <= 0 or time.monotonic() >= self._until):
                    self.next, self.complete = str(Place(first, start + len(block))), False
                    return
                self._has_looked = True
                yield from self._entries(first, start, block)
                self._left -= len(block)
                oldest = parsed(block.partition(b"\n")[0]) or {}
                self.back_to = str(oldest.get("at", "")) or self.back_to
                if self._sought.since and 0 < moment_of(oldest) < earliest:
                    return

    def _entries(self, first: int, start: int, block: bytes) -> Iterator[Found]:
        if not self._needles.may_be_in(block):
            return
        offset = start + len(block)
        for line in reversed(block.split(b"\n")[:-1]):
            offset -= len(line) + 1
            if not self._needles.may_be_in(line):
                continue
            entry = parsed(line)
            if entry is not None and self._sought.takes(entry):
                yield Place(first, offset), entry


def blocks(file: BinaryIO, end: int) -> Iterator[tuple[int, bytes]]:
    """Whole lines of a file that end at ``end`` or before it, backwards: where each block of them
    begins, and the block. A line that is too long is cut. Raises OSError."""
    rest, is_torn, begin = b"", True, end
    while begin:
        size = min(BLOCK, begin)
        begin -= size
        piece = os.pread(file.fileno(), size, begin)
        if is_torn:
            piece = piece[: piece.rfind(b"\n") + 1]
            is_torn = not piece
        data = piece + rest
        # Its first line begins further up, unless this is where the file does.
        cut = data.find(b"\n") + 1 if begin else 0
        rest = data[:cut] if cut else b""
        if not cut and begin:
            rest = data
        elif data[cut:]:
            yield begin + cut, data[cut:]
        if len(rest) > LONGEST_LINE:
            rest = b"\n"


def _files(path: Path) -> Iterator[tuple[int, BinaryIO]]:
    """The files of the chain, the newest first, each open for as long as it is its turn, with the
    number of its first line."""
    current, finished = _at_one_moment(path)
    numbers = [int(file.name[len(path.stem) + 1 :][:12]) for file in finished]
    if current is not None:
        with current:
            link = link_of(current.readline(LONGEST_LINE).rstrip(b"\n"))
            yield link.seq if link else max(numbers, default=0) + 1, current
    for number, name in zip(reversed(numbers), reversed(finished), strict=True):
        # One that was dropped meanwhile is no longer part of it.
        with suppress(FileNotFoundError), ExitStack() as opened:
            yield number, opened.enter_context(name.open("rb"))


def _at_one_moment(path: Path) -> tuple[BinaryIO | None, list[Path]]:
    """The file that is written now, if there is one, and those that were finished before it."""
    try:
        # A folder that may not be read would seem to be empty.
        os.scandir(path.parent).close()
    except FileNotFoundError:
        return None, []
    while True:
        finished, current = finished_files(path), None
        with suppress(FileNotFoundError):
            current = path.open("rb")
        if finished_files(path) == finished:
            return current, finished
        if current is not None:
            current.close()


def _end_before(file: BinaryIO, end: int, until: float) -> int:
    """About where the lines end that were written before ``until``, not earlier."""
    low, high = 0, end
    while low < high:
        middle = (low + high) // 2 if high - low > BLOCK else low
        file.seek(middle)
        start = middle + (len(file.readline(LONGEST_LINE)) if middle else 0)
        if start >= high:
            return high
        at = moment_of(parsed(file.readline(LONGEST_LINE)) or {})
        if at < until:
            if middle == low:
                return high
            low = middle
        else:
            high = start
    return high
