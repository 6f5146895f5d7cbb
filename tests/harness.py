"""Real parts for tests: a Redis-compatible server, relay processes, and a deploy target."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
import uuid
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from relay.embedded import server_command
from relay.ledger.sqlite import FILE

GITHUB_SECRET = "github-secret-4d1f0c"
GITLAB_SECRET = "gitlab-secret-91b2aa"
PRODUCTION_PATH = "/api/deploy-hook/1/production-6f1e2d3c4b5a"
PREVIEW_PATH = "/api/deploy-hook/2/preview-0a1b2c3d4e5f"
API_TOKEN = "api-token-77aa88bb99"
SECRETS = (
    GITHUB_SECRET,
    GITLAB_SECRET,
    API_TOKEN,
    PRODUCTION_PATH.rsplit("/", 1)[1],
    PREVIEW_PATH.rsplit("/", 1)[1],
)

PATIENCE = 40
"""Seconds that anything in a test may take before the test gives up."""

RELAY_YAML = """\
sources:
  github: {provider: github, secrets: [{env: TEST_GITHUB_SECRET}]}
  mirror: {provider: github, server: github, secrets: [{env: TEST_GITHUB_SECRET}]}
  gitlab: {provider: gitlab, secrets: [{env: TEST_GITLAB_SECRET}]}
targets:
  production:
    preset: flightcontrol
    url: {env: TEST_PRODUCTION_HOOK}
    retry: {attempts: 3, base: 10ms}
  preview: {preset: flightcontrol-preview, url: {env: TEST_PREVIEW_HOOK}}
  api:
    preset: http
    url: {env: TEST_API_URL}
    headers: {Authorization: {env: TEST_API_TOKEN}}
    json: {sha: "{{ event.sha }}"}
    concurrency: 1
    supersede: true
    timeout: 30s
routes:
  - {name: production, repo: acme/web, on: push, branches: [main], deploy: [production]}
  - {name: previews, repo: acme/web, on: pull_request, deploy: [preview]}
  - {name: api, repo: acme/api, on: push, deploy: [api]}
"""


def start_server(folder: Path) -> tuple[subprocess.Popen[bytes], Path]:
    """A server of the test's own; it answers once its socket accepts."""
    socket = folder / "redis.sock"
    return subprocess.Popen(server_command(socket, "everysec")), socket


def ledger_rows(data_dir: Path, query: str, *params: Any) -> list[dict[str, Any]]:
    """What a query to the ledger of a data folder finds; nothing where there is no ledger yet."""
    file = data_dir / FILE
    if not file.exists():
        return []
    connection = sqlite3.connect(f"{file.absolute().as_uri()}?mode=ro", uri=True, timeout=PATIENCE)
    connection.row_factory = sqlite3.Row
    try:
        return [dict(row) for row in connection.execute(query, params)]
    finally:
        connection.close()


def work_left(data_dir: Path) -> int:
    """How many deliveries, deploys and notices of a ledger have not come to their end."""
    [row] = ledger_rows(data_dir, _WORK_LEFT) or [{"work": 0}]
    return int(row["work"])


_WORK_LEFT = """
SELECT (SELECT count(*) FROM delivery WHERE next_at IS NOT NULL)
  + (SELECT count(*) FROM deploy WHERE next_at IS NOT NULL)
  + (SELECT count(*) FROM notice WHERE next_at IS NOT NULL) AS work
"""


Answer = Callable[[web.Request], Awaitable[web.StreamResponse]]


async def flightcontrol(_: web.Request) -> web.StreamResponse:
    """What Flightcontrol answers to an accepted deploy."""
    return web.json_response({"success": "true", "deploymentId": "dep-1"})


