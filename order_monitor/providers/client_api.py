"""Ask a client API (barakat, apstore and their like) how orders stand: JSON, a token in a header, many orders a call."""

from __future__ import annotations

import asyncio
import functools
import json
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final
from urllib.parse import quote

import httpx
import structlog

from order_monitor.core.answer import Answer, Blocked, Busy, Garbled, Refused
from order_monitor.core.clock import Clock
from order_monitor.core.pin import NO_PIN_WORDS
from order_monitor.providers.client_api_parser import Check, Replay, parse_check, parse_profile
from order_monitor.providers.exchange import FAILURES, CallLimits, Exchange, blotted, failure
from order_monitor.providers.provider import Balance, Batch, NoBalance, Reply

_UUID: Final = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}", re.IGNORECASE)
_PATH: Final = "client/api"
_TOO_MANY: Final = frozenset({400, 413, 414})
"""What a provider says where a call names more orders than it takes: bad request, content or address too long."""

_LONGEST: Final = 3000
"""How many characters of an address the orders of one call may take."""

_AROUND: Final = "%22%2C%22"
_DEFAULT: Final = CallLimits()


@dataclass(frozen=True, slots=True)
class ClientApiAccount:
    """An account at a client API: its address, and the token that it is known by."""

    base_url: str
    token: str = field(repr=False)
    limits: CallLimits = _DEFAULT
    no_pin: Collection[str] = NO_PIN_WORDS
    replay: Replay = "hold"
    batch: int = 50

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
        self._log = structlog.get_logger("order_monitor.client_api")
        self.batch = account.batch
        """How many orders go into one call; fewer from the first time on that the provider does not take so many."""

    async def ask(self, referans: str) -> Reply:
        """Ask once about one order; where the connection cannot be made, try once more."""
        found = await self.ask_many([referans])
        answer = found.answers.get(referans, found.failure)
        assert answer is not None, "each order is answered, or the call has failed"
        return Reply(answer, found.requests)

    async def ask_many(self, references: Sequence[str]) -> Batch:
        """Ask about several orders, in as few calls as the provider and an address's length allow.

        The shop's own ids go in a call of their own (``uuid=1``). After a call that failed as a whole none follows. Where the
        provider takes fewer at once than it was asked, half as many are asked from then on.
        """
        answers: dict[str, Answer] = {}
        requests, waiting = 0, self._chunks([name.strip() for name in references])
        while waiting:
            chunk = waiting.pop(0)
            found, made = await self._exchange.attempt(functools.partial(self._check, chunk))
            requests += made
            if found is None:
                self.batch = max(1, len(chunk) // 2)
                self._log.warning("batch.halved", orders=self.batch)
                waiting = [*self._chunks(chunk), *waiting]
            elif isinstance(found, Check):
                answers |= {name: self._blotted(answer) for name, answer in found.answers.items()}
            else:
                return Batch(_as_asked(references, answers), requests, self._blotted(found))
        return Batch(_as_asked(references, answers), max(1, requests))

    def _chunks(self, references: Sequence[str]) -> list[list[str]]:
        """Return what goes into each call."""
        chunks: list[list[str]] = []
        unique = dict.fromkeys(references)
        for is_own in (False, True):
            size = _LONGEST
            for name in unique:
                if (_UUID.fullmatch(name) is not None) is not is_own:
                    continue
                size += len(quote(name)) + len(_AROUND)
                if size > _LONGEST or len(chunks[-1]) >= self.batch:
                    chunks.append([])
                    size = len(quote(name)) + len(_AROUND)
                chunks[-1].append(name)
        return chunks

    async def _check(self, chunk: Sequence[str]) -> Check | Answer | None:
        """Ask about some orders in one call; None where those are too many for the provider."""
        account, by_uuid = self._account, _UUID.fullmatch(chunk[0]) is not None
        parameters = {"orders": json.dumps(list(chunk), ensure_ascii=False, separators=(",", ":"))}
        if by_uuid:
            parameters["uuid"] = "1"
        response = await self._exchange.get(account.url("check"), parameters, self._headers)
        if response.status in _TOO_MANY and len(chunk) > 1:
            return None
        return parse_check(
            *response,
            chunk,
            now=self._clock.time(),
            max_body=account.limits.max_body,
            by_uuid=by_uuid,
            replay=account.replay,
            no_pin=account.no_pin,
        )

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


def _as_asked(references: Sequence[str], answers: Mapping[str, Answer]) -> dict[str, Answer]:
    """Return the answers by the references as they were given: blanks around one are no part of it."""
    return {name: answers[name.strip()] for name in references if name.strip() in answers}
