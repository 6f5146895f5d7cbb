"""Group commit: what arrives while one write is under way goes into the next one together.

The receiver writes deliveries this way, the worker its deploys, notes and outcomes. Under load a
round trip is shared by all that wait; without load nothing waits for company.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import Generic, TypeVar

T = TypeVar("T")
R = TypeVar("R")


class GroupCommit(Generic[T, R]):
    """Hands items to ``commit`` in batches, one batch at a time, in the order of their arrival."""

    def __init__(
        self, commit: Callable[[Sequence[T]], Awaitable[Sequence[R]]], *, most: int
    ) -> None:
        """``commit`` returns one result an item; what it raises, all items of its batch raise.

        ``most`` is the number of items in one batch at most.
        """
        self._commit = commit
        self._most = most
        self._waiting: deque[tuple[T, asyncio.Future[R]]] = deque()
        self._running: asyncio.Task[None] | None = None

    def __len__(self) -> int:
        """Items that wait for the next batch."""
        return len(self._waiting)

    def submit(self, item: T) -> asyncio.Future[R]:
        """The result of an item, once its batch is committed."""
        loop = asyncio.get_running_loop()
        result: asyncio.Future[R] = loop.create_future()
        self._waiting.append((item, result))
        if self._running is None:
            self._running = loop.create_task(self._run())
        return result

    async def drain(self) -> None:
        """Return once nothing waits any more."""
        while self._running is not None:
            await asyncio.shield(self._running)

    async def _run(self) -> None:
        waiting = self._waiting
        try:
            while waiting:
                batch = [waiting.popleft() for _ in range(min(self._most, len(waiting)))]
                # Nobody waits any more for a result that was cancelled.
                batch = [pair for pair in batch if not pair[1].done()]
                if not batch:
                    continue
                try:
                    results = await self._commit([item for item, _ in batch])
                except Exception as error:
                    for _, result in batch:
                        if not result.done():
                            result.set_exception(error)
                else:
                    for (_, result), value in zip(batch, results, strict=True):
                        if not result.done():
                            result.set_result(value)
        finally:
            self._running = None
