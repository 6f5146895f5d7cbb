"""The commands `targets pause` and `targets resume` where replicas must have what was said."""

from __future__ import annotations

import io
import json
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from relay.cli import main
from tests.faults.sentinels import Watched
from tests.harness import RELAY_YAML, until

TOO_FEW = (
    "Redis has it, but only 0 of 2 replicas have it: a failover may undo it, so run this again\n"
)


@pytest.fixture
def group() -> Iterator[Watched]:
    """A master and two replicas; nobody watches them."""
    with tempfile.TemporaryDirectory(prefix="relay-") as folder:
        servers = Watched(Path(folder), least=0)
        try:
            servers.start(servers.servers)
            yield servers
        finally:
            servers.stop()


async def test_a_pause_and_its_end_are_with_the_replicas(
    group: Watched, tmp_path: Path, audited: io.BytesIO
) -> None:
    master, *replicas = group.servers
    (tmp_path / "relay.yaml").write_text(RELAY_YAML)
    environ = {
        "RELAY_CONFIG": str(tmp_path / "relay.yaml"),
        "RELAY_REDIS_URL": f"redis://127.0.0.1:{master}",
        "RELAY_REDIS_REPLICAS": "2",
    }

    def targets(verb: str, timeout: str = "5s") -> Result:
        words = ["targets", verb, "api"]
        return CliRunner().invoke(main, words, env={**environ, "RELAY_STORE_TIMEOUT": timeout})

    def paused(port: int) -> bool:
        with group.client(port) as client:
            return bool(client.hexists("relay:target:api", "paused"))

    def stop_replicas() -> None:
        for port in replicas:
            group.pause(port)

    def go_on() -> None:
        for port in replicas:
            group.resume(port)

    await until(group.in_step)
    done = targets("pause")
    assert done.exit_code == 0
    assert json.loads(done.stdout)["event"] == "target.paused"
    assert [paused(port) for port in group.servers] == [True, True, True]

    # Said again, it is not taken for known by replicas that do not answer.
    stop_replicas()
    for verb in ("pause", "resume", "resume"):
        refused = targets(verb, timeout="200ms")
        assert (refused.exit_code, refused.stdout, refused.stderr) == (1, "", TOO_FEW)
    assert not paused(master)

    go_on()
    again = targets("resume", timeout="30s")
    assert (again.exit_code, again.stdout, again.stderr) == (0, "", "api is not paused\n")
    assert [paused(port) for port in group.servers] == [False, False, False]
