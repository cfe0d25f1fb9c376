"""Ask a client API (barakat, apstore and similar) for the state of orders: JSON, a token in a
header, many orders per call.
"""

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
from order_monitor.providers.client_api.dialect import ZDK, Dialect
from order_monitor.providers.client_api.parser import Check, Replay, parse_check, parse_profile
from order_monitor.providers.http.exchange import (
    FAILURES,
    CallLimits,
    Exchange,
    Response,
    failure,
    masked,
)
from order_monitor.providers.http.transport import Page
from order_monitor.providers.provider import Balance, Batch, NoBalance, Reply

_UUID: Final = re.compile(
    r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}", re.IGNORECASE
)
_CHECK: Final = "client/api/check"
_NO_PAGE: Final = 404
_TOO_MANY: Final = frozenset({400, 413, 414})
"""Statuses of a provider if a call names more orders than it accepts: bad request, content or URL
too long.
"""

_LONGEST: Final = 3000
"""Maximum number of URL characters for the orders of one call."""

_DOUBLED_AFTER: Final = 3600.0
"""Seconds after which a lowered number of orders in a call is doubled, as a trial."""

_AROUND: Final = "%22%2C%22"
_DEFAULT: Final = CallLimits()


@dataclass(frozen=True, slots=True)
class ClientApiAccount:
    """An account at a client API: its address, the token that identifies it, and the software's
    ``dialect``.
    """

    base_url: str
    token: str = field(repr=False)
    limits: CallLimits = _DEFAULT
    no_pin: Collection[str] = NO_PIN_WORDS
    replay: Replay = "hold"
    batch: int = 50
    dialect: Dialect = ZDK

    @property
    def headers(self) -> dict[str, str]:
        """The headers that say who asks, and whom."""
        if not self.dialect.names_host:
            return {"api-token": self.token}
        host = httpx.URL(self.base_url).raw_host.decode("ascii")
        return {"api-token": self.token, "X-Tenant-Host": host}

    def url(self, path: str) -> httpx.URL:
        """Return the URL of a ``path``, such as ``client/api/check``.

        A base URL that already leads to the client API is understood too.
        """
        url = httpx.URL(self.base_url)
        base = url.path.rstrip("/").removesuffix("/client/api")
        return url.copy_with(path=f"{base}/{path}")


