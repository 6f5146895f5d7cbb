"""How a process opens the ledger, and what /readyz says of it."""

from __future__ import annotations

from config.settings import Settings
from relay.audit_fields import holder_in_words, say_holder_killed
from relay.ledger.acceptance import in_words
from relay.ledger.ledger import MOST_OF_A_WORKER, Ledger, prepare


def open_ledger(
    settings: Settings, *, most: int = MOST_OF_A_WORKER, full_sync: bool = True
) -> Ledger:
    """Return the ledger of RELAY_DATA_DIR. Blocking; ``most`` is the pieces of work in one
    transaction at most, ``full_sync`` whether a commit waits for the disk. Raises LedgerUnusable.

    ``relay.ledger_marks.check_marks`` follows before the first call or answer.
    """
    prepare(settings.data_dir)
    return Ledger(
        settings.data_dir,
        timeout=settings.store_timeout,
        most=most,
        full_sync=full_sync,
        on_holder_killed=say_holder_killed,
    )


def ledger_troubles(ledger: Ledger) -> list[str]:
    """Return what /readyz says of a ledger that is not as it should be; empty where it is."""
    troubles = []
    if ledger.stuck is not None:
        troubles.append(holder_in_words(ledger.stuck))
    if ledger.failure:
        troubles.append(ledger.failure)
    if ledger.behind is not None:
        troubles.append(in_words(ledger.behind))
    return troubles
