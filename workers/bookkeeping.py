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
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Literal

import msgspec
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
from rq.worker import BaseWorker

from relay.batching import GroupCommit
from relay.packing import argument, pack
from relay.records import JOB_PREFIX, QUEUE_PREFIX
from workers.runtime import CALLING_FIELD

MAX_TOGETHER = 64
"""Outcomes in one transaction; bounds how long Redis and the event loop are busy with it."""

LONGEST_PAUSE = 5
"""Seconds between two attempts to reach Redis, at most."""

STOPPED = "Job stopped by user."

# Writes the parts one after the other, as a transaction does: what Redis refuses is reported, and
# the rest is written all the same. Then it releases slots as RQ does, but many in one step.
_WRITE = f"""
local function fill_slots(KEYS, ARGV)
{ACQUIRE_AND_ENQUEUE_SCRIPT}
end
local answers, errors = {{}}, {{}}
for number, commands in ipairs(cmsgpack.unpack(ARGV[1])) do
  local answer
  for _, command in ipairs(commands) do
    answer = redis.pcall(unpack(command))
    if type(answer) == 'table' and answer.err then errors[#errors + 1] = answer.err end
  end
  answers[number] = answer
end
for _, release in ipairs(cmsgpack.unpack(ARGV[2])) do
  local allowed, waiting, config, bound, jobs = unpack(release)
  for _, job in ipairs(jobs) do redis.call('ZREM', allowed, job) end
  bound = redis.call('HGET', config, 'concurrency') or bound
  fill_slots({{allowed, waiting}}, {{bound, ARGV[3], ARGV[4], ARGV[5], ARGV[6]}})
end
local worker, executions = KEYS[1], KEYS[2]
if redis.call('EXISTS', executions) == 0 and redis.call('HGET', worker, 'state') == 'busy' then
  redis.call('HSET', worker, 'state', 'idle')
end
return {{answers, errors}}
"""

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


Part = tuple[Outcome, msgspec.Raw]
"""An outcome and the commands that write it."""


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
    ) -> None:
        """``answered`` has the jobs whose note of a call goes away with their outcome.

        ``lease`` is the seconds for which a heartbeat holds; see ``heard``.
        """
        self._worker = worker
        self._queue = queue
        self._redis = redis
        self._answered = answered
        self._lease = lease
        self._script = redis.register_script(_WRITE)
        self._buffer: Any = redis.pipeline(transaction=True)
        self._outcomes: GroupCommit[Outcome, None] = GroupCommit(self._commit, most=MAX_TOGETHER)
        self._closed = False
        self.heard = time.monotonic()
        """When Redis last had a heartbeat of every run."""

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
        await self._outcomes.submit(outcome)

    def close(self) -> None:
        """Try no longer to write what Redis does not take."""
        self._closed = True

    async def _commit(self, outcomes: Sequence[Outcome]) -> Sequence[None]:
        parts = [(outcome, self._part(outcome)) for outcome in outcomes]
        certain, pause = time.monotonic() - self.heard < self._lease / 2, 0.1
        while True:
            try:
                if not certain:
                    parts = await self._still_ours(parts)
                answers, errors = await self._send(parts)
                break
            except (RedisError, OSError) as error:
                # Nobody knows whether it was written; the next attempt looks first.
                if certain or pause >= LONGEST_PAUSE:
                    _logger.warning("%d outcomes not written yet (%s)", len(parts), error)
                if self._closed:
                    raise
                certain = False
                await asyncio.sleep(pause)
                pause = min(2 * pause, LONGEST_PAUSE)
        for refusal in errors:
            _logger.error("Redis refused a part of an outcome: %s", refusal)
        for (outcome, _), has_dependents in zip(parts, answers, strict=False):
            job = outcome.job
            self._answered.discard(job.id)
            if has_dependents == 1 and job._status not in (JobStatus.QUEUED, JobStatus.SCHEDULED):
                await asyncio.to_thread(self._enqueue_dependents, job)
        return [None] * len(outcomes)

    async def _still_ours(self, parts: list[Part]) -> list[Part]:
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

    async def _send(self, parts: list[Part]) -> Any:
        slots: defaultdict[str, list[Job]] = defaultdict(list)
        for outcome, _ in parts:
            job = outcome.job
            if job.has_rate_limit and job._status is not JobStatus.QUEUED:
                slots[str(job.rate_limit_key)].append(job)
        return await self._script(
            keys=[self._worker.key, self._worker.executions_key],
            args=[
                pack([part for _, part in parts]),
                pack([self._release(*slot) for slot in slots.items()]),
                current_timestamp(),
                utcformat(now()),
                QUEUE_PREFIX,
                JOB_PREFIX,
            ],
        )

    def _release(self, limit: str, jobs: Collection[Job]) -> tuple[Any, ...]:
        registry = RateLimitRegistry(limit, self._queue.connection)
        return (
            registry.allowed_key,
            registry.rate_limited_key,
            registry.config_key,
            max(job.rate_limit_concurrency or 1 for job in jobs),
            [job.id for job in jobs],
        )

    def _part(self, outcome: Outcome) -> msgspec.Raw:
        """What RQ would write for one outcome. Its functions change the job, so this is done once
        and kept in case it has to be sent again."""
        job, connection, pipe = outcome.job, outcome.job.connection, self._buffer
        # RQ writes a few fields past the pipeline that it is given.
        job.connection = pipe
        try:
            try:
                self._write(pipe, outcome)
                return self._buffered(job)
            except Exception as error:
                pipe.command_stack.clear()
                failure = (type(error), error, error.__traceback__)
                self._write(pipe, Outcome(job, outcome.execution, "failed", error=failure))
                return self._buffered(job)
        finally:
            job.connection = connection

    def _buffered(self, job: Job) -> msgspec.Raw:
        """The commands in the buffer, which is empty then. The last one asks for dependents."""
        if job.id in self._answered:
            self._buffer.hdel(job.key, CALLING_FIELD)
        self._buffer.exists(job.dependents_key)
        commands = [[argument(arg) for arg in args] for args, _ in self._buffer.command_stack]
        self._buffer.command_stack.clear()
        return msgspec.Raw(pack(commands))

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
        if job.started_at:
            worker.increment_total_working_time(job.ended_at - job.started_at, pipe)
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
