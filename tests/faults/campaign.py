"""A crash campaign: everything is killed at random under load, and then the books are balanced.

Senders send each delivery until it is acknowledged, as GitLab does. Receiver, worker and Redis are
killed with SIGKILL, one of them or all at once, and started again at once:

    python -m tests.faults.campaign --deliveries 20000 --kills 200 --seed 1
"""

from __future__ import annotations

import asyncio
import random
import signal
import sys
import time
from collections import Counter
from pathlib import Path

import aiohttp

from tests.faults.books import Balance
from tests.faults.rig import Pushes, Rig
from tests.faults.tool import options, report

SENDERS = 16

PARTS = ("redis", "receiver", "worker")

CALL = 5
"""Seconds that a call may take."""

SLOW = 0.05
"""Share of calls that take so long that some are cut off."""

PAUSES = (0.5, 2.5)
"""Seconds between two kills."""


class Campaign:
    """One campaign in a folder of its own."""

    def __init__(self, folder: Path, *, deliveries: int, kills: int, seed: int) -> None:
        self.kills: Counter[str] = Counter()
        self._planned = kills
        self._chance = random.Random(seed)  # noqa: S311
        self._rig = Rig(folder, self._chance, timeout=CALL, slow=SLOW)
        self._seed = seed
        self._left = deliveries
        self._over = asyncio.Event()

    async def run(self) -> Balance:
        """Send, kill, wait until all has come to an end, and count."""
        async with self._rig.running():
            senders = [Pushes(f"{self._seed}-{number}", self._chance) for number in range(SENDERS)]
            sending = [asyncio.create_task(self._send(one)) for one in senders]
            await self._kill()
            self._over.set()
            await asyncio.gather(*sending)
            await self._rig.settle()
        return self._rig.balance()

    async def _send(self, pushes: Pushes) -> None:
        limit = aiohttp.ClientTimeout(total=10)
        async with aiohttp.ClientSession(timeout=limit) as session:
            while self._left:
                self._left -= 1
                push = pushes.next()
                while await self._rig.post(session, push) not in (200, 202):  # noqa: ASYNC110
                    await asyncio.sleep(0.05)
                # As long as there are kills to come, so are deliveries.
                if not self._over.is_set():
                    await asyncio.sleep(self._pace())

    def _pace(self) -> float:
        left = max(1, self._planned - sum(self.kills.values()))
        return SENDERS * left * sum(PAUSES) / 2 / max(1, self._left)

    async def _kill(self) -> None:
        for _ in range(self._planned):
            await asyncio.sleep(self._chance.uniform(*PAUSES))
            victim = self._chance.choice((*PARTS, "all"))
            self.kills[victim] += 1
            for name in PARTS if victim == "all" else (victim,):
                await self._rig.parts[name].stop(signal.SIGKILL)


def main() -> None:
    """Run a campaign; exit code 1 if anything was lost or doubled."""
    parser = options(__doc__)
    parser.add_argument("--deliveries", type=int, default=20_000)
    parser.add_argument("--kills", type=int, default=200)
    given = parser.parse_args()

    async def run(folder: Path) -> Balance:
        began = time.monotonic()
        campaign = Campaign(folder, deliveries=given.deliveries, kills=given.kills, seed=given.seed)
        result = await campaign.run()
        kills = ", ".join(f"{part} {number}" for part, number in sorted(campaign.kills.items()))
        sys.stdout.write(f"kills: {kills}; {time.monotonic() - began:.0f} s\n")
        return result

    report(run, seed=given.seed, keep=given.keep)


if __name__ == "__main__":
    main()
