"""The latest payloads, kept for people, without their secrets (relay/payload_masking.py).

Nothing depends on them, so they never delay, fail or slow down an answer. What is to be kept waits
in memory within bounds of its own, and what finds no room is dropped. One body after the other is
masked and compressed in a thread, and then there is a pause, so that it takes a small share of the
time however much arrives.

In Redis each has a key that expires. ``relay:payloads`` knows them in the order of their arrival:
the score of each is how many bytes had come before it, and that of the empty name how many have
come in all. So those to be forgotten are the ones with a score that is too far behind, and no sum
has to be kept right when keys expire.
"""

from __future__ import annotations

import asyncio
import logging
import zlib
from asyncio import sleep
from time import monotonic

from redis.asyncio import Redis

from relay import audit
from relay.audit import Redactor
from relay.errors import Malformed
from relay.payload_masking import masked
from relay.providers.payloads import unwrap
from relay.store import name_of

MOST_BODY = 1_048_576
"""Bytes of a body, and of its masked payload, that is kept."""

MOST_HELD = 64
"""Bodies that wait in one receiver process, those included whose delivery is being stored."""

MOST_HELD_BYTES = 8 * 1_048_576
"""Bytes that all of them take together."""

SHARE = 0.02
"""How much of the time goes into keeping at most."""

LONGEST_REST = 60.0
"""Seconds of a pause at most, and of that after a failure, which is told of once before it."""

OVERHEAD = 448
"""Bytes that Redis needs for a payload besides itself: key, expiry, place in the index."""

INDEX = "relay:payloads"
"""Which payloads there are; see above."""

TOO_LARGE = b"too large"
UNCLEAR = b"unclear"
"""What stands in place of a payload that is not kept, and says why."""

# The first body of a delivery counts, as its event does. A body may be a thousand times as large
# as the least ones, so that so many have to go for it; no more do in one step where the budget has
# become smaller.
_KEEP = """
local index, key = unpack(KEYS)
local prefix, id, value, budget, ttl, overhead, most = unpack(ARGV)
if redis.call('EXISTS', key) == 1 then return 0 end
local start = tonumber(redis.call('ZSCORE', index, '') or 0)
local finish = start + #value + tonumber(overhead)
redis.call('SET', key, value, 'EX', ttl)
redis.call('ZADD', index, string.format('%.0f', start), id, string.format('%.0f', finish), '')
if redis.call('TTL', index) < tonumber(ttl) then redis.call('EXPIRE', index, ttl) end
local least = '(' .. string.format('%.0f', finish - tonumber(budget))
for _, old in ipairs(redis.call('ZRANGEBYSCORE', index, '-inf', least, 'LIMIT', 0, most)) do
  redis.call('UNLINK', prefix .. old)
  redis.call('ZREM', index, old)
end
return 1
"""

_MOST_FORGOTTEN = MOST_BODY // OVERHEAD + 100

_PREFIX = "relay:payload:"

_diagnostics = logging.getLogger("relay.payloads")


def payload_key(delivery: str) -> str:
    """Where the payload of a delivery is kept, by its id: JSON that zlib has compressed, or why
    there is none."""
    return f"{_PREFIX}{delivery}"


class Held:
    """A body that may be kept. Whoever has it either keeps or releases it, at the latest when its
    delivery is stored; to release what is kept does nothing."""

    __slots__ = ("_keeper", "body", "content_type", "delivery", "size")

    def __init__(self, keeper: PayloadKeeper, content_type: str, body: bytes | None) -> None:
        """A ``body`` of None is one that is too large."""
        self._keeper = keeper
        self.content_type = content_type
        self.body = body
        self.size = len(body or b"")
        self.delivery = ""

    def keep(self, delivery: str) -> None:
        """Have it kept as the payload of a delivery, by its id."""
        self.delivery = delivery
        self._keeper.take(self)

    def release(self) -> None:
        """Give its room back."""
        if not self.delivery:
            self._keeper.give_back(self)


class PayloadKeeper:
    """Keeps the payloads of one receiver process."""

    def __init__(self, redis: Redis, *, budget: int, seconds: float) -> None:
        """``budget`` is the bytes that payloads take together in Redis, ``seconds`` how long each
        is kept at most."""
        self._script = redis.register_script(_KEEP)
        self._budget = budget
        self._seconds = int(seconds)
        self.held = 0
        """Bodies that wait."""
        self.held_bytes = 0
        """What they take together."""
        self._waiting: asyncio.Queue[Held] = asyncio.Queue()
        self._task: asyncio.Task[None] | None = None
        self._is_stopped = False

    def start(self) -> None:
        """Begin to keep."""
        self._task = asyncio.create_task(self._run())

    async def stop(self) -> None:
        """Drop what waits, and return."""
        self._is_stopped = True
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait({self._task})

    def hold(self, content_type: str, body: bytes) -> Held | None:
        """Room for a body whose delivery is about to be stored; None where there is none."""
        kept = body if len(body) <= MOST_BODY else None
        size = len(kept or b"")
        if self.held >= MOST_HELD or self.held_bytes + size > MOST_HELD_BYTES:
            return None
        self.held += 1
        self.held_bytes += size
        return Held(self, content_type, kept)

    def take(self, held: Held) -> None:
        """Keep it when its turn has come."""
        self._waiting.put_nowait(held)

    def give_back(self, held: Held) -> None:
        """It takes no room any more."""
        self.held -= 1
        self.held_bytes -= held.size

    async def _run(self) -> None:
        """Keep until cancelled, or stopped: a client of Redis may swallow a cancellation."""
        while not self._is_stopped:
            held = await self._waiting.get()
            began = monotonic()
            try:
                await self._keep(held)
            except Exception as error:
                _diagnostics.warning("the payload of a delivery is not kept (%s)", name_of(error))
                rest = LONGEST_REST
            else:
                rest = (monotonic() - began) * (1 / SHARE - 1)
            finally:
                self.give_back(held)
            del held
            if not self._is_stopped:
                await sleep(min(rest, LONGEST_REST))

    async def _keep(self, held: Held) -> None:
        value = TOO_LARGE
        if held.body is not None:
            value = await asyncio.to_thread(
                _written, held.content_type, held.body, audit.redactor()
            )
        await self._script(
            keys=[INDEX, payload_key(held.delivery)],
            args=[
                *(_PREFIX, held.delivery, value),
                *(self._budget, self._seconds, OVERHEAD, _MOST_FORGOTTEN),
            ],
        )


def _written(content_type: str, body: bytes, redact: Redactor) -> bytes:
    """What Redis gets of a body."""
    try:
        text = masked(unwrap(content_type, body), redact)
    except Malformed:
        return UNCLEAR
    return zlib.compress(text, 1) if len(text) <= MOST_BODY else TOO_LARGE
