"""The three functions that RQ jobs name: ``deliver``, ``deploy`` and ``notify``.

Their arguments are numbers of rows of the ledger. They are coroutines, which ``rq worker -S json``
runs one at a time, and our worker many at a time. A job that comes twice does no harm.
"""

from __future__ import annotations

from workers.deploy.run import run_deploy
from workers.notices import run_notice
from workers.route_deliveries import route_deliveries
from workers.runtime import runtime


async def deliver(first: int, last: int) -> None:
    """Route the deliveries from ``first`` to ``last``: each call that a route wants is a deploy."""
    async with runtime() as rt:
        await route_deliveries(rt, first, last)


async def deploy(number: int) -> None:
    """Call the target of a deploy that is due."""
    async with runtime() as rt:
        await run_deploy(rt, number)


async def notify(number: int) -> None:
    """Send a notice that is due."""
    async with runtime() as rt:
        await run_notice(rt, number)
