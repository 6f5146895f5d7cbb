"""Processes are stopped for longer than a claim holds, and then the books are balanced.

Receiver and workers get SIGSTOP under load and go on when their claims have run out. Some are
stopped within a transaction, when they keep the ledger's lock: those are ended by who waits for it.
Meanwhile senders are refused in time:

    python -m tests.faults.freeze --stops 50 --inside 10 --rate 20
"""

from __future__ import annotations

import asyncio
import os
import random
import signal
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from relay.ledger.holder import is_locked_by, is_stopped, read_holder
from relay.ledger.lock import STUCK_SECONDS
from tests.faults.books import Balance
from tests.faults.load import Load, Seen
from tests.faults.rig import MARGIN, SETTLED, Rig
from tests.faults.tool import options, report

PARTS = ("receiver", "worker", "worker-2")

CALL = 2
"""Seconds that a call may take."""

CLAIM = CALL + 2 * MARGIN
"""Seconds that a claim holds."""

SLOW = 0.2
"""Share of calls that take long, so that some are under way when their worker is stopped."""

ENDED = STUCK_SECONDS + 10
"""Seconds within which a process is ended that keeps the lock."""


class Freeze:
    """All stops in a folder of its own, one after the other."""

    def __init__(self, folder: Path, *, stops: int, inside: int, rate: float, seed: int) -> None:
        """``inside`` of the ``stops`` happen within a transaction; ``rate`` is pushes a second."""
        self.stops: Counter[str] = Counter()
        """Stops, by what was stopped and where."""
        self.events: Counter[str] = Counter()
        """Lines of all audits, by their event."""
        self.longest_refusal = 0.0
        """Seconds that a sender waited at most while a worker kept the lock."""
        self._chance = random.Random(seed)  # noqa: S311
        self._rig = Rig(folder, self._chance, workers=2, timeout=CALL, slow=SLOW)
        self.load = Load(self._rig, rate=rate, seed=seed)
        self._plan = [number < inside for number in range(stops)]
        self._chance.shuffle(self._plan)

    async def run(self) -> Balance:
        """Send while processes are stopped, wait until all has ended, and count."""
        load = self.load
        async with self._rig.running():
            load.enter("before")
            async with load.running():
                inside = 0
                for number, is_inside in enumerate(self._plan, 1):
                    # Each of them is stopped within a transaction at least every third time.
                    part = PARTS[inside % 3] if is_inside else self._chance.choice(PARTS)
                    inside += is_inside
                    await self._stop(number, part, is_inside=is_inside)
            await self._rig.settle()
        self.events = self._rig.events()
        return self._rig.balance()

    async def _stop(self, number: int, part: str, *, is_inside: bool) -> None:
        where = f"{part} within a transaction" if is_inside else part
        self.stops[where] += 1
        seen = self.load.enter(f"{number}: {where}")
        if is_inside:
            await self._stop_inside(part, seen)
        else:
            await self._stop_anywhere(part)
        self.load.enter(f"{number}: after")
        await self.load.until_acknowledged()

    async def _stop_anywhere(self, name: str) -> None:
        part = self._rig.parts[name]
        # Else it would be stopped in the same moment of its work each time.
        await asyncio.sleep(self._chance.random())
        part.send(signal.SIGSTOP)
        await asyncio.sleep(CLAIM + 1)
        part.send(signal.SIGCONT)

    async def _stop_inside(self, name: str, seen: Seen) -> None:
        process = self._rig.parts[name].process
        assert process is not None
        async with self._lock_file() as lock:
            await asyncio.to_thread(_stop_with_lock, process.pid, lock)
        async with asyncio.timeout(ENDED):
            code = await process.wait()
        assert code == -signal.SIGKILL, f"{name} ended with {code}"
        if name != "receiver":
            self.longest_refusal = max(self.longest_refusal, seen.longest)

    @asynccontextmanager
    async def _lock_file(self) -> AsyncIterator[int]:
        number = os.open(self._rig.data_dir / "ledger.lock", os.O_RDONLY)
        try:
            yield number
        finally:
            os.close(number)


def _stop_with_lock(pid: int, lock: int) -> None:
    """Stop a process while it has the lock. Raises TimeoutError."""
    deadline = time.monotonic() + SETTLED
    while time.monotonic() < deadline:
        if not is_locked_by(lock, pid):
            continue
        os.kill(pid, signal.SIGSTOP)
        holder = read_holder(lock)
        assert holder is not None
        while holder.pid == pid and not is_stopped(holder):
            time.sleep(0.001)
        if is_locked_by(lock, pid):
            return
        # It let go before the signal came.
        os.kill(pid, signal.SIGCONT)
    raise TimeoutError(f"process {pid} never had the lock")


def main() -> None:
    """Stop processes; exit code 1 if anything was lost or doubled."""
    parser = options(__doc__)
    parser.add_argument("--stops", type=int, default=50)
    parser.add_argument("--inside", type=int, default=10, help="of them within a transaction")
    parser.add_argument("--rate", type=float, default=20, help="pushes a second")
    given = parser.parse_args()

    async def run(folder: Path) -> Balance:
        freeze = Freeze(
            folder, stops=given.stops, inside=given.inside, rate=given.rate, seed=given.seed
        )
        result = await freeze.run()
        stops = ", ".join(f"{where} {number}" for where, number in sorted(freeze.stops.items()))
        sys.stdout.write(f"stops: {stops}\n")
        statuses: Counter[int] = Counter()
        for seen in freeze.load.seen.values():
            statuses += seen.statuses
        sys.stdout.write(
            f"statuses {dict(statuses)}; longest wait while a worker kept the lock "
            f"{freeze.longest_refusal:.2f} s\n"
        )
        names = ("deploy.uncertain", "deploy.answered_late", "ledger.holder_killed")
        told = ", ".join(f"{name} {freeze.events[name]:,}" for name in names)
        sys.stdout.write(f"audit: {told}\n")
        return result

    report(run, seed=given.seed, keep=given.keep)


if __name__ == "__main__":
    main()
