"""A process that uses the ledger's lock: ``python -m tests.relay.ledger.lock_user DEED FOLDER``.

``hold`` keeps the lock until standard input says more, ``transaction`` keeps it and has written,
``turn`` keeps only the turn, ``unsigned`` keeps the lock and has not named itself, and ``once``
writes a letter while it has the lock.
"""

from __future__ import annotations

import asyncio
import fcntl
import sys
from pathlib import Path

from relay.ledger.ledger import Ledger
from relay.ledger.lock import WriteLock

PATIENCE = 30


def say(word: str) -> None:
    sys.stdout.write(f"{word}\n")
    sys.stdout.flush()


async def hold(folder: Path) -> None:
    lock = WriteLock(folder)
    await lock.take(PATIENCE)
    say("taken")
    sys.stdin.readline()
    lock.release()


async def once(folder: Path) -> None:
    lock = WriteLock(folder)
    await lock.take(PATIENCE)
    with (folder / "order").open("a", encoding="ascii") as order:
        order.write("B")
    lock.release()


async def keep_turn(folder: Path) -> None:
    lock = WriteLock(folder)
    fcntl.flock(lock._turn, fcntl.LOCK_EX)
    lock._sign(lock._turn)
    say("taken")
    sys.stdin.readline()


async def keep_unsigned(folder: Path) -> None:
    lock = WriteLock(folder)
    fcntl.flock(lock._lock, fcntl.LOCK_EX)
    say("taken")
    sys.stdin.readline()


async def transaction(folder: Path) -> None:
    ledger = Ledger(folder)
    transaction = await ledger.writer.begin(PATIENCE)
    await transaction.run("insert_target", {"name": "half done"})
    say("taken")
    sys.stdin.readline()
    await ledger.writer.commit(PATIENCE)


DEEDS = {
    "hold": hold,
    "once": once,
    "turn": keep_turn,
    "unsigned": keep_unsigned,
    "transaction": transaction,
}

if __name__ == "__main__":
    asyncio.run(DEEDS[sys.argv[1]](Path(sys.argv[2])))
