"""Ask a client API (barakat, apstore and their like) how orders stand: JSON, a token in a header, many orders a call."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Collection
from dataclasses import dataclass, field, replace
from typing import Final

import httpx

from order_monitor.core.answer import Answer, Blocked, Busy, Garbled, Refused
from order_monitor.core.clock import Clock
from order_monitor.core.pin import NO_PIN_WORDS
from order_monitor.providers.client_api_parser import Check, Replay, parse_check, parse_profile
from order_monitor.providers.exchange import FAILURES, CallLimits, Exchange, blotted, failure
from order_monitor.providers.provider import Balance, NoBalance, Reply

_UUID: Final = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}", re.IGNORECASE)
_PATH: Final = "client/api"
_DEFAULT: Final = CallLimits()


@dataclass(frozen=True, slots=True)
class ClientApiAccount:
    """An account at a client API: its address, and the token that it is known by."""

    base_url: str
    token: str = field(repr=False)
    limits: CallLimits = _DEFAULT
    no_pin: Collection[str] = NO_PIN_WORDS
    replay: Replay = "hold"

    def url(self, name: str) -> httpx.URL:
        """Return where to ask for ``name``. An address that holds the path already is taken as meant."""
        url = httpx.URL(self.base_url)
        base = url.path.rstrip("/").removesuffix(f"/{_PATH}")
        return url.copy_with(path=f"{base}/{_PATH}/{name}")


class ClientApi:
    """The client of one account."""

    def __init__(self, account: ClientApiAccount, transport: httpx.AsyncBaseTransport, clock: Clock) -> None:
        """Send every call through ``transport``, which is closed with this client."""
        self._account = account
        self._clock = clock
        self._exchange = Exchange(transport, account.limits, accept="application/json, */*")
        self._headers = {"api-token": account.token}

    async def ask(self, referans: str) -> Reply:
        """Ask once about one order; where the connection cannot be made, try once more."""

        async def once() -> Answer:
            account, by_uuid = self._account, _UUID.fullmatch(referans) is not None
            parameters = {"orders": json.dumps([referans], ensure_ascii=False, separators=(",", ":"))}
            if by_uuid:
                parameters["uuid"] = "1"
            response = await self._exchange.get(account.url("check"), parameters, self._headers)
            found = parse_check(
                *response,
                [referans],
                now=self._clock.time(),
                max_body=account.limits.max_body,
                by_uuid=by_uuid,
                replay=account.replay,
                no_pin=account.no_pin,
            )
            return self._blotted(found.answers[referans] if isinstance(found, Check) else found)

        return await self._exchange.ask(once)

    async def balance(self) -> Balance | NoBalance:
        """Ask for the account's balance."""
        account = self._account
        try:
            async with asyncio.timeout(account.limits.timeout):
                response = await self._exchange.get(account.url("profile"), {}, self._headers)
        except FAILURES as error:
            return NoBalance(failure(error).why)
        found = parse_profile(*response, now=self._clock.time(), max_body=account.limits.max_body)
        if isinstance(found, Balance):
            return replace(found, amount=blotted(found.amount, account.token)) if found.number is None else found
        return replace(found, said=blotted(found.said, account.token))

    def _blotted(self, answer: Answer) -> Answer:
        """Return ``answer`` without the token in what the provider said."""
        if not isinstance(answer, (Refused, Garbled, Blocked, Busy)):
            return answer
        return replace(answer, message=blotted(answer.message, self._account.token))

    async def aclose(self) -> None:
        """Close the connections."""
        await self._exchange.aclose()
