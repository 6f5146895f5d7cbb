"""Cursors over the numbers of deliveries or deploys, the highest first."""

from __future__ import annotations

import heapq
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from relay.ledger.transaction import Reader

FIRST_CHUNK = 64
"""Numbers that a cursor reads at first; each time after that twice as many."""

LARGEST_CHUNK = 4_096


class IdCursor(Protocol):
    """Numbers in falling order, each once."""

    async def head(self) -> int | None:
        """Return the next number without taking it; None at the end."""

    def take(self) -> int:
        """Return the next number, after ``head`` has returned it, and go on."""


class QueryCursor:
    """The numbers that one named query gives, which takes ``before`` and ``most``."""

    def __init__(
        self,
        reader: Reader,
        query: str,
        params: Mapping[str, Any],
        before: int,
        chunk: int = FIRST_CHUNK,
    ) -> None:
        self._reader = reader
        self._query = query
        self._params = params
        self._before = before
        self._chunk = chunk
        self._read: list[int] = []
        self._is_complete = False

    async def head(self) -> int | None:
        """Return the next number without taking it; None at the end."""
        if not self._read and not self._is_complete:
            await self._fill()
        return self._read[-1] if self._read else None

    def take(self) -> int:
        """Return the next number and go on."""
        return self._read.pop()

    async def _fill(self) -> None:
        place = {**self._params, "before": self._before, "most": self._chunk}
        rows = await self._reader.rows(self._query, place)
        self._is_complete = len(rows) < self._chunk
        self._read = [row[0] for row in reversed(rows)]
        if self._read:
            self._before = self._read[0]
        self._chunk = min(2 * self._chunk, LARGEST_CHUNK)


class ListCursor:
    """Numbers that are all known."""

    def __init__(self, numbers: Sequence[int], before: int) -> None:
        self._numbers = sorted({number for number in numbers if number < before})

    async def head(self) -> int | None:
        """Return the next number without taking it; None at the end."""
        return self._numbers[-1] if self._numbers else None

    def take(self) -> int:
        """Return the next number and go on."""
        return self._numbers.pop()


class MergedCursor:
    """The numbers of several cursors."""

    def __init__(self, cursors: Sequence[IdCursor]) -> None:
        self._cursors = cursors
        self._heap: list[tuple[int, int]] | None = None

    async def head(self) -> int | None:
        """Return the next number without taking it; None at the end."""
        if self._heap is None:
            heads = [await cursor.head() for cursor in self._cursors]
            self._heap = [(-head, place) for place, head in enumerate(heads) if head is not None]
            heapq.heapify(self._heap)
        while self._heap:
            number, place = self._heap[0]
            head = await self._cursors[place].head()
            if head == -number:
                return head
            # Its head was taken since.
            if head is None:
                heapq.heappop(self._heap)
            else:
                heapq.heapreplace(self._heap, (-head, place))
        return None

    def take(self) -> int:
        """Return the next number and go on."""
        if not self._heap:
            raise LookupError("the head has not been looked at")
        number, place = self._heap[0]
        self._cursors[place].take()
        return -number


class ResumedCursor:
    """A cursor whose beginning was read already."""

    def __init__(self, beginning: Sequence[int], rest: IdCursor) -> None:
        self._beginning = list(reversed(beginning))
        self._rest = rest

    async def head(self) -> int | None:
        """Return the next number without taking it; None at the end."""
        return self._beginning[-1] if self._beginning else await self._rest.head()

    def take(self) -> int:
        """Return the next number and go on."""
        return self._beginning.pop() if self._beginning else self._rest.take()


async def take_chunk(cursor: IdCursor, most: int) -> list[int]:
    """Return the next numbers; fewer than ``most`` only at the end."""
    chunk: list[int] = []
    while len(chunk) < most and await cursor.head() is not None:
        chunk.append(cursor.take())
    return chunk
