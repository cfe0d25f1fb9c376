"""Ask a znet dealer panel for the state of an order.

Every call has the login in its query string, so nothing here may show a URL.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection
from dataclasses import dataclass, field, replace

import httpx

from order_monitor.core.answer import Answer, Blocked, Busy, Garbled, Refused
from order_monitor.core.clock import Clock
from order_monitor.core.pin import NO_PIN_WORDS
from order_monitor.providers.http.exchange import FAILURES, CallLimits, Exchange, failure, masked
from order_monitor.providers.http.transport import Page
from order_monitor.providers.provider import Balance, NoBalance, Reply
from order_monitor.providers.znet.parser import parse, parse_balance


@dataclass(frozen=True, slots=True)
class ZnetAccount:
    """A login at a panel.

    Timeouts are seconds; ``timeout`` limits the whole call, however slowly the answer arrives.
    """

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
        """Return the URL to ask.

        A base URL that already contains the path, or its folder, is used unchanged.
        """
        url = httpx.URL(self.base_url)
        base, path = url.path.rstrip("/"), self.status_path.strip("/")
        folder = f"/{path}".rpartition("/")[0]
        for known in (f"/{path}", folder):
            if known and base.endswith(known):
                base = base[: -len(known)]
                break
        return url.copy_with(path=f"{base}/{path}")

    def masked(self, answer: Answer) -> Answer:
        """Return ``answer`` without this login in the provider's text: error pages repeat the URL
        that was requested.
        """
        if not isinstance(answer, (Refused, Garbled, Blocked, Busy)):
            return answer
        message = self.blot(answer.message)
        return replace(answer, message=message) if message != answer.message else answer

    def blot(self, text: str) -> str:
        """Return ``text`` without this login, in any URL encoding."""
        return masked(text, self.kod, self.sifre)


class Znet:
    """The client of one account."""

    def __init__(
        self, account: ZnetAccount, transport: httpx.AsyncBaseTransport, clock: Clock
    ) -> None:
        """Send every call through ``transport``, which is closed with this client."""
        self._account = account
        self._clock = clock
        self._url = account.status_url()
        limits = CallLimits(
            account.connect_timeout, account.timeout, account.max_body, account.user_agent
        )
        self._exchange = Exchange(transport, limits, accept="text/plain, */*")
        self._page = self._page_of(self._url)

    async def balance(self) -> Balance | NoBalance:
        """Ask for the balance, at the URL next to the status URL."""
        url = self._url.copy_with(path=f"{self._url.path.rpartition('/')[0]}/bakiye_kontrol.php")
        try:
            async with asyncio.timeout(self._account.timeout):
                response = await self._exchange.get(self._page_of(url), {})
        except FAILURES as error:
            return NoBalance(failure(error).why)
        found = parse_balance(*response, now=self._clock.time(), max_body=self._account.max_body)
        if isinstance(found, Balance):
            return (
                replace(found, amount=self._account.blot(found.amount))
                if found.number is None
                else found
            )
        return replace(found, said=self._account.blot(found.said))

    async def ask(self, reference: str) -> Reply:
        """Ask once; retry once if no connection can be made."""
        asked = {"tahsilat_api_islem_id": reference.strip()}

        async def once() -> Answer:
            account = self._account
            response = await self._exchange.get(self._page, asked)
            now = self._clock.time()
            return account.masked(
                parse(*response, now=now, max_body=account.max_body, no_pin=account.no_pin)
            )

        return await self._exchange.ask(once)

    def _page_of(self, url: httpx.URL) -> Page:
        login = {"kod": self._account.kod, "sifre": self._account.sifre}
        return self._exchange.page(url, parameters=login)

    async def is_reached(self) -> bool:
        """Return whether any response came to a request without a login."""
        return await self._exchange.is_reached(httpx.URL(self._account.base_url))

    async def aclose(self) -> None:
        """Close the connections."""
        await self._exchange.aclose()
