"""What is read of a job: plain data only, bounded, and no word that nobody has looked at."""

from __future__ import annotations

import base64
import pickle
import zlib
from typing import get_args

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rq import Retry

from relay.events.event import Delivery, Event, Person, PullRequest, Push
from relay.reading import Task, left_of, read_argument, read_end, read_task
from relay.records import DELIVERY_JOB, ENDLESS, HELD_ERROR, job_data
from relay.statuses import STATUSES, status_of, wait_note, with_deploys
from workers.gate import Reason
from workers.line import InLine

DELIVERY = Delivery("github--1", "github", 1.5, Push("acme/web", "refs/heads/main", "1", "2"))
ARGUMENT = msgspec.json.encode(DELIVERY).decode()


class Evil:
    """A pickle of it calls ``print`` where it is read."""

    def __reduce__(self) -> tuple[object, ...]:
        return print, ("you were had",)


def entry(
    traceback: str = "", value: object = None, kind: int = 2
) -> tuple[bytes, dict[bytes, bytes]]:
    fields = {b"type": str(kind).encode()}
    if traceback:
        fields[b"exc_string"] = base64.b64encode(zlib.compress(traceback.encode()))
    if value is not None:
        fields[b"return_value"] = base64.b64encode(pickle.dumps(value))
    return b"1700000000000-0", fields


@pytest.mark.parametrize("pack", [bytes, zlib.compress])
def test_argument_as_we_write_it_and_as_rq_does(pack: type[bytes]) -> None:
    data = pack(job_data(DELIVERY_JOB, ARGUMENT))

    assert read_argument(data, Delivery) == DELIVERY
    task = read_argument(data, Task)
    assert task is not None
    assert (task.source, task.event) == ("github", DELIVERY.event)


_TEXT = st.text(max_size=20)
_PUSHES = st.builds(
    Push,
    *(_TEXT, _TEXT, _TEXT, _TEXT),
    deleted=st.booleans(),
    files=st.tuples(_TEXT, _TEXT),
    message=_TEXT,
    author=st.builds(Person, _TEXT),
)
_REQUESTS = st.builds(
    PullRequest,
    *(_TEXT, st.integers(0, 2**53 - 1), st.sampled_from(["opened", "closed"])),
    *(_TEXT, _TEXT, _TEXT, _TEXT),
    title=_TEXT,
    labels=st.tuples(_TEXT),
)


@given(_PUSHES | _REQUESTS, _TEXT, _TEXT)
def test_what_is_left_tells_lists_the_same(event: Event, source: str, target: str) -> None:
    whole = Task(source, event, "d", "r", target)
    data = job_data(DELIVERY_JOB, msgspec.json.encode(whole).decode())

    left = read_task(None, left_of(data))

    assert left is not None
    for name in ("source", "delivery", "route", "target"):
        assert getattr(left, name) == getattr(whole, name)
    for name in ("kind", "repo", "ref", "sha"):
        assert getattr(left.event, name) == getattr(event, name)
    assert getattr(left.event, "number", None) == getattr(event, "number", None)
    for name in ("message", "files", "title", "labels"):
        assert not getattr(left.event, name, None)
    assert left.event.author == Person()


@given(st.binary(max_size=200))
def test_what_cannot_be_read_leaves_nothing(data: bytes) -> None:
    assert left_of(data) == b""
    assert read_task(None, b"") is None
    assert read_task(None, data) is None


def test_nothing_that_is_read_is_run(capsys: pytest.CaptureFixture[str]) -> None:
    evil = pickle.dumps(("f", None, (Evil(),), {}))

    assert read_argument(evil, Delivery) is None
    assert read_argument(zlib.compress(evil), Delivery) is None
    assert read_end(entry(value=Evil())).value == {}
    assert capsys.readouterr().out == ""


def test_pickle_that_asks_for_memory_is_not_read() -> None:
    assert read_argument(b"Nr\xff\xff\xff\x7f.", Delivery) is None
    assert read_argument(b"Np2147483647\n.", Delivery) is None


