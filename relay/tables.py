"""Records and targets as text for people, plain or for a terminal. Pure.

Names in it were chosen by whoever may push.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from relay.attempt_record import AttemptRecord
from relay.events.deploy_life import wait_note
from relay.ledger.details import ActionRecord, Details
from relay.ledger.overview import TargetSeen
from relay.ledger.records import Record, RecordKind

_TITLES = ("created", "status", "what", "commit", "id", "")

_LEAST_NOTE = 24
"""Columns of a terminal that the notes of a record need to be readable beside it."""

_STYLES = {
    "queued": "yellow",
    "routed": "green",
    "ignored": "dim",
    "duplicate": "dim",
    "waiting": "yellow",
    "calling": "cyan",
    "accepted": "cyan",
    "succeeded": "green",
    "failed": "bold red",
    "uncertain": "bold red",
    "unknown": "red",
    "cancelled": "dim",
    "superseded": "dim",
    "dismissed": "dim",
}
"""Of the statuses of deliveries and deploys."""


def table(kind: RecordKind, records: Sequence[Record]) -> str:
    """One line a record, under a line of titles."""
    rows = [_TITLES, *(_row(kind, record) for record in records)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(_TITLES))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    )


def coloured_table(kind: RecordKind, records: Sequence[Record], width: int) -> RenderableType:
    """As ``table``, for a terminal of so many columns. Ids are whole whatever the width: where a
    line has no room for all, a record has two."""
    rows = [_row(kind, record) for record in records]
    sizes = [max((Text(row[column]).cell_len for row in rows), default=0) for column in range(6)]
    needed = sum(sizes[:5]) + 2 * 5 + min(sizes[5], _LEAST_NOTE)
    if needed > width:
        return Group(*(part for row in rows for part in _two_lines(row)))
    grid = columns(*_TITLES)
    grid.columns[5].no_wrap = False
    for created, status, *cells, note in rows:
        grid.add_row(Text(created), coloured(status), *map(Text, cells), Text(note))
    return grid


def _two_lines(row: Sequence[str]) -> Sequence[RenderableType]:
    created, status, what, commit, id_, note = row
    first = Text.assemble(coloured(status.ljust(10)), " ", id_, no_wrap=True, overflow="ignore")
    second = "  ".join(part for part in (created, what, commit, note) if part)
    return first, Padding(Text(second, "dim"), (0, 0, 0, 11))


def coloured_targets(standings: Sequence[TargetSeen]) -> Table:
    """How targets stand, one a line."""
    grid = columns("target", "state", "calling", "waiting")
    for one in standings:
        grid.add_row(Text(clean(one.name)), state(one), Text(str(one.calling)), waiting(one))
    for column in grid.columns[2:]:
        column.justify = "right"
    return grid


def state(one: TargetSeen) -> Text:
    """How a target stands, in words and a colour."""
    if one.breaker in ("open", "half-open"):
        return Text(one.state, "bold red")
    return Text(one.state, "green" if one.state == "ready" else "yellow")


def waiting(one: TargetSeen) -> Text:
    """How many deploys wait for a target."""
    return Text(str(one.waiting))


def columns(*titles: str) -> Table:
    """A table without lines, whose cells stay on one line and are cut where there is no room."""
    grid = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False, header_style="bold")
    for title in titles:
        grid.add_column(title, no_wrap=True)
    return grid


def coloured(status: str) -> Text:
    """A status, or a word with spaces around it, in its colour."""
    return Text(status, next((s for name, s in _STYLES.items() if name == status.strip()), ""))


def sheet(details: Details) -> str:
    """Return all that is known of one: its record, the event, what people did, its calls and its
    deploys."""
    record = details.record
    fields = {name: getattr(record, name) for name in record.__struct_fields__}
    fields["deploys"] = " ".join(record.deploys)
    fields["live"] = "yes" if record.live else ""
    fields["overtaken"] = "yes" if record.overtaken else ""
    lines = [
        f"{name:14} {clean(value)}" for name, value in fields.items() if value not in ("", None, 0)
    ]
    if details.live is not None and not record.live:
        live = details.live
        lines += ["", "live there", *_nested({"deploy": live.deploy, "commit": live.sha})]
        lines += _nested({"since": live.at, "states back": live.states_back})
    lines += ["", "event", *_nested(details.event)]
    if details.reasons:
        lines += ["", "routes", *_nested({one.route: one.reason for one in details.reasons})]
    if details.actions:
        lines += ["", "actions, the newest last", *map(_action, details.actions)]
    if details.attempts:
        lines += ["", "calls, the newest last"]
        lines += [f"  {clean(line)}" for call in details.attempts for line in _call(call)]
    if details.deploys:
        lines += ["", "deploys"]
        lines += [f"  {line}" for line in table("deploy", details.deploys).splitlines()]
    return "\n".join(lines)


def brief(record: Record) -> str:
    """One of them in a few words."""
    what = f"{record.target} {record.repo}" if record.target else record.repo
    return clean(f"{record.id}  {record.status}  {what}@{record.sha[:12]}")


def _action(action: ActionRecord) -> str:
    parts = (action.at, action.what, f"by {action.by}", action.note)
    return "  " + clean("  ".join(part for part in parts if part))


def _call(call: AttemptRecord) -> list[str]:
    took = "" if call.ms is None else f"after {call.ms} ms"
    parts = (call.at, f"attempt {call.attempt}", call.outcome, call.reason, took)
    lines = ["  ".join(part for part in parts if part)]
    if not call.method:
        return lines
    sent = [f"{call.method} {call.host}", *_headers(call.request_headers)]
    lines += [f"  > {line}" for line in (*sent, *call.request_body.splitlines())]
    if call.status is not None:
        got = [str(call.status), *_headers(call.response_headers)]
        lines += [f"  < {line}" for line in (*got, *call.response_body.splitlines())]
    return lines


def _headers(headers: Mapping[str, str]) -> list[str]:
    return [f"{name}: {value}" for name, value in headers.items()]


def _row(kind: RecordKind, record: Record) -> tuple[str, ...]:
    where = record.target if kind == "deploy" else record.kind
    notes = (
        record.reason,
        f"deploy {record.outcome}" if record.outcome else "",
        f"came {record.redeliveries + 1} times" if record.redeliveries else "",
        f"attempt {record.attempts}" if kind == "deploy" and record.attempts > 1 else "",
        wait_note(record.waits_for, f"{record.waits_until[:19]}Z"),
        f"by {record.superseded_by}" if record.superseded_by else "",
        f"by {record.cancelled_by}" if record.cancelled_by else "",
        f"replayed as {record.replayed_by}" if record.replayed_by else "",
        f"replay of {record.replay_of}" if record.replay_of else "",
    )
    cells = (
        f"{record.created_at[:19]}Z",
        record.status,
        where,
        f"{record.repo}@{record.sha[:12]}",
        record.id,
        "; ".join(note for note in notes if note),
    )
    return tuple(clean(cell) for cell in cells)


def _nested(event: Mapping[str, Any]) -> list[str]:
    return [f"  {key:14} {clean(_put(value))}" for key, value in event.items()]


def _put(value: Any) -> str:
    """A value as people write it, without brackets and quotes."""
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {_put(item)}" for key, item in value.items())
    if isinstance(value, bool):
        return "yes" if value else "no"
    return str(value)


def clean(value: object) -> str:
    """A text without what would move a terminal's cursor or change its colours."""
    return "".join(
        char if char.isprintable() else "\N{REPLACEMENT CHARACTER}" for char in str(value)
    )
