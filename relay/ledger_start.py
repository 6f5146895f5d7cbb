"""What people are told of a ledger that is not as it should be."""

from __future__ import annotations

from relay.ledger.acceptance import in_words
from relay.ledger.ledger import Ledger


def ledger_troubles(ledger: Ledger) -> list[str]:
    """Return what is wrong with a ledger; empty where nothing is."""
    troubles = []
    if ledger.stuck is not None:
        troubles.append(ledger.stuck.in_words())
    if ledger.failure:
        troubles.append(ledger.failure)
    if ledger.behind is not None:
        troubles.append(in_words(ledger.behind))
    return troubles
