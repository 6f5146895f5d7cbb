"""The console's /metrics: as a receiver's, but for those who have a token."""

from __future__ import annotations

from config.settings import Settings
from relay.ledger.actions import Wish
from relay.ledger.pause import pause_target
from relay.metric_files import MetricFiles, encode
from relay.metrics import DELIVERIES
from tests.console.desk import Desk


async def test_a_viewer_scrapes_what_this_machine_counted(desk: Desk, settings: Settings) -> None:
    receiver = MetricFiles(settings.metrics_folder)
    receiver.open()
    receiver.save(encode({(DELIVERIES, "github", "queued"): [7]}))
    await desk.ledger.commit(lambda tx: pause_target(tx, "production", Wish(by="test")))
    await desk.rows.push("a")
    await desk.rows.deploy("b", repo="acme/other")

    answer = await desk.ask("GET", "/metrics", "viewer")

    assert answer.status == 200
    assert answer.headers["Content-Type"].startswith("text/plain; version=0.0.4")
    lines = str(answer.body).splitlines()
    assert 'deploy_relay_deliveries_total{outcome="queued",source="github"} 7.0' in lines
    assert 'deploy_relay_target_paused{target="production"} 1.0' in lines
    assert 'deploy_relay_target_paused{target="api"} 0.0' in lines
    assert "deploy_relay_queue_jobs 2.0" in lines
    assert "deploy_relay_redis_up 1.0" in lines


async def test_nobody_scrapes_without_a_token(desk: Desk) -> None:
    answer = await desk.ask("GET", "/metrics")

    assert (answer.status, answer.headers["Location"]) == (303, "/login")
    assert "deploy_relay" not in str(answer.body)