def test_what_is_packed_small_and_unpacked_large_is_not_unpacked() -> None:
    bomb = zlib.compress(b"\0" * 100_000_000)

    assert read_argument(bomb, Delivery) is None
    assert read_end((b"1-0", {b"type": b"2", b"exc_string": base64.b64encode(bomb)})).reason == ""


@given(st.binary(max_size=200))
def test_any_bytes_are_read_or_are_not(data: bytes) -> None:
    assert read_argument(data, Delivery) is None
    read_end((b"1-0", {b"type": data, b"exc_string": data, b"return_value": data}))
    read_end((b"1-0", {b"type": b"2", b"exc_string": base64.b64encode(data)}))


@pytest.mark.parametrize(
    ("line", "reason", "held"),
    [
        ("workers.errors.DeployFailed: HTTP 404", "HTTP 404", False),
        (f"{HELD_ERROR}: no answer in time; held", "no answer in time; held", True),
        ("redis.exceptions.ConnectionError: secret", "internal error (ConnectionError)", False),
        ("KeyError", "internal error (KeyError)", False),
        ("Job stopped by user.", "Job stopped by user.", False),
        (
            "Moved to FailedJobRegistry, due to AbandonedJobError, at 2026-01-01 00:00:00",
            "the worker that ran it has not been heard of any more",
            False,
        ),
    ],
)
def test_reason_of_a_failure(line: str, reason: str, held: bool) -> None:
    end = read_end(entry(f"Traceback (most recent call last):\n  secret\n{line}\n"))

    assert (end.reason, end.held) == (reason, held)
    assert end.at == "2023-11-14T22:13:20.000000Z"


def test_result_of_an_attempt_that_another_follows() -> None:
    assert read_end(entry(value=Retry(max=3), kind=4))[1:] == ("retried", "", False, {})
    assert read_end(entry(value=Retry(max=ENDLESS, interval=5), kind=4)).how == "waited"
    assert read_end(entry(value=InLine(ENDLESS, 5, 1, None), kind=4)).how == "waited"
    assert read_end(entry(value={"superseded_by": "x"}, kind=1)).value == {"superseded_by": "x"}


@pytest.mark.parametrize(
    ("rq_status", "said", "expected"),
    [
        ("queued", "", "waiting"),
        ("rate_limited", "", "waiting"),
        ("started", "", "running"),
        ("scheduled", "", "retrying"),
        ("scheduled", "waits", "waiting"),
        ("started", "waits", "running"),
        ("finished", "", "succeeded"),
        ("finished", "superseded", "superseded"),
        ("finished", "cancelled", "cancelled"),
        ("failed", "", "failed"),
        ("failed", "held", "held"),
        ("stopped", "", "stopped"),
        ("canceled", "", "cancelled"),
        ("something new", "", "unknown"),
    ],
)
def test_statuses(rq_status: str, said: str, expected: str) -> None:
    told = {name: name == said for name in ("waits", "held", "superseded", "cancelled")}

    assert status_of(rq_status, **told) == expected


@given(st.lists(st.sampled_from(STATUSES)))
def test_matched_delivery_stands_as_its_worst_deploy(deploys: list[str]) -> None:
    told = with_deploys("succeeded", deploys)  # type: ignore[arg-type]

    assert told in (*deploys, "succeeded")
    for worse in ("held", "failed"):
        if worse in deploys:
            assert told in ("held", "failed")
    assert with_deploys("failed", deploys) == "failed"  # type: ignore[arg-type]


def test_everything_that_a_deploy_waits_for_has_its_words() -> None:
    assert wait_note("hours", "09:00") == "waits until 09:00, when its hours begin"
    assert wait_note("paused", "") == "waits while its target is paused"
    assert wait_note("a reason of a newer worker", "") == "waits for a reason of a newer worker"
    assert wait_note("", "") == ""
    for reason in get_args(Reason):
        assert wait_note(reason, "09:00") != f"waits for {reason}"
