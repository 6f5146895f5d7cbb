"""A disk of a few pages that a process has for itself: tmpfs, in a mount namespace of its own."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

ROOM = 64 * 1024
"""Bytes of the disk."""

FILLER = 32 * 1024
"""Bytes of them that somebody else has taken and may give back."""

_ON_SMALL_DISK = """
mount -t tmpfs -o mode=700,size=$1 tmpfs "$2" && head -c $3 /dev/zero > "$2/filler" || exit 1
shift 3
exec "$@"
"""


def on_small_disk(folder: Path, *command: str, room: int = ROOM, filler: int = FILLER) -> list[str]:
    """A command that sees a small disk at a folder, as nobody else does. Skips the test where the
    kernel lets this user mount nothing."""
    script = ["sh", "-c", _ON_SMALL_DISK, "sh", str(room), str(folder), str(filler)]
    errors = []
    for namespace in (["unshare", "-rm"], ["unshare", "-m"]):
        try:
            subprocess.run([*namespace, *script, "true"], check=True, capture_output=True)
        except FileNotFoundError:
            pytest.skip("needs unshare(1)")
        except subprocess.CalledProcessError as error:
            errors.append(error.stderr.decode().strip())
        else:
            return [*namespace, *script, *command]
    pytest.skip(f"mounting a small disk is not permitted here: {'; '.join(errors)}")
