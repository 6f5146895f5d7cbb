"""What an operator sees first: how much waits, for what, and what needs a person."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from config.model import Target
from relay.ledger.filters import Filter
from relay.ledger.lists import list_records
from relay.ledger.overview import Overview, read_overview
from relay.ledger.pace import Minute, Pace, success_rate
from tests.relay.ledger.filled import AT, FilledLedger

LATER = 4_000_000_000_000_000
"""A time that is far off, in microseconds."""

SECOND = 1_000_000

TARGETS = """
production: {preset: http, url: "https://a.example", rate: 2/1h}
api: {preset: http, url: "https://b.example"}
"""


def targets() -> dict[str, Target]:
    read: dict[str, object] = yaml.safe_load(TARGETS)
    return {name: Target.model_validate(one) for name, one in read.items()}


@pytest.fixture
def filled(tmp_path: Path) -> FilledLedger:
    ledger = FilledLedger(tmp_path)
    ledger.delivery()
    return ledger


def look(filled: FilledLedger, pace: Pace | None = None) -> Overview:
    kept = pace or Pace()
    return filled.read(lambda reader: read_overview(reader, targets(), None, kept))


def test_an_idle_relay(filled: FilledLedger) -> None:
    seen = look(filled)

    assert (seen.queued, seen.limited, seen.scheduled, seen.running) == (0, 0, 0, 0)
    assert (seen.waits, seen.oldest_at, seen.workers) == ({}, None, None)
    assert [(one.name, one.state) for one in seen.targets] == [
        ("production", "ready"),
        ("api", "ready"),
    ]
    assert (seen.failed, seen.uncertain, seen.approval, seen.breakers) == (0, 0, 0, [])
    assert (seen.troubled, seen.asking, seen.newest) == ([], [], [])
    assert len(seen.minutes) == 60
    assert success_rate(seen.minutes) is None


def test_what_waits_is_told_by_what_it_waits_for(filled: FilledLedger) -> None:
    filled.delivery(status="queued", received_at=AT + 5 * SECOND)
    filled.deploy("api", status="waiting", line_at=AT + 3 * SECOND)
    filled.deploy("api", status="waiting", waits="slot", line_at=AT + 2 * SECOND, next_at=LATER)
    filled.deploy("api", status="waiting", waits="hours", next_at=LATER)
    due = filled.deploy("api", status="waiting", waits="retry", next_at=AT)
    asks = filled.deploy("api", status="waiting", waits="approval", next_at=LATER)
    called = filled.deploy("api", status="calling", next_at=LATER)

    seen = look(filled)

    # What is due is a worker's, whatever it waited for.
    assert (seen.queued, seen.limited, seen.scheduled, seen.running) == (3, 1, 2, 1)
    assert seen.waits == {"": 1, "slot": 1, "hours": 1, "retry": 1, "approval": 1}
    assert seen.oldest_at == AT / SECOND + 2
    assert [record.id for record in seen.asking] == [f"deploy-{asks}"]
    assert seen.approval == 1
    assert [record.id for record in seen.newest][:3] == [
        f"deploy-{called}",
        f"deploy-{asks}",
        f"deploy-{due}",
    ]
    [production, api] = seen.targets
    assert (production.calling, production.waiting) == (0, 0)
    assert (api.calling, api.waiting) == (1, 5)


def test_attention_is_what_no_success_overtook_and_nobody_replayed(filled: FilledLedger) -> None:
    failed = filled.deploy(status="failed")
    uncertain = filled.deploy(status="uncertain")
    filled.deploy(status="failed", overtaken=1)
    filled.deploy(status="uncertain", replayed_by=9)
    filled.deploy(status="dismissed")
    filled.deploy(status="cancelled")

    seen = look(filled)

    needed = [f"deploy-{uncertain}", f"deploy-{failed}"]
    assert (seen.failed, seen.uncertain) == (1, 1)
    assert [record.id for record in seen.troubled] == needed
    page = filled.read(lambda reader: list_records(reader, "deploy", Filter(attention=True), 9))
    assert [record.id for record in page.records] == needed


def test_targets_say_how_they_stand(filled: FilledLedger) -> None:
    now = look(filled).at
    filled.target("production", open_until=round((now + 60) * SECOND), opened=1)
    filled.target("api", paused_at=AT)

    [production, api] = look(filled).targets

    assert (production.breaker, production.paused) == ("open", False)
    assert production.until
    assert (api.breaker, api.paused) == ("closed", True)
    assert api.state == "paused since 2023-11-14T22:13:20Z"
    assert look(filled).breakers == ["production"]
    filled.target("production", open_until=0)
    for call in ("1", "2"):
        at = round(now * SECOND)
        filled.insert("rate_call", subject="production", at=at, call=call)
    assert look(filled).targets[0].state.startswith("its rate is used up until ")


def test_minutes_count_what_came_and_how_deploys_ended(filled: FilledLedger) -> None:
    pace = Pace()
    begin = look(filled).minutes[-1].at
    minute = begin * SECOND
    before = minute - 120 * SECOND
    for _ in range(4):
        filled.delivery(received_at=minute)
    filled.delivery(received_at=before)
    for status in ("succeeded", "succeeded", "succeeded", "uncertain", "superseded", "cancelled"):
        filled.deploy(status=status, ended_at=minute)
    filled.deploy(status="failed", ended_at=before)

    minutes = {one.at: one for one in look(filled, pace).minutes}

    assert minutes[begin] == Minute(at=begin, deliveries=4, succeeded=3, uncertain=1)
    assert minutes[begin].deploys == 4
    assert minutes[begin - 120] == Minute(at=begin - 120, deliveries=1, failed=1)
    assert success_rate(list(minutes.values())) == 0.6
    # What is over is not counted again.
    filled.delivery(received_at=before)
    again = {one.at: one for one in look(filled, pace).minutes}
    assert again[begin - 120].deliveries == 1
    assert {one.at: one for one in look(filled).minutes}[begin - 120].deliveries == 2
