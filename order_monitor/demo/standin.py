"""A stand-in for znet: a real HTTP server that speaks its protocol, and misbehaves as it does."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self

from aiohttp import web

from order_monitor.core.answer import AboutOrder, Waiting
from order_monitor.providers.znet_parser import render

KOD = "demo-dealer"
SIFRE = "demo-password"

Behaviour = Callable[[web.Request], Awaitable[web.StreamResponse | None]]


@dataclass(slots=True)
class Script:
    """How one order goes at the provider: waiting until ``ends_at`` (epoch seconds), then ``end`` for ever.

    ``hiccups`` are spent one a call before that: ``refuse``, ``stall``, ``busy``, ``garble``, ``cut``.
    """

    end: AboutOrder
    ends_at: float = 0.0
    hiccups: list[str] = field(default_factory=list)


class StandIn:
    """The provider's panel, on a free port of loopback, while the ``async with`` block runs."""

    def __init__(
        self,
        scripts: Mapping[str, Script],
        *,
        kod: str = KOD,
        sifre: str = SIFRE,
        stall: float = 3.0,
        behave: Behaviour | None = None,
    ) -> None:
        """Answer for the orders in ``scripts``, by referans. ``behave`` may answer first; ``stall`` is in seconds."""
        self.scripts = scripts
        self.calls: Counter[str] = Counter()
        self.outage_until = 0.0
        self._login = (kod, sifre)
        self._stall = stall
        self.behave = behave
        application = web.Application()
        application.router.add_get("/servis/pin_kontrol.php", self._status)
        application.router.add_get("/servis/bakiye_kontrol.php", self._balance)
        self._runner = web.AppRunner(application, access_log=None, shutdown_timeout=0.5)

    @property
    def url(self) -> str:
        """The panel's address."""
        host, port = self._runner.addresses[0][:2]
        return f"http://{host}:{port}"

    async def __aenter__(self) -> Self:
        """Start to listen."""
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop listening."""
        await self._runner.cleanup()

    async def _balance(self, request: web.Request) -> web.StreamResponse:
        return _text("OK|1523.40|0") if self._knows(request) else _text("")

    async def _status(self, request: web.Request) -> web.StreamResponse:
        referans = request.query.get("tahsilat_api_islem_id", "")
        self.calls[referans] += 1
        if self.behave is not None and (response := await self.behave(request)) is not None:
            return response
        if time.time() < self.outage_until:
            return web.Response(status=503, headers={"Retry-After": "1"}, text="<html>Bakım</html>")
        if not self._knows(request):
            return _text("8|Bağlantı Hatası,Kullanıcı Api Yetki, Kısıtlı Ip yada Kullanıcı Bilgileri Hatalı")
        script = self.scripts.get(referans)
        if script is None:
            return _text("3|Sipariş bulunamadı")
        if script.hiccups:
            return await self._hiccup(script.hiccups.pop(0), request)
        return _text(render(script.end if time.time() >= script.ends_at else Waiting("İşlem bekleniyor")))

    def _knows(self, request: web.Request) -> bool:
        return (request.query.get("kod"), request.query.get("sifre")) == self._login

    async def _hiccup(self, kind: str, request: web.Request) -> web.StreamResponse:
        match kind:
            case "stall":
                await asyncio.sleep(self._stall)
                return _text(render(Waiting("İşlem bekleniyor")))
            case "busy":
                return web.Response(status=503, text="")
            case "garble":
                return _text("OK|2")
            case "cut":
                if request.transport is not None:
                    request.transport.close()
                return _text("")
            case _:
                return _text("3|Sorgu limiti, daha sonra deneyiniz")


def _text(body: str) -> web.Response:
    return web.Response(body=body.encode(), content_type="text/html", charset="utf-8")
