"""How long to wait before the next attempt. Pure: randomness and clock come from the caller."""

from __future__ import annotations

from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

from config.policies import RetryPolicy


def pause(policy: RetryPolicy, attempt: int, chance: float) -> float:
    """Seconds to wait after ``attempt`` (counted from 1) failed, with full jitter.

    ``chance`` is uniform in [0, 1). Spreading over the whole interval keeps many jobs that failed
    together from coming back together:
    https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter/
    """
    # The exponent is bounded so that 2**n stays a float whatever the policy says.
    return chance * min(policy.cap, policy.base * 2.0 ** min(attempt - 1, 64))


def retry_after(value: str | None, now: float) -> float | None:
    """Seconds that a Retry-After header asks for, or None where it asks for nothing intelligible.

    Both forms of RFC 9110, section 10.2.3: a number of seconds, or a date. ``now`` is seconds
    since the Unix epoch; a date in the past gives 0.
    """
    if value is None:
        return None
    text = value.strip()
    if text.isascii() and text.isdigit():
        return float(text[:12])
    try:
        date = parsedate_to_datetime(text)
    except (ValueError, OverflowError):
        return None
    if date.tzinfo is None:
        date = date.replace(tzinfo=UTC)
    return max(0.0, (date - datetime.fromtimestamp(now, UTC)).total_seconds())
