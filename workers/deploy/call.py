"""The call of a deploy: request, answer, and the record that is stored for people."""

from __future__ import annotations

import logging
import time
from asyncio import CancelledError
from dataclasses import dataclass, replace
from datetime import UTC, datetime

import msgspec

from relay.attempt_record import Exchange, Received, recorded
from relay.audit import redacted
from relay.events.ids import public_id
from relay.ledger.claims import CUT_OFF, Asked
from relay.ledger.zstd import pack
from relay.planning import Call
from relay.tracing import begin
from workers.deploy.flight import Flight
from workers.errors import CallFailed, DeployFailed
from workers.platform.backoff import retry_after
from workers.platform.http_client import PlatformClient
from workers.platform.response import Answer, Verdict, judge
from workers.runtime import Project

_logger = logging.getLogger("workers")

STOPPED = "attempt {} was stopped by RQ's command before its answer came"


@dataclass(frozen=True, slots=True)
class CallResult:
    """The result of a call."""

    verdict: Verdict
    status: int | None = None
    """None without an answer."""
    ms: float = 0
    """Milliseconds until the answer, or until it was given up."""
    asked_seconds: float | None = None
    """Seconds of the answer's Retry-After; None without one."""
    exchange: bytes | None = None
    """Request and answer for people, secrets redacted."""
    was_refused_here: bool = False
    """The relay did not send it, so it says nothing about the target."""
    was_stopped: bool = False
    """A person stopped it."""


def plan(project: Project, asked: Asked) -> Call:
    """Return the call of a deploy. Raises RelayError where the target's recipe does not fit."""
    line = asked.deploy.line
    return project.recipes[line.target].plan(
        asked.deploy.event,
        route=line.route,
        delivery=public_id("delivery", line.delivery),
        source=line.source,
        reveal=lambda ref: ref.reveal(),
    )


async def make_call(
    client: PlatformClient, project: Project, asked: Asked, call: Call, flight: Flight
) -> CallResult:
    """Make the call and judge its answer. Never raises because of the call."""
    line = asked.deploy.line
    target, recipe = project.targets[line.target], project.recipes[line.target]
    span = begin("deploy attempt", asked.deploy.trace, method=call.method, **_about(asked))
    if span.trace and project.settings.otel_traceparent:
        call = replace(call, headers={**call.headers, "traceparent": span.trace})
    began, started = time.time(), time.monotonic()
    answer: Answer | None = None
    was_refused_here = False
    flight.begin_call()
    try:
        answer = await client.call(
            call,
            idempotency_key=asked.deploy.idempotency_key,
            total=target.timeout,
            connect=target.connect_timeout,
        )
    except CallFailed as failure:
        verdict = Verdict("uncertain" if failure.uncertain else "retry", str(failure))
    except DeployFailed as failure:
        verdict, was_refused_here = Verdict("failed", str(failure)), True
    except CancelledError:
        if not flight.take_cancellation():
            raise
        words = STOPPED if flight.fate == "stopped" else CUT_OFF
        verdict = Verdict("uncertain", words.format(asked.attempt))
    else:
        verdict = judge(answer, recipe.success, recipe.deployment_id)
    finally:
        flight.end_call()
    result = CallResult(
        verdict,
        status=answer.status if answer else None,
        ms=round((time.monotonic() - started) * 1000, 1),
        asked_seconds=retry_after(answer.headers.get("Retry-After"), time.time())
        if answer
        else None,
        was_refused_here=was_refused_here,
        was_stopped=flight.fate == "stopped",
    )
    span.end(failed=verdict.outcome != "succeeded", outcome=verdict.outcome, status=result.status)
    return replace(result, exchange=_kept(project, asked, call, answer, result, began))


def _kept(
    project: Project,
    asked: Asked,
    call: Call,
    answer: Answer | None,
    result: CallResult,
    began: float,
) -> bytes | None:
    """Return the record for people; None where that fails, which must not change the outcome."""
    line = asked.deploy.line
    try:
        shown = project.recipes[line.target].show(
            call,
            asked.deploy.event,
            route=line.route,
            delivery=public_id("delivery", line.delivery),
            source=line.source,
        )
        received = None if answer is None else Received(answer.status, answer.headers, answer.body)
        record = recorded(
            Exchange(call, shown, asked.deploy.event, received),
            at=_iso(began),
            attempt=asked.attempt,
            outcome=result.verdict.outcome,
            reason=result.verdict.reason,
            ms=result.ms,
            redact=redacted,
        )
        return pack(msgspec.json.encode(record))
    except Exception as error:
        _logger.warning("a call's exchange is not kept (%s)", type(error).__name__)
        return None


def _iso(time_: float) -> str:
    return f"{datetime.fromtimestamp(time_, UTC):%Y-%m-%dT%H:%M:%S.%fZ}"


def _about(asked: Asked) -> dict[str, str | int]:
    line = asked.deploy.line
    return {
        "delivery": public_id("delivery", line.delivery),
        "source": line.source,
        "kind": line.kind,
        "repo": line.repo,
        "ref": line.ref,
        "sha": line.sha,
        "deploy": public_id("deploy", line.id),
        "route": line.route,
        "target": line.target,
        "attempt": asked.attempt,
    }
