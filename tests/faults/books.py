"""The books: every delivery that was acknowledged has been deployed once, or the audit says that
nobody knows. Pure.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(slots=True)
class Balance:
    """What came of deliveries, counted by their commits."""

    acknowledged: int = 0
    deployed: int = 0
    uncertain: int = 0
    """Called once or not at all; the audit says that an attempt was cut off and how it went on."""
    lost: list[str] = field(default_factory=list)
    doubled: list[str] = field(default_factory=list)
    """Called more than once, and no line tells why."""
    unexplained: list[str] = field(default_factory=list)
    """Acknowledged, and no line of the audit says so."""

    def wrong(self) -> tuple[list[str], list[str], list[str]]:
        """The first of what must not be: lost, silently doubled, unexplained."""
        return self.lost[:5], self.doubled[:5], self.unexplained[:5]

    def __str__(self) -> str:
        return (
            f"acknowledged {self.acknowledged:,}; deployed {self.deployed:,}, "
            f"uncertain {self.uncertain:,}; lost {len(self.lost)}, silently doubled "
            f"{len(self.doubled)}, unexplained {len(self.unexplained)}"
        )


def balance(
    acknowledged: Iterable[str], calls: Mapping[str, int], lines: Iterable[Mapping[str, Any]]
) -> Balance:
    """Balance the books: what was acknowledged, what the platform saw, what the audit says."""
    said: set[str] = set()
    open_ends: set[str] = set()
    for line in lines:
        # Where Redis took a delivery and the answer was lost, the sender's retry is a duplicate.
        if line["event"] in ("delivery.queued", "delivery.duplicate"):
            said.add(line["sha"])
        elif line["event"] == "deploy.uncertain" or (
            line["event"] == "deploy.failed" and "cut off" in line["reason"]
        ):
            open_ends.add(line["sha"])
    result = Balance()
    for sha in acknowledged:
        number = calls.get(sha, 0)
        result.acknowledged += 1
        if sha in open_ends:
            result.uncertain += 1
        elif number == 1:
            result.deployed += 1
        else:
            (result.doubled if number else result.lost).append(sha)
        if sha not in said:
            result.unexplained.append(sha)
    return result
