"""Clocks jump by an hour under load, forth and back, and then the books are balanced.

Receiver and two workers run by a clock that can be moved (tests/clock.py). A Redis whose
clock jumps is one whose keys have so much less, or more, time to live, so that is what is done to
it. Some calls take long, so that they are under way when clocks jump, and some are refused at
first, so that retries wait for their time:

    python -m tests.faults.clocks --seconds 45 --rate 20
"""

from __future__ import annotations

import asyncio
import random
import sys
from collections import Counter
from pathlib import Path

from redis.asyncio import Redis

from tests.clock import clock_environ, compile_clock, set_clock
from tests.faults.books import Balance
from tests.faults.load import Load
from tests.faults.rig import Rig
from tests.faults.tool import options, report
from tests.harness import ledger_rows

HOUR = 3600

PARTS = ("redis", "receiver", "worker", "worker-2")

JUMPS: dict[str, dict[str, float]] = {
    "all an hour back": dict.fromkeys(PARTS, -HOUR),
    "all right again": dict.fromkeys(PARTS, 0),
    "one worker an hour fast": {"worker-2": HOUR},
    "Redis an hour fast too": {"redis": HOUR},
    # Last, since a retry that was to come by a fast clock would wait for an hour by a right one.
    "all an hour fast": dict.fromkeys(PARTS, HOUR),
}
"""Phases, and what is fast in them by how many seconds; what is not named stays as it is."""


class Clocks:
    """One run in a folder of its own."""

    def __init__(self, folder: Path, *, seconds: float, rate: float, seed: int) -> None:
        """Each phase lasts ``seconds``; ``rate`` is deliveries a second."""
        chance = random.Random(seed)  # noqa: S311
        self.events: Counter[str] = Counter()
        """Lines of all audits, by their event."""
        self.waiting: dict[str, int] = {}
        """Retries that waited for their time at the end of each phase."""
        self._folder = folder
        self._seconds = seconds
        self._fast: dict[str, float] = dict.fromkeys(PARTS, 0)
        library = compile_clock(folder)

        def environ(part: str) -> dict[str, str]:
            return {} if part == "redis" else clock_environ(library, self._clock(part))

        self._rig = Rig(
            folder,
            chance,
            environ=environ,
            workers=2,
            slow=0.05,
            refused=0.05,
        )
        self.load = Load(self._rig, rate=rate, seed=seed)

    async def run(self) -> Balance:
        """Send while clocks jump, wait until all has ended, and count."""
        for part in PARTS:
            set_clock(self._clock(part), 0)
        async with self._rig.running():
            self.load.enter("before")
            async with self.load.running():
                for phase, jump in JUMPS.items():
                    self.load.enter(phase)
                    await self._jump(jump)
                    await asyncio.sleep(self._seconds)
                    await self.load.until_acknowledged()
                    self.waiting[phase] = self._retries()
            await self._rig.settle()
        self.events = self._rig.events()
        return self._rig.balance()

    async def _jump(self, jump: dict[str, float]) -> None:
        for part, fast in jump.items():
            if part == "redis":
                await self._move_redis(fast - self._fast[part])
            else:
                set_clock(self._clock(part), fast)
            self._fast[part] = fast

    async def _move_redis(self, seconds: float) -> None:
        """Have what expires in Redis expire as if its clock had jumped."""
        async with self._redis() as redis:
            for key in await redis.keys():
                left = await redis.pttl(key)
                if left >= 0:
                    await redis.pexpire(key, round(left - seconds * 1_000))

    def _clock(self, part: str) -> Path:
        return self._folder / f"{part}.clock"

    def _retries(self) -> int:
        [row] = ledger_rows(
            self._rig.data_dir, "SELECT count(*) AS waiting FROM deploy WHERE waits = 'retry'"
        )
        return int(row["waiting"])

    def _redis(self) -> Redis:
        return Redis(unix_socket_path=str(self._folder / "redis.sock"))


def main() -> None:
    """Have clocks jump; exit code 1 if anything was lost or doubled."""
    parser = options(__doc__)
    parser.add_argument("--seconds", type=float, default=45, help="of each phase")
    parser.add_argument("--rate", type=float, default=20, help="deliveries a second")
    given = parser.parse_args()

    async def run(folder: Path) -> Balance:
        clocks = Clocks(folder, seconds=given.seconds, rate=given.rate, seed=given.seed)
        result = await clocks.run()
        for phase, seen in clocks.load.seen.items():
            waiting = clocks.waiting.get(phase, 0)
            sys.stdout.write(f"{phase}: {seen}, retries waiting at the end {waiting}\n")
        names = ("deploy.retry_scheduled", "deploy.uncertain", "deploy.answered_late")
        told = ", ".join(f"{name} {clocks.events[name]:,}" for name in names)
        sys.stdout.write(f"audit: {told}\n")
        return result

    report(run, seed=given.seed, keep=given.keep)


if __name__ == "__main__":
    main()
