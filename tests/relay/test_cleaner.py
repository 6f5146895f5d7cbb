"""The cleaner: one process at a time has rounds of retention run, and says what went."""

from __future__ import annotations

import asyncio
import io
import json
from pathlib import Path
from typing import Any

from config.settings import Settings
from relay import audit
from relay.cleaner import Cleaner
from relay.ledger.due import take_duty
from relay.ledger.ledger import Ledger, prepare
from relay.ledger.retention import DUTY
from tests.harness import PATIENCE
from tests.relay.ledger.rows import RECEIVED_AT, add_delivery, sql


def settings(**changes: Any) -> Settings:
    return Settings(keep_deliveries=3_600, **changes)


def lines(audited: io.BytesIO, event: str) -> list[dict[str, Any]]:
    audit.flush()
    told = [json.loads(line) for line in audited.getvalue().splitlines()]
    return [line for line in told if line["event"] == event]


async def until_left(folder: Path, number: int) -> None:
    async with asyncio.timeout(PATIENCE):
        while len(sql(folder, "SELECT id FROM delivery")) != number:  # noqa: ASYNC110
            await asyncio.sleep(0.01)


async def test_what_is_old_goes_and_is_told(tmp_path: Path, audited: io.BytesIO) -> None:
    prepare(tmp_path)
    ledger = Ledger(tmp_path, clock=lambda: round((RECEIVED_AT + 7_200) * 1e6))
    for word in "ab":
        await add_delivery(ledger, word, ref=word)
    sql(tmp_path, "UPDATE delivery SET status = 'ignored', next_at = NULL WHERE id = 1")
    cleaner = Cleaner(ledger, settings(), period=0.01)

    cleaner.start()
    await until_left(tmp_path, 1)
    await cleaner.stop()

    # The other one is not routed yet: what is open stays, however old it is.
    assert sql(tmp_path, "SELECT id, status FROM delivery") == [(2, "queued")]
    [line] = lines(audited, "ledger.cleaned")
    assert line["deliveries"] == 1
    assert lines(audited, "ledger.shortened") == []
    await ledger.close()


async def test_a_ledger_over_its_bound_is_shortened_and_says_so(
    tmp_path: Path, audited: io.BytesIO
) -> None:
    prepare(tmp_path)
    ledger = Ledger(tmp_path, clock=lambda: round((RECEIVED_AT + 60) * 1e6))
    await add_delivery(ledger, "a")
    sql(tmp_path, "UPDATE delivery SET status = 'ignored', next_at = NULL")
    cleaner = Cleaner(ledger, settings(ledger_max_bytes=1), period=0.01)

    cleaner.start()
    await until_left(tmp_path, 0)
    await cleaner.stop()

    line = lines(audited, "ledger.shortened")[0]
    assert (line["level"], line["deliveries"]) == ("warning", 1)
    assert "RELAY_LEDGER_MAX_BYTES" in line["reason"]
    await ledger.close()


async def test_one_process_at_a_time_cleans(tmp_path: Path, audited: io.BytesIO) -> None:
    prepare(tmp_path)
    ledger = Ledger(tmp_path, clock=lambda: round((RECEIVED_AT + 7_200) * 1e6))
    await add_delivery(ledger, "a")
    sql(tmp_path, "UPDATE delivery SET status = 'ignored', next_at = NULL")
    assert await ledger.commit(lambda tx: take_duty(tx, DUTY, "another process", 600))
    cleaner = Cleaner(ledger, settings(), period=0.01)
    asked = 0

    async def has_duty() -> bool:
        nonlocal asked
        asked += 1
        return await ledger.commit(lambda tx: take_duty(tx, DUTY, "this one", 600))

    cleaner._has_duty = has_duty  # type: ignore[method-assign]
    cleaner.start()
    async with asyncio.timeout(PATIENCE):
        while asked < 3:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    await cleaner.stop()

    assert len(sql(tmp_path, "SELECT id FROM delivery")) == 1
    await ledger.close()
