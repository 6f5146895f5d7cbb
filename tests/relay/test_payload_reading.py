"""A payload for people: why there is none, and what is shown of one."""

from __future__ import annotations

import json
import tracemalloc
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from config.settings import Settings
from relay.payload_reading import MOST_BODY, beginning, missing_because, whole
from relay.reading import Record, epoch

AT = "2026-11-25T12:00:00.000000Z"
KEPT = Settings(duplicate_window=60)


@pytest.mark.parametrize(
    ("record", "received", "now", "settings", "why"),
    [
        ({}, -0.9, 50, KEPT, "more arrived than is kept, or newer ones have taken its place"),
        ({}, None, 50, KEPT, "more arrived than is kept, or newer ones have taken its place"),
        ({}, -1.0, 50, KEPT, "Redis took the delivery late, and the spool keeps none"),
        ({}, -0.1, 61, KEPT, "older than RELAY_DUPLICATE_WINDOW"),
        ({"replay_of": "github--1"}, -9, 50, KEPT, "it came with github--1"),
    ],
)
def test_the_reason_is_told(
    record: dict[str, Any], received: float | None, now: float, settings: Settings, why: str
) -> None:
    queued = epoch(AT)
    known = Record(id="a", status="waiting", created_at=AT, **record)
    received_at = 0.0 if received is None else queued + received

    assert missing_because(known, received_at, queued + now, settings).endswith(why)


values: st.SearchStrategy[Any] = st.recursive(
    st.text(st.characters(exclude_categories=["Cs"])) | st.integers() | st.none() | st.booleans(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(st.characters(codec="utf-8")), inner),
)


@given(values)
def test_all_of_a_payload_is_the_same_json(value: Any) -> None:
    text = whole(json.dumps(value, ensure_ascii=False).encode())

    assert json.loads(text) == value
    for char in "\x1b\x7f\x9b\u202e\u200b":
        assert char not in text


@given(values, st.integers(1, 200))
def test_a_payload_begins_as_all_of_it_does(value: Any, most: int) -> None:
    payload = json.dumps(value).encode()

    text = beginning(payload, most)

    assert whole(payload).startswith(text)
    assert min(most, len(whole(payload))) <= len(text) <= 6 * most


@pytest.mark.parametrize(
    ("payload", "first"),
    [
        # Blanks before each of many values would fill the memory.
        (b"[" * 300 + b"0," * (MOST_BODY // 4) + b"0" + b"]" * 300, "["),
        (b"[" * 100_000 + b"]" * 100_000, "["),
        (b'{"a":' + b"9" * 5_000 + b"}", '{"a":9'),
        (b'"' + b"\x1b\xc2\x9b" * 10, '"\\u001b\\u009b'),
    ],
)
def test_a_payload_that_is_hard_to_show_is_shown_all_the_same(payload: bytes, first: str) -> None:
    tracemalloc.start()
    text, cut = whole(payload), beginning(payload, 1_000)
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()

    assert text.startswith(first)
    assert len(text) <= 6 * len(payload)
    assert len(cut) <= 6_000
    assert most <= 64 * MOST_BODY
