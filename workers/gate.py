"""Whether a deploy may be called now, has to wait, or is out of date. The one place that decides.

Pure: what Redis knows, and the clock, come from the caller (workers/standing.py). Times are seconds
since the Unix epoch. What waits has used up no attempt.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Literal, NamedTuple

from config.model import Target
from config.policies import Breaker

Reason = Literal[
    "approval", "paused", "hours", "platform", "breaker", "debounce", "order", "probe", "rate"
]

PERSON_LOOK = 60
"""Seconds after which a deploy that waits for a person looks by itself. Resuming and approving wake
it; this is for one that was just about to wait."""

HOURS_LOOK = 300
"""Seconds after which a deploy that waits for an opening looks whether the hours have changed."""

RATE_LOOK = 300
"""Seconds after which a deploy that waits for its turn looks whether the rate has changed."""

PROBE_LOOK = 5
"""Seconds after which a deploy asks again how the probe has ended."""


@dataclass(frozen=True, slots=True)
class Standing:
    """How a target stands with all workers."""

    paused: float = 0
    """Since when an operator wants no calls; 0 where they may be made."""
    held: float = 0
    """When the platform wants to be called again."""
    failures: int = 0
    """Calls that failed in a row, until the breaker opened."""
    until: float = 0
    """When the open breaker lets a probe through; 0 while it is closed."""
    opened: int = 0
    """How often it opened without having closed in between."""


class Newest(NamedTuple):
    """The newest deploy of a branch, tag or pull request at a target where only that one counts."""

    job: str
    at: float = 0
    """When it was queued; 0 where no matter."""
    burst: float = 0
    """When the first of those was queued that have waited since without a call."""


CLOCKS_DIFFER = 5
"""Seconds by which the clocks of two workers may differ without looking like one that was set."""

LINE_LOOK = 60
"""Seconds after which a deploy looks whether the one before it is still to come: it may have been
cancelled."""


class Ahead(NamedTuple):
    """The deploy that comes first where they are made one by one."""

    job: str
    due: float = 0
    """When it runs next; 0 where it runs, or is about to."""
    place: float | None = None
    """Where the one who asks stands; None unless the first one waits for nothing but to be let in.
    """


class Request(NamedTuple):
    """What is known of the deploy that asks."""

    job: str
    expires: float = 0
    """Until when it was told to wait for approval; 0 where it has not been asked for yet."""
    approved: bool = False
    newest: Newest | None = None
    """None where each deploy counts."""
    ahead: Ahead | None = None


class Go(NamedTuple):
    """The call may be made. ``probe``: only if no other call is; it finds out for all."""

    probe: bool = False


class Wait(NamedTuple):
    """Not now. ``until`` is when, if that is known; ``look`` is when to ask again."""

    reason: Reason
    until: float | None
    look: float
    behind: str = ""
    """The deploy that comes first."""
    place: float | None = None
    """Where it stands in the line, if it can give its place at the target to that one at once."""


class Superseded(NamedTuple):
    """Never: the deploy ``by`` is newer."""

    by: str


class Expired(NamedTuple):
    """Never: nobody approved it in time."""

    at: float


def decide(
    request: Request, target: Target, standing: Standing, now: float
) -> Go | Wait | Superseded | Expired:
    """What becomes of a deploy that would call ``target`` now."""
    newest, debounce = request.newest, target.debounce
    standing = believable(standing, target, now)
    if newest is not None and newest.job != request.job:
        return Superseded(newest.job)
    if target.approval is not None and not request.approved:
        expires = request.expires or now + target.approval.expires
        if now >= expires:
            return Expired(expires)
        return Wait("approval", expires, min(expires, now + PERSON_LOOK))
    if standing.paused:
        return Wait("paused", None, now + PERSON_LOOK)
    opening = now if target.hours is None else target.hours.opening(now)
    if now < opening:
        return Wait("hours", opening, min(opening, now + HOURS_LOOK))
    if now < standing.held:
        return Wait("platform", standing.held, standing.held)
    if now < standing.until:
        return Wait("breaker", standing.until, standing.until)
    if newest is not None and debounce is not None:
        rested = min(newest.at + debounce.quiet, newest.burst + debounce.cap)
        if now < rested and newest.at < now + CLOCKS_DIFFER:
            return Wait("debounce", rested, rested)
    if request.ahead is not None:
        first, due, place = request.ahead
        look = min(max(due, now) + 1, now + LINE_LOOK)
        return Wait("order", due if due > now else None, look, first, place)
    return Go(probe=standing.until > 0)


def believable(standing: Standing, target: Target, now: float) -> Standing:
    """Without what lies further ahead than it can have been put: the clock was set back since."""
    held = max(target.retry.cap, target.retry.retry_after_cap) + CLOCKS_DIFFER
    opened = (target.breaker.cap if target.breaker else 0) + CLOCKS_DIFFER
    return replace(
        standing,
        held=standing.held if standing.held <= now + held else 0,
        until=standing.until if standing.until <= now + opened else now,
    )


def said(target: Target, standing: Standing, now: float, *, room: float = 0) -> str:
    """How a target stands, in words for an operator. ``room`` is when its rates allow a call."""
    if standing.paused:
        return f"paused since {moment(standing.paused)}"
    opening = now if target.hours is None else target.hours.opening(now)
    if now < opening:
        return f"outside its hours until {moment(opening)}"
    if now < standing.held:
        return f"its platform wants no calls until {moment(standing.held)}"
    if now < standing.until:
        return f"breaker open until {moment(standing.until)}"
    if standing.until:
        return "breaker open, the next call is the probe"
    return f"its rate is used up until {moment(room)}" if now < room else "ready"


def moment(time: float) -> str:
    """A time as the audit writes it: UTC, ISO 8601, whole seconds, rounded up."""
    return f"{datetime.fromtimestamp(math.ceil(time), UTC):%Y-%m-%dT%H:%M:%SZ}"


def probing(now: float) -> Wait:
    """What becomes of a deploy while another one is the probe."""
    return Wait("probe", None, now + PROBE_LOOK)


def queueing(turn: float, now: float) -> Wait:
    """What becomes of a deploy whose turn comes later."""
    return Wait("rate", turn, min(turn, now + RATE_LOOK))


def stays_open(breaker: Breaker, opened: int, now: float) -> float:
    """Until when a breaker that opens now stays open, having opened ``opened`` times in a row."""
    # The exponent is bounded so that 2**n stays a float whatever the policy says.
    return now + min(breaker.cap, breaker.pause * 2.0 ** min(opened, 64))
