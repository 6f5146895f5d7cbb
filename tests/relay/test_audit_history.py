"""The backward reader against a plain reading, over files that are rotated, cut off and dropped."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from config.patterns import PatternSet
from relay import audit_history
from relay.audit_file import AuditFile, Policy
from relay.audit_head import finished_files
from relay.audit_history import Answer, Bounds, ask, blocks, place_of, tell
from relay.audit_query import Wanted, parsed
from relay.audit_reading import stored_lines

NOON = datetime(2026, 11, 3, 12, tzinfo=UTC).timestamp()
EVERYTHING = Wanted()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "audit" / "audit.jsonl"


def said(number: int, at: float = NOON, **fields: Any) -> bytes:
    moment = datetime.fromtimestamp(at, UTC)
    return orjson.dumps(
        {"number": number, "event": "test.line", **fields, "at": moment}, option=orjson.OPT_UTC_Z
    )


def write(path: Path, lines: Sequence[bytes], max_bytes: int = 1_000_000) -> None:
    file = AuditFile(path, Policy(max_bytes, 0, "never", None))
    for line in lines:
        file.add(line)
        file.flush()


def numbers(answer: Answer) -> list[int]:
    return [entry["number"] for entry in answer.entries]


def followed(path: Path, wanted: Wanted, limit: int, bounds: Bounds) -> Iterator[Answer]:
    """All answers, each with the cursor of the one before."""
    cursor = ""
    for _ in range(1_000):
        answer = ask(path, wanted, limit, bounds, cursor)
        yield answer
        cursor = answer.next
        if not cursor:
            return
    raise AssertionError("the cursors lead nowhere")


@pytest.fixture
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(audit_history, "BLOCK", 64)


names = st.sampled_from(["acme/web", "Acme/Web", "acme/api", 'odd"\\/näme', "x"])
shas = st.sampled_from(["ab12", "ab99", "cd34", ""])
events = st.sampled_from(["deploy.failed", "deploy.succeeded", "delivery.queued", "odd"])
entries = st.fixed_dictionaries(
    {"event": events, "repo": names, "sha": shas, "target": names, "hours": st.integers(0, 60)}
)
late = st.lists(st.integers(0, audit_history.SLACK), min_size=40, max_size=40)
"""Seconds by which lines stand behind those of their time."""
patterns = st.none() | st.lists(
    st.sampled_from(["ACME/web", "acme/*", "!acme/api", 'odd"\\/n?me']), min_size=1
).map(lambda given: PatternSet(given, "path", ignore_case=True))
globs = st.none() | st.lists(
    st.sampled_from(["deploy.*", "deploy.failed", "d*.q*", "!odd", "re:ed$"]), min_size=1
).map(lambda given: PatternSet(given, "text"))
moments = st.just(0.0) | st.integers(0, 60).map(lambda hours: NOON + hours * 3600)
wishes = st.builds(
    Wanted,
    since=moments,
    until=moments,
    events=globs,
    repos=patterns,
    values=st.just({}) | st.fixed_dictionaries({"target": st.frozensets(names, min_size=1)}),
    shas=st.just(()) | st.just(("ab",)) | st.just(("cd34", "ab1")),
)


@given(
    told=st.lists(entries, max_size=40),
    late=late,
    wanted=wishes,
    max_bytes=st.sampled_from([300, 900, 1_000_000]),
    limit=st.integers(1, 7),
    size=st.sampled_from([1, 500, 1_000_000]),
    torn=st.sampled_from([b"", b"{", said(99)]),
)
def test_it_finds_what_a_plain_reading_finds(
    told: list[dict[str, Any]],
    late: list[int],
    wanted: Wanted,
    max_bytes: int,
    limit: int,
    size: int,
    torn: bytes,
) -> None:
    hours = sorted(entry.pop("hours") for entry in told)
    with TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patched:
        patched.setattr(audit_history, "BLOCK", 64)
        path = Path(folder) / "audit.jsonl"
        lines = [
            said(number, NOON + hour * 3600 - late[number], **entry)
            for number, (hour, entry) in enumerate(zip(hours, told, strict=True))
        ]
        write(path, lines, max_bytes)
        with path.open("ab") as file:
            file.write(torn)
        complete_lines = (line for line in stored_lines(path) if line.endswith(b"\n"))
        plain = [entry for line in complete_lines if (entry := parsed(line))]
        expected = [entry["number"] for entry in plain if wanted.takes(entry)][::-1]

        whole = ask(path, wanted, 1_000)
        parts = list(followed(path, wanted, limit, Bounds(size)))

        assert numbers(whole) == expected
        assert (whole.next, whole.complete) == ("", True)
        assert [number for part in parts for number in numbers(part)] == expected
        assert all(len(part.entries) <= limit for part in parts)
        assert all(
            part.next and not part.complete
            for part in parts
            if len(part.entries) < limit and part is not parts[-1]
        )


@pytest.mark.parametrize(
    ("repos", "found"),
    [
        (["Acme/WEB"], [2, 0]),
        (["acme/web", "acme/a*"], [2, 1, 0]),
        (["!acme/web"], [3, 1]),
        (['odd"\\/näme'], [3]),
        (['ODD"\\/NÄME'], [3]),
    ],
)
def test_repositories_compare_without_case(path: Path, repos: list[str], found: list[int]) -> None:
    told = ["acme/web", "acme/api", "Acme/Web", 'odd"\\/näme']
    write(path, [said(number, repo=repo) for number, repo in enumerate(told)])

    assert numbers(ask(path, Wanted(repos=PatternSet(repos, "path", ignore_case=True)), 9)) == found


@given(
    lines=st.lists(st.binary(max_size=40).map(lambda line: line.replace(b"\n", b"-")), max_size=20),
    torn=st.binary(max_size=40).map(lambda line: line.replace(b"\n", b"-")),
    block=st.integers(1, 50),
)
def test_blocks_are_the_whole_lines_of_a_file(lines: list[bytes], torn: bytes, block: int) -> None:
    whole = b"".join(line + b"\n" for line in lines)
    with TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patched:
        patched.setattr(audit_history, "BLOCK", block)
        path = Path(folder) / "file"
        path.write_bytes(whole + torn)
        with path.open("rb") as file:
            found = list(blocks(file, len(whole) + len(torn)))

    assert b"".join(part for _, part in reversed(found)) == whole
    assert all(whole.startswith(part, start) and part.endswith(b"\n") for start, part in found)


def test_a_line_that_is_too_long_is_left_out_and_its_neighbours_are_not(
    path: Path, monkeypatch: pytest.MonkeyPatch, small_blocks: None
) -> None:
    monkeypatch.setattr(audit_history, "LONGEST_LINE", 500)
    write(path, [said(1), said(2, text="x" * 5_000), said(3)])

    assert numbers(ask(path, EVERYTHING, 10)) == [3, 1]
    assert [numbers(part) for part in followed(path, EVERYTHING, 10, Bounds(1))] == [[3], [1]]


def test_a_cursor_stays_valid_when_its_file_is_finished_and_others_are_begun(path: Path) -> None:
    write(path, [said(number) for number in range(6)])
    first = ask(path, EVERYTHING, 2)
    assert (numbers(first), first.next) == ([5, 4], f"1-{4 * path.stat().st_size // 6}")

    write(path, [said(number) for number in range(6, 9)], max_bytes=1)
    assert len(finished_files(path)) == 3

    assert numbers(ask(path, EVERYTHING, 3, cursor=first.next)) == [3, 2, 1]
    assert numbers(ask(path, EVERYTHING, 9)) == [8, 7, 6, 5, 4, 3, 2, 1, 0]


@pytest.mark.slow
def test_no_line_is_missed_or_met_twice_while_others_write_and_begin_new_files(path: Path) -> None:
    command = [sys.executable, "-m", "tests.relay.writer", str(path), "w", "20000", "400"]
    looks = 0
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as process:
        while process.poll() is None:
            told = [entry["seq"] for entry in ask(path, EVERYTHING, 40).entries]
            if told:
                assert told == list(range(told[0], told[0] - len(told), -1))
                looks += 1
        assert process.returncode == 0
    assert looks > 5


def test_a_cursor_into_a_file_that_was_dropped_ends_the_history(path: Path) -> None:
    write(path, [said(number) for number in range(4)], max_bytes=1)
    cursor = ask(path, EVERYTHING, 2).next
    for file in finished_files(path):
        file.unlink()

    assert ask(path, EVERYTHING, 2, cursor=cursor) == Answer([], "", True, "")


@pytest.mark.parametrize(
    "cursor", ["x", "1", "1-", "-1-2", "1-2-3", "1_0-1", "٣-1", "9" * 19 + "-1"]
)
def test_what_is_no_cursor_is_refused(path: Path, cursor: str) -> None:
    with pytest.raises(ValueError, match="the cursor is none that was given"):
        place_of(cursor)


@given(first=st.integers(0, 10), offset=st.integers(0, 2_000) | st.just(10**18 - 1))
def test_a_cursor_that_was_made_up_shows_whole_lines_and_nothing_else(
    first: int, offset: int
) -> None:
    with TemporaryDirectory() as folder:
        path = Path(folder) / "audit.jsonl"
        write(path, [said(number) for number in range(6)], max_bytes=400)
        told = ask(path, EVERYTHING, 100, cursor=f"{first}-{offset}").entries

    assert [entry["number"] for entry in told] == list(range(len(told)))[::-1]


def test_files_out_of_the_time_asked_for_are_not_read(path: Path) -> None:
    for day in range(3):
        write(path, [said(day, NOON + day * 86_400)], max_bytes=1)
    old, middle = finished_files(path)
    # What is not read is not missed.
    old.write_bytes(b"\xff\n")
    for name, day in ((old, 0), (middle, 1), (path, 2)):
        os.utime(name, (NOON, NOON + day * 86_400))
    wanted = Wanted(since=NOON + 80_000, until=NOON + 90_000)

    answer = ask(path, wanted, 10, Bounds(1))

    assert numbers(answer) == [1]
    assert (answer.next, answer.complete) == ("", True)


def test_what_is_later_than_asked_for_costs_a_few_reads_of_a_large_file(
    path: Path, small_blocks: None
) -> None:
    write(path, [said(number, NOON + number * 3_600) for number in range(200)])

    answer = ask(path, Wanted(until=NOON + 10 * 3_600), 3, Bounds(1_000))

    assert numbers(answer) == [9, 8, 7]


def test_a_line_that_was_kept_for_a_while_stands_among_later_ones_and_is_found(
    path: Path, small_blocks: None
) -> None:
    hours = [0, 1, 2, 2, 2, 2, 2, 1.5, 2, 3]
    write(path, [said(number, NOON + hour * 3_600) for number, hour in enumerate(hours)])
    noon_and_half = Wanted(since=NOON + 1.4 * 3_600, until=NOON + 1.6 * 3_600)

    assert numbers(ask(path, noon_and_half, 10)) == [7]
    assert numbers(ask(path, Wanted(since=NOON + 1.6 * 3_600), 3)) == [9, 8, 6]
    assert numbers(ask(path, Wanted(until=NOON + 1.6 * 3_600), 10)) == [7, 1, 0]


def test_a_bound_says_how_far_back_was_looked(path: Path, small_blocks: None) -> None:
    write(path, [said(number, NOON + number * 60) for number in range(20)])

    [first, *_] = followed(path, Wanted(values={"by": frozenset({"nobody"})}), 5, Bounds(1_000))

    assert (first.entries, first.complete) == ([], False)
    assert first.back_to.startswith("2026-11-03T12:1")
    assert numbers(ask(path, EVERYTHING, 1, cursor=first.next))[0] > 9


def test_a_question_whose_time_is_up_has_looked_at_one_block(
    path: Path, small_blocks: None
) -> None:
    write(path, [said(number) for number in range(5)])

    parts = list(followed(path, EVERYTHING, 5, Bounds(seconds=0)))

    assert [numbers(part) for part in parts] == [[4], [3], [2], [1], [0]]
    assert [part.complete for part in parts] == [False] * 4 + [True]


def test_the_story_of_a_delivery_has_its_deploys_and_those_of_no_other(path: Path) -> None:
    one: dict[str, Any] = {"delivery": "github--1"}
    other: dict[str, Any] = {"delivery": "github--2"}
    write(
        path,
        [
            said(1, **one),
            said(2, **other),
            said(3, **one, deploy="web--a", event="deploy.queued"),
            said(4, **other, deploy="web--b", event="deploy.queued"),
            said(5, **one, deploy="web--b", event="deploy.duplicate"),
            said(6, deploy="web--b", event="deploy.stopped"),
            said(7, deploy="web--a", event="deploy.stopped"),
            said(8, delivery="github--3", replay_of="github--1", event="delivery.replayed"),
            said(9, deploy="web--a", event="console.acted"),
            said(10, delivery="github--11"),
        ],
    )

    told = tell(path, "delivery", "github--1")

    assert numbers(told) == [1, 3, 5, 7, 8, 9]
    assert told.complete
    assert numbers(tell(path, "deploy", "web--a")) == [3, 7, 9]
    assert numbers(tell(path, "deploy", "web")) == []


def test_a_story_too_long_goes_on_from_its_cursor(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(audit_history, "MOST_TOLD", 2)
    write(path, [said(number, deploy="web--a") for number in range(3)])

    told = tell(path, "deploy", "web--a")

    assert (numbers(told), told.complete) == ([1, 2], False)
    assert numbers(tell(path, "deploy", "web--a", cursor=told.next)) == [0]


def test_no_file_is_no_history_and_one_that_cannot_be_read_is_an_error(path: Path) -> None:
    assert ask(path, EVERYTHING, 1) == Answer([], "", True, "")
    path.mkdir(parents=True)
    with pytest.raises(IsADirectoryError):
        ask(path, EVERYTHING, 1)
