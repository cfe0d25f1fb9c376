"""Gathers the evidence that releases held ends: whether another order of the account is understood,
and whether its completed orders are still completed.

Orders completed in the last day are asked about once more as controls, at the account's own pace: a
faulty panel reports those as cancelled, too. The results are stored in the database, where the
transaction that writes uses them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

import structlog

from order_monitor.core.answer import (
    Answer,
    Blocked,
    Busy,
    Cancelled,
    Completed,
    Unreachable,
    Waiting,
)
from order_monitor.core.brake import CONTROLS, verdict_of
from order_monitor.core.clock import Clock
from order_monitor.core.errors import SettingsError, ShopError
from order_monitor.core.order import Order
from order_monitor.shop.writing.brake import Control
from order_monitor.shop.writing.brake_table import BrakeTable, Question
from order_monitor.watch.account import Account
from order_monitor.watch.engine import Engine
from order_monitor.watch.observer import Observer

_LOOK: Final = 10.0
_TRY_AGAIN: Final = 60.0
"""Seconds after which controls that could not be asked are tried again."""

_LONGEST_WAIT: Final = 30.0


class BrakeWatch(Observer):
    """Asks the controls of an engine's accounts, and records which other orders are understood."""

    def __init__(self, table: BrakeTable, clock: Clock) -> None:
        """Store the evidence at ``table``."""
        self._table = table
        self._clock = clock
        self._engine: Engine | None = None
        self._seen: dict[str, float] = {}
        self._tried: dict[str, float] = {}
        self._log = structlog.get_logger("order_monitor.brake")

    def watch(self, engine: Engine) -> None:
        """Watch ``engine``; this object must be one of its observers."""
        self._engine = engine

    def checked(self, account: str, order: Order, answer: Answer, seconds: float) -> None:
        """Remember when an order was last understood as waiting or completed."""
        if self._engine is not None and isinstance(answer, (Waiting, Completed)):
            found = self._engine.directory.account_of(order)
            if isinstance(found, Account):
                self._seen[found.key] = self._engine.now()

    def remain(self, accounts: Mapping[str, str]) -> None:
        """Drop the times of accounts that are gone, and pauses of controls that are over."""
        now = self._clock.monotonic()
        self._seen = {key: at for key, at in self._seen.items() if key in accounts}
        self._tried = {login: at for login, at in self._tried.items() if now - at < _TRY_AGAIN}

    async def run(self) -> None:
        """Run the steps until cancelled; they do nothing unless something is held."""
        while True:
            await self._clock.sleep(_LOOK)
            await self.step()

    async def step(self) -> None:
        """Record what was understood, and ask due controls; the next step tries again."""
        engine = self._engine
        if engine is None or not (engine.state.held or engine.state.kept) or engine.context.hold:
            return
        try:
            await self.note()
            for question in await self._table.questions():
                await self._ask(engine, question)
        except (ShopError, SettingsError) as error:
            self._log.debug("brake.waiting", why=str(error))

    async def note(self) -> None:
        """Record what was understood.

        Raises:
            ShopError: the database is not available.
            SettingsError: the table is not as expected.
        """
        if self._seen:
            await self._table.understood(dict(self._seen))

    async def finish(self) -> None:
        """Record what a single pass has understood, for the next one."""
        engine = self._engine
        if engine is not None and (engine.state.held or engine.state.kept):
            try:
                await self.note()
            except (ShopError, SettingsError) as error:
                self._log.debug("brake.waiting", why=str(error))

    async def _ask(self, engine: Engine, question: Question) -> None:
        now = self._clock.monotonic()
        if now - self._tried.get(question.login, float("-inf")) < _TRY_AGAIN:
            return
        self._tried[question.login] = now
        answers = await self._answers(engine, question.controls)
        if answers is not None:
            verdict = verdict_of(answers)
            await self._table.answered(question.login, verdict)
            self._log.info("brake.controlled", verdict=verdict, asked=len(answers))

    async def _answers(self, engine: Engine, controls: Sequence[Control]) -> list[Answer] | None:
        """Ask until enough is understood; None if an account stays silent, which proves nothing."""
        answers: list[Answer] = []
        for control in controls:
            account = engine.accounts.get(control.account)
            if account is None:
                continue
            if not await self._may_ask(account):
                return None
            account.pace.spend(self._clock.monotonic())
            with account.calling(self._clock.monotonic()):
                answer = (await account.provider.ask(control.reference)).answer
            if isinstance(answer, (Blocked, Busy, Unreachable)):
                return None
            answers.append(answer)
            understood = sum(isinstance(one, (Completed, Waiting)) for one in answers)
            if isinstance(answer, Cancelled) or understood >= CONTROLS:
                break
        return answers

    async def _may_ask(self, account: Account) -> bool:
        """Wait for the account's turn; return whether it has come."""
        end = self._clock.monotonic() + _LONGEST_WAIT
        while not account.may_start(now := self._clock.monotonic()):
            at = account.may_start_at()
            if not account.gate.is_open or not account.is_ours(now) or at is None or now >= end:
                return False
            await self._clock.sleep(max(0.01, at - now))
        return account.gate.is_open
