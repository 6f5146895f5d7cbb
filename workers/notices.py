"""The job ``notify``: tells one notice, within the rate of its notifier over all workers.

What is over the rate is not told by itself. The first one over it waits for its turn and becomes
the one that also says how many more there were; those that come meanwhile are only counted, in the
hash ``relay:notices:<notifier>``, and who waits is in ``relay:telling:<notifier>``. A notice may be
told twice where an answer got lost; it never holds up a deploy.
"""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Mapping
from typing import Any, NamedTuple
from uuid import uuid4

import msgspec
from rq import Retry, get_current_job
from rq.job import Job

from config.errors import RelayError
from relay.audit import event_fields, log
from relay.notices import Messenger
from relay.records import JOB_PREFIX
from workers.announcing import Message
from workers.backoff import retry_after
from workers.ends import crashed
from workers.errors import CallFailed
from workers.gate import moment
from workers.runtime import Runtime, runtime
from workers.turns import take_turn
from workers.verdict import RETRYABLE, Answer

PAUSES = (5, 30, 120)
"""Seconds before each other attempt."""

LONGEST_PAUSE = 600
"""Seconds that a chat server's Retry-After is honoured for at most."""

TOTAL, CONNECT = 15, 5
"""Seconds that a call and its connection may take."""

KEPT = 86_400
"""Seconds beyond a rate's interval after which what was counted and never told is forgotten."""

_TOLD_FIELD = "told"
"""Our field of a notice's job: it was told, and only says how many more there were."""

# Whether this one may be told: not while another one waits to tell how many more there are.
_ASK = """
local waiting, counts, me, kind, ttl, wants = KEYS[1], KEYS[2], unpack(ARGV)
local holder = redis.call('GET', waiting)
if holder and holder ~= me then
  if kind ~= '' then
    redis.call('HINCRBY', counts, kind, 1)
    redis.call('EXPIRE', counts, ttl)
  end
  return {'counted'}
end
if holder or wants == '1' then redis.call('SET', waiting, me, 'EX', ttl) end
return {holder and 'first' or 'free', unpack(redis.call('HGETALL', counts))}
"""

# What was told counts no longer. Where more has come meanwhile, this one tells that too.
_DONE = """
local waiting, counts, me, ttl = KEYS[1], KEYS[2], ARGV[1], ARGV[2]
local left = 0
for n = 3, #ARGV, 2 do redis.call('HINCRBY', counts, ARGV[n], -ARGV[n + 1]) end
for _, number in ipairs(redis.call('HVALS', counts)) do left = left + math.max(0, number) end
if left == 0 then redis.call('DEL', counts) end
local holder = redis.call('GET', waiting)
if holder and holder ~= me then return 0 end
if left == 0 then redis.call('DEL', waiting)
else redis.call('SET', waiting, me, 'EX', ttl) end
return left
"""

# Who gives up lets the next one tell what was counted.
_GIVE_UP = """
if redis.call('GET', KEYS[1]) == ARGV[1] then redis.call('DEL', KEYS[1]) end
"""


class _Turn(NamedTuple):
    """``wait`` is when to ask again, in seconds since the Unix epoch; ``counted`` that this one is
    not told by itself; ``more`` what is told with it."""

    counted: bool = False
    wait: float | None = None
    more: Mapping[str, int] = {}


async def notify(raw: str) -> dict[str, Any] | Retry:
    """Tell one notice. Returns what became of it, or RQ's Retry where it is to run again.

    Raises redis.exceptions.RedisError.
    """
    job = get_current_job()
    if job is None:
        raise LookupError("this runs as an RQ job only")
    fields: dict[str, Any] | None = None
    try:
        message = msgspec.json.decode(raw, type=Message)
        notice = message.notice
        fields = {
            "notice": job.id,
            "notifier": message.notifier,
            "about": notice.kind,
            "delivery": notice.delivery,
            "source": notice.source,
            **event_fields(notice.event),
            "deploy": notice.deploy,
            "route": notice.route,
            "target": notice.target,
        }
        async with runtime() as rt:
            return await _Telling(rt, job, message, fields).run()
    except Exception as error:
        crashed(job, error, fields)
        raise


