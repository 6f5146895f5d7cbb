"""Files of the spool: what survives, who may have them, and what they may take."""

from __future__ import annotations

import errno
import fcntl
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay import spool as spool_module
from relay.errors import CannotSpool, SpoolUnavailable
from relay.framing import frame
from relay.spool import ASIDE, REMEMBERED, START, SUFFIX, Batch, Spool

ROOM = 1_000_000


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "data" / "spool"


def files(folder: Path) -> list[Path]:
    return sorted(folder.glob(f"*{SUFFIX}"))


def empty(spool: Spool, most: int = 100) -> list[bytes]:
    """Everything that is in the spool, which is empty then."""
    records: list[bytes] = []
    while True:
        batch = spool.read(most)
        records += batch.records
        spool.forget(batch)
        if batch.last:
            return records


def successor(folder: Path) -> Spool:
    spool = Spool(folder, max_bytes=ROOM)
    spool.adopt()
    return spool


def test_records_come_out_in_order_and_stay_until_they_are_forgotten(folder: Path) -> None:
    spool = Spool(folder, max_bytes=ROOM)
    spool.append([b"1", b"2"])
    spool.append([b"3"])

    assert spool.read(2) == spool.read(2)
    assert spool.read(2).records == [b"1", b"2"]
    assert not spool.read(2).last
    spool.forget(spool.read(2))
    assert spool.read(2).records == [b"3"]
    assert spool.read(2).last
    spool.forget(spool.read(2))

    assert spool.read(2) == Batch([], True, None, 0)
    assert files(folder) == []


def test_what_is_left_goes_to_the_next_one_behind_what_was_forgotten(folder: Path) -> None:
    spool = Spool(folder, max_bytes=ROOM)
    spool.append([b"1", b"2", b"3"])
    spool.forget(spool.read(1))
    spool.close()

    later = Spool(folder, max_bytes=ROOM)
    assert later.adopt()
    later.append([b"4"])
    assert empty(later) == [b"2", b"3", b"4"]
    assert not Spool(folder, max_bytes=ROOM).adopt()


def test_a_file_in_use_is_nobody_elses(folder: Path) -> None:
    spool, other = Spool(folder, max_bytes=ROOM), Spool(folder, max_bytes=ROOM)
    spool.append([b"1"])
    assert not other.adopt()
    other.append([b"2"])
    assert (empty(spool), empty(other)) == ([b"1"], [b"2"])


