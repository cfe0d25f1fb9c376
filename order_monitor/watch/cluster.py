"""Several processes, each account asked by one of them: leases, renewed each second while the locks behind them are seen.

A lease is this process's own clock's word. It runs out `LEASE` seconds after the query that last saw the lock, which is well
before the server would give the lock to anybody else (`order_monitor.shop.membership.IDLE_LIMIT`): whoever was stopped,
blocked or cut off asks nothing when it comes to, until it has seen its locks again.
"""

from __future__ import annotations

from typing import Final

import structlog

from order_monitor.core.clock import Clock
from order_monitor.core.errors import ShopError
from order_monitor.shop.membership import (
    OLDER_VERSION,
    LostMembershipError,
    Membership,
    OlderVersionError,
    Session,
    View,
    behind,
)
from order_monitor.watch.account import NOT_HELD
from order_monitor.watch.handover import NAMED, Handover
from order_monitor.watch.takeover import Shared, Takeover

LEASE: Final = 5.0
"""Seconds for which an account may be asked after its lock was last seen to be held."""

LOOK_EVERY: Final = 1.0
REJOIN_AFTER: Final = 1.0


class Cluster:
    """One process's part in the membership."""

    def __init__(self, engine: Shared, membership: Membership, clock: Clock) -> None:
        """Hold leases of ``engine``'s accounts, as far as ``membership`` gives them."""
        self._engine = engine
        self._membership = membership
        self._clock = clock
        self._handover = Handover(engine, clock)
        self._seen: dict[str, tuple[float, bool]] = {}
        self._takeover = Takeover(engine)
        self._leads_until = NOT_HELD
        self._odd: frozenset[str] = frozenset()
        self.view: View | None = None
        self.problem = "not joined yet"
        self._log = structlog.get_logger("order_monitor.cluster")

    def show(self, mark: str) -> None:
        """Show another mark: the settings have changed."""
        self._membership.mark = mark

    @property
    def leads(self) -> bool:
        """Whether this process does what one does for all: the webhook's posts, and the gauges about the whole table."""
        return self._clock.monotonic() < self._leads_until

    def owners(self) -> dict[str, str]:
        """Return which member holds which account, both by their names."""
        logins = self._engine.by_login
        members = self.view.members if self.view else ()
        held = [(key, member.name) for member in members for key in member.keys if key in logins]
        return {name: member for key, member in held for name in logins[key].names}

    async def run(self) -> None:
        """Be a member for ever; whatever ends the membership ends the leases at once, and it is sought anew.

        Raises:
            SettingsError: a pooler stands in between that makes locks worthless.
        """
        while True:
            try:
                async with self._membership.joined() as session:
                    try:
                        await self._live(session)
                    finally:
                        self._drop()
            except OlderVersionError:
                self._lose(OLDER_VERSION)
            except LostMembershipError:
                self._lose("the locks are gone though the connection is not: does a pooler stand in between?")
            except ShopError as error:
                self._lose(str(error))
            await self._clock.sleep(REJOIN_AFTER)

    async def _live(self, session: Session) -> None:
        shown = self._membership.mark
        while True:
            if self._membership.mark != shown:
                shown = self._membership.mark
                await session.announce(self._membership.application)
            asked_at = self._clock.monotonic()
            view = await session.look(self._engine.by_login)
            if self.view is None:
                self._log.info("cluster.joined", member=view.me.name, members=len(view.members))
            before, self.view, self.problem = self.view, view, ""
            self._see(before, view)
            await self._hold(before, view, asked_at)
            self._say_what_differs(view)
            await self._say_what_is_behind(session, view)
            if not await self._handover.share(session, view):
                await self._clock.sleep(LOOK_EVERY)

    def _drop(self) -> None:
        """Ask nothing more: what is under way is finished, and its answers are written like any other."""
        for login in self._engine.by_login.values():
            login.lease(NOT_HELD)
        self._leads_until = NOT_HELD
        self._takeover.cancel()
        self._handover.start_anew()

    def _lose(self, why: str) -> None:
        if self.view is not None:
            self._log.error("cluster.lost", why=why)
        elif why != self.problem:
            self._log.warning("cluster.waiting", why=why)
        self.view, self.problem = None, why

    async def _hold(self, before: View | None, view: View, asked_at: float) -> None:
        """Renew the leases of what ``view`` shows to be ours; take up what has become so since ``before``."""
        logins, now = self._engine.by_login, self._clock.monotonic()
        gained = (view.me.keys - (before.me.keys if before else frozenset())) & logins.keys()
        if gained:
            names = sorted(name for key in gained for name in logins[key].names)
            self._log.info("cluster.taken", count=len(names), accounts=names[:NAMED])
            await self._takeover.start({key: self._seen.pop(key) for key in gained if key in self._seen})
        for key, login in logins.items():
            is_ours = key in view.me.keys - self._handover.giving - self._takeover.planning
            if is_ours and not login.is_held(now):
                self._engine.board.wake.set()
            login.lease(asked_at + LEASE if is_ours else NOT_HELD)
        if view.me.leads and self._leads_until == NOT_HELD:
            self._log.info("cluster.leads")
        self._leads_until = asked_at + LEASE if view.me.leads else NOT_HELD

    def _see(self, before: View | None, view: View) -> None:
        """Remember when others were last seen to hold what, and whether they were behind with it."""
        now = self._engine.board.now()
        logins = self._engine.by_login
        self._seen = {key: seen for key, seen in self._seen.items() if key in logins}
        for member in view.members:
            if member is not view.me:
                self._seen.update({key: (now, key in member.behind) for key in member.keys})
                self._handover.taken(member.keys)
        if before is None or before.names() != view.names():
            self._handover.forget()

    async def _say_what_is_behind(self, session: Session, view: View) -> None:
        """Let whoever takes an account over know that what was due of it has not all been asked."""
        late = {key for key, login in self._engine.by_login.items() if self._takeover.is_behind(login)} & view.me.keys
        if new := late - view.me.behind:
            await session.take([behind(key) for key in sorted(new)])
        if over := view.me.behind - late:
            await session.give([behind(key) for key in sorted(over)])

    def _say_what_differs(self, view: View) -> None:
        odd = frozenset(member.name for member in view.members if member.mark != view.me.mark)
        if odd - self._odd:
            self._log.warning(
                "cluster.schedules_differ", members=sorted(odd)[:NAMED], rule="each account goes by its holder's"
            )
        self._odd = odd
