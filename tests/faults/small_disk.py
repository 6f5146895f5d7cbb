"""A disk with a few free pages that only one process sees: tmpfs, in its own mount namespace."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

FREE = 32 * 1024
"""Bytes that are free until the test deletes the file ``filler``."""

_ON_SMALL_DISK = """
mount -t tmpfs -o mode=700,size=$1 tmpfs "$2" && head -c $3 /dev/zero > "$2/filler" || exit 1
shift 3
exec "$@"
"""


def on_small_disk(folder: Path, *command: str, free: int = FREE, filler: int = FREE) -> list[str]:
    """Return a command line that runs a command with a small disk mounted at a folder.

    ``free`` is the bytes that are free, ``filler`` those that the test can free later.
    Skips the test where the kernel does not
    let this user mount.
    """
    script = ["sh", "-c", _ON_SMALL_DISK, "sh", str(free + filler), str(folder), str(filler)]
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
