"""Ask a znet dealer panel how an order stands.

The login travels in the query string of every call: nothing here may ever show a URL. httpx's own messages carry URLs, so every
failure is turned into an answer with a reason of ours, from a closed set.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection
from dataclasses import dataclass, field, replace
from functools import cached_property
from http.cookiejar import CookieJar, DefaultCookiePolicy
from typing import Final
from urllib.parse import quote, quote_plus

import httpx
import tenacity

from order_monitor.core.answer import Answer, Blocked, Busy, Garbled, Refused, Unreachable
from order_monitor.core.clock import Clock
from order_monitor.core.pin import NO_PIN_WORDS
from order_monitor.providers.address_guard import ForbiddenHostError
from order_monitor.providers.failures import PROXY_REFUSED, NamedFailureError, ProxyFailedError
from order_monitor.providers.provider import Balance, NoBalance, Reply
from order_monitor.providers.transport import CERTIFICATE_WORDS, FORWARDED, CertificateRefusedError, TlsFailedError
from order_monitor.providers.znet_parser import is_page, parse, parse_balance

_TRIES: Final = 2
_SHORTEST_SECRET: Final = 3
_RETRIED: Final = (httpx.ConnectError, httpx.ConnectTimeout)
"""What is tried once more at once, unless it is a failure with a name: that does not pass within a moment."""


@dataclass(frozen=True, slots=True)
class ZnetAccount:
    """A login at a panel. Timeouts are seconds; ``timeout`` bounds a whole call, however slowly the answer drips."""

    base_url: str
    kod: str = field(repr=False)
    sifre: str = field(repr=False)
    status_path: str = "servis/pin_kontrol.php"
    connect_timeout: float = 5.0
    timeout: float = 20.0
    max_body: int = 65_536
    user_agent: str = "order-monitor"
    no_pin: Collection[str] = NO_PIN_WORDS

    def status_url(self) -> httpx.URL:
        """Return where to ask. An address that holds the path already, or its folder, is taken as meant."""
        url = httpx.URL(self.base_url)
        base, path = url.path.rstrip("/"), self.status_path.strip("/")
        folder = f"/{path}".rpartition("/")[0]
        for known in (f"/{path}", folder):
            if known and base.endswith(known):
                base = base[: -len(known)]
                break
        return url.copy_with(path=f"{base}/{path}")

    def blotted(self, answer: Answer) -> Answer:
        """Return ``answer`` without this login in what the provider said: error pages repeat the address they were called by."""
        if not isinstance(answer, (Refused, Garbled, Blocked, Busy)):
            return answer
        message = self.blot(answer.message)
        return replace(answer, message=message) if message != answer.message else answer

    def blot(self, text: str) -> str:
        """Return ``text`` without this login, however it is written in an address."""
        for secret in (self.kod, self.sifre):
            for written in (
                {secret, quote(secret), quote(secret, safe=""), quote_plus(secret)}
                if len(secret) >= _SHORTEST_SECRET
                else ()
            ):
                text = text.replace(written, "****")
        return text


class Znet:
    """The client of one account, with a cookie jar that takes nothing: a session never crosses accounts."""

    def __init__(self, account: ZnetAccount, transport: httpx.AsyncBaseTransport, clock: Clock) -> None:
        """Send every call through ``transport``, which is closed with this client."""
        self._account = account
        self._clock = clock
        self._url = account.status_url()
        self._transport = transport

    @cached_property
    def _client(self) -> httpx.AsyncClient:
        """Made for the first question: of ten thousand accounts most are idle."""
        account = self._account
        return httpx.AsyncClient(
            transport=self._transport,
            timeout=httpx.Timeout(account.timeout, connect=account.connect_timeout),
            headers={"User-Agent": account.user_agent, "Accept": "text/plain, */*", "Accept-Encoding": "identity"},
            cookies=CookieJar(DefaultCookiePolicy(allowed_domains=[])),
            follow_redirects=False,
            trust_env=False,
        )

    async def balance(self) -> Balance | NoBalance:
        """Ask for the balance, beside the status call."""
        url = self._url.copy_with(path=f"{self._url.path.rpartition('/')[0]}/bakiye_kontrol.php")
        try:
            async with asyncio.timeout(self._account.timeout):
                status, headers, body = await self._get(url, {})
        except (httpx.HTTPError, httpx.InvalidURL, httpx.StreamError, OSError, ValueError) as error:
            return NoBalance(_failure(error).why)
        found = parse_balance(status, headers, body, now=self._clock.time(), max_body=self._account.max_body)
        if isinstance(found, Balance):
            return replace(found, amount=self._account.blot(found.amount)) if found.number is None else found
        return replace(found, said=self._account.blot(found.said))

    async def ask(self, referans: str) -> Reply:
        """Ask once; where the connection cannot be made, try once more."""
        retrying = tenacity.AsyncRetrying(
            stop=tenacity.stop_after_attempt(_TRIES), retry=tenacity.retry_if_exception(_is_tried_again), reraise=True
        )
        try:
            async with asyncio.timeout(self._account.timeout):
                answer: Answer = await retrying(self._exchange, referans)
        except (httpx.HTTPError, httpx.InvalidURL, httpx.StreamError, OSError, ValueError) as error:
            answer = _failure(error)
        return Reply(answer, max(1, retrying.statistics.get("attempt_number", 1)))

    async def _exchange(self, referans: str) -> Answer:
        status, headers, body = await self._get(self._url, {"tahsilat_api_islem_id": referans})
        account = self._account
        now = self._clock.time()
        answer = parse(status, headers, body, now=now, max_body=account.max_body, no_pin=account.no_pin)
        return account.blotted(answer)

    async def _get(self, url: httpx.URL, parameters: dict[str, str]) -> tuple[int, dict[str, str], bytes]:
        login = {"kod": self._account.kod, "sifre": self._account.sifre, **parameters}
        async with self._client.stream("GET", url, params=login) as response:
            body = await self._read(response)
            headers = {name.lower(): value for name, value in response.headers.items()}
        if response.extensions.get(FORWARDED) and is_page(headers, body, self._account.max_body):
            # A proxy's own page: what it says of errors, or of rules, says nothing of the provider.
            raise ProxyFailedError(PROXY_REFUSED)
        return response.status_code, headers, body

    async def _read(self, response: httpx.Response) -> bytes:
        """Read the body as it came, undecoded, and no further than one byte past the limit."""
        body = bytearray()
        async for chunk in response.aiter_raw():
            body += chunk
            if len(body) > self._account.max_body:
                break
        return bytes(body[: self._account.max_body + 1])

    async def aclose(self) -> None:
        """Close the connections."""
        await self._transport.aclose()


def _is_tried_again(error: BaseException) -> bool:
    return isinstance(error, _RETRIED) and not isinstance(error, NamedFailureError)


def _failure(error: Exception) -> Blocked | Unreachable:
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
