"""How a job is written to Redis: the fields of RQ's own job hash, so that any rq worker runs it.

RQ's ``Job.save`` writes the same fields. They are made here because a group commit writes many
jobs in one round trip, and because our own fields (below) belong to the same atomic write.
"""

from __future__ import annotations

import json
import pickle
import sys
from datetime import UTC, datetime
from typing import NamedTuple

from rq.job import Job, JobStatus
from rq.queue import Queue
from rq.utils import utcformat

DELIVERY_JOB = "workers.jobs.deliver"
DEPLOY_JOB = "workers.jobs.deploy"
NOTICE_JOB = "workers.notices.notify"
"""The job functions by name: relay enqueues them and does not import workers."""

HELD_ERROR = "workers.errors.DeployHeld"
"""What a deploy ends with, by its name, whose call was sent and not answered."""

ENDLESS = sys.maxsize
"""How often a run may be followed by another if it only waited: RQ wants to know a number. It also
tells such a run from one that made a call, which may be made as often as its target allows."""

JOB_PREFIX = Job.redis_job_namespace_prefix
QUEUE_PREFIX = Queue.redis_queue_namespace_prefix
QUEUES_KEY = Queue.redis_queues_keys

DEPLOYS_FIELD = "deploys"
"""Our field of a delivery's job: the ids of its deploy jobs, separated by spaces."""

ATTEMPTS_FIELD = "attempts"
"""Our field of a deploy's job: the number of its last call that has begun."""

WAITING_FIELD = "waiting"
"""Our field of a deploy's job: what it waits for, and until when, as the audit was told last; empty
once it is called."""

APPROVED_BY_FIELD = "approved_by"
"""Our field of a deploy's job that somebody approved: who."""

REPLAY_OF_FIELD = "replay_of"
REQUESTED_BY_FIELD = "requested_by"
"""Our fields of a replay: the id of the job that it repeats, and who asked for it."""

REPLAYED_BY_FIELD = "replayed_by"
"""Our field of a job that was replayed: the id of its replay."""

TURNS_PREFIX = "relay:turns:"
"""What a target's name stands behind in the key of who waits for its rate; see workers/turns.py."""

CANCELLED_BY_FIELD = "cancelled_by"
"""Our field of a job that somebody cancelled: who. Whoever runs the job all the same, because RQ's
scheduler had read it before and wrote it back, ends it at once."""

# Whether all that a delivery led to has ended without a success: its own job failed, it had no
# deploys, or one of them failed. Then a redelivery or a replay runs it again.
MAY_RUN_AGAIN = """
local ended = {failed = true, stopped = true, canceled = true}

local function may_run_again(prefix, job, status)
  if ended[status] then return true end
  if status ~= 'finished' then return false end
  local deploys = redis.call('HGET', job, 'deploys')
  if not deploys or deploys == '' then return true end
  for id in string.gmatch(deploys, '%S+') do
    if ended[redis.call('HGET', prefix .. id, 'status')] then return true end
  end
  return false
end
"""

RETRY_INTERVALS = (5, 30, 120)
"""Seconds before each new run of a job whose worker crashed or could not read relay.yaml. A deploy
call that failed is another matter: its target's policy decides (workers/jobs.py)."""

_RETRY_INTERVALS_JSON = json.dumps(RETRY_INTERVALS)


class Lifetimes(NamedTuple):
    """How long a job may run and how long RQ remembers how it ended, all in seconds."""

    timeout: int
    result: int
    failure: int


def job_data(function: str, argument: str) -> bytes:
    """RQ's field ``data``: which function is called, and with what."""
    # Pickle is what `rq worker` expects unless told otherwise. It gives nobody a new power:
    # whoever can write to the queue already chooses which function a worker calls.
    return pickle.dumps((function, None, (argument,), {}), protocol=pickle.HIGHEST_PROTOCOL)


def job_fields(
    function: str,
    argument: str,
    *,
    queue: str,
    description: str,
    lifetimes: Lifetimes,
    status: JobStatus = JobStatus.QUEUED,
) -> list[str | bytes | int]:
    """Fields and values, in turn, of the hash of a job that is about to be queued."""
    return [
        "data",
        job_data(function, argument),
        "description",
        description,
        *shared_fields(queue=queue, lifetimes=lifetimes, status=status),
    ]


def shared_fields(
    *, queue: str, lifetimes: Lifetimes, status: JobStatus = JobStatus.QUEUED
) -> list[str | int]:
    """Those of them that jobs which are queued together have in common."""
    now = utcformat(datetime.now(UTC))
    return [
        "status",
        status.value,
        "origin",
        queue,
        "created_at",
        now,
        "enqueued_at",
        now,
        "timeout",
        lifetimes.timeout,
        "result_ttl",
        lifetimes.result,
        "failure_ttl",
        lifetimes.failure,
        "retries_left",
        len(RETRY_INTERVALS),
        "retry_intervals",
        _RETRY_INTERVALS_JSON,
    ]
