"""Writes what RQ's own functions write, for many runs in one step, and only for runs that are ours.

RQ's functions fill a buffer, which is then sent packed. A run is ours as long as RQ's started
registry has it. When it has not, another worker has given the run up, or this is the repetition of
a write whose answer got lost; both ways there is nothing left to write, and whether to write is
decided in the same step as the writing.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import msgspec
from redis.asyncio import Redis
from rq import Queue
from rq.executions import Execution
from rq.job import Job
from rq.rate_limit import ACQUIRE_AND_ENQUEUE_SCRIPT, RateLimitRegistry
from rq.utils import current_timestamp, now, utcformat
from rq.worker import BaseWorker

from relay.packing import argument, pack
from relay.records import JOB_PREFIX, QUEUE_PREFIX

GONE = -1
"""The answer to a part that was not written."""

# Writes the parts one after the other, as a transaction does: what Redis refuses is reported, and
# the rest is written all the same. Then it releases slots as RQ does, but many in one step.
_WRITE = f"""
local function fill_slots(KEYS, ARGV)
{ACQUIRE_AND_ENQUEUE_SCRIPT}
end
local worker, executions, started = unpack(KEYS)
local answers, errors = {{}}, {{}}
-- Changes nothing. Where Redis takes no writes at all (READONLY, NOREPLICAS), this fails as a whole
-- and is tried again, rather than have every part refused.
redis.call('HDEL', worker, '')
for number, part in ipairs(cmsgpack.unpack(ARGV[1])) do
  local run, commands, still_due = unpack(part)
  local answer = {GONE}
  local due = redis.call('ZSCORE', started, run)
  if due and (still_due == 0 or tonumber(due) == still_due) then
    for _, command in ipairs(commands) do
      answer = redis.pcall(unpack(command))
      if type(answer) == 'table' and answer.err then
        errors[#errors + 1] = answer.err
        answer = 0
      end
    end
  end
  answers[number] = answer
end
for _, release in ipairs(cmsgpack.unpack(ARGV[2])) do
  local allowed, waiting, config, bound, jobs = unpack(release)
  for _, job in ipairs(jobs) do
    local number, id = unpack(job)
    if answers[number] ~= {GONE} then redis.call('ZREM', allowed, id) end
  end
  bound = redis.call('HGET', config, 'concurrency') or bound
  fill_slots({{allowed, waiting}}, {{bound, ARGV[3], ARGV[4], ARGV[5], ARGV[6]}})
end
if redis.call('EXISTS', executions) == 0 and redis.call('HGET', worker, 'state') == 'busy' then
  redis.call('HSET', worker, 'state', 'idle')
end
return {{answers, errors}}
"""


class Part(NamedTuple):
    """What is to be written for one run."""

    run: str
    commands: msgspec.Raw
    still_due: float = 0
    """Unless 0: only if the run's next heartbeat is due at this time, in seconds of the epoch."""


class Written(NamedTuple):
    """What the last command of each part answered, or GONE, and what Redis refused."""

    answers: Sequence[Any]
    refusals: Sequence[bytes]


class Writer:
    """Writes for one worker."""

    def __init__(self, worker: BaseWorker, queue: Queue, redis: Redis) -> None:
        self._queue = queue
        self._script = redis.register_script(_WRITE)
        self._buffer: Any = redis.pipeline(transaction=True)
        self._keys = [worker.key, worker.executions_key, queue.started_job_registry.key]

    def part(self, job: Job, execution: Execution, fill: Callable[[Any], None]) -> Part:
        """What ``fill`` puts into a buffer. Raises what ``fill`` raises."""
        pipe, connection = self._buffer, job.connection
        # RQ writes a few fields past the pipeline that it is given.
        job.connection = pipe
        try:
            fill(pipe)
            commands = [[argument(arg) for arg in args] for args, _ in pipe.command_stack]
        finally:
            job.connection = connection
            pipe.command_stack.clear()
        return Part(execution.composite_key, msgspec.Raw(pack(commands)))

    async def write(self, parts: Sequence[Part], releasing: Mapping[int, Job]) -> Written:
        """Write all parts. ``releasing`` are jobs whose slots are released with their part, by its
        position. Raises redis.exceptions.RedisError; nobody knows then whether it was written, and
        it may be written again.
        """
        slots: defaultdict[str, list[tuple[int, Job]]] = defaultdict(list)
        for position, job in releasing.items():
            slots[str(job.rate_limit_key)].append((position + 1, job))
        answers, refusals = await self._script(
            keys=self._keys,
            args=[
                pack(parts),
                pack([self._release(*slot) for slot in slots.items()]),
                current_timestamp(),
                utcformat(now()),
                QUEUE_PREFIX,
                JOB_PREFIX,
            ],
        )
        return Written(answers, refusals)

    def _release(self, limit: str, jobs: Sequence[tuple[int, Job]]) -> tuple[Any, ...]:
        registry = RateLimitRegistry(limit, self._queue.connection)
        return (
            registry.allowed_key,
            registry.rate_limited_key,
            registry.config_key,
            max(job.rate_limit_concurrency or 1 for _, job in jobs),
            [(number, job.id) for number, job in jobs],
        )
