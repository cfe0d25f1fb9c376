"""The balance of each account, read from time to time independently of the orders."""

from __future__ import annotations

from typing import Final

import structlog

from order_monitor.core.clock import Clock
from order_monitor.providers.provider import Balance
from order_monitor.watch.account import Account
from order_monitor.watch.engine import Engine

_MINUTE: Final = 60.0
_LOOK: Final = 5.0
_NO_BALANCE_AT_ALL: Final = frozenset(
    {"cut_short", "not_understood", "unknown_state", "two_answers", "bad_encoding"}
)
"""Reasons for a missing balance although an answer came: the answer is odd, which is no failure of
the account or the network.
"""


class Balances:
    """Reads the balances at a slow pace, one account after the other."""

    def __init__(self, engine: Engine, clock: Clock, interval: float, low: float | None) -> None:
        """Read each account's balance every ``interval`` seconds, the first a minute after the
        start; warn once below ``low``.

        A balance that is not a number is logged once too: it cannot be compared with ``low``.
        """
        self._engine = engine
        self._clock = clock
        self._interval = interval
        self._low = low
        self._began = clock.monotonic() + min(_MINUTE, interval) - interval
        self._read_at: dict[str, float] = {}
        self._warned: set[str] = set()
        self._unreadable: set[str] = set()
        self._log = structlog.get_logger("order_monitor.balances")

    async def run(self) -> None:
        """Read balances until cancelled."""
        while True:
            self._forget_gone()
            for account in list(self._engine.accounts.values()):
                if self._is_due(account):
                    self._read_at[account.key] = self._clock.monotonic()
                    await self._read(account)
            await self._clock.sleep(_LOOK)

    def _forget_gone(self) -> None:
        accounts = self._engine.accounts
        for key in self._read_at.keys() - accounts.keys():
            del self._read_at[key]
        self._warned &= self._read_at.keys()
        self._unreadable &= self._read_at.keys()

    def _is_due(self, account: Account) -> bool:
        now = self._clock.monotonic()
        is_free = account.is_ours(now) and account.gate.is_open and account.pace.ready_at() <= now
        return is_free and now - self._read_at.get(account.key, self._began) >= self._interval

    async def _read(self, account: Account) -> None:
        """Ask for the balance, at the account's pace; a failure does not affect the gate."""
        account.pace.spend(self._clock.monotonic())
        with account.calling(self._clock.monotonic()):
            found = await account.provider.balance()
        if isinstance(found, Balance):
            account.balance = found.amount
            self._warn(account)
        is_odd = (
            found.number is None if isinstance(found, Balance) else found.why in _NO_BALANCE_AT_ALL
        )
        if is_odd and account.key not in self._unreadable:
            self._unreadable.add(account.key)
            said = found.amount if isinstance(found, Balance) else found.said
            self._log.warning("account.balance_unreadable", account=account.name, said=said)
        elif isinstance(found, Balance) and not is_odd:
            self._unreadable.discard(account.key)

    def _warn(self, account: Account) -> None:
        amount = account.balance_amount
        if self._low is None or amount is None:
            return
        if amount >= self._low:
            self._warned.discard(account.key)
        elif account.key not in self._warned:
            self._warned.add(account.key)
            self._log.warning(
                "account.low_balance", account=account.name, balance=account.balance, low=self._low
            )
