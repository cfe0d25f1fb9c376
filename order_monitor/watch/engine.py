"""The complete path of an order: found open, due, dispatched, asked about, interpreted, written;
then forgotten or due again.

The daemon and ``--once`` use the same loop. They differ in their plan (core/schedule.py) and in
when the loop ends.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Final

from order_monitor.core.clock import Clock
from order_monitor.core.clocks import ClockWatch
from order_monitor.core.order import SkipReason
from order_monitor.core.tracked_order import Stage
from order_monitor.watch.account import Account, LoginAccounts, by_login
from order_monitor.watch.answer_handler import AnswerHandler
from order_monitor.watch.cancellations import UnconfirmedCancellations
from order_monitor.watch.context import Context
from order_monitor.watch.discovery import Discovery, Shop
from order_monitor.watch.dispatcher import Dispatcher
from order_monitor.watch.held import HeldEnds
from order_monitor.watch.observer import Observer, Observers
from order_monitor.watch.policy import Policy
from order_monitor.watch.refresh import Refresh
from order_monitor.watch.result_handler import ResultHandler
from order_monitor.watch.routing import AnyOpener, Directory, OneAccount
from order_monitor.watch.turns import unhurried
from order_monitor.watch.write_queue import WriteQueue

FORGET_EVERY: Final = 1800.0
"""Seconds between two clean-ups of the data about accounts that are gone."""


class Engine:
    """Asks about every open order at the times of its plan."""

    def __init__(
        self,
        shop: Shop,
        accounts: Mapping[str, Account] | Directory,
        policy: Policy,
        clock: Clock,
        observer: Observer | None = None,
        clocks: ClockWatch | None = None,
    ) -> None:
        """Ask ``accounts`` about the orders of ``shop``; ``clocks`` decides if ages end them."""
        self.directory = (
            OneAccount(next(iter(accounts.values()))) if isinstance(accounts, Mapping) else accounts
        )
        self.context = Context(
            policy,
            clock,
            observer or Observers(),
            name_of=self.name_of,
            clocks=clocks or ClockWatch(),
        )
        held = HeldEnds(self.context)
        cancellations = UnconfirmedCancellations(self.context)
        self.discovery = Discovery(self.context, shop, self.directory, held, cancellations)
        self._results = ResultHandler(self.context, held, cancellations, self.discovery.intake)
        self._forgot_at = clock.monotonic()
        self.writer = WriteQueue(shop, clock, self._results, patience=policy.patience)
        self._answers = AnswerHandler(self.context, self.writer, shop)
        refresh = Refresh(self.context, self.directory, self.discovery)
        self.dispatcher = Dispatcher(
            self.context, self.directory, refresh, self._answers, self.writer
        )
        self.queue, self.state = self.context.queue, self.context.state

    @property
    def accounts(self) -> Mapping[str, Account]:
        """The accounts that may be asked, by key."""
        return self.directory.accounts

    @property
    def by_login(self) -> Mapping[str, LoginAccounts]:
        """The same accounts, grouped by login."""
        return by_login(self.accounts.values())

    def name_of(self, key: str) -> str:
        """Return an account's name, or its key if the account is gone."""
        account = self.accounts.get(key)
        return key if account is None else account.name

    @property
    def is_stopping(self) -> bool:
        """Whether no more calls are started."""
        return self.dispatcher.is_stopping

    @property
    def records_every_check(self) -> bool:
        """Whether each check is written to the table, as far as a scan has shown."""
        return bool(self.state.scans) and self.discovery.shop.records_every_check

    @property
    def skips(self) -> Mapping[str, SkipReason]:
        """The orders that are not asked about, and why."""
        return self.discovery.skips

    def now(self) -> float:
        """Return epoch seconds by the database's clock, on which ``sent_at`` is based."""
        return self.context.now()

    def reconfigure(self, policy: Policy) -> None:
        """Switch to another policy, for all times that are planned from now on."""
        self.context.policy = policy
        self.context.wake.set()

    def reconfigure_accounts(
        self, opener: AnyOpener | None, calls_per_second: float, gate_after: int
    ) -> None:
        """Give every account another pace and limit, and with ``opener`` also a new client."""
        for provider in self.directory.reopen(opener) if opener else []:
            self.dispatcher.calls.retire(provider)
        for account in self.accounts.values():
            account.pace.per_second = calls_per_second
            account.gate.limit = gate_after
        self.context.wake.set()

    async def scan(self) -> None:
        """Scan for open orders, and update the queue.

        Raises:
            ShopError: the database is not available; the orders known so far are kept.
            SettingsError: the table is not as expected.
        """
        context = self.context
        began = context.clock.monotonic()
        dropped = await self.discovery.scan()
        context.observer.scanned(context.clock.monotonic() - began)
        for provider in dropped:
            self.dispatcher.calls.retire(provider)
        if context.clock.monotonic() - self._forgot_at >= FORGET_EVERY:
            self._forget_gone()
        if context.has_gone_back:
            await self._plan_anew()
        if context.policy.one_pass:
            await self.discovery.note_unasked()
        self._answers.give_up_unasked(self.accounts)
        is_more_due = True
        while is_more_due:
            await asyncio.sleep(0)
            is_more_due = context.queue.promote(context.now())
        if self.dispatcher.is_idle() and not self.writer.stands_still():
            context.state.succeeded_at = context.now()
        context.wake.set()

    def _forget_gone(self) -> None:
        self._forgot_at = self.context.clock.monotonic()
        self._results.remain(self.accounts)
        self.writer.backlog.tidy()
        self.queue.tidy()
        self.context.observer.remain({key: account.name for key, account in self.accounts.items()})

    async def _plan_anew(self) -> None:
        """Plan again the orders that are late only because the database's clock was ahead."""
        context = self.context
        context.has_gone_back = False
        async for entry in unhurried(list(context.queue)):
            now = context.now()
            if entry.stage is Stage.SCHEDULED and entry.wake > now:
                again = context.policy.plan.again(entry.order, now)
                if again is not None and again < entry.wake:
                    context.queue.schedule(entry, min(entry.due, again), wake=again)

    async def run(self) -> None:
        """Start calls when due, until stopped or, in a single pass, until nothing is left."""
        await self.dispatcher.run()
