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
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import aiohttp
from aiohttp import web

from relay.embedded import server_command, wait_until_ready
from tests.faults.books import Balance, KeptDelivery, KeptDeploy, balance
from tests.harness import (
    COMMAND,
    GITHUB_SECRET,
    github_headers,
    github_push,
    ledger_rows,
    sha_of,
    work_left,
)

SETTLED = 300
"""Seconds after the last fault within which all must have come to an end: a claim of a killed
worker runs out, and then up to four attempts follow."""

RESTART = 0.2
"""Seconds between two looks for what is to be started again."""

TIMEOUT = 20
"""Seconds that a call may take, unless a rig says otherwise."""

MARGIN = 1
"""Seconds that a claim adds twice to the time that a call may take."""

ON_LINES = 0.3
"""Share of the pushes that follow each other on one branch of their sender."""

NO_COMMIT = "0" * 40
"""What a branch stood at that is new."""

NO_ANSWER = 0
"""The status of a request that got none."""

_YAML = """\
sources:
  github: {provider: github, secrets: [{env: TEST_SECRET}]}
targets:
  hook: {preset: http, url: {env: TEST_HOOK}, supersede: true, timeout: TIMEOUTs,
    query: {sha: "{{ event.sha }}"}}
routes:
  - {name: all, repo: acme/web, on: push, deploy: [hook]}
"""


_DEPLOYS = """
SELECT v.sha, d.status, (SELECT count(*) FROM attempt a
  WHERE a.deploy = d.id AND a.outcome = 'uncertain') AS uncertain_attempts
FROM deploy d JOIN delivery v ON v.id = d.delivery
"""


class Push(NamedTuple):
    """One push, which has a commit of its own."""

    sha: str
    branch: str
    before: str = ""


class Pushes:
    """The pushes of one sender: most make a branch, some follow each other on the sender's own."""

    def __init__(self, name: str, chance: random.Random) -> None:
        self._name = name
        self._chance = chance
        self._number = 0
        self._last = ""

    def next(self) -> Push:
        """Return another push."""
        self._number += 1
        sha = sha_of(f"{self._name} {self._number}")
        if self._chance.random() >= ON_LINES:
            return Push(sha, sha[:8])
        before, self._last = self._last, sha
        return Push(sha, f"line-{self._name}", before)


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
        timeout: float = TIMEOUT,
        slow: float = 0,
        refused: float = 0,
    ) -> None:
        """``environ`` returns the environment variables of a part, by its name. A call may take
        ``timeout`` seconds. Of first calls the share ``slow`` takes three quarters of that and the
        share ``refused`` is answered with 503."""
        self.calls: list[str] = []
        """Commits for which the platform took a call, in the order of time."""
        self.acknowledged: defaultdict[str, list[str]] = defaultdict(list)
        """Commits that the relay has taken, of each branch, in the order in which they came."""
        self.parts: dict[str, Part] = {}
        self.url = ""
        self._folder = folder
        self._chance = chance
        self._environ = environ
        self.workers = ["worker", *(f"worker-{number}" for number in range(2, workers + 1))]
        self._timeout = timeout
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

    async def post(self, session: aiohttp.ClientSession, push: Push) -> int:
        """Send a push once; the status of the answer, or NO_ANSWER."""
        body = github_push(
            after=push.sha,
            before=push.before or NO_COMMIT,
            ref=f"refs/heads/{push.branch}",
        )
        headers = github_headers(body, delivery=f"d-{push.sha}")
        url = f"{self.url}/hooks/github"
        try:
            async with session.post(url, data=body, headers=headers) as response:
                status = response.status
        except (aiohttp.ClientError, TimeoutError):
            return NO_ANSWER
        if status in (200, 202):
            self.acknowledged[push.branch].append(push.sha)
        return status

    async def settle(self) -> None:
        """Return once all has come to an end, or after SETTLED seconds."""
        deadline = time.monotonic() + SETTLED
        while time.monotonic() < deadline:
            if not await asyncio.to_thread(work_left, self.data_dir):
                return
            await asyncio.sleep(0.5)

    @property
    def data_dir(self) -> Path:
        """Where the ledger is."""
        return self._folder / "data"

    def audit(self, name: str) -> list[dict[str, Any]]:
        """What a part has said so far."""
        lines = []
        for text in self.parts[name].output.read_bytes().splitlines():
            # A kill may tear the last line of a process.
            with suppress(ValueError):
                lines.append(json.loads(text))
        return lines

    def events(self) -> Counter[str]:
        """Lines of all audits, by their event."""
        return Counter(line["event"] for line in self._lines())

    def balance(self) -> Balance:
        """Balance the books."""
        deliveries = ledger_rows(self.data_dir, "SELECT sha, status FROM delivery")
        return balance(
            self.acknowledged,
            self.calls,
            deliveries=[KeptDelivery(**row) for row in deliveries],
            deploys=[KeptDeploy(**row) for row in ledger_rows(self.data_dir, _DEPLOYS)],
            lines=self._lines(),
        )

    def _lines(self) -> list[dict[str, Any]]:
        return [line for name in ("receiver", *self.workers) for line in self.audit(name)]

    def _prepare(self, hook: str) -> None:
        config = self._folder / "relay.yaml"
        config.write_text(_YAML.replace("TIMEOUT", str(self._timeout)), encoding="utf-8")
        server = self._folder / "redis.sock"
        port = _free_port()
        self.url = f"http://127.0.0.1:{port}"
        environ = {
            "RELAY_CONFIG": str(config),
            "RELAY_REDIS_URL": f"unix://{server}",
            "RELAY_DATA_DIR": str(self.data_dir),
            "RELAY_PORT": str(port),
            "RELAY_ALLOWED_NETWORKS": "127.0.0.0/8",
            "RELAY_TEST_CLAIM_MARGIN": str(MARGIN),
            "TEST_SECRET": GITHUB_SECRET,
            "TEST_HOOK": hook,
        }
        commands = {
            "redis": server_command(server, "always"),
            "receiver": [*COMMAND, "serve"],
            **{name: [*COMMAND, "worker"] for name in self.workers},
        }
        for name, command in commands.items():
            log = self._folder / f"{name}.log"
            self.parts[name] = Part(name, command, log, {**environ, **self._environ(name)})

    async def _deploy(self, request: web.Request) -> web.Response:
        sha = request.query["sha"]
        if sha not in self._refusals and self._chance.random() < self._refused:
            self._refusals.add(sha)
            return web.Response(status=503)
        self.calls.append(sha)
        is_slow = self._chance.random() < self._slow
        await asyncio.sleep(self._timeout * 0.75 if is_slow else self._chance.uniform(0, 0.05))
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


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port: int = server.getsockname()[1]
        return port
