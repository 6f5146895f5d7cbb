"""Metrics: counters and histograms over the audit's lines, and over intake.

Each line of the audit is counted where it is written, in this process's memory, by the rules below.
relay/metric_files.py adds up the processes of a machine, relay/metrics_endpoint.py serves the sums.
docs/metrics.md has the table.

Names and units follow https://prometheus.io/docs/practices/naming/. Labels are names of relay.yaml
and words of the audit, never texts of a sender.
"""

from __future__ import annotations

import logging
from bisect import bisect_left
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

MOST_SERIES = 20_000
"""Series that a process counts at most; further ones are left out."""

QUICK = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
CALL = (0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
LONG = (0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 15.0, 60.0, 300.0, 1800.0, 7200.0, 43200.0)
SIZES = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0)

Key = tuple[str, ...]
"""A metric's name and the values of its labels."""

Numbers = dict[Key, list[float]]
"""One number for a counter; for a histogram one for each bucket, one for values above, the sum."""

_diagnostics = logging.getLogger("relay.metrics")


class Metric(NamedTuple):
    """A counter, or with ``buckets`` (upper bounds) a histogram."""

    help: str
    labels: tuple[str, ...] = ()
    buckets: tuple[float, ...] = ()


class Rule(NamedTuple):
    """How a line of the audit is counted."""

    metric: str
    fields: tuple[str, ...] = ()
    """Fields of the line that are the first labels."""
    words: tuple[str, ...] = ()
    """The labels after them."""
    value: str = ""
    """The field whose value a histogram counts; a line without it is not counted."""


DELIVERIES = "deploy_relay_deliveries_total"
REJECTED = "deploy_relay_deliveries_rejected_total"
UNCERTAIN_ORDERS = "deploy_relay_uncertain_orders_total"
INTAKE_SECONDS = "deploy_relay_intake_seconds"
INTAKE_BATCH = "deploy_relay_intake_batch_deliveries"
DEPLOYS = "deploy_relay_deploys_total"
CALLS = "deploy_relay_deploy_calls_total"
CALL_SECONDS = "deploy_relay_deploy_call_seconds"
DELAY = "deploy_relay_received_to_called_seconds"
RETRIES = "deploy_relay_retries_total"
UNCERTAIN = "deploy_relay_deploys_uncertain_total"
WAITS = "deploy_relay_deploy_waits_total"
OPENED = "deploy_relay_breaker_opened_total"
CLOSED = "deploy_relay_breaker_closed_total"
HELD = "deploy_relay_target_held_total"
REPLAYED = "deploy_relay_replays_total"
RELOADS = "deploy_relay_config_reloads_total"
REFUSED = "deploy_relay_config_refused_total"

METRICS: dict[str, Metric] = {
    DELIVERIES: Metric("Verified deliveries by outcome.", ("source", "outcome")),
    REJECTED: Metric("Requests answered 4xx or 5xx.", ("status",)),
    UNCERTAIN_ORDERS: Metric("Deliveries whose order is uncertain.", ("source",)),
    INTAKE_SECONDS: Metric("From a verified delivery until it is stored and audited.", (), QUICK),
    INTAKE_BATCH: Metric("Deliveries stored together.", (), SIZES),
    DEPLOYS: Metric("Deploys by outcome.", ("target", "outcome")),
    CALLS: Metric("Calls of deploy hooks by outcome.", ("target", "outcome")),
    CALL_SECONDS: Metric("How long calls of deploy hooks took.", ("target",), CALL),
    DELAY: Metric("From a received delivery to its first call.", ("target",), LONG),
    RETRIES: Metric("Jobs that run again after an error.", ("kind",)),
    UNCERTAIN: Metric("Calls without an answer, or cut off.", ("target",)),
    WAITS: Metric("Deploys that had to wait, by reason.", ("target", "reason")),
    OPENED: Metric("Times that a breaker opened, or stayed open after a probe.", ("target",)),
    CLOSED: Metric("Times that a breaker closed.", ("target",)),
    HELD: Metric("Times that a platform limited its calls (429 or Retry-After).", ("target",)),
    REPLAYED: Metric("Replays that started.", ("kind",)),
    RELOADS: Metric("Times that relay.yaml was read again.", ("process",)),
    REFUSED: Metric("Times that a changed relay.yaml was refused.", ("process",)),
}

_TARGET, _SOURCE, _PROCESS = ("target",), ("source",), ("process",)

