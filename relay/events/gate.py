"""Whether a deploy may be called now, has to wait, or is out of date. The one place that decides.

Pure: what the ledger knows comes from the caller (relay/ledger/claims.py), the policy from
relay.yaml. Times are seconds since the Unix epoch. What waits has used up no attempt.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import NamedTuple

import msgspec

from config.model import Target
from config.policies import Breaker
from config.values import RateLimit
from relay.events.deploy_life import WaitReason

PERSON_LOOK = 3_600
"""Seconds after which a deploy that waits for a person is judged again. Resuming and approving wake
it at once."""

HOURS_LOOK = 300
"""Seconds after which a deploy that waits for an opening looks whether the hours have changed."""

RATE_LOOK = 300
"""Seconds after which a deploy that waits for its turn looks whether the rate has changed."""

LINE_LOOK = 300
"""Seconds after which a deploy that waits for another one is judged again. The end of that one
wakes it; this is for a change of relay.yaml."""

CLOCKS_DIFFER = 5
"""Seconds by which a time may lie further ahead than it can have been put, before the clock counts
as set back."""


class TargetState(msgspec.Struct, frozen=True, kw_only=True):
    """What all workers know of a target. A time of 0 means: none."""

    name: str
    paused_at: float = 0
    limited_until: float = 0
    """When the platform wants to be called again, after 429 or Retry-After."""
    failures: int = 0
    """Calls that failed in a row, until the breaker opened."""
    opened: int = 0
    """How often the breaker opened without having closed in between."""
    open_until: float = 0
    """When the open breaker lets a probe through; 0 while it is closed."""


class Facts(msgspec.Struct, frozen=True, kw_only=True):
    """What the ledger knows of a deploy that asks to be called."""

    deploy: int
    target: TargetState
    approved: bool = False
    approval_until: float = 0
    """Until when it may be approved; 0 where nobody has been asked yet."""
    ended: bool = False
    """A newer state of its ref deleted or closed it."""
    newer: int = 0
    """The newest deploy of its target and ref that was queued behind it and not cancelled."""
    live: int = 0
    """The deploy that succeeded last there, if it is newer than this one."""
    ahead: int = 0
    """A deploy of its target and ref that comes first: an older one that waits for the clock, or
    any one that is being called."""
    ahead_until: float = 0
    """When that one is due; 0 where it is being called."""
    calling: int = 0
    """Calls of the target that are being made."""
    is_probed: bool = False
    """One of them is the breaker's probe."""
    created_at: float = 0
    line_at: float = 0
    """Since when it, or what it superseded uncalled, waits."""
    attempt: int = 0
    """Calls of it that have begun."""
    rate_calls: Sequence[float] = ()
    """For each rate of the target, when its last call but ``most`` - 1 was made; 0 where there were
    fewer."""
    rate_place: int = 0
    """How many deploys stand before it in the line for the target's rates."""


class Go(NamedTuple):
    """The call may be made. ``probe``: it finds out for all whether the target is well again."""

    probe: bool = False


class Wait(NamedTuple):
    """Not now. ``until`` is when, if that is known; ``look`` is when to judge again."""

    reason: WaitReason
    until: float | None
    look: float
    behind: int = 0
    """The deploy that comes first."""


class Superseded(NamedTuple):
    """Never. ``by`` is the newer deploy; 0 where its ref ended."""

    by: int
    reason: str


class Expired(NamedTuple):
    """Never: nobody approved it in time."""

    at: float


Decision = Go | Wait | Superseded | Expired

ENDED = "its branch, tag or pull request has ended since"
OVERTAKEN = "a newer state of its ref is live there"
REPLACED = "a newer state of its ref was queued"


def decide(facts: Facts, policy: Target, now: float) -> Decision:
    """Return what becomes of a deploy that would call its target now."""
    return _out_of_date(facts, policy) or _waits(facts, policy, now) or _go(facts, policy, now)


def _out_of_date(facts: Facts, policy: Target) -> Superseded | None:
    if facts.ended:
        return Superseded(0, ENDED)
    if facts.live:
        return Superseded(facts.live, OVERTAKEN)
    if facts.newer and policy.newest_only:
        return Superseded(facts.newer, REPLACED)
    return None


def _waits(facts: Facts, policy: Target, now: float) -> Wait | Expired | None:
    if policy.approval is not None and not facts.approved:
        expires = facts.approval_until or now + policy.approval.expires
        if now >= expires:
            return Expired(expires)
        return Wait("approval", expires, min(expires, now + PERSON_LOOK))
    if facts.ahead:
        due = facts.ahead_until
        until = due if due > now else None
        return Wait("order", until, now + LINE_LOOK, facts.ahead)
    state = believable(facts.target, policy, now)
    if state.paused_at:
        return Wait("paused", None, now + PERSON_LOOK)
    opening = now if policy.hours is None else policy.hours.opening(now)
    if now < opening:
        return Wait("hours", opening, min(opening, now + HOURS_LOOK))
    if now < state.limited_until:
        return Wait("platform", state.limited_until, state.limited_until)
    if now < state.open_until:
        return Wait("breaker", state.open_until, state.open_until)
    return _rests(facts, policy, now)


