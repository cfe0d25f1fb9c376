"""One more look at an order some time after its end: a provider that has changed its mind is reported, and nothing is written.

What ended before a restart is known from the events, so that the look is not lost with the process.
"""

from __future__ import annotations

import heapq
from dataclasses import dataclass
from typing import Final, Protocol, assert_never

import structlog

from order_monitor.core.answer import (
    Answer,
    Blocked,
    Busy,
    Cancelled,
    Completed,
    Garbled,
    Refused,
    Unreachable,
    Waiting,
)
from order_monitor.core.clock import Clock
from order_monitor.core.errors import SettingsError, ShopError
from order_monitor.core.order import Order
from order_monitor.core.outcome import Outcome
from order_monitor.core.recording import Fate, Result
from order_monitor.shop.order_reader import End
from order_monitor.watch.account import Account
from order_monitor.watch.engine import Engine
from order_monitor.watch.observer import Observer

REMEMBERED: Final = 10_000
"""How many ended orders are kept in mind at the most; of more, the oldest are let go."""

LATE: Final = 3600.0
"""Seconds after which a look that could not be taken is not taken any more."""

_LOOK: Final = 1.0


class Desk(Protocol):
    """Who takes what a person must decide, and remembers what ended; `order_monitor.shop.repository.Orders` does."""

    async def ended(self, within: float) -> list[End]:
        """Return the orders that were ended within so many seconds."""

    async def review(self, order_id: str, kind: str, account: str) -> None:
        """Put one thing on the list for review."""


@dataclass(frozen=True, slots=True)
class _Ended:
    order: Order
    account: str
    outcome: Outcome


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
        ended = _Ended(result.finding.order, result.finding.account, result.write.outcome)
        self._remember(self._clock.monotonic() + self._after, ended)

    def _remember(self, due: float, ended: _Ended) -> None:
        self._count += 1
        heapq.heappush(self._heap, (due, self._count, ended))
        if len(self._heap) > REMEMBERED:
            heapq.heappop(self._heap)

    async def recall(self, engine: Engine) -> None:
        """Take up what ended before the start; what came due while nobody ran is looked at late, up to `LATE` seconds.

        Raises:
            ShopError: the database could not be asked.
            SettingsError: the table is not as it must be.
        """
        now = self._clock.monotonic()
        known = {ended.order.id for _, _, ended in self._heap}
        for end in await self._desk.ended(self._after + LATE):
            account = engine.directory.account_of(end.order)
            if isinstance(account, Account) and end.order.id not in known:
                self._remember(now + self._after - end.ago, _Ended(end.order, account.key, end.outcome))

    async def run(self, engine: Engine) -> None:
        """Look again for ever, at the accounts' own pace."""
        while True:
            if engine.state.scans:
                try:
                    await self.recall(engine)
                    break
                except (ShopError, SettingsError) as error:
                    self._log.debug("recheck.waiting", why=str(error))
            await self._clock.sleep(_LOOK)
        while True:
            await self._clock.sleep(_LOOK)
            await self.look(engine)

    async def look(self, engine: Engine) -> None:
        """Ask about what is due, as far as the accounts let questions through."""
        if engine.board.hold:
            return
        now = self._clock.monotonic()
        later = []
        while self._heap and self._heap[0][0] <= now:
            due, count, ended = heapq.heappop(self._heap)
            account = engine.accounts.get(ended.account)
            if account is None or now - due > LATE:
                continue
            if account.gate.is_open and account.may_start(self._clock.monotonic()):
                await self._ask(account, ended)
            else:
                later.append((due, count, ended))
        for item in later:
            heapq.heappush(self._heap, item)

    async def _ask(self, account: Account, ended: _Ended) -> None:
        account.pace.take(self._clock.monotonic())
        with account.calling(self._clock.monotonic()):
            answer = (await account.provider.ask(ended.order.referans)).answer
        if kind := _contradiction(ended.outcome, answer):
            self._log.error("order.contradicted", order_id=ended.order.id, account=account.name, kind=kind)
            try:
                await self._desk.review(ended.order.id, kind, account.key)
            except ShopError as error:
                self._log.warning("review.not_kept", order_id=ended.order.id, why=str(error))


def _contradiction(outcome: Outcome, answer: Answer) -> str:
    """Return the kind of review where ``answer`` says otherwise than how the order ended; nothing where it does not."""
    match answer:
        case Completed():
            return "" if outcome is Outcome.COMPLETED else "completed_after_failed"
        case Cancelled():
            return "" if outcome is not Outcome.COMPLETED else "cancelled_after_completed"
        case Waiting() | Refused() | Garbled() | Blocked() | Busy() | Unreachable():
            return ""
        case _:
            assert_never(answer)
