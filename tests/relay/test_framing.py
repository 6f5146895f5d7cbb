"""Records in a file: whatever is done to the bytes, what is whole is found and nothing else is."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay import framing
from relay.framing import MAX_FRAME, MAX_RECORD, find, frame

RECORDS = st.lists(st.text(max_size=60).map(str.encode), max_size=8)


def read(data: bytes, *, window: int = MAX_FRAME, most: int = 3) -> tuple[list[bytes], int, int]:
    """All records of a file that is read piece by piece, and its damaged and torn bytes."""
    records: list[bytes] = []
    position = damaged = torn = 0
    while position < len(data):
        piece = data[position : position + window]
        found = find(piece, most=most, at_end=position + len(piece) == len(data))
        assert found.used > 0
        records += found.records
        position, damaged, torn = position + found.used, damaged + found.damaged, found.torn
    return records, damaged, torn


@given(RECORDS)
def test_what_was_written_is_read(records: list[bytes]) -> None:
    assert read(b"".join(map(frame, records))) == (records, 0, 0)


@given(RECORDS, st.data())
def test_cut_anywhere_a_prefix_remains(records: list[bytes], data: st.DataObject) -> None:
    written = b"".join(map(frame, records))
    cut = data.draw(st.integers(0, len(written)))

    found, damaged, torn = read(written[:cut])

    assert found == records[: len(found)]
    whole = sum(len(frame(record)) for record in found)
    assert (damaged, torn) == (0, cut - whole)
    assert len(found) == len(records) or whole + len(frame(records[len(found)])) > cut


@given(RECORDS.filter(bool), st.data())
def test_a_damaged_byte_costs_its_own_record_only(
    records: list[bytes], data: st.DataObject
) -> None:
    written = bytearray(b"".join(map(frame, records)))
    place = data.draw(st.integers(0, len(written) - 1))
    written[place] ^= data.draw(st.integers(1, 255))
    ends = [sum(len(frame(record)) for record in records[: n + 1]) for n in range(len(records))]
    hit = next(number for number, end in enumerate(ends) if place < end)

    found, damaged, torn = read(bytes(written))

    assert found == records[:hit] + records[hit + 1 :]
    assert damaged + torn == len(frame(records[hit]))


@given(st.binary(max_size=200), RECORDS)
def test_behind_anything_at_all_the_records_are_found(before: bytes, records: list[bytes]) -> None:
    found, _, _ = read(before + b"".join(map(frame, records)))
    assert found[len(found) - len(records) :] == records


@given(RECORDS, st.data())
def test_windows_and_batches_of_any_size_read_the_same(
    records: list[bytes], data: st.DataObject
) -> None:
    written = b"".join(map(frame, records)) + data.draw(st.binary(max_size=40))
    most = data.draw(st.integers(1, 9))
    window = data.draw(st.integers(252, 600))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(framing, "MAX_RECORD", 240)
        small, *skipped = read(written, window=window, most=most)
        large, *at_once = read(written)
        assert (small, sum(skipped)) == (large, sum(at_once))


@pytest.mark.parametrize("record", [b"x" * (MAX_RECORD + 1), b"a\xffb"])
def test_what_could_not_be_found_again_is_refused(record: bytes) -> None:
    with pytest.raises(ValueError, match="not a record"):
        frame(record)


def test_the_longest_record_fits_a_window() -> None:
    record = b"x" * MAX_RECORD
    assert len(frame(record)) == MAX_FRAME
    assert read(frame(record) + frame(b"next")) == ([record, b"next"], 0, 0)
