"""Counting, pure; and the files in which several processes keep what they have counted."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from relay import audit, metrics
from relay.metric_files import MetricFiles, encode
from relay.metrics import (
    CALL_SECONDS,
    CALLS,
    DELIVERIES,
    INTAKE_BATCH,
    INTAKE_SECONDS,
    METRICS,
    RULES,
    Counters,
    Numbers,
    add,
)
from relay.metrics_endpoint import page


def samples(numbers: Numbers) -> dict[tuple[str, tuple[str, ...]], float]:
    text = page(numbers, iter(())).decode()
    return {
        (sample.name, tuple(sample.labels.values())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def test_every_rule_fits_its_metric() -> None:
    for event, rules in RULES.items():
        for rule in rules:
            metric = METRICS[rule.metric]
            assert len(rule.fields) + len(rule.words) == len(metric.labels), event
            assert bool(rule.value) == bool(metric.buckets), event


def test_names_and_labels_are_as_prometheus_wants_them() -> None:
    for name, metric in METRICS.items():
        assert name.startswith("deploy_relay_")
        assert name.endswith("_total") != bool(metric.buckets)
        assert set(metric.labels) <= {
            *("source", "outcome", "status", "verdict", "target", "reason", "kind", "how"),
            "process",
        }


def test_a_line_counts_whether_it_is_written_or_below_the_level(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(audit, "_observers", [])
    counters = Counters()
    audit.observe(counters.audited)
    audit.observe(counters.audited)
    try:
        audit.configure(level="error")
        audit.log.info("delivery.queued", source="github")
        audit.log.debug("route.skipped", source="github")
    finally:
        audit.configure()

    assert counters.numbers == {(DELIVERIES, "github", "queued"): [1]}


def test_an_uncertain_call_counts_once() -> None:
    counters = Counters()
    call: dict[str, Any] = {"deploy": "api--1", "target": "api", "ms": 40.0}
    counters.audited("deploy.uncertain", call)
    counters.audited("deploy.retry_scheduled", call)
    counters.audited("deploy.succeeded", call)
    # Cut off by a crash, or refused before it was made: there was no answer to time.
    counters.audited("deploy.uncertain", {"deploy": "api--2", "target": "api"})
    counters.audited("deploy.failed", {"deploy": "api--2", "target": "api"})

    assert {key: row for key, row in counters.numbers.items() if key[0] == CALLS} == {
        (CALLS, "api", "uncertain"): [1],
        (CALLS, "api", "succeeded"): [1],
    }
    assert counters.numbers[CALL_SECONDS, "api"][-1] == pytest.approx(0.08)


def test_a_line_that_cannot_be_counted_harms_nobody(caplog: pytest.LogCaptureFixture) -> None:
    counters = Counters()
    counters.audited("deploy.attempted", {"target": "api", "seconds": "soon"})
    assert "was not counted" in caplog.text


def test_series_are_bounded(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(metrics, "MOST_SERIES", 10)
    counters = Counters()
    for number in range(50):
        counters.audited("delivery.queued", {"source": f"s{number}"})
    assert len(counters.numbers) == 10
    assert caplog.text.count("series") == 1


@given(st.lists(st.floats(min_value=0, max_value=100), max_size=30))
def test_buckets_are_cumulative_and_include_their_bound(values: list[float]) -> None:
    counters = Counters()
    for value in [*values, 0.25]:
        counters.observe(value, CALL_SECONDS, "api")
    found = samples(counters.numbers)
    for bound in METRICS[CALL_SECONDS].buckets:
        expected = sum(value <= bound for value in [*values, 0.25])
        assert found[f"{CALL_SECONDS}_bucket", (str(bound), "api")] == expected
    assert found[f"{CALL_SECONDS}_count", ("api",)] == len(values) + 1


def test_a_batch_is_a_size_and_a_latency_for_each() -> None:
    counters = Counters()
    counters.stored([1.0, 1.5, 2.0], 2.0)
    found = samples(counters.numbers)
    assert (found[f"{INTAKE_BATCH}_sum", ()], found[f"{INTAKE_BATCH}_count", ()]) == (3, 1)
    assert (found[f"{INTAKE_SECONDS}_sum", ()], found[f"{INTAKE_SECONDS}_count", ()]) == (1.5, 3)


def test_what_another_release_counted_is_left_out() -> None:
    total: Numbers = {}
    add(total, {("gone_total",): [1], (CALLS, "api"): [1], (CALL_SECONDS, "api"): [1, 2]})
    assert total == {}


KEY = (DELIVERIES, "github", "queued")


def live(folder: Path, count: float) -> MetricFiles:
    one = MetricFiles(folder)
    one.open()
    one.save(encode({KEY: [count]}))
    return one


def test_processes_add_up_and_the_dead_are_kept_but_their_files_not(tmp_path: Path) -> None:
    first, second = live(tmp_path, 3), live(tmp_path, 4)
    assert first.total() == second.total() == {KEY: [7]}

    first.close()

    assert second.total() == {KEY: [7]}
    for _ in range(20):
        live(tmp_path, 1).close()
    assert second.total() == {KEY: [27]}
    assert len(list(tmp_path.glob("*.lock"))) == 1
    second.close()
    assert MetricFiles(tmp_path).total() == {KEY: [27]}


def test_a_crash_while_the_dead_are_added_counts_nobody_twice(tmp_path: Path) -> None:
    live(tmp_path, 3).close()
    [lock] = tmp_path.glob("*.lock")
    kept = {file: file.read_bytes() for file in (lock, lock.with_suffix(".json"))}
    assert MetricFiles(tmp_path).total() == {KEY: [3]}
    for file, data in kept.items():
        file.write_bytes(data)

    assert MetricFiles(tmp_path).total() == {KEY: [3]}
    live(tmp_path, 2).close()
    assert MetricFiles(tmp_path).total() == {KEY: [5]}


@pytest.mark.parametrize(
    "damage",
    [
        b"",
        b"{",
        b"[]",
        b'{"numbers": 3}',
        b'{"numbers": [["a"]]}',
        b'{"numbers": [[[1]]]}',
        b"\0" * 100,
    ],
)
def test_damaged_files_count_as_nothing(tmp_path: Path, damage: bytes) -> None:
    whole, torn = live(tmp_path, 3), live(tmp_path, 4)
    torn.save(damage)
    assert whole.total() == {KEY: [3]}
    torn.close()
    assert whole.total() == {KEY: [3]}
    assert orjson.loads((tmp_path / "past.json").read_bytes())["numbers"] == []


def test_one_process_serves_until_it_ends(tmp_path: Path) -> None:
    first, second = live(tmp_path, 1), live(tmp_path, 1)
    assert (first.serves(), second.serves(), first.serves()) == (True, False, True)
    first.close()
    assert second.serves()


def test_files_are_the_owners_only(tmp_path: Path) -> None:
    folder = tmp_path / "metrics"
    live(folder, 1)
    assert folder.stat().st_mode & 0o077 == 0
    # The lock is the process's own: nobody else gets it while it lives.
    [lock] = folder.glob("*.lock")
    number = os.open(lock, os.O_RDWR)
    with pytest.raises(BlockingIOError):
        fcntl.flock(number, fcntl.LOCK_EX | fcntl.LOCK_NB)
    os.close(number)
