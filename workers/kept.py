"""Attempts on their way to Redis: kept for people, with the end of their run."""

from __future__ import annotations

import logging
from typing import Any

import msgspec

from relay.attempts_kept import MOST_ATTEMPTS, AttemptRecord, Exchange, attempts_key, recorded
from relay.audit import redacted
from workers.along import Along

_logger = logging.getLogger("workers")


def keep(along: Along, deploy: str, exchange: Exchange, *, seconds: float, **facts: Any) -> None:
    """Have an attempt kept for so many ``seconds``. ``facts`` are those of ``recorded``. Never
    raises: what is looked at later must not change what happens now."""
    try:
        record = recorded(exchange, redact=redacted, **facts)
    except Exception as error:
        _logger.warning("an attempt of %s is not kept (%s)", deploy, type(error).__name__)
    else:
        _add(along, deploy, record, seconds)


def keep_cut_off(along: Along, deploy: str, *, attempt: int, reason: str, seconds: float) -> None:
    """The same of an attempt whose call was cut off by a crash; more is not known of it."""
    record = AttemptRecord(at="", attempt=attempt, outcome="uncertain", reason=reason)
    _add(along, deploy, record, seconds)


def _add(along: Along, deploy: str, record: AttemptRecord, seconds: float) -> None:
    key = attempts_key(deploy)
    along.add(
        deploy,
        ("RPUSH", key, msgspec.json.encode(record)),
        ("LTRIM", key, -MOST_ATTEMPTS, -1),
        ("EXPIRE", key, max(1, int(seconds))),
    )
