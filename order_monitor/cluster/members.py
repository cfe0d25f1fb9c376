"""Leases on accounts: several processes, each account asked by only one of them. Leases are renewed
every second while the locks behind them are seen.

A lease is measured by this process's own clock. It ends `LEASE` seconds after the query that last
saw the lock, well before the server would give the lock to another process
(`order_monitor.cluster.membership.IDLE_LIMIT`). A process that was stopped, blocked or cut off
therefore asks nothing when it resumes, until it has seen its locks again.
"""

from __future__ import annotations

import math
from typing import Final

import structlog

from order_monitor.cluster.handover import NAMED, Handover
from order_monitor.cluster.membership import (
    BEHIND,
    CUT_OFF,
    REACHES,
    LostMembershipError,
    Member,
    Membership,
    OlderVersionError,
    Session,
    View,
)
from order_monitor.cluster.reach import Reach
from order_monitor.cluster.takeover import Last, Takeover
from order_monitor.core.clock import Clock
from order_monitor.core.errors import ShopError
from order_monitor.shop.locks import OLDER_VERSION
from order_monitor.watch.account import NOT_HELD
from order_monitor.watch.engine import Engine

LEASE: Final = 5.0
"""Seconds for which an account may be asked after its lock was last seen to be held."""

LOOK_EVERY: Final = 1.0
REJOIN_AFTER: Final = 1.0
_KNOWN_EVERY: Final = 0.05


