"""The audit file on a disk that is really full: a few free pages of tmpfs."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from relay.audit_head import at_rest
from relay.audit_reading import prove
from relay.chain import Finding
from tests.faults.small_disk import on_small_disk
from tests.harness import (
    COMMAND,
    PATIENCE,
    RELAY_YAML,
    Process,
    Relay,
    Target,
    sha_of,
    until,
    work_left,
)

KEY = "very-secret-key"

FILLER = 4 * 1024 * 1024
"""Bytes that are freed later. They hold the lines of every retry, of which a slow machine makes
more than a fast one."""

REFUSALS = 8

DEPLOYS = 24
"""Their audit lines need more room than the disk has at first."""

LATER = 60
"""Seconds within which a deploy is called again that the audit did not take."""


async def run(relay: Relay, command: str) -> tuple[Process, Path]:
    """A receiver or worker with its audit file on a small disk, and that disk as it sees it."""
    folder = relay.folder / "audit"
    folder.mkdir()
    relay.environ = {
        **relay.environ,
        "RELAY_AUDIT_FILE": str(folder / "audit.jsonl"),
        "RELAY_AUDIT_KEY": KEY,
        "RELAY_AUDIT_FSYNC": "always",
    }
    process = await relay.start(*on_small_disk(folder, *COMMAND, command, filler=FILLER))
    return process, Path(f"/proc/{process.process.pid}/root{folder}")


async def push(relay: Relay, number: int) -> tuple[int, str]:
    """The status of one webhook's answer, and the status that it tells."""
    branch, sha = f"refs/heads/b{number}", sha_of(str(number))
    status, answer = await relay.push(
        repo="acme/api", ref=branch, after=sha, note=str(number), delivery=str(number)
    )
    return status, answer["status"]


async def fill(relay: Relay, numbers: Iterator[int]) -> tuple[list[int], int]:
    """What was acknowledged before the disk was full, and what was refused then."""
    acknowledged: list[int] = []
    for number in numbers:
        told = await push(relay, number)
        if told[0] != 202:
            assert told == (503, "unavailable")
            return acknowledged, number
        acknowledged.append(number)
    raise AssertionError("the disk was never full")


async def test_a_full_disk_has_webhooks_refused_and_no_half_line_in_the_chain(
    relay: Relay,
) -> None:
    receiver, disk = await run(relay, "serve")
    [started] = await receiver.wait_for("receiver.started")
    relay.url = started["url"].removesuffix("/hooks/")
    file, numbers = disk / "audit.jsonl", iter(range(1_000))
    acknowledged, refused = await fill(relay, numbers)
    assert len(acknowledged) > 5
    [rejected] = await receiver.wait_for("delivery.rejected")
    assert rejected["reason"] == (
        f"{relay.folder}/audit/audit.jsonl does not take the audit (No space left on device)"
    )
    assert (rejected["status"], rejected["sha"]) == (503, sha_of(str(refused)))

    refusals = [refused, *(next(numbers) for _ in range(REFUSALS))]
    for number in refusals:
        assert await push(relay, number) == (503, "unavailable")
    # The receiver tries again meanwhile, and cuts off half a line before it unlocks the file.
    with at_rest(file):
        written = file.read_bytes()
    assert written.endswith(b"}\n")
    # Only the first one may have been stored before the disk was full.
    queued = len(relay.rows("SELECT id FROM delivery"))
    assert len(acknowledged) <= queued <= len(acknowledged) + 1

    (disk / "filler").unlink()
    for number in refusals:
        assert (await push(relay, number))[0] in (200, 202)

    findings: list[Finding] = []
    proof = await asyncio.to_thread(prove, file, KEY.encode(), findings.append, lambda _: None)
    assert findings == []
    assert proof.signed
    assert file.read_bytes().startswith(written)
    with at_rest(file):
        lines = [json.loads(line) for line in file.read_bytes().splitlines()]
    assert "audit.mended" not in {line["event"] for line in lines}
    # What nobody could write down then stands there now: each refusal, and each acknowledgement.
    told = [line["sha"] for line in lines if line["event"] == "delivery.rejected"]
    assert told == [sha_of(str(number)) for number in (refused, *refusals)]
    kept = {line["sha"] for line in lines if line["event"] == "delivery.queued"}
    assert kept == {sha_of(str(number)) for number in (*acknowledged, *refusals)}
    rows = relay.rows("SELECT sha FROM delivery ORDER BY id")
    assert sorted(row["sha"] for row in rows) == sorted(kept)
    assert receiver.process.returncode is None
    assert "Traceback" not in relay.output()


def deploy_of(key: str) -> str:
    """The deploy that an Idempotency-Key begins with."""
    return "-".join(key.split("-")[:2])


@pytest.mark.timeout(LATER + 3 * PATIENCE)
async def test_a_full_disk_has_no_deploy_called_of_which_the_audit_does_not_tell(
    relay: Relay, target: Target
) -> None:
    relay.write(RELAY_YAML.replace("concurrency: 1", f"concurrency: {DEPLOYS}"))
    worker, disk = await run(relay, "worker")
    await worker.wait_for("worker.started")
    await relay.serve()
    for number in range(DEPLOYS):
        await push(relay, number)
    refused = f"{relay.folder}/audit/audit.jsonl does not take the audit (No space left on device)"
    await until(lambda: f"taking jobs waits: {refused}" in relay.output())

    called = [deploy_of(headers["Idempotency-Key"]) for _, _, _, headers, _ in target.calls]
    with at_rest(disk / "audit.jsonl"):
        written = (disk / "audit.jsonl").read_bytes()
    lines = [json.loads(line) for line in written.splitlines()]
    attempted = [line["deploy"] for line in lines if line["event"] == "deploy.attempted"]
    assert len(called) < DEPLOYS
    assert set(called) <= set(attempted)

    (disk / "filler").unlink()
    await until(lambda: len(target.calls) >= DEPLOYS, patience=LATER)
    await until(lambda: not work_left(relay.data_dir))
    called = [deploy_of(headers["Idempotency-Key"]) for _, _, _, headers, _ in target.calls]
    assert len(set(called)) == len(called) == DEPLOYS
    assert worker.find("deploy.failed") == []
