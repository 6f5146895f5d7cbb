"""Fixture: a yard with an empty ledger and relay.yaml."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.harness import RELAY_YAML
from tests.relay.yard import Yard


@pytest.fixture
def yard(tmp_path: Path, audited: io.BytesIO, monkeypatch: pytest.MonkeyPatch) -> Iterator[Yard]:
    (tmp_path / "relay.yaml").write_text(RELAY_YAML)
    monkeypatch.setenv("RELAY_CONFIG", str(tmp_path / "relay.yaml"))
    monkeypatch.setenv("RELAY_DATA_DIR", str(tmp_path / "relay-data"))
    # Commands do without Redis.
    monkeypatch.setenv("RELAY_REDIS_URL", f"unix://{tmp_path}/nobody-listens")
    yard = Yard(tmp_path / "relay-data")
    yield yard
    yard.close()
