"""Asked about: one question to the provider, whatever comes of it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

import structlog

from order_monitor.core.answer import Unreachable
from order_monitor.core.entry import Entry
from order_monitor.core.order import Order
from order_monitor.providers.provider import AsksMany, Batch, Provider, Reply
from order_monitor.watch.account import Account
from order_monitor.watch.board import Board

Understand = Callable[[Account, Entry, Reply, bool], None]
"""Takes a reply, with whether the question was a probe."""


CallFailed = Callable[[Account, Sequence[Entry], Reply, bool], None]
"""Takes the failure of a call about several orders, with whether it was a probe."""


class Inquiry:
    """Asks one question at a time for each call that was started."""

    def __init__(self, board: Board, understand: Understand, call_failed: CallFailed) -> None:
        """Hand each reply to ``understand``, and what failed for several orders at once to ``call_failed``."""
        self._board = board
        self._understand = understand
        self._call_failed = call_failed
        self._log = structlog.get_logger("order_monitor.engine")

    async def ask(self, account: Account, entry: Entry, others: Sequence[Entry], probe: bool) -> None:  # noqa: FBT001
        """Ask about an order, and about ``others`` in the same call. Every failure is a reply; only a cancelled call says nothing.

        A call about several that fails as a whole is one failure, and no order's own.
        """
        entries = [entry, *others]
        orders = [one.order for one in entries]
        try:
            batch = await self._asked(account.provider, orders)
        except asyncio.CancelledError:
            account.gate.released(probe=probe)
            raise
        except Exception as error:  # noqa: BLE001 - a fault in an adapter is that call's failure, not the program's
            self._log.error("check.failed", order_id=entry.id, account=account.name, error=type(error).__name__)
            batch = Batch({}, failure=Unreachable("internal_error"))
        finally:
            began = account.calls.pop(entry)
        seconds = self._board.clock.monotonic() - began
        requests, failure = batch.requests, batch.failure or Unreachable("internal_error")
        answered = [pair for pair in zip(entries, orders, strict=True) if pair[1].referans in batch.answers]
        if others and len(answered) < len(entries):
            known = {order.id for _, order in answered}
            unanswered = [one for one, order in zip(entries, orders, strict=True) if order.id not in known]
            self._board.observer.checked(account.name, orders[0], failure, seconds)
            self._call_failed(account, unanswered, Reply(failure, requests), probe)
            requests = 1
        for one, order in answered if others else zip(entries, orders, strict=True):
            answer = batch.answers.get(order.referans, failure)
            self._board.observer.checked(account.name, order, answer, seconds)
            self._understand(account, one, Reply(answer, requests), probe)
            requests = 1

    async def _asked(self, provider: Provider, orders: Sequence[Order]) -> Batch:
        if isinstance(provider, AsksMany):
            return await provider.ask_many([order.referans for order in orders])
        (order,) = orders
        reply = await provider.ask(order.referans)
        return Batch({order.referans: reply.answer}, reply.requests)
