"""Redis is stopped and killed under load for a while, and then the books are balanced.

Senders send each delivery until it is acknowledged, as GitLab does. Redis is stopped with SIGSTOP,
goes on, is killed with SIGKILL, and stays away until it is started again:

    python -m tests.faults.outage --seconds 60 --rate 50
"""

from __future__ import annotations

import asyncio
import random
import signal
import sys
from collections import Counter
from pathlib import Path

from tests.faults.books import Balance
from tests.faults.load import Load
from tests.faults.rig import Rig
from tests.faults.tool import options, report


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
        chance = random.Random(seed)  # noqa: S311
        self.events: Counter[str] = Counter()
        """Lines of the receiver's audit, by their event."""
        self._rig = Rig(folder, chance, environ=lambda _: {"RELAY_STORE_TIMEOUT": store_timeout})
        self.load = Load(self._rig, rate=rate, seed=seed)
        self._seconds = seconds

    async def run(self) -> Balance:
        """Send while Redis is stopped and killed, wait until all has ended, and count."""
        load = self.load
        async with self._rig.running():
            redis = self._rig.parts["redis"]
            load.enter("before")
            async with load.running():
                load.enter("stopped")
                redis.send(signal.SIGSTOP)
                await asyncio.sleep(self._seconds)
                redis.send(signal.SIGCONT)
                load.enter("after stop")
                await load.until_ready()
                await load.until_acknowledged()
                redis.away = True
                load.enter("killed")
                redis.send(signal.SIGKILL)
                await asyncio.sleep(self._seconds)
                redis.away = False
                load.enter("after kill")
                await load.until_ready()
                await load.until_acknowledged()
            await self._rig.settle()
        self.events.update(line["event"] for line in self._rig.audit("receiver"))
        return self._rig.balance(load.acknowledged)


def main() -> None:
    """Run both outages; exit code 1 if anything was lost or doubled."""
    parser = options(__doc__)
    parser.add_argument("--seconds", type=float, default=60, help="of each outage")
    parser.add_argument("--rate", type=float, default=50, help="deliveries a second")
    given = parser.parse_args()

    async def run(folder: Path) -> Balance:
        outage = Outage(folder, seconds=given.seconds, rate=given.rate, seed=given.seed)
        result = await outage.run()
        for phase, seen in outage.load.seen.items():
            sys.stdout.write(f"{phase}: {seen}\n")
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
