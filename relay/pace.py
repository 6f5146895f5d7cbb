"""How much happened in each of the last minutes, over all processes: one small hash a minute.

Whoever writes deliveries and ends of deploys counts them in that same step, so that a write that is
repeated is counted once. Kept for people to look at; the audit is what counts.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec

KEPT = 7_200
"""Seconds for which a minute is known."""

DELIVERIES = "deliveries"
"""The field of new deliveries; ends of deploys have their status (relay/statuses.py)."""


class Minute(msgspec.Struct, frozen=True, kw_only=True):
    """What happened in one minute of the wall clock."""

    at: int
    """When it began, in seconds since the Unix epoch."""
    deliveries: int = 0
    """New ones that were queued, and old ones that were queued again."""
    succeeded: int = 0
    """Deploys; what was superseded or cancelled was never called and is not counted."""
    failed: int = 0
    held: int = 0

    @property
    def deploys(self) -> int:
        """Deploys that ended with an answer, or with the lack of one."""
        return self.succeeded + self.failed + self.held


def pace_key(now: float) -> str:
    """Where the minute of this moment is counted."""
    return f"relay:pace:{int(now // 60)}"


def minutes(now: float, count: int) -> list[int]:
    """When the last ``count`` minutes began, the running one last, in seconds since the epoch."""
    last = int(now // 60)
    return [60 * minute for minute in range(last - count + 1, last + 1)]


def minute(at: int, fields: Mapping[bytes, bytes]) -> Minute:
    """What is counted of the minute that began then."""
    counts = {
        name: int(fields.get(name.encode(), 0))
        for name in (DELIVERIES, "succeeded", "failed", "held")
    }
    return Minute(at=at, **counts)


def success_rate(known: Sequence[Minute]) -> float | None:
    """The share of deploys that succeeded, of those that ended; None where none did."""
    ended = sum(one.deploys for one in known)
    return sum(one.succeeded for one in known) / ended if ended else None
