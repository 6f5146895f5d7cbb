"""A console of the test's own on a real socket, with a real ledger behind it."""

from __future__ import annotations

import io
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from config.settings import Settings
from tests.console.desk import Desk, opened
from tests.harness import RELAY_YAML


@pytest.fixture
def relay_yaml() -> str:
    return RELAY_YAML


@pytest.fixture
def settings(server_socket: Path, tmp_path: Path, relay_yaml: str) -> Settings:
    path = tmp_path / "relay.yaml"
    path.write_text(relay_yaml, encoding="utf-8")
    return Settings(
        config=path,
        data_dir=tmp_path / "data",
        audit_file=tmp_path / "audit.jsonl",
        redis_url=f"unix://{server_socket}",  # type: ignore[arg-type]
        trusted_proxies=["127.0.0.0/8"],  # type: ignore[arg-type]
        store_timeout=2,
        header_timeout=1,
    )


@pytest.fixture
async def desk(settings: Settings, audited: io.BytesIO) -> AsyncIterator[Desk]:
    async with opened(settings, audited) as desk:
        yield desk
