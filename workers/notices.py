"""Tells a notice to its notifier."""

from __future__ import annotations

from workers.runtime import Runtime


async def run_notice(rt: Runtime, number: int) -> None:
    """Tell a notice, if its time has come."""
