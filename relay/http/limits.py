"""What keeps senders within bounds: a rate for each source, a budget of bytes for all bodies.
Pure: who asks says what time it is."""

from __future__ import annotations

import math

FREE = 131_072
"""Bytes of a body that no budget counts: a connection holds as much in its buffer whether or not it
is read (aiohttp's StreamReader stops at twice its limit, 64 KiB). So a small webhook is taken
however many large ones are under way."""


class TokenBucket:
    """Lets ``count`` pass at once, and ``count`` in every ``seconds`` from then on."""

    __slots__ = ("_count", "_each", "_left", "_then")

    def __init__(self, count: int, seconds: float) -> None:
        self._count = count
        self._each = seconds / count
        self._left = float(count)
        self._then = -math.inf

    def take(self, now: float) -> float:
        """Take one. Returns 0, or the seconds until there is one, and then nothing is taken.

        ``now`` is in seconds of any clock that does not run backwards.
        """
        gained = max(0.0, now - self._then) / self._each
        self._left = min(self._count, self._left + gained)
        self._then = now
        if self._left < 1:
            return (1 - self._left) * self._each
        self._left -= 1
        return 0


class ByteBudget:
    """How much all bodies that are being read may take together."""

    __slots__ = ("held", "limit")

    def __init__(self, limit: int) -> None:
        """``limit`` is in bytes."""
        self.limit = limit
        self.held = 0

    def fits(self, size: int) -> bool:
        """Whether a body of ``size`` bytes could be read now, if no other one grew meanwhile."""
        return self.held + max(0, size - FREE) <= self.limit

    def share(self) -> Share:
        """The part of one body; whoever asks for it releases it."""
        return Share(self)


class Share:
    """What one body takes of the budget."""

    __slots__ = ("_budget", "_taken")

    def __init__(self, budget: ByteBudget) -> None:
        self._budget = budget
        self._taken = 0

    def grow(self, size: int) -> bool:
        """Whether the body may have grown to ``size`` bytes; if not, nothing is taken."""
        more = max(0, size - FREE) - self._taken
        if self._budget.held + more > self._budget.limit:
            return False
        self._budget.held += more
        self._taken += more
        return True

    def release(self) -> None:
        """Give back what was taken."""
        self._budget.held -= self._taken
        self._taken = 0
