"""Writes how jobs ended: all that ended at one moment in one transaction.

What is written is what RQ's own worker writes, by RQ's own functions (workers/writing.py). Jobs
with callbacks, webhooks, repeats or no result to keep make RQ read in between; those are left to
RQ's own code in a thread.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Literal

from redis.exceptions import RedisError
from rq import Queue, Retry
from rq.callbacks import execute_stopped_callback
from rq.executions import Execution
from rq.job import Job, JobStatus
from rq.job_lifecycle import format_exc_info
from rq.rate_limit import RateLimitRegistry
from rq.results import Result
from rq.utils import now
from rq.worker import BaseWorker

from relay.batching import GroupCommit
from relay.pace import KEPT, pace_key
from workers.errors import DeployHeld
from workers.line import InLine
from workers.runtime import CALLING_FIELD
from workers.writing import GONE, Part, Writer, Written

MAX_TOGETHER = 64
"""Outcomes in one transaction; bounds how long Redis and the event loop are busy with it."""

LONGEST_PAUSE = 5
"""Seconds between two attempts to reach Redis, at most."""

MOST_IN_ORDER = 999_999
"""Jobs that are due in the same second and still run in order."""

STOPPED = "Job stopped by user."

ExcInfo = tuple[type[BaseException], BaseException, TracebackType | None]

_logger = logging.getLogger("workers")


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a run of a job ended. ``returned`` has a value, ``failed`` an exception; ``put back``
    means that the job goes to the front of the queue as if it had never been taken."""

    job: Job
    execution: Execution
    how: Literal["returned", "failed", "stopped", "put back"]
    value: Any = None
    error: ExcInfo | None = None
    still_due: float = 0
    """For runs of other workers: to be written only if their heartbeat is due at this time, still,
    in seconds of the epoch; 0 for one's own."""


