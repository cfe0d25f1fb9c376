"""What is done now and then beside the orders: each account's balance is read, and a dead man's switch is told that all is well."""

from __future__ import annotations

import asyncio
from typing import Final

import httpx
import structlog

from order_monitor.account import Account
from order_monitor.clock import Clock
from order_monitor.engine import Engine
from order_monitor.providers.seam import Balance
from order_monitor.tell.probe import Probe

PING_TIMEOUT: Final = 10.0
_MINUTE: Final = 60.0
_LOOK: Final = 5.0


class Balances:
    """Reads the balances at a slow pace, one account after the other."""

    def __init__(self, engine: Engine, clock: Clock, interval: float, low: float | None) -> None:
        """Read each account's balance every ``interval`` seconds, the first a minute after the start; warn once below ``low``."""
        self._engine = engine
        self._clock = clock
        self._interval = interval
        self._low = low
        self._began = clock.monotonic() + min(_MINUTE, interval) - interval
        self._read_at: dict[str, float] = {}
        self._warned: set[str] = set()
        self._log = structlog.get_logger("order_monitor.balances")

    async def run(self) -> None:
        """Read for ever."""
        while True:
            for account in list(self._engine.accounts.values()):
                if self._is_due(account):
                    self._read_at[account.name] = self._clock.monotonic()
                    await self._read(account)
            await self._clock.sleep(_LOOK)

    def _is_due(self, account: Account) -> bool:
        now = self._clock.monotonic()
        is_free = account.paused is None and account.gate.is_open and account.pace.ready_at() <= now
        return is_free and now - self._read_at.get(account.name, self._began) >= self._interval

    async def _read(self, account: Account) -> None:
        """Ask for the balance; it counts against the account's pace, and a failure is no matter of its gate."""
        account.pace.take(self._clock.monotonic())
        found = await account.provider.balance()
        if isinstance(found, Balance):
            account.balance = found.amount
            self._warn(account)

    def _warn(self, account: Account) -> None:
        amount = account.balance_amount
        if self._low is None or amount is None or amount >= self._low:
            self._warned.discard(account.name)
        elif account.name not in self._warned:
            self._warned.add(account.name)
            self._log.warning("account.low_balance", account=account.name, balance=account.balance, low=self._low)


class Ping:
    """A dead man's switch: somebody outside notices when this falls silent."""

    def __init__(self, client: httpx.AsyncClient, url: str, clock: Clock) -> None:
        """Call ``url`` when all is well, ``url``/fail when it is not."""
        self._client = client
        self._url = url.rstrip("/")
        self._clock = clock
        self._failed = False
        self._log = structlog.get_logger("order_monitor.ping")

    async def run(self, probe: Probe) -> None:
        """Tell each minute how ``probe`` judges it."""
        while True:
            await self._clock.sleep(_MINUTE)
            await self.tell(is_good=not probe.reasons())

    async def tell(self, *, is_good: bool) -> None:
        """Tell once; that nobody hears it is no matter of the orders."""
        why = ""
        try:
            async with asyncio.timeout(PING_TIMEOUT):
                answer = await self._client.get(self._url if is_good else f"{self._url}/fail")
                why = "" if answer.is_success else f"http_{answer.status_code}"
        except (httpx.HTTPError, httpx.InvalidURL, OSError, ValueError) as error:
            why = type(error).__name__
        if why and not self._failed:
            self._log.warning("ping.failed", why=why)
        self._failed = bool(why)

    async def aclose(self) -> None:
        """Close the connections."""
        await self._client.aclose()
