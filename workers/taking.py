"""Takes jobs from the queue: many in one step, and never a moment in which one is nowhere.

A job is either in RQ's queue or, with an execution that has a heartbeat, in RQ's started registry.
A worker that dies between the two leaves nothing behind that only RQ's intermediate queue could
bring back, which takes RQ more than a minute. For the same reason the worker's state is written
in the same step: the number of its runs and what it says of itself cannot differ.
"""

from __future__ import annotations

import logging
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
local most = #ARGV - 8
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

local taken = {}
while #taken < most do
  local id = table.remove(stack)
  if id then
    redis.call('LREM', queue, 1, id)
  else
    id = redis.call('LPOP', queue)
    if not id then break end
  end
  local job = job_prefix .. id
  if redis.call('HEXISTS', job, 'data') == 1 then
    local execution = ARGV[9 + #taken]
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
    taken[#taken + 1] = {id, redis.call('HGETALL', job)}
  end
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
        self._redis = redis
        self._waiting = waiting
        self._connection = worker.connection
        self._ttl = ttl
        self._script = redis.register_script(_TAKE)
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

        Raises Suspended and redis.exceptions.RedisError.
        """
        executions = [self._execution() for _ in range(most)]
        started = executions[0].created_at
        answer: Any = await self._script(
            keys=self._keys,
            args=[
                *self._prefixes,
                self._worker.name,
                started.timestamp(),
                utcformat(started),
                self._ttl,
                DEEPEST,
                *(execution.id for execution in executions),
            ],
        )
        if answer is None:
            raise Suspended
        taken = []
        for execution, (raw_id, fields) in zip(executions, answer, strict=False):
            execution.job_id = raw_id.decode()
            execution.created_at = execution.last_heartbeat = started
            if (job := await self._restore(execution, fields)) is not None:
                taken.append(Taken(job, execution))
        return taken

    async def wait(self) -> None:
        """Return as soon as the queue holds a job, or after PEEK seconds.

        Moving the first job to where it is changes nothing, but Redis makes it wait for one.
        Raises redis.exceptions.RedisError.
        """
        await self._waiting.blmove(self._queue.key, self._queue.key, PEEK, "LEFT", "LEFT")

    def _execution(self) -> Execution:
        return Execution(uuid4().hex, "", self._connection, self._worker.name)

    async def _restore(self, execution: Execution, fields: list[bytes]) -> Job | None:
        """The job itself; one that RQ cannot read is left alone, as it would never end."""
        job = Job(connection=self._connection)
        job._id = execution.job_id
        try:
            job.restore(dict(zip(fields[::2], fields[1::2], strict=True)))
        except Exception:
            _logger.exception("job %s cannot be read and is dropped", execution.job_id)
            job.origin = self._queue.name
            async with self._redis.pipeline(transaction=True) as buffer:
                pipe: Any = buffer
                execution.delete(job, pipe)
                await pipe.execute()
            return None
        return job
