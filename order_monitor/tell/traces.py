"""OpenTelemetry (extra ``otel``): a span for each question and each batch written, made after the fact.

Where it goes is said by OpenTelemetry's own environment variables. A span holds the order's id, the account and the outcome:
no address, no PIN, no message.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from http.cookiejar import DefaultCookiePolicy
from typing import TYPE_CHECKING, Final

import structlog

from order_monitor import __version__
from order_monitor.core.answer import AccountFailure, Answer
from order_monitor.core.clock import Clock
from order_monitor.core.order import Order
from order_monitor.core.recording import Result
from order_monitor.watch.observer import Observer

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import SpanExporter

_WANTED: Final = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")
_SECRET: Final = (*_WANTED, "OTEL_EXPORTER_OTLP_HEADERS", "OTEL_EXPORTER_OTLP_TRACES_HEADERS")
_NANO: Final = 1_000_000_000


class Traces(Observer):
    """Makes the spans."""

    def __init__(self, exporter: SpanExporter, clock: Clock) -> None:
        """Give finished spans to ``exporter``, from a thread of its own."""
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor

        self._clock = clock
        resource = Resource.create({"service.name": "order-monitor", "service.version": __version__})
        self._provider: TracerProvider = TracerProvider(resource=resource)
        self._provider.add_span_processor(BatchSpanProcessor(exporter))
        self._tracer = self._provider.get_tracer("order_monitor", __version__)

    def checked(self, account: str, order: Order, answer: Answer, seconds: float) -> None:
        """Make the span of a question."""
        attributes = {"order.id": order.id, "account": account, "outcome": answer.outcome}
        if isinstance(answer, AccountFailure):
            attributes["error.type"] = answer.why
        self._span("order.check", attributes, seconds)

    def wrote(self, count: int, seconds: float) -> None:
        """Make the span of a batch."""
        self._span("orders.write", {"count": count}, seconds)

    def settled(self, account: str, result: Result, delay: float) -> None:
        """Nothing: its batch has a span."""

    def scanned(self, seconds: float) -> None:
        """Make the span of a scan."""
        self._span("orders.scan", {}, seconds)

    def _span(self, name: str, attributes: Mapping[str, str | int], seconds: float) -> None:
        end = int(self._clock.time() * _NANO)
        span = self._tracer.start_span(name, start_time=end - int(seconds * _NANO), attributes=attributes)
        span.end(end)

    def close(self) -> None:
        """Give out what is left."""
        self._provider.shutdown()


def traces_of(clock: Clock, environ: Mapping[str, str] | None = None) -> Traces | None:
    """Return the tracing that the environment asks for; None where it asks for none, or the extra is not installed."""
    environ = os.environ if environ is None else environ
    if not any(environ.get(name) for name in _WANTED):
        return None
    try:
        import requests
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    except ImportError:
        structlog.get_logger("order_monitor.traces").warning("tracing.missing", do="pip install 'order-monitor[otel]'")
        return None
    session = requests.Session()
    # What a collector, or a login page in its place, wants remembered is not sent back.
    session.cookies.set_policy(DefaultCookiePolicy(allowed_domains=[]))
    return Traces(OTLPSpanExporter(session=session), clock)


def secrets_in(environ: Mapping[str, str]) -> list[str]:
    """Return what of OpenTelemetry's variables must not be logged: an endpoint may hold a password, its headers a token."""
    return [value for name in _SECRET if (value := environ.get(name))]
