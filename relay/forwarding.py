"""What happens while Redis takes no deliveries: they go to the spool, and from there to Redis.

There are three states. *Direct*, where nearly all time is spent: the spool is empty, intake writes
to Redis, and nothing here is asked but ``spooling``. *Away*: Redis was found not to take what it
was given. Everything goes to the spool at once, and nobody but this file asks Redis whether it
would take a delivery again. *Catching up*: it does. What is in the spool is forwarded, oldest
first, and what arrives meanwhile goes behind it, so that the order stays. The last batch is
forwarded while nothing can be added to the spool; then everything is direct again.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Sequence

from relay import audit
from relay.errors import AuditUnavailable, BatchRefused, SpoolUnavailable, StoreUnavailable
from relay.spool import Batch, Spool

MAX_BATCH = 256
"""Records forwarded by one script call."""

ASK_AGAIN = 1.0
"""Seconds after which Redis is asked again."""

LOOK_AGAIN = 30.0
"""Seconds after which the folder is looked through again for what other receivers have left."""

PassOn = Callable[[Sequence[bytes]], Awaitable[None]]

_diagnostics = logging.getLogger("relay.forwarding")


class Forwarder:
    """Decides between Redis and the spool, and empties the spool. One instance a process."""

    def __init__(self, spool: Spool, pass_on: PassOn, *, timeout: float) -> None:
        """``pass_on`` has Redis take records; with none, it finds out whether Redis would take any.
        It raises BatchRefused if Redis takes others, and StoreUnavailable if it takes none.

        ``timeout`` is the seconds that ``pass_on`` may take, and a write to the spool.
        """
        self.spooling = False
        """Whether deliveries have to go to the spool."""
        self.away = ""
        """Why Redis takes nothing, as far as that is known."""
        self._spool = spool
        self._pass_on = pass_on
        self._timeout = timeout
        self._back = False
        self._most = MAX_BATCH
        self._since = 0.0
        # Whoever adds to the spool, and whoever decides that nothing more is to be added.
        self._turn = asyncio.Lock()
        self._news = asyncio.Event()
        self._stopping = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._log = audit.bound()

    async def start(self) -> None:
        """Take over what receivers that have ended left, and begin to forward it."""
        await self._look()
        self._task = asyncio.create_task(self._run())

    async def stop(self) -> None:
        """Finish what is under way; the rest is left on the disk."""
        self._stopping.set()
        self._news.set()
        if self._task is not None:
            await self._task
        await asyncio.to_thread(self._spool.close)

    def redis_is_away(self, why: str) -> None:
        """From now on deliveries go to the spool, until Redis has all that is in it."""
        self.away = why
        self._begin(why)

    async def keep(self, records: Sequence[bytes]) -> bool:
        """Return true once the disk has the records, false if Redis is to be given them after all.

        Raises SpoolUnavailable, at the latest after twice the timeout.
        """
        try:
            async with asyncio.timeout(2 * self._timeout), self._turn:
                if not self.spooling:
                    return False
                # A disk that hangs keeps the thread, but nobody else.
                await asyncio.shield(asyncio.to_thread(self._spool.append, records))
        except TimeoutError:
            raise SpoolUnavailable("the spool's disk does not answer") from None
        return True

    async def trouble(self) -> str:
        """Why the spool would take nothing, or an empty string."""
        try:
            async with asyncio.timeout(self._timeout):
                return await asyncio.to_thread(self._spool.trouble)
        except TimeoutError:
            return "the spool's disk does not answer"

    def _begin(self, why: str) -> None:
        if not self.spooling:
            self.spooling, self._back = True, False
            self._since = time.monotonic()
            self._log.warning("receiver.degraded", reason=why)
            self._news.set()

    async def _run(self) -> None:
        while not self._stopping.is_set():
            if self.spooling:
                await self._forward()
                continue
            await _within(self._news, LOOK_AGAIN)
            self._news.clear()
            await self._look()

    async def _look(self) -> None:
        try:
            if await asyncio.to_thread(self._spool.adopt):
                self._begin("a receiver that has ended left deliveries in the spool")
        except OSError as error:
            _diagnostics.error("the spool cannot be read: %s", error.strerror)

    async def _forward(self) -> None:
        """One step forward, or a pause if that cannot be done now."""
        try:
            if not self._back:
                await self._pass_on(())
                self.away, self._back = "", True
            await self._step()
        except AuditUnavailable:
            await _within(self._stopping, ASK_AGAIN)
        except StoreUnavailable as error:
            self.away, self._back = str(error), False
            await _within(self._stopping, ASK_AGAIN)
        except Exception:
            # Whatever it is, deliveries depend on this going on.
            _diagnostics.exception("forwarding failed")
            await _within(self._stopping, ASK_AGAIN)

    async def _step(self) -> None:
        async with self._turn:
            batch = await asyncio.to_thread(self._spool.read, self._most)
            if batch.last:
                # Nothing can be added meanwhile, so that the spool is empty afterwards. Redis took
                # what it was given last, so that nobody is likely to wait for long.
                if await self._send(batch):
                    self.spooling = False
                    seconds = round(time.monotonic() - self._since, 3)
                    self._log.info("receiver.recovered", seconds=seconds)
                return
        await self._send(batch)

    async def _send(self, batch: Batch) -> bool:
        """Whether the batch has left the spool."""
        try:
            await self._pass_on(batch.records)
        except BatchRefused as error:
            # Which record it is shows when few are forwarded at a time.
            self._most = 1
            if len(batch.records) > 1:
                return False
            # It is not set aside unless Redis would take another one.
            await self._pass_on(())
            _diagnostics.error("a delivery cannot be forwarded: %s", error)
            await asyncio.to_thread(self._spool.forget, batch, aside=True)
            return True
        self._most = min(MAX_BATCH, self._most * 2)
        await asyncio.to_thread(self._spool.forget, batch)
        return True


async def _within(event: asyncio.Event, seconds: float) -> None:
    """Return once something has happened, or after so many seconds."""
    try:
        async with asyncio.timeout(seconds):
            await event.wait()
    except TimeoutError:
        return
