"""Move accounts between processes: take while below a fair share, give up when above it."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from collections.abc import Set as AbstractSet
from typing import Final

import structlog

from order_monitor.cluster.membership import LEADER, Session, View
from order_monitor.cluster.reach import Reach
from order_monitor.cluster.sharing import in_turn_of, to_give, to_take
from order_monitor.core.clock import Clock
from order_monitor.watch.account import NOT_HELD
from order_monitor.watch.engine import Engine

KEPT_FOR: Final = 600.0
"""Seconds for which an account that was given up, and that no process took, is kept."""

MANY: Final = 1000
"""Number of accounts above which only those with open orders are held: each lock takes memory that
the shop's own statements need too.
"""

FULL_FOR: Final = 60.0
"""Seconds for which nothing more is taken after the server's lock table was full."""

NAMED: Final = 20


class Handover:
    """The accounts to take and give up; the last calls of those in ``giving`` are under way."""

    def __init__(self, engine: Engine, clock: Clock, reach: Reach) -> None:
        """Take and give up ``engine``'s accounts, also by who can ``reach`` their providers."""
        self._engine = engine
        self._clock = clock
        self._reach = reach
        self.giving: set[str] = set()
        self._given: dict[str, float] = {}
        self._quiet: set[str] = set()
        self._free: dict[str, int] = {}
        self._full_until = float("-inf")
        self._log = structlog.get_logger("order_monitor.cluster")

    def restart(self) -> None:
        """Reset after the membership was lost: nothing is held any more."""
        self.giving.clear()
        self._free.clear()

    def taken(self, keys: Collection[str]) -> None:
        """Record that others have taken these accounts, so they may be given up again later."""
        for key in keys:
            self._given.pop(key, None)

    def forget(self) -> None:
        """Forget what was given up: the process it was meant for may be gone without taking it."""
        self._given.clear()

    async def share(self, session: Session, view: View) -> bool:
        """Take and give up accounts to reach fair shares; return whether any was taken.

        A process that may ask nothing, such as one whose settings differ, gives up all of them: the
        others take what no process holds.
        """
        if self._engine.is_stopping:
            return False
        accounts = frozenset[str]() if self._engine.context.hold else self._wanted()
        held = {member.name: len(member.keys) for member in view.members}
        taken = frozenset().union(*(member.keys for member in view.members))
        self._free = {key: self._free.get(key, 0) + 1 for key in accounts if key not in taken}
        found = [
            *to_take(view.me.name, held, self._free),
            *(self._free.keys() & self._reach.reached),
        ]
        wanted = [
            key
            for key in dict.fromkeys(found)
            if not self._reach.leaves(key, view, self._free[key])
        ]
        if self.leaves_lead(view):
            if view.me.leads:
                await session.give([LEADER])
        elif not any(member.leads for member in view.members):
            wanted.append(LEADER)
        got = frozenset[str]()
        if wanted and self._clock.monotonic() >= self._full_until:
            got = await session.acquire(wanted)
        if session.is_full:
            session.is_full, self._full_until = False, self._clock.monotonic() + FULL_FOR
            self._log.error(
                "cluster.locks_full", held=len(view.me.keys), do="raise max_locks_per_transaction"
            )
        if not got:
            await self._give(session, view, held, accounts)
        return bool(got)

    def leaves_lead(self, view: View) -> bool:
        """Whether this process leaves to others what one does for all: it may ask nothing, and
        another one has accounts, so that one may.
        """
        is_other = any(member.keys for member in view.members if member is not view.me)
        return is_other and bool(self._engine.context.hold)

    async def _give(
        self, session: Session, view: View, held: Mapping[str, int], wanted: AbstractSet[str]
    ) -> None:
        """Stop asking accounts meant for others; release each once its last call has ended."""
        now, logins = self._clock.monotonic(), self._engine.by_login
        self._given = {key: at for key, at in self._given.items() if now - at < KEPT_FOR}
        kept = (view.me.keys & self._given.keys()) - self.giving
        count = to_give(view.me.name, held, len(self._free), kept) - len(self.giving)
        spare = in_turn_of(view.me.name, view.me.keys - kept - self.giving)
        spare = [key for key in spare if not self._reach.is_kept(key)]
        spare.sort(key=lambda key: logins[key].in_flight if key in logins else 0)
        surplus = spare[: max(0, count)]
        self._given.update(dict.fromkeys(surplus, now))
        self.giving.update(surplus, view.me.keys - wanted, self._reach.to_hand_over(view))
        for key in self.giving & logins.keys():
            logins[key].lease(NOT_HELD)
        before, self._quiet = (
            self._quiet,
            {key for key in self.giving if key not in logins or not logins[key].in_flight},
        )
        # A look later: what the last answers changed is stored until then, for the next holder.
        if quiet := sorted(before & self._quiet):
            await session.give(quiet)
            self.giving.difference_update(quiet)
            given = [account for key in quiet if key in logins for account in logins[key].accounts]
            self._forget_stuck({account.key for account in given})
            names = sorted(account.name for account in given)
            self._log.info("cluster.given", count=len(quiet), accounts=names[:NAMED])

    def _forget_stuck(self, accounts: Collection[str]) -> None:
        """Forget the stuck orders of these accounts: their new holder reports them."""
        stuck, queue = self._engine.context.state.stuck, self._engine.context.queue
        for order_id in list(stuck):
            entry = queue.get(order_id)
            if entry is None or entry.account in accounts:
                del stuck[order_id]

    def _wanted(self) -> frozenset[str]:
        """Return the logins to hold: all, or of very many only those with open orders."""
        logins = self._engine.by_login
        if len(logins) <= MANY:
            return frozenset(logins)
        queue, elsewhere = self._engine.context.queue, self._engine.context.elsewhere
        counted = elsewhere.with_orders()
        return frozenset(
            key
            for key, login in logins.items()
            if any(queue.has_any(one.key) or one.key in counted for one in login.accounts)
        )
