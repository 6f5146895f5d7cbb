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

LET_GO_EACH = 16
"""States of a ref between two looks at which of them need not be kept any more."""


class Judged(NamedTuple):
    """A ref, and what an arrival is among its states."""

    ref: int
    judgement: Judgement


class _Remembered(NamedTuple):
    """A ref as it was when its version was written."""

    ref: int
    version: int
    states: StateList


class RefStates:
    """The states of refs, as one process remembers them."""

    def __init__(self) -> None:
        self._remembered: OrderedDict[tuple[str, str], _Remembered] = OrderedDict()
        # No other process, nor this one before a rollback, gives out such numbers.
        self._versions = itertools.count(secrets.randbits(62))

    async def judge(
        self, tx: Transaction, repository: str, arrival: Arrival, known_body: bytes | None
    ) -> Judged:
        """Judge an arrival that is not known and write what changes in the states of its ref.
        ``known_body`` is that of another request with its id, if there is one."""
        key = (repository, arrival.change.name)
        # What is remembered is taken out until the row has the version of what it became.
        before = self._remembered.pop(key, None)
        if before is not None:
            judged = await self._judge(tx, key, before, arrival, known_body)
            if judged is not None:
                return judged
        judged = await self._judge(tx, key, await _read(tx, *key), arrival, known_body)
        if judged is None:
            raise RuntimeError("a ref changed within the transaction that read it")
        return judged

    async def _judge(
        self,
        tx: Transaction,
        key: tuple[str, str],
        before: _Remembered,
        arrival: Arrival,
        known_body: bytes | None,
    ) -> Judged | None:
        """Judge by states that may be out of date; return None if they were."""
        ref, version, states = before
        judgement = judge(arrival, states, known_body)
        states.take(judgement)
        forgotten = states.let_go(arrival.seen_at) if judgement.no % LET_GO_EACH == 0 else ()
        ends = arrival.change.ends and judgement.verdict in ("new", "late")
        newest, next_version = states[-1], next(self._versions)
        written = {
            "ref": ref,
            "newest": newest.no,
            "newest_pos": newest.pos,
            "ended_pos": judgement.pos if ends else 0,
            "version": next_version,
            "before": version,
        }
        if not await tx.run("write_ref", written):
            return None
        for state in judgement.rows:
            await tx.run("write_ref_state", _columns(ref, state))
        for state in forgotten:
            await tx.run("delete_ref_state", {"ref": ref, "no": state.no})
        self._remembered[key] = _Remembered(ref, next_version, states)
        if len(self._remembered) > REFS_REMEMBERED:
            self._remembered.popitem(last=False)
        return Judged(ref, judgement)


async def _read(tx: Transaction, repository: str, name: str) -> _Remembered:
    """Return the states of a ref, whose row is made where there is none."""
    row = await tx.row("ref_by_name", {"repository": repository, "name": name})
    if row is None:
        ref = await tx.insert("insert_ref", {"repository": repository, "name": name})
        return _Remembered(ref, 0, StateList())
    rows = await tx.rows("ref_states", {"ref": row["id"]})
    return _Remembered(row["id"], row["version"], StateList([state_of_row(row) for row in rows]))


def state_of_row(row: Row) -> State:
    """Return a row of the table ``ref_state``."""
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
