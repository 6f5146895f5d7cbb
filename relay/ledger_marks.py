"""Finds out whether the ledger went back in time, and says so: once, by the line ``ledger.behind``.

Each process calls ``check_at_start`` before its work begins; who sweeps keeps the mark in Redis.
Redis decides nothing else.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from pathlib import Path
from typing import Any

from redis.asyncio import Redis
from redis.exceptions import RedisError

from config.settings import Settings
from relay.audit import flush, log
from relay.audit_facts import last_ids, revoked_tokens
from relay.errors import AuditUnreadable
from relay.events.ids import Kind, public_id
from relay.ledger.acceptance import in_words
from relay.ledger.generation import (
    Behind,
    LastIds,
    Mark,
    Outside,
    decode_mark,
    encode_mark,
    find_ahead,
    note_behind,
    read_mark,
    read_mark_file,
    redis_mark_key,
)
from relay.ledger.ledger import Ledger
from relay.store import connect_async


async def check_marks(
    ledger: Ledger, settings: Settings, redis_mark: bytes | str | None = None
) -> bool:
    """Compare the ledger with the mark beside it, the audit file and the mark in Redis, where
    there is one. Return whether the ledger is behind. Raises LedgerUnavailable, AuditUnavailable
    and AuditUnreadable."""
    if await ledger.refresh():
        return True
    marks: dict[Outside, Mark | None] = {
        "file": await asyncio.to_thread(read_mark_file, ledger.folder),
        "redis": decode_mark(redis_mark),
    }
    audit = settings.audit_file
    try:
        audit_ids = LastIds() if audit is None else await asyncio.to_thread(last_ids, audit)
        if not await ledger.glance(lambda reader: find_ahead(reader, marks, audit_ids)):
            return False
        revoked = await asyncio.to_thread(_revoked, audit)
    except OSError as error:
        raise AuditUnreadable(f"{audit} cannot be read ({error.strerror})") from None
    noted = await ledger.commit(lambda tx: note_behind(tx, marks, audit_ids, revoked))
    if noted is not None:
        _say(noted)
    return await ledger.refresh()


async def check_redis_mark(ledger: Ledger, settings: Settings, old: bytes | str | None) -> bool:
    """Return whether the ledger is behind, after a mark was met in Redis. It costs next to nothing
    where the mark is not ahead. Raises LedgerUnavailable and AuditUnreadable."""
    mark = decode_mark(old)
    marks: dict[Outside, Mark | None] = {"redis": mark}
    if mark is None or ledger.is_behind:
        return ledger.is_behind
    if not await ledger.glance(lambda reader: find_ahead(reader, marks, LastIds())):
        return False
    return await check_marks(ledger, settings, old)


async def mark_for_redis(ledger: Ledger) -> bytes | None:
    """Return the mark that belongs into Redis; None while the ledger is behind: then the one that
    is there stays. Raises LedgerUnavailable."""
    if ledger.is_behind:
        return None
    return encode_mark(await ledger.glance(read_mark))


async def check_at_start(ledger: Ledger, settings: Settings) -> bool:
    """Compare the ledger with all marks that can be read now. Return whether it is behind. Raises
    LedgerUnavailable, AuditUnavailable and AuditUnreadable."""
    redis = connect_async(settings.redis_address(), timeout=settings.store_timeout, repeats=False)
    mark: Any = None
    try:
        mark = await redis.get(redis_mark_key(settings.queue))
    except (RedisError, OSError):
        # Who sweeps looks at it when Redis is back.
        pass
    finally:
        with suppress(RedisError, OSError):
            await redis.aclose()
    return await check_marks(ledger, settings, mark)


class RedisMark:
    """The mark in Redis, as one process keeps it."""

    def __init__(self, ledger: Ledger, settings: Settings) -> None:
        self._ledger = ledger
        self._settings = settings
        self._key = redis_mark_key(settings.queue)
        self._written = b""

    async def exchange(self, redis: Redis) -> bool:
        """Write how far the ledger has come, unless the mark in Redis is ahead of it. Return
        whether the ledger is behind. Raises LedgerUnavailable and AuditUnreadable."""
        mark = await mark_for_redis(self._ledger)
        if mark is None or mark == self._written:
            return self._ledger.is_behind
        try:
            old: Any = await redis.get(self._key)
            if await check_redis_mark(self._ledger, self._settings, old):
                return True
            await redis.set(self._key, mark)
        except (RedisError, OSError):
            return False
        self._written = mark
        return False


def _revoked(audit: Path | None) -> frozenset[str]:
    return revoked_tokens(audit) if audit is not None else frozenset()


def _last(kind: Kind, number: int) -> str:
    return public_id(kind, number) if number else ""


def _say(behind: Behind) -> None:
    log.error(
        "ledger.behind",
        reason=in_words(behind),
        ahead=list(behind.ahead),
        last_delivery=_last("delivery", behind.before.delivery),
        last_deploy=_last("deploy", behind.before.deploy),
        next_delivery=public_id("delivery", behind.skipped.delivery + 1),
        next_deploy=public_id("deploy", behind.skipped.deploy + 1),
    )
    flush()
