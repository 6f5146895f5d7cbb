"""The demonstration: a whole relay on this machine, two signed webhooks, and what became of them.

Nothing in it is a stand-in but the deploy platform, which is a local server that answers as
Flightcontrol does: the webhooks go through the real endpoint, the real queue and the real worker.
"""

from __future__ import annotations

import asyncio
import secrets
import socket
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson
from aiohttp import web

from relay.providers import PROVIDERS
from relay.samples import sample
from relay.sending import send

CONFIRM_TIMEOUT = 60
"""Seconds in which both deploys must have succeeded."""

_RELAY_YAML = """\
sources:
  github: {provider: github, secrets: [{env: DEMO_GITHUB_SECRET}]}
  gitlab: {provider: gitlab, secrets: [{env: DEMO_GITLAB_TOKEN}]}
targets:
  web-production: {preset: flightcontrol, url: {env: DEMO_PRODUCTION_HOOK}}
  web-preview: {preset: flightcontrol-preview, url: {env: DEMO_PREVIEW_HOOK}}
routes:
  - {name: web to production, repo: acme/web, on: push, branches: [main], deploy: [web-production]}
  - {name: web previews, repo: acme/web, on: pull_request, deploy: [web-preview]}
"""

Say = Callable[[str], None]


class Platform:
    """A local deploy platform that answers as Flightcontrol does and remembers its calls."""

    def __init__(self) -> None:
        self.calls: list[str] = []
        self._runner: web.AppRunner | None = None

    async def start(self) -> str:
        """Listen on a free port; returns the base URL."""
        app = web.Application()
        app.router.add_get("/api/deploy-hook/{rest:.*}", self._deploy)
        self._runner = web.AppRunner(app, access_log=None)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        host, port = self._runner.addresses[0][:2]
        return f"http://{host}:{port}"

    async def stop(self) -> None:
        """Stop listening."""
        if self._runner is not None:
            await self._runner.cleanup()

    async def _deploy(self, request: web.Request) -> web.Response:
        self.calls.append(request.path_qs)
        return web.json_response({"success": "true", "deploymentId": f"demo-{len(self.calls)}"})


@dataclass(slots=True)
class Trail:
    """Follows the audit of the children and tells it in a line a step."""

    say: Say
    listening: asyncio.Event = field(default_factory=asyncio.Event)
    done: asyncio.Event = field(default_factory=asyncio.Event)
    succeeded: set[str] = field(default_factory=set)

    def line(self, process: str, text: str) -> None:
        """One line of a child's standard output."""
        try:
            entry = orjson.loads(text)
        except orjson.JSONDecodeError:
            self.say(f"{process}: {text}")
            return
        event = entry.get("event", "")
        if event == "receiver.started":
            self.listening.set()
        if event == "deploy.succeeded":
            self.succeeded.add(entry["target"])
            if len(self.succeeded) == 2:
                self.done.set()
        self.say(f"{entry.get('at', '')[11:23]}  {event:<22} {_told(entry)}")


def write_project(folder: Path, platform: str) -> dict[str, str]:
    """Write the demonstration's relay.yaml; returns the environment that it needs."""
    path = folder / "relay.yaml"
    path.write_text(_RELAY_YAML, encoding="utf-8")
    return {
        "RELAY_CONFIG": str(path),
        "RELAY_LOG_FORMAT": "json",
        "RELAY_ALLOWED_NETWORKS": "127.0.0.0/8",
        "DEMO_GITHUB_SECRET": secrets.token_hex(16),
        "DEMO_GITLAB_TOKEN": secrets.token_hex(16),
        "DEMO_PRODUCTION_HOOK": f"{platform}/api/deploy-hook/1/{secrets.token_hex(16)}",
        "DEMO_PREVIEW_HOOK": f"{platform}/api/deploy-hook/2/{secrets.token_hex(16)}",
    }


async def run_through(receiver: str, environ: dict[str, str], trail: Trail) -> bool:
    """Send both webhooks and wait; whether both deploys were confirmed in time."""
    async with asyncio.timeout(CONFIRM_TIMEOUT):
        await trail.listening.wait()
    for provider, kind, secret in (
        ("github", "push", environ["DEMO_GITHUB_SECRET"]),
        ("gitlab", "pull_request", environ["DEMO_GITLAB_TOKEN"]),
    ):
        body = orjson.dumps(sample(provider, kind, number=7))
        word = {"push": "push", "pull_request": "merge request"}[kind]
        reply = await send(
            f"{receiver}/hooks/{provider}", PROVIDERS[provider]([secret]), body, kind=kind
        )
        trail.say(f"--> a signed {provider} {word} was answered {reply.status} {reply.body}")
    try:
        async with asyncio.timeout(CONFIRM_TIMEOUT):
            await trail.done.wait()
    except TimeoutError:
        return False
    return True


def free_port(host: str, wanted: int) -> int:
    """``wanted`` if nothing listens there, else any port that is free."""
    for port in (wanted, 0):
        try:
            with socket.create_server((host, port)) as probe:
                return int(probe.getsockname()[1])
        except OSError:
            continue
    return 0


def _told(entry: dict[str, Any]) -> str:
    shown = (
        "repo",
        "ref",
        "route",
        "target",
        "status",
        "ms",
        "deployment_id",
        "reason",
        "url",
        "queue",
    )
    return "  ".join(f"{key}={entry[key]}" for key in shown if entry.get(key) not in (None, ""))
