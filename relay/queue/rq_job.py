"""An RQ job that wakes a worker for rows of the ledger: its id, and the hash that rq reads. Pure.

``rq worker -S json`` runs these jobs. Their arguments are numbers of rows and nothing else, so a
job that comes twice, too late or from an old copy of Redis does no harm.
"""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime
from typing import Literal, NamedTuple

from rq.job import Job, JobStatus
from rq.queue import Queue
from rq.utils import utcformat

from relay.events.ids import public_id

JobKind = Literal["deliveries", "deploy", "notice"]

JOB_PREFIX = Job.redis_job_namespace_prefix
QUEUE_PREFIX = Queue.redis_queue_namespace_prefix
QUEUES_KEY = Queue.redis_queues_keys

FUNCTIONS: dict[JobKind, str] = {
    "deliveries": "workers.jobs.deliver",
    "deploy": "workers.jobs.deploy",
    "notice": "workers.jobs.notify",
}
"""What rq calls, by its name: relay does not import workers. The names stand in users' queues while
a release is replaced."""

TIMEOUT = 3_720
"""Seconds that a run may take under a stock ``rq worker``: more than a target's longest timeout."""

FAILURE_TTL = 3_600
"""Seconds for which RQ remembers a job that a stock worker could not run."""

KEPT = 86_400
"""Seconds after which a job is forgotten that nobody took. The sweep makes it again."""

MOST_ROWS = 4_096
"""Rows of one job at most; more would be nobody's whom we know."""

_ID = re.compile(r"(deliveries|deploy|notice)-([1-9][0-9]{0,17})(?:-([1-9][0-9]{0,17}))?")


class Wakeup(NamedTuple):
    """Rows of one kind, from ``first`` to ``last``, that a worker is to look at."""

    kind: JobKind
    first: int
    last: int

    @property
    def id(self) -> str:
        """The id of the RQ job; of a deploy and a notice also the id that people see."""
        if self.kind == "deliveries":
            return f"deliveries-{self.first}-{self.last}"
        return public_id(self.kind, self.first)


def read_job_id(text: str) -> Wakeup | None:
    """Return what a job's id names; None for any other job."""
    parts = _ID.fullmatch(text)
    if parts is None or (parts[1] == "deliveries") != (parts[3] is not None):
        return None
    first, last = int(parts[2]), int(parts[3] or parts[2])
    if not 0 <= last - first < MOST_ROWS:
        return None
    kinds: dict[str, JobKind] = {"deliveries": "deliveries", "deploy": "deploy", "notice": "notice"}
    return Wakeup(kinds[parts[1]], first, last)


def job_hash(wakeup: Wakeup, queue: str, now: str) -> dict[str, str | int]:
    """Return the fields of the hash of a job that is about to be queued. ``now`` is rq_time()."""
    numbers = [wakeup.first, wakeup.last] if wakeup.kind == "deliveries" else [wakeup.first]
    return {
        "data": json.dumps([FUNCTIONS[wakeup.kind], None, numbers, {}]),
        "status": JobStatus.QUEUED.value,
        "origin": queue,
        "description": wakeup.id,
        "created_at": now,
        "enqueued_at": now,
        "timeout": TIMEOUT,
        # The outcome is in the ledger, so RQ deletes a job at once that ended well.
        "result_ttl": 0,
        "failure_ttl": FAILURE_TTL,
    }


def rq_time() -> str:
    """Return the time as RQ writes it."""
    return str(utcformat(datetime.now(UTC)))
