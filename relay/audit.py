"""The audit: one line on standard output for every step of every delivery.

docs/audit.md lists the events and their fields. Everything else (warnings of libraries, tracebacks)
goes to standard error, so that standard output is nothing but the audit.
"""

from __future__ import annotations

import atexit
import logging
import sys
from collections.abc import Callable, Collection, Mapping, MutableMapping
from datetime import UTC, datetime
from typing import Any, BinaryIO, Literal, cast

import orjson
import structlog

from config.secret_values import written_forms
from relay.audit_file import AuditFile
from relay.errors import AuditUnavailable
from relay.events.event import Event, PullRequest
from relay.output import Output

REDACTED = "****"

RETIRED = 256
"""Secrets no longer in use that are still redacted; each costs a search in every line."""

Level = Literal["debug", "info", "warning", "error"]
Style = Literal["json", "console"]
Render = Callable[[Any, str, MutableMapping[str, Any]], bytes]
"""structlog's Processor, as far as the last one is concerned: logger, level, entry to a line."""

_LEVELS: dict[str, int] = {
    "debug": logging.DEBUG,
    "info": logging.INFO,
    "warning": logging.WARNING,
    "error": logging.ERROR,
}

log: structlog.typing.FilteringBoundLogger = structlog.get_logger("audit")
"""Write the audit through this: ``log.info("delivery.queued", **fields)``."""


def _standard_output() -> BinaryIO:
    """Standard output without Python's buffer, which would hold back a second copy of lines."""
    buffered = sys.stdout.buffer
    return cast(BinaryIO, getattr(buffered, "raw", buffered))


_output = Output(_standard_output())

Observer = Callable[[str, Mapping[str, Any]], None]
"""Takes the event and the fields of a line. It must not raise, nor change the fields."""

_observers: list[Observer] = []


def observe(observer: Observer) -> None:
    """Call ``observer`` with each line from now on, also with lines below the level."""
    if observer not in _observers:
        _observers.append(observer)


class Redactor:
    """Replaces every known secret in a text: the last line of defence, not the first."""

    def __init__(self, secrets: Collection[str] = ()) -> None:
        self._current: frozenset[str] = frozenset()
        self._retired: list[str] = []
        self.exchange(secrets)

    def exchange(self, secrets: Collection[str]) -> None:
        """Redact ``secrets`` from now on, and the former ones too: what was rotated must not show
        up later. Of them the ``RETIRED`` latest are kept."""
        current = frozenset(secrets)
        gone = self._current - current
        kept = [secret for secret in self._retired if secret not in current and secret not in gone]
        self._retired = [*kept, *sorted(gone)][-RETIRED:]
        self._current = current
        # Longest first, so that a secret within another one leaves no remainder.
        forms = {form for one in (*current, *self._retired) for form in written_forms(one)}
        ordered = sorted(forms, key=len, reverse=True)
        self._written = tuple(orjson.dumps(secret)[1:-1] for secret in ordered)
        self._secrets = ordered
        self.forms = frozenset(forms)
        """How the secrets may be written; another object after each exchange."""

    def __call__(self, text: str) -> str:
        for secret in self._secrets:
            if secret in text:
                text = text.replace(secret, REDACTED)
        return text

    def finds(self, line: bytes) -> bool:
        """Whether a secret stands in a line of JSON, written as JSON writes it."""
        for secret in self._written:  # noqa: SIM110 - a generator costs more than the search
            if secret in line:
                return True
        return False

    def values(self, entry: Mapping[str, Any]) -> MutableMapping[str, Any]:
        """Return the entry with every secret redacted in its values, nested ones too."""
        return {self._value(key): self._value(value) for key, value in entry.items()}

    def _value(self, value: Any) -> Any:
        if isinstance(value, str):
            return self(value)
        if isinstance(value, Mapping):
            return self.values(value)
        if isinstance(value, list | tuple | set | frozenset):
            return [self._value(item) for item in value]
        return value


_redact = Redactor()


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
        written = {
            key: self._redact(str(value)).encode(errors="replace").decode()
            for key, value in entry.items()
        }
        return orjson.dumps(written).decode()


class _PlainDiagnostics(logging.Formatter):
    def __init__(self, redact: Redactor) -> None:
        super().__init__("%(levelname)s %(name)s: %(message)s")
        self._redact = redact

    def format(self, record: logging.LogRecord) -> str:
        return self._redact(super().format(record))


