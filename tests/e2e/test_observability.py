"""Dashboard and alerts: they ask for metrics that a live relay has, in queries that Prometheus
understands, and point to documents that exist."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from relay.metrics import METRICS
from tests.e2e.test_metrics import measured, scrape, url_of
from tests.harness import Relay

ROOT = Path(__file__).parents[2]
ALERTS = ROOT / "config" / "prometheus" / "alerts.yaml"
DASHBOARD = ROOT / "config" / "grafana" / "deploy-relay.json"

__all__ = ["measured"]


def rules() -> list[dict[str, Any]]:
    [group] = yaml.safe_load(ALERTS.read_text("utf-8"))["groups"]
    return list(group["rules"])


def panels() -> list[dict[str, Any]]:
    return list(json.loads(DASHBOARD.read_text("utf-8"))["panels"])


def queries() -> list[str]:
    return [rule["expr"] for rule in rules()] + [
        target["expr"] for panel in panels() for target in panel["targets"]
    ]


async def test_every_metric_asked_for_is_one_that_a_live_relay_has(measured: Relay) -> None:
    receiver = await measured.serve()
    page, text = await scrape(await url_of(receiver))
    exposed = set(re.findall(r"^# TYPE (\S+)", text, re.MULTILINE)) | {name for name, _ in page}

    asked = {
        name.removesuffix("_bucket").removesuffix("_sum").removesuffix("_count")
        for query in queries()
        for name in re.findall(r"deploy_relay_\w+", query)
    }

    assert asked - exposed == set()
    assert len(asked) > 20
    # What alerts watch begins at nought, or the first failure would be no increase.
    assert page["deploy_relay_deploys_total", ("failed", "production")] == 0
    assert page["deploy_relay_deploys_uncertain_total", ("api",)] == 0
    assert page["deploy_relay_config_refused_total", ("receiver",)] == 0
    assert page["deploy_relay_deliveries_rejected_total", ("503",)] == 0


async def test_every_metric_is_documented(measured: Relay) -> None:
    receiver = await measured.serve()
    _, text = await scrape(await url_of(receiver))
    documented = (ROOT / "docs" / "metrics.md").read_text("utf-8")

    exposed = set(re.findall(r"^# TYPE (\S+)", text, re.MULTILINE))

    assert exposed == set(re.findall(r"^\| `(deploy_relay_\w+)` \|", documented, re.MULTILINE))
    assert len(exposed) == len(METRICS) + 9 + 5


def test_alerts_say_what_to_do_and_where_to_read_on() -> None:
    assert len({rule["alert"] for rule in rules()}) == len(rules())
    for rule in rules():
        assert rule["labels"]["severity"] in ("critical", "warning", "info")
        named = re.findall(r"docs/[\w.-]+\.md", rule["annotations"]["description"])
        assert named, rule["alert"]
        assert all((ROOT / name).is_file() for name in named)


def promtool(*arguments: str, page: str = "") -> str:
    """What Prometheus' own checker has to say."""
    found = shutil.which("promtool")
    if found is None:
        pytest.skip("promtool is not installed (Debian package `prometheus`)")
    done = subprocess.run([found, "check", *arguments], input=page, capture_output=True, text=True)
    return done.stderr if done.returncode == 0 else f"exit code {done.returncode}: {done.stderr}"


def test_prometheus_understands_alerts_and_dashboard(tmp_path: Path) -> None:
    # A dashboard's queries are those of rules, but for the interval that Grafana puts in.
    recorded = [
        {"record": f"query:{number}", "expr": query.replace("$__rate_interval", "5m")}
        for number, query in enumerate(queries())
    ]
    both = tmp_path / "dashboard.yaml"
    both.write_text(yaml.safe_dump({"groups": [{"name": "dashboard", "rules": recorded}]}))

    assert promtool("rules", str(ALERTS)) == ""
    assert promtool("rules", str(both)) == ""


async def test_prometheus_understands_the_page(measured: Relay) -> None:
    receiver = await measured.serve()
    await measured.push()
    _, text = await scrape(await url_of(receiver))

    assert promtool("metrics", page=text) == ""


def test_panels_do_not_overlap() -> None:
    taken: set[tuple[int, int]] = set()
    for panel in panels():
        at = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(at["x"], at["x"] + at["w"])
            for y in range(at["y"], at["y"] + at["h"])
        }
        assert at["x"] + at["w"] <= 24
        assert not cells & taken, panel["title"]
        taken |= cells
