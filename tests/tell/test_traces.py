"""OpenTelemetry: a span for each question and each batch, and nothing in it that must not be told."""

import asyncio
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from order_monitor.core.answer import Completed, Unreachable
from order_monitor.core.order import Order
from order_monitor.core.pin import Pin
from order_monitor.tell.traces import Traces, secrets_in, traces_of
from tests.support.clocks import ManualClock
from tests.support.processes import Panel, panel, running, sent, settings
from tests.support.servers import RawServer, answer
from tests.support.shops import NOW, Shop

pytestmark = pytest.mark.outside

__all__ = ["panel"]


def test_a_span_says_which_order_and_how_it_went() -> None:
    exporter = InMemorySpanExporter()
    traces = Traces(exporter, ManualClock())
    order = Order("an-order", "sent", NOW, "1760885915220128")
    traces.checked("default", order, Completed(Pin("PIN-CANARY"), "PIN-CANARY"), 0.25)
    traces.checked("default", order, Unreachable("timeout"), 20)
    traces.wrote(7, 0.5)
    traces.scanned(0.125)
    traces.close()
    spans = exporter.get_finished_spans()
    assert [(s.name, dict(s.attributes or {})) for s in spans] == [
        ("order.check", {"order.id": "an-order", "account": "default", "outcome": "completed"}),
        (
            "order.check",
            {
                "order.id": "an-order",
                "account": "default",
                "outcome": "unreachable",
                "error.type": "timeout",
            },
        ),
        ("orders.write", {"count": 7}),
        ("orders.scan", {}),
    ]
    seconds = [(s.end_time or 0) - (s.start_time or 0) for s in spans]
    assert seconds == [250_000_000, 20_000_000_000, 500_000_000, 125_000_000]
    assert spans[0].end_time == int(NOW * 1e9)
    assert "CANARY" not in "".join(s.to_json() for s in spans)
    assert "1760885915220128" not in "".join(s.to_json() for s in spans)


def test_nobody_asked_for_it() -> None:
    assert traces_of(ManualClock(), {}) is None


def test_without_the_extra_it_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "opentelemetry.exporter.otlp.proto.http.trace_exporter", None)
    assert traces_of(ManualClock(), {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1"}) is None


def test_what_must_not_be_logged() -> None:
    environ = {"OTEL_EXPORTER_OTLP_HEADERS": "authorization=secret", "OTEL_SERVICE_NAME": "x"}
    assert secrets_in(environ) == ["authorization=secret"]


async def test_no_cookie_of_a_collector_is_sent_back(monkeypatch: pytest.MonkeyPatch) -> None:
    async def collector(
        head: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        writer.write(
            answer(b"", headers="Set-Cookie: session=abc; Path=/\r\nConnection: close\r\n")
        )
        writer.close()

    async with RawServer(collector) as server:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://127.0.0.1:{server.port}")
        monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "10")
        traces = traces_of(ManualClock())
        assert traces is not None
        for n in range(2):
            traces.scanned(0.0)
            while len(server.requests) <= n:
                await asyncio.sleep(0.005)
        await asyncio.to_thread(traces.close)
    assert len(server.requests) == 2
    assert not any(b"cookie" in request.lower() for request in server.requests)


async def test_the_daemon_sends_them_to_a_collector(
    plain_shop: Shop, panel: Panel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    got: list[bytes] = []

    async def take(request: web.Request) -> web.Response:
        got.append(await request.read())
        return web.Response()

    application = web.Application()
    application.router.add_post("/v1/traces", take)
    runner: Any = web.AppRunner(application, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    endpoint = f"http://127.0.0.1:{runner.addresses[0][1]}"
    ids = await sent(plain_shop, 3)
    try:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint)
        async with running(tmp_path, settings(plain_shop.dsn, panel.server.url)) as run:
            while {(await plain_shop.row(i))["external_status"] for i in ids} != {"completed"}:
                await asyncio.sleep(0.02)
            run.process.terminate()
            assert await run.end() == 0
        body = b"".join(got)
        assert all(i.encode() in body for i in ids)
        assert b"order.check" in body
        assert b"orders.write" in body
        assert b"CANARY" not in body
        assert b"pin_kontrol" not in body
    finally:
        await runner.cleanup()


@pytest.mark.long
async def test_a_collector_that_is_away_holds_up_nothing(
    plain_shop: Shop, panel: Panel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ids = await sent(plain_shop, 2)
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://user:TOKEN-CANARY@127.0.0.1:1")
    async with running(tmp_path, settings(plain_shop.dsn, panel.server.url)) as run:
        while {(await plain_shop.row(i))["external_status"] for i in ids} != {"completed"}:
            await asyncio.sleep(0.02)
        run.process.terminate()
        async with asyncio.timeout(15):
            assert await run.end() == 0
    assert b"TOKEN-CANARY" not in run.err
