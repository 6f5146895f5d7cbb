"""How a target stood in the Redis of the release before."""

from __future__ import annotations

from collections.abc import Sequence

from workers.gate import Standing

FIELDS = ("paused", "held", "failures", "until", "opened")


def standing_key(target: str) -> str:
    """Where it is kept how a target stands: a hash."""
    return f"relay:target:{target}"


def standing_of(values: Sequence[bytes | None]) -> Standing:
    """What the fields of the hash say."""
    paused, held, failures, until, opened = (float(value or 0) for value in values)
    return Standing(paused, held, int(failures), until, int(opened))
