"""The health endpoint: answers allowed clients from memory, and changes nothing."""

from __future__ import annotations

import asyncio
import base64
import hmac
import os
import re
import socket
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Final, Protocol
from urllib.parse import urlsplit

import structlog
from aiohttp import web

from order_monitor import __version__
from order_monitor.core.clock import Clock
from order_monitor.core.errors import SettingsError
from order_monitor.core.text import visible
from order_monitor.tell.connection_limiter import IDLE_TIMEOUT, ConnectionLimiter, room_for
from order_monitor.tell.listening import trouble_of
from order_monitor.tell.readiness import Readiness

SHUTDOWN_TIMEOUT: Final = 2.0
_TRY_AGAIN: Final = 5.0
_SAID_EVERY: Final = 300.0
"""Seconds between two log lines about a port that is taken."""

_LINGERING: Final = 2.0
_AT_A_TURN: Final = 16
_QUEUE: Final = 128
_LONGEST_LINE: Final = 8190
_MOST_HEADERS: Final = 64
_HOST: Final = re.compile(
    r"(?:\[(?P<v6>[0-9A-Fa-f:.]+)\]|(?P<name>[A-Za-z0-9._~-]*))(?::(?P<port>[0-9]{1,5}))?", re.ASCII
)
_LAST_PORT: Final = 65_535
_ALWAYS_OPEN: Final = ("/livez", "/readyz")
_HEADERS: Final = {
    "Cache-Control": "no-store",
    "X-Content-Type-Options": "nosniff",
    "Server": "order-monitor",
}

_CHALLENGE: Final = 'Bearer, Basic realm="order-monitor", charset="UTF-8"'

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@dataclass(frozen=True, slots=True)
class Access:
    """Where to listen and which clients to answer.

    ``hosts`` are host names accepted in addition to loopback and the bound address.
    """

    host: str = "127.0.0.1"
    port: int = 8080
    token: str | None = None
    hosts: tuple[str, ...] = ()


class Site(Protocol):
    """More routes to serve, behind the same guard."""

    def routes(self) -> Mapping[str, Handler]:
        """Return the handler of each path."""

    def close(self) -> None:
        """End responses that would never end."""


