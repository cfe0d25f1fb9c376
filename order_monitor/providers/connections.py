"""The connections under httpx: one small pool each, handed out like tickets, instead of one pool for all.

httpx's own pool walks every connection on every request, so it gets slower the more there are; and a request cancelled
while it waits for a place leaks that place (httpcore 1.0). With one connection a transport nothing is walked, nobody waits inside,
and a cancelled exchange takes its own connection with it. The aiohttp engine under httpx is faster still, but it re-sends a GET by
itself after a disconnect and reports every kind of failure as a connect timeout.
"""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator, Callable
from typing import Final

import httpcore
import httpx

from order_monitor.providers.guard import ForbiddenAddressError

KEEPALIVE_EXPIRY: Final = 4.0
"""Seconds an unused connection is kept: below the five after which common servers close theirs."""

_CLOSED_BY_SERVER: Final = (httpx.RemoteProtocolError, httpx.ReadError, httpx.WriteError)


class ForbiddenHostError(httpx.TransportError):
    """The host leads to an address that may not be called."""


class StaleConnectionError(httpx.TransportError):
    """A kept connection turned out closed before any answer came: the request may be made once more."""


class _Stream(httpx.AsyncByteStream):
    """A response's body, which gives its connection back when closed."""

    def __init__(self, inner: httpx.AsyncByteStream, give_back: Callable[[], None]) -> None:
        self._inner = inner
        self._give_back = give_back

    async def __aiter__(self) -> AsyncIterator[bytes]:
        async for chunk in self._inner:
            yield chunk

    async def aclose(self) -> None:
        await self._inner.aclose()
        self._give_back()


class SingleConnections(httpx.AsyncBaseTransport):
    """As many one-connection transports as requests were ever under way at once; the last one used goes out first."""

    def __init__(self, verify: ssl.SSLContext, backend: httpcore.AsyncNetworkBackend | None = None) -> None:
        """Verify servers by ``verify``, which is shared because making one costs more than a request.

        Connect through ``backend`` where given.
        """
        self._verify = verify
        self._backend = backend
        self._free: list[httpx.AsyncHTTPTransport] = []

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Send ``request`` and return the response with its body unread.

        Raises:
            StaleConnectionError: a kept connection was closed by the server before it answered.
            httpx.TransportError: the exchange failed otherwise.
        """
        reused = bool(self._free)
        transport = self._free.pop() if reused else self._open()
        try:
            response = await transport.handle_async_request(request)
        except BaseException as error:
            await transport.aclose()
            if isinstance(error.__cause__, ForbiddenAddressError):
                raise ForbiddenHostError("not a public address") from None
            if reused and isinstance(error, _CLOSED_BY_SERVER):
                raise StaleConnectionError(type(error).__name__) from None
            raise
        assert isinstance(response.stream, httpx.AsyncByteStream)  # noqa: S101 - AsyncHTTPTransport promises it
        response.stream = _Stream(response.stream, lambda: self._free.append(transport))
        return response

    def _open(self) -> httpx.AsyncHTTPTransport:
        limits = httpx.Limits(max_connections=1, max_keepalive_connections=1, keepalive_expiry=KEEPALIVE_EXPIRY)
        transport = httpx.AsyncHTTPTransport(verify=self._verify, limits=limits, trust_env=False)
        if self._backend is not None:
            # httpx offers no way to hand one over.
            transport._pool._network_backend = self._backend  # noqa: SLF001
        return transport

    async def aclose(self) -> None:
        """Close every connection that is not in use."""
        while self._free:
            await self._free.pop().aclose()
