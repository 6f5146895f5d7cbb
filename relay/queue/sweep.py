"""The sweep: what is due in the ledger and has no RQ job gets one. One process at a time sweeps.

So nothing depends on Redis: what is lost there, or was never written, is made again within
seconds. A mark in Redis tells whether it was emptied or put back since.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Collection, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

from redis.asyncio import Redis
from redis.exceptions import RedisError
from rq.job import JobStatus

from relay.audit import log
from relay.errors import LedgerUnavailable
from relay.ledger.due import (
    LEAST_STEP,
    Due,
    due,
    give_up_duty,
    note_rebuilt,
    read_duty,
    set_back,
    take_duty,
)
from relay.ledger.ledger import Ledger
from relay.ledger.transaction import Transaction
from relay.queue.rq_job import JOB_PREFIX, QUEUE_PREFIX, JobKind, Wakeup, read_job_id
from relay.queue.wakeups import Wakeups
from relay.store import connect_async, name_of
from relay.tasks import end_tasks

DUTY = "sweep"

PERIOD = 0.8
"""Seconds between two sweeps."""

FRESH = 0.2
"""Seconds that a row has to be due: the job of what came just now is on its way."""

LEASE = 5.0
"""Seconds after which another process sweeps, if the one that did is not heard of."""

MOST_LISTED = 20_000
"""Jobs of the queue that are looked at. A longer queue wants no more of them."""

PATIENCE = 5.0
"""Seconds that a worker gets to claim a row whose job it has taken, before it is made again."""

FAILED_PAUSE = 60.0
"""Seconds before a job is made again that a worker could not run."""

MOST_TOGETHER = 64
"""Deliveries of one job."""

_logger = logging.getLogger("relay")


Row = tuple[JobKind, int]


@dataclass(slots=True)
class _Made:
    """A job that the sweep made for a row which is still due."""

    job: str
    at: float


class Sweep:
    """Sweeps for one process, when it has the duty."""

    def __init__(
        self,
        ledger: Ledger,
        wakeups: Wakeups,
        *,
        url: str,
        queue: str,
        timeout: float = 3,
        running: Callable[[], Collection[Wakeup]] = tuple,
        is_behind: Callable[[Redis], Awaitable[bool]] | None = None,
        period: float = PERIOD,
        fresh: float = FRESH,
        lease: float = LEASE,
    ) -> None:
        """``url`` is Redis's, ``queue`` the name of the RQ queue, ``timeout`` the seconds of one
        round trip. ``running`` returns what this process runs; it needs no job. ``is_behind``
        looks at the ledger's mark in Redis, and returns whether nothing may be called."""
        self._ledger = ledger
        self._wakeups = wakeups
        self._redis: Redis = connect_async(url, timeout=timeout)
        self._queue_key = f"{QUEUE_PREFIX}{queue}"
        self._mark_key = f"relay:{queue}:mark"
        self._running = running
        self._ask_behind = is_behind
        self._period = period
        self._fresh = fresh
        self._lease = lease
        self._owner = uuid4().hex
        self._mark = ""
        self._made: dict[Row, _Made] = {}
        self._has_told_failed = False
        self._is_well = True
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Sweep from now on, in the running event loop, whatever the ledger and Redis do."""
        self._task = asyncio.get_running_loop().create_task(self._run())

    async def stop(self) -> None:
        """Let another process sweep, and close the connection."""
        if self._task is not None:
            await end_tasks([self._task])
        with suppress(LedgerUnavailable):
            await self._ledger.commit(lambda tx: give_up_duty(tx, DUTY, self._owner))
        with suppress(RedisError, OSError):
            await self._redis.aclose()

    async def _run(self) -> None:
        while True:
            try:
                if await self._has_duty():
                    await self._sweep()
                self._is_well = True
            except (LedgerUnavailable, RedisError, OSError) as error:
                self._say(error)
            except Exception:
                _logger.exception("the sweep failed")
            await asyncio.sleep(self._period)

    async def _has_duty(self) -> bool:
        duty = await self._ledger.glance(lambda reader: read_duty(reader, DUTY))
        if duty is not None and duty.owner != self._owner:
            self._made.clear()
            if 0 <= duty.seconds_left <= self._lease + LEAST_STEP:
                return False
        elif duty is not None and self._lease / 2 < duty.seconds_left <= self._lease:
            return True
        before = duty.note if duty is not None else ""
        return await self._take_duty(before)

    async def _take_duty(self, before: str) -> bool:
        """Take or keep the duty, and write the mark that the next sweep expects in Redis."""
        self._mark, mark = before, before
        if not await self._is_emptied():
            mark = str(time.time_ns() // 1_000_000)
            try:
                await self._redis.set(self._mark_key, mark)
            except (RedisError, OSError):
                mark = before
        has_it, step = await self._ledger.commit(lambda tx: self._write_duty(tx, mark))
        if step:
            _logger.warning("the clock was set back by %.0f s: what waits is due earlier", step)
        if has_it:
            self._mark = mark
        return has_it

    async def _write_duty(self, tx: Transaction, mark: str) -> tuple[bool, float]:
        step = await set_back(tx, DUTY, self._lease)
        return await take_duty(tx, DUTY, self._owner, self._lease, mark), step

    async def _is_emptied(self) -> bool:
        """Return whether Redis lacks the mark that was written last, or has an older one."""
        if not self._mark:
            return False
        try:
            found: Any = await self._redis.get(self._mark_key)
        except (RedisError, OSError):
            return False
        return not (found or b"").isdigit() or int(found) < int(self._mark)

    async def _sweep(self) -> None:
        if self._ask_behind is not None and await self._ask_behind(self._redis):
            return
        rows = await self._ledger.glance(lambda reader: due(reader, late=self._fresh))
        was_emptied = await self._is_emptied()
        if was_emptied:
            self._made.clear()
        waiting = _rows_of(rows)
        self._made = {row: made for row, made in self._made.items() if row in waiting}
        made = 0
        if waiting:
            listed = await self._listed()
            if listed is not None:
                missing = waiting - listed - _all_rows(self._running())
                made = self._make(await self._to_make(missing))
        if was_emptied:
            self._mark = str(time.time_ns() // 1_000_000)
            await self._redis.set(self._mark_key, self._mark)
            await self._ledger.commit(lambda tx: self._note_rebuilt(tx, made))
            log.warning("queue.rebuilt", jobs=made)

    async def _note_rebuilt(self, tx: Transaction, made: int) -> None:
        await take_duty(tx, DUTY, self._owner, self._lease, self._mark)
        await note_rebuilt(tx, made)

    async def _listed(self) -> set[Row] | None:
        """Return the rows that have a job in the queue; None where it is too long to look."""
        length: Any = self._redis.llen(self._queue_key)
        if await length > MOST_LISTED:
            return None
        ids: Any = self._redis.lrange(self._queue_key, 0, MOST_LISTED)
        jobs = [read_job_id(job.decode(errors="replace")) for job in await ids]
        return _all_rows(job for job in jobs if job is not None)

    async def _to_make(self, missing: set[Row]) -> set[Row]:
        """Return those rows that no worker can be about to look at."""
        now = time.monotonic()
        again = [row for row in missing if row in self._made]
        if not again:
            return missing
        async with self._redis.pipeline(transaction=False) as pipe:
            for row in again:
                pipe.hget(f"{JOB_PREFIX}{self._made[row].job}", "status")
            statuses = await pipe.execute()
        for row, status in zip(again, statuses, strict=True):
            failed = status == JobStatus.FAILED.value.encode()
            if failed and not self._has_told_failed:
                self._has_told_failed = True
                log.warning(
                    "queue.job_failed",
                    job=self._made[row].job,
                    reason="a worker could not run it: an rq worker here needs -S json",
                )
            if now - self._made[row].at < (FAILED_PAUSE if failed else PATIENCE):
                missing.discard(row)
        return missing

    def _make(self, rows: set[Row]) -> int:
        """Have jobs made for rows, and return how many."""
        now, jobs = time.monotonic(), _jobs(rows)
        for job in jobs:
            for number in range(job.first, job.last + 1):
                self._made[job.kind, number] = _Made(job.id, now)
            if job.kind == "deliveries":
                self._wakeups.wake_deliveries(job.first, job.last)
            elif job.kind == "deploy":
                self._wakeups.wake_deploys([job.first])
            else:
                self._wakeups.wake_notices([job.first])
        return len(jobs)

    def _say(self, error: Exception) -> None:
        if self._is_well:
            reason = str(error) if isinstance(error, LedgerUnavailable) else name_of(error)
            _logger.warning("the sweep waits (%s)", reason)
        self._is_well = False


def _rows_of(rows: Due) -> set[Row]:
    return {
        *(("deliveries", number) for number in rows.deliveries),
        *(("deploy", number) for number in rows.deploys),
        *(("notice", number) for number in rows.notices),
    }


def _all_rows(jobs: Iterable[Wakeup]) -> set[Row]:
    return {(job.kind, number) for job in jobs for number in range(job.first, job.last + 1)}


def _jobs(rows: set[Row]) -> Sequence[Wakeup]:
    """Return jobs for rows; deliveries whose numbers follow each other share one."""
    jobs: list[Wakeup] = []
    for kind, number in sorted(rows):
        last = jobs[-1] if jobs else None
        if (
            kind == "deliveries"
            and last is not None
            and last.kind == kind
            and last.last + 1 == number
            and number - last.first < MOST_TOGETHER
        ):
            jobs[-1] = last._replace(last=number)
        else:
            jobs.append(Wakeup(kind, number, number))
    return jobs
