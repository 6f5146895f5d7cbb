"""Network file systems are refused, by what /proc/self/mountinfo says of a folder."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from relay.errors import LedgerUnusable
from relay.ledger import file_system
from relay.ledger.file_system import file_system_of, refuse_network_file_system, type_of_mount
from relay.ledger.ledger import prepare
from tests.faults.small_disk import on_small_disk

MOUNTS = r"""22 28 0:20 / /proc rw,nosuid - proc proc rw
28 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw
40 28 0:45 / /data rw,relatime shared:2 - nfs4 server:/export rw,vers=4.2
41 40 254:1 / /data/local rw - xfs /dev/vdb rw
42 28 0:46 / /mnt/win\040share rw - cifs //server/share rw
43 28 0:47 / /over rw - overlay overlay rw,lowerdir=/a
44 43 0:48 / /over rw - fuse.sshfs host:/ rw
45 28 0:49 / /host rw,master:1 propagate_from:2 - 9p share rw
46 28 254:0 /srv/bound /bound rw - ext4 /dev/vda rw
no mount at all
"""


@pytest.mark.parametrize(
    ("path", "device", "kind"),
    [
        ("/srv/relay", "254:0", "ext4"),
        ("/data/relay", "0:45", "nfs4"),
        ("/data", "0:45", "nfs4"),
        ("/data/local/relay", "254:1", "xfs"),
        ("/database", "254:0", "ext4"),
        ("/mnt/win share/relay", "0:46", "cifs"),
        ("/over/relay", "0:48", "fuse.sshfs"),
        ("/host/relay", "0:49", "9p"),
        ("/bound/relay", "254:0", "ext4"),
        # btrfs and overlayfs show another device in stat(2): the longest mount decides.
        ("/data/relay", "0:99", "nfs4"),
        ("/data/local/relay", "0:99", "xfs"),
    ],
)
def test_the_mount_of_a_folder(path: str, device: str, kind: str) -> None:
    assert type_of_mount(MOUNTS, Path(path), device) == kind


def test_without_a_list_of_mounts_nothing_is_known() -> None:
    assert type_of_mount("", Path("/data"), "0:1") == ""


@pytest.mark.parametrize(
    "kind", ["nfs", "nfs4", "cifs", "smb3", "9p", "fuse.sshfs", "ceph", "lustre", "afs"]
)
def test_a_network_file_system_is_refused_in_one_sentence(
    tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(file_system, "file_system_of", lambda _: kind)
    with pytest.raises(LedgerUnusable) as caught:
        prepare(tmp_path)
    assert str(caught.value) == (
        f"RELAY_DATA_DIR {tmp_path} is on a network file system ({kind}), where a ledger is not "
        "safe: name a folder on a disk of this machine"
    )
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("kind", ["ext4", "xfs", "btrfs", "overlay", "tmpfs", "zfs", "fuse", ""])
def test_others_are_accepted(tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(file_system, "file_system_of", lambda _: kind)
    refuse_network_file_system(tmp_path)


def test_a_real_tmpfs_is_known_and_accepted(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from relay.ledger.file_system import *\n"
        "refuse_network_file_system(Path(sys.argv[1])); print(file_system_of(Path(sys.argv[1])))"
    )
    command = on_small_disk(tmp_path, sys.executable, "-c", code, str(tmp_path))
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout == "tmpfs\n"


def test_the_folder_of_the_tests_is_known(tmp_path: Path) -> None:
    assert file_system_of(tmp_path) != ""
    assert file_system_of(tmp_path / "nowhere") == ""
