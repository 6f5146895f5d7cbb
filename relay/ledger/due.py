"""What is due, and which process looks: the sweep's questions to the ledger."""

from __future__ import annotations

from typing import NamedTuple

from relay.ledger.rows import MICROSECONDS, microseconds, seconds
from relay.ledger.transaction import Reader, Transaction

MOST_DUE = 5_000
"""Rows of each kind in one answer."""


LEAST_STEP = 30.0
"""Seconds by which the clock has to go back for what waits to be put right. Clocks of machines that
share a ledger may differ by less."""


class Due(NamedTuple):
    """The numbers of rows whose time has come, those that are due longest first."""

    deliveries: list[int]
    deploys: list[int]
    notices: list[int]


async def due(reader: Reader, most: int = MOST_DUE, late: float = 0) -> Due:
    """Return what is due since ``late`` seconds: to be routed, to be called or whose claim has run
    out, to be told."""
    limits = {"now": reader.now - round(late * MICROSECONDS), "most": most}
    return Due(
        *[
            [int(row["id"]) for row in await reader.rows(query, limits)]
            for query in ("due_deliveries", "due_deploys", "due_notices")
        ]
    )


async def set_back(tx: Transaction, name: str, lease: float) -> float:
    """Have all that waits due as much earlier as the clock was set back since a duty was last
    taken for ``lease`` seconds. Return by how many seconds that was; 0 where it was not.

    Else what was due at that moment would wait until the clock has come so far again: an hour, or
    a year after a machine that began with a wrong clock.
    """
    row = await tx.row("duty", {"name": name})
    step = row["until"] - tx.now - microseconds(lease) if row is not None else 0
    if step < microseconds(LEAST_STEP):
        return 0
    for query in (
        "set_back_deploys",
        "set_back_deliveries",
        "set_back_notices",
        "set_back_rate_calls",
    ):
        await tx.run(query, {"now": tx.now, "step": step})
    return seconds(step)


async def take_duty(tx: Transaction, name: str, owner: str, lease: float, note: str = "") -> bool:
    """Take or keep a duty for ``lease`` seconds. Return False where another process has it."""
    taken = {
        "name": name,
        "owner": owner,
        "until": tx.now + round(lease * MICROSECONDS),
        "note": note,
        "now": tx.now,
        "furthest": tx.now + microseconds(lease + LEAST_STEP),
    }
    return await tx.run("take_duty", taken) == 1


class Duty(NamedTuple):
    """Who has a duty, and until when."""

    owner: str
    seconds_left: float
    """Below 0 where it has run out."""
    note: str


async def read_duty(reader: Reader, name: str) -> Duty | None:
    """Return who has a duty; None where nobody ever had it or it was given up."""
    row = await reader.row("duty", {"name": name})
    if row is None:
        return None
    return Duty(row["owner"], (row["until"] - reader.now) / MICROSECONDS, row["note"])


async def give_up_duty(tx: Transaction, name: str, owner: str) -> None:
    """Let another process take a duty at once."""
    await tx.run("give_up_duty", {"name": name, "owner": owner, "now": tx.now})


class QueueRebuilt(NamedTuple):
    """That Redis was emptied or put back, and what was done."""

    at: int
    """Microseconds since the Unix epoch."""
    jobs: int
    """Jobs that were made again."""


async def note_rebuilt(tx: Transaction, jobs: int) -> None:
    """Note that Redis was found emptied or put back now, and so many jobs were made again."""
    await tx.run("write_ledger_fact", {"name": "rebuilt", "value": f"{tx.now} {jobs}"})


async def read_rebuilt(reader: Reader) -> QueueRebuilt | None:
    """Return when Redis was last found emptied or put back; None if it never was."""
    row = await reader.row("ledger_fact", {"name": "rebuilt"})
    return None if row is None else QueueRebuilt(*map(int, row["value"].split()))
