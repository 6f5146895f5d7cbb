"""Fixture: a yard with an empty queue and relay.yaml."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
import redis

from tests.harness import RELAY_YAML
from tests.relay.yard import Yard


@pytest.fixture
def yard(
    store: redis.Redis,
    server_socket: Path,
    tmp_path: Path,
    audited: io.BytesIO,
    monkeypatch: pytest.MonkeyPatch,
) -> Yard:
    (tmp_path / "relay.yaml").write_text(RELAY_YAML)
    url = f"unix://{server_socket}"
    monkeypatch.setenv("RELAY_CONFIG", str(tmp_path / "relay.yaml"))
    monkeypatch.setenv("RELAY_REDIS_URL", url)
    return Yard(store, url)
