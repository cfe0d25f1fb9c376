"""The health endpoint: answers from memory, to those allowed to ask, and changes nothing."""

from __future__ import annotations

import hmac
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final

import structlog
from aiohttp import web

from order_monitor import __version__
from order_monitor.clock import Clock
from order_monitor.engine import TICK, Engine
from order_monitor.errors import SettingsError

_SILENT_TICKS: Final = 12
_SCANS_ALLOWED: Final = 3
_SCAN_MARGIN: Final = 30.0
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


class Probe:
    """Says from memory whether the program lives and is of use."""

    def __init__(self, engine: Engine, clock: Clock, scan_interval: float) -> None:
        """Judge ``engine``, which scans every ``scan_interval`` seconds."""
        self._engine = engine
        self._clock = clock
        self._interval = scan_interval

    def is_live(self) -> bool:
        """Whether the loop ticked lately."""
        ticked = self._engine.state.ticked_at
        return ticked is not None and self._clock.monotonic() - ticked < TICK * _SILENT_TICKS

    def reasons(self) -> list[str]:
        """Return why the program is of no use just now; nothing where it is."""
        state = self._engine.state
        reasons = []
        limit = self._interval * _SCANS_ALLOWED + _SCAN_MARGIN
        if state.scanned_at is None:
            reasons.append(f"no scan yet: {state.scan_problem}" if state.scan_problem else "no scan yet")
        elif self._clock.monotonic() - state.scanned_at > limit:
            reasons.append(f"no scan for {limit:g} s: {state.scan_problem or 'still running'}")
        accounts = self._engine.accounts.values()
        if state.scanned_at is not None and not accounts:
            reasons.append("there is no account to ask")
        if not any(account.gate.is_open for account in accounts):
            reasons += [f"account {account.name} is closed: {account.gate.reason}" for account in accounts]
        return reasons


class HealthServer:
    """Serves ``/livez``, ``/readyz`` and ``/healthz``."""

    def __init__(self, probe: Probe, access: Access) -> None:
        """Serve what ``probe`` says to those whom ``access`` lets in."""
        self._probe = probe
        self._access = access
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
        """Stop listening."""
        await self._runner.cleanup()

    def _application(self) -> web.Application:
        application = web.Application(middlewares=[self._guard])
        application.on_response_prepare.append(_add_headers)
        application.router.add_get("/livez", self._livez)
        application.router.add_get("/readyz", self._readyz)
        application.router.add_get("/healthz", self._healthz)
        return application

    @web.middleware
    async def _guard(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Answer no foreign name (a web page can point its own at loopback), and no stranger where a token is set."""
        if not self._is_our_name(request):
            raise web.HTTPForbidden(text="unknown host; see health.hosts\n")
        if request.path not in _ALWAYS_OPEN and not self._is_allowed(request):
            raise web.HTTPUnauthorized(headers={"WWW-Authenticate": "Bearer"}, text="a bearer token is needed\n")
        return await handler(request)

    def _is_our_name(self, request: web.Request) -> bool:
        name = _host_name(request.headers.get("Host", ""))
        socket_name = request.transport.get_extra_info("sockname") if request.transport else None
        bound = str(socket_name[0]) if socket_name else ""
        return name in {"localhost", "127.0.0.1", "::1", bound, *self._names}

    def _is_allowed(self, request: web.Request) -> bool:
        token = self._access.token
        scheme, _, given = request.headers.get("Authorization", "").partition(" ")
        is_it = hmac.compare_digest(given.encode("utf-8", "surrogateescape"), (token or "").encode())
        return token is None or (scheme.lower() == "bearer" and is_it)

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


def _host_name(header: str) -> str:
    """Return the name in a Host header, without its port and an IPv6 address's brackets."""
    if header.startswith("["):
        return header[1:].partition("]")[0].lower()
    return header.rpartition(":")[0].lower() if ":" in header else header.lower()