class Cluster:
    """The membership of this process in the cluster."""

    def __init__(self, engine: Engine, membership: Membership, clock: Clock) -> None:
        """Lease ``engine``'s accounts, as far as ``membership`` grants them."""
        self._engine = engine
        self._membership = membership
        self._clock = clock
        self._reach = Reach(engine, clock)
        self._handover = Handover(engine, clock, self._reach)
        self._seen: dict[str, Last] = {}
        self.takeover = Takeover(engine)
        self._held: frozenset[str] = frozenset()
        self.leads_until = NOT_HELD
        self._odd: frozenset[str] = frozenset()
        self.view: View | None = None
        self.problem = "not joined yet"
        self._log = structlog.get_logger("order_monitor.cluster")

    def show(self, mark: str) -> None:
        """Publish another mark: the settings have changed."""
        self._membership.mark = mark

    @property
    def leads(self) -> bool:
        """Whether this process does what one does for all: the webhook, gauges of the table."""
        return self._clock.monotonic() < self.leads_until

    def members(self) -> frozenset[str] | None:
        """Return the announced names of all that share the accounts; None if it sees none."""
        if self.view is None:
            return None
        return frozenset(one.name.rpartition("/")[0] for one in self.view.members)

    def owners(self) -> dict[str, str]:
        """Return which member holds which account, both by name."""
        logins = self._engine.by_login
        members = self.view.members if self.view else ()
        held = [(key, member.name) for member in members for key in member.keys if key in logins]
        return {name: member for key, member in held for name in logins[key].names}

    async def run(self) -> None:
        """Be a member until cancelled.

        When the membership is lost, all leases end at once, and the process tries to join again.

        Raises:
            SettingsError: a connection pooler makes the locks worthless.
        """
        await self._know_accounts()
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
                self._lose(
                    "the locks are gone though the connection is not: does a pooler stand in between?"
                )
            except ShopError as error:
                self._lose(str(error))
            await self._clock.sleep(REJOIN_AFTER)

    async def _know_accounts(self) -> None:
        """Wait until a first scan has found accounts, or none, or has failed: locks are known by
        account, and who is seen to hold one is not asked for the same again.

        A process is ready only as a member, and a rolling update may then stop another one at once.
        """
        state = self._engine.state
        while not (self._engine.accounts or state.scans or state.scan_problem is not None):
            await self._clock.sleep(_KNOWN_EVERY)

    async def _live(self, session: Session) -> None:
        shown = self._membership.mark
        while True:
            if self._membership.mark != shown:
                shown = self._membership.mark
                await session.announce(self._membership.application)
            asked_at = self._clock.monotonic()
            view = await session.see(self._engine.by_login)
            if self.view is None:
                self._log.info("cluster.joined", member=view.me.name, members=len(view.members))
            before, self.view, self.problem = self.view, view, ""
            self._see(before, view)
            await self._hold(before, view, asked_at)
            self._say_what_differs(view)
            self._reach.note_view(view)
            await self._say_what_is_known(session, view)
            if not await self._handover.share(session, view):
                await self._clock.sleep(LOOK_EVERY)

    def _drop(self) -> None:
        """Ask nothing more. Calls under way are finished and their answers written as usual."""
        for login in self._engine.by_login.values():
            login.lease(NOT_HELD)
        self.leads_until = NOT_HELD
        self.takeover.cancel()
        self._reach.cancel()
        self._handover.restart()

    def _lose(self, why: str) -> None:
        if self.view is not None:
            self._log.error("cluster.lost", why=why)
        elif why != self.problem:
            self._log.warning("cluster.waiting", why=why)
        self.view, self.problem = None, why

    async def _hold(self, before: View | None, view: View, asked_at: float) -> None:
        """Renew the leases of accounts that are ours, and take over those new since ``before``."""
        logins, now = self._engine.by_login, self._clock.monotonic()
        gained = (view.me.keys - (before.me.keys if before else frozenset())) & logins.keys()
        if gained:
            names = sorted(name for key in gained for name in logins[key].names)
            self._reach.taken(gained)
            for key in gained:
                logins[key].gained(asked_at)
            self._log.info("cluster.taken", count=len(names), accounts=names[:NAMED])
        seen = {key: self._seen.pop(key) for key in gained if key in self._seen}
        others = frozenset[str]().union(*(m.keys for m in view.members if m is not view.me))
        unread = self.takeover.follow(view.me.keys & logins.keys(), others)
        await self.takeover.start(unread | (gained & (seen.keys() | self._held)), seen)
        self._held = (self._held | gained) & logins.keys()
        ours = view.me.keys - self._handover.giving - self.takeover.planning
        for key, login in logins.items():
            is_ours = key in ours
            if is_ours and not login.is_held(now):
                self._engine.context.wake.set()
            login.lease(asked_at + LEASE if is_ours else NOT_HELD)
        leads = view.me.leads and not self._handover.leaves_lead(view)
        if leads and self.leads_until == NOT_HELD:
            self._log.info("cluster.leads")
        self.leads_until = asked_at + LEASE if leads else NOT_HELD

    def _see(self, before: View | None, view: View) -> None:
        """Record when others were last seen to hold accounts, and whether they were behind."""
        now = self._engine.context.now()
        logins = self._engine.by_login
        self._seen = {key: seen for key, seen in self._seen.items() if key in logins}
        for member in view.members:
            if member is not view.me:
                self._seen.update({key: self._last(key, member, now) for key in member.keys})
                self._handover.taken(member.keys)
        if before is None or before.names() != view.names():
            self._handover.forget()

    def _last(self, key: str, member: Member, now: float) -> Last:
        """Return what is seen now of a login that ``member`` holds."""
        if key not in member.behind:
            return Last(now, is_behind=False, kept_up_at=now)
        before = self._seen.get(key)
        return Last(now, is_behind=True, kept_up_at=before.kept_up_at if before else -math.inf)

    async def _say_what_is_known(self, session: Session, view: View) -> None:
        """Publish for which accounts not all due orders have been asked about, so that a process
        that takes one over knows it; and which providers cannot be reached from here, or can.
        """
        late = {
            key for key, login in self._engine.by_login.items() if self.takeover.is_behind(login)
        } & view.me.keys
        for mark, shown, wanted in (
            (BEHIND, view.me.behind, late),
            (CUT_OFF, view.me.cut_off, self._reach.cut_off(view)),
            (REACHES, view.me.reaches, self._reach.reached),
        ):
            if new := wanted - shown:
                await session.acquire([f"{mark}{key}" for key in sorted(new)])
            if over := shown - wanted:
                await session.give([f"{mark}{key}" for key in sorted(over)])

    def _say_what_differs(self, view: View) -> None:
        odd = frozenset(member.name for member in view.members if member.mark != view.me.mark)
        if odd - self._odd:
            self._log.warning(
                "cluster.schedules_differ",
                members=sorted(odd)[:NAMED],
                rule="each account goes by its holder's",
            )
        self._odd = odd
