"""Several receiver processes on one port: one address, one memory of deliveries, one end."""

from __future__ import annotations

import asyncio
import os
import re
import signal
from collections import Counter
from pathlib import Path

import pytest

from tests.harness import COMMAND, Process, Relay, children, until


@pytest.fixture
async def three(relay: Relay) -> Process:
    receivers = await relay.start(*COMMAND, "serve", "--processes", "3")
    started = await receivers.wait_for("receiver.started", count=3)
    [url] = {line["url"] for line in started}
    relay.url = url.removesuffix("/hooks/")
    return receivers


async def test_copies_that_reach_different_processes_are_one(relay: Relay, three: Process) -> None:
    answers = await asyncio.gather(*(relay.push(delivery="1", note="same") for _ in range(60)))

    assert Counter(status for status, _ in answers) == {202: 1, 200: 59}
    assert relay.rows("SELECT id, redeliveries FROM delivery") == [{"id": 1, "redeliveries": 59}]
    await three.wait_for("delivery.duplicate", count=59)


async def test_connections_are_spread_and_lines_stay_whole(relay: Relay, three: Process) -> None:
    note = "x" * 2000
    answers = await asyncio.gather(*(relay.push(note=f"{n}{note}") for n in range(200)))

    assert {status for status, _ in answers} == {202}
    assert len(relay.rows("SELECT id FROM delivery WHERE status = 'queued'")) == 200
    # The harness reads every line as JSON, so one that was torn would have failed there.
    await three.wait_for("delivery.queued", count=200)
    await three.wait_for("delivery.received", count=200)
    assert len(children(three)) == 3
    assert all(_cpu(child) > 0 for child in children(three))


async def test_all_stop_together(relay: Relay, three: Process) -> None:
    assert await three.stop() == 0
    assert len(three.find("receiver.stopped")) == 3


async def test_when_one_dies_the_others_are_stopped(relay: Relay, three: Process) -> None:
    os.kill(children(three)[1], signal.SIGKILL)

    await until(lambda: three.process.returncode is not None)

    assert three.process.returncode == 1
    assert three.find("process.died", process="receiver", how="killed by SIGKILL")
    assert any("receiver ended (killed by SIGKILL)" in line for line in three.output)


async def test_a_taken_port_is_said_and_not_shared_by_accident(relay: Relay) -> None:
    await relay.serve()
    port = relay.url.rsplit(":", 1)[1]

    second = await relay.start(*COMMAND, "serve", "--port", port)
    await until(lambda: second.process.returncode is not None)

    assert second.process.returncode == 1
    assert f"127.0.0.1:{port} is in use" in "".join(second.output)
    assert "Traceback" not in "".join(second.output)


async def test_the_url_of_an_ipv6_address_can_be_called(relay: Relay) -> None:
    receiver = await relay.start(*COMMAND, "serve", "--host", "::1", "--port", "0")
    [started] = await receiver.wait_for("receiver.started")

    assert re.fullmatch(r"http://\[::1\]:[0-9]+/hooks/", started["url"])
    relay.url = started["url"].removesuffix("/hooks/")
    assert (await relay.push())[0] == 202


async def test_a_port_of_other_receivers_is_not_shared(relay: Relay, three: Process) -> None:
    [url, *_] = [started["url"] for started in three.find("receiver.started")]
    port = url.removesuffix("/hooks/").rsplit(":", 1)[1]

    second = await relay.start(*COMMAND, "serve", "--port", port, "--processes", "2")
    await until(lambda: second.process.returncode is not None)

    assert second.process.returncode == 1
    assert f"127.0.0.1:{port} is in use" in "".join(second.output)


def _cpu(pid: int) -> int:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return int(fields[11]) + int(fields[12])
