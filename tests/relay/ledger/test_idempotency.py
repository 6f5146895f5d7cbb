"""What a platform knows a deploy by: a platform that remembers keys must drop no call of ours."""

from __future__ import annotations

from pathlib import Path

from relay.ledger.ledger import Ledger, prepare
from tests.relay.ledger.rows import add_deploy, ask


async def _key(folder: Path) -> tuple[int, str]:
    """Return the number and the key of the first deploy of a new ledger."""
    prepare(folder)
    ledger = Ledger(folder)
    try:
        asked = await ask(ledger, await add_deploy(ledger, "a"))
    finally:
        await ledger.close()
    assert asked is not None
    return asked.deploy.line.id, asked.deploy.idempotency_key


async def test_a_new_ledger_counts_from_1_again_and_has_other_keys(tmp_path: Path) -> None:
    (number, key), (again, other_key) = await _key(tmp_path / "a"), await _key(tmp_path / "b")

    assert number == again == 1
    assert key.startswith("deploy-1-")
    assert key != other_key
