"""Redis is stopped and killed under load for a while, and then the books are balanced.

Senders send each delivery until it is acknowledged, as GitLab does. Redis is stopped with SIGSTOP,
goes on, is killed with SIGKILL, and stays away until it is started again:

    python -m tests.faults.outage --seconds 60 --rate 50
"""

from __future__ import annotations

import asyncio
import itertools
import random
import signal
import sys
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import aiohttp

from tests.faults.rig import SETTLED, Balance, Rig, options, report
from tests.harness import sha_of

SENDERS = 16

ANSWER = 10
"""Seconds after which a sender gives up a request, as GitLab does."""

Phase = Literal["before", "stopped", "after stop", "killed", "after kill"]


@dataclass(slots=True)
class Seen:
    """What senders and a probe of /readyz saw in one phase."""

    statuses: Counter[int] = field(default_factory=Counter)
    acknowledged: int = 0
    longest: float = 0
    """Seconds that a sender waited at most for the answer to one request, begun in this phase."""
    ready: Counter[str] = field(default_factory=Counter)


class Outage:
    """Two outages in a folder of their own, one after the other."""

    def __init__(
        self,
        folder: Path,
        *,
        seconds: float,
        rate: float,
        seed: int,
        store_timeout: str = "5s",
    ) -> None:
        """Each outage lasts ``seconds``; ``rate`` is deliveries a second."""
        self.seen: dict[Phase, Seen] = {}
        self.events: Counter[str] = Counter()
        """Lines of the receiver's audit, by their event."""
        chance = random.Random(seed)  # noqa: S311
        self._rig = Rig(folder, chance, {"RELAY_STORE_TIMEOUT": store_timeout})
        self._seconds = seconds
        self._pause = SENDERS / rate
        self._shas = (sha_of(f"{seed}-{number}") for number in itertools.count())
        self._acknowledged: set[str] = set()
        self._over = False
        self._phase: Phase = "before"

    async def run(self) -> Balance:
        """Send while Redis is stopped and killed, wait until all has ended, and count."""
        parts = self._rig.parts
        limit = aiohttp.ClientTimeout(total=ANSWER)
        async with self._rig.running(), aiohttp.ClientSession(timeout=limit) as session:
            probing = asyncio.create_task(self._probe(session))
            self._enter("before")
            await self._until_ready()
            sending = [asyncio.create_task(self._send(session)) for _ in range(SENDERS)]
            await self._until_acknowledged()
            await self._lasts("stopped", signal.SIGSTOP)
            parts["redis"].send(signal.SIGCONT)
            self._enter("after stop")
            await self._until_ready()
            await self._until_acknowledged()
            parts["redis"].away = True
            await self._lasts("killed", signal.SIGKILL)
            parts["redis"].away = False
            self._enter("after kill")
            await self._until_ready()
            await self._until_acknowledged()
            self._over = True
            await asyncio.gather(*sending)
            probing.cancel()
            await self._rig.settle()
        self.events.update(line["event"] for line in self._rig.audit("receiver"))
        return self._rig.balance(self._acknowledged)

    def _enter(self, phase: Phase) -> None:
        self._phase = phase
        self.seen[phase] = Seen()

    async def _lasts(self, phase: Phase, number: signal.Signals) -> None:
        self._enter(phase)
        self._rig.parts["redis"].send(number)
        await asyncio.sleep(self._seconds)

    async def _until_ready(self) -> None:
        """Return once the receiver writes to Redis."""
        async with asyncio.timeout(SETTLED):
            while not self.seen[self._phase].ready["ready"]:  # noqa: ASYNC110
                await asyncio.sleep(0.05)

    async def _until_acknowledged(self) -> None:
        """Return once each sender is likely to have had an answer."""
        async with asyncio.timeout(SETTLED):
            enough = self.seen[self._phase].acknowledged + 2 * SENDERS
            while self.seen[self._phase].acknowledged < enough:  # noqa: ASYNC110
                await asyncio.sleep(0.05)

    async def _send(self, session: aiohttp.ClientSession) -> None:
        while not self._over:
            sha = next(self._shas)
            while True:
                seen, began = self.seen[self._phase], time.monotonic()
                status = await self._rig.post(session, sha)
                seen.statuses[status] += 1
                seen.longest = max(seen.longest, time.monotonic() - began)
                if status in (200, 202):
                    break
                await asyncio.sleep(0.05)
            seen.acknowledged += 1
            self._acknowledged.add(sha)
            await asyncio.sleep(self._pause)

    async def _probe(self, session: aiohttp.ClientSession) -> None:
        """Ask /readyz again and again."""
        while True:
            status = "no answer"
            seen = self.seen[self._phase] if self.seen else Seen()
            try:
                async with session.get(f"{self._rig.url}/readyz") as response:
                    status = str((await response.json())["status"])
            except (aiohttp.ClientError, TimeoutError):
                pass
            seen.ready[status] += 1
            await asyncio.sleep(0.1)


def main() -> None:
    """Run both outages; exit code 1 if anything was lost or doubled."""
    parser = options(__doc__)
    parser.add_argument("--seconds", type=float, default=60, help="of each outage")
    parser.add_argument("--rate", type=float, default=50, help="deliveries a second")
    given = parser.parse_args()

    async def run(folder: Path) -> Balance:
        outage = Outage(folder, seconds=given.seconds, rate=given.rate, seed=given.seed)
        result = await outage.run()
        for phase, seen in outage.seen.items():
            sys.stdout.write(
                f"{phase}: acknowledged {seen.acknowledged:,}, statuses {dict(seen.statuses)}, "
                f"longest wait {seen.longest:.2f} s, readyz {dict(seen.ready)}\n"
            )
        names = (
            *("delivery.spooled", "delivery.forwarded", "delivery.duplicate"),
            *("receiver.degraded", "receiver.recovered"),
        )
        told = ", ".join(f"{name} {outage.events[name]:,}" for name in names)
        sys.stdout.write(f"audit: {told}\n")
        return result

    report(run, seed=given.seed, keep=given.keep)


if __name__ == "__main__":
    main()
