"""The whole relay at one moment: how much happens, what waits, who works, what needs a person."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

import msgspec

from config.model import Target
from relay.events.gate import TargetState, believable, moment, state_in_words, turn_at
from relay.ledger.filters import Filter
from relay.ledger.generation import read_behind
from relay.ledger.lists import list_records
from relay.ledger.pace import Minute, Pace
from relay.ledger.records import Record, read_records
from relay.ledger.rows import seconds, target_state
from relay.ledger.transaction import Reader
from relay.ledger.work_left import read_remaining

NEWEST = 10
"""Deploys that are read whole in each of the lists."""

_ATTENTION = Filter(attention=True)


class WorkerSeen(msgspec.Struct, frozen=True, kw_only=True):
    """One worker that lives."""

    name: str
    jobs: int
    """Calls and deliveries in its hands."""
    heard_at: str
    """Its last heartbeat."""


class TargetSeen(msgspec.Struct, frozen=True, kw_only=True):
    """How one target stands."""

    name: str
    state: str
    """In words."""
    calling: int
    """Deploys that are being called."""
    waiting: int
    """Deploys that wait, whatever for."""
    paused: bool
    breaker: Literal["off", "closed", "open", "half-open"]
    """half-open: the next call, or the one under way, is the probe."""
    held: bool
    """Its platform wants no calls now."""
    until: str
    """When calls begin again, of a breaker that is open, a platform that wants none, or a rate that
    is used up."""


class Load(msgspec.Struct, frozen=True, kw_only=True):
    """How much waits, is being called, and needs a person."""

    queued: int
    limited: int
    scheduled: int
    running: int
    waits: Mapping[str, int]
    oldest_at: float | None
    attention: Mapping[str, int]
    """How many deploys of each status need a person."""


class Overview(msgspec.Struct, frozen=True, kw_only=True):
    """What an operator sees first. Times are seconds since the Unix epoch."""

    at: float
    minutes: Sequence[Minute]
    """The last hour, the running minute last."""
    queued: int
    """Deliveries, deploys and notices that wait for a worker."""
    limited: int
    """Deploys that wait for a slot at their target."""
    scheduled: int
    """Deploys that wait for anything else: a time, a person, another deploy."""
    running: int
    """Deploys and notices that are being called."""
    waits: Mapping[str, int]
    """How many deploys wait for what: a WaitReason of relay/events/deploy_life.py, or empty for
    those that wait for a worker only. A reason for which none waits is left out."""
    oldest_at: float | None
    """Since when the oldest of ``queued`` and ``limited`` waits; None where none does."""
    workers: Sequence[WorkerSeen] | None
    """None where Redis does not answer."""
    targets: Sequence[TargetSeen]
    failed: int
    """Deploys that failed, that no newer success has overtaken and that were not replayed; counted
    up to 10,000."""
    uncertain: int
    """Deploys that are uncertain, in the same way."""
    approval: int
    """Deploys that wait for approval."""
    breakers: Sequence[str]
    """Targets whose circuit breaker is open."""
    troubled: Sequence[Record]
    """The newest of ``failed`` and ``uncertain``."""
    asking: Sequence[Record]
    """Deploys that wait for approval, the newest first."""
    newest: Sequence[Record]
    """The newest deploys."""
    is_behind: bool = False
    """Whether the ledger went back in time, so that no call is made until a person accepts it."""


async def read_overview(
    reader: Reader,
    targets: Mapping[str, Target],
    workers: Sequence[WorkerSeen] | None,
    pace: Pace,
) -> Overview:
    """Return how all stands. ``targets`` are those of relay.yaml; the caller keeps ``pace``."""
    load = await read_load(reader)
    seen = await read_targets(reader, targets)
    troubled = await list_records(reader, "deploy", _ATTENTION, NEWEST)
    newest = await list_records(reader, "deploy", Filter(), NEWEST)
    asking = await reader.rows("deploys_that_ask", {"most": NEWEST})
    return Overview(
        at=seconds(reader.now),
        minutes=await pace.read(reader),
        queued=load.queued,
        limited=load.limited,
        scheduled=load.scheduled,
        running=load.running,
        waits=load.waits,
        oldest_at=load.oldest_at,
        workers=workers,
        targets=seen,
        failed=load.attention.get("failed", 0),
        uncertain=load.attention.get("uncertain", 0),
        approval=load.waits.get("approval", 0),
        breakers=[one.name for one in seen if one.breaker in ("open", "half-open")],
        troubled=troubled.records,
        asking=await read_records(reader, "deploy", [int(row["id"]) for row in asking]),
        newest=newest.records,
        is_behind=await read_behind(reader) is not None,
    )


async def read_load(reader: Reader) -> Load:
    """Return how much waits, is being called, and needs a person."""
    left = await read_remaining(reader)
    trouble = {row["status"]: int(row["number"]) for row in await reader.rows("count_attention")}
    oldest = await reader.row("oldest_that_waits")
    return Load(
        queued=left.queued,
        limited=left.limited,
        scheduled=sum(left.later.values()),
        running=left.running,
        waits=left.waits,
        oldest_at=seconds(oldest["at"]) if oldest is not None and oldest["at"] else None,
        attention=trouble,
    )


async def read_targets(reader: Reader, targets: Mapping[str, Target]) -> list[TargetSeen]:
    """Return how each target of relay.yaml stands."""
    states = {row["target_name"]: row for row in await reader.rows("target_rows")}
    open_deploys = {
        (row["target"], row["status"]): int(row["number"])
        for row in await reader.rows("count_open_by_target")
    }
    seen = []
    for name, policy in targets.items():
        row = states.get(name)
        state = target_state(row) if row is not None else TargetState(name=name)
        number = row["id"] if row is not None else 0
        seen.append(
            _target(
                state,
                policy,
                seconds(reader.now),
                calling=open_deploys.get((number, "calling"), 0),
                waiting=open_deploys.get((number, "waiting"), 0),
                room_at=await _room_at(reader, name, policy),
            )
        )
    return seen


def _target(
    state: TargetState, policy: Target, now: float, *, calling: int, waiting: int, room_at: float
) -> TargetSeen:
    state = believable(state, policy, now)
    until = max(state.open_until, state.limited_until, room_at)
    breaker: Literal["off", "closed", "open", "half-open"] = "off"
    if policy.breaker is not None:
        breaker = "closed"
        if state.open_until:
            breaker = "open" if now < state.open_until else "half-open"
    return TargetSeen(
        name=state.name,
        state=state_in_words(state, policy, now, room_at=room_at),
        calling=calling,
        waiting=waiting,
        paused=bool(state.paused_at),
        breaker=breaker,
        held=now < state.limited_until,
        until=moment(until) if now < until else "",
    )


async def _room_at(reader: Reader, name: str, policy: Target) -> float:
    """Return when the rates of a target allow a call."""
    calls = []
    for rate in policy.rate:
        row = await reader.row("rate_call_before", {"subject": name, "skip": rate.most - 1})
        calls.append(seconds(row["at"]) if row is not None else 0.0)
    return turn_at(policy.rate, calls, 0)
