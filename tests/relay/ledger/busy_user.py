"""A process that adds ten targets a transaction until it is killed: ``python -m
tests.relay.ledger.busy_user FOLDER``."""

from __future__ import annotations

import asyncio
import itertools
import sys
from pathlib import Path

from relay.ledger.ledger import Ledger
from relay.ledger.transaction import Transaction


async def main(folder: Path) -> None:
    ledger = Ledger(folder)
    for number in itertools.count():

        async def work(tx: Transaction, number: int = number) -> None:
            names = [{"name": f"{number}-{place}"} for place in range(10)]
            await tx.run_many("insert_target", names)

        await ledger.commit(work)
        if not number:
            sys.stdout.write("writing\n")
            sys.stdout.flush()


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1])))
