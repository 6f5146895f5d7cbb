"""The states of refs in the ledger: read, judged and written in the transaction of a delivery.

A process remembers the states of the refs that it met last. Each change of a ref's states gives the
ref another version, so that what is remembered is known to be true, or read anew.
"""

from __future__ import annotations

import itertools
import secrets
from collections import OrderedDict
from typing import NamedTuple

import msgspec

from relay.events.ref_history import Arrival, Judgement, State, StateList, judge
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
        self._remembered: OrderedDict[int, tuple[int, StateList]] = OrderedDict()
        # No other process, nor this one before a rollback, gives out such numbers.
        self._versions = itertools.count(secrets.randbits(62))

    async def judge(
        self, tx: Transaction, repository: str, arrival: Arrival, known_body: bytes | None
    ) -> Judged:
        """Judge an arrival that is not known and write what changes in the states of its ref.
        ``known_body`` is that of another request with its id, if there is one."""
        name = arrival.change.name
        row = await tx.row("ref_by_name", {"repository": repository, "name": name})
        if row is None:
            ref = await tx.insert("insert_ref", {"repository": repository, "name": name})
            states = StateList()
        else:
            ref, states = int(row["id"]), await self._states(tx, row)
        judgement = judge(arrival, states, known_body)
        await self._write(tx, ref, states, judgement, arrival)
        return Judged(ref, judgement)

    async def _states(self, tx: Transaction, row: Row) -> StateList:
        ref, version = int(row["id"]), int(row["version"])
        remembered = self._remembered.get(ref)
        if remembered is not None and remembered[0] == version:
            self._remembered.move_to_end(ref)
            return remembered[1]
        states = StateList([_state(row) for row in await tx.rows("ref_states", {"ref": ref})])
        self._remember(ref, version, states)
        return states

    async def _write(
        self,
        tx: Transaction,
        ref: int,
        states: StateList,
        judgement: Judgement,
        arrival: Arrival,
    ) -> None:
        # Until the row has another version, nothing may be remembered that has changed.
        self._remembered.pop(ref, None)
        states.take(judgement)
        await tx.run_many("write_ref_state", [_columns(ref, state) for state in judgement.rows])
        forgotten = states.let_go(arrival.seen_at)
        if forgotten:
            await tx.run_many(
                "delete_ref_state", [{"ref": ref, "no": state.no} for state in forgotten]
            )
        # Where the transaction is rolled back, the row has another version than what is remembered.
        version = next(self._versions)
        ends = arrival.change.ends and judgement.verdict in ("new", "late")
        newest = states[-1]
        await tx.run(
            "write_ref",
            {
                "ref": ref,
                "newest": newest.no,
                "newest_pos": newest.pos,
                "ended_pos": judgement.pos if ends else 0,
                "version": version,
            },
        )
        self._remember(ref, version, states)

    def _remember(self, ref: int, version: int, states: StateList) -> None:
        self._remembered[ref] = (version, states)
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
