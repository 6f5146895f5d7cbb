"""A deploy platform on this machine, in a process of its own, that remembers when it was called.

``python -m benchmarks.hooks PORT``. ``/hook/MS?sha=…`` answers after so many milliseconds.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from typing import Any, NamedTuple
from urllib.request import urlopen

import uvloop
from aiohttp import web

from benchmarks.lab import Lab
from benchmarks.processes import Running, free_port


class State(NamedTuple):
    """What the platform has seen so far."""

    calls: int
    now: int
    """Calls that it has not answered yet."""


class Hooks:
    """The platform, seen from the benchmark."""

    def __init__(self, lab: Lab) -> None:
        self.port = free_port()
        self.running = Running(
            "hooks",
            [sys.executable, "-m", "benchmarks.hooks", str(self.port)],
            folder=lab.new_folder(),
            core=lab.cores.others,
        )
        self.running.wait_for_port(self.port)

    def url(self, milliseconds: int) -> str:
        """A deploy hook that takes so long to answer."""
        return f"http://127.0.0.1:{self.port}/hook/{milliseconds}"

    def state(self) -> State:
        """What it has seen so far."""
        return State(*self._get("state"))

    def called(self) -> dict[str, float]:
        """When each commit arrived first, as time.monotonic() has it."""
        times: dict[str, float] = self._get("called")
        return times

    def wait(self, sha: str) -> float:
        """When a commit arrived; returns once it has."""
        at: float = self._get(f"wait/{sha}")
        return at

    def _get(self, path: str) -> Any:
        with urlopen(f"http://127.0.0.1:{self.port}/{path}", timeout=60) as answer:
            return json.load(answer)

    def stop(self) -> None:
        """End it."""
        self.running.stop()


class _Platform:
    def __init__(self) -> None:
        self.times: dict[str, asyncio.Future[float]] = {}
        self.calls = 0
        self.now = 0

    def _at(self, sha: str) -> asyncio.Future[float]:
        if sha not in self.times:
            self.times[sha] = asyncio.get_running_loop().create_future()
        return self.times[sha]

    async def hook(self, request: web.Request) -> web.Response:
        at = time.monotonic()
        self.calls += 1
        self.now += 1
        try:
            first = self._at(request.query.get("sha", ""))
            if not first.done():
                first.set_result(at)
            delay = int(request.match_info["ms"]) / 1000
            if delay:
                await asyncio.sleep(delay)
        finally:
            self.now -= 1
        return web.json_response({"success": True})

    async def state(self, _: web.Request) -> web.Response:
        return web.json_response([self.calls, self.now])

    async def called(self, _: web.Request) -> web.Response:
        return web.json_response({k: at.result() for k, at in self.times.items() if at.done()})

    async def wait(self, request: web.Request) -> web.Response:
        return web.json_response(await self._at(request.match_info["sha"]))


def main() -> None:
    """Serve until SIGTERM."""
    platform = _Platform()
    app = web.Application()
    app.router.add_post("/hook/{ms}", platform.hook)
    app.router.add_get("/state", platform.state)
    app.router.add_get("/called", platform.called)
    app.router.add_get("/wait/{sha}", platform.wait)
    web.run_app(
        app,
        host="127.0.0.1",
        port=int(sys.argv[1]),
        access_log=None,
        print=None,
        shutdown_timeout=0.1,
        loop=uvloop.new_event_loop(),
    )


if __name__ == "__main__":
    main()
