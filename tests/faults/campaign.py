"""A crash campaign: everything is killed at random under load, and then the books are balanced.

Senders send each delivery until it is acknowledged, as GitLab does. Receiver, worker and Redis are
killed with SIGKILL, one of them or all at once, and started again at once. At the end every
acknowledged delivery must have been deployed once, or the audit must say that nobody knows:

    python -m tests.faults.campaign --deliveries 20000 --kills 200 --seed 1
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import signal
import socket
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
from aiohttp import web
from redis.asyncio import Redis

from relay.embedded import server_command
from tests.harness import COMMAND, GITHUB_SECRET, github_headers, github_push, sha_of

SENDERS = 16

PARTS = ("receiver", "worker", "redis")

SETTLED = 300
"""Seconds after the last kill within which all must have come to an end: what a killed worker
leaves is found after 50, and RQ waits up to two minutes before a job's third run."""

PAUSES = (0.3, 1.5)
"""Seconds between two kills."""

_YAML = """\
sources:
  github: {provider: github, secrets: [{env: TEST_SECRET}]}
targets:
  hook: {preset: http, url: {env: TEST_HOOK}, query: {sha: "{{ event.sha }}"}, timeout: 20s}
routes:
  - {name: all, repo: acme/web, on: push, deploy: [hook]}
"""


@dataclass(slots=True)
class Balance:
    """What came of a campaign. Deliveries are counted by the commit that each has for itself."""

    acknowledged: int = 0
    deployed: int = 0
    uncertain: int = 0
    """Called once or not at all; the audit says that an attempt was cut off and how it went on."""
    lost: list[str] = field(default_factory=list)
    doubled: list[str] = field(default_factory=list)
    """Called more than once, and no line tells why."""
    unexplained: list[str] = field(default_factory=list)
    """Acknowledged, and no line of the audit says so."""
    kills: Counter[str] = field(default_factory=Counter)
    seconds: float = 0

    def __str__(self) -> str:
        kills = ", ".join(f"{part} {number}" for part, number in sorted(self.kills.items()))
        return (
            f"acknowledged {self.acknowledged:,}; deployed {self.deployed:,}, "
            f"uncertain {self.uncertain:,}; lost {len(self.lost)}, silently doubled "
            f"{len(self.doubled)}, unexplained {len(self.unexplained)}\n"
            f"kills: {kills}; {self.seconds:.0f} s"
        )


@dataclass(slots=True)
class Part:
    """A process that is started again whenever it was killed."""

    name: str
    command: list[str]
    output: Path
    environ: dict[str, str]
    process: asyncio.subprocess.Process | None = None

    async def start(self) -> None:
        with self.output.open("ab") as output:
            self.process = await asyncio.create_subprocess_exec(
                *self.command,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=output,
                stderr=asyncio.subprocess.DEVNULL,
                env={**os.environ, **self.environ},
            )

    async def stop(self, number: signal.Signals) -> None:
        if self.process is not None:
            if self.process.returncode is None:
                self.process.send_signal(number)
            await self.process.wait()


