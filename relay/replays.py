"""Replays: another delivery or deploy that does again what an old one did, because a person wishes.

A replay is a job of its own with a chain of attempts of its own. Each job names its replay and each
replay its job, so that the chain can be followed both ways. Those of deploys are in
workers/replays.py.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any, NamedTuple

import msgspec
from redis.asyncio import Redis

from config.settings import Settings
from relay.events.event import Delivery
from relay.identity import replay_ids
from relay.queueing import JOB_TIMEOUT
from relay.reading import read_argument
from relay.records import (
    DELIVERY_JOB,
    JOB_PREFIX,
    MAY_RUN_AGAIN,
    QUEUE_PREFIX,
    QUEUES_KEY,
    STRIPPED_FIELD,
    Lifetimes,
    job_fields,
)
from relay.statuses import ACTIVE_IN_RQ

REASONS: dict[str, str] = {
    "unknown": "there is no such {kind}, or not any more",
    "unreadable": "its job cannot be read",
    "stripped": "its event is not kept any more (RELAY_HISTORY)",
    "active": "it has not ended: it is {other} in RQ",
    "replaying": "its replay {other} waits or runs",
    "replayed": "it was replayed as {other}; replay that one, or --force",
    "busy": "the same deploy waits or runs as {other}",
    "succeeded": "it has not failed; --force does it again all the same",
    "done": "the same deploy has ended well since, as {other}; --force does it again all the same",
    "overtaken": "the newer {other} was queued for the same branch; name it, or --force",
    "target": "relay.yaml no longer has its target",
    "gone": "it has ended already: it is {other} in RQ",
    "approved": "{other} has approved it already",
    "unasked": "it waits for no approval",
    "started": "it runs; RQ's send_stop_job_command stops it",
}
"""Why something was not done. ``other`` is an id or a status."""


class Wish(NamedTuple):
    """What a person asks for."""

    id: str
    by: str
    """The user of the operating system who asks."""
    forced: bool = False
    """Also what has not failed."""
    named: bool = True
    """This very one, and not whatever a filter found."""
    dry: bool = False
    """Only say what would be done."""


class Done(NamedTuple):
    """What became of a wish: the new id, or why nothing was done and which job is the reason."""

    id: str
    new: str = ""
    refusal: str = ""
    other: str = ""


ACTIVE_IN_LUA = f"local active = {{{', '.join(f'{name} = true' for name in ACTIVE_IN_RQ)}}}\n"

_REPLAY = (
    MAY_RUN_AGAIN
    + ACTIVE_IN_LUA
    + """
local queue, queues, old, new = unpack(KEYS)
local prefix, forced, dry, new_id = ARGV[1], ARGV[2] == '1', ARGV[3] == '1', ARGV[4]
local status, replay = unpack(redis.call('HMGET', old, 'status', 'replayed_by'))
if not status then return {'unknown', ''} end
local replayed = replay and redis.call('HGET', prefix .. replay, 'status')
if replayed and active[replayed] then return {'replaying', replay} end
if active[status] then return {'active', status} end
if not forced then
  if replayed then return {'replayed', replay} end
  if not may_run_again(prefix, old, status) then return {'succeeded', ''} end
end
if dry then return {'', ''} end
if redis.call('EXISTS', new) == 1 then return {'taken', ''} end
redis.call('SADD', queues, queue)
redis.call('RPUSH', queue, new_id)
redis.call('HSET', new, unpack(ARGV, 5))
redis.call('HSET', old, 'replayed_by', new_id)
return {'', new_id}
"""
)


async def replay_deliveries(redis: Redis, settings: Settings, wishes: Sequence[Wish]) -> list[Done]:
    """Queue a delivery like the old one for each wish, to be matched with the routes of now.

    Raises redis.exceptions.RedisError; what was done before stays done, and asking for it again
    does no harm.
    """
    return [await _replay(redis, settings, wish) for wish in wishes]


async def _replay(redis: Redis, settings: Settings, wish: Wish) -> Done:
    key = JOB_PREFIX + wish.id
    fields: Any = await redis.hmget(key, ["data", "description", STRIPPED_FIELD])
    data, description, stripped = fields
    if not (description or b"").startswith(b"delivery:"):
        return Done(wish.id, refusal="unknown")
    delivery = read_argument(data or b"", Delivery)
    if delivery is None:
        return Done(wish.id, refusal="unreadable" if stripped is None else "stripped")
    queue = QUEUE_PREFIX + settings.queue
    for new in replay_ids(wish.id):
        again = msgspec.structs.replace(delivery, id=new)
        job = job_fields(
            DELIVERY_JOB,
            msgspec.json.encode(again).decode(),
            queue=settings.queue,
            description=description.decode(),
            lifetimes=Lifetimes(
                JOB_TIMEOUT,
                result=int(settings.duplicate_window),
                failure=int(settings.dead_letter_ttl),
            ),
        )
        told, other = await redis.eval(
            _REPLAY,
            *(4, queue, QUEUES_KEY, key, JOB_PREFIX + new),
            *(JOB_PREFIX, int(wish.forced), int(wish.dry), new),
            *("receipt", os.urandom(8).hex(), "replay_of", wish.id, "requested_by", wish.by),
            *job,
        )
        if told != b"taken":
            break
    if told:
        return Done(wish.id, refusal=told.decode(), other=other.decode())
    return Done(wish.id, new=other.decode())
