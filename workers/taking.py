"""Takes jobs from the queue: many in one step, and never a moment in which one is nowhere.

A job is either in RQ's queue or, with an execution that has a heartbeat, in RQ's started registry.
A worker that dies between the two leaves nothing behind that only RQ's intermediate queue could
bring back, which takes RQ more than a minute. For the same reason the worker's state is written
in the same step: the number of its runs and what it says of itself cannot differ.
"""

from __future__ import annotations

import logging
from datetime import datetime
from typing import Any, NamedTuple
from uuid import uuid4

from redis.asyncio import Redis
from rq import Queue
from rq.defaults import RQ_KEY_PREFIX
from rq.executions import Execution, ExecutionRegistry
from rq.job import Job
from rq.suspension import WORKERS_SUSPENDED
from rq.utils import utcformat
from rq.worker import BaseWorker

from relay.records import JOB_PREFIX
from workers.bookkeeping import ExcInfo

MOST = 64
"""Jobs to take in one step; bounds how long Redis and the event loop are busy with it."""

DEEPEST = 1024
"""Jobs at the front of the queue among which the first to start is looked for."""

PEEK = 5
"""Seconds that an idle worker waits at the queue before it looks around."""

# What RQ writes in Execution.create, prepare_execution and prepare_job_execution, in one step.
# RQ puts jobs to the front one by one, so the front of the queue is a stack: it is taken from its
# far end, so that what was put there first starts first and nothing starves below the rest.
_TAKE = """
local queue, started, executions, worker, suspended = unpack(KEYS)
local job_prefix, execution_prefix, registry_prefix = ARGV[1], ARGV[2], ARGV[3]
local name, now, at, ttl, deepest = ARGV[4], ARGV[5], ARGV[6], tonumber(ARGV[7]), tonumber(ARGV[8])
local receipt, first = ARGV[9], 10
local most = #ARGV - first + 1

if redis.call('HGET', worker, 'take') == receipt then
  local again = {}
  for id in string.gmatch(redis.call('HGET', worker, 'taken'), '%S+') do
    local ours = redis.call('ZSCORE', started, id .. ':' .. ARGV[first + #again])
    again[#again + 1] = {id, ours and redis.call('HGETALL', job_prefix .. id) or {}}
  end
  return again
end

if redis.call('EXISTS', suspended) == 1 then
  if redis.call('EXISTS', executions) == 0 then
    redis.call('HSET', worker, 'state', 'suspended')
  end
  return false
end

local front, deep = 0, true
while deep and front < deepest do
  local ids = redis.call('LRANGE', queue, front, front + most - 1)
  deep = #ids == most
  for _, id in ipairs(ids) do
    if redis.call('HGET', job_prefix .. id, 'enqueue_at_front') ~= '1' then
      deep = false
      break
    end
    front = front + 1
  end
end
local stack = {}
if front > 0 then
  stack = redis.call('LRANGE', queue, math.max(front - most, 0), front - 1)
end

local taken, ids = {}, {}
while #taken < most do
  local id = table.remove(stack)
  if id then
    redis.call('LREM', queue, 1, id)
  else
    id = redis.call('LPOP', queue)
    if not id then break end
  end
  local job = job_prefix .. id
  -- An id that stands in the queue twice, or whose job was cancelled or deleted, is dropped.
  if redis.call('HGET', job, 'status') == 'queued' then
    local execution = ARGV[first + #taken]
    local both = id .. ':' .. execution
    redis.call('HSET', execution_prefix .. both, 'id', execution, 'job_id', id, 'created_at', now,
               'last_heartbeat', now, 'worker_name', name)
    redis.call('EXPIRE', execution_prefix .. both, ttl)
    redis.call('ZADD', registry_prefix .. id, math.floor(now) + ttl + 60, execution)
    redis.call('EXPIRE', registry_prefix .. id, ttl + 60)
    redis.call('ZADD', started, math.floor(now) + ttl, both)
    redis.call('SADD', executions, both)
    redis.call('HSET', job, 'status', 'started', 'started_at', at, 'last_heartbeat', at,
               'worker_name', name)
    redis.call('PERSIST', job)
    ids[#ids + 1] = id
    taken[#taken + 1] = {id, redis.call('HGETALL', job)}
  end
end
if #taken > 0 then
  redis.call('HSET', worker, 'take', receipt, 'taken', table.concat(ids, ' '))
end
local runs = redis.call('EXPIRE', executions, ttl + 60) == 1
redis.call('HSET', worker, 'state', runs and 'busy' or 'idle')
return taken
"""

