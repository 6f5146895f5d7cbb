"""Which processes have the ledger open: each of them shares a lock on ``ledger.open``.

A restore replaces the file and has that lock for itself, so it never runs beside another process.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from relay.errors import LedgerUnusable
from relay.ledger.holder import pids_with_lock

_FILE = "ledger.open"


def share_presence(folder: Path) -> int:
    """Return an open file that says that this process uses the ledger until it is closed. Raises
    LedgerUnusable while the ledger is replaced, and OSError."""
    file = _open(folder)
    try:
        fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(file)
        raise LedgerUnusable(
            f"the ledger in {folder} is being restored: try again when that is done"
        ) from None
    return file


@contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Keep other processes from opening the ledger in this block. Raises LedgerUnusable where one
    has it open, and OSError."""
    file = _open(folder)
    try:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise LedgerUnusable(
                f"{_users_in_words(file)} the ledger in {folder}: stop deploy-relay first"
            ) from None
        yield
    finally:
        os.close(file)


def _open(folder: Path) -> int:
    return os.open(folder / _FILE, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)


def _users_in_words(file: int) -> str:
    """Return who has the file locked, as the kernel tells it."""
    pids = sorted({*pids_with_lock(file)})
    if not pids:
        return "another process uses"
    if len(pids) == 1:
        return f"process {pids[0]} uses"
    return f"processes {', '.join(map(str, pids))} use"
