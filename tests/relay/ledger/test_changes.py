"""What live pages are told: what is new, what has changed, and that some were missed."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from relay.ledger.changes import MOST_OPEN, NEWEST, Changed, Changes
from tests.relay.ledger.filled import FilledLedger


@pytest.fixture
def filled(tmp_path: Path) -> Iterator[FilledLedger]:
    ledger = FilledLedger(tmp_path)
    yield ledger
    ledger.close()


def look(filled: FilledLedger, changes: Changes, *watched: str) -> Changed:
    return filled.read(lambda reader: changes.read(reader, watched))


def ids(changed: Changed) -> list[str]:
    return [record.id for records in changed.records.values() for record in records]


def end(filled: FilledLedger, deploy: int) -> None:
    filled.sql.execute(
        "UPDATE deploy SET status = 'succeeded', next_at = NULL, claim = NULL WHERE id = ?",
        (deploy,),
    )


def test_first_look_tells_nothing_and_the_next_ones_what_changed(filled: FilledLedger) -> None:
    changes, delivery = Changes(), filled.delivery()
    deploy = filled.deploy(delivery=delivery, status="waiting")

    assert ids(look(filled, changes)) == []
    assert ids(look(filled, changes)) == []
    end(filled, deploy)
    # A delivery's record tells how its deploys stand.
    assert ids(look(filled, changes)) == ["delivery-1", "deploy-1"]
    filled.sql.execute("UPDATE delivery SET redeliveries = 1")
    assert ids(look(filled, changes)) == ["delivery-1"]
    filled.delivery()
    assert ids(look(filled, changes)) == ["delivery-2"]


def test_old_ones_that_are_open_or_watched_are_seen(filled: FilledLedger) -> None:
    changes, delivery = Changes(), filled.delivery()
    open_deploy = filled.deploy(delivery=delivery, status="waiting")
    ended = filled.deploy(delivery=delivery, status="failed")
    look(filled, changes)
    for _ in range(NEWEST):
        filled.deploy(delivery=delivery)
    look(filled, changes)

    end(filled, open_deploy)
    filled.sql.execute("UPDATE deploy SET overtaken = 1 WHERE id = ?", (ended,))
    assert ids(look(filled, changes)) == ["delivery-1", "deploy-1"]
    assert f"deploy-{ended}" in ids(look(filled, changes, f"deploy-{ended}"))


def test_more_than_are_watched_are_a_gap(filled: FilledLedger) -> None:
    changes, delivery = Changes(), filled.delivery()
    filled.deploy(delivery=delivery)
    look(filled, changes)

    for _ in range(NEWEST):
        filled.deploy(delivery=delivery)
    assert look(filled, changes).is_gap is False
    for _ in range(NEWEST + 1):
        filled.deploy(delivery=delivery)
    assert look(filled, changes).is_gap is True
    assert MOST_OPEN > NEWEST
