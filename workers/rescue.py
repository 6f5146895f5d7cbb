"""Finds runs whose worker has not been heard of any more, and has their jobs run again or fail.

RQ's own cleanup does that too, but writes a job's new status before it writes where the job is. A
worker that is killed between the two leaves a job that nothing looks for. Here it is an outcome
like any other, written in one step and only if the run's heartbeat is still overdue in that step.
"""

from __future__ import annotations

import logging
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

LOCK = 60
"""Seconds that one worker's look keeps others from theirs, should it die over it."""

_logger = logging.getLogger("workers")


class Rescue:
    """Looks after the runs of all workers of one queue."""

    def __init__(self, worker: BaseWorker, queue: Queue, books: Books, redis: Redis) -> None:
        self._worker = worker
        self._queue = queue
        self._books = books
        self._redis = redis
        self._started = queue.started_job_registry.key
        self._lock = f"relay:rescue:{queue.name}"

    async def look(self) -> None:
        """Take care of what is overdue now. Raises redis.exceptions.RedisError."""
        if not await self._redis.set(self._lock, self._worker.name, nx=True, ex=LOCK):
            return
        try:
            now = current_timestamp()
            overdue: Any = await self._redis.zrangebyscore(self._started, 0, now, start=0, num=MOST)
            for run in overdue:
                await self._rescue(run.decode(), now)
        finally:
            await self._redis.delete(self._lock)

    async def _rescue(self, run: str, now: int) -> None:
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
        ends.abandoned(job)
        # How long it has worked nobody knows.
        job.started_at = None
        error = AbandonedJobError("its worker has not been heard of any more")
        execution = Execution(execution_id, job_id, self._worker.connection, job.worker_name or "")
        execution.created_at = execution.last_heartbeat = job.last_heartbeat or utcnow()
        await self._books.enter(
            Outcome(
                job, execution, "failed", error=(AbandonedJobError, error, None), overdue_since=now
            )
        )
