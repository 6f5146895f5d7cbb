"""One frame of `deploy-relay top`: an overview as text for a terminal of a given size. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from relay.ledger.overview import Overview, TargetSeen
from relay.ledger.pace import Minute, success_rate
from relay.ledger.records import Record
from relay.tables import clean, coloured, columns, state, waiting

_BARS = " ▁▂▃▄▅▆▇█"

_RECENT = 5
"""Whole minutes of which the pace is the mean."""

_FIXED = 13
"""Lines that a frame has whatever happens."""


def frame(seen: Overview, *, width: int, height: int | None, note: str = "") -> RenderableType:
    """``height`` is in lines; None shows everything. ``note`` stands in the first line."""
    targets = sorted(seen.targets, key=_is_well)
    if height is None:
        shares = [len(seen.troubled), len(targets), len(seen.newest)]
    else:
        wanted = [len(seen.troubled), len(targets), len(seen.newest)]
        shares = share(max(3, height - _FIXED), wanted)
    at = f"{datetime.fromtimestamp(seen.at, UTC):%Y-%m-%d %H:%M:%SZ}"
    return Group(
        Text.assemble(("deploy-relay", "bold"), f"  {at}  {note}", no_wrap=True),
        *_paces(seen.minutes, width),
        _queue(seen),
        _workers(seen),
        Text(),
        _attention(seen),
        _troubled(seen.troubled[: shares[0]], seen.at),
        Text(),
        _targets(targets, shares[1]),
        Text(),
        _newest(seen.newest[: shares[2]], seen.at, width),
    )


def share(lines: int, wanted: Sequence[int]) -> list[int]:
    """So many lines for lists that want so many each: nobody gets more than it wants, or more than
    another one that wants more, by more than one line."""
    given = [0] * len(wanted)
    while lines > 0 and any(has < wants for has, wants in zip(given, wanted, strict=True)):
        for number, wants in enumerate(wanted):
            if lines > 0 and given[number] < wants:
                given[number] += 1
                lines -= 1
    return given


def age(seconds: float) -> str:
    """A span in its largest unit, rounded down: ``42s``, ``5m``, ``3h``, ``2d``."""
    for unit, size in (("d", 86_400), ("h", 3_600), ("m", 60)):
        if seconds >= size:
            return f"{int(seconds // size)}{unit}"
    return f"{max(0, int(seconds))}s"


def _paces(minutes: Sequence[Minute], width: int) -> list[Text]:
    room = max(10, min(len(minutes), width - 34))
    rate = success_rate(minutes)
    told = "no deploy has ended" if rate is None else f"{100 * rate:.1f} % succeeded"
    return [
        _pace("deliveries", [one.deliveries for one in minutes], room),
        _pace("deploys", [one.deploys for one in minutes], room),
        Text(f"in the last hour {told}", _rate_style(rate), no_wrap=True),
    ]


def _pace(title: str, counts: Sequence[int], room: int) -> Text:
    whole = counts[:-1][-_RECENT:]
    mean = f"{sum(whole) / len(whole):.1f}" if whole else "-"
    shown = counts[-room:]
    most = max(shown, default=0) or 1
    # A minute with anything in it has a bar, however small.
    bars = "".join(_BARS[-(-count * 8 // most)] for count in shown)
    return Text.assemble(f"{title:11}", (f"{mean:>8}", "bold"), " a minute  ", (bars, "cyan"))


def _rate_style(rate: float | None) -> str:
    if rate is None:
        return "dim"
    return "green" if rate >= 0.99 else "yellow" if rate >= 0.9 else "bold red"


def _queue(seen: Overview) -> Text:
    oldest = "" if seen.oldest_at is None else f", the oldest for {age(seen.at - seen.oldest_at)}"
    return Text(
        f"{seen.queued} queued, {seen.limited} for a slot{oldest}; {seen.scheduled} for their time",
        no_wrap=True,
        overflow="ellipsis",
    )


def _workers(seen: Overview) -> Text:
    if seen.workers is None:
        return Text("Redis does not answer, so workers are not listed", "yellow")
    if not seen.workers:
        return Text("no worker is alive", "bold red")
    jobs = sum(worker.jobs for worker in seen.workers)
    number = len(seen.workers)
    return Text(f"{number} {'worker' if number == 1 else 'workers'} alive, {jobs} jobs in flight")


def _attention(seen: Overview) -> Text:
    broken = len(seen.breakers)
    parts = [
        (seen.failed, "failed"),
        (seen.uncertain, "uncertain"),
        (seen.approval, "to be approved"),
        (broken, "open breakers" if broken != 1 else "open breaker"),
    ]
    told = [f"{count} {word}" for count, word in parts if count]
    if not told:
        return Text("nothing needs a person", "green")
    return Text(f"needs a person: {', '.join(told)}", "bold yellow", no_wrap=True)


def _troubled(records: Sequence[Record], now: float) -> Table:
    grid = columns("", "", "", "")
    grid.show_header = False
    for record in records:
        told = (f"  {_age_of(record, now)}", coloured(record.status))
        grid.add_row(*told, Text(clean(record.id)), Text(clean(record.reason)))
    # The id is what is copied, so it keeps its place.
    grid.columns[2].min_width = max((len(record.id) for record in records), default=0)
    return grid


def _targets(targets: Sequence[TargetSeen], lines: int) -> Table:
    more = len(targets) - lines
    title = f"target (of {len(targets)})" if more > 0 else "target"
    grid = columns(title, "in flight", "waiting", "state")
    for one in targets[:lines]:
        grid.add_row(Text(clean(one.name)), str(one.calling), waiting(one), state(one))
    for column in grid.columns[1:3]:
        column.justify = "right"
    return grid


def _newest(records: Sequence[Record], now: float, width: int) -> Table:
    rows = [
        (
            Text(_age_of(record, now)),
            coloured(record.status),
            Text(clean(record.target)),
            Text(clean(f"{record.repo}@{record.sha[:12]}")),
            Text(clean(record.id)),
        )
        for record in records
    ]
    titles = ("newest deploys", "status", "target", "commit", "id")
    sizes = [
        max([len(title), *(row[n].cell_len for row in rows)]) for n, title in enumerate(titles)
    ]
    # An id that is cut is of no use.
    shown = 5 if sum(sizes) + 2 * 4 <= width else 4
    grid = columns(*titles[:shown])
    for row in rows:
        grid.add_row(*row[:shown])
    return grid


def _age_of(record: Record, now: float) -> str:
    return age(now - datetime.fromisoformat(record.created_at).timestamp())


def _is_well(one: TargetSeen) -> bool:
    return one.state == "ready"