class Campaign:
    """One campaign in a folder of its own."""

    def __init__(self, folder: Path, *, deliveries: int, kills: int, seed: int) -> None:
        self._folder = folder
        self._kills = kills
        self._chance = random.Random(seed)  # noqa: S311
        self._shas = [sha_of(f"{seed}-{number}") for number in range(deliveries)]
        self._waiting = list(reversed(self._shas))
        self._acknowledged: set[str] = set()
        self._calls: Counter[str] = Counter()
        self._over = asyncio.Event()
        self._port = _free_port()
        self._balance = Balance()
        self._parts: dict[str, Part] = {}

    async def run(self) -> Balance:
        """Send, kill, wait until all has come to an end, and count."""
        began = time.monotonic()
        runner = web.AppRunner(self._platform(), access_log=None)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        self._prepare(f"http://127.0.0.1:{runner.addresses[0][1]}/")
        try:
            for name in ("redis", "receiver", "worker"):
                await self._parts[name].start()
            sending = [asyncio.create_task(self._send()) for _ in range(SENDERS)]
            await self._kill()
            self._over.set()
            await asyncio.gather(*sending)
            await self._settle()
        finally:
            for name in ("receiver", "worker", "redis"):
                await self._parts[name].stop(signal.SIGTERM)
            await runner.cleanup()
        self._count()
        self._balance.seconds = time.monotonic() - began
        return self._balance

    def _prepare(self, hook: str) -> None:
        config = self._folder / "relay.yaml"
        config.write_text(_YAML, encoding="utf-8")
        server = self._folder / "redis.sock"
        environ = {
            "RELAY_CONFIG": str(config),
            "RELAY_REDIS_URL": f"unix://{server}",
            "RELAY_DATA_DIR": str(self._folder / "data"),
            "RELAY_PORT": str(self._port),
            "RELAY_ALLOWED_NETWORKS": "127.0.0.0/8",
            "TEST_SECRET": GITHUB_SECRET,
            "TEST_HOOK": hook,
        }
        commands = {
            "redis": server_command(server, "always"),
            "receiver": [*COMMAND, "serve"],
            "worker": [*COMMAND, "worker"],
        }
        for name, command in commands.items():
            self._parts[name] = Part(name, command, self._folder / f"{name}.log", environ)

    def _platform(self) -> web.Application:
        async def deploy(request: web.Request) -> web.Response:
            self._calls[request.query["sha"]] += 1
            await asyncio.sleep(self._chance.uniform(0, 0.05))
            return web.Response()

        app = web.Application()
        app.router.add_post("/", deploy)
        return app

    async def _send(self) -> None:
        """Send deliveries, each until it is acknowledged; some of them twice, as senders do."""
        url = f"http://127.0.0.1:{self._port}/hooks/github"
        limit = aiohttp.ClientTimeout(total=10)
        async with aiohttp.ClientSession(timeout=limit) as session:
            while self._waiting:
                sha = self._waiting.pop()
                body = github_push(after=sha, ref=f"refs/heads/{sha[:8]}")
                headers = github_headers(body, delivery=f"d-{sha}")
                while not await self._accepts(session, url, body, headers):  # noqa: ASYNC110
                    await asyncio.sleep(0.05)
                self._acknowledged.add(sha)
                # As long as there are kills to come, so are deliveries.
                if not self._over.is_set():
                    await asyncio.sleep(self._pace())

    def _pace(self) -> float:
        left = max(1, self._kills - sum(self._balance.kills.values()))
        return SENDERS * left * sum(PAUSES) / 2 / max(1, len(self._waiting))

    async def _accepts(
        self, session: aiohttp.ClientSession, url: str, body: bytes, headers: dict[str, str]
    ) -> bool:
        try:
            async with session.post(url, data=body, headers=headers) as response:
                return response.status in (200, 202)
        except (aiohttp.ClientError, TimeoutError):
            return False

    async def _kill(self) -> None:
        for _ in range(self._kills):
            await asyncio.sleep(self._chance.uniform(*PAUSES))
            victim = self._chance.choice((*PARTS, "all"))
            self._balance.kills[victim] += 1
            for name in PARTS if victim == "all" else (victim,):
                await self._parts[name].stop(signal.SIGKILL)
                await self._parts[name].start()
            # What ends by itself meanwhile, a worker that does not find Redis say, is started
            # again as any service manager would.
            for part in self._parts.values():
                if part.process is not None and part.process.returncode is not None:
                    await part.start()

    async def _settle(self) -> None:
        """Return once every job has ended."""
        deadline = time.monotonic() + SETTLED
        async with Redis(unix_socket_path=str(self._folder / "redis.sock")) as redis:
            while time.monotonic() < deadline:
                for part in self._parts.values():
                    if part.process is not None and part.process.returncode is not None:
                        await part.start()
                if not await self._left(redis):
                    return
                await asyncio.sleep(0.5)

    async def _left(self, redis: Any) -> int:
        queue = "deploy-relay"
        return sum(
            [
                await redis.llen(f"rq:queue:{queue}"),
                await redis.zcard(f"rq:wip:{queue}"),
                await redis.zcard(f"rq:scheduled:{queue}"),
                await redis.zcard("rq:rl:target:hook:rate_limited"),
            ]
        )

    def _count(self) -> None:
        lines = [*self._audit("receiver"), *self._audit("worker")]
        # Where Redis took a delivery and the answer was lost, the sender's retry is a duplicate.
        kept = ("delivery.queued", "delivery.duplicate")
        said = {line["sha"] for line in lines if line["event"] in kept}
        open_ends = {
            line["sha"]
            for line in lines
            if line["event"] in ("deploy.failed", "deploy.uncertain")
            and ("cut off" in line["reason"] or line["event"] == "deploy.uncertain")
        }
        balance = self._balance
        balance.acknowledged = len(self._acknowledged)
        for sha in self._shas:
            calls = self._calls[sha]
            if sha not in self._acknowledged:
                continue
            if sha in open_ends:
                balance.uncertain += 1
            elif calls == 1:
                balance.deployed += 1
            elif calls == 0:
                balance.lost.append(sha)
            if calls > 1 and sha not in open_ends:
                balance.doubled.append(sha)
            if sha not in said:
                balance.unexplained.append(sha)

    def _audit(self, name: str) -> list[dict[str, Any]]:
        lines = []
        for text in self._parts[name].output.read_bytes().splitlines():
            try:
                lines.append(json.loads(text))
            except ValueError:
                # A kill may tear the last line of a process.
                continue
        return lines


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port: int = server.getsockname()[1]
        return port


def main() -> None:
    """Run a campaign; exit code 1 if anything was lost or doubled."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--deliveries", type=int, default=20_000)
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--seed", type=int, default=random.randrange(1_000_000))  # noqa: S311
    given = parser.parse_args()
    sys.stdout.write(f"seed {given.seed}\n")
    with tempfile.TemporaryDirectory(prefix="relay-", ignore_cleanup_errors=True) as folder:
        campaign = Campaign(
            Path(folder), deliveries=given.deliveries, kills=given.kills, seed=given.seed
        )
        balance = asyncio.run(campaign.run())
        sys.stdout.write(f"{balance}\n")
        if balance.lost or balance.doubled or balance.unexplained:
            wrong = (balance.lost[:5], balance.doubled[:5], balance.unexplained[:5])
            sys.stdout.write(f"lost, doubled, unexplained: {wrong}\n")
            kept = Path(tempfile.mkdtemp(prefix="campaign-"))
            for log in Path(folder).glob("*.log"):
                (kept / log.name).write_bytes(log.read_bytes())
            sys.stdout.write(f"logs in {kept}\n")
            sys.exit(1)


if __name__ == "__main__":
    main()
