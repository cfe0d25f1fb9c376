"""Taking an account over from another process: its orders are planned so that what that one has asked is not asked again."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Final, Protocol

from order_monitor.core.entry import Entry
from order_monitor.watch.account import LoginAccounts
from order_monitor.watch.board import Board
from order_monitor.watch.turns import unhurried

MARGIN: Final = 30.0
"""What the holder before was asking when it was lost has no answer: slots this many seconds before that are kept again."""

Last = tuple[float, bool]
"""When a login was last seen to be another's (epoch seconds), and whether that one was behind with it."""


class Shared(Protocol):
    """What the processes share: `order_monitor.watch.engine.Engine`."""

    board: Board

    @property
    def by_login(self) -> Mapping[str, LoginAccounts]:
        """The accounts that may be asked, by the login they hold, which names them in every process."""

    @property
    def is_stopping(self) -> bool:
        """Whether no more questions are asked."""

    @property
    def records_every_check(self) -> bool:
        """Whether each check is noted in the table, as far as that is known."""


class Takeover:
    """Plans orders beside the looks: with very many it takes long, and the leases of all others must not run out meanwhile."""

    def __init__(self, engine: Shared) -> None:
        """Plan the orders of ``engine``."""
        self._engine = engine
        self._plans: set[asyncio.Task[None]] = set()
        self.planning: set[str] = set()

    def is_behind(self, login: LoginAccounts) -> bool:
        """Whether not all of a login that is due has been asked: it is closed, paused, or its pace lets no more through."""
        if any(not account.gate.is_open or account.paused is not None for account in login.accounts):
            return True
        backlog = sum(self._engine.board.queue.ready.count(account.key) for account in login.accounts)
        return backlog > login.accounts[0].pace.per_second * MARGIN

    async def start(self, before: Mapping[str, Last]) -> None:
        """Begin to plan the accounts that somebody else held; they stand in ``planning`` until it is done."""
        if not before:
            return
        self.planning.update(before)
        plan = asyncio.create_task(self._plan(before), name="take over")
        self._plans.add(plan)
        plan.add_done_callback(self._plans.discard)
        await asyncio.sleep(0)

    def cancel(self) -> None:
        """Leave what is not planned as it is."""
        for plan in self._plans:
            plan.cancel()
        self.planning.clear()

    async def _plan(self, before: Mapping[str, Last]) -> None:
        try:
            await self._take_up(before)
        finally:
            self.planning.difference_update(before)

    async def _take_up(self, before: Mapping[str, Last]) -> None:
        """Where each check is noted in the table, that tells what was asked; elsewhere what came due was, unless it was behind."""
        board, logins = self._engine.board, self._engine.by_login
        since: dict[str, float | None] = {}
        for key, (last, was_behind) in before.items():
            for account in logins[key].accounts if key in logins else ():
                account.gate.start_anew()
                since[account.key] = None if was_behind or self._engine.records_every_check else last
        async for entry in unhurried(list(board.queue)):
            is_there = entry.account in since and board.queue.get(entry.id) is entry
            if is_there and entry.is_waiting:
                self._schedule(entry, since[entry.account])

    def _schedule(self, entry: Entry, last: float | None) -> None:
        board = self._engine.board
        now, plan = board.now(), board.policy.plan
        due = plan.first(entry.order, now)
        if due is not None and last is not None and due <= last - MARGIN:
            due = plan.again(entry.order, now)
        if due is not None:
            board.queue.schedule(entry, due)
