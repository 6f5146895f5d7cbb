"""Waiting for something to become true, without a guess how long that takes."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable
from typing import Any

from tests.harness import PATIENCE


async def until(is_so: Callable[[], Any], seconds: float = PATIENCE) -> Any:
    """Return the first true value that ``is_so`` returns. Raises TimeoutError."""
    async with asyncio.timeout(seconds):
        while True:
            value = is_so()
            if inspect.isawaitable(value):
                value = await value
            if value:
                return value
            await asyncio.sleep(0.01)
