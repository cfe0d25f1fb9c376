"""Take an account over from another process: read its orders, and schedule them so that checks
which that process has made are not repeated. And leave one to another process.

A process keeps the orders of an account only while no other one is known to ask it
(`order_monitor.watch.elsewhere`).
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Coroutine, Iterable, Mapping
from collections.abc import Set as AbstractSet
from typing import Final, NamedTuple

import structlog

from order_monitor.core.errors import SettingsError, ShopError
from order_monitor.core.tracked_order import TrackedOrder
from order_monitor.watch.account import LoginAccounts
from order_monitor.watch.engine import Engine
from order_monitor.watch.turns import unhurried

MARGIN: Final = 30.0
"""Checks that the previous holder was making when it was lost have no answer, so slots in this many
seconds before that are repeated.
"""

_AGAIN_AFTER: Final = 1.0
"""Seconds until the orders of an account are read again, if they could not be read."""


class Last(NamedTuple):
    """When another process last held a login, whether it was behind with it, and when it last was
    not (epoch seconds; minus infinity if it always was).
    """

    held_at: float
    is_behind: bool
    kept_up_at: float


class Takeover:
    """Schedules orders in the background: with very many it takes long, and the leases of all other
    accounts must not run out meanwhile.
    """

    def __init__(self, engine: Engine) -> None:
        """Schedule the orders of ``engine``."""
        self._engine = engine
        self._plans: set[asyncio.Task[None]] = set()
        self._under_way: dict[asyncio.Task[None], tuple[Collection[str], Collection[str]]] = {}
        self.planning: set[str] = set()
        self._unread: set[str] = set()
        self._reading = asyncio.Lock()
        self._log = structlog.get_logger("order_monitor.cluster")

    def is_behind(self, login: LoginAccounts) -> bool:
        """Whether due orders of a login went unasked: closed, paused, or too many for its pace."""
        if any(
            not account.gate.is_open or account.paused is not None for account in login.accounts
        ):
            return True
        backlog = sum(
            self._engine.context.queue.ready.count(account.key) for account in login.accounts
        )
        return backlog > login.accounts[0].pace.per_second * MARGIN

    async def start(self, gained: Collection[str], before: Mapping[str, Last]) -> None:
        """Start to take over the logins ``gained`` that others may have asked: to read their
        orders, and to schedule those of the ones that another process was seen to hold ``before``.

        They are in ``planning`` until that is done.
        """
        if not gained:
            return
        gained, keys = frozenset(gained), _keys_of(gained, self._engine.by_login)
        plan = self._start(self._plan(gained, keys, before), "take over")
        self._under_way[plan] = gained, keys
        self._follow_plans()
        plan.add_done_callback(self._ended)
        await asyncio.sleep(0)

    def follow(self, mine: AbstractSet[str], others: AbstractSet[str]) -> set[str]:
        """Keep orders of logins that ``others`` hold no more; return those of ``mine`` to read."""
        # Read once: `by_login` groups all accounts, of which there may be thousands, at each access.
        elsewhere, logins = self._engine.context.elsewhere, self._engine.by_login
        left = _keys_of(others - mine, logins) - elsewhere.accounts
        elsewhere.accounts |= left
        elsewhere.accounts &= _keys_of(logins, logins)
        if left:
            self._start(self._engine.discovery.leave_accounts(left), "leave")
        unread = {key for key in mine if _keys_of({key}, logins) & elsewhere.accounts}
        return unread - self.planning

    def _start(self, work: Coroutine[None, None, None], name: str) -> asyncio.Task[None]:
        plan = asyncio.create_task(work, name=name)
        self._plans.add(plan)
        plan.add_done_callback(self._done)
        return plan

    def _done(self, plan: asyncio.Task[None]) -> None:
        self._plans.discard(plan)
        if not plan.cancelled() and (error := plan.exception()) is not None:
            # What was to be read is read again: see `follow`.
            self._log.error("cluster.failed", task=plan.get_name(), error=type(error).__name__)

    def cancel(self) -> None:
        """Stop; leave unscheduled what is not scheduled yet."""
        for plan in self._plans:
            plan.cancel()
        self._unread.clear()

    def _ended(self, plan: asyncio.Task[None]) -> None:
        """Leave planned and read what other plans still plan and read: one that was cancelled may
        end only after the next has begun.
        """
        del self._under_way[plan]
        self._follow_plans()

    def _follow_plans(self) -> None:
        plans = self._under_way.values()
        self.planning = {login for logins, _ in plans for login in logins}
        self._engine.context.elsewhere.reading = {key for _, keys in plans for key in keys}

    async def _plan(
        self, gained: Collection[str], keys: Collection[str], before: Mapping[str, Last]
    ) -> None:
        # What was never another's, as far as this process saw, is all kept: a lost connection does
        # not make it read everything again.
        unread = self._engine.context.elsewhere.accounts & set(keys)
        if unread:
            await self._read(unread)
            self._engine.context.elsewhere.keep(unread)
        await self._take_up(gained, before)

    async def _read(self, keys: Collection[str]) -> None:
        """Read the accounts' open orders, however often that fails: nothing is asked before.

        One read at a time, of all that wait for one: each goes through the whole table, over a
        connection that the answers need too.
        """
        self._unread.update(keys)
        told = ""
        async with self._reading:
            while not self._unread.isdisjoint(keys):
                batch, self._unread = self._unread, set()
                try:
                    await self._engine.discovery.read_accounts(batch)
                except (ShopError, SettingsError) as error:
                    self._unread |= batch
                    if str(error) != told:
                        told = str(error)
                        self._log.warning("cluster.not_read", why=told)
                    await self._engine.context.clock.sleep(_AGAIN_AFTER)
                except Exception:
                    self._unread |= batch
                    raise

    async def _take_up(self, gained: Collection[str], before: Mapping[str, Last]) -> None:
        """Forget what this process knew of the orders' answers, and schedule the orders again.

        If each check is recorded in the table, the record shows what was asked. Otherwise we assume
        that everything due was asked, unless the previous holder was behind.
        """
        context, logins = self._engine.context, self._engine.by_login
        since: dict[str, float | None] = {}
        taken: dict[str, float] = {}
        for key in gained:
            for account in logins[key].accounts if key in logins else ():
                taken[account.key] = context.now()
                if key in before:
                    last = before[key]
                    is_asked = not (last.is_behind or self._engine.records_every_check)
                    account.gate.restart()
                    taken[account.key] = last.kept_up_at
                    since[account.key] = last.held_at if is_asked else None
        async for entry in unhurried(list(context.queue)):
            if entry.account not in taken or context.queue.get(entry.id) is not entry:
                continue
            if not entry.is_in_hand:
                entry.note(unknown=0)
            if entry.account in since and entry.is_waiting:
                self._schedule(entry, since[entry.account])
        context.observer.taken_over(taken)

    def _schedule(self, entry: TrackedOrder, last: float | None) -> None:
        context = self._engine.context
        now, plan = context.now(), context.policy.plan
        due = plan.first(entry.order, now)
        if due is not None and last is not None and due <= last - MARGIN:
            due = plan.again(entry.order, now)
        if due is not None:
            context.queue.schedule(entry, due)


def _keys_of(logins: Iterable[str], known: Mapping[str, LoginAccounts]) -> set[str]:
    return {one.key for login in logins if login in known for one in known[login].accounts}
