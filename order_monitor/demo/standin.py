"""A stand-in for a provider: a real HTTP server that speaks znet's protocol and the client API,
and has their faults.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Final, Self, assert_never

from aiohttp import web

from order_monitor.core.answer import AboutOrder, Cancelled, Completed, Waiting

KOD = "demo-dealer"
SIFRE = "demo-password"
TOKEN = "demo-token"  # noqa: S105 - the stand-in's own

MOST: Final = 50
"""The most orders that one call of the client API may name."""

Behaviour = Callable[[web.Request], Awaitable[web.StreamResponse | None]]


@dataclass(slots=True)
class Script:
    """How one order proceeds at the provider: waiting until ``ends_at`` (epoch seconds), then
    always ``end``.

    Before that, each call uses up one of the ``hiccups``: ``refuse``, ``stall``, ``busy``,
    ``garble``, ``cut``.
    """

    end: AboutOrder
    ends_at: float = 0.0
    hiccups: list[str] = field(default_factory=list)

    def answer(self) -> AboutOrder:
        """Return what is to be said about the order now."""
        return self.end if time.time() >= self.ends_at else Waiting("İşlem bekleniyor")


def render(answer: AboutOrder) -> str:
    """Write an answer as znet would; its parser reads it back."""
    match answer:
        case Waiting(message=message):
            return f"OK|1| |{message}"
        case Completed(pin=pin, message=message):
            return f"OK|2|{pin.reveal() if pin else ' '}|{message}"
        case Cancelled(message=message):
            return f"OK|3| |{message}"
        case _:
            assert_never(answer)


class StandIn:
    """The provider's panel on a free loopback port, while the ``async with`` block runs."""

    def __init__(
        self,
        scripts: Mapping[str, Script],
        *,
        kod: str = KOD,
        sifre: str = SIFRE,
        token: str = TOKEN,
        stall: float = 3.0,
        behave: Behaviour | None = None,
    ) -> None:
        """Answer for the orders in ``scripts``, by referans or by order id.

        ``behave`` may answer first; ``stall`` is in seconds.
        """
        self.scripts = scripts
        self.calls: Counter[str] = Counter()
        """How often each order was asked about."""
        self.requests = 0
        """How many requests about orders came in; one may be about many."""
        self.outage_until = 0.0
        self._login = (kod, sifre)
        self._token = token
        self._stall = stall
        self.behave = behave
        application = web.Application()
        application.router.add_get("/servis/pin_kontrol.php", self._status)
        application.router.add_get("/servis/bakiye_kontrol.php", self._balance)
        application.router.add_get("/client/api/check", self._check)
        application.router.add_get("/client/api/profile", self._profile)
        self._runner = web.AppRunner(application, access_log=None, shutdown_timeout=0.5)

    @property
    def url(self) -> str:
        """The panel's URL."""
        host, port = self._runner.addresses[0][:2]
        return f"http://{host}:{port}"

    async def __aenter__(self) -> Self:
        """Start listening."""
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Stop listening."""
        await self._runner.cleanup()

    async def _balance(self, request: web.Request) -> web.StreamResponse:
        return _text("OK|1523.40|0") if self._knows(request) else _text("")

    async def _status(self, request: web.Request) -> web.StreamResponse:
        reference = request.query.get("tahsilat_api_islem_id", "")
        if (response := await self._first(request, [reference])) is not None:
            return response
        if not self._knows(request):
            return _text(
                "8|Bağlantı Hatası,Kullanıcı Api Yetki, Kısıtlı Ip yada Kullanıcı Bilgileri Hatalı"
            )
        script = self.scripts.get(reference)
        if script is None:
            return _text("3|Sipariş bulunamadı")
        if not script.hiccups:
            return _text(render(script.answer()))
        match hiccup := script.hiccups.pop(0):
            case "stall":
                await asyncio.sleep(self._stall)
                return _text(render(Waiting("İşlem bekleniyor")))
            case "garble":
                return _text("OK|2")
            case "busy" | "cut":
                return _broken(hiccup, request)
            case _:
                return _text("3|Sorgu limiti, daha sonra deneyiniz")

    async def _profile(self, request: web.Request) -> web.StreamResponse:
        return _json({"balance": "1523.40"}) if self._has_token(request) else _no_token()

    async def _check(self, request: web.Request) -> web.StreamResponse:
        names = _names(request.query.get("orders", ""))
        if (response := await self._first(request, names)) is not None:
            return response
        if not self._has_token(request):
            return _no_token()
        if len(names) > MOST:
            return web.Response(status=400, text="too many orders")
        entries = []
        for name in names:
            script = self.scripts.get(name)
            hiccup = script.hiccups.pop(0) if script is not None and script.hiccups else ""
            if hiccup == "stall":
                await asyncio.sleep(self._stall)
            if hiccup in ("busy", "cut"):
                return _broken(hiccup, request)
            # An order that it does not know, or does not report, is just not there.
            if script is not None and hiccup != "refuse":
                entries.append(_entry(name, script.answer(), is_odd=hiccup == "garble"))
        return _json({"status": "OK", "data": entries})

    async def _first(self, request: web.Request, names: list[str]) -> web.StreamResponse | None:
        """Count a call about these orders; return what is answered to anyone, else None."""
        self.requests += 1
        self.calls.update(names)
        if self.behave is not None and (response := await self.behave(request)) is not None:
            return response
        if time.time() < self.outage_until:
            return web.Response(status=503, headers={"Retry-After": "1"}, text="<html>Bakım</html>")
        return None

    def _knows(self, request: web.Request) -> bool:
        return (request.query.get("kod"), request.query.get("sifre")) == self._login

    def _has_token(self, request: web.Request) -> bool:
        return request.headers.get("api-token") == self._token


def _names(orders: str) -> list[str]:
    """Return the ids in ``["ID_1","ID_2"]``, or none where it is no such list."""
    try:
        found = json.loads(orders)
    except ValueError:
        return []
    return [name for name in found if isinstance(name, str)] if isinstance(found, list) else []


def _entry(name: str, answer: AboutOrder, *, is_odd: bool) -> dict[str, Any]:
    """Return what the client API says about one order, with a word that it does not have if
    ``is_odd``.
    """
    entry: dict[str, Any] = {"order_id": name, "quantity": 1, "price": "45.50", "replay_api": None}
    match answer:
        case Completed(pin, message):
            entry |= {"status": "accept", "note": message}
            if pin is not None:
                entry["pin"] = pin.reveal()
        case Cancelled(message):
            entry |= {"status": "reject", "note": message}
        case Waiting(message):
            entry |= {"status": "wait", "note": message}
    return entry | ({"status": "teleported"} if is_odd else {})


def _broken(hiccup: str, request: web.Request) -> web.Response:
    """Return an overloaded server's answer; with ``cut`` it is not received."""
    if hiccup == "cut" and request.transport is not None:
        request.transport.close()
    return web.Response(status=503, text="")


def _no_token() -> web.Response:
    return _json({"status": "ERROR", "code": 120, "message": "Api Token is required!"})


def _json(document: object) -> web.Response:
    return web.json_response(document, dumps=lambda it: json.dumps(it, ensure_ascii=False))


def _text(body: str) -> web.Response:
    return web.Response(body=body.encode(), content_type="text/html", charset="utf-8")
