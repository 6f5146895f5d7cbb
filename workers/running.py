"""Runs one job: a coroutine on the event loop, a plain function in a thread of its own."""

from __future__ import annotations

import asyncio
import inspect
import sys
import threading
from collections.abc import Callable
from contextvars import copy_context
from dataclasses import dataclass, field
from typing import Any, Literal, cast

from rq import Queue
from rq.executions import Execution
from rq.job import Job, _current_job
from rq.timeouts import JobTimeoutException, TimerDeathPenalty

from workers.bookkeeping import ExcInfo, Outcome
from workers.runtime import Runtime, shared


class RelayJobTimeoutException(JobTimeoutException):
    """RQ's exception with the message that it is given."""

    def __init__(self, *args: object) -> None:
        # RQ writes the message of the timeout that began last into its class, for every thread.
        Exception.__init__(self, *args)


@dataclass(eq=False, slots=True)
class Flight:
    """A job that runs. ``fate`` is why it was cut off, if it was."""

    job: Job
    execution: Execution
    unreadable: ExcInfo | None = None
    task: asyncio.Task[None] | None = field(default=None, repr=False)
    fate: Literal["", "stopped", "put back"] = ""
    ended: bool = False

    def cut_off(self, fate: Literal["stopped", "put back"]) -> None:
        """End the job now, unless it has ended and only its outcome is left to write."""
        if not self.ended and not self.fate and self.task is not None:
            self.fate = fate
            self.task.cancel()

    async def run(self, runtime: Runtime) -> Outcome:
        """Run the job to its end, whichever that is."""
        if self.unreadable is not None:
            self.ended = True
            return Outcome(self.job, self.execution, "failed", error=self.unreadable)
        try:
            value = await perform(self.job, runtime)
        except BaseException as error:
            if isinstance(error, asyncio.CancelledError) and self.fate:
                return Outcome(self.job, self.execution, self.fate)
            return Outcome(self.job, self.execution, "failed", error=cast(ExcInfo, sys.exc_info()))
        else:
            return Outcome(self.job, self.execution, "returned", value)
        finally:
            self.ended = True


async def perform(job: Job, runtime: Runtime) -> Any:
    """What the job's function returns. Raises what it raises, and JobTimeoutException.

    A thread cannot be cancelled: a plain function that is cut off while it waits for something
    outside Python runs on until that is over, and nobody hears of it.
    """
    seconds = job.timeout or Queue.DEFAULT_TIMEOUT
    function = job.func
    if not inspect.iscoroutinefunction(function):
        return await _in_thread(_perform_plainly, job, seconds)
    token = _current_job.set(job)
    try:
        async with asyncio.timeout(None if seconds < 0 else seconds) as limit:
            with shared(runtime):
                return await function(*job.args, **job.kwargs)
    except TimeoutError:
        if limit.expired():
            text = f"Task exceeded maximum timeout value ({seconds} seconds)"
            raise RelayJobTimeoutException(text) from None
        raise
    finally:
        _current_job.reset(token)


def _perform_plainly(job: Job, seconds: float) -> Any:
    # RQ writes its message into the class that it is given, so each run has one of its own.
    timeout = type("JobTimeoutException", (RelayJobTimeoutException,), {})
    with TimerDeathPenalty(  # type: ignore[no-untyped-call]
        seconds, timeout, job_id=job.id
    ):
        return job.perform()


async def _in_thread(function: Callable[..., Any], *args: Any) -> Any:
    """Unlike ``asyncio.to_thread``, as many at a time as there are jobs, and none of them keeps the
    process from ending."""
    loop = asyncio.get_running_loop()
    result: asyncio.Future[Any] = loop.create_future()
    context = copy_context()

    def settle(value: Any, error: BaseException | None) -> None:
        if not result.done():
            result.set_result(value) if error is None else result.set_exception(error)

    def work() -> None:
        value, failure = None, None
        try:
            value = context.run(function, *args)
        except BaseException as error:
            failure = error
        if not loop.is_closed():
            loop.call_soon_threadsafe(settle, value, failure)

    threading.Thread(target=work, daemon=True, name=f"job-{args[0].id}").start()
    return await result
