"""The states of refs in the ledger: read, judged and written in the transaction of a delivery.

A process remembers the states of the refs that it met last. Each change of a ref's states gives the
ref another version, so that what is remembered is known to be true, or read anew.
"""

from __future__ import annotations

import secrets
from collections import OrderedDict
from collections.abc import Sequence
from typing import NamedTuple

import msgspec

from relay.events.ref_history import Arrival, Judgement, State, apply, judge, kept
from relay.ledger.transaction import Row, Transaction

REFS_REMEMBERED = 2_000
"""Refs whose states a process remembers; each has 200 states at most."""


class Judged(NamedTuple):
    """A ref, and what an arrival is among its states."""

    ref: int
    judgement: Judgement


class RefStates:
    """The states of refs, as one process remembers them."""

    def __init__(self) -> None:
        self._remembered: OrderedDict[int, tuple[int, list[State]]] = OrderedDict()

    async def judge(
        self, tx: Transaction, repository: str, arrival: Arrival, known_body: bytes | None
    ) -> Judged:
        """Judge an arrival and write what changes in the states of its ref."""
        name = arrival.change.name
        row = await tx.row("ref_by_name", {"repository": repository, "name": name})
        if row is None:
            made = await tx.row("insert_ref", {"repository": repository, "name": name})
            if made is None:
                raise RuntimeError("an insert returned no row")
            ref, states = int(made["id"]), []
        else:
            ref, states = int(row["id"]), await self._states(tx, row)
        judgement = judge(arrival, states, known_body)
        if judgement.verdict != "known":
            await self._write(tx, ref, states, judgement, arrival)
        return Judged(ref, judgement)

    async def _states(self, tx: Transaction, row: Row) -> list[State]:
        ref, version = int(row["id"]), int(row["version"])
        remembered = self._remembered.get(ref)
        if remembered is not None and remembered[0] == version:
            self._remembered.move_to_end(ref)
            return remembered[1]
        return [_state(row) for row in await tx.rows("ref_states", {"ref": ref})]

    async def _write(
        self,
        tx: Transaction,
        ref: int,
        states: Sequence[State],
        judgement: Judgement,
        arrival: Arrival,
    ) -> None:
        after = apply(judgement, states)
        kept_states = kept(after, arrival.seen_at)
        await tx.run_many("write_ref_state", [_columns(ref, state) for state in judgement.rows])
        if len(kept_states) < len(after):
            numbers = {state.no for state in kept_states}
            forgotten = [{"ref": ref, "no": state.no} for state in after if state.no not in numbers]
            await tx.run_many("delete_ref_state", forgotten)
        version = secrets.randbits(62)
        ends = arrival.change.ends and judgement.verdict in ("new", "late")
        await tx.run(
            "write_ref",
            {
                "ref": ref,
                "newest": kept_states[-1].no,
                "newest_pos": kept_states[-1].pos,
                "ended_pos": judgement.pos if ends else 0,
                "version": version,
            },
        )
        self._remembered[ref] = (version, kept_states)
        if len(self._remembered) > REFS_REMEMBERED:
            self._remembered.popitem(last=False)


def _state(row: Row) -> State:
    return State(
        no=row["no"],
        pos=row["pos"],
        origin=row["origin"],
        value=row["value"],
        at=row["at"],
        own_clock=bool(row["own_clock"]),
        body=row["body"],
        copies=row["copies"],
        first_seen=row["first_seen"],
        last_seen=row["last_seen"],
        touched=bool(row["touched"]),
        uncertain=row["uncertain"],
    )


def _columns(ref: int, state: State) -> dict[str, object]:
    return {"ref": ref, **msgspec.structs.asdict(state)}
