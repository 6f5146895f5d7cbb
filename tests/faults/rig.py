"""What a fault is tried on: receiver, workers and Redis as processes, and a platform.

Each delivery has a commit of its own, by which its way can be followed.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import signal
import socket
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
from aiohttp import web
from redis.asyncio import Redis
from redis.exceptions import RedisError

from relay.embedded import server_command, wait_until_ready
from tests.faults.books import Balance, balance
from tests.harness import COMMAND, GITHUB_SECRET, github_headers, github_push

SETTLED = 300
"""Seconds after the last fault within which all must have come to an end: what a killed worker
leaves is found after 50, and RQ waits up to two minutes before a job's third run."""

RESTART = 0.2
"""Seconds between two looks for what is to be started again."""

SLOW = 15
"""Seconds that the platform takes for a slow call; less than the target's timeout."""

NO_ANSWER = 0
"""The status of a request that got none."""

_YAML = """\
sources:
  github: {provider: github, secrets: [{env: TEST_SECRET}]}
targets:
  hook: {preset: http, url: {env: TEST_HOOK}, query: {sha: "{{ event.sha }}"}, timeout: 20s}
routes:
  - {name: all, repo: acme/web, on: push, deploy: [hook]}
"""


@dataclass(slots=True)
class Part:
    """A process that is started again whenever it has ended, unless it is to be away."""

    name: str
    command: list[str]
    output: Path
    environ: dict[str, str]
    process: asyncio.subprocess.Process | None = None
    away: bool = False

    async def start(self) -> None:
        errors = self.output.with_suffix(".err.log")
        with self.output.open("ab") as output, errors.open("ab") as diagnostics:
            self.process = await asyncio.create_subprocess_exec(
                *self.command,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=output,
                stderr=diagnostics,
                env={**os.environ, **self.environ},
            )

    def send(self, number: signal.Signals) -> None:
        if self.process is not None and self.process.returncode is None:
            self.process.send_signal(number)

    async def stop(self, number: signal.Signals) -> None:
        self.send(number)
        # One that was stopped with SIGSTOP could not end.
        self.send(signal.SIGCONT)
        if self.process is not None:
            await self.process.wait()


class Rig:
    """The processes in a folder of their own, and what the platform saw."""

    def __init__(
        self,
        folder: Path,
        chance: random.Random,
        *,
        environ: Callable[[str], Mapping[str, str]] = lambda _: {},
        workers: int = 1,
        slow: float = 0,
        refused: float = 0,
    ) -> None:
        """``environ`` returns the environment variables of a part, by its name. Of first calls the
        share ``slow`` takes long and the share ``refused`` is answered with 503."""
        self.calls: Counter[str] = Counter()
        """Calls that the platform took, by their commit."""
        self.parts: dict[str, Part] = {}
        self.url = ""
        self._folder = folder
        self._chance = chance
        self._environ = environ
        self._workers = ["worker", *(f"worker-{number}" for number in range(2, workers + 1))]
        self._slow = slow
        self._refused = refused
        self._refusals: set[str] = set()

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """All parts run, and are started again, until this is left."""
        app = web.Application()
        app.router.add_post("/", self._deploy)
        runner = web.AppRunner(app, access_log=None)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        self._prepare(f"http://127.0.0.1:{runner.addresses[0][1]}/")
        for name, part in self.parts.items():
            await part.start()
            if name == "redis":
                await wait_until_ready(self._folder / "redis.sock")
        keeping = asyncio.create_task(self._keep_up())
        try:
            yield
        finally:
            keeping.cancel()
            for part in reversed(self.parts.values()):
                await part.stop(signal.SIGTERM)
            await runner.cleanup()

    async def post(self, session: aiohttp.ClientSession, sha: str) -> int:
        """Send the delivery of a commit once; the status of the answer, or NO_ANSWER."""
        body = github_push(after=sha, ref=f"refs/heads/{sha[:8]}")
        headers = github_headers(body, delivery=f"d-{sha}")
        url = f"{self.url}/hooks/github"
        try:
            async with session.post(url, data=body, headers=headers) as response:
                return response.status
        except (aiohttp.ClientError, TimeoutError):
            return NO_ANSWER

    async def settle(self) -> None:
        """Return once every job has ended, or after SETTLED seconds."""
        deadline = time.monotonic() + SETTLED
        async with Redis(unix_socket_path=str(self._folder / "redis.sock")) as redis:
            while time.monotonic() < deadline:
                with suppress(RedisError, OSError):
                    if not await _left(redis):
                        return
                await asyncio.sleep(0.5)

    def audit(self, name: str) -> list[dict[str, Any]]:
        """What a part has said so far."""
        lines = []
        for text in self.parts[name].output.read_bytes().splitlines():
            # A kill may tear the last line of a process.
            with suppress(ValueError):
                lines.append(json.loads(text))
        return lines

    def balance(self, acknowledged: Iterable[str]) -> Balance:
        """Balance the books of what was acknowledged."""
        lines = [line for name in ("receiver", *self._workers) for line in self.audit(name)]
        return balance(acknowledged, self.calls, lines)

    def _prepare(self, hook: str) -> None:
        config = self._folder / "relay.yaml"
        config.write_text(_YAML, encoding="utf-8")
        server = self._folder / "redis.sock"
        port = _free_port()
        self.url = f"http://127.0.0.1:{port}"
        environ = {
            "RELAY_CONFIG": str(config),
            "RELAY_REDIS_URL": f"unix://{server}",
            "RELAY_DATA_DIR": str(self._folder / "data"),
            "RELAY_PORT": str(port),
            "RELAY_ALLOWED_NETWORKS": "127.0.0.0/8",
            "TEST_SECRET": GITHUB_SECRET,
            "TEST_HOOK": hook,
        }
        commands = {
            "redis": server_command(server, "always"),
            "receiver": [*COMMAND, "serve"],
            **{name: [*COMMAND, "worker"] for name in self._workers},
        }
        for name, command in commands.items():
            log = self._folder / f"{name}.log"
            self.parts[name] = Part(name, command, log, {**environ, **self._environ(name)})

    async def _deploy(self, request: web.Request) -> web.Response:
        sha = request.query["sha"]
        if sha not in self._refusals and self._chance.random() < self._refused:
            self._refusals.add(sha)
            return web.Response(status=503)
        self.calls[sha] += 1
        slow = self._chance.random() < self._slow
        await asyncio.sleep(SLOW if slow else self._chance.uniform(0, 0.05))
        return web.Response()

    async def _keep_up(self) -> None:
        """Start again what has ended, as any service manager does: what was killed, and a worker
        that did not find Redis."""
        while True:
            for part in self.parts.values():
                ended = part.process is not None and part.process.returncode is not None
                if ended and not part.away:
                    await part.start()
            await asyncio.sleep(RESTART)


async def _left(redis: Any) -> int:
    queue = "deploy-relay"
    return sum(
        [
            await redis.llen(f"rq:queue:{queue}"),
            await redis.zcard(f"rq:wip:{queue}"),
            await redis.zcard(f"rq:scheduled:{queue}"),
            await redis.zcard("rq:rl:target:hook:rate_limited"),
        ]
    )


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port: int = server.getsockname()[1]
        return port
