"""One more look at an order some time after its end: a provider that has changed its mind is reported, and nothing is written."""

from __future__ import annotations

import heapq
from dataclasses import dataclass
from typing import Final, Protocol

import structlog

from order_monitor.core.answer import Cancelled, Completed
from order_monitor.core.clock import Clock
from order_monitor.core.errors import ShopError
from order_monitor.core.order import Order
from order_monitor.core.recording import Fate, Result
from order_monitor.watch.account import Account
from order_monitor.watch.engine import Engine
from order_monitor.watch.observer import Observer

REMEMBERED: Final = 10_000
"""How many ended orders are kept in mind at the most; of more, the oldest are let go."""

_LOOK: Final = 1.0


class Desk(Protocol):
    """Who takes what a person must decide; `order_monitor.shop.orders.Orders` does."""

    async def review(self, order_id: str, kind: str, account: str) -> None:
        """Put one thing on the list for review."""


@dataclass(frozen=True, slots=True)
class _Ended:
    order: Order
    account: str
    completed: bool


class Reconciliation(Observer):
    """Remembers what ended, and asks about each once more."""

    def __init__(self, desk: Desk, clock: Clock, after: float) -> None:
        """Ask ``after`` seconds after the end; tell contradictions to ``desk``."""
        self._desk = desk
        self._clock = clock
        self._after = after
        self._heap: list[tuple[float, int, _Ended]] = []
        self._count = 0
        self._log = structlog.get_logger("order_monitor.recheck")

    def settled(self, account: str, result: Result, delay: float) -> None:
        """Remember an order that we have ended."""
        if result.fate is not Fate.WRITTEN or result.write is None or not result.write.final:
            return
        self._count += 1
        ended = _Ended(result.finding.order, account, isinstance(result.finding.answer, Completed))
        heapq.heappush(self._heap, (self._clock.monotonic() + self._after, self._count, ended))
        if len(self._heap) > REMEMBERED:
            heapq.heappop(self._heap)

    async def run(self, engine: Engine) -> None:
        """Look again for ever, at the accounts' own pace."""
        while True:
            await self._clock.sleep(_LOOK)
            await self.look(engine)

    async def look(self, engine: Engine) -> None:
        """Ask about what is due, as far as the accounts let questions through."""
        now = self._clock.monotonic()
        later = []
        while self._heap and self._heap[0][0] <= now:
            due, count, ended = heapq.heappop(self._heap)
            account = engine.accounts.get(ended.account)
            if account is None:
                continue
            if account.gate.is_open and account.may_start(self._clock.monotonic()):
                await self._ask(account, ended)
            else:
                later.append((due, count, ended))
        for item in later:
            heapq.heappush(self._heap, item)

    async def _ask(self, account: Account, ended: _Ended) -> None:
        account.pace.take(self._clock.monotonic())
        answer = (await account.provider.ask(ended.order.referans)).answer
        kind = ""
        if isinstance(answer, Completed) and not ended.completed:
            kind = "completed_after_failed"
        elif isinstance(answer, Cancelled) and ended.completed:
            kind = "cancelled_after_completed"
        if kind:
            self._log.error("order.contradicted", order_id=ended.order.id, account=account.name, kind=kind)
            try:
                await self._desk.review(ended.order.id, kind, account.name)
            except ShopError as error:
                self._log.warning("review.not_kept", order_id=ended.order.id, why=str(error))
