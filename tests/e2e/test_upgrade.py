"""Receiver and worker do not start where deliveries of the release before wait."""

from __future__ import annotations

import pytest
import redis

from tests.harness import COMMAND, Relay
from tests.relay.queue.test_former_release import QUEUE, add_job, job_data


@pytest.mark.parametrize("command", ["serve", "worker"])
async def test_nothing_starts_beside_jobs_that_it_would_not_read(
    relay: Relay, store: redis.Redis, command: str
) -> None:
    store.rpush(f"rq:queue:{QUEUE}", add_job(store, "github--1", job_data("deliver")))
    process = await relay.start(*COMMAND, command)
    await process.process.wait()
    await process.stop()
    assert process.process.returncode == 1
    assert "".join(process.output) == (
        "1 delivery of the release before waits: start it again and run deploy-relay drain\n"
    )
    assert store.lrange(f"rq:queue:{QUEUE}", 0, -1) == [b"github--1"]
