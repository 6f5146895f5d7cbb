"""What the API does to deliveries, deploys and targets. Each deed is a line of the audit."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from relay import audit, replays
from relay.approving import approve
from relay.cancelling import cancel
from relay.console.access import Caller
from relay.console.context import Context
from relay.console.endpoints import Asked, Nothing
from relay.errors import NoSuchThing
from relay.reading import record_fields
from relay.replays import REASONS, Done, Wish
from relay.statuses import Kind

MOST = 1_000
"""Deliveries or deploys of one request."""

Verb = Literal["replay", "cancel", "approve"]

Ids = Annotated[
    tuple[Annotated[str, Meta(min_length=1, max_length=300)], ...],
    Meta(min_length=1, max_length=MOST),
]


class Deed(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What is done, to which."""

    ids: Ids
    dry_run: bool = False
    """Only say what would be done."""


class Replay(Deed, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What is done again."""

    force: bool = False
    """Also what has not failed, or was overtaken."""


class Result(msgspec.Struct, frozen=True, kw_only=True):
    """What became of it with one of them."""

    id: str
    done: bool
    """With ``dry_run``: whether it would be."""
    new: str = ""
    """The id of the replay."""
    refusal: str = ""
    """Why not, in a word, and ``message`` in a sentence."""
    message: str = ""


class Results(msgspec.Struct, frozen=True, kw_only=True):
    """What became of it, in the order of the ids."""

    results: Sequence[Result]


class TargetChanged(msgspec.Struct, frozen=True, kw_only=True):
    """How a target stands now."""

    name: str
    paused: bool
    changed: bool
    """False if that was so before."""


async def replay_deliveries(asked: Asked[Nothing, Replay]) -> Results:
    """Match deliveries again, with the routes of now."""
    return await _asked(asked, "delivery", "replay", forced=asked.body.force)


async def cancel_deliveries(asked: Asked[Nothing, Deed]) -> Results:
    """Cancel deliveries that wait."""
    return await _asked(asked, "delivery", "cancel")


async def replay_deploys(asked: Asked[Nothing, Replay]) -> Results:
    """Make deploys again."""
    return await _asked(asked, "deploy", "replay", forced=asked.body.force)


async def cancel_deploys(asked: Asked[Nothing, Deed]) -> Results:
    """Cancel deploys that wait."""
    return await _asked(asked, "deploy", "cancel")


async def approve_deploys(asked: Asked[Nothing, Deed]) -> Results:
    """Approve deploys that wait for it."""
    return await _asked(asked, "deploy", "approve")


async def pause_target(asked: Asked[Nothing, Nothing]) -> TargetChanged:
    """Have no call to a target begin."""
    return await hold(asked.context, asked.caller, asked.name, pause=True)


async def resume_target(asked: Asked[Nothing, Nothing]) -> TargetChanged:
    """Let calls to a target begin again."""
    return await hold(asked.context, asked.caller, asked.name, pause=False)


async def hold(context: Context, caller: Caller, name: str, *, pause: bool) -> TargetChanged:
    """Pause a target, or let it go on. Raises NoSuchThing and StoreUnavailable."""
    if name not in context.plan().config.targets:
        raise NoSuchThing(f"no target {name!r} in relay.yaml")
    powers = context.powers
    changed = await asyncio.to_thread(powers.pause if pause else powers.resume, name)
    if changed:
        audit.log.info("target.paused" if pause else "target.resumed", target=name, by=caller.name)
        _tell(caller, "pause" if pause else "resume", target=name)
        audit.flush()
    return TargetChanged(name=name, paused=pause, changed=changed)


async def act(
    context: Context,
    caller: Caller,
    kind: Kind,
    verb: Verb,
    ids: Sequence[str],
    *,
    forced: bool = False,
    dry: bool = False,
) -> Sequence[Result]:
    """Do it to each of them. Raises ConfigError, AuditUnavailable, redis.exceptions.RedisError; to
    ask again does no harm."""
    wishes = [Wish(id_, caller.name, forced, dry=dry) for id_ in dict.fromkeys(ids)]
    done = await _power(context, kind, verb)(wishes)
    if not dry:
        await _audit(context, caller, kind, verb, [one for one in done if not one.refusal])
    return [
        Result(
            id=one.id,
            done=not one.refusal,
            new=one.new,
            refusal=one.refusal,
            message=REASONS[one.refusal].format(kind=kind, other=one.other) if one.refusal else "",
        )
        for one in done
    ]


async def _asked(
    asked: Asked[Nothing, Deed] | Asked[Nothing, Replay],
    kind: Kind,
    verb: Verb,
    *,
    forced: bool = False,
) -> Results:
    body = asked.body
    return Results(
        results=await act(
            *(asked.context, asked.caller, kind, verb, body.ids), forced=forced, dry=body.dry_run
        )
    )


def _power(
    context: Context, kind: Kind, verb: Verb
) -> Callable[[Sequence[Wish]], Awaitable[list[Done]]]:
    redis, settings = context.redis_once, context.settings
    if verb == "approve":
        return lambda wishes: approve(redis, settings, wishes)
    if verb == "cancel":
        return lambda wishes: cancel(redis, settings, kind, wishes)
    replay = replays.replay_deliveries if kind == "delivery" else context.powers.replay_deploys
    return lambda wishes: replay(redis, settings, wishes)


async def _audit(
    context: Context, caller: Caller, kind: Kind, verb: Verb, done: Sequence[Done]
) -> None:
    if verb == "cancel":
        # No worker sees what was cancelled.
        for record in await context.archive.read(kind, [one.id for one in done]):
            audit.log.info(f"{kind}.cancelled", by=caller.name, **record_fields(kind, record))
    for one in done:
        _tell(caller, verb, **{kind: one.id}, **({"new": one.new} if one.new else {}))
    audit.flush()


def _tell(caller: Caller, action: str, **what: str) -> None:
    audit.log.info("console.acted", by=caller.name, action=action, **what)
