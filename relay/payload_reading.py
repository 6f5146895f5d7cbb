"""The payload of a delivery as it is kept for people, or why there is none."""

from __future__ import annotations

import json
import re
import time
import zlib
from typing import Any

import msgspec
from redis.asyncio import Redis

from config.settings import Settings
from relay.errors import NoSuchThing
from relay.events.event import Delivery
from relay.reading import Record, epoch, read_argument
from relay.records import JOB_PREFIX

MOST_BODY = 1_048_576
"""Bytes of a payload in Redis at most."""

TOO_LARGE = b"too large"
UNCLEAR = b"unclear"
"""What stands in Redis in place of a payload that is not kept, and says why."""

_INSTEAD = {
    TOO_LARGE: f"the payload is not kept: it is larger than {MOST_BODY // 1_048_576} MiB",
    UNCLEAR: "the payload is not kept: secrets in it could not be looked for",
}

_LATE = 1.0
"""Seconds between a webhook and its delivery in Redis that tell of the way through the spool, which
asks Redis no sooner again."""

_MOST_WHOLE = 8 * MOST_BODY
"""Characters of a payload on many lines. One that is nested deeply has more blanks than fit
anywhere; it stays on one line."""

_encoder = json.JSONEncoder(indent=2, ensure_ascii=False)

_UNSEEN = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u200b-\u200f\u2028-\u202e\u2066-\u2069\ufeff]")
"""What moves a terminal's cursor, or turns the direction of a text round."""


def payload_key(delivery: str) -> str:
    """Return where Redis has the payload of a delivery."""
    return f"relay:payload:{delivery}"


async def read_payload(redis: Redis, record: Record, settings: Settings) -> bytes:
    """The payload of a delivery, as JSON, its secrets masked.

    Raises NoSuchThing with the reason where there is none, as far as it is known, and
    redis.exceptions.RedisError.
    """
    value: Any = await redis.get(payload_key(record.id))
    if value is not None:
        return _unpacked(value)
    data: Any = await redis.hget(JOB_PREFIX + record.id, "data")
    delivery = read_argument(data or b"", Delivery)
    received_at = delivery.received_at if delivery else 0.0
    raise NoSuchThing(missing_because(record, received_at, time.time(), settings))


def _unpacked(value: bytes) -> bytes:
    if value in _INSTEAD:
        raise NoSuchThing(_INSTEAD[value])
    try:
        payload = zlib.decompressobj().decompress(value, MOST_BODY)
        msgspec.json.decode(payload)
    except (zlib.error, msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise NoSuchThing("the payload cannot be read") from None
    return payload


def missing_because(record: Record, received_at: float, now: float, settings: Settings) -> str:
    """Why a payload is not there. Times are in seconds since the Unix epoch, 0 if not known."""
    queued_at = epoch(record.created_at)
    if record.replay_of:
        return f"a replay has no payload of its own; it came with {record.replay_of}"
    if queued_at + settings.duplicate_window < now:
        return "the payload is not kept any longer: it is older than RELAY_DUPLICATE_WINDOW"
    if received_at and queued_at - received_at >= _LATE:
        return "the payload is not kept: Redis took the delivery late, and the spool keeps none"
    return "the payload is not kept: more arrived than is kept, or newer ones have taken its place"


def whole(payload: bytes) -> str:
    """A payload for people, on many lines; see ``beginning``."""
    text = beginning(payload, _MOST_WHOLE)
    return text if len(text) < _MOST_WHOLE else _harmless(payload.decode(errors="replace"))


def beginning(payload: bytes, most: int) -> str:
    """What a payload begins with, on many lines, in ``most`` characters or a few more. What would
    move a terminal's cursor is escaped as JSON escapes it, so that all of it stays the same."""
    parts: list[str] = []
    size = 0
    try:
        for part in _encoder.iterencode(json.loads(payload)):
            parts.append(part)
            size += len(part)
            if size >= most:
                break
    except (ValueError, RecursionError):
        parts = [payload.decode(errors="replace")]
    return _harmless("".join(parts)[:most])


def _harmless(text: str) -> str:
    return _UNSEEN.sub(lambda found: f"\\u{ord(found[0]):04x}", text)
