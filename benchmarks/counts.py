"""How far the deliveries of a measurement have come, by the ledger or, before it, by RQ."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Protocol

from benchmarks.processes import BenchmarkFailed
from benchmarks.store import QUEUE, Store
from relay.ledger.sqlite import FILE, connect


class Counts(Protocol):
    """What became of deliveries that cause one deploy each."""

    def waiting(self) -> int:
        """Deliveries that no worker has routed."""

    def are_deployed(self, number: int) -> bool:
        """Whether as many deploys have succeeded. Raises BenchmarkFailed if one has not."""


class LedgerCounts:
    """Counts of a ledger."""

    def __init__(self, data: Path) -> None:
        """``data`` is RELAY_DATA_DIR."""
        self._file = data / FILE

    def waiting(self) -> int:
        """Deliveries that no worker has routed."""
        return self._count("SELECT count(*) FROM delivery WHERE status = 'queued'")

    def are_deployed(self, number: int) -> bool:
        """Whether as many deploys have succeeded. Raises BenchmarkFailed if one has not."""
        ended_badly = self._count(
            "SELECT count(*) FROM deploy WHERE ended_at IS NOT NULL AND status <> 'succeeded'"
        )
        if ended_badly:
            raise BenchmarkFailed(f"{ended_badly} deploys did not succeed")
        return self._count("SELECT count(*) FROM deploy WHERE status = 'succeeded'") >= number

    def bytes(self) -> int:
        """Bytes of the pages that hold something."""
        return self._count(
            "SELECT (page_count - freelist_count) * page_size "
            "FROM pragma_page_count, pragma_freelist_count, pragma_page_size"
        )

    def _count(self, query: str) -> int:
        with closing(self._open()) as connection:
            return int(connection.execute(query).fetchone()[0])

    def _open(self) -> sqlite3.Connection:
        return connect(self._file, mode="ro")


class RedisCounts:
    """Counts of a release whose deliveries and deploys were jobs of RQ."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def waiting(self) -> int:
        """Deliveries that no worker has routed."""
        return self._store.waiting()

    def are_deployed(self, number: int) -> bool:
        """Whether as many deploys have succeeded. Raises BenchmarkFailed if one has not."""
        client = self._store.client
        failed = int(client.zcard(f"rq:failed:{QUEUE}"))
        if failed:
            raise BenchmarkFailed(f"{failed} jobs failed")
        # One job has routed the delivery, the other has made the call.
        return int(client.zcard(f"rq:finished:{QUEUE}")) >= 2 * number
