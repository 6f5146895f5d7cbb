"""A process with a ledger on a small disk: ``python -m tests.relay.ledger.disk_user DEED FOLDER``.

``full`` fills the disk through the ledger, ``prepare`` makes a ledger. Both print a JSON object of
what they met; tests/faults/small_disk.py gives them the disk.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from pathlib import Path
from typing import Any

from relay.errors import LedgerUnavailable, LedgerUnusable
from relay.ledger.ledger import Ledger, prepare
from relay.ledger.transaction import Reader, Transaction

MOST = 5_000


async def add(ledger: Ledger, number: int) -> None:
    async def work(tx: Transaction) -> None:
        await tx.run("insert_target", {"name": f"{number} {'x' * 1_000}"})

    await ledger.commit(work)


async def kept(ledger: Ledger, numbers: list[int]) -> int:
    async def read(reader: Reader) -> int:
        rows = [
            await reader.row("target_by_name", {"name": f"{number} {'x' * 1_000}"})
            for number in numbers
        ]
        return sum(row is not None for row in rows)

    return await ledger.read(read)


async def fill(ledger: Ledger, first: int) -> tuple[list[int], str]:
    """The numbers that were committed, and why the next one was not."""
    done: list[int] = []
    for number in range(first, MOST):
        try:
            await add(ledger, number)
        except LedgerUnavailable as error:
            return done, str(error)
        done.append(number)
    return done, ""


async def full(ledger: Ledger, folder: Path) -> dict[str, Any]:
    done, reason = await fill(ledger, 0)
    since = time.monotonic()
    again = [(await fill(ledger, MOST - 1))[1] for _ in range(5)]
    seconds = time.monotonic() - since
    held = await kept(ledger, done)
    (folder / "filler").unlink()
    more, _ = await fill(ledger, len(done))
    return {
        "reasons": sorted({reason, *again}),
        "seconds": seconds,
        "acknowledged": [len(done), len(more)],
        "kept": [held, await kept(ledger, done + more)],
    }


async def main(deed: str, folder: Path) -> None:
    if deed == "prepare":
        try:
            prepare(folder)
        except LedgerUnusable as error:
            sys.stdout.write(json.dumps({"reasons": [str(error)]}))
        return
    prepare(folder)
    ledger = Ledger(folder, timeout=2)
    told = await full(ledger, folder)
    await ledger.close()
    sys.stdout.write(json.dumps(told))


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], Path(sys.argv[2])))
