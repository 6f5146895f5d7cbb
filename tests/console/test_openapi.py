"""The document describes what is served: schemathesis asks a live console by it."""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path

import orjson
import pytest
from rq.job import JobStatus

from config.settings import Settings
from relay.audit_file import AuditFile, Policy
from tests.console.desk import Desk
from tests.harness import PATIENCE
from tests.relay.yard import HELD, Yard


@pytest.mark.slow
@pytest.mark.timeout(8 * PATIENCE)
async def test_answers_are_as_the_document_says(
    desk: Desk, settings: Settings, tmp_path: Path
) -> None:
    assert settings.audit_file is not None
    file = AuditFile(settings.audit_file, Policy(1_000, 0, "never", None))
    for number in range(20):
        file.add(orjson.dumps({"event": "deploy.queued", "number": number, "at": "2026-11-03"}))
        file.flush()
    yard = Yard(desk.store, settings.redis_address())
    await asyncio.to_thread(yard.receive, "a", "b")
    await asyncio.to_thread(
        lambda: yard.end(yard.match("a"), JobStatus.FINISHED, {"status": 200, "ms": 1.5})
    )
    await asyncio.to_thread(lambda: yard.end(yard.match("b"), JobStatus.FAILED, HELD))
    process = await asyncio.create_subprocess_exec(
        *(Path(sys.executable).with_name("schemathesis"), "run"),
        f"{desk.url}/api/v1/openapi.json",
        *("--header", f"Authorization: Bearer {desk.tokens['operator']}"),
        *("--phases", "examples,coverage,fuzzing"),
        *("--max-examples", "8", "--seed", "1"),
        *("--generation-database", "none", "--no-color"),
        cwd=tmp_path,
        env={**os.environ, "HOME": str(tmp_path)},
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    async with asyncio.timeout(6 * PATIENCE):
        output, _ = await process.communicate()

    assert process.returncode == 0, output.decode()