def configure(
    *,
    style: Style = "json",
    level: Level = "info",
    secrets: Collection[str] = (),
    stream: BinaryIO | None = None,
    file: AuditFile | None = None,
) -> None:
    """Set up the audit and the diagnostics of this process.

    ``level`` is that of ``stream``, which is standard output if left out; the file has what the
    stream has, and every line of info and above besides. ``secrets`` are redacted in all
    lines.
    """
    global _redact
    _redact = redact = Redactor(secrets)
    _output.stream = stream or _standard_output()
    _output.file = file
    for_file = _json_renderer(redact)
    render = for_file if style == "json" else _console_renderer(redact, for_file)
    structlog.configure(
        processors=[render],
        wrapper_class=_logger_class(_LEVELS[level], render, for_file),
        logger_factory=lambda *_: _output,
        cache_logger_on_first_use=False,
    )
    atexit.register(_output.last_words)
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Diagnostics(redact) if style == "json" else _PlainDiagnostics(redact))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(max(_LEVELS[level], logging.WARNING) if level != "debug" else logging.DEBUG)


def exchange_secrets(secrets: Collection[str]) -> None:
    """Redact these secrets from now on, and the former ones too."""
    _redact.exchange(secrets)


def redacted(text: str) -> str:
    """Return a text with the current secrets redacted, for texts that are stored elsewhere."""
    return _redact(text)


def redactor() -> Redactor:
    """Return the redactor of this process, for whoever redacts more than a text."""
    return _redact


def bound() -> structlog.typing.FilteringBoundLogger:
    """Return ``log`` as it is set up now, which saves a look-up for each of many lines."""
    logger: structlog.typing.FilteringBoundLogger = log.bind()
    return logger


def flush() -> None:
    """Write all lines that wait, before the action that they must precede.

    Raises AuditUnavailable where standard output or the audit file does not take them.
    """
    try:
        _output.flush()
    except OSError as error:
        where = error.filename or "standard output"
        reason = f"{where} does not take the audit ({error.strerror or error})"
        raise AuditUnavailable(reason) from None


def _logger_class(
    least: int, render: Render, for_file: Render
) -> type[structlog.typing.BindableLogger]:
    """Return structlog's logger without what the audit does not need: a context, arguments for the
    event, a chain of processors. A line below the ``least`` level costs one call; from info on it
    still goes to the file."""

    def method(name: str, level: int) -> Callable[..., None]:
        def write(self: structlog.BoundLoggerBase, event: str, **fields: Any) -> None:
            for observer in _observers:
                observer(event, fields)
            fields["event"] = event
            self._logger.msg(render(self._logger, name, fields))

        def leave_out(self: structlog.BoundLoggerBase, event: str, **fields: Any) -> None:
            for observer in _observers:
                observer(event, fields)
            if level >= logging.INFO and _output.file is not None:
                fields["event"] = event
                for_file(self._logger, name, fields)
                _output.soon()

        return write if level >= least else leave_out

    methods = {name: method(name, level) for name, level in _LEVELS.items()}
    return type("AuditLogger", (structlog.BoundLoggerBase,), methods)


def _json_renderer(redact: Redactor) -> Render:
    def render(_: Any, method: str, entry: MutableMapping[str, Any]) -> bytes:
        entry["level"] = method
        entry["at"] = datetime.now(UTC)
        line = orjson.dumps(entry, default=str, option=orjson.OPT_UTC_Z)
        # Few lines hold a secret; only those are taken apart.
        if redact.finds(line):
            line = orjson.dumps(redact.values(entry), default=str, option=orjson.OPT_UTC_Z)
        if _output.file is not None:
            _output.file.add(line)
        return line

    return render


def _console_renderer(redact: Redactor, for_file: Render) -> Render:
    console = structlog.dev.ConsoleRenderer(
        colors=_output.stream.isatty(), timestamp_key="at", pad_event_to=24, sort_keys=False
    )

    def render(logger: Any, method: str, entry: MutableMapping[str, Any]) -> bytes:
        if _output.file is not None:
            for_file(logger, method, entry)
        entry["level"] = method
        entry["at"] = f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%S.%fZ}"
        return str(console(logger, method, redact.values(entry))).encode()

    return render


def event_fields(event: Event) -> dict[str, Any]:
    """Return the fields of each line about an event."""
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
