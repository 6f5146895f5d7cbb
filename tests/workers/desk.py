"""A crew with one target, and what is ordered there."""

from __future__ import annotations

import io
import json
from typing import Any

import msgspec
from aiohttp import web
from rq.job import Job

from relay.events.event import Delivery, Push
from relay.records import DELIVERY_JOB
from tests.harness import Answer, Target, sha_of, until
from tests.workers.crew import Crew

YAML = """\
sources:
  github: {provider: github, secrets: [{env: TEST_GITHUB_SECRET}]}
targets:
  api:
    preset: http
    url: {env: TEST_API_URL}
    json: {sha: "{{ event.sha }}"}
    retry: {attempts: 2, base: 10ms}
KEYS
routes:
  - {name: api, repo: acme/api, on: push, deploy: [api]}
"""


class Desk:
    """A crew with one target, whose deploys are ordered here."""

    def __init__(self, crew: Crew, audited: io.BytesIO) -> None:
        self.crew = crew
        self._audited = audited

    def lines(self, *events: str, **fields: Any) -> list[dict[str, Any]]:
        told = [json.loads(line) for line in self._audited.getvalue().splitlines()]
        return [line for line in told if line["event"] in events and fields.items() <= line.items()]

    async def push(self, after: str, *, before: str = "", branch: str = "main") -> str:
        """The id of the deploy of a push, whose commits are words."""
        ref = f"refs/heads/{branch}"
        event = Push("acme/api", ref, sha_of(before or f"before {after}"), sha_of(after))
        delivery = Delivery(f"github--{after}", "github", 0, event)
        self.crew.queue.enqueue_job(
            Job.create(
                DELIVERY_JOB,
                (msgspec.json.encode(delivery).decode(),),
                id=delivery.id,
                connection=self.crew.store,
            )
        )
        await self.told("deploy.queued", sha=sha_of(after))
        return str(self.lines("deploy.queued", sha=sha_of(after))[0]["deploy"])

    async def told(self, *events: str, count: int = 1, **fields: Any) -> list[dict[str, Any]]:
        """The audit lines, once there are so many."""
        await until(lambda: len(self.lines(*events, **fields)) >= count)
        return self.lines(*events, **fields)


def answering(status: int, **headers: str) -> Answer:
    async def answer(_: web.Request) -> web.StreamResponse:
        return web.Response(
            status=status, headers={k.replace("_", "-"): v for k, v in headers.items()}
        )

    return answer


def shas(target: Target) -> list[str]:
    return [json.loads(body)["sha"] for *_, body in target.calls]
