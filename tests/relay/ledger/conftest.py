"""Fixtures: a ledger of one test, and processes beside it."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest

from relay.ledger.ledger import Ledger, prepare

LockUser = Callable[[str], "subprocess.Popen[str]"]


class Clock:
    """The time, in seconds since the Unix epoch, as the test sets it."""

    def __init__(self) -> None:
        self.now = 1_899_979_200.0

    def __call__(self) -> int:
        return round(self.now * 1e6)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
async def clocked_ledger(folder: Path, clock: Clock) -> AsyncIterator[Ledger]:
    """A ledger that goes by the test's clock."""
    opened = Ledger(folder, full_sync=False, clock=clock)
    yield opened
    await opened.close()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A data folder with an empty ledger."""
    prepare(tmp_path)
    return tmp_path


@pytest.fixture
async def ledger(folder: Path) -> AsyncIterator[Ledger]:
    opened = Ledger(folder)
    yield opened
    await opened.close()


@pytest.fixture
def start(folder: Path) -> Iterator[LockUser]:
    """Starts a process of tests/relay/ledger/lock_user.py; most say a line when they are ready."""
    processes = []

    def run(deed: str) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.relay.ledger.lock_user", deed, str(folder)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        processes.append(process)
        if deed != "once":
            assert process.stdout is not None
            assert process.stdout.readline() == "taken\n"
        return process

    yield run
    for process in processes:
        process.kill()
        process.communicate()
