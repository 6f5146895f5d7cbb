"""How jobs stand, out of a few small fields of each and of how their last runs ended."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from redis.asyncio import Redis
from rq.defaults import RQ_KEY_PREFIX

from relay.reading import End, read_end
from relay.records import (
    CANCELLED_BY_FIELD,
    DEPLOYS_FIELD,
    JOB_PREFIX,
    SUPERSEDED_BY_FIELD,
    WAITING_FIELD,
)
from relay.statuses import Kind, Status, status_of, with_deploys

RESULTS_PREFIX = f"{RQ_KEY_PREFIX}:results:"

BRIEF_FIELDS = (
    *("status", CANCELLED_BY_FIELD, DEPLOYS_FIELD, WAITING_FIELD),
    SUPERSEDED_BY_FIELD,
)


class Brief(NamedTuple):
    """What of a job says how it stands."""

    id: str
    status: str
    """RQ's."""
    cancelled: bool
    deploys: Sequence[str]
    waits: bool
    superseded: bool
    """As a job says of itself whose result is not kept any more."""


def brief(id_: str, values: Sequence[bytes | None]) -> Brief:
    """Out of the values of ``BRIEF_FIELDS``."""
    status, cancelled, deploys, waiting, newer = (value or b"" for value in values)
    return Brief(
        *(id_, status.decode(), bool(cancelled), deploys.decode().split()),
        waits=bool(waiting),
        superseded=bool(newer),
    )


async def read_briefs(redis: Redis, ids: Iterable[str]) -> list[Brief]:
    """Of those that exist, in their order. Raises redis.exceptions.RedisError."""
    listed = list(ids)
    if not listed:
        return []
    async with redis.pipeline(transaction=False) as pipe:
        for id_ in listed:
            pipe.hmget(JOB_PREFIX + id_, BRIEF_FIELDS)
        answers = await pipe.execute()
    return [
        brief(id_, values)
        for id_, values in zip(listed, answers, strict=True)
        if values[0] is not None
    ]


async def read_statuses(redis: Redis, kind: Kind, briefs: Sequence[Brief]) -> dict[str, Status]:
    """How each stands, a matched delivery as its deploys do. Raises redis.exceptions.RedisError."""
    statuses = await _own_statuses(redis, briefs)
    if kind == "deploy":
        return statuses
    matched = [brief for brief in briefs if statuses[brief.id] == "succeeded"]
    deploys = await read_briefs(redis, {id_ for brief in matched for id_ in brief.deploys})
    theirs = await _own_statuses(redis, deploys)
    for one in matched:
        known = [theirs[id_] for id_ in one.deploys if id_ in theirs]
        statuses[one.id] = with_deploys("succeeded", known)
    return statuses


async def read_ends(redis: Redis, ids: Iterable[str]) -> dict[str, End]:
    """How the last run of each ended, where one did. Raises redis.exceptions.RedisError."""
    listed = list(ids)
    if not listed:
        return {}
    async with redis.pipeline(transaction=False) as pipe:
        for id_ in listed:
            pipe.xrevrange(RESULTS_PREFIX + id_, count=1)
        answers = await pipe.execute()
    return {
        id_: read_end(entries[0]) for id_, entries in zip(listed, answers, strict=True) if entries
    }


async def _own_statuses(redis: Redis, briefs: Sequence[Brief]) -> dict[str, Status]:
    ended = (brief.id for brief in briefs if brief.status in ("finished", "failed"))
    ends = await read_ends(redis, ended)
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