def _rests(facts: Facts, policy: Target, now: float) -> Wait | None:
    """Wait until no newer deploy comes; the newest goes when the first has waited for the cap."""
    if policy.debounce is None or facts.attempt:
        return None
    rested = min(
        facts.created_at + policy.debounce.quiet,
        facts.line_at + policy.debounce.cap,
    )
    if now < rested and facts.created_at < now + CLOCKS_DIFFER:
        return Wait("debounce", rested, rested)
    return None


def _go(facts: Facts, policy: Target, now: float) -> Go | Wait:
    state = believable(facts.target, policy, now)
    is_probe = policy.breaker is not None and state.open_until > 0
    if is_probe and facts.is_probed:
        return Wait("probe", None, now + LINE_LOOK)
    if facts.calling >= policy.concurrency:
        return Wait("slot", None, now + LINE_LOOK)
    turn = turn_at(policy.rate, facts.rate_calls, facts.rate_place)
    if now < turn:
        return Wait("rate", turn, min(turn, now + RATE_LOOK))
    return Go(is_probe)


def turn_at(rates: Sequence[RateLimit], calls: Sequence[float], place: int) -> float:
    """Return when the deploy at this place of the line (0 is the first) may be called by ``rates``.

    ``calls`` are Facts.rate_calls. It is an estimate behind the first place: others may be called
    late, or never.
    """
    turn = 0.0
    for rate, last in zip(rates, calls, strict=True):
        if last:
            turn = max(turn, last + rate.seconds * (1 + place // rate.most))
    return turn


def believable(state: TargetState, policy: Target, now: float) -> TargetState:
    """Return the state without what lies further ahead than it can have been put: the clock was set
    back since. Without a breaker in relay.yaml its failures do not count."""
    limited = max(policy.retry.cap, policy.retry.retry_after_cap) + CLOCKS_DIFFER
    breaker = policy.breaker
    open_until = 0.0
    if breaker is not None and state.open_until:
        is_possible = state.open_until <= now + breaker.cap + CLOCKS_DIFFER
        open_until = state.open_until if is_possible else now
    return msgspec.structs.replace(
        state,
        limited_until=state.limited_until if state.limited_until <= now + limited else 0,
        open_until=open_until,
        failures=state.failures if breaker is not None else 0,
    )


def state_in_words(state: TargetState, policy: Target, now: float, *, room_at: float = 0) -> str:
    """Return how a target stands, for an operator. ``room_at`` is when its rates allow a call."""
    state = believable(state, policy, now)
    if state.paused_at:
        return f"paused since {moment(state.paused_at)}"
    opening = now if policy.hours is None else policy.hours.opening(now)
    if now < opening:
        return f"outside its hours until {moment(opening)}"
    if now < state.limited_until:
        return f"its platform wants no calls until {moment(state.limited_until)}"
    if now < state.open_until:
        return f"breaker open until {moment(state.open_until)}"
    if state.open_until:
        return "breaker open, the next call is the probe"
    return f"its rate is used up until {moment(room_at)}" if now < room_at else "ready"


def moment(time: float) -> str:
    """Return a time as the audit writes it: UTC, ISO 8601, whole seconds, rounded up."""
    return f"{datetime.fromtimestamp(math.ceil(time), UTC):%Y-%m-%dT%H:%M:%SZ}"


class Lesson(NamedTuple):
    """What one call tells of its target."""

    answered: bool
    """The platform gave an answer that says that it is well, be it a refusal."""
    failed: bool
    """It did not."""
    limited_until: float = 0
    """Until when the platform wants no calls, by anyone; 0 where it did not say."""


class Learnt(NamedTuple):
    """How a target stands after a call, and what is new about it."""

    state: TargetState
    is_limited: bool = False
    has_opened: bool = False
    has_closed: bool = False


def learn(
    state: TargetState, breaker: Breaker | None, lesson: Lesson, now: float, *, probe: bool
) -> Learnt:
    """Return how a target stands after a call. ``probe``: the open breaker had let it through.

    Only the probe closes the breaker: a call that began before it opened tells nothing of the time
    since.
    """
    is_limited = lesson.limited_until > state.limited_until
    if is_limited:
        state = msgspec.structs.replace(state, limited_until=lesson.limited_until)
    if breaker is None or not (lesson.answered or lesson.failed):
        return Learnt(state, is_limited)
    if lesson.answered:
        if state.open_until and not probe:
            return Learnt(state, is_limited)
        well = msgspec.structs.replace(state, failures=0, opened=0, open_until=0)
        return Learnt(well, is_limited, has_closed=state.open_until > 0)
    failures = state.failures + 1
    if probe or (failures >= breaker.failures and not state.open_until):
        opened = state.opened if probe else 0
        until = stays_open(breaker, opened, now)
        state = msgspec.structs.replace(
            state, failures=failures, opened=opened + 1, open_until=until
        )
        return Learnt(state, is_limited, has_opened=True)
    return Learnt(msgspec.structs.replace(state, failures=failures), is_limited)


def stays_open(breaker: Breaker, opened: int, now: float) -> float:
    """Return until when a breaker that opens now stays open, having opened ``opened`` times in a
    row before."""
    # The exponent is bounded so that 2**n stays a float whatever the policy says.
    return now + min(breaker.cap, breaker.pause * 2.0 ** min(opened, 64))
