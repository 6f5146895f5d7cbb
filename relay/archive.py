"""Finds deliveries and deploys in RQ's queue and registries.

There is no other record than RQ's jobs (relay/records.py). A hundred thousand of them may wait, so
they are looked at in pages, the newest of each place first, and only at a few small fields; what
was asked for is then read whole (relay/reading.py).
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from typing import Any, Literal, NamedTuple

import msgspec
from redis.asyncio import Redis
from rq.defaults import RQ_KEY_PREFIX
from rq.rate_limit import RateLimitRegistry
from rq.registry import (
    CanceledJobRegistry,
    FailedJobRegistry,
    FinishedJobRegistry,
    ScheduledJobRegistry,
    StartedJobRegistry,
)

from relay.attempts_kept import MOST_ATTEMPTS, AttemptRecord, attempts_key, read_attempts
from relay.filtering import Filter, is_event_wanted, is_wanted, kind_of, place_of
from relay.identity import may_be_deploy
from relay.reading import End, Record, Task, read_argument, read_end, read_task, record
from relay.records import (
    CANCELLED_BY_FIELD,
    DEPLOYS_FIELD,
    JOB_PREFIX,
    QUEUE_PREFIX,
    STRIPPED_FIELD,
    SUPERSEDED_BY_FIELD,
    WAITING_FIELD,
)
from relay.statuses import STATUSES, Kind, Status, status_of, with_deploys

PAGE = 500
"""Jobs looked at in one round trip."""

WHOLE_PAGE = 50
"""Jobs read whole in one round trip; an event may have a mebibyte."""

MOST_LOOKED_AT = 200_000
"""Jobs looked at in one place, at most."""

MOST_READ = 20_000
"""Jobs whose event is read to find out whether it is looked for, at most."""

MOST_RUNS = 10
"""Ends of runs that RQ keeps of a job."""

RESULTS_PREFIX = f"{RQ_KEY_PREFIX}:results:"

_BRIEF = (
    *("status", "created_at", "description"),
    *(CANCELLED_BY_FIELD, DEPLOYS_FIELD, WAITING_FIELD, SUPERSEDED_BY_FIELD),
)

# Most jobs of a long list are on other pages, and to ask for their fields costs more than to look.
# Texts are compared by the server's locale, which agrees on digits, but perhaps not on ids.
_LIKELY = """
local prefix, kind, from, to = unpack(ARGV, 1, 4)
local found = {}
for number = 5, #ARGV do
  local at, description = unpack(redis.call('HMGET', prefix .. ARGV[number], 'created_at',
                                            'description'))
  if description and string.sub(description, 1, #kind + 1) == kind .. ':' and at and at >= from
     and (to == '' or at <= to) then
    found[#found + 1] = ARGV[number]
  end
end
return found
"""

_Place = Literal["set", "head", "tail"]
"""A sorted set with its newest at the end, or a list with its newest at one of its ends."""


class Found(NamedTuple):
    """Ids, the newest first. ``more``: there are others, or some were not looked at."""

    ids: Sequence[str]
    more: bool
    complete: bool
    """Whether all that there is was looked at."""
    next: str
    """Where those that were found further down begin; see ``Filter.before``."""


class Details(NamedTuple):
    """A record, its event, how its last runs ended, the newest first, and of a deploy the calls
    that were made, the newest last."""

    record: Record
    event: Mapping[str, Any]
    runs: Sequence[End]
    calls: Sequence[AttemptRecord] = ()


class _Brief(NamedTuple):
    id: str
    status: str
    created_at: str
    cancelled: bool
    deploys: Sequence[str]
    waits: bool
    superseded: bool
    """As a job says of itself whose result is not kept any more."""


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
        exact: bool = False,
        most: int | None = None,
    ) -> Found:
        """The newest ``limit`` of what is looked for.

        No place is in the order in which its jobs were made: they are in that of their turn, or of
        their end. With ``exact`` each is looked through to its end, so that pages of a long list
        leave no gap; without, only until there are enough. In one place so many are looked at, at
        ``most``, or ``MOST_LOOKED_AT``.
        """
        found: list[str] = []
        seen: set[str] = set()
        reads, complete = MOST_READ, True
        for key, place in await self._places(kind, wanted.statuses or frozenset(STATUSES)):
            here = 0
            async for ids, is_cut in self._pages(key, place, most or MOST_LOOKED_AT):
                floor = found[-1] if exact and len(found) > limit else ""
                briefs = await self._wanted(kind, [i for i in ids if i not in seen], wanted, floor)
                if wanted.reads_event:
                    complete &= len(briefs) <= reads
                    asked = briefs[:reads]
                    reads -= len(asked)
                    briefs, are_told = await self._with_event(asked, wanted)
                    complete &= are_told
                matching = await self._matching(kind, briefs, wanted)
                seen.update(brief.id for brief in matching)
                found += [place_of(brief.created_at, brief.id) for brief in matching]
                found = sorted(found, reverse=True)[: limit + 1]
                here += len(matching)
                complete &= not is_cut
                # One more than asked for tells that there are more.
                if here > limit and not exact:
                    break
        newest = found[:limit]
        return Found(
            [place.rpartition(" ")[2] for place in newest],
            more=len(found) > limit or not complete,
            complete=complete,
            next=newest[-1] if len(found) > limit else "",
        )

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

    async def _places(self, kind: Kind, statuses: frozenset[Status]) -> list[tuple[str, _Place]]:
        """Where such jobs may be, in the order of a job's life: what moves on while we look is met
        again in a later place."""
        is_deploy = kind == "deploy"
        places: list[tuple[str, _Place]] = []
        if "waiting" in statuses:
            if is_deploy:
                limits: Any = await self._redis.smembers(RateLimitRegistry.rl_keys_key)
                places += [
                    (f"{RQ_KEY_PREFIX}:rl:{limit.decode()}:rate_limited", "set")
                    for limit in sorted(limits)
                ]
            # Deliveries are put to the end of the queue, deploys to its front.
            places.append((f"{QUEUE_PREFIX}{self._queue}", "head" if is_deploy else "tail"))
        if "retrying" in statuses or ("waiting" in statuses and is_deploy):
            places.append((self._scheduled, "set"))
        if "running" in statuses:
            places.append((StartedJobRegistry.key_template.format(self._queue), "set"))
        # A matched delivery stands as its deploys stand, so that it may have any status.
        if not is_deploy or statuses & {"succeeded", "superseded", "cancelled"}:
            places.append((FinishedJobRegistry.key_template.format(self._queue), "set"))
        if statuses & {"failed", "held", "stopped"}:
            places.append((FailedJobRegistry.key_template.format(self._queue), "set"))
        if "cancelled" in statuses:
            places.append((CanceledJobRegistry.key_template.format(self._queue), "set"))
        return places

    async def _pages(
        self, key: str, place: _Place, most: int
    ) -> AsyncIterator[tuple[list[str], bool]]:
        """Ids, the newest first, and whether there are more of them that will not be looked at."""
        raw: Any
        for start in range(0, most, PAGE):
            if place == "set":
                raw = await self._redis.zrange(key, start, start + PAGE - 1, desc=True)
            elif place == "head":
                raw = await self._redis.lrange(key, start, start + PAGE - 1)
            else:
                raw = (await self._redis.lrange(key, -start - PAGE, -start - 1))[::-1]
            # The started registry has runs: a job, a colon, an execution.
            ids = [entry.decode().partition(":")[0] for entry in raw]
            yield ids, len(raw) == PAGE and start + PAGE >= most
            if len(raw) < PAGE:
                return

    async def _wanted(
        self, kind: Kind, ids: Sequence[str], wanted: Filter, floor: str
    ) -> list[_Brief]:
        """Those which are looked for, as far as small fields tell, and newer than ``floor``."""
        if kind == "deploy":
            # A hundred thousand deliveries may stand behind a few deploys.
            ids = [id_ for id_ in ids if may_be_deploy(id_)]
        if not ids:
            return []
        likely: Any = await self._redis.eval(
            _LIKELY, 0, JOB_PREFIX, kind, _time(floor), _time(wanted.before), *ids
        )
        briefs = await self._brief_fields(id_.decode() for id_ in likely)
        return [
            _brief(id_, values)
            for id_, values in briefs.items()
            if is_wanted(kind, id_, values, wanted, floor)
        ]

    async def _with_event(
        self, briefs: Sequence[_Brief], wanted: Filter
    ) -> tuple[list[_Brief], bool]:
        """Those whose event is looked for too, and whether enough is kept of all to tell."""
        kept: list[_Brief] = []
        are_told = True
        for start in range(0, len(briefs), WHOLE_PAGE):
            part = briefs[start : start + WHOLE_PAGE]
            async with self._redis.pipeline(transaction=False) as pipe:
                for brief in part:
                    pipe.hmget(JOB_PREFIX + brief.id, ["data", STRIPPED_FIELD])
                answers = await pipe.execute()
            kept += [
                brief
                for brief, (data, stripped) in zip(part, answers, strict=True)
                if is_event_wanted(read_task(data, stripped), wanted)
            ]
            # What is left of a stripped one does not say who wrote the commit.
            are_told &= not (wanted.author and any(stripped is not None for _, stripped in answers))
        return kept, are_told

    async def _matching(
        self, kind: Kind, briefs: Sequence[_Brief], wanted: Filter
    ) -> Sequence[_Brief]:
        if not wanted.statuses:
            return briefs
        statuses = await self._statuses(kind, briefs)
        return [brief for brief in briefs if statuses[brief.id] in wanted.statuses]

    async def _brief_fields(self, ids: Iterable[str]) -> dict[str, list[bytes | None]]:
        listed = list(ids)
        if not listed:
            return {}
        async with self._redis.pipeline(transaction=False) as pipe:
            for id_ in listed:
                pipe.hmget(JOB_PREFIX + id_, _BRIEF)
            return dict(zip(listed, await pipe.execute(), strict=True))

    async def _statuses(self, kind: Kind, briefs: Sequence[_Brief]) -> dict[str, Status]:
        statuses = await self._own_statuses(briefs)
        if kind == "deploy":
            return statuses
        matched = [brief for brief in briefs if statuses[brief.id] == "succeeded"]
        ids = {id_ for brief in matched for id_ in brief.deploys}
        deploys = [
            _brief(id_, values)
            for id_, values in (await self._brief_fields(ids)).items()
            if values[0] is not None
        ]
        theirs = await self._own_statuses(deploys)
        for brief in matched:
            known = [theirs[id_] for id_ in brief.deploys if id_ in theirs]
            statuses[brief.id] = with_deploys("succeeded", known)
        return statuses

    async def _own_statuses(self, briefs: Sequence[_Brief]) -> dict[str, Status]:
        ends = await self._ends(
            brief.id for brief in briefs if brief.status in ("finished", "failed")
        )
        unknown = End("", "")
        return {
            brief.id: status_of(
                brief.status,
                waits=brief.waits,
                held=ends.get(brief.id, unknown).held,
                superseded=brief.superseded or "superseded_by" in ends.get(brief.id, unknown).value,
                cancelled=brief.cancelled,
            )
            for brief in briefs
        }

    async def _ends(self, ids: Iterable[str]) -> dict[str, End]:
        """How the last run of each ended."""
        listed = list(ids)
        if not listed:
            return {}
        async with self._redis.pipeline(transaction=False) as pipe:
            for id_ in listed:
                pipe.xrevrange(RESULTS_PREFIX + id_, count=1)
            answers = await pipe.execute()
        return {
            id_: read_end(entries[0])
            for id_, entries in zip(listed, answers, strict=True)
            if entries
        }

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
            _brief(id_, [job.get(field.encode()) for field in _BRIEF])
            for id_, (job, _, _) in known.items()
        ]
        statuses = await self._statuses(kind, briefs)
        ends = await self._ends(known)
        return [
            record(kind, id_, job, statuses[id_], ends.get(id_), due, runs)
            for id_, (job, due, runs) in known.items()
        ]


def _time(place: str) -> str:
    return place.partition(" ")[0]


def _brief(id_: str, values: Sequence[bytes | None]) -> _Brief:
    status, created_at, _, cancelled, deploys, waiting, newer = (value or b"" for value in values)
    return _Brief(
        id_,
        status.decode(),
        created_at.decode(),
        bool(cancelled),
        deploys.decode().split(),
        bool(waiting),
        bool(newer),
    )
