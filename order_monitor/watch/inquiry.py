"""Asked about: one question to the provider, whatever comes of it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import structlog

from order_monitor.core.answer import Unreachable
from order_monitor.core.entry import Entry
from order_monitor.providers.provider import Reply
from order_monitor.watch.account import Account
from order_monitor.watch.board import Board

Understand = Callable[[Account, Entry, Reply, bool], None]
"""Takes a reply, with whether the question was a probe."""


class Inquiry:
    """Asks one question at a time for each call that was started."""

    def __init__(self, board: Board, understand: Understand) -> None:
        """Hand each reply to ``understand``."""
        self._board = board
        self._understand = understand
        self._log = structlog.get_logger("order_monitor.engine")

    async def ask(self, account: Account, entry: Entry, probe: bool) -> None:  # noqa: FBT001 - dispatcher.Ask
        """Ask about an order. Every failure is a reply; only a cancelled call says nothing."""
        order = entry.order
        try:
            reply = await account.provider.ask(order.referans)
        except asyncio.CancelledError:
            account.gate.released(probe=probe)
            raise
        except Exception as error:  # noqa: BLE001 - a fault in an adapter is that call's failure, not the program's
            self._log.error("check.failed", order_id=entry.id, account=account.name, error=type(error).__name__)
            reply = Reply(Unreachable("internal_error"))
        finally:
            began = account.calls.pop(entry)
        seconds = self._board.clock.monotonic() - began
        self._board.observer.checked(account.name, order, reply.answer, seconds)
        self._understand(account, entry, reply, probe)
