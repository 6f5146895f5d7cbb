"""The attempts of deploys as they are kept for people, read from Redis."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
from redis.asyncio import Redis

from relay.attempts_kept import MOST_ATTEMPTS, AttemptRecord, attempts_key


class Call(AttemptRecord, frozen=True, kw_only=True):
    """One attempt, and where it stands on a page."""

    anchor: str = ""


async def calls_of(redis: Redis, deploys: Sequence[str]) -> dict[str, list[Call]]:
    """The attempts of each of these deploys, the oldest first.

    Raises redis.exceptions.RedisError.
    """
    async with redis.pipeline(transaction=False) as pipe:
        for id_ in deploys:
            pipe.lrange(attempts_key(id_), -MOST_ATTEMPTS, -1)
        kept: Any = await pipe.execute()
    return {id_: _read(id_, entries) for id_, entries in zip(deploys, kept, strict=True)}


def _read(deploy: str, entries: Sequence[bytes]) -> list[Call]:
    calls = []
    for number, entry in enumerate(entries):
        try:
            call = msgspec.json.decode(entry, type=Call)
        except (msgspec.MsgspecError, UnicodeDecodeError):
            continue
        calls.append(msgspec.structs.replace(call, anchor=f"{deploy}-{number}"))
    return calls
