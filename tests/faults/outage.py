"""Redis has all kinds of faults under load, and then the books are balanced.

It is stopped, killed, emptied, read-only, and refuses one after the other of the commands that the
relay was seen to use. Nothing of it is needed: all the while pushes are acknowledged and their
deploys called. Senders send each push until it is acknowledged, as GitLab does:

    python -m tests.faults.outage --seconds 20 --rate 50
"""

from __future__ import annotations

import asyncio
import functools
import random
import signal
import sys
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any

from redis.asyncio import Redis

from relay.tasks import end_tasks
from tests.faults.books import Balance
from tests.faults.load import Load
from tests.faults.rig import Rig
from tests.faults.tool import options, report

EMPTYINGS = 0.5
"""Seconds between two emptyings of Redis."""

CALLED = 16
"""Pushes of a phase that have to be deployed in it."""

OURS = ("acl", "auth", "client", "config", "flushall", "hello", "info", "select")
"""Commands of this tool and of its connections, which are not taken away."""

USER = "campaign"
"""Whom Redis refuses nothing."""

Fault = Callable[[], AbstractAsyncContextManager[None]]


class Outage:
    """All outages in a folder of its own, one after the other."""

    def __init__(
        self,
        folder: Path,
        *,
        seconds: float,
        rate: float,
        seed: int,
        command_seconds: float,
        most_commands: int = 1_000,
    ) -> None:
        """Each outage lasts ``seconds`` at least; where a command is refused ``command_seconds``,
        and of those there are up to ``most_commands``. ``rate`` is pushes a second."""
        self.events: Counter[str] = Counter()
        """Lines of all audits, by their event."""
        self.refused: list[str] = []
        """Commands that Redis refused, one after the other."""
        self._chance = random.Random(seed)  # noqa: S311
        self._rig = Rig(folder, self._chance, workers=2)
        self.load = Load(self._rig, rate=rate, seed=seed)
        self._seconds = seconds
        self._command_seconds = command_seconds
        self._most_commands = most_commands
        self._folder = folder
        self._user: str | None = None

    async def run(self) -> Balance:
        """Send while Redis has its faults, wait until all has ended, and count."""
        faults: dict[str, Fault] = {
            "stopped": self._stopped,
            "killed": self._killed,
            "killed and empty": self._killed_and_empty,
            "emptied": self._emptied,
            "read-only": self._read_only,
        }
        load = self.load
        async with self._rig.running():
            load.enter("before")
            async with load.running():
                for name, fault in faults.items():
                    await self._suffer(name, fault, self._seconds)
                await self._allow_us_all()
                for command in await self._commands():
                    self.refused.append(command)
                    fault = functools.partial(self._without, command)
                    await self._suffer(f"without {command.upper()}", fault, self._command_seconds)
            await self._rig.settle()
        self.events = self._rig.events()
        return self._rig.balance()

    async def _suffer(self, name: str, fault: Fault, seconds: float) -> None:
        """Have a fault until pushes that came meanwhile are deployed, and wait until it is over."""
        load = self.load
        seen = load.enter(name)
        async with fault():
            await asyncio.sleep(seconds)
            await load.until(lambda: load.called(seen) >= CALLED)
        load.enter(f"after {name}")
        await load.until_ready()
        await load.until_acknowledged()

    @asynccontextmanager
    async def _stopped(self) -> AsyncIterator[None]:
        redis = self._rig.parts["redis"]
        redis.send(signal.SIGSTOP)
        try:
            yield
        finally:
            redis.send(signal.SIGCONT)

    @asynccontextmanager
    async def _killed(self) -> AsyncIterator[None]:
        redis = self._rig.parts["redis"]
        redis.away = True
        await redis.stop(signal.SIGKILL)
        try:
            yield
        finally:
            redis.away = False

    @asynccontextmanager
    async def _killed_and_empty(self) -> AsyncIterator[None]:
        async with self._killed():
            yield
            for file in self._folder.glob("appendonlydir/*"):
                file.unlink()

    @asynccontextmanager
    async def _emptied(self) -> AsyncIterator[None]:
        async def empty() -> None:
            while True:
                await self._ask(lambda redis: redis.flushall())
                await asyncio.sleep(EMPTYINGS)

        emptying = asyncio.create_task(empty())
        try:
            yield
        finally:
            await end_tasks([emptying])

    @asynccontextmanager
    async def _read_only(self) -> AsyncIterator[None]:
        await self._ask(lambda redis: redis.config_set("min-replicas-to-write", 1))
        try:
            yield
        finally:
            await self._ask(lambda redis: redis.config_set("min-replicas-to-write", 0))

    @asynccontextmanager
    async def _without(self, command: str) -> AsyncIterator[None]:
        """Everybody else may not use a command."""
        await self._set_rules("default", f"-{command}")
        try:
            yield
        finally:
            await self._set_rules("default", f"+{command}")

    async def _allow_us_all(self) -> None:
        await self._set_rules(USER, "on", "nopass", "~*", "&*", "+@all")
        self._user = USER

    async def _set_rules(self, user: str, *rules: str) -> None:
        async def ask(redis: Any) -> None:
            await redis.execute_command("ACL", "SETUSER", user, *rules)

        await self._ask(ask)

    async def _commands(self) -> list[str]:
        """The commands that the relay uses: a worker that ends uses some of its own."""
        await self._rig.parts["worker-2"].stop(signal.SIGTERM)
        stats = await self._ask(lambda redis: redis.info("commandstats"))
        names = [name.removeprefix("cmdstat_") for name in stats]
        used = sorted(name for name in names if name.partition("|")[0] not in OURS)
        return self._chance.sample(used, min(len(used), self._most_commands))

    async def _ask(self, question: Callable[[Redis], Awaitable[Any]]) -> Any:
        path = str(self._folder / "redis.sock")
        password = "any" if self._user else None
        async with Redis(unix_socket_path=path, username=self._user, password=password) as redis:
            return await question(redis)


def main() -> None:
    """Run all outages; exit code 1 if anything was lost or doubled."""
    parser = options(__doc__)
    parser.add_argument("--seconds", type=float, default=20, help="of each outage")
    parser.add_argument("--command-seconds", type=float, default=6, help="without each command")
    parser.add_argument("--rate", type=float, default=50, help="pushes a second")
    given = parser.parse_args()

    async def run(folder: Path) -> Balance:
        outage = Outage(
            folder,
            seconds=given.seconds,
            command_seconds=given.command_seconds,
            rate=given.rate,
            seed=given.seed,
        )
        result = await outage.run()
        for phase, seen in outage.load.seen.items():
            sys.stdout.write(f"{phase}: {seen}\n")
        names = ("delivery.duplicate", "queue.rebuilt", "worker.waiting", "deploy.uncertain")
        told = ", ".join(f"{name} {outage.events[name]:,}" for name in names)
        sys.stdout.write(f"audit: {told}\n")
        return result

    report(run, seed=given.seed, keep=given.keep)


if __name__ == "__main__":
    main()
