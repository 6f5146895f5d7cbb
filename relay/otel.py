"""The spans of relay/tracing.py, made by OpenTelemetry. Imported only where they are asked for.

Where they are sent, and how, is what its own variables OTEL_* say:
https://opentelemetry.io/docs/specs/otel/configuration/sdk-environment-variables/
"""

from __future__ import annotations

from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import SERVICE_NAME, SERVICE_VERSION, Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter
from opentelemetry.trace import Span, StatusCode, set_span_in_context
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from relay import __version__
from relay.tracing import Value

TIMEOUT = 5.0
"""Seconds that one export may take, the last one too."""

_PREFIX = "deploy_relay."

_context = TraceContextTextMapPropagator()


class _Recorded:
    def __init__(self, span: Span) -> None:
        self._span = span
        carrier: dict[str, str] = {}
        _context.inject(carrier, set_span_in_context(span))
        self.trace = carrier.get("traceparent", "")

    def end(self, *, failed: bool = False, **attributes: Value | None) -> None:
        self._span.set_attributes(_named(attributes))
        if failed:
            self._span.set_status(StatusCode.ERROR)
        self._span.end()


class Recorder:
    """A tracer whose spans go to ``exporter``, in batches and from a thread of their own."""

    def __init__(self, process: str, exporter: SpanExporter) -> None:
        # OTEL_SERVICE_NAME and OTEL_RESOURCE_ATTRIBUTES are read by the SDK and come first.
        resource = Resource.create()
        if str(resource.attributes[SERVICE_NAME]).startswith("unknown_service"):
            resource = resource.merge(Resource({SERVICE_NAME: "deploy-relay"}))
        own = Resource({SERVICE_VERSION: __version__, f"{_PREFIX}process": process})
        resource = resource.merge(own)
        self._provider = TracerProvider(resource=resource, shutdown_on_exit=False)
        self._provider.add_span_processor(BatchSpanProcessor(exporter))
        self._tracer = self._provider.get_tracer("deploy-relay", __version__)

    def begin(self, name: str, parent: str, /, **attributes: Value | None) -> _Recorded:
        """A span; a traceparent that cannot be read begins a new trace."""
        context = _context.extract({"traceparent": parent} if parent else {})
        return _Recorded(
            self._tracer.start_span(name, context=context, attributes=_named(attributes))
        )

    def stop(self) -> None:
        """Export the last spans."""
        self._provider.shutdown()


def start(process: str) -> Recorder:
    """A tracer whose spans are sent by OTLP over HTTP."""
    return Recorder(process, OTLPSpanExporter(timeout=TIMEOUT))


def _named(attributes: dict[str, Value | None]) -> dict[str, Value]:
    return {f"{_PREFIX}{name}": value for name, value in attributes.items() if value is not None}
