"""Judges the result of a call: its outcome for the ledger. Pure."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

from config.model import OnUncertain, Target
from relay.events.gate import Lesson
from relay.ledger.claims import Asked
from relay.ledger.outcomes import Outcome
from workers.deploy.call import CallResult
from workers.platform.backoff import pause

TOO_MANY_REQUESTS = 429
"""The platform works, but limits its calls."""

UNAVAILABLE = 503
"""With a Retry-After the platform limits its calls, as with 429."""

NO_DECISION = "the platform may have deployed, so it is not called again without a human decision"


class JudgedCall(NamedTuple):
    """An outcome, and the fields of its audit line."""

    outcome: Outcome
    on_uncertain: OnUncertain | None = None
    """What follows an uncertain call; None after other calls."""
    seconds: float = 0
    """Until the next call, where there is one."""


def judge_result(
    asked: Asked,
    target: Target,
    result: CallResult,
    *,
    on_uncertain: OnUncertain,
    now: float,
    chance: float,
) -> JudgedCall:
    """Return the outcome of a call. ``now`` is seconds since the Unix epoch, ``chance`` uniform in
    [0, 1)."""
    seconds = _pause(target, asked.deploy.tries, result.asked_seconds, chance)
    verdict = result.verdict
    facts = _facts(asked, target, result, now + seconds)
    if verdict.outcome == "succeeded":
        outcome = Outcome(
            kind="succeeded", status="succeeded", deployment_id=verdict.deployment_id, **facts
        )
        return JudgedCall(outcome)
    if verdict.outcome == "failed":
        return JudgedCall(Outcome(kind="failed", status="failed", reason=verdict.reason, **facts))
    was_last = asked.deploy.tries >= target.retry.attempts
    if verdict.outcome == "uncertain":
        if result.was_stopped:
            on_uncertain = "hold"
        reason = verdict.reason
        if on_uncertain == "hold":
            reason = f"{reason}; {NO_DECISION}"
        elif was_last:
            reason = (
                f"{reason}; attempt {asked.attempt} was the last, and the platform may have "
                "deployed"
            )
        if on_uncertain == "hold" or was_last:
            return JudgedCall(
                Outcome(kind="uncertain", status="uncertain", reason=reason, **facts),
                on_uncertain,
            )
        again = Outcome(
            kind="uncertain", status="waiting", reason=reason, again_at=now + seconds, **facts
        )
        return JudgedCall(again, on_uncertain, seconds)
    if was_last:
        reason = f"{verdict.reason}; attempt {asked.attempt} was the last"
        return JudgedCall(Outcome(kind="failed", status="failed", reason=reason, **facts))
    again = Outcome(
        kind="retry", status="waiting", reason=verdict.reason, again_at=now + seconds, **facts
    )
    return JudgedCall(again, None, seconds)


def uncalled(asked: Asked, reason: str, again_at: float) -> Outcome:
    """Return the outcome of a claim whose call was not made. ``again_at`` is seconds since the Unix
    epoch."""
    return Outcome(
        kind="uncalled",
        status="waiting",
        reason=reason,
        again_at=again_at,
        counts=False,
        **_owner(asked),
    )


def unplannable(asked: Asked, reason: str) -> Outcome:
    """Return the outcome of a claim for which no call could be made at all."""
    return Outcome(kind="failed", status="failed", reason=reason, **_owner(asked))


def _pause(target: Target, tries: int, asked_seconds: float | None, chance: float) -> float:
    if asked_seconds is not None:
        return math.ceil(min(asked_seconds, target.retry.retry_after_cap))
    return round(pause(target.retry, tries, chance), 3)


def _owner(asked: Asked) -> dict[str, Any]:
    return {
        "deploy": asked.deploy.line.id,
        "claim": asked.claim,
        "attempt": asked.attempt,
        "is_probe": asked.is_probe,
        "subject": asked.deploy.line.target,
        "rate_at": asked.rate_at,
    }


def _facts(
    asked: Asked, target: Target, result: CallResult, limited_until: float
) -> dict[str, Any]:
    status = result.status
    wants_pause = status == TOO_MANY_REQUESTS or (
        status == UNAVAILABLE and result.asked_seconds is not None
    )
    outcome = result.verdict.outcome
    answered = outcome in ("succeeded", "failed") and not result.was_refused_here
    lesson = Lesson(
        answered=answered,
        failed=outcome in ("retry", "uncertain") and status != TOO_MANY_REQUESTS,
        limited_until=limited_until if wants_pause else 0,
    )
    return {
        **_owner(asked),
        "ms": result.ms,
        "http": status,
        "exchange": result.exchange,
        "lesson": None if result.was_stopped or result.was_refused_here else lesson,
        "breaker": target.breaker,
    }
