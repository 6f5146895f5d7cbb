"""The actions of the API on deliveries, deploys and targets. Each is a line of the audit."""

from __future__ import annotations

import functools
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from config.model import Target
from relay import audit
from relay.audit_fields import action_fields
from relay.console.access import Caller
from relay.console.context import Context
from relay.console.endpoints import ApiRequest, Nothing
from relay.errors import NoSuchThing
from relay.events.ids import row_number
from relay.ledger.actions import MOST_NOTE, Consequence, Done, Wish
from relay.ledger.approve import approve_deploy
from relay.ledger.cancel import cancel_delivery, cancel_deploy
from relay.ledger.dismiss import dismiss_deploy
from relay.ledger.pause import pause_target as pause_in_ledger
from relay.ledger.pause import resume_target as resume_in_ledger
from relay.ledger.records import RecordKind
from relay.ledger.replay import replay_delivery, replay_deploy
from relay.ledger.transaction import Transaction

MOST = 1_000
"""Deliveries or deploys of one request."""

AT_ONCE = 25
"""Actions in one transaction. Webhooks wait for it, so it is short."""

Verb = Literal["replay", "cancel", "approve", "dismiss"]

Ids = Annotated[
    tuple[Annotated[str, Meta(min_length=1, max_length=300)], ...],
    Meta(min_length=1, max_length=MOST),
]