@dataclass(slots=True)
class Target:
    """A deploy platform on this machine. ``answers`` are used up first, then ``answer``."""

    answer: Answer = flightcontrol
    answers: list[Answer] = field(default_factory=list)
    calls: list[tuple[float, str, str, dict[str, str], bytes]] = field(default_factory=list)
    called: asyncio.Event = field(default_factory=asyncio.Event)
    url: str = ""

    async def handle(self, request: web.Request) -> web.StreamResponse:
        self.calls.append(
            (
                time.monotonic(),
                request.method,
                request.path_qs,
                dict(request.headers),
                await request.read(),
            )
        )
        self.called.set()
        answer = self.answers.pop(0) if self.answers else self.answer
        return await answer(request)


@dataclass(slots=True)
class Process:
    """A relay process whose output is kept, and whose audit can be waited for."""

    process: asyncio.subprocess.Process
    audit: list[dict[str, Any]] = field(default_factory=list)
    output: list[str] = field(default_factory=list)
    news: asyncio.Condition = field(default_factory=asyncio.Condition)
    readers: list[asyncio.Task[None]] = field(default_factory=list)

    async def read(self, stream: asyncio.StreamReader, *, is_audit: bool) -> None:
        while line := await stream.readline():
            text = line.decode()
            self.output.append(text)
            async with self.news:
                if is_audit:
                    self.audit.append(json.loads(text))
                self.news.notify_all()

    def find(self, event: str, **fields: Any) -> list[dict[str, Any]]:
        return [
            entry
            for entry in self.audit
            if entry["event"] == event and fields.items() <= entry.items()
        ]

    async def wait_for(
        self, event: str, *, count: int = 1, patience: float = PATIENCE, **fields: Any
    ) -> list[dict[str, Any]]:
        """The audit lines of an event, once there are ``count`` of them."""
        try:
            async with asyncio.timeout(patience), self.news:
                await self.news.wait_for(lambda: len(self.find(event, **fields)) >= count)
        except TimeoutError:
            raise AssertionError(f"no {event} {fields} in:\n{''.join(self.output)}") from None
        return self.find(event, **fields)

    async def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        if self.process.returncode is None:
            self.process.send_signal(number)
        async with asyncio.timeout(PATIENCE):
            code = await self.process.wait()
            await asyncio.gather(*self.readers)
        return code


