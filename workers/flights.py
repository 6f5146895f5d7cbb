"""The current runs of a worker: many deploys, deliveries and notices on one event loop."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Collection, Coroutine, Iterable
from typing import Any

from relay.errors import LedgerUnavailable
from relay.ledger.claims import Asked
from relay.queue.rq_job import Wakeup
from relay.queue.wakeups import Wakeups
from workers.deploy.flight import Fate, Flight
from workers.deploy.run import follow_claim, run_deploy
from workers.job_marks import JobMarks
from workers.notices import run_notice
from workers.route_deliveries import route_deliveries
from workers.runtime import Project, Runtime

TIMERS = 60
"""Seconds ahead for which a worker remembers by itself when a deploy is due; what is due later is
left to the sweep."""

MOST_TIMERS = 10_000

_logger = logging.getLogger("workers")


class Flights:
    """The runs of one worker; workers.runtime.Starter for those that they lead to."""

    def __init__(self, most: int, wakeups: Wakeups, marks: JobMarks) -> None:
        """``most`` is how many may run at a time."""
        self.is_open = True
        """False: only claimed deploys begin."""
        self.changed = asyncio.Event()
        """Set whenever a run has ended."""
        self._most = most
        self._wakeups = wakeups
        self._marks = marks
        self._running: dict[Wakeup, Flight] = {}
        self._again: set[Wakeup] = set()
        self._reserved = 0
        self._timers: dict[int, asyncio.TimerHandle] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._rt: Runtime | None = None

    def use(self, rt: Runtime) -> None:
        """Run with this runtime from now on."""
        self._rt = rt

    def __len__(self) -> int:
        return len(self._running)

    @property
    def running(self) -> Collection[Wakeup]:
        """What runs now."""
        return self._running.keys()

    @property
    def room(self) -> int:
        """How many more may run."""
        return max(0, self._most - len(self._running) - self._reserved)

    def start(self, wakeup: Wakeup) -> None:
        """Run what a wake-up names; once more after its run, where it runs already."""
        if wakeup in self._running:
            self._again.add(wakeup)
            return
        rt, flight = self._runtime(), self._flight(wakeup)
        if wakeup.kind == "deploy":
            self._fly(wakeup, flight, run_deploy(rt, wakeup.first, flight))
        elif wakeup.kind == "deliveries":
            self._fly(wakeup, flight, route_deliveries(rt, wakeup.first, wakeup.last))
        else:
            self._fly(wakeup, flight, run_notice(rt, wakeup.first))

    def take(self, wakeup: Wakeup) -> None:
        """Run what a job named that was taken from the queue."""
        self._marks.job_taken(wakeup)
        self.start(wakeup)

    def cut_off(self, fate: Fate, deploy: int | None = None) -> bool:
        """End the call of a deploy, or all calls. Return whether there was one."""
        chosen = [
            flight
            for wakeup, flight in self._running.items()
            if deploy is None or (wakeup.kind, wakeup.first) == ("deploy", deploy)
        ]
        ended = [flight.cut_off(fate) for flight in chosen]
        return any(ended)

    async def land(self) -> None:
        """Return once nothing runs."""
        while self._running:
            self.changed.clear()
            await self.changed.wait()

    def close(self) -> None:
        """Forget what is due later."""
        for timer in self._timers.values():
            timer.cancel()
        self._timers.clear()

    def wake_deploys(self, deploys: Iterable[int]) -> None:
        """Run these deploys here as far as there is room; the others get jobs."""
        left = []
        for number in deploys:
            wakeup = Wakeup("deploy", number, number)
            if self.is_open and (self.room or wakeup in self._running):
                self.start(wakeup)
            else:
                left.append(number)
        if left:
            self._wakeups.wake_deploys(left)

    def wake_deploy_at(self, deploy: int, at: float) -> None:
        """Run a deploy when it is due, where that is soon."""
        seconds = at - time.time()
        if seconds > TIMERS or len(self._timers) >= MOST_TIMERS:
            return
        earlier = self._timers.pop(deploy, None)
        if earlier is not None:
            earlier.cancel()
        loop = asyncio.get_running_loop()
        # A little later than never too early: the ledger counts in microseconds.
        self._timers[deploy] = loop.call_later(max(0, seconds) + 0.001, self._ring, deploy)

    def wake_notices(self, notices: Iterable[int]) -> None:
        """Have jobs made for notices: deploys go first."""
        self._wakeups.wake_notices(notices)

    def reserve(self, most: int) -> int:
        """Return how many calls may begin beside others, up to ``most``."""
        reserved = min(most, self.room) if self.is_open else 0
        self._reserved += reserved
        return reserved

    def release(self, reserved: int) -> None:
        """Give back what ``reserve`` returned."""
        self._reserved -= reserved

    def follow(self, project: Project, asked: Asked, since: float) -> None:
        """Make the call of a deploy that was claimed with its routing."""
        number = asked.deploy.line.id
        wakeup = Wakeup("deploy", number, number)
        flight = self._flight(wakeup)
        self._fly(wakeup, flight, follow_claim(self._runtime(), project, asked, since, flight))

    def _ring(self, deploy: int) -> None:
        self._timers.pop(deploy, None)
        self.wake_deploys([deploy])

    def _runtime(self) -> Runtime:
        if self._rt is None:
            raise RuntimeError("use() comes first")
        return self._rt

    def _flight(self, wakeup: Wakeup) -> Flight:
        on_call: Callable[[], None] = lambda: self._marks.call_begins(wakeup)  # noqa: E731
        return Flight(on_call)

    def _fly(self, wakeup: Wakeup, flight: Flight, run: Coroutine[Any, Any, None]) -> None:
        self._running[wakeup] = flight
        task = asyncio.get_running_loop().create_task(self._finish(wakeup, run))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _finish(self, wakeup: Wakeup, run: Coroutine[Any, Any, None]) -> None:
        try:
            await run
        except LedgerUnavailable as error:
            _logger.warning("%s is left to the sweep: %s", wakeup.id, error)
        except Exception:
            _logger.exception("%s met an error that was not foreseen", wakeup.id)
        finally:
            del self._running[wakeup]
            self._marks.run_ends(wakeup)
            self.changed.set()
        if wakeup in self._again:
            self._again.discard(wakeup)
            if self.is_open:
                self.start(wakeup)
