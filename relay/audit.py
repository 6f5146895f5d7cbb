"""The audit: one line on standard output for every step of every delivery.

The events and their fields are listed in docs/audit.md. Everything else that the processes have
to say (warnings of libraries, tracebacks) goes to standard error, so that standard output is the
audit and nothing but the audit.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Collection, MutableMapping
from typing import Any, BinaryIO, Literal

import orjson
import structlog

from relay.events import Delivery, Event, PullRequest

MASK = "****"

Level = Literal["debug", "info", "warning", "error"]
_LEVELS: dict[str, int] = {
    "debug": logging.DEBUG,
    "info": logging.INFO,
    "warning": logging.WARNING,
    "error": logging.ERROR,
}

log: structlog.typing.FilteringBoundLogger = structlog.get_logger("audit")
"""Write the audit through this: ``log.info("delivery.queued", **fields)``."""


class Redactor:
    """Replaces every known secret in a text; the last line of defence, not the first."""

    def __init__(self, secrets: Collection[str]) -> None:
        # Longest first, so that a secret within another one leaves no remainder.
        self._secrets = sorted(secrets, key=len, reverse=True)

    def __call__(self, text: str) -> str:
        for secret in self._secrets:
            if secret in text:
                text = text.replace(secret, MASK)
        return text


class _Diagnostics(logging.Formatter):
    """What libraries log, as one JSON object a line and without secrets."""

    def __init__(self, redact: Redactor) -> None:
        super().__init__()
        self._redact = redact

    def format(self, record: logging.LogRecord) -> str:
        entry: dict[str, Any] = {
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        if record.exc_info:
            entry["exception"] = self.formatException(record.exc_info)
        return self._redact(orjson.dumps(entry).decode())


class _PlainDiagnostics(logging.Formatter):
    def __init__(self, redact: Redactor) -> None:
        super().__init__("%(levelname)s %(name)s: %(message)s")
        self._redact = redact

    def format(self, record: logging.LogRecord) -> str:
        return self._redact(super().format(record))


def _dumps(entry: MutableMapping[str, Any], **_: Any) -> bytes:
    return orjson.dumps(entry, default=str)


def configure(
    *,
    style: Literal["json", "console"] = "json",
    level: Level = "info",
    secrets: Collection[str] = (),
    stream: BinaryIO | None = None,
) -> None:
    """Set up the audit and the diagnostics of this process.

    ``secrets`` are masked wherever they would appear. ``stream`` is standard output if left out.
    """
    redact = Redactor(secrets)

    def mask(_: Any, __: str, entry: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
        for key, value in entry.items():
            if isinstance(value, str):
                entry[key] = redact(value)
        return entry

    out = stream or sys.stdout.buffer
    processors: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True, key="at"),
    ]
    if secrets:
        processors.append(mask)
    if style == "json":
        processors.append(structlog.processors.JSONRenderer(serializer=_dumps))
    else:
        processors += [
            structlog.dev.ConsoleRenderer(
                colors=out.isatty(), timestamp_key="at", pad_event_to=24, sort_keys=False
            ),
            lambda _, __, line: str(line).encode(),
        ]
    structlog.configure(
        processors=processors,
        wrapper_class=structlog.make_filtering_bound_logger(_LEVELS[level]),
        logger_factory=structlog.BytesLoggerFactory(file=out),
        cache_logger_on_first_use=False,
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Diagnostics(redact) if style == "json" else _PlainDiagnostics(redact))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(max(_LEVELS[level], logging.WARNING) if level != "debug" else logging.DEBUG)


def event_fields(event: Event) -> dict[str, Any]:
    """What every line about an event says of it."""
    fields: dict[str, Any] = {
        "kind": event.kind,
        "repo": event.repo,
        "ref": event.ref,
        "sha": event.sha,
    }
    if isinstance(event, PullRequest):
        fields["number"] = event.number
        fields["action"] = event.action
    return fields


def delivery_fields(delivery: Delivery) -> dict[str, Any]:
    """What every line about a delivery says of it."""
    return {"delivery": delivery.id, "source": delivery.source, **event_fields(delivery.event)}
