"""Deploy jobs put straight into the queue, and how far the workers have got with them."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable

import msgspec
from rq import Queue
from rq.registry import FailedJobRegistry, FinishedJobRegistry

from benchmarks.processes import PATIENCE, BenchmarkFailed
from benchmarks.store import QUEUE, Store
from relay.events.event import Push
from relay.records import DEPLOY_JOB
from workers.deploys import Deploy


def sha_of(name: str) -> str:
    """A commit that no other name has."""
    return hashlib.sha1(name.encode(), usedforsecurity=False).hexdigest()


class Jobs:
    """The queue of one store. Jobs are queued as rq itself does it, for any worker to take."""

    def __init__(self, store: Store) -> None:
        self._queue = Queue(QUEUE, connection=store.client)
        self._finished = FinishedJobRegistry(queue=self._queue)
        self._failed = FailedJobRegistry(queue=self._queue)

    def queue_deploys(self, target: str, names: list[str]) -> None:
        """One deploy of its own for each name."""
        step = 500
        for start in range(0, len(names), step):
            self._queue.enqueue_many(
                [
                    Queue.prepare_data(
                        DEPLOY_JOB,
                        (_deploy(target, name),),
                        timeout=120,
                        job_id=f"{target}--{name}",
                    )
                    for name in names[start : start + step]
                ]
            )

    def finished(self) -> int:
        """Jobs that ended well. Raises BenchmarkFailed if any did not."""
        failed = len(self._failed)
        if failed:
            job = self._queue.fetch_job(self._failed.get_job_ids()[0])
            result = job.latest_result() if job else None
            why = result.exc_string if result else "no reason kept"
            raise BenchmarkFailed(f"{failed} jobs failed: {why}")
        return self._finished.get_job_count(cleanup=False)


def _deploy(target: str, name: str) -> str:
    event = Push(
        repo="acme/web",
        ref="refs/heads/main",
        before=sha_of("before"),
        after=sha_of(name),
        files=("apps/web/src/index.ts",),
        message="Change it",
        sender="mira-holt",
    )
    deploy = Deploy(f"github--{name}", "github", "web", target, event)
    return msgspec.json.encode(deploy).decode()


def until(condition: Callable[[], bool], *, seconds: float = PATIENCE, pause: float = 0.01) -> bool:
    """Whether a condition comes to hold within so many seconds."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(pause)
    return True
