"""A deploy's call while it is under way, as others in this process may end it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Literal

Fate = Literal["", "stopped", "ended"]
"""Why a call was cut off: by RQ's stop command, or because the worker ends."""


class Flight:
    """One run of a deploy."""

    def __init__(self, on_call: Callable[[], None] = lambda: None) -> None:
        """``on_call`` is called when the call begins."""
        self.fate: Fate = ""
        self._on_call = on_call
        self._calling: asyncio.Task[object] | None = None

    def cut_off(self, fate: Fate) -> bool:
        """End the call. Return False where none is under way."""
        if self._calling is None:
            return False
        self.fate = self.fate or fate
        self._calling.cancel()
        return True

    def begin_call(self) -> None:
        """Note that the current task makes the call from now on."""
        self._calling = asyncio.current_task()
        self._on_call()

    def end_call(self) -> None:
        """Note that the call is over."""
        self._calling = None

    def take_cancellation(self) -> bool:
        """Return whether a cancellation was this flight's, and then let the task go on."""
        task = asyncio.current_task()
        if not self.fate or task is None:
            return False
        task.uncancel()
        return True