class ClientApi:
    """The client of one account."""

    def __init__(
        self, account: ClientApiAccount, transport: httpx.AsyncBaseTransport, clock: Clock
    ) -> None:
        """Send every call through ``transport``, which is closed with this client."""
        self._account = account
        self._clock = clock
        self._exchange = Exchange(transport, account.limits, accept="application/json, */*")
        self._headers = account.headers
        self._log = structlog.get_logger("order_monitor.client_api")
        self.batch = account.batch
        """Maximum number of orders per call.

        Lowered as soon as the provider refuses that many.
        """
        self._halved_at = clock.monotonic()

    async def ask(self, reference: str) -> Reply:
        """Ask once about one order; retry once if no connection can be made."""
        found = await self.ask_many([reference])
        answer = found.answers.get(reference, found.failure)
        assert answer is not None, "each order is answered, or the call has failed"
        return Reply(answer, found.requests)

    async def ask_many(self, references: Sequence[str]) -> Batch:
        """Ask about several orders, in as few calls as the provider and the URL length allow.

        The shop's own ids go in a separate call (``uuid=1``). After a call that failed as a whole,
        no further call is made. If the provider refuses the number of orders in a call, as many as
        it took are asked about from then on, and twice as many again after each hour.
        """
        if self._clock.monotonic() - self._halved_at >= _DOUBLED_AFTER:
            self.batch = min(self._account.batch, 2 * self.batch)
            self._halved_at = self._clock.monotonic()
        answers: dict[str, Answer] = {}
        requests, strangers, waiting = 0, 0, self._chunks([name.strip() for name in references])
        refused = taken = 0
        is_one_order = False
        while waiting:
            chunk = waiting.pop(0)
            found, made = await self._exchange.attempt(functools.partial(self._check, chunk))
            requests += made
            if found is None:
                half, refused = len(chunk) // 2, max(refused, len(chunk))
                waiting = [chunk[:half], chunk[half:], *waiting]
            elif isinstance(found, Check):
                taken = max(taken, len(chunk))
                answers |= {name: self._blotted(answer) for name, answer in found.answers.items()}
                strangers += found.strangers
            elif refused and len(chunk) == 1 and isinstance(found, (Refused, Garbled)):
                is_one_order = True
                answers[chunk[0]] = self._blotted(found)
            else:
                failed = self._blotted(found)
                return Batch(_as_asked(references, answers), requests, failed, strangers)
        # A small call says little of how many are too many, and one order that is refused alone is
        # what was refused.
        if taken and not is_one_order and 2 * refused > self.batch:
            self.batch, self._halved_at = taken, self._clock.monotonic()
            self._log.warning("batch.halved", orders=self.batch)
        return Batch(_as_asked(references, answers), max(1, requests), strangers=strangers)

    def calls_of(self, references: Sequence[str]) -> int:
        """Return how many calls it takes to ask about these orders."""
        return len(self._chunks([name.strip() for name in references]))

    def _chunks(self, references: Sequence[str]) -> list[list[str]]:
        """Return the references of each call."""
        chunks: list[list[str]] = []
        unique = dict.fromkeys(references)
        for is_own in (False, True):
            size = _LONGEST
            for name in unique:
                if self._is_own(name) is not is_own:
                    continue
                size += len(quote(name)) + len(_AROUND)
                if size > _LONGEST or len(chunks[-1]) >= self.batch:
                    chunks.append([])
                    size = len(quote(name)) + len(_AROUND)
                chunks[-1].append(name)
        return chunks

    def _is_own(self, name: str) -> bool:
        """Whether an order is asked about by the shop's own id."""
        return bool(self._account.dialect.own_ids) and _UUID.fullmatch(name) is not None

    async def _check(self, chunk: Sequence[str]) -> Check | Answer | None:
        """Ask about some orders in one call; None if they are too many for the provider."""
        account, by_uuid = self._account, self._is_own(chunk[0])
        listed = json.dumps(list(chunk), ensure_ascii=False, separators=(",", ":"))
        parameters = {"orders": listed if account.dialect.in_brackets else ",".join(chunk)}
        if by_uuid:
            parameters["uuid"] = "1"
        response = await self._exchange.get(self._page, parameters)
        found = self._parsed(response, chunk, by_uuid=by_uuid)
        # A document that names another cause, the account or too much at once, is believed.
        is_size = not isinstance(found, (Blocked, Busy))
        return None if response.status in _TOO_MANY and len(chunk) > 1 and is_size else found

    def _parsed(self, response: Response, chunk: Sequence[str], *, by_uuid: bool) -> Check | Answer:
        account = self._account
        return parse_check(
            *response,
            chunk,
            now=self._clock.time(),
            max_body=account.limits.max_body,
            by_uuid=by_uuid,
            replay=account.replay,
            no_pin=account.no_pin,
            dialect=account.dialect,
        )

    async def balance(self) -> Balance | NoBalance:
        """Ask for the account's balance."""
        account = self._account
        try:
            async with asyncio.timeout(account.limits.timeout):
                response = await self._profile()
        except FAILURES as error:
            return NoBalance(failure(error).why)
        found = parse_profile(*response, now=self._clock.time(), max_body=account.limits.max_body)
        if isinstance(found, Balance):
            return (
                replace(found, amount=masked(found.amount, account.token))
                if found.number is None
                else found
            )
        return replace(found, said=masked(found.said, account.token))

    async def _profile(self) -> Response:
        """Ask for the account's own page, which is not at the same place everywhere."""
        first, *others = self._account.dialect.profiles
        response = await self._exchange.get(self._page_of(first), {})
        for path in others:
            if response.status == _NO_PAGE:
                response = await self._exchange.get(self._page_of(path), {})
        return response

    def _page_of(self, path: str) -> Page:
        return self._exchange.page(self._account.url(path), self._headers)

    @functools.cached_property
    def _page(self) -> Page:
        return self._page_of(_CHECK)

    def _blotted(self, answer: Answer) -> Answer:
        """Return ``answer`` without the token in the provider's text."""
        if not isinstance(answer, (Refused, Garbled, Blocked, Busy)):
            return answer
        return replace(answer, message=masked(answer.message, self._account.token))

    async def is_reached(self) -> bool:
        """Return whether any response came to a request without a login."""
        return await self._exchange.is_reached(httpx.URL(self._account.base_url))

    async def aclose(self) -> None:
        """Close the connections."""
        await self._exchange.aclose()


def _as_asked(references: Sequence[str], answers: Mapping[str, Answer]) -> dict[str, Answer]:
    """Return the answers by the references as given; surrounding blanks do not matter."""
    return {name: answers[name.strip()] for name in references if name.strip() in answers}
