"""Frames of `top` fit their terminal, whatever there is to show."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from relay.frame import age, frame, share
from relay.ledger.overview import Overview, TargetSeen, WorkerSeen
from relay.ledger.pace import Minute
from relay.ledger.records import Record


def record(number: int) -> Record:
    return Record(
        id=f"deploy-{10**9 + number}",
        status="failed",
        reason="HTTP 500 " * 30,
        repo="acme/" + "long" * 20,
        sha="a" * 40,
        target="production",
        created_at="2026-01-01T00:00:00.000000Z",
    )


def busy(targets: int) -> Overview:
    return Overview(
        at=1_767_225_600 + 300,
        minutes=[Minute(at=60 * n, deliveries=n, succeeded=3 * n, failed=n) for n in range(60)],
        queued=100_000,
        limited=7,
        scheduled=20,
        running=3,
        oldest_at=1_767_225_600,
        workers=[WorkerSeen(name="w", jobs=3, heard_at="")],
        targets=[
            TargetSeen(
                name=f"t{n}",
                state="breaker open until x" if n == targets - 1 else "ready",
                calling=n,
                waiting=n,
                paused=False,
                breaker="open" if n == targets - 1 else "closed",
                held=False,
                until="",
            )
            for n in range(targets)
        ],
        waits={"slot": 7, "hours": 18, "approval": 2},
        failed=8,
        uncertain=1,
        breakers=[f"t{targets - 1}"],
        asking=[],
        approval=2,
        troubled=[record(n) for n in range(10)],
        newest=[record(n) for n in range(10)],
    )


def lines(seen: Overview, width: int, height: int) -> list[str]:
    console = Console(width=width, color_system=None, highlight=False)
    with console.capture() as captured:
        console.print(frame(seen, width=width, height=height))
    return [line.rstrip() for line in captured.get().splitlines()]


@pytest.mark.parametrize(("width", "height"), [(80, 24), (60, 16), (200, 60)])
def test_a_frame_fits(width: int, height: int) -> None:
    shown = lines(busy(30), width, height)

    assert len(shown) <= height
    assert all(len(line) <= width for line in shown)
    person = "needs a person: 8 failed, 1 uncertain, 2 to be approved, 1 open breaker"
    assert [line for line in shown if line.startswith("needs") and person.startswith(line[:50])]
    # What is not well comes before what is, and ids are whole or not there.
    assert next(line for line in shown if line.startswith("t29")).endswith("breaker open until x")
    assert [line for line in shown if "deploy-1000000000" in line]
    assert not [line for line in shown if "deploy-10…" in line]


def test_what_a_frame_says() -> None:
    shown = lines(busy(3), 80, 24)

    assert shown[1].startswith("deliveries     56.0 a minute  ")
    assert shown[1].endswith("█")
    assert shown[2].startswith("deploys       224.0 a minute  ")
    assert shown[3] == "in the last hour 75.0 % succeeded"
    assert shown[4] == "100000 queued, 7 for a slot, the oldest for 5m; 20 for their time"
    assert shown[5] == "1 worker alive, 3 jobs in flight"


@given(st.integers(0, 60), st.lists(st.integers(0, 40), min_size=1, max_size=4))
def test_lines_are_shared_and_none_is_wasted(room: int, wanted: list[int]) -> None:
    given_ = share(room, wanted)

    assert sum(given_) == min(room, sum(wanted))
    assert all(has <= wants for has, wants in zip(given_, wanted, strict=True))
    short = [has for has, wants in zip(given_, wanted, strict=True) if has < wants]
    assert all(has <= least + 1 for has in given_ for least in short)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(-3, "0s"), (59.9, "59s"), (60, "1m"), (7_199, "1h"), (86_400, "1d"), (9e5, "10d")],
)
def test_ages(seconds: float, text: str) -> None:
    assert age(seconds) == text


def test_a_ledger_that_went_back_in_time_needs_a_person() -> None:
    shown = lines(msgspec.structs.replace(busy(1), is_behind=True), 200, 60)

    assert (
        "needs a person: no call is made (run deploy-relay ledger accept), 8 failed, 1 uncertain, "
        "2 to be approved, 1 open breaker"
    ) in shown
