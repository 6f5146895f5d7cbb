"""Traces: one from the webhook to its calls, over real processes, at a collector of the test."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import pytest
from aiohttp import web
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from tests.e2e.test_straight_line import status
from tests.harness import (
    COMMAND,
    PRODUCTION_PATH,
    SECRETS,
    Relay,
    Target,
    flightcontrol,
    sha_of,
    until,
)


@dataclass(slots=True)
class Collector:
    """What speaks OTLP over HTTP: https://opentelemetry.io/docs/specs/otlp/#otlphttp"""

    url: str = ""
    spans: list[tuple[str, Any]] = field(default_factory=list)
    """Of which process, and the span."""
    raw: list[bytes] = field(default_factory=list)

    async def handle(self, request: web.Request) -> web.Response:
        body = await request.read()
        self.raw.append(body)
        for sent in ExportTraceServiceRequest.FromString(body).resource_spans:
            about = {one.key: one.value.string_value for one in sent.resource.attributes}
            assert about["service.name"] == "deploy-relay"
            for scope in sent.scope_spans:
                self.spans += [(about["deploy_relay.process"], span) for span in scope.spans]
        return web.Response(content_type="application/x-protobuf")

    def named(self, name: str) -> list[tuple[str, Any]]:
        return [(process, span) for process, span in self.spans if span.name == name]


@pytest.fixture
async def collector() -> AsyncIterator[Collector]:
    collector = Collector()
    app = web.Application()
    app.router.add_post("/v1/traces", collector.handle)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    host, port = runner.addresses[0][:2]
    collector.url = f"http://{host}:{port}"
    yield collector
    await runner.cleanup()


def tracing(relay: Relay, collector: Collector, **more: str) -> Relay:
    environ = {
        **relay.environ,
        "OTEL_EXPORTER_OTLP_ENDPOINT": collector.url,
        "OTEL_BSP_SCHEDULE_DELAY": "100",
        **more,
    }
    return dataclasses.replace(relay, environ=environ, processes=relay.processes)


def attributes(span: Any) -> dict[str, Any]:
    return {one.key: getattr(one.value, one.value.WhichOneof("value")) for one in span.attributes}


async def test_one_trace_from_the_webhook_to_each_call(
    relay: Relay, target: Target, collector: Collector
) -> None:
    traced = tracing(relay, collector)
    target.answers = [status(500), flightcontrol]
    receiver, worker = await traced.serve(), await traced.work()

    await traced.push(delivery="1")
    await worker.wait_for("deploy.succeeded")
    assert await receiver.stop() == 0
    assert await worker.stop() == 0

    [(process, intake)] = collector.named("intake")
    [(matcher, deliver)] = collector.named("deliver")
    first, second = (span for _, span in collector.named("deploy attempt"))
    assert (process, matcher) == ("receiver", "worker")
    assert len({span.trace_id for _, span in collector.spans}) == 1
    assert len(collector.spans) == 4
    assert intake.parent_span_id == b""
    assert deliver.parent_span_id == intake.span_id
    assert first.parent_span_id == second.parent_span_id == deliver.span_id
    assert attributes(intake) == {
        "deploy_relay.delivery": "delivery-1",
        "deploy_relay.source": "github",
        "deploy_relay.kind": "push",
        "deploy_relay.repo": "acme/web",
        "deploy_relay.ref": "refs/heads/main",
        "deploy_relay.sha": sha_of("a"),
        "deploy_relay.outcome": "new",
    }
    ends = [
        (said["deploy_relay.attempt"], said["deploy_relay.status"], said["deploy_relay.outcome"])
        for said in map(attributes, (first, second))
    ]
    assert ends == [(1, 500, "retry"), (2, 200, "succeeded")]
    assert (first.status.code, second.status.code) == (2, 0)
    # Neither a secret nor where it was sent: the path of a deploy hook is one.
    sent = b"".join(collector.raw)
    assert all(secret.encode() not in sent for secret in SECRETS)
    assert b"/deploy-hook/" not in sent
    names = {name.lower() for _, _, _, headers, _ in target.calls for name in headers}
    assert "idempotency-key" in names
    assert "traceparent" not in names


async def test_the_target_is_told_only_if_configured(
    relay: Relay, target: Target, collector: Collector
) -> None:
    traced = tracing(relay, collector, RELAY_OTEL_TRACEPARENT="true")
    await traced.serve()
    worker = await traced.work()

    await traced.push()
    await worker.wait_for("deploy.succeeded")
    await until(lambda: collector.named("deploy attempt"))

    [(_, span)] = collector.named("deploy attempt")
    [(_, _, path, headers, _)] = target.calls
    assert path.startswith(PRODUCTION_PATH)
    sent = {name.lower(): value for name, value in headers.items()}["traceparent"]
    assert sent.startswith(f"00-{span.trace_id.hex()}-{span.span_id.hex()}-")


async def test_without_tracing_nothing_is_imported_or_stored(relay: Relay, target: Target) -> None:
    await relay.serve()
    await relay.push(delivery="1")
    assert relay.rows("SELECT trace FROM delivery") == [{"trace": ""}]

    seen = await relay.start(
        sys.executable,
        "-c",
        "import sys, relay.cli; print({'relay.otel', 'opentelemetry.exporter'} & set(sys.modules))",
    )
    await until(lambda: seen.output)
    assert seen.output == ["set()\n"]


async def test_a_collector_that_is_away_costs_no_deploy(
    relay: Relay, target: Target, collector: Collector
) -> None:
    traced = tracing(relay, dataclasses.replace(collector, url="http://127.0.0.1:9"))
    receiver, worker = await traced.serve(), await traced.work()

    assert (await traced.push())[0] == 202
    await worker.wait_for("deploy.succeeded")

    assert await receiver.stop() == 0
    assert await worker.stop() == 0


async def test_what_is_missing_is_said(relay: Relay) -> None:
    # A package of this name that has nothing in it hides the real one.
    (relay.folder / "opentelemetry.py").write_text("")
    environ = {**relay.environ, "RELAY_OTEL": "1", "PYTHONPATH": str(relay.folder)}
    receiver = await dataclasses.replace(relay, environ=environ).start(*COMMAND, "serve")

    await until(lambda: receiver.process.returncode is not None)

    assert receiver.process.returncode == 1
    said = "".join(receiver.output)
    assert "install deploy-relay[otel]" in said
    assert "Traceback" not in said
