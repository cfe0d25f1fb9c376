"""Asks a provider about one order, or about several in one call. Every result is an answer; errors
are not raised.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

import structlog

from order_monitor.core.answer import Answer, Unreachable
from order_monitor.core.order import Order
from order_monitor.core.tracked_order import TrackedOrder
from order_monitor.providers.provider import AsksMany, Batch, Provider
from order_monitor.watch.account import Account
from order_monitor.watch.context import Context


@dataclass(frozen=True, slots=True)
class Call:
    """A finished call: what was asked, and what came back after ``seconds``."""

    entries: Sequence[TrackedOrder]
    orders: Sequence[Order]
    batch: Batch
    seconds: float

    @property
    def failure(self) -> Answer:
        """Why some orders got no answer."""
        return self.batch.failure or Unreachable("internal_error")


async def ask(
    context: Context, account: Account, entries: Sequence[TrackedOrder], *, probe: bool
) -> Call:
    """Ask about ``entries`` in one call. Raises only if the call is cancelled."""
    first, orders = entries[0], [entry.order for entry in entries]
    try:
        batch = await _answers(account.provider, orders)
    except asyncio.CancelledError:
        account.gate.released(probe=probe)
        raise
    except Exception as error:  # noqa: BLE001 - a fault in an adapter is that call's failure, not the program's
        structlog.get_logger("order_monitor.engine").error(
            "check.failed", order_id=first.id, account=account.name, error=type(error).__name__
        )
        batch = Batch({}, failure=Unreachable("internal_error"))
    finally:
        began = account.calls.pop(first)
    return Call(entries, orders, batch, context.clock.monotonic() - began)


async def _answers(provider: Provider, orders: Sequence[Order]) -> Batch:
    if isinstance(provider, AsksMany):
        return await provider.ask_many([order.reference for order in orders])
    (order,) = orders
    reply = await provider.ask(order.reference)
    return Batch({order.reference: reply.answer}, reply.requests)
