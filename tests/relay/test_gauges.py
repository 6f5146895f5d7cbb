"""What a scrape reads from the ledger."""

from __future__ import annotations

from pathlib import Path

import pytest

from config.loading import load
from config.settings import load_settings
from relay.gauges import read
from tests.relay.ledger.filled import AT
from tests.relay.yard import Yard

LATER = 4_000_000_000_000_000
"""A time that is far off, in microseconds."""


def gauges() -> dict[tuple[str, str], float]:
    settings = load_settings()
    targets = load(settings.config, secrets_of=()).config.targets
    return {
        (gauge.name.removeprefix("deploy_relay_"), label): value
        for gauge in read(settings, targets)
        for label, value in gauge.values
    }


def test_what_waits_is_called_and_needs_a_person(yard: Yard) -> None:
    yard.receive("a", status="queued")
    yard.queue("b", "waiting", repo="acme/b", line_at=AT)
    yard.queue("c", "waiting", repo="acme/c", waits="hours", next_at=LATER)
    yard.queue("d", "calling", repo="acme/d", next_at=LATER)
    yard.queue("e", "failed", "api", repo="acme/e")
    yard.queue("f", "failed", "api", repo="acme/f", overtaken=1)
    yard.target("api", paused_at=AT)

    page = gauges()

    assert page["ledger_up", ""] == 1
    assert page["redis_up", ""] == 0
    assert ("workers", "") not in page
    assert [page[f"{name}_jobs", ""] for name in ("queue", "scheduled", "running")] == [2, 1, 1]
    assert page["queue_oldest_seconds", ""] > 1e6
    assert (page["waiting_deploys", "worker"], page["waiting_deploys", "hours"]) == (1, 1)
    assert page["attention_deploys", "failed"] == 1
    assert page["attention_deploys", "uncertain"] == 0
    assert (page["target_paused", "api"], page["target_paused", "production"]) == (1, 0)
    assert page["target_waiting_deploys", "production"] == 2
    assert page["target_calls_in_flight", "production"] == 1


def test_a_ledger_that_is_not_there_is_told(
    yard: Yard, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RELAY_DATA_DIR", str(tmp_path / "elsewhere"))

    assert gauges() == {("ledger_up", ""): 0, ("redis_up", ""): 0}
