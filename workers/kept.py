"""Attempts on their way to Redis: kept for people, in the step that writes how a run ended.

So they cost no round trip, and if Redis refuses them the outcome is written all the same.
"""

from __future__ import annotations

import logging
from collections import defaultdict
from typing import Any, NamedTuple

import msgspec

from relay.attempts_kept import (
    MOST_ATTEMPTS,
    AttemptRecord,
    Exchange,
    attempts_key,
    recorded,
)
from relay.audit import redacted

_logger = logging.getLogger("workers")


class Kept(NamedTuple):
    """One attempt as it is written, and for how many seconds its deploy's attempts are kept."""

    entry: bytes
    seconds: int


class Keeping:
    """Attempts of the jobs that run in this process."""

    def __init__(self) -> None:
        self._waiting: defaultdict[str, list[Kept]] = defaultdict(list)

    def keep(self, deploy: str, exchange: Exchange, *, seconds: float, **facts: Any) -> None:
        """Have an attempt written with its run's end. ``facts`` are those of ``recorded``. Never
        raises: what is looked at later must not change what happens now."""
        try:
            record = recorded(exchange, redact=redacted, **facts)
        except Exception as error:
            _logger.warning("an attempt of %s is not kept (%s)", deploy, type(error).__name__)
        else:
            self._add(deploy, record, seconds)

    def keep_cut_off(self, deploy: str, *, attempt: int, reason: str, seconds: float) -> None:
        """The same of an attempt whose call was cut off by a crash; more is not known of it."""
        record = AttemptRecord(at="", attempt=attempt, outcome="uncertain", reason=reason)
        self._add(deploy, record, seconds)

    def write(self, pipe: Any, deploy: str) -> None:
        """Put what waits of a deploy into a pipeline."""
        for command in self.take(deploy):
            pipe.execute_command(*command)

    def take(self, deploy: str) -> list[tuple[str | bytes | int, ...]]:
        """The commands that write what waits of a deploy."""
        kept = self._waiting.pop(deploy, [])
        if not kept:
            return []
        key = attempts_key(deploy)
        return [
            ("RPUSH", key, *(one.entry for one in kept)),
            ("LTRIM", key, -MOST_ATTEMPTS, -1),
            ("EXPIRE", key, kept[-1].seconds),
        ]

    def _add(self, deploy: str, record: AttemptRecord, seconds: float) -> None:
        entry = msgspec.json.encode(record)
        self._waiting[deploy].append(Kept(entry, max(1, int(seconds))))
