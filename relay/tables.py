"""Records as text for people. Pure. Names in it were chosen by whoever may push."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from relay.archive import Details
from relay.attempts_kept import AttemptRecord
from relay.reading import Record
from relay.statuses import Kind

_TITLES = ("created", "status", "what", "commit", "id", "")


def table(kind: Kind, records: Sequence[Record]) -> str:
    """One line a record, under a line of titles."""
    rows = [_TITLES, *(_row(kind, record) for record in records)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(_TITLES))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    )


def sheet(details: Details, deploys: Sequence[Record]) -> str:
    """All that is known of one: its record, the event, its last runs, calls and its deploys."""
    record, event, runs, calls = details
    known = {name: getattr(record, name) for name in record.__struct_fields__}
    known["deploys"] = " ".join(record.deploys)
    lines = [
        f"{name:14} {_clean(value)}" for name, value in known.items() if value not in ("", None)
    ]
    lines += ["", "event", *_nested(event)]
    if runs:
        lines += ["", "runs, the newest first"]
        for run in runs:
            values = ", ".join(f"{key} {value}" for key, value in run.value.items())
            lines.append(f"  {run.at}  {run.how}  {_clean(run.reason or values)}".rstrip())
    if calls:
        lines += ["", "calls, the newest last"]
        lines += [f"  {_clean(line)}" for call in calls for line in _call(call)]
    if deploys:
        lines += ["", "deploys"]
        lines += [f"  {line}" for line in table("deploy", deploys).splitlines()]
    return "\n".join(lines)


def brief(record: Record) -> str:
    """One of them in a few words."""
    what = f"{record.target} {record.repo}" if record.target else record.repo
    return _clean(f"{record.id}  {record.status}  {what}@{record.sha[:12]}")


def _call(call: AttemptRecord) -> list[str]:
    took = "" if call.ms is None else f"after {call.ms} ms"
    told = (call.at, f"attempt {call.attempt}", call.outcome, call.reason, took)
    lines = ["  ".join(part for part in told if part)]
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


def _row(kind: Kind, record: Record) -> tuple[str, ...]:
    where = record.target if kind == "deploy" else record.kind
    notes = (
        record.reason,
        f"attempt {record.attempts}" if kind == "deploy" and record.attempts > 1 else "",
        f"for {record.waits_for.replace(' ', ' until ')}" if record.waits_for else "",
        f"again at {record.next_at[:19]}Z" if record.next_at else "",
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
    return tuple(_clean(cell) for cell in cells)


def _nested(event: Mapping[str, Any]) -> list[str]:
    return [f"  {key:14} {_clean(value)}" for key, value in event.items()]


def _clean(value: object) -> str:
    """Without what would move a terminal's cursor or change its colours."""
    return "".join(
        char if char.isprintable() else "\N{REPLACEMENT CHARACTER}" for char in str(value)
    )
