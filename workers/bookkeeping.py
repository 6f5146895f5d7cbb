"""Writes how jobs ended: all that ended at one moment in one transaction.

What is written is what RQ's own worker writes, by RQ's own functions, which fill a pipeline. Jobs
with callbacks, webhooks, repeats or no result to keep make RQ read in between; those are left to
RQ's own code in a thread.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from types import TracebackType
from typing import Any, Literal

from redis.asyncio import Redis
from redis.exceptions import RedisError
from rq import Queue, Retry
from rq.callbacks import execute_stopped_callback
from rq.executions import Execution
from rq.job import Job, JobStatus
from rq.job_lifecycle import format_exc_info
from rq.rate_limit import ACQUIRE_AND_ENQUEUE_SCRIPT, RateLimitRegistry
from rq.results import Result
from rq.utils import current_timestamp, now, utcformat
from rq.worker import BaseWorker, WorkerStatus

from relay.batching import GroupCommit
from relay.records import JOB_PREFIX, QUEUE_PREFIX
from workers.runtime import CALLING_FIELD

MAX_TOGETHER = 64
"""Outcomes in one transaction; bounds how long Redis and the event loop are busy with it."""

LONGEST_PAUSE = 5
"""Seconds between two attempts to reach Redis, at most."""

STOPPED = "Job stopped by user."

# RQ releases one slot a call and reads the bound beforehand; this is the same for many in one step.
_RELEASE = f"""
local bound = redis.call('HGET', KEYS[3], 'concurrency')
if bound then ARGV[1] = bound end
for i = 6, #ARGV do redis.call('ZREM', KEYS[1], ARGV[i]) end
{ACQUIRE_AND_ENQUEUE_SCRIPT}"""

ExcInfo = tuple[type[BaseException], BaseException, TracebackType | None]
Command = tuple[tuple[Any, ...], dict[str, Any]]

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


class Books:
    """Where a worker writes its outcomes. One instance a worker."""

    def __init__(
        self,
        worker: BaseWorker,
        queue: Queue,
        *,
        redis: Redis,
        answered: set[str],
        lease: float,
        idle: Callable[[], bool],
    ) -> None:
        """``answered`` has the jobs whose note of a call goes away with their outcome.

        ``lease`` is the seconds for which a heartbeat holds; see ``heard``. ``idle`` says whether
        the worker has nothing to do but to write outcomes.
        """
        self._worker = worker
        self._queue = queue
        self._redis = redis
        self._answered = answered
        self._lease = lease
        self._idle = idle
        self._outcomes: GroupCommit[Outcome, None] = GroupCommit(self._commit, most=MAX_TOGETHER)
        self.heard = time.monotonic()
        """When Redis last had a heartbeat of every run."""

    async def enter(self, outcome: Outcome) -> None:
        """Return once an outcome is written, however long Redis is away.

        What another worker has meanwhile given up as abandoned is no longer ours to write.
        """
        job = outcome.job
        if outcome.how in ("returned", "failed") and not _is_ordinary(job):
            await asyncio.to_thread(self._leave_to_rq, outcome)
            return
        if outcome.how == "stopped" and job._stopped_callback_name:
            await asyncio.to_thread(self._call_stopped_callback, job)
        if outcome.error is not None:
            self._worker.handle_exception(job, *outcome.error)
        await self._outcomes.submit(outcome)

    async def _commit(self, outcomes: Sequence[Outcome]) -> Sequence[None]:
        parts = [(outcome, self._commands(outcome)) for outcome in outcomes]
        certain, pause = time.monotonic() - self.heard < self._lease / 2, 0.1
        while True:
            try:
                if not certain:
                    parts = await self._still_ours(parts)
                async with self._redis.pipeline(transaction=True) as pipe:
                    dependents = self._fill(pipe, parts)
                    answers = await pipe.execute()
                break
            except (RedisError, OSError) as error:
                # Nobody knows whether it was written; the next attempt looks first.
                if certain or pause >= LONGEST_PAUSE:
                    _logger.warning(
                        "%d outcomes not written yet (%s)", len(parts), type(error).__name__
                    )
                certain = False
                await asyncio.sleep(pause)
                pause = min(2 * pause, LONGEST_PAUSE)
        for outcome, _ in parts:
            self._answered.discard(outcome.job.id)
        for job, position in dependents:
            if answers[position]:
                await asyncio.to_thread(self._enqueue_dependents, job)
        return [None] * len(outcomes)

    async def _still_ours(
        self, parts: list[tuple[Outcome, list[Command]]]
    ) -> list[tuple[Outcome, list[Command]]]:
        if not parts:
            return parts
        scores = await self._redis.zmscore(
            self._queue.started_job_registry.key,
            [outcome.execution.composite_key for outcome, _ in parts],
        )
        for (outcome, _), score in zip(parts, scores, strict=True):
            if score is None:
                _logger.warning("job %s was given up; outcome not kept", outcome.job.id)
        return [part for part, score in zip(parts, scores, strict=True) if score is not None]

    def _commands(self, outcome: Outcome) -> list[Command]:
        """What RQ would write for one outcome. Its functions change the job, so this is done once
        and the commands are kept in case they have to be sent again."""
        pipe: Any = self._redis.pipeline(transaction=True)
        job, connection = outcome.job, outcome.job.connection
        # RQ writes a few fields past the pipeline that it is given.
        job.connection = pipe
        try:
            try:
                self._write(pipe, outcome)
            except Exception as error:
                pipe.command_stack.clear()
                failure = (type(error), error, error.__traceback__)
                self._write(pipe, Outcome(job, outcome.execution, "failed", error=failure))
        finally:
            job.connection = connection
        if job.id in self._answered:
            pipe.hdel(job.key, CALLING_FIELD)
        commands: list[Command] = pipe.command_stack
        return commands

    def _write(self, pipe: Any, outcome: Outcome) -> None:
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
        if outcome.how != "returned":
            self._write_failure(pipe, outcome, times)
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

    def _fill(
        self, pipe: Any, parts: Iterable[tuple[Outcome, list[Command]]]
    ) -> list[tuple[Job, int]]:
        """Put everything into one transaction; returns the jobs that may have dependents, and where
        in the answers it says so."""
        stack: Any = pipe.command_stack
        slots: defaultdict[str, list[Job]] = defaultdict(list)
        dependents: list[tuple[Job, int]] = []
        worked = timedelta()
        for outcome, commands in parts:
            job = outcome.job
            stack.extend(commands)
            if job._status in (JobStatus.FINISHED, JobStatus.FAILED, JobStatus.STOPPED):
                dependents.append((job, len(stack)))
                pipe.exists(job.dependents_key)
            if job.has_rate_limit and job._status is not JobStatus.QUEUED:
                slots[str(job.rate_limit_key)].append(job)
            if outcome.how != "put back" and job.started_at and job.ended_at:
                worked += job.ended_at - job.started_at
        for limit, jobs in slots.items():
            self._release(pipe, limit, jobs)
        if worked:
            self._worker.increment_total_working_time(worked, pipe)
        if self._idle():
            self._worker.set_state(WorkerStatus.IDLE.value, pipe)
        return dependents

    def _release(self, pipe: Any, limit: str, jobs: Collection[Job]) -> None:
        registry = RateLimitRegistry(limit, self._queue.connection)
        pipe.eval(
            _RELEASE,
            3,
            registry.allowed_key,
            registry.rate_limited_key,
            registry.config_key,
            *(max(job.rate_limit_concurrency or 1 for job in jobs), current_timestamp()),
            *(utcformat(now()), QUEUE_PREFIX, JOB_PREFIX),
            *(job.id for job in jobs),
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


def _is_ordinary(job: Job) -> bool:
    return not (
        job._success_callback_name
        or job._failure_callback_name
        or job.webhooks
        or job.repeats_left
        or job.result_ttl == 0
    )
