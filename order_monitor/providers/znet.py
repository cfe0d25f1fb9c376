"""Ask a znet dealer panel how an order stands.

The login travels in the query string of every call: nothing here may ever show a URL.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection
from dataclasses import dataclass, field, replace

import httpx

from order_monitor.core.answer import Answer, Blocked, Busy, Garbled, Refused
from order_monitor.core.clock import Clock
from order_monitor.core.pin import NO_PIN_WORDS
from order_monitor.providers.exchange import FAILURES, CallLimits, Exchange, blotted, failure
from order_monitor.providers.provider import Balance, NoBalance, Reply
from order_monitor.providers.znet_parser import parse, parse_balance


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
        return blotted(text, self.kod, self.sifre)


class Znet:
    """The client of one account."""

    def __init__(self, account: ZnetAccount, transport: httpx.AsyncBaseTransport, clock: Clock) -> None:
        """Send every call through ``transport``, which is closed with this client."""
        self._account = account
        self._clock = clock
        self._url = account.status_url()
        limits = CallLimits(account.connect_timeout, account.timeout, account.max_body, account.user_agent)
        self._exchange = Exchange(transport, limits, accept="text/plain, */*")

    async def balance(self) -> Balance | NoBalance:
        """Ask for the balance, beside the status call."""
        url = self._url.copy_with(path=f"{self._url.path.rpartition('/')[0]}/bakiye_kontrol.php")
        try:
            async with asyncio.timeout(self._account.timeout):
                response = await self._exchange.get(url, self._login())
        except FAILURES as error:
            return NoBalance(failure(error).why)
        found = parse_balance(*response, now=self._clock.time(), max_body=self._account.max_body)
        if isinstance(found, Balance):
            return replace(found, amount=self._account.blot(found.amount)) if found.number is None else found
        return replace(found, said=self._account.blot(found.said))

    async def ask(self, referans: str) -> Reply:
        """Ask once; where the connection cannot be made, try once more."""

        async def once() -> Answer:
            account = self._account
            response = await self._exchange.get(self._url, {**self._login(), "tahsilat_api_islem_id": referans})
            now = self._clock.time()
            return account.blotted(parse(*response, now=now, max_body=account.max_body, no_pin=account.no_pin))

        return await self._exchange.ask(once)

    def _login(self) -> dict[str, str]:
        return {"kod": self._account.kod, "sifre": self._account.sifre}

    async def aclose(self) -> None:
        """Close the connections."""
        await self._exchange.aclose()
