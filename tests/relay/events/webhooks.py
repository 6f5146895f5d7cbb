"""Short ways to write what the webhooks of each kind of git server say of one ref."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from relay.events.ref_change import RefChange
from relay.events.ref_history import Arrival, Judgement, State, apply, judge

BRANCH = "refs/heads/main"

Situation = tuple[str, list[Arrival], str]
"""What happened, the webhooks in the order of arrival, and their verdicts."""


def github(origin: str | None, value: str, at: float, **more: Any) -> Arrival:
    """A push to GitHub: an own clock, and one delivery id for all hooks."""
    return _webhook(origin, value, at, at, own_clock=True, **more)


def gitlab(origin: str | None, value: str, time: float, **more: Any) -> Arrival:
    """A push to GitLab at a time that it does not tell: equal moves have equal bytes."""
    return _webhook(origin, value, None, time, own_clock=False, **more)


def gitea(origin: str | None, value: str, at: float, **more: Any) -> Arrival:
    """A push to Gitea, Forgejo or Gogs: the clock is the time of the change before, and Gitea and
    Forgejo give a redelivery a fresh id."""
    return _webhook(origin, value, at, at, own_clock=False, **({"keeps_id": False} | more))


def pull(origin: str | None, value: str, at: float, **more: Any) -> Arrival:
    """A pull request of any server."""
    return _webhook(origin, value, at, at, own_clock=True, **({"name": "#12"} | more))


def touch(value: str, at: float, **more: Any) -> Arrival:
    """A label, an edit or a draft made ready."""
    return pull(None, value, at, **({"touch": True} | more))


def _webhook(
    origin: str | None,
    value: str,
    at: float | None,
    time: float,
    *,
    own_clock: bool,
    id: str | None = None,  # noqa: A002
    body: str | None = None,
    seen: float | None = None,
    **more: Any,
) -> Arrival:
    facts: dict[str, Any] = {"name": BRANCH, "keeps_id": True} | more
    change = RefChange(
        **facts,
        origin=origin,
        value=value,
        at=at,
        own_clock=own_clock,
    )
    content = f"{origin} {value} {at} {change.touch}" if body is None else body
    seen_at = time + 1 if seen is None else seen
    return Arrival(change, f"{content} {time}" if id is None else id, content.encode(), seen_at)


def play(arrivals: Iterable[Arrival]) -> tuple[list[Judgement], list[State]]:
    """Return the judgements of webhooks that arrive in this order, and the states afterwards."""
    states: list[State] = []
    bodies: dict[str, bytes] = {}
    judgements = []
    for arrival in arrivals:
        body = bodies.get(arrival.delivery_id) if arrival.delivery_id else None
        judgements.append(judge(arrival, states, body))
        states = apply(judgements[-1], states)
        bodies.setdefault(arrival.delivery_id, arrival.body)
    return judgements, states


def in_words(judgement: Judgement) -> str:
    """Return ``new 2``, ``late 3?`` (uncertain) and the like."""
    doubt = "?" if judgement.uncertain else ""
    return f"{judgement.verdict} {judgement.no}{doubt}"


def verdicts_of(arrivals: Iterable[Arrival]) -> str:
    """Return the verdicts of webhooks that arrive in this order."""
    return ", ".join(in_words(judgement) for judgement in play(arrivals)[0])