class HealthServer:
    """Serves ``/livez``, ``/readyz``, ``/healthz`` and the routes of a site."""

    def __init__(
        self,
        probe: Readiness,
        access: Access,
        site: Site | None = None,
        *,
        files: int | None = None,
        door: ConnectionLimiter | None = None,
    ) -> None:
        """Serve what ``probe`` and ``site`` report to the clients that ``access`` allows, using
        only a small part of the process's ``files``; ``door`` limits the connections otherwise.
        """
        self._probe = probe
        self._access = access
        self._site = site
        self._names = {name.lower() for name in (access.host, *access.hosts)}
        self._files = files
        self._door = door or ConnectionLimiter(room_for(files))
        self._listener: asyncio.Server | None = None
        self._trying: asyncio.Task[None] | None = None
        self._runner = web.AppRunner(
            self._application(),
            access_log=None,
            shutdown_timeout=SHUTDOWN_TIMEOUT,
            keepalive_timeout=IDLE_TIMEOUT,
            lingering_time=_LINGERING,
            max_line_size=_LONGEST_LINE,
            max_field_size=_LONGEST_LINE,
            max_headers=_MOST_HEADERS,
        )
        self._log = structlog.get_logger("order_monitor.health")

    async def start(self, *, retrying: Clock | None = None) -> None:
        """Start to listen; with ``retrying``, if the port is not free, log that, and retry by this
        clock until it is.

        Raises:
            SettingsError: the address is in use and not retried, or not one of this machine's.
        """
        try:
            await self._listen()
        except (OSError, ValueError, OverflowError) as error:
            if retrying is not None and isinstance(error, OSError):
                self._trying = asyncio.create_task(self._try_again(retrying, error), name="health")
                return
            await self._runner.cleanup()
            raise SettingsError([self._trouble(error)]) from None

    async def _try_again(self, clock: Clock, error: OSError) -> None:
        said_at = float("-inf")
        while self._listener is None:
            if clock.monotonic() - said_at >= _SAID_EVERY:
                said_at = clock.monotonic()
                self._log.warning("health.waiting", why=self._trouble(error))
            await clock.sleep(_TRY_AGAIN)
            try:
                await self._listen()
            except OSError as again:
                error = again

    def _trouble(self, error: Exception) -> str:
        return str(trouble_of(self._access.host, self._access.port, error))

    async def _listen(self) -> None:
        if self._runner.server is None:
            await self._runner.setup()
        server = self._runner.server
        assert server is not None, "setup() made it"
        self._listener = await asyncio.get_running_loop().create_server(
            self._door.before(server), self._access.host, self._access.port, backlog=_AT_A_TURN
        )
        for listening in self._listener.sockets:
            # asyncio accepts up to its backlog of connections at once, each of which uses a file
            # descriptor. The kernel's queue may be longer.
            with socket.socket(fileno=os.dup(listening.fileno())) as twin:
                twin.listen(_QUEUE)
        host, port = self.bound()
        self._log.info(
            "health.listening", host=host, port=port, connections=self._door.most, files=self._files
        )

    def bound(self) -> tuple[str, int]:
        """Return the address of the listening socket."""
        assert self._listener is not None, "start() comes first"
        host, port = self._listener.sockets[0].getsockname()[:2]
        return str(host), int(port)

    async def stop(self) -> None:
        """Stop listening. Streams are ended first, because they would outlast any timeout."""
        if self._trying is not None:
            self._trying.cancel()
        if self._site is not None:
            self._site.close()
        if self._listener is not None:
            self._listener.close()
        await self._runner.cleanup()
        self._door.close()

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
        """Reject foreign host names (a web page can point its own name at loopback), and clients
        without the token if one is set.
        """
        with self._door.answering(request.transport):
            return await self._answer(request, handler)

    async def _answer(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        if not self._is_our_name(request):
            raise web.HTTPForbidden(text="unknown host; see health.hosts\n")
        if request.path not in _ALWAYS_OPEN and not self._is_allowed(request):
            # A browser can ask its user for a password, but not for a bearer token: so the token is
            # accepted as the password, with any user name.
            wanted = _CHALLENGE if request.path == "/" else "Bearer"
            raise web.HTTPUnauthorized(
                headers={"WWW-Authenticate": wanted}, text="a bearer token is needed\n"
            )
        return await handler(request)

    def _is_our_name(self, request: web.Request) -> bool:
        given = request.headers.getall("Host", [""])
        name = _host_name(given[0]) if len(given) == 1 else None
        if not request.raw_path.startswith(("/", "*")):
            # An absolute request target contains a host, which takes precedence over the header
            # (RFC 9112, 3.2.2).
            name = _host_name(urlsplit(request.raw_path).netloc)
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
    return web.Response(
        text="\n".join(map(visible, reasons or ["ok"])) + "\n", status=503 if reasons else 200
    )


def _token_in(header: str) -> bytes:
    """Return the token in an ``Authorization`` header: a bearer token, or the password of basic
    authentication.
    """
    scheme, _, given = header.partition(" ")
    if scheme.lower() == "bearer":
        return given.encode("utf-8", "surrogateescape")
    if scheme.lower() == "basic":
        with suppress(ValueError):
            return base64.b64decode(given, validate=True).partition(b":")[2]
    return b""


def _host_name(header: str) -> str | None:
    """Return the name in a Host header (RFC 9110, 7.2: a host and an optional port).

    None if it is malformed.
    """
    found = _HOST.fullmatch(header)
    if found is None or int(found["port"] or 0) > _LAST_PORT:
        return None
    return (found["v6"] or found["name"]).lower()
