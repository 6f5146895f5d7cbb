"""Whether a folder is on a network file system, where SQLite's locks and shared memory fail.

WAL needs memory that all processes share, and flock that holds between them. NFS and SMB have
neither (https://www.sqlite.org/wal.html), so the ledger refuses to start there.
"""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

from relay.errors import LedgerUnusable

_NETWORK = frozenset(
    {
        *("9p", "afs", "beegfs", "ceph", "cifs", "coda", "davfs", "fhgfs", "gfs2"),
        *("glusterfs", "gpfs", "lustre", "ncpfs", "nfs", "nfs4", "ocfs2", "orangefs", "pvfs2"),
        *("smb2", "smb3", "smbfs", "virtiofs"),
        *("fuse.ceph", "fuse.ceph-fuse", "fuse.davfs2", "fuse.glusterfs", "fuse.grpcfuse"),
        *("fuse.juicefs", "fuse.osxfs", "fuse.rclone", "fuse.s3fs", "fuse.smbnetfs"),
        *("fuse.sshfs", "fuse.goofys", "fuse.gcsfuse", "fuse.mfs", "fuse.seaweedfs"),
    }
)
"""Types of file systems as /proc/self/mountinfo names them. Docker Desktop shares folders by 9p,
virtiofs, grpcfuse or osxfs."""

_ESCAPES = {r"\040": " ", r"\011": "\t", r"\012": "\n", r"\134": "\\"}


def refuse_network_file_system(folder: Path) -> None:
    """Return if the file system of ``folder`` can hold a ledger, or is not known. Raises
    LedgerUnusable."""
    kind = file_system_of(folder)
    if kind in _NETWORK:
        raise LedgerUnusable(
            f"RELAY_DATA_DIR {folder} is on a network file system ({kind}), where a ledger is not "
            "safe: name a folder on a disk of this machine"
        )


def file_system_of(folder: Path) -> str:
    """Return the type of the file system of an existing folder; empty where it is not known."""
    with suppress(OSError):
        path = folder.resolve()
        device = os.stat(path).st_dev
        text = Path("/proc/self/mountinfo").read_text(encoding="utf-8", errors="surrogateescape")
        return type_of_mount(text, path, f"{os.major(device)}:{os.minor(device)}")
    return ""


def type_of_mount(mountinfo: str, path: Path, device: str) -> str:
    """Return the type of the file system that ``path`` is on; empty where none is listed.

    ``mountinfo`` is the text of /proc/self/mountinfo (proc(5)). Mounts of the path's ``device``,
    as ``major:minor``, count before others: btrfs and overlayfs show another device than stat(2).
    """
    best: tuple[bool, int] = (False, -1)
    kind = ""
    for line in mountinfo.splitlines():
        first, separator, second = line.partition(" - ")
        words = first.split(" ")
        if not separator or len(words) < 5:
            continue
        place = Path(_unescaped(words[4]))
        if place != path and place not in path.parents:
            continue
        # Of two mounts at one place the later one is seen.
        rank = (words[2] == device, len(place.parts))
        if rank >= best:
            best, kind = rank, second.split(" ", 1)[0]
    return kind


def _unescaped(text: str) -> str:
    for escape, character in _ESCAPES.items():
        text = text.replace(escape, character)
    return text
