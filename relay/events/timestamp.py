"""The times that git servers write into their webhooks. Pure."""

from __future__ import annotations

from datetime import datetime

from relay.events.event import MAX_TIME

LATEST = 253_402_300_799
"""The last second of the year 9999, in seconds since the Unix epoch."""


def parse_timestamp(value: int | str | None) -> float | None:
    """Return the seconds since the Unix epoch of a time as a git server writes it; None if it
    cannot be read.

    Servers write whole seconds since the epoch (GitHub), ISO 8601 with a time zone, or
    ``2026-01-31 12:00:00 UTC`` (GitLab). A time at or before the epoch is none: servers written
    in Go send the year 1 where no time is set.
    """
    if isinstance(value, str):
        if len(value) > MAX_TIME:
            return None
        if " " in value[11:]:
            value = value.replace(" UTC", "+00:00").replace(" +", "+").replace(" -", "-")
        try:
            time = datetime.fromisoformat(value)
            seconds = 0.0 if time.tzinfo is None else time.timestamp()
        except (ValueError, OverflowError):
            return None
    else:
        seconds = value or 0
    return float(seconds) if 0 < seconds <= LATEST else None
