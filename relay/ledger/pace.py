"""How much happened in each of the last minutes."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from relay.ledger.rows import MICROSECONDS
from relay.ledger.transaction import Reader

MINUTES = 60
"""Minutes that are told, the running one included."""

_MINUTE = 60 * MICROSECONDS


class Minute(msgspec.Struct, frozen=True, kw_only=True):
    """What happened in one minute of the wall clock."""

    at: int
    """When it began, in seconds since the Unix epoch."""
    deliveries: int = 0
    """Deliveries that were received, whatever became of them."""
    succeeded: int = 0
    """Deploys that ended so. What was superseded or cancelled was never called and does not
    count."""
    failed: int = 0
    uncertain: int = 0

    @property
    def deploys(self) -> int:
        """Deploys that ended with an answer, or with the lack of one."""
        return self.succeeded + self.failed + self.uncertain


class Pace:
    """Counts minutes. One that is over for a while is counted once and remembered."""

    def __init__(self) -> None:
        self._counted: dict[int, Minute] = {}

    async def read(self, reader: Reader) -> list[Minute]:
        """Return the last MINUTES, the running one last."""
        last = reader.now // _MINUTE
        minutes = [await self._minute(reader, last - ago) for ago in reversed(range(MINUTES))]
        # What is written now may be of the minute before, not of one before that.
        self._counted = {minute.at // 60: minute for minute in minutes[:-2]}
        return minutes

    async def _minute(self, reader: Reader, number: int) -> Minute:
        counted = self._counted.get(number)
        if counted is not None:
            return counted
        span = {"begin": number * _MINUTE, "end": (number + 1) * _MINUTE}
        received = await reader.row("deliveries_of_minute", span)
        ended = {row["status"]: row["number"] for row in await reader.rows("ends_of_minute", span)}
        return Minute(
            at=number * 60,
            deliveries=received["number"] if received else 0,
            succeeded=ended.get("succeeded", 0),
            failed=ended.get("failed", 0),
            uncertain=ended.get("uncertain", 0),
        )


def success_rate(minutes: Sequence[Minute]) -> float | None:
    """Return the share of deploys that succeeded, of those that ended; None where none did."""
    ended = sum(one.deploys for one in minutes)
    return sum(one.succeeded for one in minutes) / ended if ended else None
