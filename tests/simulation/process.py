"""One process of the program: the real engine, directory, webhook and learned timing, over
its own connections.
"""

import asyncio
import math
import random
from collections.abc import Coroutine
from contextvars import ContextVar
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import httpx

from order_monitor.app import running
from order_monitor.cluster.members import Cluster
from order_monitor.cluster.membership import Membership
from order_monitor.core.answer import Answer, Completed
from order_monitor.core.check_result import WriteResult
from order_monitor.core.clocks import ClockWatch
from order_monitor.core.errors import OrderMonitorError, ShopMisfitError
from order_monitor.core.gate import Gate, Pace
from order_monitor.core.order import Order, SkipReason
from order_monitor.core.schedule import Continuous, Plan, Schedule
from order_monitor.core.tracked_order import Stage
from order_monitor.shop.accounts.tables import Integration
from order_monitor.shop.money_settings import MoneySettings
from order_monitor.shop.outbox import Outbox
from order_monitor.shop.presence import DAEMON, Ident, Presence
from order_monitor.shop.writing.chains import ChainTable
from order_monitor.tell.webhook import Receiver, Sender
from order_monitor.timing.learning import Learning
from order_monitor.timing.plan import Learned
from order_monitor.timing.planner import Terms, Timing
from order_monitor.timing.store import Timings
from order_monitor.watch.account import NOT_HELD, Account
from order_monitor.watch.brake_watch import BrakeWatch
from order_monitor.watch.chains import Chains
from order_monitor.watch.discovery import Shop
from order_monitor.watch.engine import Engine
from order_monitor.watch.heartbeat import Heartbeat
from order_monitor.watch.housekeeping import Housekeeping
from order_monitor.watch.lifecycle import CLUSTER, Lifecycle, Stop
from order_monitor.watch.observer import Observer, Observers
from order_monitor.watch.policy import Policy, Reading
from order_monitor.watch.recheck import Recheck
from order_monitor.watch.routing import Directory, OneAccount, ShopAccounts, label
from order_monitor.watch.settings_guard import GuardedShop, SettingsGuard, problem_of
from tests.simulation.loop import SimClock
from tests.simulation.members import SPACE
from tests.simulation.other_tables import Login
from tests.simulation.provider import Client, Limits
from tests.simulation.scenario import CONFIG
from tests.simulation.shop import ModelOrders, Pool, database_over, layout_for, ledger_for
from tests.simulation.shown import Shown
from tests.simulation.steps import Stepped, Steps

if TYPE_CHECKING:
    from tests.simulation.world import World

EPOCH = 1_790_000_000.0
SCAN = 20.0
TAKES_EFFECT = 1.0
"""Seconds after a scan until its data takes effect: a call may have started just before."""

TAKES_LONG = 60.0
"""Seconds, more than a scan takes, within which an unused client is closed."""

LOST_AFTER = 600.0
"""Seconds after which a PIN that was read has been written or reviewed, without faults."""

SKIPPED_FOR = 4
"""Scans within which an order is picked up after its account has recovered."""

MONEY = "schedule.give_up_after"
BOOT = "one boot"
"""All processes run on one machine that is never rebooted."""

PERSON = "Ayşe"

ADDRESS = "https://s.example/h"
OTHER_ADDRESS = "https://t.example/h"
SECRET = "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD"
MANY = Reading(small=0, share=1e6, longest=10 * SCAN, overlap=3 * SCAN, fresh_for=1.5 * SCAN)

owner: ContextVar["Process | None"] = ContextVar("owner", default=None)


class BrokenError(AssertionError):
    """An invariant is broken."""


def owned(loop: asyncio.AbstractEventLoop, work: Any, **given: Any) -> asyncio.Task[Any]:
    """Create a task that belongs to its creator: when a process dies, all its tasks do."""
    process = owner.get()
    if process is None:
        return asyncio.Task(work, loop=loop, **given)
    counted = Stepped(work, process.steps) if process.world.counts_steps else work
    task: asyncio.Task[Any] = asyncio.Task(counted, loop=loop, **given)
    process.tasks[task] = None
    task.add_done_callback(lambda done: process.tasks.pop(done, None))
    return task


