"""Steady load from senders that retry until they are acknowledged, as GitLab does."""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import aiohttp

from tests.faults.rig import SETTLED, Pushes, Rig

SENDERS = 16

ANSWER = 10
"""Seconds after which a sender gives up a request, as GitLab does."""


@dataclass(slots=True)
class Seen:
    """What senders and a probe of /readyz saw in one phase."""

    statuses: Counter[int] = field(default_factory=Counter)
    shas: set[str] = field(default_factory=set)
    """Commits that were sent first, and acknowledged, in this phase."""
    longest: float = 0
    """Seconds that a sender waited at most for the answer to one request, begun in this phase."""
    ready: Counter[str] = field(default_factory=Counter)
    called: int = 0
    """How many of its commits had been deployed when it ended."""

    @property
    def acknowledged(self) -> int:
        """How many commits were acknowledged."""
        return len(self.shas)

    def __str__(self) -> str:
        return (
            f"acknowledged {self.acknowledged:,}, {self.called:,} deployed meanwhile, "
            f"statuses {dict(self.statuses)}, "
            f"longest wait {self.longest:.2f} s, readyz {dict(self.ready)}"
        )


class Load:
    """Senders of deliveries, each with a commit of its own, and a probe of /readyz."""

    def __init__(self, rig: Rig, *, rate: float, seed: int) -> None:
        """``rate`` is deliveries a second."""
        self.seen: dict[str, Seen] = {}
        """By phase."""
        self._rig = rig
        self._pause = SENDERS / rate
        chance = random.Random(seed)  # noqa: S311
        self._senders = [Pushes(f"{seed}-{number}", chance) for number in range(SENDERS)]
        self._over = False
        self._now = Seen()

    def enter(self, phase: str) -> Seen:
        """Return a new phase, to which belongs what is seen from now on."""
        self._now.called = self.called(self._now)
        self._now = self.seen[phase] = Seen()
        return self._now

    def called(self, seen: Seen) -> int:
        """How many commits of a phase have been deployed by now."""
        return len(seen.shas.intersection(self._rig.calls))

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Senders send, once the receiver is ready; afterwards all they sent is acknowledged."""
        limit = aiohttp.ClientTimeout(total=ANSWER)
        async with aiohttp.ClientSession(timeout=limit) as session:
            tasks = [asyncio.create_task(self._probe(session))]
            try:
                await self.until_ready()
                tasks += [asyncio.create_task(self._send(session, one)) for one in self._senders]
                await self.until_acknowledged()
                yield
                self._over = True
                await asyncio.gather(*tasks[1:])
            finally:
                for task in tasks:
                    task.cancel()

    async def until_ready(self) -> None:
        """Return once the receiver says that all is well."""
        await self.until(lambda: self._now.ready["ready"])

    async def until_acknowledged(self) -> None:
        """Return once each sender is likely to have had an answer."""
        enough = self._now.acknowledged + 2 * SENDERS
        await self.until(lambda: self._now.acknowledged >= enough)

    async def until(self, condition: Callable[[], object]) -> None:
        """Return once something holds that nothing announces. Raises TimeoutError."""
        async with asyncio.timeout(SETTLED):
            while not condition():  # noqa: ASYNC110
                await asyncio.sleep(0.05)

    async def _send(self, session: aiohttp.ClientSession, pushes: Pushes) -> None:
        while not self._over:
            push, began_in = pushes.next(), self._now
            while True:
                seen, began = self._now, time.monotonic()
                status = await self._rig.post(session, push)
                seen.statuses[status] += 1
                seen.longest = max(seen.longest, time.monotonic() - began)
                if status in (200, 202):
                    break
                await asyncio.sleep(0.05)
            if seen is began_in:
                seen.shas.add(push.sha)
            await asyncio.sleep(self._pause)

    async def _probe(self, session: aiohttp.ClientSession) -> None:
        """Ask /readyz again and again."""
        while True:
            status, seen = "no answer", self._now
            try:
                async with session.get(f"{self._rig.url}/readyz") as response:
                    status = str((await response.json())["status"])
            except (aiohttp.ClientError, TimeoutError):
                pass
            seen.ready[status] += 1
            await asyncio.sleep(0.1)
