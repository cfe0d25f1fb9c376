"""The way of one order as one whole: found open, due, let through, asked about, understood, written; then forgotten or due again.

The daemon and ``--once`` are this same loop. They differ in their plan (core/schedule.py) and in when it is over.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Final

from order_monitor.core.clock import Clock
from order_monitor.core.clocks import ClockWatch
from order_monitor.core.entry import Stage
from order_monitor.core.order import SkipReason
from order_monitor.watch.account import Account, LoginAccounts, by_login
from order_monitor.watch.board import Board
from order_monitor.watch.confirmation import Confirmations
from order_monitor.watch.discovery import Discovery, Shop
from order_monitor.watch.dispatcher import Dispatcher
from order_monitor.watch.held import HeldEnds
from order_monitor.watch.inquiry import Inquiry
from order_monitor.watch.judgement import Judgement
from order_monitor.watch.observer import Observer, Observers
from order_monitor.watch.policy import Policy
from order_monitor.watch.rereading import Rereading
from order_monitor.watch.routing import AnyOpener, Directory, OneAccount
from order_monitor.watch.settlement import Settlement
from order_monitor.watch.turns import unhurried
from order_monitor.watch.writer import Writer

BACKLOG: Final = 2000
"""Answers of one account waiting for the database beyond which no more of it are fetched; what a lock holds up is not counted."""


FORGET_EVERY: Final = 1800.0
"""Seconds between two times at which what is remembered of accounts that are gone is forgotten."""


class Engine:
    """Asks about every open order when its plan says so."""

    def __init__(
        self,
        shop: Shop,
        accounts: Mapping[str, Account] | Directory,
        policy: Policy,
        clock: Clock,
        observer: Observer | None = None,
        clocks: ClockWatch | None = None,
    ) -> None:
        """Ask ``accounts`` about the orders of ``shop``, and tell ``observer``; ``clocks`` say whether ages may end orders."""
        self.directory = OneAccount(next(iter(accounts.values()))) if isinstance(accounts, Mapping) else accounts
        self.board = Board(policy, clock, observer or Observers(), name_of=self.name_of, clocks=clocks or ClockWatch())
        held = HeldEnds(self.board)
        self.discovery = Discovery(self.board, shop, self.directory, held)
        self._settlement = Settlement(self.board, held, self.discovery.intake.ended)
        self._forgot_at = clock.monotonic()
        self.writer = Writer(
            shop,
            clock,
            self._settlement.take,
            on_batch=self.board.observer.wrote,
            patience=policy.patience,
            is_stuck=self.board.state.stuck.__contains__,
        )
        self._judgement = Judgement(self.board, self.writer, lambda: self.discovery.shop.records_every_check)
        inquiry = Inquiry(self.board, self._judgement.understand, self._judgement.call_failed)
        self.dispatcher = Dispatcher(
            self.board,
            self.directory,
            inquiry.ask,
            Rereading(self.board, self.directory, self.discovery.look_again),
            lambda account: self.writer.backlog.free[account] >= BACKLOG,
        )
        self.queue, self.state = self.board.queue, self.board.state

    @property
    def accounts(self) -> Mapping[str, Account]:
        """The accounts that may be asked, by their keys."""
        return self.directory.accounts

    @property
    def by_login(self) -> Mapping[str, LoginAccounts]:
        """The same, by the login they hold."""
        return by_login(self.accounts.values())

    def name_of(self, key: str) -> str:
        """Return what an account is called; of one that is gone its key."""
        account = self.accounts.get(key)
        return key if account is None else account.name

    @property
    def is_stopping(self) -> bool:
        """Whether no more questions are asked."""
        return self.dispatcher.is_stopping

    @property
    def records_every_check(self) -> bool:
        """Whether each check is noted in the table, as far as a scan has shown."""
        return bool(self.state.scans) and self.discovery.shop.records_every_check

    @property
    def skips(self) -> Mapping[str, SkipReason]:
        """The orders nobody asks about, and why."""
        return self.discovery.skips

    @property
    def confirmations(self) -> Confirmations:
        """The cancellations that wait for a second answer."""
        return self._judgement.confirmations

    def now(self) -> float:
        """Return epoch seconds by the database's clock, which ``sent_at`` was written by."""
        return self.board.now()

    def adopt(self, policy: Policy) -> None:
        """Go on by another policy. An order's next time, already planned, stays; the times after it are the new plan's."""
        self.board.policy = policy
        self.board.wake.set()

    def adopt_accounts(self, opener: AnyOpener | None, calls_per_second: float, gate_after: int) -> None:
        """Give every account another pace and limit, and with ``opener`` a new client too."""
        for provider in self.directory.reopen(opener) if opener else []:
            self.dispatcher.calls.retire(provider)
        for account in self.accounts.values():
            account.pace.per_second = calls_per_second
            account.gate.limit = gate_after
        self.board.wake.set()

    async def scan(self) -> None:
        """Look for open orders, and take up and let go accordingly.

        Raises:
            ShopError: the database could not be asked; the orders known so far are kept.
            SettingsError: the table is not as it must be.
        """
        board = self.board
        began = board.clock.monotonic()
        dropped = await self.discovery.scan()
        board.observer.scanned(board.clock.monotonic() - began)
        for provider in dropped:
            self.dispatcher.calls.retire(provider)
        if board.clock.monotonic() - self._forgot_at >= FORGET_EVERY:
            self._forget_gone()
        if board.has_gone_back:
            await self._plan_anew()
        if board.policy.one_pass:
            await self.discovery.note_unasked()
        self._judgement.give_up_unasked(self.accounts)
        is_more_due = True
        while is_more_due:
            await asyncio.sleep(0)
            is_more_due = board.queue.promote(board.now())
        if self.dispatcher.is_idle() and not self.writer.stands_still():
            board.state.succeeded_at = board.now()
        board.wake.set()

    def _forget_gone(self) -> None:
        self._forgot_at = self.board.clock.monotonic()
        self._settlement.remain(self.accounts)
        self.writer.backlog.tidy()
        self.queue.tidy()
        self.board.observer.remain({key: account.name for key, account in self.accounts.items()})

    async def _plan_anew(self) -> None:
        """Let nobody wait for a time that only the database's clock, while it was ahead, has made their next one."""
        board = self.board
        board.has_gone_back = False
        async for entry in unhurried(list(board.queue)):
            now, since = board.now(), entry.memo.cancelled_at
            entry.note(cancelled_at=None if since is None else min(since, now))
            if entry.stage is Stage.SCHEDULED and entry.wake > now:
                again = board.policy.plan.again(entry.order, now)
                if again is not None and again < entry.wake:
                    board.queue.schedule(entry, min(entry.due, again), wake=again)

    async def run(self) -> None:
        """Start calls as they come due, until stopped or, in one pass, until nothing is left to do."""
        await self.dispatcher.run(lambda: bool(len(self.writer) or self._judgement.confirmations.open))
