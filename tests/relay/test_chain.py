"""The chain of the audit file, without a file: whatever is done to its lines is found."""

from __future__ import annotations

import json
from collections.abc import Sequence

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from relay.chain import START, Finding, Link, Verifier, chained, is_sealed, link_of, seal

LINES = st.lists(st.text(max_size=20), min_size=2, max_size=12)


def chain(texts: Sequence[str]) -> tuple[list[bytes], Link]:
    lines, end = [], START
    for text in texts:
        line, end = chained(json.dumps({"event": text}).encode(), end)
        lines.append(line)
    return lines, end


def verified(lines: Sequence[bytes], head: Link | None) -> list[Finding]:
    verifier = Verifier()
    findings: list[Finding] = []
    for number, line in enumerate(lines, 1):
        findings += verifier.read("audit.jsonl", number, line)
    return [*findings, *verifier.finish(head)]


@given(LINES)
def test_a_chain_is_whole_and_its_lines_are_json(texts: list[str]) -> None:
    lines, end = chain(texts)

    assert verified(lines, end) == []
    assert [json.loads(line)["event"] for line in lines] == texts
    assert [json.loads(line)["seq"] for line in lines] == list(range(1, len(texts) + 1))
    assert link_of(lines[1]) == Link(2, json.loads(lines[1])["prev"])


@given(LINES, st.data())
def test_any_change_is_found(texts: list[str], data: st.DataObject) -> None:
    lines, end = chain(texts)
    at = data.draw(st.integers(0, len(lines) - 1))
    how = data.draw(st.sampled_from(["edit", "remove", "insert", "swap", "cut", "repeat"]))
    changed = list(lines)
    if how == "edit":
        byte = data.draw(st.integers(0, len(lines[at]) - 1))
        line = bytearray(lines[at])
        line[byte] = data.draw(st.integers(0, 255).filter(lambda value: value != line[byte]))
        changed[at] = bytes(line)
    elif how == "remove":
        del changed[at]
    elif how == "insert":
        changed.insert(at, data.draw(st.binary(max_size=80)))
    elif how == "swap":
        other = data.draw(st.integers(0, len(lines) - 1))
        assume(other != at)
        changed[at], changed[other] = changed[other], changed[at]
    elif how == "cut":
        changed[at] = changed[at][: data.draw(st.integers(0, len(changed[at]) - 1))]
    else:
        changed.insert(at, changed[at])

    assert verified(changed, end)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda lines: lines, []),
        (
            lambda lines: [*lines[:1], lines[1].replace(b"b", b"x", 1), *lines[2:]],
            [
                "audit.jsonl:2: was edited: the next line, audit.jsonl:3, was not written after it",
            ],
        ),
        (
            lambda lines: [lines[0], *lines[3:]],
            ["audit.jsonl:2: line numbers 2 to 3 are missing before it"],
        ),
        (
            lambda lines: lines[1:],
            ["audit.jsonl:1: line number 1 is missing before it"],
        ),
        (
            lambda lines: lines[:-1],
            ["audit.jsonl:3: line number 4 is missing after it, by the head"],
        ),
        (
            lambda lines: [lines[0], b'{"event":"x"}', *lines[1:]],
            ["audit.jsonl:2: is no line of the chain: it was added, edited or cut off"],
        ),
        (
            lambda lines: [lines[0], lines[2], lines[1], lines[3]],
            [
                "audit.jsonl:2: line number 2 is missing before it",
                "audit.jsonl:3: line number 2 comes after number 3",
                "audit.jsonl:4: line number 3 is missing before it",
            ],
        ),
        (
            lambda lines: [*lines[:3], lines[3].replace(b"d", b"x", 1)],
            ["audit.jsonl:4: was edited, or lines before it: the head knows another one"],
        ),
    ],
)
def test_what_was_done_is_told_with_its_place(change: object, told: list[str]) -> None:
    lines, end = chain("abcd")

    assert [str(finding) for finding in verified(change(lines), end)] == told  # type: ignore[operator]


def test_lines_that_the_head_does_not_know() -> None:
    lines, _ = chain("abcd")
    _, end = chain("ab")

    assert [str(finding) for finding in verified(lines, end)] == [
        "audit.jsonl:4: line numbers 3 to 4 are not known to the head"
    ]
    assert verified(lines, None) == []


def test_a_chain_whose_beginning_was_dropped_says_so() -> None:
    texts = ["a", "b", "c"]
    lines, end = chain(texts)
    until = link_of(lines[2])
    assert until is not None
    dropped = {"event": "audit.dropped", "until_seq": 2, "until_hash": until.hash}
    line, head = chained(json.dumps(dropped, separators=(",", ":")).encode(), end)

    assert verified([lines[2], line], head) == []
    assert len(verified([lines[1], lines[2], line], head)) == 1


@given(st.binary(min_size=1, max_size=40), st.binary(min_size=1, max_size=40))
def test_only_the_key_signs(key: bytes, other: bytes) -> None:
    end = Link(7, "ab" * 32)

    assert is_sealed(key, end, seal(key, end))
    assert not is_sealed(key, Link(8, end.hash), seal(key, end))
    # HMAC fills short keys up with zeros.
    assert is_sealed(other, end, seal(key, end)) == (key.rstrip(b"\0") == other.rstrip(b"\0"))
