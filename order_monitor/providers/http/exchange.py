"""HTTP calls of one account, for any provider: limited in time and size, with every failure turned
into an answer.

A question goes straight to the transport. What httpx's client does in between (cookies, redirects,
logins, hooks) must not happen here, and took a fifth of a question's CPU; httpx's requests and
responses took a quarter. Any transport of httpx can be injected.

httpx's own messages contain URLs, and a URL may contain a password, so a failure becomes an answer
with a reason from a closed set.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Final, NamedTuple, TypeVar
from urllib.parse import quote, quote_plus

import httpx

from order_monitor.core.answer import Answer, Blocked, Unreachable
from order_monitor.providers.http.address_guard import ForbiddenHostError
from order_monitor.providers.http.body import is_page
from order_monitor.providers.http.failures import PROXY_REFUSED, NamedFailureError, ProxyFailedError
from order_monitor.providers.http.transport import (
    CERTIFICATE_WORDS,
    CertificateRefusedError,
    Fetched,
    FreshConnections,
    Page,
    TlsFailedError,
)
from order_monitor.providers.provider import Reply

_SHORTEST_SECRET: Final = 3
_RETRIED: Final = (httpx.ConnectError, httpx.ConnectTimeout)
"""Errors that are retried once at once, except a `NamedFailureError`, which does not pass within a
moment.
"""

FAILURES: Final = (httpx.HTTPError, httpx.InvalidURL, httpx.StreamError, OSError, ValueError)
"""What a call may raise."""


_Found = TypeVar("_Found")


class Response(NamedTuple):
    """A complete HTTP response. Header names are lower-case; the body is undecoded."""

    status: int
    headers: Mapping[str, str]
    body: bytes


@dataclass(frozen=True, slots=True)
class CallLimits:
    """Limits of one call.

    Times are seconds; ``timeout`` limits the whole call, however slowly the answer arrives.
    """

    connect_timeout: float = 5.0
    timeout: float = 20.0
    max_body: int = 65_536
    user_agent: str = "order-monitor"


class Exchange:
    """Sends one account's calls."""

    def __init__(
        self, transport: httpx.AsyncBaseTransport, limits: CallLimits, accept: str
    ) -> None:
        """Send every call through ``transport``, which is closed with this object."""
        self._transport = transport
        self.limits = limits
        self._headers = {
            "User-Agent": limits.user_agent,
            "Accept": accept,
            "Accept-Encoding": "identity",
        }
        timeout = httpx.Timeout(limits.timeout, connect=limits.connect_timeout)
        self._extensions = {"timeout": timeout.as_dict()}

    async def ask(self, call: Callable[[], Awaitable[Answer]]) -> Reply:
        """Make ``call``; repeat it once if the connection could not be made.

        Raises nothing but cancellation.
        """
        return Reply(*await self.attempt(call))

    async def attempt(
        self, call: Callable[[], Awaitable[_Found]]
    ) -> tuple[_Found | Blocked | Unreachable, int]:
        """Return the result of ``call``, or its failure, and the number of requests made."""
        requests = 1
        try:
            async with asyncio.timeout(self.limits.timeout):
                try:
                    return await call(), requests
                except _RETRIED as error:
                    if isinstance(error, NamedFailureError):
                        raise
                requests = 2
                return await call(), requests
        except FAILURES as error:
            return failure(error), requests

    def page(
        self,
        url: httpx.URL,
        headers: Mapping[str, str] | None = None,
        parameters: Mapping[str, str] | None = None,
    ) -> Page:
        """Return the page at ``url``, to be asked for with `get`."""
        return Page(url, {**self._headers, **(headers or {})}, parameters)

    async def get(self, page: Page, parameters: Mapping[str, str]) -> Response:
        """Send a GET request with further ``parameters``; return the response with its body undecoded and cut one byte after
        the limit.

        Raises:
            Exception: one of `FAILURES`, to be named by `failure`.
        """
        most, transport = self.limits.max_body + 1, self._transport
        if isinstance(transport, FreshConnections):
            seconds = self.limits.connect_timeout
            fetched = await transport.get(page, parameters, seconds, most)
        else:
            request = httpx.Request(
                "GET",
                page.url,
                params={**page.parameters, **parameters},
                headers=page.headers,
                extensions=self._extensions,
            )
            fetched = await _over_httpx(transport, request, most)
        headers = {name.lower(): value for name, value in httpx.Headers(fetched.headers).items()}
        if fetched.is_forwarded and is_page(headers, fetched.body, self.limits.max_body):
            # A proxy's own page about errors or rules says nothing about the provider.
            raise ProxyFailedError(PROXY_REFUSED)
        return Response(fetched.status, headers, fetched.body)

    async def is_reached(self, url: httpx.URL) -> bool:
        """Return whether any response came from there to a request without parameters."""
        try:
            async with asyncio.timeout(self.limits.timeout):
                await self.get(self.page(url), {})
        except FAILURES:
            return False
        return True

    async def aclose(self) -> None:
        """Close the connections."""
        await self._transport.aclose()


async def _over_httpx(
    transport: httpx.AsyncBaseTransport, request: httpx.Request, most: int
) -> Fetched:
    """Send ``request`` through a transport of httpx; read at most ``most`` bytes of the body."""
    response = await transport.handle_async_request(request)
    try:
        body = bytearray()
        async for piece in response.aiter_raw():
            body += piece
            if len(body) >= most:
                break
    finally:
        await response.aclose()
    headers = response.headers.raw
    return Fetched(response.status_code, headers, bytes(body[:most]), is_forwarded=False)


def masked(text: str, *secrets: str) -> str:
    """Return ``text`` without ``secrets``, in any URL encoding: error pages repeat the URL that was
    requested.
    """
    for secret in secrets:
        if len(secret) >= _SHORTEST_SECRET:
            for written in {secret, quote(secret), quote(secret, safe=""), quote_plus(secret)}:
                text = text.replace(written, "****")
    return text


def failure(error: Exception) -> Blocked | Unreachable:
    """Name a failure without its text, which may contain the URL and so the password."""
    if isinstance(error, ForbiddenHostError):
        return Blocked("private_address")
    if isinstance(error, CertificateRefusedError):
        return Blocked(str(error), CERTIFICATE_WORDS[str(error)])
    if isinstance(error, NamedFailureError):
        return Unreachable(str(error))
    reasons: tuple[tuple[type[Exception], str], ...] = (
        (TlsFailedError, "tls_failed"),
        (httpx.ConnectTimeout, "connect_timeout"),
        (httpx.ConnectError, "connect_error"),
        (httpx.TimeoutException, "timeout"),
        (TimeoutError, "timeout"),
        (httpx.ProtocolError, "protocol_error"),
        (httpx.TransportError, "connection_lost"),
    )
    return Unreachable(
        next((name for kind, name in reasons if isinstance(error, kind)), "client_error")
    )
