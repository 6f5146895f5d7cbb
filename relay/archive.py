"""What is kept of deliveries and deploys: there is no other record than RQ's jobs
(relay/records.py). They are found by relay/finding.py and read here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import msgspec
from redis.asyncio import Redis
from rq.registry import ScheduledJobRegistry

from relay.attempts_kept import MOST_ATTEMPTS, AttemptRecord, attempts_key, read_attempts
from relay.briefs import BRIEF_FIELDS, RESULTS_PREFIX, brief, read_ends, read_statuses
from relay.filtering import Filter, kind_of
from relay.finding import Found, find
from relay.reading import End, Record, Task, read_argument, read_end, record
from relay.records import JOB_PREFIX
from relay.statuses import Kind

WHOLE_PAGE = 50
"""Jobs read whole in one round trip; an event may have a mebibyte."""

MOST_RUNS = 10
"""Ends of runs that RQ keeps of a job."""


class Details(NamedTuple):
    """A record, its event, how its last runs ended, the newest first, and of a deploy the calls
    that were made, the newest last."""

    record: Record
    event: Mapping[str, Any]
    runs: Sequence[End]
    calls: Sequence[AttemptRecord] = ()


class Archive:
    """What the jobs of one queue say. Every method raises redis.exceptions.RedisError."""

    def __init__(self, redis: Redis, queue: str) -> None:
        self._redis = redis
        self._queue = queue
        self._scheduled = ScheduledJobRegistry.key_template.format(queue)

    async def find(
        self,
        kind: Kind,
        wanted: Filter,
        limit: int,
        *,
        most: int | None = None,
        seconds: float | None = None,
    ) -> Found:
        """The newest ``limit`` of what is looked for; see relay/finding.py."""
        return await find(self._redis, self._queue, kind, wanted, limit, most=most, seconds=seconds)

    async def read(self, kind: Kind, ids: Sequence[str]) -> list[Record]:
        """The records of those that exist and are of this kind, in the same order."""
        records: list[Record] = []
        for start in range(0, len(ids), WHOLE_PAGE):
            records += await self._read(kind, ids[start : start + WHOLE_PAGE])
        return records

    async def details(self, kind: Kind, id_: str) -> Details | None:
        """All that is known of one, or None."""
        records = await self.read(kind, [id_])
        if not records:
            return None
        data: Any = await self._redis.hget(JOB_PREFIX + id_, "data")
        task = read_argument(data or b"", Task)
        event = msgspec.to_builtins(task.event) if task else {}
        if "files" in event:
            event["files"] = len(event["files"])
        entries: Any = await self._redis.xrevrange(RESULTS_PREFIX + id_, count=MOST_RUNS)
        calls = await self.attempts([id_])
        return Details(records[0], event, [read_end(entry) for entry in entries], calls[id_])

    async def attempts(self, deploys: Sequence[str]) -> dict[str, list[AttemptRecord]]:
        """The calls of each of these deploys, the newest last."""
        async with self._redis.pipeline(transaction=False) as pipe:
            for id_ in deploys:
                pipe.lrange(attempts_key(id_), -MOST_ATTEMPTS, -1)
            kept = await pipe.execute()
        return {id_: read_attempts(entries) for id_, entries in zip(deploys, kept, strict=True)}

    async def _read(self, kind: Kind, ids: Sequence[str]) -> list[Record]:
        async with self._redis.pipeline(transaction=False) as pipe:
            for id_ in ids:
                pipe.hgetall(JOB_PREFIX + id_)
                pipe.zscore(self._scheduled, id_)
                pipe.xlen(RESULTS_PREFIX + id_)
            answers = await pipe.execute()
        known = {
            id_: (job, due, runs)
            for id_, job, due, runs in zip(ids, *(answers[n::3] for n in range(3)), strict=True)
            if kind_of(job.get(b"description")) == kind
        }
        briefs = [
            brief(id_, [job.get(field.encode()) for field in BRIEF_FIELDS])
            for id_, (job, _, _) in known.items()
        ]
        statuses = await read_statuses(self._redis, kind, briefs)
        ends = await read_ends(self._redis, known)
        return [
            record(kind, id_, job, statuses[id_], ends.get(id_), due, runs)
            for id_, (job, due, runs) in known.items()
        ]
