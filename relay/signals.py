"""What the signals of a relay process mean."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Callable


def on_signals(*, stop: Callable[[], None], reload: Callable[[], None]) -> None:
    """SIGTERM and SIGINT call ``stop``, SIGHUP calls ``reload``.

    The kernel also sends SIGHUP when a terminal is closed (termios(3)), and then nobody wants to
    have anything read again: that calls ``stop``.
    """
    in_terminal = sys.stdin is not None and os.isatty(_STDIN)

    def hang_up() -> None:
        gone = in_terminal and not os.isatty(_STDIN)
        (stop if gone else reload)()

    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop)
    loop.add_signal_handler(signal.SIGHUP, hang_up)


_STDIN = 0