def test_a_file_that_its_owner_removes_at_this_moment_is_nobodys(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spool = Spool(folder, max_bytes=ROOM)
    spool.append([b"1"])
    other = Spool(folder, max_bytes=ROOM)
    flock = fcntl.flock

    def late(number: int, operation: int) -> None:
        assert empty(spool) == [b"1"]
        flock(number, operation)

    monkeypatch.setattr(fcntl, "flock", late)
    assert not other.adopt()
    assert other.read(1).last


def test_a_new_file_that_another_one_removed_as_empty_is_not_written(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spool = Spool(folder, max_bytes=ROOM)
    flock = fcntl.flock

    def late(number: int, operation: int) -> None:
        monkeypatch.setattr(fcntl, "flock", flock)
        [path] = files(folder)
        path.unlink()
        flock(number, operation)

    monkeypatch.setattr(fcntl, "flock", late)
    spool.append([b"1"])
    assert len(files(folder)) == 1


def test_a_killed_process_leaves_its_files_to_another(folder: Path) -> None:
    kill = "os.kill(os.getpid(), signal.SIGKILL)"
    program = (
        "import os, pathlib, signal, sys; from relay.spool import Spool; "
        f"Spool(pathlib.Path(sys.argv[1]), max_bytes={ROOM}).append([b'1', b'2']); {kill}"
    )
    subprocess.run([sys.executable, "-c", program, str(folder)], check=False)

    assert empty(successor(folder)) == [b"1", b"2"]


@given(st.lists(st.text(max_size=20).map(str.encode), min_size=1, max_size=5), st.data())
def test_a_torn_file_gives_back_a_prefix(
    tmp_path_factory: pytest.TempPathFactory, records: list[bytes], data: st.DataObject
) -> None:
    folder = tmp_path_factory.mktemp("torn")
    written = bytes(START) + b"".join(map(frame, records))
    cut = data.draw(st.integers(0, len(written)))
    (folder / f"1{SUFFIX}").write_bytes(written[:cut])

    found = empty(successor(folder))

    whole = START + sum(len(frame(record)) for record in found)
    assert found == records[: len(found)]
    assert len(found) == len(records) or whole + len(frame(records[len(found)])) > cut
    assert list(folder.iterdir()) == []


def test_a_torn_end_is_warned_of_once_and_thrown_away(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder.mkdir(parents=True)
    torn = folder / f"1{SUFFIX}"
    torn.write_bytes(bytes(START) + frame(b"1") + frame(b"2")[:-1])
    spool = successor(folder)

    spool.read(10)
    assert empty(spool) == [b"1"]

    [record] = caplog.records
    size = len(frame(b"1"))
    assert record.getMessage() == (
        f"the spool file {torn} has {size - 1} bytes from {START} on that are no whole record: "
        "skipped"
    )
    assert list(folder.iterdir()) == []


def test_damage_costs_one_record_and_the_file_is_kept(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder.mkdir(parents=True)
    damaged = frame(b"2").replace(b"2", b"x")
    (folder / f"1{SUFFIX}").write_bytes(bytes(START) + frame(b"1") + damaged + frame(b"3"))

    assert empty(successor(folder)) == [b"1", b"3"]

    assert [path.name for path in folder.iterdir()] == [f"1{ASIDE}"]
    assert "it is kept" in caplog.text


@pytest.mark.parametrize("position", [0, 3, 2**63, 10_000])
def test_a_position_that_cannot_be_is_the_beginning(folder: Path, position: int) -> None:
    folder.mkdir(parents=True)
    (folder / f"1{SUFFIX}").write_bytes(position.to_bytes(START, "big") + frame(b"1"))
    assert empty(successor(folder)) == [b"1"]


def test_what_is_set_aside_is_kept(folder: Path) -> None:
    spool = Spool(folder, max_bytes=ROOM)
    spool.append([b"1", b"2"])
    spool.forget(spool.read(1), aside=True)
    assert empty(spool) == [b"2"]
    [kept] = folder.iterdir()
    assert kept.suffix == ASIDE
    assert frame(b"1") in kept.read_bytes()


def test_all_receivers_together_stay_under_the_bound(folder: Path) -> None:
    size = len(frame(b"12345"))
    spool = Spool(folder, max_bytes=2 * (START + size))
    other = Spool(folder, max_bytes=2 * (START + size))
    spool.append([b"12345"])
    assert spool.trouble() == ""
    other.append([b"12345"])

    with pytest.raises(SpoolUnavailable, match="the spool is full"):
        spool.append([b"1"])
    assert spool.trouble() == other.trouble() == f"the spool is full ({2 * (START + size)} bytes)"
    assert empty(other) == [b"12345"]
    spool.append([b"1"])
    assert empty(spool) == [b"12345", b"1"]


def test_space_is_given_back_on_the_way(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spool_module, "MOST_IN_FILE", 3 * len(frame(b"123")))
    spool = Spool(folder, max_bytes=ROOM)
    for number in range(100, 110):
        spool.append([b"%d" % number])
    assert len(files(folder)) == 4
    spool.forget(spool.read(5))
    assert len(files(folder)) == 3
    assert empty(spool) == [b"%d" % number for number in range(103, 110)]


@pytest.mark.parametrize("call", ["pwrite", "fsync"])
def test_a_disk_that_takes_nothing_loses_nothing(
    folder: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    spool = Spool(folder, max_bytes=ROOM)
    spool.append([b"1"])
    real = os.pwrite

    def fails(number: int, data: bytes = b"", offset: int = 0) -> int:
        if data:
            real(number, data[:5], offset)
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(os, call, fails)
        with pytest.raises(SpoolUnavailable, match=r"cannot be written \(No space left"):
            spool.append([b"2"])
        assert spool.trouble() == "the spool cannot be written (No space left on device)"
        with pytest.raises(SpoolUnavailable):
            spool.append([b"3"])
        later = time.monotonic() + REMEMBERED
        patch.setattr(time, "monotonic", lambda: later)
        assert spool.trouble() == ""

    spool.append([b"4"])
    assert spool.trouble() == ""
    spool.close()
    assert empty(successor(folder)) == [b"1", b"4"]


def test_refusals_of_a_full_disk_leave_no_files(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(number: int, data: bytes, offset: int) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    spool = Spool(folder, max_bytes=ROOM)
    spool.append([b"1"])
    kept = files(folder)
    descriptors = Path("/dev/fd")
    before = len(list(descriptors.iterdir()))
    with monkeypatch.context() as patch:
        patch.setattr(os, "pwrite", fails)
        for _ in range(20):
            with pytest.raises(SpoolUnavailable):
                spool.append([b"2"])

    assert files(folder) == kept
    assert len(list(descriptors.iterdir())) == before
    assert empty(spool) == [b"1"]


def test_a_position_that_cannot_be_noted_holds_nothing_up(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(number: int, data: bytes, offset: int) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    spool = Spool(folder, max_bytes=ROOM)
    spool.append([b"1", b"2"])
    monkeypatch.setattr(os, "pwrite", fails)

    spool.forget(spool.read(1))

    assert empty(spool) == [b"2"]
    assert files(folder) == []


def test_nothing_counts_as_kept_before_it_is_synced(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[int] = []
    fsync = os.fsync
    monkeypatch.setattr(os, "fsync", lambda number: synced.append(os.fstat(number).st_size))
    spool = Spool(folder, max_bytes=ROOM)
    synced.clear()
    spool.append([b"1", b"2"])
    monkeypatch.setattr(os, "fsync", fsync)
    # The folder, in which the file is new, and the file with all that was written.
    assert len(synced) == 2
    assert synced[1] == START + len(frame(b"1") + frame(b"2"))


def test_a_folder_that_cannot_be_used_is_said_at_once(tmp_path: Path) -> None:
    (tmp_path / "data").write_text("a file")
    with pytest.raises(CannotSpool, match=r"cannot be used .*RELAY_SPOOL_MAX_BYTES=0"):
        Spool(tmp_path / "data" / "spool", max_bytes=ROOM)
