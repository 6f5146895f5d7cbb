"""Which files a configuration was read from, and what they were like then."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import NamedTuple

VERSION_DIGITS = 12

Stamp = tuple[int, int, int, int] | None
"""What tells one state of a file from another; None where there is no file to be seen.

Times of content and of inode (rights, rename), bytes, and the inode, which is another one where a
file or what a link leads to was replaced. See stat(2).
"""

Stamps = dict[Path, Stamp]


class Origin(NamedTuple):
    """Where a relay.yaml and its secrets were found."""

    version: str
    """The first digits of the file's SHA-256, as ``sha256sum`` prints it."""
    stamps: Stamps
    """Every file that was read, each as it was just before."""


def version_of(raw: bytes) -> str:
    """The name of a file's content in the audit."""
    return hashlib.sha256(raw).hexdigest()[:VERSION_DIGITS]


def stamp(path: Path) -> Stamp:
    """The state of a file now. Links are followed."""
    try:
        found = path.stat()
    except (OSError, ValueError):
        return None
    return found.st_mtime_ns, found.st_ctime_ns, found.st_size, found.st_ino
