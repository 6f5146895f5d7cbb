"""Traces, for those who collect them: one from the webhook to its deploy calls.

Off unless RELAY_OTEL or OTEL_EXPORTER_OTLP_ENDPOINT is set; only then is OpenTelemetry imported
(relay/otel.py), which need not be installed otherwise. The context travels with the jobs, as a
traceparent of https://www.w3.org/TR/trace-context/.
"""

from __future__ import annotations

import asyncio
import importlib
import os
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Protocol

from config.errors import RelayError
from config.settings import Settings

Value = str | int | float | bool

ENDPOINTS = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")


class CannotTrace(RelayError):
    """Traces are asked for, but what makes them is not installed."""


class Span(Protocol):
    """A step that is under way. One that is never ended is not traced."""

    @property
    def trace(self) -> str:
        """The traceparent for what follows from it; empty where nothing is traced."""

    def end(self, *, failed: bool = False, **attributes: Value | None) -> None:
        """The step is over. ``attributes`` hold no secret and no URL."""


class Tracer(Protocol):
    """What makes spans."""

    def begin(self, name: str, parent: str, /, **attributes: Value | None) -> Span:
        """A span under the one that a traceparent names, or the first of a trace."""

    def stop(self) -> None:
        """Export what has ended. Blocking, for a few seconds at most."""


class _Untraced:
    """A step of which nothing is kept. What follows still belongs to the trace it came from."""

    __slots__ = ("trace",)

    def __init__(self, trace: str) -> None:
        self.trace = trace

    def end(self, *, failed: bool = False, **attributes: Value | None) -> None:
        """Nothing."""


class _Off:
    def begin(self, _: str, parent: str, /, **__: Value | None) -> Span:
        return _Untraced(parent) if parent else _NOTHING

    def stop(self) -> None:
        """Nothing."""


_NOTHING = _Untraced("")
_tracer: Tracer = _Off()


def begin(name: str, parent: str = "", /, **attributes: Value | None) -> Span:
    """A span of this process; of what is None it says nothing."""
    return _tracer.begin(name, parent, **attributes)


@asynccontextmanager
async def traced(settings: Settings, process: str) -> AsyncIterator[None]:
    """Trace while the block lasts, if that is asked for.

    ``process`` is receiver or worker. Raises CannotTrace.
    """
    global _tracer
    if not (settings.otel or any(os.environ.get(name) for name in ENDPOINTS)):
        yield
        return
    try:
        start: Callable[[str], Tracer] = importlib.import_module("relay.otel").start
    except ModuleNotFoundError as error:
        raise CannotTrace(
            f"traces need {error.name}: install deploy-relay[otel], or unset RELAY_OTEL and "
            "OTEL_EXPORTER_OTLP_ENDPOINT"
        ) from None
    _tracer = tracer = start(process)
    try:
        yield
    finally:
        _tracer = _Off()
        await asyncio.to_thread(tracer.stop)
