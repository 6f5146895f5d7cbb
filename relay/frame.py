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


def frame(overview: Overview, *, width: int, height: int | None, note: str = "") -> RenderableType:
    """``height`` is in lines; None shows everything. ``note`` stands in the first line."""
    targets = sorted(overview.targets, key=_is_well)
    if height is None:
        shares = [len(overview.troubled), len(targets), len(overview.newest)]
    else:
        wishes = [len(overview.troubled), len(targets), len(overview.newest)]
        shares = share(max(3, height - _FIXED), wishes)
    at = f"{datetime.fromtimestamp(overview.at, UTC):%Y-%m-%d %H:%M:%SZ}"
    return Group(
        Text.assemble(("deploy-relay", "bold"), f"  {at}  {note}", no_wrap=True),
        *_paces(overview.minutes, width),
        _queue(overview),
        _workers(overview),
        Text(),
        _attention(overview),
        _troubled(overview.troubled[: shares[0]], overview.at),
        Text(),
        _targets(targets, shares[1]),
        Text(),
        _newest(overview.newest[: shares[2]], overview.at, width),
    )


def share(lines: int, wishes: Sequence[int]) -> list[int]:
    """Return how many of the lines each list gets. A list gets no more than its wish, and at most
    one line more than another list that still wants some."""
    given = [0] * len(wishes)
    while lines > 0 and any(has < wants for has, wants in zip(given, wishes, strict=True)):
        for number, wants in enumerate(wishes):
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
    result = "no deploy has ended" if rate is None else f"{100 * rate:.1f} % succeeded"
    return [
        _pace("deliveries", [one.deliveries for one in minutes], room),
        _pace("deploys", [one.deploys for one in minutes], room),
        Text(f"in the last hour {result}", _rate_style(rate), no_wrap=True),
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


def _queue(overview: Overview) -> Text:
    oldest = (
        ""
        if overview.oldest_at is None
        else f", the oldest for {age(overview.at - overview.oldest_at)}"
    )
    return Text(
        f"{overview.queued} queued, {overview.limited} for a slot{oldest}; "
        f"{overview.scheduled} for their time",
        no_wrap=True,
        overflow="ellipsis",
    )


def _workers(overview: Overview) -> Text:
    if overview.workers is None:
        return Text("Redis does not answer, so workers are not listed", "yellow")
    if not overview.workers:
        return Text("no worker is alive", "bold red")
    jobs = sum(worker.jobs for worker in overview.workers)
    number = len(overview.workers)
    return Text(f"{number} {'worker' if number == 1 else 'workers'} alive, {jobs} jobs in flight")


def _attention(overview: Overview) -> Text:
    broken = len(overview.breakers)
    parts = [
        (overview.failed, "failed"),
        (overview.uncertain, "uncertain"),
        (overview.approval, "to be approved"),
        (broken, "open breakers" if broken != 1 else "open breaker"),
    ]
    needs = ["no call is made (run deploy-relay ledger accept)"] * overview.is_behind
    needs += [f"{count} {word}" for count, word in parts if count]
    if not needs:
        return Text("nothing needs a person", "green")
    return Text(f"needs a person: {', '.join(needs)}", "bold yellow", no_wrap=True)


def _troubled(records: Sequence[Record], now: float) -> Table:
    grid = columns("", "", "", "")
    grid.show_header = False
    for record in records:
        cells = (f"  {_age_of(record, now)}", coloured(record.status))
        grid.add_row(*cells, Text(clean(record.id)), Text(clean(record.reason)))
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
