"""Lets cancellations that wait for a second answer survive a restart, and a change of the process
that asks: they are stored as they come, and restored at the start and when an account is taken over.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from typing import Final, Protocol

import structlog

from order_monitor.core.clock import Clock
from order_monitor.core.errors import SettingsError, ShopError
from order_monitor.core.tracked_order import Stage
from order_monitor.shop.writing.cancellation_table import Unconfirmed
from order_monitor.watch.engine import Engine
from order_monitor.watch.observer import Observer

_LOOK: Final = 1.0
_LOOK_AT_STORED: Final = 10.0
"""Seconds between two looks whether another process has withdrawn a cancellation that waits here.
"""

_LAST: Final = 3.0
"""Seconds that storing may take at the end."""


class CancellationStore(Protocol):
    """Where they are stored.

    Implemented by `order_monitor.shop.writing.cancellation_table.CancellationTable`.
    """

    async def read(self) -> dict[str, Unconfirmed]:
        """Return the cancellations that wait, by order id."""

    async def keep(self, fresh: Mapping[str, str], settled: Sequence[str]) -> None:
        """Store new cancellations, and close the settled ones."""


class CancellationSync(Observer):
    """Stores an engine's unconfirmed cancellations."""

    def __init__(
        self, engine: Engine, shelf: CancellationStore, clock: Clock, confirm: float
    ) -> None:
        """Cancellations wait ``confirm`` seconds for their second answer."""
        self._engine = engine
        self._shelf = shelf
        self._clock = clock
        self._confirm = confirm
        self._has_recalled = False
        self._fresh: dict[str, str] = {}
        self._settled: set[str] = set()
        self._taken: set[str] = set()
        self._stored: set[str] = set()
        self._looked_at = float("-inf")
        engine.cancellations.answered = set()
        self._log = structlog.get_logger("order_monitor.doubts")

    def taken_over(self, accounts: Mapping[str, float]) -> None:
        """Resume what the accounts' previous holder has stored."""
        self._taken.update(accounts)
        if self._engine.cancellations.answered is None:
            self._engine.cancellations.answered = set()

    async def run(self) -> None:
        """Store cancellations until cancelled."""
        while True:
            try:
                await self.step()
            except (ShopError, SettingsError) as error:
                self._log.debug("doubts.waiting", why=str(error))
            await self._clock.sleep(_LOOK)

    async def leave(self) -> None:
        """Store what is new, at the end: the next process must not confirm what was withdrawn."""
        with suppress(ShopError, SettingsError, TimeoutError):
            async with asyncio.timeout(_LAST):
                await self.step()

    async def step(self) -> None:
        """Restore what was stored, once, and of accounts that were taken over; then store what is
        new, and withdraw what another process has withdrawn (``ask``, ``--once``).

        Raises:
            ShopError: the database is not available; what is new is stored at the next step.
            SettingsError: the table is not as expected.
        """
        # Before what is stored is read: it does not show yet what was withdrawn until now.
        self._collect()
        if self._engine.state.scans and (self._taken or not self._has_recalled):
            await self._restore()
            self._collect()
        if self._fresh or self._settled:
            await self._shelf.keep(dict(self._fresh), sorted(self._settled))
            self._stored = (self._stored | self._fresh.keys()) - self._settled
            self._fresh, self._settled = {}, set()
        self._stored &= self._engine.cancellations.open.keys()
        now = self._clock.monotonic()
        if self._stored and now - self._looked_at >= _LOOK_AT_STORED:
            self._looked_at = now
            self._withdraw(self._stored - (await self._shelf.read()).keys())

    def _withdraw(self, order_ids: Iterable[str]) -> None:
        """Forget cancellations that are stored no more: another process got another answer."""
        cancellations = self._engine.cancellations
        for order_id in order_ids:
            entry = self._engine.queue.get(order_id)
            if cancellations.open.pop(order_id, None) is not None and entry is not None:
                entry.note(cancelled_at=None)
                self._log.warning("order.cancel_withdrawn", order_id=order_id, outcome="elsewhere")

    def _collect(self) -> None:
        """Note what is to be stored: the cancellations that began to wait, and those that ended."""
        cancellations = self._engine.cancellations
        fresh, settled = cancellations.changes()
        gone = set[str]()
        for order_id, account in list(cancellations.open.items()):
            if self._engine.queue.get(order_id) is None:
                del cancellations.open[order_id]
                # Where another process asks about the order now, the cancellation waits there.
                gone |= set() if self._is_elsewhere(account) else {order_id}
        for order_id in settled | gone:
            self._fresh.pop(order_id, None)
        self._fresh |= {i: account for i, account in fresh.items() if i not in gone}
        self._settled |= settled | gone

    async def _restore(self) -> None:
        """Resume what is stored: all of it at the start, and later that of accounts taken over.

        Those of orders that are no longer open are settled.
        """
        taken, self._taken = self._taken, set()
        try:
            kept = await self._shelf.read()
        except (ShopError, SettingsError):
            self._taken |= taken
            raise
        found = {order_id: self._engine.queue.get(order_id) for order_id in kept}
        if not self._has_recalled:
            self._has_recalled = True
            self._settled.update(
                order_id
                for order_id, one in kept.items()
                if found[order_id] is None and not self._is_elsewhere(one.account)
            )
            self._resume(kept)
        else:
            # All open orders of these accounts have just been read, and are kept unless the account
            # has gone to another process since.
            mine = {key for key in taken if not self._is_elsewhere(key)}
            self._settled.update(
                i for i, one in kept.items() if found[i] is None and one.account in mine
            )
            self._resume({i: kept[i] for i, e in found.items() if e and e.account in taken})

    def _is_elsewhere(self, account: str) -> bool:
        """Whether this process does not keep all orders of an account."""
        return account in self._engine.context.elsewhere.accounts

    def _resume(self, kept: Mapping[str, Unconfirmed]) -> None:
        """Go on waiting where another process, or this one before, has begun; an order that was
        answered otherwise meanwhile has withdrawn its cancellation.
        """
        queue, open_ = self._engine.queue, self._engine.cancellations.open
        withdrawn = kept.keys() & (self._settled | (self._engine.cancellations.answered or set()))
        self._settled |= withdrawn
        if not self._taken:  # Others were taken over meanwhile, and are restored at the next step.
            self._engine.cancellations.answered = None
        for order_id, (_, since) in kept.items():
            entry = queue.get(order_id)
            if entry is None or order_id in withdrawn:
                continue
            if entry.stage is not Stage.WRITING and (
                entry.rare.cancelled_at is None or since < entry.rare.cancelled_at
            ):
                entry.note(cancelled_at=since)
                self._stored.add(order_id)
                if entry.is_waiting:
                    open_[order_id] = entry.account
                    queue.schedule(entry, since + self._confirm)
        if kept:
            self._engine.context.wake.set()


async def withdraw_answered(engine: Engine, shelf: CancellationStore) -> None:
    """After a single pass, withdraw the stored cancellations of orders that were answered
    otherwise, so that no daemon confirms them. ``engine.cancellations.answered`` names them.

    Raises:
        ShopError: the database is not available.
        SettingsError: the table is not as expected.
    """
    if answered := engine.cancellations.answered:
        await shelf.keep({}, sorted(answered))
