"""The queue is worked off: what `drain` waits for is what the worker does."""

from __future__ import annotations

import asyncio
import os

from aiohttp import web

from tests.harness import COMMAND, PATIENCE, Relay, Target, until


async def test_drain_ends_when_the_last_call_has_ended(relay: Relay, target: Target) -> None:
    release = asyncio.Event()

    async def slowly(_: web.Request) -> web.StreamResponse:
        await release.wait()
        return web.Response(status=202)

    target.answer = slowly
    await relay.serve()
    worker = await relay.work()
    # Of two to a target with one slot the second one waits for it.
    await relay.push(repo="acme/api", ref="refs/heads/a")
    await relay.push(repo="acme/api", ref="refs/heads/b")
    await worker.wait_for("deploy.queued", count=2)
    await until(lambda: relay.rows("SELECT id FROM deploy WHERE waits = 'slot'"))
    await target.called.wait()

    drain = await asyncio.create_subprocess_exec(
        *(*COMMAND, "drain"),
        cwd=relay.folder,
        env={**os.environ, **relay.environ},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    assert drain.stderr is not None
    async with asyncio.timeout(PATIENCE):
        assert await drain.stderr.readline() == b"0 queued, 1 for a slot, 1 being called\n"
        assert drain.returncode is None
        release.set()
        told, _ = await drain.communicate()
        assert await drain.wait() == 0

    assert told.startswith(b"drained: ")
    assert len(target.calls) == 2
    assert relay.rows("SELECT DISTINCT status FROM deploy") == [{"status": "succeeded"}]
