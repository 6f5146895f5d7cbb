"""The ids that people see: ``delivery-12``, ``deploy-34``, ``notice-5``. Pure.

In the ledger a delivery, a deploy and a notice are numbers, each of a table of its own. Outside of
it the kind stands before the number, so that no id of one kind can be taken for one of another.
"""

from __future__ import annotations

import re
from typing import Literal

Kind = Literal["delivery", "deploy", "notice"]

_ID = re.compile(r"(delivery|deploy|notice)-([1-9][0-9]{0,17})")


def public_id(kind: Kind, number: int) -> str:
    """Return the id as people see it."""
    return f"{kind}-{number}"


def idempotency_key(kind: Kind, number: int, created_at: int) -> str:
    """Return what a platform knows the calls of a row by. ``created_at`` is in microseconds since
    the Unix epoch: a new ledger counts from 1 again, and a restored one may give a number twice."""
    return f"{public_id(kind, number)}-{created_at}"


def row_number(kind: Kind, text: str) -> int | None:
    """Return the number in an id of this kind; None for any other text."""
    parts = _ID.fullmatch(text)
    return int(parts[2]) if parts is not None and parts[1] == kind else None
