"""A deploy platform in a thread of its own, which answers as a test has planned and writes down
what it was asked."""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from dataclasses import dataclass, field
from typing import Literal

from aiohttp import web

AnswerKind = Literal["ok", "500", "502", "503", "429", "slow", "silent", "held"]

SLOW = 0.5
"""Seconds that a slow answer takes; less than a target's timeout."""


@dataclass(slots=True)
class Call:
    """One call that the platform got."""

    target: str
    repo: str
    ref: str
    sha: str
    succeeded: bool = False


@dataclass(slots=True)
class Platform:
    """Answers calls to ``/<target>?repo=&ref=&sha=``: first as planned for the repository, then
    with 200."""

    url: str = ""
    calls: list[Call] = field(default_factory=list)
    plans: dict[str, deque[AnswerKind]] = field(default_factory=dict)
    held: threading.Event = field(default_factory=threading.Event)
    """A call is being held."""
    release: asyncio.Event = field(default_factory=asyncio.Event)
    _loop: asyncio.AbstractEventLoop | None = None
    _thread: threading.Thread | None = None

    def start(self) -> None:
        """Listen on a port of this machine."""
        ready = threading.Event()
        self._thread = threading.Thread(target=self._run, args=(ready,), daemon=True)
        self._thread.start()
        assert ready.wait(10)

    def stop(self) -> None:
        """End the thread."""
        assert self._loop is not None
        assert self._thread is not None
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)

    def plan(self, repo: str, kind: AnswerKind) -> None:
        """Answer the next call for a repository like this."""
        self.plans.setdefault(repo, deque()).append(kind)

    def let_go(self) -> None:
        """End the calls that are held."""
        assert self._loop is not None
        self._loop.call_soon_threadsafe(self.release.set)

    def hold_next(self, repo: str) -> None:
        """Hold the next call for a repository until ``let_go``."""
        assert self._loop is not None
        self._loop.call_soon_threadsafe(self.release.clear)
        self.held.clear()
        self.plans.setdefault(repo, deque()).appendleft("held")

    def last_success(self, target: str, repo: str, ref: str) -> str:
        """The commit of the last call for a ref that was answered with success; empty without."""
        return next(
            (
                call.sha
                for call in reversed(self.calls)
                if call.succeeded and (call.target, call.repo, call.ref) == (target, repo, ref)
            ),
            "",
        )

    def successes(self, target: str, repo: str, ref: str, sha: str) -> int:
        """How many calls with this commit were answered with success."""
        wanted = (target, repo, ref, sha)
        return sum(
            call.succeeded and (call.target, call.repo, call.ref, call.sha) == wanted
            for call in self.calls
        )

    def _run(self, ready: threading.Event) -> None:
        loop = self._loop = asyncio.new_event_loop()
        asyncio.set_event_loop(loop)
        app = web.Application()
        app.router.add_post("/{target}", self._handle)
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        loop.run_until_complete(runner.setup())
        loop.run_until_complete(web.TCPSite(runner, "127.0.0.1", 0).start())
        self.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
        ready.set()
        loop.run_forever()
        loop.run_until_complete(runner.cleanup())
        loop.close()

    async def _handle(self, request: web.Request) -> web.Response:
        query = request.query
        call = Call(request.match_info["target"], query["repo"], query["ref"], query["sha"])
        self.calls.append(call)
        plan = self.plans.get(call.repo)
        kind: AnswerKind = plan.popleft() if plan else "ok"
        if kind == "slow":
            await asyncio.sleep(SLOW)
        elif kind == "silent":
            # The relay gives up; the answer reaches nobody.
            await asyncio.sleep(60)
        elif kind == "held":
            self.held.set()
            await self.release.wait()
            return web.Response(status=503)
        if kind == "429":
            return web.Response(status=429, headers={"Retry-After": "1"})
        if kind in ("500", "502", "503"):
            return web.Response(status=int(kind))
        call.succeeded = True
        return web.Response()