@dataclass(slots=True)
class Relay:
    """A project in a folder, and the processes that run it."""

    folder: Path
    environ: Mapping[str, str]
    processes: list[Process] = field(default_factory=list)
    url: str = ""

    def write(self, text: str) -> None:
        (self.folder / "relay.yaml").write_text(text, encoding="utf-8")

    async def start(self, *command: str) -> Process:
        """Start a command of the project, such as ``deploy-relay serve`` or ``rq worker``."""
        process = await asyncio.create_subprocess_exec(
            *command,
            cwd=self.folder,
            env={**os.environ, **self.environ},
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        assert process.stdout is not None
        assert process.stderr is not None
        running = Process(process)
        is_ours = COMMAND[-1] in command
        running.readers += [
            asyncio.create_task(running.read(process.stdout, is_audit=is_ours)),
            asyncio.create_task(running.read(process.stderr, is_audit=False)),
        ]
        self.processes.append(running)
        return running

    async def run(self, *arguments: str) -> str:
        """What a command of ours prints that ends by itself."""
        process = await asyncio.create_subprocess_exec(
            *COMMAND,
            *arguments,
            cwd=self.folder,
            env={**os.environ, **self.environ},
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        async with asyncio.timeout(PATIENCE):
            output, _ = await process.communicate()
        assert process.returncode == 0, output.decode()
        return output.decode()

    async def serve(self) -> Process:
        receiver = await self.start(*COMMAND, "serve")
        [started] = await receiver.wait_for("receiver.started")
        self.url = started["url"].removesuffix("/hooks/")
        return receiver

    async def work(self) -> Process:
        worker = await self.start(*COMMAND, "worker")
        await worker.wait_for("worker.started")
        return worker

    async def post(
        self, source: str, body: bytes, headers: Mapping[str, str]
    ) -> tuple[int, dict[str, Any]]:
        async with (
            aiohttp.ClientSession() as session,
            session.post(f"{self.url}/hooks/{source}", data=body, headers=headers) as response,
        ):
            return response.status, await response.json()

    async def push(
        self, *, source: str = "github", delivery: str = "", **push: Any
    ) -> tuple[int, dict[str, Any]]:
        body = github_push(**push)
        return await self.post(source, body, github_headers(body, delivery=delivery))

    @property
    def data_dir(self) -> Path:
        """Where the ledger is."""
        return self.folder / self.environ.get("RELAY_DATA_DIR", "relay-data")

    def rows(self, query: str, *params: Any) -> list[dict[str, Any]]:
        """What a query to the ledger finds."""
        return ledger_rows(self.data_dir, query, *params)

    async def settle(self) -> None:
        """Return once all that is in the ledger has come to its end."""
        await until(lambda: not work_left(self.data_dir))

    def output(self) -> str:
        return "".join(line for process in self.processes for line in process.output)


async def until(condition: Callable[[], object], *, patience: float = PATIENCE) -> None:
    """Return once a condition that nothing announces holds: the state of another process."""
    try:
        async with asyncio.timeout(patience):
            while not condition():  # noqa: ASYNC110
                await asyncio.sleep(0.01)
    except TimeoutError:
        raise AssertionError("the condition never held") from None


def children(process: Process) -> list[int]:
    """The ids of a process's child processes, in the order of their start."""
    listing = Path(f"/proc/{process.process.pid}/task/{process.process.pid}/children")
    if not listing.exists():
        pytest.skip("needs Linux's list of child processes")
    return [int(pid) for pid in listing.read_text().split()]


COMMAND = (sys.executable, "-m", "relay.cli")


def sha_of(word: str) -> str:
    return hashlib.sha1(word.encode(), usedforsecurity=False).hexdigest()


def github_push(
    *,
    repo: str = "acme/web",
    ref: str = "refs/heads/main",
    before: str = "",
    after: str = "",
    note: str = "",
) -> bytes:
    """A push as GitHub puts it, but small. ``note`` makes another body of the same push."""
    commit = {
        "id": after or sha_of("a"),
        "message": "Change it",
        "author": {"name": "A", "email": "a@example.com", "username": "a"},
        "added": [],
        "modified": ["README.md"],
        "removed": [],
    }
    return json.dumps(
        {
            "ref": ref,
            "before": before or sha_of("before"),
            "after": commit["id"],
            "created": False,
            "deleted": False,
            "forced": False,
            "commits": [commit],
            "head_commit": commit,
            "repository": {"full_name": repo, "description": note},
            "sender": {"login": "a"},
        }
    ).encode()


def github_headers(
    body: bytes, *, event: str = "push", delivery: str = "", secret: str = GITHUB_SECRET
) -> dict[str, str]:
    signature = hmac.new(secret.encode(), body, hashlib.sha256).hexdigest()
    return {
        "Content-Type": "application/json",
        "X-GitHub-Event": event,
        "X-GitHub-Delivery": delivery or str(uuid.uuid4()),
        "X-Hub-Signature-256": f"sha256={signature}",
    }


def gitlab_merge_request(*, number: int = 7, sha: str = "") -> bytes:
    return json.dumps(
        {
            "object_kind": "merge_request",
            "project": {"path_with_namespace": "acme/web"},
            "user": {"username": "a"},
            "object_attributes": {
                "iid": number,
                "action": "open",
                "title": "Change it",
                "source_branch": "topic",
                "target_branch": "main",
                "source_project_id": 1,
                "target_project_id": 1,
                "source": {"path_with_namespace": "acme/web"},
                "last_commit": {"id": sha or sha_of("mr"), "author": {"name": "A"}},
            },
        }
    ).encode()


def gitlab_headers(*, key: str = "", token: str = GITLAB_SECRET) -> dict[str, str]:
    return {
        "Content-Type": "application/json",
        "X-Gitlab-Event": "Merge Request Hook",
        "X-Gitlab-Token": token,
        "Idempotency-Key": key or str(uuid.uuid4()),
    }