class Books:
    """Where a worker writes its outcomes. One instance a worker."""

    def __init__(
        self,
        worker: BaseWorker,
        queue: Queue,
        *,
        writer: Writer,
        answered: set[str],
    ) -> None:
        """``answered`` has the jobs whose note of a call goes away with their outcome."""
        self._worker = worker
        self._queue = queue
        self._writer = writer
        self._answered = answered
        self._outcomes: GroupCommit[tuple[Outcome, Part], None] = GroupCommit(
            self._commit, most=MAX_TOGETHER
        )
        self._closed = False

    async def enter(self, outcome: Outcome) -> None:
        """Return once an outcome is written, however long Redis is away.

        What another worker has meanwhile given up as abandoned is no longer ours to write. Raises
        redis.exceptions.RedisError after ``close``.
        """
        job = outcome.job
        if outcome.how in ("returned", "failed") and not _is_ordinary(job):
            await asyncio.to_thread(self._leave_to_rq, outcome)
            return
        if outcome.how == "stopped" and job._stopped_callback_name:
            await asyncio.to_thread(self._call_stopped_callback, job)
        if outcome.error is not None:
            self._worker.handle_exception(job, *outcome.error)
        await self._outcomes.submit((outcome, self._part(outcome)))

    def close(self) -> None:
        """Try no longer to write what Redis does not take."""
        self._closed = True

    async def _commit(self, entries: Sequence[tuple[Outcome, Part]]) -> Sequence[None]:
        written = await self._write_until_done(entries)
        for refusal in written.refusals:
            _logger.error("Redis refused a part of an outcome: %s", refusal)
        for (outcome, _), answer in zip(entries, written.answers, strict=True):
            job = outcome.job
            self._answered.discard(job.id)
            if answer == GONE:
                _logger.warning("job %s: given up meanwhile, or written before", job.id)
            if answer != 0 and job._status not in (JobStatus.QUEUED, JobStatus.SCHEDULED):
                await asyncio.to_thread(self._enqueue_dependents, job)
        return [None] * len(entries)

    async def _write_until_done(self, entries: Sequence[tuple[Outcome, Part]]) -> Written:
        parts = [part for _, part in entries]
        # A job that goes back to the queue keeps its slot.
        releasing = {
            position: outcome.job
            for position, (outcome, _) in enumerate(entries)
            if outcome.job.has_rate_limit and outcome.job._status is not JobStatus.QUEUED
        }
        pause = 0.1
        while True:
            try:
                return await self._writer.write(parts, releasing)
            except (RedisError, OSError) as error:
                if pause in (0.1, LONGEST_PAUSE):
                    _logger.warning("%d outcomes not written yet (%s)", len(parts), error)
                if self._closed:
                    raise
                await asyncio.sleep(pause)
                pause = min(2 * pause, LONGEST_PAUSE)

    def _part(self, outcome: Outcome) -> Part:
        """What RQ would write for one outcome. Its functions change the job, so this is done once
        and kept in case it has to be sent again."""
        job, execution = outcome.job, outcome.execution
        try:
            part = self._writer.part(job, execution, lambda pipe: self._write(pipe, outcome))
            return part._replace(still_due=outcome.still_due)
        except Exception as error:
            failed = Outcome(job, execution, "failed", error=(type(error), error, None))
            return self._writer.part(job, execution, lambda pipe: self._write(pipe, failed))

    def _write(self, pipe: Any, outcome: Outcome) -> None:
        """Have RQ write an outcome. The last command asks for dependents."""
        self._write_end(pipe, outcome)
        if outcome.job.id in self._answered:
            pipe.hdel(outcome.job.key, CALLING_FIELD)
        ended_as = _deploy_ended_as(outcome)
        if ended_as is not None:
            pace = pace_key(time.time())
            pipe.hincrby(pace, ended_as, 1)
            pipe.expire(pace, KEPT)
        pipe.exists(outcome.job.dependents_key)

    def _write_end(self, pipe: Any, outcome: Outcome) -> None:
        job, execution, worker = outcome.job, outcome.execution, self._worker
        if outcome.how == "put back":
            job._status = JobStatus.QUEUED
            pipe.hset(job.key, "status", JobStatus.QUEUED.value)
            pipe.hdel(job.key, "started_at", "last_heartbeat", "worker_name")
            self._queue.push_job_id(job.id, pipeline=pipe, at_front=True)
            worker.cleanup_execution(job, pipe, execution)
            return
        job.ended_at = job.last_heartbeat = now()
        times: dict[str, Any] = {
            "worker_name": worker.name,
            "execution_id": execution.id,
            "execution_started_at": execution.created_at,
            "execution_ended_at": job.ended_at,
        }
        worker.cleanup_execution(job, pipe, execution)
        if job.started_at:
            worker.increment_total_working_time(job.ended_at - job.started_at, pipe)
        if outcome.how != "returned":
            self._write_failure(pipe, outcome, times)
        elif isinstance(outcome.value, InLine):
            self._write_in_line(pipe, job, outcome.value, times)
        elif isinstance(outcome.value, Retry):
            self._write_retry(pipe, job, outcome.value, times)
        else:
            job._result = outcome.value
            ttl = job.get_result_ttl(worker.default_result_ttl)
            job._handle_success(ttl, pipe, **times)
            job.cleanup(ttl, pipeline=pipe, remove_from_queue=False)
            worker.increment_successful_job_count(pipe)

    def _write_failure(self, pipe: Any, outcome: Outcome, times: dict[str, Any]) -> None:
        job = outcome.job
        stopped = outcome.how == "stopped"
        self._worker.increment_failed_job_count(pipe)
        if job.should_retry and not stopped:
            job.retry(self._queue, pipe)
            return
        job.set_status(JobStatus.STOPPED if stopped else JobStatus.FAILED, pipeline=pipe)
        reason = STOPPED if outcome.error is None else format_exc_info(outcome.error)
        job._handle_failure(reason, pipe, **times)

    def _write_in_line(self, pipe: Any, job: Job, retry: InLine, times: dict[str, Any]) -> None:
        if retry.place is None:
            self._write_retry(pipe, job, retry, times)
            # RQ counts in seconds, and its scheduler takes what is due in the order of its time.
            registry = self._queue.scheduled_job_registry.key
            pipe.zincrby(registry, min(retry.rank, MOST_IN_ORDER) * 1e-6, job.id)
            return
        job._status = JobStatus.RATE_LIMITED
        retries = (job.number_of_retries or 0) + 1
        pipe.hset(job.key, mapping={"status": job._status.value, "number_of_retries": retries})
        RateLimitRegistry.from_job(job).add_to_rate_limited(job.id, pipe, retry.place)

    def _write_retry(self, pipe: Any, job: Job, retry: Retry, times: dict[str, Any]) -> None:
        self._worker.increment_failed_job_count(pipe)
        if (job.number_of_retries or 0) < retry.max:
            job._handle_retry_result(self._queue, pipe, retry, **times)
            return
        job.set_status(JobStatus.FAILED, pipeline=pipe)
        job.failed_job_registry.add(job, ttl=job.failure_ttl, pipeline=pipe)
        Result.create_max_retries_exceeded(
            job, job.failure_ttl, return_value=retry, pipeline=pipe, **times
        )

    def _leave_to_rq(self, outcome: Outcome) -> None:
        job, execution, worker = outcome.job, outcome.execution, self._worker
        if outcome.error is None:
            try:
                worker._finalize_success(job, self._queue, execution, outcome.value)
            except Exception as error:
                failure = (type(error), error, error.__traceback__)
                worker._finalize_failure(job, self._queue, execution, failure)
        else:
            worker._finalize_failure(job, self._queue, execution, outcome.error)

    def _enqueue_dependents(self, job: Job) -> None:
        self._worker._enqueue_dependents_safely(self._queue, job)

    def _call_stopped_callback(self, job: Job) -> None:
        try:
            execute_stopped_callback(job, self._worker.death_penalty_class)
        except Exception:
            _logger.exception("stopped callback of job %s raised", job.id)


def _deploy_ended_as(outcome: Outcome) -> Literal["succeeded", "failed", "held"] | None:
    """How a deploy has ended; None of what has not, was never called, or is none."""
    job, value = outcome.job, outcome.value
    if not (job.description or "").startswith("deploy:"):
        return None
    if job._status is JobStatus.FAILED:
        is_held = outcome.error is not None and isinstance(outcome.error[1], DeployHeld)
        return "held" if is_held else "failed"
    was_called = isinstance(value, dict) and "attempt" in value
    return "succeeded" if job._status is JobStatus.FINISHED and was_called else None


def _is_ordinary(job: Job) -> bool:
    return not (
        job._success_callback_name
        or job._failure_callback_name
        or job.webhooks
        or job.repeats_left
        or job.result_ttl == 0
    )
