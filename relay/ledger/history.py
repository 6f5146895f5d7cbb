"""The history: what happened, newest first, in exact pages.

It is merged out of four streams: deliveries as they came, deploys as they were queued, deploys as
they ended, and what people did. Each stream has its own order, and the cursor of a page says how
far each was read: so pages leave no gap and repeat nothing, whatever arrives meanwhile. The calls
of a deploy stand on its own page.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Sequence
from typing import NamedTuple

import msgspec

from relay.events.ids import public_id, row_number
from relay.ledger.filters import Filter
from relay.ledger.history_rows import (
    ACTION_EVENTS,
    DELIVERY_EVENTS,
    END_EVENTS,
    QUEUED_EVENTS,
    HistoryFilter,
    HistoryRow,
    action_row,
    delivery_row,
    delivery_statuses,
    end_row,
    end_statuses,
    queued_row,
)
from relay.ledger.lists import list_numbers
from relay.ledger.records import RecordKind
from relay.ledger.rows import microseconds
from relay.ledger.transaction import Reader, Row

__all__ = ["HistoryFilter", "HistoryPage", "HistoryRow", "read_history"]

CHUNK = 100
"""Rows that are read of a stream at first; each time after that twice as many."""

LARGEST_CHUNK = 4_000

FEW = 2_500
"""Ends that are read by the ids of their deploys and sorted. Where a search fits more of them, its
next ones are found sooner by walking all ends in the order of time."""

_LAST = 10**18 - 1
"""No id and no time in microseconds is as large."""

_CURSOR = re.compile(r"([0-9]{1,18})\.([0-9]{1,18})\.([0-9]{1,18})\.([0-9]{1,18})\.([0-9]{1,18})")


class HistoryPage(msgspec.Struct, frozen=True, kw_only=True):
    """One page of the history."""

    rows: Sequence[HistoryRow]
    """The newest first."""
    next: str
    """The ``cursor`` of the next page; empty where this is the last one."""


class _Key(NamedTuple):
    """A place in a stream: what comes next is less. ``at`` counts for ends only."""

    at: int
    id: int


class _Event(NamedTuple):
    key: _Key
    at: int
    row: HistoryRow | None


_Stream = AsyncIterator[_Event]


class _Walk:
    """One stream: its next wanted event, and how far it was read before that."""

    def __init__(self, stream: _Stream, chosen: HistoryFilter, start: _Key) -> None:
        self._stream = stream
        self._chosen = chosen
        self.reached = start
        self.next: _Event | None = None
        self._since = microseconds(chosen.since)

    async def advance(self) -> None:
        """Go to the next wanted event."""
        if self.next is not None:
            self.reached = self.next.key
        self.next = None
        async for event in self._stream:
            if event.at < self._since:
                return
            if event.row is not None and self._chosen.wants(event.row, event.at):
                self.next = event
                return
            self.reached = event.key


async def read_history(
    reader: Reader, chosen: HistoryFilter, limit: int, cursor: str = ""
) -> HistoryPage:
    """Return the newest ``limit`` events that fit, of those after ``cursor``: the ``next`` of the
    page before. Raises ValueError for a cursor that is none."""
    starts = _starts(cursor)
    streams = await _streams(reader, chosen, starts)
    walks = [_Walk(stream, chosen, start) for stream, start in zip(streams, starts, strict=True)]
    for walk in walks:
        await walk.advance()
    rows: list[HistoryRow] = []
    while True:
        # Of one moment the later step comes first: an end before what was queued, that before
        # the delivery.
        best = max(
            (walk for walk in walks if walk.next is not None),
            key=lambda walk: (walk.next.at if walk.next else 0, walks.index(walk)),
            default=None,
        )
        if best is None or best.next is None or best.next.row is None:
            return HistoryPage(rows=rows, next="")
        if len(rows) == limit:
            return HistoryPage(rows=rows, next=_cursor([walk.reached for walk in walks]))
        rows.append(best.next.row)
        await best.advance()


def _starts(cursor: str) -> list[_Key]:
    if not cursor:
        return [_Key(_LAST, _LAST)] * 4
    parts = _CURSOR.fullmatch(cursor)
    if parts is None:
        raise ValueError(f"{cursor!r} is no place in the history")
    delivery, queued, ended_at, ended, action = (min(int(part), _LAST) for part in parts.groups())
    return [_Key(_LAST, delivery), _Key(_LAST, queued), _Key(ended_at, ended), _Key(_LAST, action)]


def _cursor(keys: Sequence[_Key]) -> str:
    delivery, queued, end, action = keys
    return f"{delivery.id}.{queued.id}.{end.at}.{end.id}.{action.id}"


async def _streams(reader: Reader, chosen: HistoryFilter, starts: Sequence[_Key]) -> list[_Stream]:
    """Return the four streams; one that cannot have what is looked for is empty."""
    deliveries, queued, ends, actions = starts
    if chosen.deliveries or chosen.deploys:
        events = await _events_of(reader, *_numbers(chosen))
        return [_kept(some, start) for some, start in zip(events, starts, strict=True)]
    only_people = bool(chosen.by)
    has_deliveries = _wants(chosen, DELIVERY_EVENTS) and not (only_people or chosen.targets)
    has_queued = _wants(chosen, QUEUED_EVENTS) and not only_people
    has_ends = _wants(chosen, END_EVENTS) and not only_people
    return [
        _deliveries(reader, chosen, deliveries) if has_deliveries else _nothing(),
        _queued(reader, chosen, queued) if has_queued else _nothing(),
        await _ends(reader, chosen, ends) if has_ends else _nothing(),
        _actions(reader, chosen, actions) if _wants(chosen, ACTION_EVENTS) else _nothing(),
    ]


def _wants(chosen: HistoryFilter, events: Sequence[str]) -> bool:
    return any(chosen.wants_event(event) for event in events)


async def _deliveries(reader: Reader, chosen: HistoryFilter, start: _Key) -> _Stream:
    looked_for = msgspec.structs.replace(_filter(chosen), statuses=delivery_statuses(chosen))
    if [event for event in DELIVERY_EVENTS if chosen.wants_event(event)] == ["delivery.late"]:
        looked_for = msgspec.structs.replace(looked_for, verdicts=frozenset({"late"}))
    async for number in _found(reader, "delivery", looked_for, start):
        row = await reader.row("delivery", {"delivery": number})
        if row is not None:
            yield _delivery_event(row)


async def _queued(reader: Reader, chosen: HistoryFilter, start: _Key) -> _Stream:
    async for number in _found(reader, "deploy", _filter(chosen), start):
        row = await reader.row("deploy", {"deploy": number})
        if row is not None:
            yield _queued_event(row)


async def _found(
    reader: Reader, kind: RecordKind, looked_for: Filter, start: _Key
) -> AsyncIterator[int]:
    """Yield the numbers of deliveries or deploys that fit: their ids are given out in the order of
    time, so a list of them is in the order of the stream."""
    before, chunk = start.id, CHUNK
    while numbers := await list_numbers(reader, kind, looked_for, chunk, public_id(kind, before)):
        for number in numbers:
            yield number
        before, chunk = numbers[-1], min(2 * chunk, LARGEST_CHUNK)


def _filter(chosen: HistoryFilter) -> Filter:
    return Filter(
        repos=chosen.repos,
        sources=chosen.sources,
        targets=chosen.targets,
        sha=chosen.sha,
        since=chosen.since,
        until=chosen.until,
    )


async def _ends(reader: Reader, chosen: HistoryFilter, start: _Key) -> _Stream:
    statuses = end_statuses(chosen)
    looked_for = msgspec.structs.replace(_filter(chosen), statuses=statuses, since=0, until=0)
    if looked_for != Filter():
        numbers = await list_numbers(reader, "deploy", looked_for, FEW + 1)
        if len(numbers) <= FEW:
            rows = [await reader.row("deploy", {"deploy": number}) for number in numbers]
            ends = [_end_event(row) for row in rows if row is not None and row["ended_at"]]
            return _kept(ends, start)
    return _walk_ends(reader, chosen, statuses, start)


async def _walk_ends(
    reader: Reader, chosen: HistoryFilter, statuses: frozenset[str], start: _Key
) -> _Stream:
    """Walk all ends, and read only those whole that may be looked for."""
    until = _Key(microseconds(chosen.until), 0) if chosen.until else start
    key, chunk = min(start, until), CHUNK
    while rows := await reader.rows(
        "history_ends", {"at": key.at, "before": key.id, "most": chunk}
    ):
        for row in rows:
            key = _Key(row["at"], row["id"])
            may_fit = (
                (not statuses or row["status"] in statuses)
                and (not chosen.targets or row["target"] in chosen.targets)
                and (chosen.repos is None or chosen.repos.matches(row["repo"]))
            )
            whole = await reader.row("deploy", {"deploy": key.id}) if may_fit else None
            yield _end_event(whole) if whole is not None else _Event(key, key.at, None)
        chunk = min(2 * chunk, LARGEST_CHUNK)


async def _actions(reader: Reader, chosen: HistoryFilter, start: _Key) -> _Stream:
    until = microseconds(chosen.until) if chosen.until else _LAST
    before, chunk = start.id, CHUNK
    while rows := await reader.rows(
        "history_actions", {"before": before, "until": until, "most": chunk}
    ):
        for row in rows:
            yield await _action_event(reader, row)
        before, chunk = rows[-1]["id"], min(2 * chunk, LARGEST_CHUNK)


async def _kept(events: Sequence[_Event], start: _Key) -> _Stream:
    for event in sorted(events, key=lambda each: each.key, reverse=True):
        if event.key < start:
            yield event


async def _nothing() -> _Stream:
    none: Sequence[_Event] = ()
    for event in none:
        yield event


def _numbers(chosen: HistoryFilter) -> tuple[list[int], list[int]]:
    deliveries = [row_number("delivery", id_) for id_ in chosen.deliveries]
    deploys = [row_number("deploy", id_) for id_ in chosen.deploys]
    return [one for one in deliveries if one], [one for one in deploys if one]


async def _events_of(
    reader: Reader, deliveries: Sequence[int], deploys: Sequence[int]
) -> list[list[_Event]]:
    """Return the events of each stream that are about these."""
    received: list[_Event] = []
    queued: list[_Event] = []
    ends: list[_Event] = []
    actions: list[_Event] = []
    numbers = set(deploys)
    for number in deliveries:
        row = await reader.row("delivery", {"delivery": number})
        if row is not None:
            received.append(_delivery_event(row))
        rows = await reader.rows("deploy_ends_of_delivery", {"delivery": number})
        numbers |= {int(one["id"]) for one in rows}
        actions += await _actions_on(reader, public_id("delivery", number))
    for number in numbers:
        row = await reader.row("deploy", {"deploy": number})
        if row is None:
            continue
        queued.append(_queued_event(row))
        if row["ended_at"] is not None:
            ends.append(_end_event(row))
        actions += await _actions_on(reader, public_id("deploy", number))
    return [received, queued, ends, actions]


async def _actions_on(reader: Reader, subject: str) -> list[_Event]:
    rows = await reader.rows("actions_on_subject", {"subject": subject})
    return [await _action_event(reader, row) for row in rows]


def _delivery_event(row: Row) -> _Event:
    return _Event(_Key(_LAST, row["id"]), row["received_at"], delivery_row(row))


def _queued_event(row: Row) -> _Event:
    return _Event(_Key(_LAST, row["id"]), row["created_at"], queued_row(row))


def _end_event(row: Row) -> _Event:
    return _Event(_Key(row["ended_at"], row["id"]), row["ended_at"], end_row(row))


async def _action_event(reader: Reader, row: Row) -> _Event:
    subject = None
    deploy = row_number("deploy", row["subject"])
    delivery = row_number("delivery", row["subject"])
    if deploy is not None:
        about = await reader.row("deploy", {"deploy": deploy})
        subject = queued_row(about) if about is not None else None
    elif delivery is not None:
        about = await reader.row("delivery", {"delivery": delivery})
        subject = delivery_row(about) if about is not None else None
    return _Event(_Key(_LAST, row["id"]), row["at"], action_row(row, subject))
