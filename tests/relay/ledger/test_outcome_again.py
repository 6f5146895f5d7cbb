"""An outcome that is written again, because nobody knew whether the first commit came through."""

from __future__ import annotations

import pytest

from relay.ledger.ledger import Ledger
from relay.ledger.outcomes import Outcome, settle
from tests.relay.ledger.rows import add_deploy, ask, sql


@pytest.mark.parametrize(
    ("kind", "status"), [("succeeded", "succeeded"), ("failed", "failed"), ("retry", "waiting")]
)
async def test_the_same_outcome_again_is_its_owners(
    ledger: Ledger, kind: object, status: object
) -> None:
    deploy = await add_deploy(ledger, "a")
    assert await ask(ledger, deploy, "mine") is not None
    outcome = Outcome(
        deploy=deploy,
        claim="mine",
        attempt=1,
        kind=kind,  # type: ignore[arg-type]
        status=status,  # type: ignore[arg-type]
        again_at=4_000_000_000,
        ms=12.5,
    )
    assert (await ledger.commit(lambda tx: settle(tx, outcome))).is_owner
    before = sql(ledger.folder, "SELECT * FROM deploy")

    assert (await ledger.commit(lambda tx: settle(tx, outcome))).is_owner
    assert sql(ledger.folder, "SELECT * FROM deploy") == before


async def test_another_outcome_of_the_same_call_is_late(ledger: Ledger) -> None:
    deploy = await add_deploy(ledger, "a")
    assert await ask(ledger, deploy, "mine") is not None
    outcome = Outcome(
        deploy=deploy, claim="mine", attempt=1, kind="failed", status="failed", ms=12.5
    )
    assert (await ledger.commit(lambda tx: settle(tx, outcome))).is_owner

    for other in (
        Outcome(deploy=deploy, claim="x", attempt=1, kind="failed", status="failed", ms=13.0),
        Outcome(deploy=deploy, claim="x", attempt=1, kind="succeeded", status="succeeded", ms=12.5),
    ):
        settled = await ledger.commit(lambda tx, other=other: settle(tx, other))  # type: ignore[misc]
        assert not settled.is_owner
