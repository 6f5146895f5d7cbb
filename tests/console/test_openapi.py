"""The document describes what is served: schemathesis asks a live console by it."""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path

import pytest

from tests.console.desk import Desk
from tests.harness import PATIENCE


@pytest.mark.slow
@pytest.mark.timeout(8 * PATIENCE)
async def test_answers_are_as_the_document_says(desk: Desk, tmp_path: Path) -> None:
    rows = desk.rows
    await rows.push("a", payload=b'{"ref": 1}')
    await rows.succeeded("b", repo="acme/b")
    await rows.end(await rows.deploy("c", repo="acme/c"), "uncertain", "no answer in 5 s")
    asks = await rows.deploy("d", "gated", repo="acme/d")
    await rows.claim(asks, "gated", approval="required")
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