class _Telling:
    """One run of the job."""

    def __init__(self, rt: Runtime, job: Job, message: Message, fields: dict[str, Any]) -> None:
        self._rt = rt
        self._job = job
        self._message = message
        self._fields = fields
        self._keys = (f"relay:telling:{message.notifier}", f"relay:notices:{message.notifier}")

    async def run(self) -> dict[str, Any] | Retry:
        name = self._message.notifier
        messenger = next((one for one in self._rt.project.messengers if one.name == name), None)
        if messenger is None:
            return await self._fail("relay.yaml no longer has this notifier", {})
        told = bool(await self._rt.send("HGET", f"{JOB_PREFIX}{self._job.id}", _TOLD_FIELD))
        turn = await self._turn(messenger, told=told)
        if turn.counted:
            if not told:
                log.warning("notice.held", **self._fields)
            return {"held": not told}
        if turn.wait is not None:
            return self._again(math.ceil(turn.wait - time.time()) + 1, counts=False)
        return await self._tell(messenger, turn.more, told=told)

    async def _turn(self, messenger: Messenger, *, told: bool) -> _Turn:
        first = await self._ask(messenger, told=told, wants=False)
        if first[0] == b"counted":
            return _Turn(counted=True)
        promised = await take_turn(
            self._rt.redis,
            # A target's name has no slash.
            f"notify/{messenger.name}",
            [messenger.rate],
            owner="notice",
            call=uuid4().hex,
            now=time.time(),
        )
        if promised is None:
            return _Turn(more=_counts(first[1:]))
        again = await self._ask(messenger, told=told, wants=True)
        if again[0] == b"counted":
            return _Turn(counted=True)
        if again[0] == b"free":
            log.warning("notice.held", until=moment(promised), **self._fields)
        return _Turn(wait=promised)

    async def _ask(self, messenger: Messenger, *, told: bool, wants: bool) -> list[bytes]:
        kind = "" if told else self._message.notice.kind
        found: Any = await self._rt.redis.eval(
            *(_ASK, 2, *self._keys, self._job.id, kind, _ttl(messenger), int(wants))
        )
        return list(found)

    async def _tell(
        self, messenger: Messenger, more: Mapping[str, int], *, told: bool
    ) -> dict[str, Any] | Retry:
        started = time.monotonic()
        status: int | None = None
        asked: float | None = None
        try:
            call = messenger.call(
                self._message.notice,
                lambda ref: ref.reveal(),
                console=self._rt.project.settings.console_url,
                more=more,
                told=told,
            )
            answer = await self._rt.client.call(
                call, idempotency_key=self._job.id, total=TOTAL, connect=CONNECT
            )
        except CallFailed as failure:
            reason, again = str(failure), True
        except RelayError as failure:
            reason, again = str(failure), False
        else:
            status = answer.status
            reason, again = _judge(answer)
            asked = retry_after(answer.headers.get("Retry-After"), time.time())
        self._fields |= {"status": status, "ms": round((time.monotonic() - started) * 1000, 1)}
        number = self._job.number_of_retries or 0
        if reason and again and number < len(PAUSES):
            return self._again(max(PAUSES[number], math.ceil(min(asked or 0, LONGEST_PAUSE))))
        if reason:
            return await self._fail(reason, more)
        log.info("notice.sent", more=sum(more.values()), **self._fields)
        return await self._done(messenger, more)

    async def _done(self, messenger: Messenger, more: Mapping[str, int]) -> dict[str, Any] | Retry:
        told = [part for pair in more.items() for part in pair]
        args: list[str | int] = [*self._keys, self._job.id, _ttl(messenger), *told]
        left: Any = await self._rt.redis.eval(_DONE, 2, *args)
        if not left:
            return {"sent": True}
        await self._rt.send("HSET", f"{JOB_PREFIX}{self._job.id}", _TOLD_FIELD, 1)
        self._job.number_of_retries = 0
        return self._again(1, counts=False)

    async def _fail(self, reason: str, more: Mapping[str, int]) -> dict[str, Any]:
        log.error("notice.failed", reason=reason, more=sum(more.values()), **self._fields)
        await self._rt.redis.eval(_GIVE_UP, 1, self._keys[0], self._job.id)
        return {"failed": reason}

    def _again(self, seconds: int, *, counts: bool = True) -> Retry:
        if not counts:
            # RQ counts one more when it takes the Retry; waiting is no attempt.
            self._job.number_of_retries = (self._job.number_of_retries or 0) - 1
        return Retry(max=sys.maxsize, interval=max(1, seconds))


def _judge(answer: Answer) -> tuple[str, bool]:
    """Why an answer is none that was hoped for, and whether trying again may help."""
    if 200 <= answer.status < 300:
        return "", False
    return f"HTTP {answer.status}", answer.status in RETRYABLE


def _counts(pairs: list[bytes]) -> dict[str, int]:
    found = {
        kind.decode(): int(number) for kind, number in zip(pairs[::2], pairs[1::2], strict=True)
    }
    return {kind: number for kind, number in found.items() if number > 0}


def _ttl(messenger: Messenger) -> int:
    return math.ceil(messenger.rate.seconds) + KEPT
