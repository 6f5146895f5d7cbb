"""Finds runs whose worker has not been heard of any more, and has their jobs run again or fail.

RQ's own cleanup does that too, but writes a job's new status before it writes where the job is. A
worker that is killed between the two leaves a job that nothing looks for. Here it is an outcome
like any other, written in one step and only if no heartbeat has come until that step.

RQ notes of a run when its next heartbeat is due at the latest, by the clock of the worker that runs
it. A clock that jumps makes all of them look overdue, or none. So what is overdue must also have
been silent while this worker watched it, which no clock has a part in.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from typing import Any

from redis.asyncio import Redis
from rq import Queue
from rq.exceptions import AbandonedJobError
from rq.executions import Execution
from rq.job import Job, JobStatus
from rq.utils import current_timestamp
from rq.utils import now as utcnow
from rq.worker import BaseWorker

from relay.records import JOB_PREFIX
from workers import ends
from workers.bookkeeping import Books, Outcome

MOST = 64
"""Runs that one look takes care of."""

LONGEST_LEASE = 480
"""Seconds, and a job's timeout, after which RQ's workers make no heartbeat due: 420 and 60."""

LONGEST_SILENCE = 60
"""Seconds within which every worker that looks after heartbeats sends one; RQ's own every 30."""

LOCK = 60
"""Seconds that one worker's look keeps others from theirs, should it die over it."""

_logger = logging.getLogger("workers")


class Watch:
    """Since when runs have been silent, as far as this process has seen it. Pure."""

    def __init__(self) -> None:
        self._since: dict[str, tuple[float, float]] = {}

    def silence(self, due: Mapping[str, float], at: float) -> dict[str, float]:
        """For how many seconds each run has been due at the same time, heartbeats moving it.

        ``at`` is a time of a clock that never jumps, in seconds.
        """
        known = self._since
        self._since = {
            run: known[run] if run in known and known[run][0] == time_due else (time_due, at)
            for run, time_due in due.items()
        }
        return {run: at - since for run, (_, since) in self._since.items()}


class Rescue:
    """Looks after the runs of all workers of one queue."""

    def __init__(
        self, worker: BaseWorker, queue: Queue, books: Books, redis: Redis, *, silence: float
    ) -> None:
        """``silence`` is the seconds for which nothing must have been heard of an overdue run; more
        than there are between two heartbeats."""
        self._worker = worker
        self._queue = queue
        self._books = books
        self._redis = redis
        self._silence = silence
        self._watch = Watch()
        self._started = queue.started_job_registry.key
        self._lock = f"relay:rescue:{queue.name}"

    async def look(self) -> None:
        """Take care of what is overdue now. Raises redis.exceptions.RedisError."""
        runs: Any = await self._redis.zrange(self._started, 0, -1, withscores=True)
        due = {run.decode(): time_due for run, time_due in runs}
        silence, now = self._watch.silence(due, time.monotonic()), current_timestamp()
        # One that is due later than it can be was noted before the clock was set back.
        overdue = [
            run
            for run, time_due in due.items()
            if silence[run] >= (self._silence if time_due <= now else LONGEST_SILENCE)
        ][:MOST]
        if not overdue:
            return
        if not await self._redis.set(self._lock, self._worker.name, nx=True, ex=LOCK):
            return
        try:
            for run in overdue:
                await self._rescue(run, due[run], now)
        finally:
            await self._redis.delete(self._lock)

    async def _rescue(self, run: str, due: float, now: int) -> None:
        if await self._redis.zscore(self._started, run) != due:
            # Heard of again, or rescued by another worker.
            return
        job_id, _, execution_id = run.rpartition(":")
        fields: dict[Any, Any] = await self._redis.hgetall(f"{JOB_PREFIX}{job_id}")
        job = Job(connection=self._worker.connection)
        job._id = job_id
        try:
            job.restore(fields)
        except Exception:
            # Also where the job is gone. Nobody will ever end this run.
            _logger.exception("run %s is of a job that cannot be read", run)
            await self._redis.zrem(self._started, run)
            return
        if job.get_status(refresh=False) != JobStatus.STARTED:
            # The job has ended, and only its run was left behind.
            await self._redis.zrem(self._started, run)
            return
        if due > now + LONGEST_LEASE + max(job.timeout or 0, 0):
            _logger.warning("run %s was noted before the clock was set back", run)
        elif due > now:
            # A worker that sends no heartbeats may have it.
            return
        ends.abandoned(job)
        # How long it has worked nobody knows.
        job.started_at = None
        error = AbandonedJobError("its worker has not been heard of any more")
        execution = Execution(execution_id, job_id, self._worker.connection, job.worker_name or "")
        execution.created_at = execution.last_heartbeat = job.last_heartbeat or utcnow()
        await self._books.enter(
            Outcome(job, execution, "failed", error=(AbandonedJobError, error, None), still_due=due)
        )
