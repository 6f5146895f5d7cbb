"""The ledger as commands open it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from config.settings import Settings
from relay.errors import LedgerUnusable
from relay.ledger.ledger import Ledger
from relay.ledger.sqlite import FILE


@asynccontextmanager
async def open_ledger(settings: Settings) -> AsyncIterator[Ledger]:
    """Open the ledger that the relay has made. Raises LedgerUnusable where there is none, as one
    that a command made would be empty, and nobody's but this user's."""
    folder = settings.data_dir
    if not (folder / FILE).exists():
        raise LedgerUnusable(
            f"there is no ledger in {folder}: start deploy-relay up or serve there, or name its "
            "folder in RELAY_DATA_DIR"
        )
    ledger = Ledger(folder, timeout=settings.store_timeout)
    try:
        yield ledger
    finally:
        await ledger.close()
