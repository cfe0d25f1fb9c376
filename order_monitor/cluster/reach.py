"""Hand an account over where this process cannot reach its provider and another one can, as where the
provider lets in one address alone.

Only failures of the network count: an account whose provider answers with an error answers
everybody so. The holder says that it is cut off; another process tries a request without a login,
and says whether there was a response. Only then the account moves, to that process, and stays
there for `KEPT` seconds: an account that nobody reaches does not wander.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection
from typing import Final

import structlog

from order_monitor.cluster.membership import View
from order_monitor.core.clock import Clock
from order_monitor.core.judge import Fault
from order_monitor.providers.provider import Reachable
from order_monitor.watch.account import Account
from order_monitor.watch.engine import Engine

KEPT: Final = 600.0
"""Seconds for which an account that moved stays where it is, reached or not."""

TRY_EVERY: Final = 30.0
"""Seconds between two attempts to reach a provider on behalf of its holder."""

_LATELY: Final = 60.0
"""Seconds for which an answer shows that a provider is reached."""

_LOOKS: Final = 30
"""Number of looks for which an account is left to the process that can reach it."""


def is_cut_off(accounts: Collection[Account], now: float, monotonic: float) -> bool:
    """Whether the provider of a login's accounts cannot be reached, at ``now`` (epoch seconds) and
    ``monotonic``.

    One that is closed by failures of the network shows it, unless another one of the same login is
    answered meanwhile. That the other is open does not: it may have no order that is due.
    """
    closed = [account for account in accounts if not account.gate.is_open]
    if not closed or any(account.fault is not Fault.NETWORK for account in closed):
        return False
    since = now - min(_LATELY, monotonic - min(one.closed_at for one in closed))
    return not any(
        account.gate.is_open and (account.answered_at or 0.0) > since for account in accounts
    )


class Reach:
    """What this process knows of reaching the providers: of its own accounts, and of others'."""

    def __init__(self, engine: Engine, clock: Clock) -> None:
        """Judge by the gates of ``engine``'s accounts, and try through their clients."""
        self._engine = engine
        self._clock = clock
        self._tried: dict[str, float] = {}
        self._moved: dict[str, float] = {}
        self._attempts: set[asyncio.Task[None]] = set()
        self.reached: set[str] = set()
        self._log = structlog.get_logger("order_monitor.cluster")

    def cut_off(self, view: View) -> set[str]:
        """Return which of this process's logins it cannot reach the provider of."""
        logins, now = self._engine.by_login, (self._engine.now(), self._clock.monotonic())
        return {
            key for key in view.me.keys & logins.keys() if is_cut_off(logins[key].accounts, *now)
        }

    def note_view(self, view: View) -> None:
        """Try to reach what others are cut off from, and forget what nobody needs to know."""
        now, logins = self._clock.monotonic(), self._engine.by_login
        wanted = set[str]()
        for member in view.members:
            if member is not view.me:
                wanted |= member.cut_off & logins.keys()
        self.reached &= wanted | self._free(view)
        self._moved = {key: at for key, at in self._moved.items() if now - at < KEPT}
        self._tried = {key: at for key, at in self._tried.items() if key in wanted}
        for key in wanted:
            if now - self._tried.get(key, float("-inf")) >= TRY_EVERY:
                self._tried[key] = now
                attempt = asyncio.create_task(self._try(key), name=f"reach {key}")
                self._attempts.add(attempt)
                attempt.add_done_callback(self._attempts.discard)

    def _free(self, view: View) -> set[str]:
        held = {key for member in view.members for key in member.keys}
        return self._engine.by_login.keys() - held

    async def _try(self, key: str) -> None:
        login = self._engine.by_login.get(key)
        if login is None:
            return
        provider = login.accounts[0].provider
        if isinstance(provider, Reachable) and await provider.is_reached():
            self.reached.add(key)
        else:
            self.reached.discard(key)

    def to_hand_over(self, view: View) -> set[str]:
        """Return which accounts to give up, since another process reaches their provider."""
        now = self._clock.monotonic()
        reached = {key for one in view.members if one is not view.me for key in one.reaches}
        moving = {key for key in self.cut_off(view) & reached if key not in self._moved}
        self._moved.update(dict.fromkeys(moving, now))
        if moving:
            names = [name for key in moving for name in self._engine.by_login[key].names]
            self._log.warning("cluster.unreached", accounts=sorted(names))
        return moving

    def taken(self, keys: Collection[str]) -> None:
        """Keep accounts that were taken because this process reaches their provider."""
        now = self._clock.monotonic()
        self._moved.update(dict.fromkeys(self.reached & set(keys), now))
        self.reached.difference_update(keys)

    def is_kept(self, key: str) -> bool:
        """Whether an account was moved here or away so lately that it stays."""
        return key in self._moved

    def leaves(self, key: str, view: View, looks: int) -> bool:
        """Whether a free account is left for a while to the process that can reach its provider."""
        others = [one for one in view.members if one is not view.me and key in one.reaches]
        return bool(others) and key not in self.reached and looks < _LOOKS

    def cancel(self) -> None:
        """Stop trying, and forget what was reached."""
        for attempt in self._attempts:
            attempt.cancel()
        self.reached.clear()
        self._tried.clear()
