"""Checks an order once more some time after its end: a provider that has changed its answer is
reported, and the order is not changed.

Orders that ended before a restart, or in another process that held their account until then, are
known from the events, so that neither loses a recheck.
"""

from __future__ import annotations

import heapq
from collections.abc import Mapping
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
from order_monitor.core.check_result import WriteResult, WriteStatus
from order_monitor.core.clock import Clock
from order_monitor.core.decision import StuckReason
from order_monitor.core.errors import SettingsError, ShopError
from order_monitor.core.order import Order
from order_monitor.core.outcome import Outcome
from order_monitor.core.pin import Pin
from order_monitor.shop.reading.orders import End
from order_monitor.watch.account import Account
from order_monitor.watch.engine import Engine
from order_monitor.watch.observer import Observer

REMEMBERED: Final = 10_000
"""Maximum number of ended orders to remember; the oldest are dropped."""

LATE: Final = 3600.0
"""Seconds after which an overdue recheck is dropped."""

MARGIN: Final = 30.0
"""Rechecks that were due within this many seconds before an account's holder last kept up are made
again: they may be lost with it.
"""

_LOOK: Final = 1.0
_AGAIN: Final = 60.0
"""Seconds until an order is asked about again whose contradiction could not be stored."""


class RecheckStore(Protocol):
    """Stores reviews, and knows which orders ended: `order_monitor.shop.repository.Orders`."""

    async def ended(self, within: float) -> list[End]:
        """Return the orders that ended within this many seconds."""

    async def review(self, order_id: str, kind: str, account: str) -> None:
        """Add a review."""

    async def has_code(self, order_id: str, pin: Pin) -> bool:
        """Whether an order was given the code of this PIN, or the PIN has none."""

    async def has_ended_so(self, order_id: str, outcome: Outcome) -> bool:
        """Whether that is how an order has ended last, and it was not reopened since."""


@dataclass(frozen=True, slots=True)
class _Ended:
    order: Order
    account: str
    outcome: Outcome