class Process(Observer):
    """Composed like the command line, with a separate clock."""

    def __init__(
        self,
        world: "World",
        number: int,
        plan: Plan | None = None,
        author: str = "daemon",
        *,
        is_other: bool = False,
        accepts: bool = False,
    ) -> None:
        """``is_other``: its file has settings that differ from the others', and another address to
        post events to. A command that ``accepts`` uses those in force instead.
        """
        scenario = world.scenario
        self.is_other, self._accepts = is_other, accepts
        self.differs = False
        """Whether it has read that others use settings different from its own."""
        self.unsteady: set[str] = set()
        """The orders that were last asked about while this machine's clock was unreliable."""
        self.world = world
        self.number = number
        self.clock = SimClock(EPOCH)
        self.tasks: dict[asyncio.Task[Any], None] = {}
        self.steps = Steps(self.die)
        self.is_daemon = plan is None
        self.is_dead = False
        self.is_replaced = False
        """Whether another process replaces it for certain, or none does."""
        self.over = asyncio.Event()
        self.limits = Limits(
            scenario.concurrency, scenario.per_second, len(scenario.accounts), world.twins
        )
        self.read: dict[tuple[str, str], float] = {}
        """The PINs that were read and not yet written or reviewed: their orders, and since when."""
        self.clients: list[Client] = []
        from_shop = scenario.accounts != (CONFIG,)
        table_config = layout_for(
            give_up_after=scenario.give_up_after,
            last_sync=scenario.last_sync,
            author=author,
            from_shop=from_shop,
            refresh=scenario.refresh,
            brake_hold=scenario.brake_hold,
            confirm_cancelled=scenario.confirm_cancelled,
            give_up_unknown=scenario.give_up_unknown,
            ignore_before="" if scenario.is_first_start else None,
            has_chains=scenario.has_chains,
        )
        self.pool = Pool(
            world.store,
            ledger_for(table_config, last_sync=scenario.last_sync),
            self._pauses_read,
            self._logins_read,
            self._money_read,
        )
        self.database = database_over(self.pool)
        self.orders = ModelOrders(self.pool, self.database)
        self.directory: Directory = (
            ShopAccounts(self.open) if from_shop else OneAccount(self.open(None))
        )
        self._read_pauses: dict[str, float] = {}
        self._known_pauses: dict[str, float] = {}
        self._read_logins = {} if from_shop else {CONFIG: world.truth.versions[CONFIG]}
        self._known_logins = dict(self._read_logins)
        self._skipped: dict[str, int] = {}
        self._left: dict[int, float] = {}
        self.born = world.now()
        self.schedule = Schedule(give_up_after=scenario.give_up_after)
        self.learning = self._learning() if scenario.learned and plan is None else None
        self.policy = Policy(
            plan or self._plan(),
            concurrency=scenario.concurrency,
            give_up_after=scenario.give_up_after,
            confirm_cancelled=scenario.confirm_cancelled,
            one_pass=plan is not None,
            patience=30.0 if plan is not None else None,
            reading=MANY if scenario.many else Reading(),
            give_up_unknown=scenario.give_up_unknown,
        )
        self.brake, self.recheck = self._brake(), self._recheck()
        me = Ident(f"process {number}", "host", number, DAEMON if self.is_daemon else author, "1")
        self.settings_guard = SettingsGuard(self.database, "public", self._money(), me, self.clock)
        self.shown = Shown(self)
        self.engine = self._engine()
        self.settings_guard.watch(self.engine.context)
        self.heartbeat = Heartbeat(self.engine.context, Presence(self.database, "public", me), BOOT)
        if self.learning is not None:
            self.learning.watch(self.engine)
        self.stop, self.cluster = Stop(), self._cluster()
        self.sender = self._sender(table_config.rules)
        self.life = Lifecycle(
            self.engine, self.clock, self.stop, scan_interval=SCAN, background=self._background()
        )
        self.task: asyncio.Task[Any] | None = None

    def _engine(self) -> Engine:
        observer = Observers(
            [
                one
                for one in (self, self.shown, self.recheck, self.learning, self.brake)
                if one is not None
            ]
        )
        found: Shop = (
            GuardedShop(self.orders, self.orders, self.settings_guard)
            if self.is_daemon
            else self.orders
        )
        engine = Engine(
            found, self.directory, self.policy, self.clock, observer, ClockWatch(is_recalling=True)
        )
        if self.brake is not None:
            self.brake.watch(engine)
        return engine

    def _plan(self) -> Plan:
        return (
            Learned(self.schedule, self.learning.timing)
            if self.learning
            else Continuous(self.schedule)
        )

    def _brake(self) -> BrakeWatch | None:
        is_on = bool(self.world.scenario.brake_hold)
        return BrakeWatch(self.orders.brake, self.clock) if is_on else None

    def _recheck(self) -> Recheck | None:
        after = self.world.scenario.recheck
        return Recheck(self.orders, self.clock, after) if after and self.is_daemon else None

    def _learning(self) -> Learning:
        terms = Terms(budget=self.world.scenario.budget, ceiling=self.world.scenario.per_second)
        keeper = Timings(self.database, self.orders, "public", terms.half_life, terms.packages)
        return Learning(Timing(self.schedule, terms), keeper, self.clock, self.schedule)

    def _cluster(self) -> Cluster | None:
        if not (self.is_daemon and self.world.scenario.members):
            return None
        membership = Membership(self.database, SPACE, f"host-{self.number}", "a mark")
        return Cluster(self.engine, membership, self.clock)

    def leads(self) -> bool:
        """Whether it does what one process does for all."""
        return self.cluster is None or self.cluster.leads

    def _sender(self, rules: Any) -> Sender | None:
        if not self.world.scenario.webhook:
            return None
        client = httpx.AsyncClient(transport=httpx.MockTransport(self.world.receive))
        receiver = Receiver(OTHER_ADDRESS if self.is_other else ADDRESS, SECRET, rules, pause=30.0)
        return Sender(
            Outbox(self.database, "public"),
            client,
            receiver,
            self.clock,
            random.Random(self.number),
            is_ours=self.leads,
        )

    def _background(self) -> dict[str, Any]:
        if not self.is_daemon:
            return {}
        parts = running({CLUSTER: self.cluster})
        parts |= running(
            {"webhook": self.sender, "timing": self.learning, "presence": self.heartbeat}
        )
        parts |= running({"brake": self.brake, "chains": self._chains()})
        if (recheck := self.recheck) is not None:
            parts["rechecks"] = lambda: recheck.run(self.engine)
        return parts | running(
            {
                "settings": self.settings_guard,
                "housekeeping": Housekeeping(self.orders, self.engine.context),
            }
        )

    def _chains(self) -> Chains | None:
        if not self.world.scenario.has_chains:
            return None
        store = ChainTable(self.database, self.orders.schema_cache)
        return Chains(self.engine, store, self.clock, SCAN, self.leads)

    def _money(self) -> dict[str, str]:
        """The settings that decide money."""
        return {MONEY: str(self.world.scenario.give_up_after + self.is_other)}

    # --- accounts

    def open(self, integration: Integration | None) -> Account:
        """Opened like the command line's, over the model's panel."""
        row = self.world.truth.settings if integration is None else _login_of(integration)
        if not row.address.startswith("https://"):
            msg = "the address is private"
            raise ValueError(msg)
        self.clients.append(Client(self.world.panel, row, self))
        name = CONFIG if integration is None else label(integration)
        lease = NOT_HELD if self.is_daemon and self.world.scenario.members else math.inf
        pace = Pace(self.world.scenario.per_second)
        return Account(name, self.clients[-1], Gate(3), pace, lease_until=lease)

    def _pauses_read(self, paused: set[str]) -> None:
        self._read_pauses = {key: self.world.store.pauses[key] for key in paused}

    def _logins_read(self, _: list[Login]) -> None:
        self._read_logins = dict(self.world.truth.versions)

    def _money_read(self, stored: dict[str, str]) -> None:
        own = self._money()
        differs = any(own[key] != value for key, value in stored.items())
        if not self.is_daemon:
            self.differs = differs and not self._accepts
        elif differs:
            asyncio.get_running_loop().call_later(TAKES_EFFECT, self._differ)
        else:
            # It may ask at once.
            self.differs = False

    def _differ(self) -> None:
        """Take effect, unless the stored settings are this process's own now: it may have replaced
        them in the transaction that read them.
        """
        own, stored = self._money(), self.world.store.settings
        marks = {key: stored.get(f"money.{key}") for key in own}
        self.differs = any(mark is None or mark.value != own[key] for key, mark in marks.items())

    def scanned(self, seconds: float) -> None:
        """The data of a scan takes effect from now on."""
        asyncio.get_running_loop().call_later(
            TAKES_EFFECT, self._know, self._read_pauses, self._read_logins
        )
        skipped = {
            order_id: self._skipped.get(order_id, 0) + 1
            for order_id, reason in self.engine.skips.items()
            if reason is SkipReason.NO_INTEGRATION and self.world.is_settled(order_id)
        }
        self._skipped = skipped
        for order_id, looks in skipped.items():
            self.world.check(
                looks <= SKIPPED_FOR, f"{order_id} is skipped although its account is well"
            )

    def checked(self, account: str, order: Order, answer: Answer, seconds: float) -> None:
        """A PIN that was read must not be lost from now on."""
        is_steady = self.clock.is_believed(self.born)
        (self.unsteady.discard if is_steady else self.unsteady.add)(order.id)
        self.world.sight.heard(self, order, answer)
        if isinstance(answer, Completed) and answer.pin is not None:
            self.read[order.id, answer.pin.reveal()] = self.world.now()

    def settled(self, account: str, result: WriteResult, delay: float) -> None:
        """It is stored, or waits for a person."""
        finding = result.finding
        if finding.pin is not None:
            self.read.pop((finding.order.id, finding.pin.reveal()), None)
            self.world.was_read(finding)

    def _know(self, pauses: dict[str, float], logins: dict[str, int]) -> None:
        self._known_pauses, self._known_logins = pauses, logins

    def forbidden(self, row: Login) -> str:
        """Return the reason, as far as this process knows, why a call by this login must not begin.

        An empty string if it may.
        """
        store, truth = self.world.store, self.world.truth
        if self.differs:
            return "known to go by other settings"
        until = self._known_pauses.get(row.id)
        if until is not None and store.pauses.get(row.id) == until > store.now():
            return "known as paused"
        if self._known_logins.get(row.id) != truth.versions[row.id]:
            return ""
        now = truth.settings if row.id == CONFIG else store.logins.get(row.id)
        if now is None or not truth.is_well(row.id):
            return "known as switched off"
        return (
            ""
            if (row.address, row.sifre) == (now.address, now.sifre)
            else "by a login known as old"
        )

    def reload(
        self, schedule: Schedule, concurrency: int, per_second: float, *, reopen: bool
    ) -> None:
        """Like SIGHUP: every setting, in the order in which the program applies it."""
        self.schedule = schedule
        if self.learning is not None:
            self.learning.reconfigure(schedule)
        self.policy = replace(self.policy, plan=self._plan(), concurrency=concurrency)
        self.engine.reconfigure(self.policy)
        self.engine.reconfigure_accounts(self.open if reopen else None, per_second, 2)
        self.life.reconfigure(grace=25.0, scan_interval=SCAN)
        if reopen and self.world.scenario.accounts == (CONFIG,):
            versions = {CONFIG: self.world.truth.versions[CONFIG]}
            self._read_logins = versions
            asyncio.get_running_loop().call_later(
                TAKES_EFFECT, self._know, self._known_pauses, versions
            )

    def look(self) -> None:
        """Check that each order is due within the longest pause, and that no client is left
        open.
        """
        jitter = 1 + self.schedule.jitter
        is_replanned = self.world.now() - self.world.store.ahead_since > 3 * SCAN
        for entry in self.engine.queue:
            is_sent = entry.sent_at is None or entry.sent_at <= self.world.store.now()
            if entry.stage is Stage.SCHEDULED and self.is_daemon and is_replanned and is_sent:
                ahead = entry.due - self.world.store.now()
                self.world.check(
                    ahead <= 600.0 * jitter + 5, f"{entry.order.id} is due in {ahead:.0f} s only"
                )
        self.world.sight.look(self)
        self.shown.look_whether_ready()
        self.shown.look_at_the_page()
        current = {id(account.provider) for account in self.engine.accounts.values()}
        current |= {
            id(client) for client in self.engine.discovery.dropped
        }  # closed after the next complete scan
        if not self.engine.dispatcher.calls and not self.engine.dispatcher.calls.closing:
            left = [c for c in self.clients if not c.is_closed and id(c) not in current]
            now = self.world.now()
            self._left = {id(client): self._left.get(id(client), now) for client in left}
            late = sum(now - since > TAKES_LONG for since in self._left.values())
            self.world.check(not late, f"{late} clients are left open")
        self.clients = [client for client in self.clients if not client.is_closed]

    def look_for_lost(self) -> None:
        """Check that no PIN is kept only in memory when there are no faults any more."""
        for (order_id, pin), at in self.read.items():
            self.world.check(
                self.world.now() - at < LOST_AFTER,
                f"PIN {pin} of {order_id} was read, and is nowhere",
            )

    # --- life

    def start(self, work: Coroutine[Any, Any, Any]) -> None:
        """Start."""
        self.shown.watch(SCAN, self.sender)
        self.task = asyncio.create_task(work, name="process")
        self.task.add_done_callback(lambda _: self.over.set())

    async def daemon(self) -> None:
        """Run until stopped, and save what was learned."""
        await self.life.forever(self.sender.begin if self.sender is not None else None)
        if self.learning is not None:
            await self.learning.save()
        await self.heartbeat.leave()
        await self.settings_guard.leave()

    async def agree(self) -> None:
        """Begin like a command: only with the settings that are in force.

        Raises:
            ShopMisfitError: this process's are different, and it does not accept others.
        """
        async with self.database.transaction() as connection:
            agreement = await MoneySettings("public").reconcile(
                connection, self._money(), by=PERSON
            )
        if (problem := problem_of(agreement.differing)) and not self._accepts:
            raise ShopMisfitError(problem)

    async def once(self, shop: Shop | None = None) -> None:
        """Make one pass over all orders, or over some, and post what is due."""
        await self.agree()
        if shop is not None:
            self.engine.discovery.shop = shop
        if self.sender is not None:
            await self.sender.begin()
        is_written = await self.life.once(self._before_one_pass)
        if is_written and shop is None and (chains := self._chains()) is not None:
            await chains.attempt()
        if self.brake is not None:
            await self.brake.finish()
        await self.heartbeat.tell()
        if self.sender is not None and not self.stop.event.is_set():
            await self.sender.drain()

    async def _before_one_pass(self) -> None:
        await self.heartbeat.begin()
        if self.brake is not None:
            await self.brake.step()

    def die(self) -> None:
        """Like ``kill -9``: nothing is finished and nothing is written, except for a COMMIT that
        the server already has.
        """
        if self.is_dead:
            return
        self.is_dead = True
        self.steps.left = None
        self.steps.thaw()
        self.pool.die(commits=self.world.commits_at_death(self.number))
        self.world.died(self)
        for task in list(self.tasks):
            task.cancel()

    async def kill(self) -> None:
        """Die, and wait until all its tasks are gone."""
        self.die()
        if self.tasks:
            await asyncio.wait(list(self.tasks), timeout=5)

    async def end(self) -> None:
        """Like SIGTERM."""
        was_well = self.world.can_write()
        self.stop.event.set()
        if self.task is not None:
            await asyncio.wait({self.task}, timeout=120)
            if not self.task.done():
                raise BrokenError("a stop took more than 120 s")
            error = None if self.task.cancelled() else self.task.exception()
            if error is not None and not isinstance(error, OrderMonitorError):
                raise BrokenError(f"a process died of {error!r}")
            may_write = was_well and self.world.can_write() and not (self.is_dead or self.differs)
            if may_write and error is None:
                unwritten = sorted(self.read)
                self.world.check(not unwritten, f"{unwritten} were read, and not written at a stop")


def _login_of(integration: Integration) -> Login:
    i = integration
    return Login(i.id, i.name, i.enabled, i.base_url, i.password, i.provider, i.user)
