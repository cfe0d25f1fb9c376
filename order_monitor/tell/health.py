"""The health endpoint: answers from memory, to those allowed to ask, and changes nothing."""

from __future__ import annotations

import base64
import hmac
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Final, Protocol

import structlog
from aiohttp import web

from order_monitor import __version__
from order_monitor.errors import SettingsError
from order_monitor.tell.probe import Probe

_SHUTDOWN_TIMEOUT: Final = 2.0
_ALWAYS_OPEN: Final = ("/livez", "/readyz")
_HEADERS: Final = {"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff", "Server": "order-monitor"}

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@dataclass(frozen=True, slots=True)
class Access:
    """Where to listen and whom to answer. ``hosts`` are names answered to beside loopback and the bound address."""

    host: str = "127.0.0.1"
    port: int = 8080
    token: str | None = None
    hosts: tuple[str, ...] = ()


class Site(Protocol):
    """More to serve, behind the same guard."""

    def routes(self) -> Mapping[str, Handler]:
        """Return what to answer at which path."""

    def close(self) -> None:
        """End answers that would go on for ever."""


class HealthServer:
    """Serves ``/livez``, ``/readyz``, ``/healthz`` and what a site adds to them."""

    def __init__(self, probe: Probe, access: Access, site: Site | None = None) -> None:
        """Serve what ``probe`` and ``site`` say to those whom ``access`` lets in."""
        self._probe = probe
        self._access = access
        self._site = site
        self._names = {name.lower() for name in (access.host, *access.hosts)}
        self._runner = web.AppRunner(self._application(), access_log=None, shutdown_timeout=_SHUTDOWN_TIMEOUT)
        self._log = structlog.get_logger("order_monitor.health")

    async def start(self) -> None:
        """Listen.

        Raises:
            SettingsError: the address is taken, or not this machine's.
        """
        await self._runner.setup()
        site = web.TCPSite(self._runner, self._access.host, self._access.port)
        try:
            await site.start()
        except (OSError, ValueError):
            await self._runner.cleanup()
            where = f"{self._access.host}:{self._access.port}"
            problem = f"health.port: cannot listen on {where}; choose a free port (0 = any), or health.enabled = false"
            raise SettingsError([problem]) from None
        host, port = self.bound()
        self._log.info("health.listening", host=host, port=port)

    def bound(self) -> tuple[str, int]:
        """Return the address listened on."""
        host, port = self._runner.addresses[0][:2]
        return str(host), int(port)

    async def stop(self) -> None:
        """Stop listening; streams are ended first, for they would outlast any patience."""
        if self._site is not None:
            self._site.close()
        await self._runner.cleanup()

    def _application(self) -> web.Application:
        application = web.Application(middlewares=[self._guard])
        application.on_response_prepare.append(_add_headers)
        application.router.add_get("/livez", self._livez)
        application.router.add_get("/readyz", self._readyz)
        application.router.add_get("/healthz", self._healthz)
        for path, handler in self._site.routes().items() if self._site is not None else ():
            application.router.add_get(path, handler, allow_head=False)
        return application

    @web.middleware
    async def _guard(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Answer no foreign name (a web page can point its own at loopback), and no stranger where a token is set."""
        if not self._is_our_name(request):
            raise web.HTTPForbidden(text="unknown host; see health.hosts\n")
        if request.path not in _ALWAYS_OPEN and not self._is_allowed(request):
            # A browser can ask its user for a password, and not for a bearer token: the token is the password, for any name.
            wanted = 'Bearer, Basic realm="order-monitor", charset="UTF-8"' if request.path == "/" else "Bearer"
            raise web.HTTPUnauthorized(headers={"WWW-Authenticate": wanted}, text="a bearer token is needed\n")
        return await handler(request)

    def _is_our_name(self, request: web.Request) -> bool:
        name = _host_name(request.headers.get("Host", ""))
        socket_name = request.transport.get_extra_info("sockname") if request.transport else None
        bound = str(socket_name[0]) if socket_name else ""
        return name in {"localhost", "127.0.0.1", "::1", bound, *self._names}

    def _is_allowed(self, request: web.Request) -> bool:
        token = self._access.token
        given = _token_in(request.headers.get("Authorization", ""))
        return token is None or hmac.compare_digest(given, token.encode())

    async def _livez(self, _: web.Request) -> web.Response:
        return _plain(["the loop does not tick"] if not self._probe.is_live() else [])

    async def _readyz(self, _: web.Request) -> web.Response:
        return _plain(self._probe.reasons())

    async def _healthz(self, _: web.Request) -> web.Response:
        live, reasons = self._probe.is_live(), self._probe.reasons()
        body = {"version": __version__, "live": live, "ready": not reasons, "reasons": reasons}
        return web.json_response(body, status=200 if live and not reasons else 503)


async def _add_headers(_: web.Request, response: web.StreamResponse) -> None:
    response.headers.update(_HEADERS)


def _plain(reasons: list[str]) -> web.Response:
    return web.Response(text="\n".join(reasons or ["ok"]) + "\n", status=503 if reasons else 200)


def _token_in(header: str) -> bytes:
    """Return the token of an ``Authorization`` header: a bearer's, or the password of basic authentication."""
    scheme, _, given = header.partition(" ")
    if scheme.lower() == "bearer":
        return given.encode("utf-8", "surrogateescape")
    try:
        return base64.b64decode(given, validate=True).partition(b":")[2] if scheme.lower() == "basic" else b""
    except ValueError:
        return b""


def _host_name(header: str) -> str:
    """Return the name in a Host header, without its port and an IPv6 address's brackets."""
    if header.startswith("["):
        return header[1:].partition("]")[0].lower()
    return header.rpartition(":")[0].lower() if ":" in header else header.lower()