class Recheck(Observer):
    """Remembers orders that ended, and asks about each once more."""

    def __init__(self, store: RecheckStore, clock: Clock, after: float) -> None:
        """Ask ``after`` seconds after the end; report contradictions to ``store``."""
        self._store = store
        self._clock = clock
        self._after = after
        self._heap: list[tuple[float, int, _Ended]] = []
        self._taken: dict[str, float] = {}
        self._count = 0
        self._log = structlog.get_logger("order_monitor.recheck")

    def settled(self, account: str, result: WriteResult, delay: float) -> None:
        """Remember an order that we have ended."""
        if result.fate is not WriteStatus.WRITTEN or result.write is None or not result.write.final:
            return
        if result.finding.child is not None:
            return  # Nobody was asked about it.
        ended = _Ended(result.finding.order, result.finding.account, result.write.outcome)
        self._remember(self._clock.monotonic() + self._after, ended)

    def taken_over(self, accounts: Mapping[str, float]) -> None:
        """Take over the rechecks that the accounts' previous holder has not made."""
        self._taken.update(accounts)

    def _remember(self, due: float, ended: _Ended) -> None:
        self._count += 1
        heapq.heappush(self._heap, (due, self._count, ended))
        if len(self._heap) > REMEMBERED:
            heapq.heappop(self._heap)

    async def recall(self, engine: Engine) -> None:
        """Restore the orders that ended before the start.

        Rechecks that came due while no process ran are made late, up to `LATE` seconds.

        Raises:
            ShopError: the database is not available.
            SettingsError: the table is not as expected.
        """
        now = self._clock.monotonic()
        known = {ended.order.id for _, _, ended in self._heap}
        for end in await self._store.ended(self._after + LATE):
            account = engine.directory.account_of(end.order)
            if isinstance(account, Account) and end.order.id not in known:
                self._remember(
                    now + self._after - end.ago, _Ended(end.order, account.key, end.outcome)
                )

    async def _recall_taken(self, engine: Engine) -> None:
        """Know the rechecks of taken over accounts from the events alone: those due before their
        holder last kept up with what was due have been made there.
        """
        taken, self._taken = self._taken, {}
        known = self._count
        try:
            ends = await self._store.ended(self._after + LATE)
        except (ShopError, SettingsError):
            self._taken = taken | self._taken
            raise
        # What ended while the events were read is not in them.
        self._heap = [one for one in self._heap if one[1] > known or one[2].account not in taken]
        heapq.heapify(self._heap)
        fresh = {ended.order.id for _, _, ended in self._heap}
        now, monotonic = engine.now(), self._clock.monotonic()
        for end in ends:
            account = engine.directory.account_of(end.order)
            if not isinstance(account, Account) or account.key not in taken:
                continue
            if end.order.id in fresh:
                continue
            due_in = self._after - end.ago
            if now + due_in > taken[account.key] - MARGIN:
                self._remember(monotonic + due_in, _Ended(end.order, account.key, end.outcome))

    async def run(self, engine: Engine) -> None:
        """Recheck until cancelled, at the accounts' own pace."""
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
            if self._taken:
                try:
                    await self._recall_taken(engine)
                except (ShopError, SettingsError) as error:
                    self._log.debug("recheck.waiting", why=str(error))
                    continue
            await self.ask_due(engine)

    async def ask_due(self, engine: Engine) -> None:
        """Ask about the orders that are due, as far as the accounts allow calls."""
        if engine.context.hold:
            return
        now = self._clock.monotonic()
        later = []
        while self._heap and self._heap[0][0] <= now:
            due, count, ended = heapq.heappop(self._heap)
            account = engine.accounts.get(ended.account)
            if account is None or now - due > LATE:
                continue
            if not (account.gate.is_open and account.may_start(self._clock.monotonic())):
                later.append((due, count, ended))
            elif not await self._ask(account, ended):
                later.append((now + _AGAIN, count, ended))
        for item in later:
            heapq.heappush(self._heap, item)

    async def _ask(self, account: Account, ended: _Ended) -> bool:
        """Ask about one order; return whether what is to be reported about it is stored."""
        account.pace.spend(self._clock.monotonic())
        with account.calling(self._clock.monotonic()):
            answer = (await account.provider.ask(ended.order.reference)).answer
        try:
            if not (kind := await self._contradiction(ended, answer)):
                return True
            self._log.error(
                "order.contradicted", order_id=ended.order.id, account=account.name, kind=kind
            )
            await self._store.review(ended.order.id, kind, account.key)
        except (ShopError, SettingsError) as error:
            self._log.warning("review.not_kept", order_id=ended.order.id, why=str(error))
            return False
        return True

    async def _contradiction(self, ended: _Ended, answer: Answer) -> str:
        """Return the kind of review if ``answer`` contradicts how the order ended, else nothing."""
        kind = _other_outcome(ended.outcome, answer)
        if kind and not await self._store.has_ended_so(ended.order.id, ended.outcome):
            return ""  # It was reopened or sent again since, and may have ended as the answer says.
        if kind or not isinstance(answer, Completed) or answer.pin is None:
            return kind
        is_given = await self._store.has_code(ended.order.id, answer.pin)
        return "" if is_given else StuckReason.PIN_FOR_ENDED


def _other_outcome(outcome: Outcome, answer: Answer) -> str:
    """Return the kind of review if the answer's outcome is another than the order's."""
    match answer:
        case Completed():
            return "" if outcome is Outcome.COMPLETED else "completed_after_failed"
        case Cancelled():
            return "" if outcome is not Outcome.COMPLETED else "cancelled_after_completed"
        case Waiting() | Refused() | Garbled() | Blocked() | Busy() | Unreachable():
            return ""
        case _:
            assert_never(answer)
