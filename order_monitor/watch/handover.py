"""Who is to have which account: taken as long as fair shares ask for more, and given up when they ask for less."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from collections.abc import Set as AbstractSet
from typing import Final

import structlog

from order_monitor.core.clock import Clock
from order_monitor.core.sharing import in_turn_of, to_give, to_take
from order_monitor.shop.membership import LEADER, Session, View
from order_monitor.watch.account import NOT_HELD
from order_monitor.watch.takeover import Shared

KEPT_FOR: Final = 600.0
"""Seconds for which an account is not given up again that nobody took."""

MANY: Final = 1000
"""Accounts beyond which only those with open orders are held: each lock takes room that the shop's own statements need too."""

FULL_FOR: Final = 60.0
"""Seconds for which nothing more is taken where the server's table of locks is full."""

NAMED: Final = 20


class Handover:
    """What this process takes and gives; ``giving`` are the accounts of which the last calls are still under way."""

    def __init__(self, engine: Shared, clock: Clock) -> None:
        """Take and give ``engine``'s accounts."""
        self._engine = engine
        self._clock = clock
        self.giving: set[str] = set()
        self._given: dict[str, float] = {}
        self._free: dict[str, int] = {}
        self._full_until = float("-inf")
        self._log = structlog.get_logger("order_monitor.cluster")

    def start_anew(self) -> None:
        """Nothing is held any more."""
        self.giving.clear()
        self._free.clear()

    def taken(self, keys: Collection[str]) -> None:
        """Others have taken these, so they may be given up again another time."""
        for key in keys:
            self._given.pop(key, None)

    def forget(self) -> None:
        """Whom an account was given up for may be gone without it."""
        self._given.clear()

    async def share(self, session: Session, view: View) -> bool:
        """Take and give what fair shares ask for; return whether something was taken, so that it is looked at again at once."""
        if self._engine.is_stopping:
            return False
        accounts = self._wanted()
        held = {member.name: len(member.keys) for member in view.members}
        taken = frozenset().union(*(member.keys for member in view.members))
        self._free = {key: self._free.get(key, 0) + 1 for key in accounts if key not in taken}
        wanted = to_take(view.me.name, held, self._free)
        if not any(member.leads for member in view.members):
            wanted.append(LEADER)
        got = await session.take(wanted) if wanted and self._clock.monotonic() >= self._full_until else frozenset()
        if session.is_full:
            session.is_full, self._full_until = False, self._clock.monotonic() + FULL_FOR
            self._log.error("cluster.locks_full", held=len(view.me.keys), do="raise max_locks_per_transaction")
        if not got:
            await self._give(session, view, held, accounts)
        return bool(got)

    async def _give(self, session: Session, view: View, held: Mapping[str, int], wanted: AbstractSet[str]) -> None:
        """Ask nothing more of what is to be another's, and let go of it as soon as nothing of it is under way."""
        now, logins = self._clock.monotonic(), self._engine.by_login
        self._given = {key: at for key, at in self._given.items() if now - at < KEPT_FOR}
        kept = (view.me.keys & self._given.keys()) - self.giving
        count = to_give(view.me.name, held, len(self._free), kept) - len(self.giving)
        spare = in_turn_of(view.me.name, view.me.keys - kept - self.giving)
        spare.sort(key=lambda key: logins[key].in_flight if key in logins else 0)
        surplus = spare[: max(0, count)]
        self._given.update(dict.fromkeys(surplus, now))
        self.giving.update(surplus, view.me.keys - wanted)
        for key in self.giving & logins.keys():
            logins[key].lease(NOT_HELD)
        quiet = [key for key in self.giving if key not in logins or not logins[key].in_flight]
        if quiet:
            await session.give(quiet)
            self.giving.difference_update(quiet)
            given = [account for key in quiet if key in logins for account in logins[key].accounts]
            self._forget_stuck({account.key for account in given})
            names = sorted(account.name for account in given)
            self._log.info("cluster.given", count=len(quiet), accounts=names[:NAMED])

    def _forget_stuck(self, accounts: Collection[str]) -> None:
        """Whose answers cannot be written is their new holder's to say."""
        stuck, queue = self._engine.board.state.stuck, self._engine.board.queue
        for order_id in list(stuck):
            entry = queue.get(order_id)
            if entry is None or entry.account in accounts:
                del stuck[order_id]

    def _wanted(self) -> frozenset[str]:
        """Return the logins that some member is to hold: all, or of very many those with open orders."""
        logins = self._engine.by_login
        if len(logins) <= MANY:
            return frozenset(logins)
        queue = self._engine.board.queue
        return frozenset(
            key for key, login in logins.items() if any(queue.has_any(account.key) for account in login.accounts)
        )