_logger = logging.getLogger("workers")


class Taken(NamedTuple):
    """A job that is to run, and RQ's record of this run."""

    job: Job
    execution: Execution
    unreadable: ExcInfo | None = None
    """Why RQ cannot read the job, which is to fail then."""


class _Take(NamedTuple):
    """One call of the script, which may have to be repeated. The receipt is Redis' to remember."""

    receipt: str
    started: datetime
    executions: list[Execution]


class Suspended(Exception):
    """`rq suspend` holds all workers."""


class Taker:
    """Takes jobs from one queue for one worker."""

    def __init__(
        self,
        worker: BaseWorker,
        queue: Queue,
        *,
        redis: Redis,
        waiting: Redis,
        ttl: int,
    ) -> None:
        """``waiting`` has a connection to itself and lets a command take longer than PEEK.

        ``ttl`` is the seconds after which a run without a heartbeat counts as abandoned.
        """
        self._worker = worker
        self._queue = queue
        self._waiting = waiting
        self._connection = worker.connection
        self._ttl = ttl
        self._script = redis.register_script(_TAKE)
        self._take: _Take | None = None
        self._keys = [
            queue.key,
            queue.started_job_registry.key,
            worker.executions_key,
            worker.key,
            WORKERS_SUSPENDED,
        ]
        self._prefixes = [
            JOB_PREFIX,
            f"{RQ_KEY_PREFIX}:execution:",
            ExecutionRegistry.key_template.format(""),
        ]

    async def take(self, most: int) -> list[Taken]:
        """Up to ``most`` jobs, which count as started from now on; fewer if the queue is empty.

        Raises Suspended and redis.exceptions.RedisError. If the answer to the call before got lost,
        these are the jobs that it took.
        """
        take = self._take = self._take or self._new_take(most)
        answer: Any = await self._script(
            keys=self._keys,
            args=[
                *self._prefixes,
                self._worker.name,
                take.started.timestamp(),
                utcformat(take.started),
                self._ttl,
                DEEPEST,
                take.receipt,
                *(execution.id for execution in take.executions),
            ],
        )
        self._take = None
        if answer is None:
            raise Suspended
        taken = []
        for execution, (raw_id, fields) in zip(take.executions, answer, strict=False):
            execution.job_id = raw_id.decode()
            execution.created_at = execution.last_heartbeat = take.started
            if fields:
                taken.append(self._restore(execution, fields))
        return taken

    async def wait(self) -> None:
        """Return as soon as the queue holds a job, or after PEEK seconds.

        Moving the first job to where it is changes nothing, but Redis makes it wait for one.
        Raises redis.exceptions.RedisError.
        """
        await self._waiting.blmove(self._queue.key, self._queue.key, PEEK, "LEFT", "LEFT")

    def _new_take(self, most: int) -> _Take:
        executions = [
            Execution(uuid4().hex, "", self._connection, self._worker.name) for _ in range(most)
        ]
        return _Take(uuid4().hex, executions[0].created_at, executions)

    def _restore(self, execution: Execution, fields: list[bytes]) -> Taken:
        job = Job(connection=self._connection)
        job._id = execution.job_id
        known = dict(zip(fields[::2], fields[1::2], strict=True))
        try:
            job.restore(known)
        except Exception as error:
            _logger.exception("job %s cannot be read", execution.job_id)
            job.origin = self._queue.name
            # So that its slot is released; how many there are, Redis knows better.
            job.rate_limit_key = known.get(b"rate_limit_key", b"").decode() or None
            job.rate_limit_concurrency = 1 if job.rate_limit_key else None
            return Taken(job, execution, (type(error), error, None))
        return Taken(job, execution)