class Deed(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """An action and its deliveries or deploys."""

    ids: Ids
    dry_run: bool = False
    """Return what would be done, and do nothing."""


class Replay(Deed, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What is replayed."""

    force: bool = False
    """Also what has not failed, or what would replace something newer."""


class Approval(Deed, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What is approved."""

    force: bool = False
    """Also what would replace something newer."""


class Dismissal(Deed, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What is dismissed, and why."""

    reason: Annotated[str, Meta(min_length=1, max_length=MOST_NOTE, pattern=r"\S")]
    """What a person found out about it."""


class LiveNow(msgspec.Struct, frozen=True, kw_only=True):
    """The deploy that is live on a ref of a target."""

    deploy: str
    target: str
    sha: str
    at: str
    """When it ended."""


class Result(msgspec.Struct, frozen=True, kw_only=True):
    """The result of an action on one delivery or deploy."""

    id: str
    done: bool
    """With ``dry_run``: whether it would be."""
    new: str = ""
    """The id of the replay."""
    refusal: str = ""
    """The reason of a refusal in a word; ``message`` has it in a sentence. ``overtaken``: the
    action would replace something newer and needs ``force``."""
    message: str = ""
    live: LiveNow | None = None
    """Of a replay or an approval: what is live there now; null where nothing is."""
    replaces: str = ""
    """The commit that would replace it."""
    states_back: int = 0
    """How many newer states of the ref were to be deployed there."""


class Results(msgspec.Struct, frozen=True, kw_only=True):
    """The results, in the order of the ids."""

    results: Sequence[Result]


class TargetChanged(msgspec.Struct, frozen=True, kw_only=True):
    """The state of a target after the action."""

    name: str
    paused: bool
    changed: bool
    """False if the target was in this state already."""


async def replay_deliveries(request: ApiRequest[Nothing, Replay]) -> Results:
    """Route deliveries again, by the current routes."""
    return await _act_on(request, "delivery", "replay", forced=request.body.force)


async def cancel_deliveries(request: ApiRequest[Nothing, Deed]) -> Results:
    """Cancel deliveries that wait to be routed."""
    return await _act_on(request, "delivery", "cancel")


async def replay_deploys(request: ApiRequest[Nothing, Replay]) -> Results:
    """Replay deploys."""
    return await _act_on(request, "deploy", "replay", forced=request.body.force)


async def cancel_deploys(request: ApiRequest[Nothing, Deed]) -> Results:
    """Cancel deploys that wait."""
    return await _act_on(request, "deploy", "cancel")


async def approve_deploys(request: ApiRequest[Nothing, Approval]) -> Results:
    """Approve deploys that wait for it."""
    return await _act_on(request, "deploy", "approve", forced=request.body.force)


async def dismiss_deploys(request: ApiRequest[Nothing, Dismissal]) -> Results:
    """Dismiss deploys that failed or are uncertain, with a reason."""
    return await _act_on(request, "deploy", "dismiss", reason=request.body.reason)


async def pause_target(request: ApiRequest[Nothing, Nothing]) -> TargetChanged:
    """Pause a target: no call to it begins."""
    return await switch(request.context, request.caller, request.name, pause=True)


async def resume_target(request: ApiRequest[Nothing, Nothing]) -> TargetChanged:
    """Resume a target: its calls begin again."""
    return await switch(request.context, request.caller, request.name, pause=False)


async def switch(context: Context, caller: Caller, name: str, *, pause: bool) -> TargetChanged:
    """Pause a target, or resume it. Raises NoSuchThing, LedgerUnavailable and AuditUnavailable."""
    if name not in context.plan().config.targets:
        raise NoSuchThing(f"no target {name!r} in relay.yaml")
    change = pause_in_ledger if pause else resume_in_ledger
    done = await context.ledger.commit(lambda tx: change(tx, name, Wish(by=caller.name)))
    if not done.refusal:
        _write_lines(done)
        _write_acted(caller, "pause" if pause else "resume", target=name)
        audit.flush()
    return TargetChanged(name=name, paused=pause, changed=not done.refusal)


async def act(
    context: Context,
    caller: Caller,
    kind: RecordKind,
    verb: Verb,
    ids: Sequence[str],
    *,
    forced: bool = False,
    dry: bool = False,
    reason: str = "",
) -> Sequence[Result]:
    """Apply an action to each id and return the results. Raises LedgerUnavailable and
    AuditUnavailable; it is safe to repeat."""
    wish = Wish(by=caller.name, forced=forced, dry=dry)
    action = _action(kind, verb, wish, context.plan().config.targets, reason)
    unique_ids = list(dict.fromkeys(ids))
    results: list[Result] = []
    for start in range(0, len(unique_ids), AT_ONCE):
        work = functools.partial(
            _all, kind=kind, ids=unique_ids[start : start + AT_ONCE], action=action
        )
        done = await context.ledger.commit(work)
        if not dry:
            for one in done:
                _write(caller, kind, verb, one)
            audit.flush()
        results += [_result(kind, one) for one in done]
    return results


_Action = Callable[[Transaction, int], Awaitable[Done]]


def _action(
    kind: RecordKind, verb: Verb, wish: Wish, targets: Mapping[str, Target], reason: str
) -> _Action:
    of_deliveries: dict[Verb, _Action] = {
        "replay": lambda tx, number: replay_delivery(tx, number, wish),
        "cancel": lambda tx, number: cancel_delivery(tx, number, wish),
    }
    of_deploys: dict[Verb, _Action] = {
        "replay": lambda tx, number: replay_deploy(tx, number, wish, targets),
        "cancel": lambda tx, number: cancel_deploy(tx, number, wish),
        "approve": lambda tx, number: approve_deploy(tx, number, wish, targets),
        "dismiss": lambda tx, number: dismiss_deploy(tx, number, wish, reason),
    }
    return (of_deliveries if kind == "delivery" else of_deploys)[verb]


async def _all(
    tx: Transaction, *, kind: RecordKind, ids: Sequence[str], action: _Action
) -> list[Done]:
    done = []
    for id_ in ids:
        number = row_number(kind, id_)
        unknown = Done(id=id_, refusal="unknown")
        done.append(unknown if number is None else await action(tx, number))
    return done


def _result(kind: RecordKind, done: Done) -> Result:
    return Result(
        id=done.id,
        done=not done.refusal,
        new=done.new,
        refusal=done.refusal,
        message=done.message(kind),
        **_consequence(done.consequence),
    )


def _consequence(consequence: Consequence | None) -> dict[str, Any]:
    if consequence is None:
        return {}
    fields = consequence.as_json()
    live = LiveNow(**fields["live"]) if fields["live"] else None
    return {"live": live, "replaces": fields["replaces"], "states_back": fields["states_back"]}


async def _act_on(
    request: ApiRequest[Nothing, Any],
    kind: RecordKind,
    verb: Verb,
    *,
    forced: bool = False,
    reason: str = "",
) -> Results:
    body = request.body
    return Results(
        results=await act(
            request.context,
            request.caller,
            kind,
            verb,
            body.ids,
            forced=forced,
            dry=body.dry_run,
            reason=reason,
        )
    )


def _write(caller: Caller, kind: RecordKind, verb: Verb, done: Done) -> None:
    if done.refusal:
        return
    _write_lines(done)
    _write_acted(caller, verb, **{kind: done.id}, **({"new": done.new} if done.new else {}))


def _write_lines(done: Done) -> None:
    for line in done.lines:
        audit.log.info(line.event, **action_fields(line))


def _write_acted(caller: Caller, action: str, **subject: str) -> None:
    audit.log.info("console.acted", by=caller.name, action=action, **subject)
