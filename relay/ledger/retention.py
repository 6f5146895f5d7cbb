"""Retention: how long each table keeps what, and the rounds that delete what is older.

1. Rows are deleted in slices of 25, each a transaction of its own, the oldest first. A larger slice
   would keep a webhook waiting.
2. What is open is never deleted, nor the deploy that is live on a ref, nor a ref's newest state.
3. A deploy goes with its delivery, so that no list names a delivery that is not there.
4. A ledger that is larger than its bound deletes the oldest deliveries before their time.

One process at a time runs rounds; it has the duty ``retention``.
"""

from __future__ import annotations

import secrets
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import msgspec

from config.settings import Settings
from relay.events.ref_history import kept
from relay.ledger.ledger import Ledger
from relay.ledger.payload_files import PayloadFiles
from relay.ledger.refs import state_of_row
from relay.ledger.rows import microseconds
from relay.ledger.transaction import Reader, Row, Transaction

DUTY = "retention"

SLICE = 25
"""Rows of one transaction."""

MOST_OF_A_ROUND = 1_000
"""Rows of one table that one round deletes."""

ROOM = 0.95
"""Part of the bound to which a ledger that is over it is brought."""

LONGEST_RATE = 1_000 * 86_400.0
"""Seconds after which no rate counts a call any more."""

_CURSOR = "retention_ref"
"""The fact that says up to which ref old states were deleted."""


class Keep(msgspec.Struct, frozen=True, kw_only=True):
    """For how many seconds each kind of row is kept."""

    deliveries: float
    """Since they were received; their deploys and attempts go with them."""
    payloads: float
    exchanges: float
    """Requests and answers of attempts, since the deploy was queued."""
    actions: float
    notices: float
    refusals: float
    max_bytes: int = 0
    """Bytes of the ledger; 0 for no bound. Files of large payloads are not counted."""


def keep_of(settings: Settings) -> Keep:
    """Return how long each table keeps what, as the settings say."""
    return Keep(
        deliveries=settings.keep_deliveries,
        payloads=settings.keep_payloads,
        exchanges=settings.keep_exchanges,
        actions=settings.keep_actions,
        notices=settings.keep_notices,
        refusals=settings.keep_refusals,
        max_bytes=settings.ledger_max_bytes,
    )


class Cleaned(msgspec.Struct, kw_only=True):
    """What one round deleted, in rows."""

    deliveries: int = 0
    payloads: int = 0
    exchanges: int = 0
    actions: int = 0
    notices: int = 0
    refusals: int = 0
    rate_calls: int = 0
    sessions: int = 0
    states: int = 0
    files: int = 0
    """Files of large payloads."""
    is_done: bool = True
    """False where another round has more to delete."""
    bytes_before: int = 0
    """Bytes that the rows took before the round."""
    bytes_after: int = 0
    early: int = 0
    """Of ``deliveries`` those that went before their time, because the ledger was too large."""


async def clean(ledger: Ledger, keep: Keep, now: float) -> Cleaned:
    """Run one bounded round and return what it deleted. ``now`` is in seconds since the Unix epoch.

    Raises LedgerUnavailable; what was deleted before stays deleted.
    """
    return await _Round(ledger, keep, now).run()


Read = Callable[[Reader], Awaitable[list[Row]]]
Delete = Callable[[Transaction, Sequence[Row]], Awaitable[int]]


