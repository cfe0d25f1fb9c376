"""OpenTelemetry (extra ``otel``): a span for each check and each written batch, created afterwards.

OpenTelemetry's own environment variables set where spans are sent. A span contains the order's id,
the account and the outcome: no address, no PIN, no message.
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
from order_monitor.watch.observer import Observer

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import SpanExporter

_WANTED: Final = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")
_SECRET: Final = (*_WANTED, "OTEL_EXPORTER_OTLP_HEADERS", "OTEL_EXPORTER_OTLP_TRACES_HEADERS")
_NANO: Final = 1_000_000_000


class Traces(Observer):
    """Creates the spans."""

    def __init__(self, exporter: SpanExporter, clock: Clock) -> None:
        """Pass finished spans to ``exporter``, from a separate thread."""
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor

        self._clock = clock
        resource = Resource.create(
            {"service.name": "order-monitor", "service.version": __version__}
        )
        self._provider: TracerProvider = TracerProvider(resource=resource)
        self._provider.add_span_processor(BatchSpanProcessor(exporter))
        self._tracer = self._provider.get_tracer("order_monitor", __version__)

    def checked(self, account: str, order: Order, answer: Answer, seconds: float) -> None:
        """Create the span of a check."""
        attributes = {"order.id": order.id, "account": account, "outcome": answer.outcome}
        if isinstance(answer, AccountFailure):
            attributes["error.type"] = answer.why
        self._span("order.check", attributes, seconds)

    def wrote(self, count: int, seconds: float) -> None:
        """Create the span of a batch."""
        self._span("orders.write", {"count": count}, seconds)

    def scanned(self, seconds: float) -> None:
        """Create the span of a scan."""
        self._span("orders.scan", {}, seconds)

    def _span(self, name: str, attributes: Mapping[str, str | int], seconds: float) -> None:
        end = int(self._clock.time() * _NANO)
        span = self._tracer.start_span(
            name, start_time=end - int(seconds * _NANO), attributes=attributes
        )
        span.end(end)

    def close(self) -> None:
        """Flush the remaining spans."""
        self._provider.shutdown()


def traces_of(clock: Clock, environ: Mapping[str, str] | None = None) -> Traces | None:
    """Return the tracing that the environment configures.

    None if it configures none, or the extra is not installed.
    """
    environ = os.environ if environ is None else environ
    if not any(environ.get(name) for name in _WANTED):
        return None
    try:
        import requests
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    except ImportError:
        structlog.get_logger("order_monitor.traces").warning(
            "tracing.missing", do="pip install 'order-monitor[otel]'"
        )
        return None
    session = requests.Session()
    # Cookies set by a collector, or by a login page in its place, are not sent back.
    session.cookies.set_policy(DefaultCookiePolicy(allowed_domains=[]))
    return Traces(OTLPSpanExporter(session=session), clock)


def secrets_in(environ: Mapping[str, str]) -> list[str]:
    """Return the values of OpenTelemetry's variables that must not be logged: an endpoint may
    contain a password, its headers a token.
    """
    return [value for name in _SECRET if (value := environ.get(name))]
