"""The attempts of deploys as they are kept for people, read from Redis."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
from redis.asyncio import Redis

MOST = 20
"""Attempts of one deploy that are shown, the latest."""

_PREFIX = "relay:attempts:"


class Call(msgspec.Struct, frozen=True, kw_only=True):
    """One attempt; its secrets were masked when it was kept."""

    at: str = ""
    attempt: int = 0
    outcome: str = ""
    reason: str = ""
    method: str = ""
    host: str = ""
    request_headers: Mapping[str, str] = {}
    request_body: str = ""
    status: int | None = None
    response_headers: Mapping[str, str] = {}
    response_body: str = ""
    ms: float | None = None
    anchor: str = ""


async def calls_of(redis: Redis, deploys: Sequence[str]) -> dict[str, list[Call]]:
    """The attempts of each of these deploys, the oldest first.

    Raises redis.exceptions.RedisError.
    """
    async with redis.pipeline(transaction=False) as pipe:
        for id_ in deploys:
            pipe.lrange(_PREFIX + id_, -MOST, -1)
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