class _Round:
    def __init__(self, ledger: Ledger, keep: Keep, now: float) -> None:
        self._ledger = ledger
        self._keep = keep
        self._now = now
        self._files = PayloadFiles(ledger.folder)
        self._cleaned = Cleaned()
        self._unnamed: list[str] = []
        """Files of large payloads whose names are deleted in the transaction that runs."""

    async def run(self) -> Cleaned:
        done, keep = self._cleaned, self._keep
        done.bytes_before = done.bytes_after = await self._used()
        done.deliveries = await self._delete(
            _rows("old_deliveries", before=self._before(keep.deliveries)), self._delete_deliveries
        )
        done.payloads = await self._delete(
            self._until("first_young_delivery", keep.payloads, "old_payloads"),
            self._delete_payloads,
        )
        done.exchanges = await self._delete(
            self._until("first_young_deploy", keep.exchanges, "old_exchanges"),
            _by_key("delete_exchange", "deploy", "number"),
        )
        done.actions = await self._delete(
            self._first("first_actions", "at", keep.actions), _by_key("delete_action", "id")
        )
        done.notices = await self._delete(
            self._first("ended_notices", "created_at", keep.notices),
            _by_key("delete_notice", "id"),
        )
        hour = int((self._now - keep.refusals) // 3_600)
        done.refusals = await self._delete(
            _rows("old_refusals", hour=hour), _by_key("delete_refusal", "hour", "source", "status")
        )
        done.rate_calls = await self._delete(
            _rows("old_rate_calls", before=self._before(LONGEST_RATE)),
            _by_key("delete_rate_call", "subject", "at", "call"),
        )
        done.sessions = await self._delete(
            _rows("old_sessions", now=microseconds(self._now)), _by_key("delete_session", "hash")
        )
        done.states = await self._states()
        await self._fit()
        done.bytes_after = await self._used()
        return done

    def _before(self, seconds: float) -> int:
        return microseconds(self._now - seconds)

    async def _used(self) -> int:
        rows = await self._ledger.read(_rows("ledger_bytes"))
        return int(rows[0]["used"])

    async def _delete(self, read: Read, delete: Delete) -> int:
        """Read what is old and delete it slice by slice; return the number of rows."""
        rows = await self._ledger.read(read)
        if len(rows) >= MOST_OF_A_ROUND:
            self._cleaned.is_done = False
        number = 0
        for start in range(0, len(rows), SLICE):
            number += await self._slice(rows[start : start + SLICE], delete)
        return number

    async def _slice(self, rows: Sequence[Row], delete: Delete) -> int:
        """Delete some rows, and then the files that they named."""

        async def work(tx: Transaction) -> int:
            self._unnamed.clear()
            return await delete(tx, rows)

        number = await self._ledger.commit(work)
        for name in self._unnamed:
            self._files.remove(name)
        self._cleaned.files += len(self._unnamed)
        self._unnamed.clear()
        return number

    def _until(self, first: str, seconds: float, query: str) -> Read:
        """Read rows below the first delivery, or deploy, that is young enough."""

        async def read(reader: Reader) -> list[Row]:
            row = await reader.row(first, {"before": self._before(seconds)})
            until = 2**62 if row is None else row["id"]
            return await reader.rows(query, {"until": until, "most": MOST_OF_A_ROUND})

        return read

    def _first(self, query: str, column: str, seconds: float) -> Read:
        """Read the first rows by their numbers, as far as they are old."""

        async def read(reader: Reader) -> list[Row]:
            rows = await reader.rows(query, {"most": MOST_OF_A_ROUND})
            return [row for row in rows if row[column] < self._before(seconds)]

        return read

    # --- deliveries and payloads

    async def _delete_deliveries(self, tx: Transaction, rows: Sequence[Row]) -> int:
        number = 0
        for row in rows:
            delivery = {"delivery": row["id"]}
            old = await tx.row("old_delivery", delivery)
            if old is None:
                continue
            self._forget_file(old)
            if old["message"]:
                text = {**delivery, "message": old["message"]}
                await tx.run("delete_delivery_text", text)
            await tx.run("delete_deploys_of_delivery", delivery)
            number += await tx.run("delete_delivery", delivery)
        return number

    async def _delete_payloads(self, tx: Transaction, rows: Sequence[Row]) -> int:
        number = 0
        for row in rows:
            self._forget_file(row)
            number += await tx.run("delete_payload", {"delivery": row["delivery"]})
        return number

    def _forget_file(self, row: Row) -> None:
        if row["codec"] == "file":
            self._unnamed.append(bytes(row["body"]).decode())

    async def _fit(self) -> None:
        """Delete the oldest deliveries of a ledger that is larger than its bound."""
        bound = self._keep.max_bytes
        if not bound or await self._used() <= bound:
            return
        oldest = _rows("old_deliveries", before=microseconds(self._now) + 1)
        rows = await self._ledger.read(oldest)
        for start in range(0, len(rows), SLICE):
            deleted = await self._slice(rows[start : start + SLICE], self._delete_deliveries)
            self._cleaned.deliveries += deleted
            self._cleaned.early += deleted
            if await self._used() <= bound * ROOM:
                return
        self._cleaned.is_done = not rows

    # --- states of refs

    async def _states(self) -> int:
        """Delete the old states of the next refs; those of busy refs go when they change."""

        async def refs_after_cursor(reader: Reader) -> list[Row]:
            fact = await reader.row("ledger_fact", {"name": _CURSOR})
            cursor = {"ref": int(fact["value"]) if fact else 0, "most": MOST_OF_A_ROUND}
            return await reader.rows("refs_after", cursor)

        rows = await self._ledger.read(refs_after_cursor)
        number = 0
        for start in range(0, len(rows), SLICE):
            number += await self._slice(rows[start : start + SLICE], self._states_of_refs)
        if len(rows) < MOST_OF_A_ROUND:
            await self._ledger.commit(lambda tx: tx.run("delete_ledger_fact", {"name": _CURSOR}))
        return number

    async def _states_of_refs(self, tx: Transaction, refs: Sequence[Row]) -> int:
        number = 0
        for row in refs:
            ref = {"ref": row["id"]}
            states = [state_of_row(one) for one in await tx.rows("ref_states", ref)]
            numbers = {state.no for state in kept(states, self._now)}
            old = [state.no for state in states if state.no not in numbers]
            for no in old:
                number += await tx.run("delete_ref_state", {**ref, "no": no})
            if old:
                version = {**ref, "version": secrets.randbits(62)}
                await tx.run("change_ref_version", version)
        cursor = {"name": _CURSOR, "value": str(refs[-1]["id"])}
        await tx.run("write_ledger_fact", cursor)
        return number


def _rows(query: str, **params: Any) -> Read:
    async def read(reader: Reader) -> list[Row]:
        return await reader.rows(query, {"most": MOST_OF_A_ROUND, **params})

    return read


def _by_key(query: str, *columns: str) -> Delete:
    """Delete each row by the columns that name it."""

    async def delete(tx: Transaction, rows: Sequence[Row]) -> int:
        number = 0
        for row in rows:
            number += await tx.run(query, {column: row[column] for column in columns})
        return number

    return delete
