"""What work on the ledger is given: a transaction that runs named queries.

All methods are coroutines, because a database in another process answers later. SQLite answers at
once: a coroutine that only uses its transaction never gives way to another task.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Protocol

Params = Mapping[str, Any]
NO_PARAMS: Params = {}


class Row(Protocol):
    """One row of a result; columns by their names."""

    def __getitem__(self, key: str, /) -> Any: ...


class Reader(Protocol):
    """Reads one consistent state of the ledger."""

    now: int
    """The database's clock, in microseconds since the Unix epoch."""

    async def rows(self, query: str, params: Params = NO_PARAMS) -> list[Row]:
        """Return all rows of a named query."""

    async def row(self, query: str, params: Params = NO_PARAMS) -> Row | None:
        """Return the first row of a named query, if any."""


class Transaction(Reader, Protocol):
    """Reads and writes; all of it is kept, or nothing."""

    has_grown: bool
    """A delivery, a deploy, a call or an action may have been added."""
    is_behind: bool
    """The ledger went back in time: nothing may be called (relay/ledger/generation.py)."""

    async def run(self, query: str, params: Params = NO_PARAMS) -> int:
        """Run a named statement and return how many rows it changed."""

    async def insert(self, query: str, params: Params = NO_PARAMS) -> int:
        """Run a named INSERT of one row that ends with ``RETURNING id``, and return its id."""

    async def run_many(self, query: str, params: Iterable[Params]) -> None:
        """Run a named statement once for each of ``params``."""
