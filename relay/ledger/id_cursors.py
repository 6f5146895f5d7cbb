"""Cursors over the numbers of deliveries or deploys, the highest first."""

from __future__ import annotations

import heapq
from bisect import bisect_right
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

    def skip(self, highest: int) -> None:
        """Leave out all numbers above ``highest``."""


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
        self._first_chunk = self._chunk = chunk
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

    def skip(self, highest: int) -> None:
        """Leave out all numbers above ``highest``."""
        del self._read[bisect_right(self._read, highest) :]
        if not self._read and highest < self._before - 1:
            self._before = highest + 1
            self._chunk = self._first_chunk

    async def _fill(self) -> None:
        place = {**self._params, "before": self._before, "most": self._chunk}
        rows = await self._reader.rows(self._query, place)
        self._is_complete = len(rows) < self._chunk
        self._read = [row["id"] for row in reversed(rows)]
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

    def skip(self, highest: int) -> None:
        """Leave out all numbers above ``highest``."""
        del self._numbers[bisect_right(self._numbers, highest) :]


class MergedCursor:
    """The numbers that any of several cursors has; no two of them have one in common."""

    def __init__(self, cursors: Sequence[IdCursor]) -> None:
        self._cursors = cursors
        self._heap: list[tuple[int, int]] | None = None
        self._highest: int | None = None

    async def head(self) -> int | None:
        """Return the next number without taking it; None at the end."""
        if self._heap is None:
            heads = [await self._head_of(cursor) for cursor in self._cursors]
            self._heap = [(-head, place) for place, head in enumerate(heads) if head is not None]
            heapq.heapify(self._heap)
        while self._heap:
            number, place = self._heap[0]
            head = await self._head_of(self._cursors[place])
            if head == -number:
                return head
            # Its head was taken or left out since.
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

    def skip(self, highest: int) -> None:
        """Leave out all numbers above ``highest``."""
        self._highest = highest

    async def _head_of(self, cursor: IdCursor) -> int | None:
        if self._highest is not None:
            cursor.skip(self._highest)
        return await cursor.head()


class IntersectedCursor:
    """The numbers that all of several cursors have. Each is moved on to where another one stands,
    so that it costs as many steps as the cursor with the fewest numbers has."""

    def __init__(self, cursors: Sequence[IdCursor]) -> None:
        self._cursors = cursors

    async def head(self) -> int | None:
        """Return the next number without taking it; None at the end."""
        lowest = None
        agreed = 0
        while agreed < len(self._cursors):
            agreed = 0
            for cursor in self._cursors:
                if lowest is not None:
                    cursor.skip(lowest)
                head = await cursor.head()
                if head is None:
                    return None
                agreed = agreed + 1 if head == lowest else 1
                lowest = head
        return lowest

    def take(self) -> int:
        """Return the next number and go on."""
        numbers = [cursor.take() for cursor in self._cursors]
        return numbers[0]

    def skip(self, highest: int) -> None:
        """Leave out all numbers above ``highest``."""
        for cursor in self._cursors:
            cursor.skip(highest)


async def take_chunk(cursor: IdCursor, most: int, lowest: int) -> list[int]:
    """Return the next numbers that are not below ``lowest``; fewer than ``most`` only at their
    end."""
    chunk: list[int] = []
    while len(chunk) < most:
        head = await cursor.head()
        if head is None or head < lowest:
            break
        chunk.append(cursor.take())
    return chunk
