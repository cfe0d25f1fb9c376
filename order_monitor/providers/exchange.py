"""One account's HTTP calls, whatever the provider speaks: bounded in time and bytes, without cookies, every failure an answer.

httpx's own messages carry URLs, and a URL may carry a password: a failure becomes an answer with a reason from a closed set.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from http.cookiejar import CookieJar, DefaultCookiePolicy
from typing import Final, NamedTuple, TypeVar
from urllib.parse import quote, quote_plus

import httpx
import tenacity

from order_monitor.core.answer import Answer, Blocked, Unreachable
from order_monitor.providers.address_guard import ForbiddenHostError
from order_monitor.providers.failures import PROXY_REFUSED, NamedFailureError, ProxyFailedError
from order_monitor.providers.provider import Reply
from order_monitor.providers.transport import CERTIFICATE_WORDS, FORWARDED, CertificateRefusedError, TlsFailedError
from order_monitor.providers.znet_parser import is_page

_TRIES: Final = 2
_SHORTEST_SECRET: Final = 3
_RETRIED: Final = (httpx.ConnectError, httpx.ConnectTimeout)
"""What is tried once more at once, unless it is a failure with a name: that does not pass within a moment."""

FAILURES: Final = (httpx.HTTPError, httpx.InvalidURL, httpx.StreamError, OSError, ValueError)
"""What a call may raise."""


_Found = TypeVar("_Found")


class Response(NamedTuple):
    """A whole HTTP response. Header names are lower-case, the body is as it came."""

    status: int
    headers: Mapping[str, str]
    body: bytes


@dataclass(frozen=True, slots=True)
class CallLimits:
    """Bounds of one call. Times are seconds; ``timeout`` bounds a whole call, however slowly the answer drips."""

    connect_timeout: float = 5.0
    timeout: float = 20.0
    max_body: int = 65_536
    user_agent: str = "order-monitor"


class Exchange:
    """Sends one account's calls, with a cookie jar that takes nothing: a session never crosses accounts."""

    def __init__(self, transport: httpx.AsyncBaseTransport, limits: CallLimits, accept: str) -> None:
        """Send every call through ``transport``, which is closed with this."""
        self._transport = transport
        self.limits = limits
        self._accept = accept

    @cached_property
    def _client(self) -> httpx.AsyncClient:
        """Made for the first question: of ten thousand accounts most are idle."""
        limits = self.limits
        return httpx.AsyncClient(
            transport=self._transport,
            timeout=httpx.Timeout(limits.timeout, connect=limits.connect_timeout),
            headers={"User-Agent": limits.user_agent, "Accept": self._accept, "Accept-Encoding": "identity"},
            cookies=CookieJar(DefaultCookiePolicy(allowed_domains=[])),
            follow_redirects=False,
            trust_env=False,
        )

    async def ask(self, call: Callable[[], Awaitable[Answer]]) -> Reply:
        """Make ``call``, once more where the connection could not be made; only cancellation is raised."""
        return Reply(*await self.attempt(call))

    async def attempt(self, call: Callable[[], Awaitable[_Found]]) -> tuple[_Found | Blocked | Unreachable, int]:
        """Return what ``call`` brings, or the failure's name, and how many requests it took."""
        retrying = tenacity.AsyncRetrying(
            stop=tenacity.stop_after_attempt(_TRIES), retry=tenacity.retry_if_exception(_is_tried_again), reraise=True
        )
        try:
            async with asyncio.timeout(self.limits.timeout):
                found: _Found | Blocked | Unreachable = await retrying(call)
        except FAILURES as error:
            found = failure(error)
        return found, max(1, retrying.statistics.get("attempt_number", 1))

    async def get(
        self, url: httpx.URL, parameters: Mapping[str, str], headers: Mapping[str, str] | None = None
    ) -> Response:
        """Return what a GET brings, its body undecoded and no longer than one byte past the limit.

        Raises:
            Exception: one of `FAILURES`, to be named by `failure`.
        """
        async with self._client.stream("GET", url, params=parameters, headers=headers) as response:
            body = bytearray()
            async for chunk in response.aiter_raw():
                body += chunk
                if len(body) > self.limits.max_body:
                    break
            found = {name.lower(): value for name, value in response.headers.items()}
        read = bytes(body[: self.limits.max_body + 1])
        if response.extensions.get(FORWARDED) and is_page(found, read, self.limits.max_body):
            # A proxy's own page: what it says of errors, or of rules, says nothing of the provider.
            raise ProxyFailedError(PROXY_REFUSED)
        return Response(response.status_code, found, read)

    async def aclose(self) -> None:
        """Close the connections."""
        await self._transport.aclose()


def blotted(text: str, *secrets: str) -> str:
    """Return ``text`` without ``secrets``, however they are written in an address: error pages repeat what they were called by."""
    for secret in secrets:
        if len(secret) >= _SHORTEST_SECRET:
            for written in {secret, quote(secret), quote(secret, safe=""), quote_plus(secret)}:
                text = text.replace(written, "****")
    return text


def _is_tried_again(error: BaseException) -> bool:
    return isinstance(error, _RETRIED) and not isinstance(error, NamedFailureError)


def failure(error: Exception) -> Blocked | Unreachable:
    """Name a failure without its text, which may hold the URL and so the password."""
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
    return Unreachable(next((name for kind, name in reasons if isinstance(error, kind)), "client_error"))