RULES: dict[str, tuple[Rule, ...]] = {
    **{
        f"delivery.{outcome}": (Rule(DELIVERIES, _SOURCE, (outcome,)),)
        for outcome in ("queued", "duplicate", "ignored", "late", "cancelled")
    },
    "delivery.rejected": (Rule(REJECTED, ("status",)),),
    **{
        f"deploy.{outcome}": (Rule(DEPLOYS, _TARGET, (outcome,)),)
        for outcome in ("queued", "duplicate", "superseded", "cancelled", "succeeded", "failed")
    },
    "deploy.attempted": (Rule(DELAY, _TARGET, value="seconds"),),
    "deploy.uncertain": (Rule(UNCERTAIN, _TARGET),),
    "deploy.waiting": (Rule(WAITS, ("target", "reason")),),
    "target.opened": (Rule(OPENED, _TARGET),),
    "target.closed": (Rule(CLOSED, _TARGET),),
    "target.held": (Rule(HELD, _TARGET),),
    "config.reloaded": (Rule(RELOADS, _PROCESS),),
    "config.refused": (Rule(REFUSED, _PROCESS),),
    **{
        f"{kind}.{event}": (Rule(metric, (), (kind,)),)
        for kind in ("delivery", "deploy")
        for event, metric in (("retry_scheduled", RETRIES), ("replayed", REPLAYED))
    },
}

_CALL_ENDS = {
    "deploy.succeeded": "succeeded",
    "deploy.failed": "failed",
    "deploy.retry_scheduled": "retried",
    "deploy.uncertain": "uncertain",
}


_EXPECTED = ("deploy.failed", "deploy.uncertain")


class Counters:
    """The metrics of this process. They belong to one event loop."""

    def __init__(self) -> None:
        self.numbers: Numbers = {}
        self.changed = False
        """Whether something was counted since the last save, which sets it to False."""
        self._uncertain: set[str] = set()
        self._full = False

    def audited(self, event: str, fields: Mapping[str, Any]) -> None:
        """Count a line of the audit. Raises nothing: the line matters more than its number."""
        rules = RULES.get(event)
        if rules is None:
            return
        try:
            for rule in rules:
                key = (rule.metric, *[str(fields.get(name, "")) for name in rule.fields])
                if not rule.value:
                    self._count(key + rule.words)
                elif rule.value in fields:
                    self.observe(fields[rule.value], *key)
            if event.startswith("delivery.") and fields.get("uncertain"):
                self._count((UNCERTAIN_ORDERS, str(fields["source"])))
            if event in _CALL_ENDS and "ms" in fields:
                self._called(event, fields)
        except Exception:
            _diagnostics.exception("a line of the audit was not counted")

    def expect(self, targets: Iterable[str], process: str) -> None:
        """Begin the series that alerts watch at 0: Prometheus sees no increase in the first number
        of a series."""
        for target in targets:
            for event in _EXPECTED:
                for rule in RULES[event]:
                    self._row((rule.metric, *(target for _ in rule.fields), *rule.words), 1)
        self._row((REFUSED, process), 1)
        for status in ("401", "500", "503"):
            self._row((REJECTED, status), 1)

    def stored(self, since: Sequence[float], now: float) -> None:
        """Count a batch that was stored. ``since`` is when each delivery was verified, ``now`` the
        time, both by the monotonic clock."""
        self.observe(len(since), INTAKE_BATCH)
        for moment in since:
            self.observe(now - moment, INTAKE_SECONDS)

    def observe(self, value: float, *key: str) -> None:
        """Count a value into a histogram."""
        buckets = METRICS[key[0]].buckets
        numbers = self._row(key, len(buckets) + 2)
        numbers[bisect_left(buckets, value)] += 1
        numbers[-1] += value

    def _count(self, key: Key) -> None:
        numbers = self.numbers.get(key)
        if numbers is None:
            numbers = self._row(key, 1)
        numbers[0] += 1
        self.changed = True

    def _row(self, key: Key, length: int) -> list[float]:
        self.changed = True
        numbers = self.numbers.get(key)
        if numbers is None:
            numbers = [0.0] * length
            if len(self.numbers) < MOST_SERIES:
                self.numbers[key] = numbers
            elif not self._full:
                self._full = True
                _diagnostics.error("more than %d series: new ones are not counted", MOST_SERIES)
        return numbers

    def _called(self, event: str, fields: Mapping[str, Any]) -> None:
        """Count a call once. An uncertain one has two lines, the second about what follows."""
        deploy = str(fields["deploy"])
        if event == "deploy.uncertain":
            self._uncertain.add(deploy)
        elif deploy in self._uncertain:
            self._uncertain.discard(deploy)
            return
        target = str(fields["target"])
        self._count((CALLS, target, _CALL_ENDS[event]))
        self.observe(fields["ms"] / 1000, CALL_SECONDS, target)


counters = Counters()
"""The metrics of this process."""


def add(total: Numbers, other: Mapping[Key, Sequence[float]]) -> None:
    """Add the metrics of another process. Series with other buckets or labels, as of another
    release, are left out."""
    for key, numbers in other.items():
        metric = METRICS.get(key[0]) if key else None
        if metric is None or len(key) != 1 + len(metric.labels):
            continue
        length = len(metric.buckets) + 2 if metric.buckets else 1
        if len(numbers) == length:
            mine = total.setdefault(key, [0.0] * length)
            for index, number in enumerate(numbers):
                mine[index] += number
