"""Who runs a command."""

from __future__ import annotations

import os
import pwd


def user_name() -> str:
    """Return the name of the operating system's user; the number where it has no name."""
    number = os.getuid()
    try:
        return pwd.getpwuid(number).pw_name
    except KeyError:
        return str(number)
