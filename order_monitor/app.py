"""Builds the program from the settings: the only module that knows all of its parts.

Commands open what they need from here with one ``async with``; the daemon is `App`.
"""

from __future__ import annotations

import asyncio
import functools
import os
import secrets
import socket
import ssl
from collections.abc import Callable, Coroutine, Iterable, Mapping
from contextlib import AbstractAsyncContextManager, aclosing, nullcontext, suppress
from hashlib import blake2b
from http.cookiejar import CookieJar, DefaultCookiePolicy
from pathlib import Path
from typing import Any, Final, Protocol, Self, TypeVar
from urllib.parse import urlsplit

import httpx
import structlog

from order_monitor import __version__
from order_monitor.cluster.members import Cluster
from order_monitor.cluster.membership import Membership, member_name
from order_monitor.cluster.other_daemons import OtherDaemons
from order_monitor.core.clock import Clock
from order_monitor.core.clocks import ClockWatch
from order_monitor.core.decision import Rules
from order_monitor.core.gate import Gate, Pace
from order_monitor.core.login import KIND_OF, Credentials
from order_monitor.core.order import CONFIGURED
from order_monitor.core.proxy import Proxy, parse_proxy
from order_monitor.core.schedule import Continuous, Plan, Schedule
from order_monitor.providers.http.address_guard import (
    is_forbidden_host,
    is_loopback,
    public_addresses,
)
from order_monitor.providers.http.resolver import Resolve, Resolver
from order_monitor.providers.http.transport import FreshConnections, ProxyRoute, trusting
from order_monitor.providers.kind import AccountAccess, ClientOptions
from order_monitor.providers.registry import KINDS
from order_monitor.settings.loading import load
from order_monitor.settings.model import Settings
from order_monitor.settings.money import money_of
from order_monitor.settings.sections import NotifySettings, WebhookSettings
from order_monitor.settings.types import check_url
from order_monitor.shop.accounts.tables import Integration
from order_monitor.shop.database import Database
from order_monitor.shop.notices import NoticeStore
from order_monitor.shop.outbox import Outbox
from order_monitor.shop.presence import DAEMON, Ident, Presence
from order_monitor.shop.repository import Orders
from order_monitor.shop.schema.table_config import DELIVERIES, TIMING, TableConfig
from order_monitor.shop.writing.chains import ChainTable
from order_monitor.shop.writing.late import LateTable
from order_monitor.tell.alerter import Alerter
from order_monitor.tell.connection_limiter import files_limit
from order_monitor.tell.finder import Finder
from order_monitor.tell.health import Access, HealthServer, Site
from order_monitor.tell.logs import LineSink, set_up
from order_monitor.tell.messages import Messages
from order_monitor.tell.metrics import Metrics
from order_monitor.tell.page import Dashboard
from order_monitor.tell.ping import PING_TIMEOUT, Ping
from order_monitor.tell.readiness import Readiness
from order_monitor.tell.redactor import Redactor
from order_monitor.tell.services import MISSING, MISSING_DO, NoLibraryError, services_of
from order_monitor.tell.status_view import StatusView
from order_monitor.tell.systemd import Notifier
from order_monitor.tell.traces import secrets_in, traces_of
from order_monitor.tell.webhook import Receiver, Sender
from order_monitor.timing.learning import Learning
from order_monitor.timing.plan import Learned
from order_monitor.timing.planner import Terms, Timing
from order_monitor.timing.store import Timings
from order_monitor.watch.account import NOT_HELD, Account
from order_monitor.watch.balances import Balances
from order_monitor.watch.brake_watch import BrakeWatch
from order_monitor.watch.chains import Chains
from order_monitor.watch.context import Context
from order_monitor.watch.discovery import Shop
from order_monitor.watch.engine import Engine
from order_monitor.watch.heartbeat import Heartbeat
from order_monitor.watch.housekeeping import Housekeeping
from order_monitor.watch.late_orders import LateOrders
from order_monitor.watch.lifecycle import CLUSTER, Lifecycle, Stop
from order_monitor.watch.observer import Observer, Observers
from order_monitor.watch.observing import ObservingPlan, ObservingShop
from order_monitor.watch.policy import Policy
from order_monitor.watch.recheck import Recheck
from order_monitor.watch.routing import AnyOpener, Directory, OneAccount, ShopAccounts, label
from order_monitor.watch.settings_guard import GuardedShop, SettingsGuard
from order_monitor.watch.system_clock import SystemClock, boot_id

PATIENCE: Final = 60.0
"""Seconds for which a pass keeps trying to write without progress, before it reports that and
ends.
"""


def settings_of(
    config: Path | None, *need: str, least: str | None = None
) -> tuple[Settings, LineSink, Redactor]:
    """Load the settings and start logging, at the level in the settings or at ``least``.

    Raises:
        SettingsError: with every mistake.
    """
    settings = load(config, need=need)
    sink, redactor = set_up(least or settings.log.level, settings.log.format)
    redactor.learn(settings.secrets())
    return settings, sink, redactor


def database_of(settings: Settings, *, keeps_statements: bool = False) -> Database:
    """Return the database, not connected yet; see `Database` for ``keeps_statements``."""
    address = settings.database.address()
    assert address is not None
    return Database(
        address,
        statement_timeout=settings.database.statement_timeout,
        pool_size=settings.database.pool_size,
        keeps_statements=keeps_statements,
    )


def table_config_of(settings: Settings) -> TableConfig:
    """Return the configuration of the orders table."""
    statuses, schedule = settings.statuses, settings.schedule
    return TableConfig(
        schema=settings.database.schema_,
        table=settings.database.table,
        overrides=settings.database.columns
        | (
            {"manual_note": settings.notes.customer_column}
            if settings.notes.customer_column
            else {}
        ),
        time_zone=settings.database.time_zone,
        open=statuses.open,
        known=statuses.known,
        rules=Rules(
            completed=statuses.completed,
            failed=statuses.failed,
            processing=statuses.processing,
            give_up_after=schedule.give_up_after,
            give_up_blind=schedule.give_up_blind,
            give_up_unknown=schedule.give_up_unknown,
            first_check=schedule.first_check,
            no_pin=settings.provider.no_pin,
            brake_hold=schedule.brake_hold,
            confirm_cancelled=schedule.confirm_cancelled,
        ),
        record_sync=schedule.record_sync,
        accounts_from_shop=settings.provider.source == "database",
        refresh=settings.provider.refresh,
        is_consumed=settings.events.consumer == "none",
        pins_elsewhere=settings.database.pins == "elsewhere",
        await_pin=schedule.await_pin,
        unique_pins=settings.provider.unique_pins,
        reference_reuse=settings.provider.reference_reuse,
        lookup=settings.database.lookup,
        credentials=_configured(settings),
        ignore_before=schedule.ignore_before,
        settled=statuses.settled,
        follows_chains=settings.provider.chains == "monitor",
        has_customer_notes=settings.notes.customer_column is not None,
        note_author=settings.notes.author,
        observes=settings.observe,
        further_rights={
            **({DELIVERIES: ("UPDATE",)} if settings.webhook.url else {}),
            **(
                {TIMING: ("SELECT", "INSERT", "UPDATE", "DELETE")}
                if schedule.strategy == "learned"
                else {}
            ),
        },
    )


def _configured(settings: Settings) -> Credentials | None:
    """Return the login of the account in the settings, None if there is none."""
    given = settings.provider
    if given.source != "config" or given.base_url is None:
        return None
    access = _configured_access(settings)
    found = Credentials.of(given.kind, given.base_url, access.user, access.token)
    return found if found.user else None


def orders_of(settings: Settings, database: Database) -> Orders:
    """Return the orders table."""
    return Orders(database, table_config_of(settings))


def schedule_of(settings: Settings) -> Schedule:
    """Return the schedule."""
    s = settings.schedule
    return Schedule(s.first_check, s.base, s.cap, s.jitter, s.give_up_after)


def open_account(
    settings: Settings,
    clock: Clock,
    kind: str,
    access: AccountAccess,
    name: str,
    resolve: Resolve,
    proxy_route: ProxyRoute | None,
) -> Account:
    """Return an account with its own client, gate and pace.

    It connects only to addresses that ``resolve`` returns, through ``proxy_route`` if there is one.

    Raises:
        ValueError: a value that an account of this ``kind`` needs is missing.
    """
    given, limits = settings.provider, settings.limits
    connections = FreshConnections(trusting_of(given.ca_file), resolve, proxy_route)
    options = ClientOptions(
        given.connect_timeout,
        given.timeout,
        given.max_body,
        given.user_agent,
        given.no_pin,
        given.batch,
        given,
    )
    client = KINDS[kind].open(access, options, connections, clock)
    pace = Pace(limits.calls_per_second)
    account = Account(name, client, Gate(limits.gate_after), pace, kind=kind)
    if proxy_route is not None and not is_loopback(urlsplit(access.base_url).hostname or ""):
        account.proxy = proxy_route.proxy.shown
    return account


def _configured_access(settings: Settings) -> AccountAccess:
    """Return the access data of the account in the settings; missing values were reported at the
    start.
    """
    given = settings.provider
    assert given.base_url is not None
    read = KINDS[given.kind].configured
    assert read is not None
    return read(given.base_url, given)


@functools.cache
def trusting_of(ca_file: str | None) -> ssl.SSLContext:
    """Return the TLS context that all accounts share."""
    return trusting(ca_file)


def opener_of(settings: Settings, clock: Clock, *, shared: bool = False) -> AnyOpener:
    """Return the function that creates an account: from one of the shop's integrations, or from the
    settings if there is none.
    """
    given, resolve = settings.provider, Resolver()
    is_guarded = not given.allow_private
    checked = functools.partial(public_addresses, resolve=resolve)
    proxy = parse_proxy(given.proxy.get_secret_value()) if given.proxy else None

    def open_one(integration: Integration | None) -> Account:
        account = open_any(integration)
        if shared:
            account.lease_until = NOT_HELD
        return account

    def open_any(integration: Integration | None) -> Account:
        if integration is None:
            # An address in monitor.toml is set by the operator, and may be anywhere.
            proxy_route = _proxy_route(proxy, resolve, is_guarded=False)
            access = _configured_access(settings)
            return open_account(
                settings, clock, given.kind, access, CONFIGURED, resolve, proxy_route
            )
        url = check_url(integration.base_url, allow_http=given.allow_http)
        if is_guarded and is_forbidden_host(urlsplit(url).hostname or ""):
            raise ValueError("the address is private; see provider.allow_private")
        access = AccountAccess(url, integration.user, integration.password, integration.token)
        proxy_route = _proxy_route(proxy, resolve, is_guarded=is_guarded)
        if own := integration.proxy.strip():
            # It comes from the same table as the address, and is untrusted input as well.
            proxy_route = _proxy_route(
                parse_proxy(own), checked if is_guarded else resolve, is_guarded=is_guarded
            )
            if is_guarded and is_forbidden_host(parse_proxy(own).host):
                raise ValueError(
                    "the proxy's address is private; see provider.allow_private, or set it as provider.proxy"
                )
        return open_account(
            settings,
            clock,
            KIND_OF[integration.provider],
            access,
            label(integration),
            checked if is_guarded else resolve,
            proxy_route,
        )

    return open_one


def _proxy_route(proxy: Proxy | None, resolve: Resolve, *, is_guarded: bool) -> ProxyRoute | None:
    """Return the route through ``proxy``, whose address ``resolve`` looks up.

    A proxy that resolves names itself could connect anywhere: with ``is_guarded`` it gets checked
    addresses instead.
    """
    if proxy is None:
        return None
    return ProxyRoute(proxy, resolve, takes_names=not is_guarded and proxy.scheme != "socks5")


def directory_of(
    settings: Settings,
    clock: Clock,
    on_secrets: Callable[[Mapping[str, Iterable[str]]], None],
    *,
    shared: bool = False,
) -> Directory:
    """Return the accounts: the one in the settings, or the shop's own.

    With ``shared``, no account is held at first.
    """
    opener = opener_of(settings, clock, shared=shared)
    if settings.provider.source == "config":
        return OneAccount(opener(None))
    return ShopAccounts(opener, on_secrets)


def terms_of(settings: Settings) -> Terms:
    """Return the settings of learned timing."""
    schedule, budget = settings.schedule, settings.schedule.budget
    ceiling = settings.limits.calls_per_second
    shortest = min(schedule.min_interval, schedule.cap)
    return Terms(shortest, None if isinstance(budget, str) else budget, ceiling, schedule.half_life)


def plan_of(settings: Settings, timing: Timing | None) -> Plan:
    """Return the plan for checks: by ``timing`` if given, else by the schedule."""
    schedule = schedule_of(settings)
    plan: Plan = Continuous(schedule) if timing is None else Learned(schedule, timing)
    return ObservingPlan(plan, table_config_of(settings)) if settings.observe else plan


def as_observed(settings: Settings) -> Settings:
    """Return the settings of a process that only observes: it posts nothing, notifies no one, learns
    nothing, and believes nothing that goes by what was written before.

    What decides money is compared and stored by the settings as they were given.
    """
    if not settings.observe:
        return settings
    off = {
        "schedule.strategy": "backoff",
        "schedule.brake_hold": 0.0,
        "schedule.recheck_after": 0.0,
        "schedule.await_pin": 0.0,
        "schedule.late_after": 0.0,
        "provider.chains": "shop",
    }
    silent = {"webhook": WebhookSettings(), "notify": NotifySettings()}
    return settings.with_values(off).model_copy(update=silent)


def shop_of(settings: Settings, orders: Orders, directory: Directory, clock: Clock) -> Shop:
    """Return where orders are found and answers are written, or only observed."""
    if not settings.observe:
        return orders
    confirm = settings.schedule.confirm_cancelled
    return ObservingShop(orders, orders.observations, directory, clock, confirm)


def policy_of(settings: Settings, *, one_pass: bool = False, plan: Plan | None = None) -> Policy:
    """Return the policy for watching orders; ``plan`` is the schedule by default."""
    schedule = settings.schedule
    return Policy(
        plan or Continuous(schedule_of(settings)),
        concurrency=settings.limits.concurrency,
        give_up_after=schedule.give_up_after,
        give_up_blind=schedule.give_up_blind,
        confirm_cancelled=schedule.confirm_cancelled,
        first_check=schedule.first_check,
        cap=schedule.cap,
        give_up_unknown=schedule.give_up_unknown,
        one_pass=one_pass,
        patience=PATIENCE if one_pass else None,
        min_interval=schedule.min_interval,
    )


def engine_of(
    orders: Shop,
    directory: Directory,
    policy: Policy,
    clock: Clock,
    observer: Observer | None = None,
) -> Engine:
    """Return an engine that watches ``orders`` by ``policy``, and asks the accounts in
    ``directory``.

    It ends no order by its age before a `Heartbeat` has restored the state of the clocks.
    """
    return Engine(orders, directory, policy, clock, observer, ClockWatch(is_recalling=True))


def presence_of(settings: Settings, database: Database, kind: str) -> Presence:
    """Return the presence row of this process, which is of this ``kind``."""
    ident = Ident(secrets.token_hex(8), socket.gethostname(), os.getpid(), kind, __version__)
    return Presence(database, settings.database.schema_, ident)


def heartbeat_of(settings: Settings, database: Database, engine: Engine, kind: str) -> Heartbeat:
    """Return the heartbeat that reports this process, which is of this ``kind``, and its clocks."""
    return Heartbeat(engine.context, presence_of(settings, database, kind), boot_id())


def membership_of(settings: Settings, database: Database, *, on_trial: bool = False) -> Membership:
    """Return the membership over this shop's orders, with this machine's name and this process's
    number.

    With ``on_trial``, the membership is one that no other process joins.
    """
    table = f"{table_of(settings)}{' on trial' * on_trial}"
    name = member_name(socket.gethostname(), os.getpid())
    return Membership(database, table, name, mark_of(settings))


def table_of(settings: Settings) -> str:
    """Return the orders table with its schema, as the members of a cluster name it."""
    return f"{settings.database.schema_}.{settings.database.table}"


def mark_of(settings: Settings) -> str:
    """Return a digest that distinguishes the schedules of the processes in a cluster."""
    return blake2b(repr((settings.schedule, settings.limits)).encode(), digest_size=4).hexdigest()


class Closes(Protocol):
    """A part that holds connections."""

    async def aclose(self) -> None:
        """Close them."""


_Part = TypeVar("_Part", bound=Closes)


def closing(part: _Part | None) -> AbstractAsyncContextManager[_Part | None]:
    """Close a part at the end of the block, if there is one."""
    return nullcontext() if part is None else aclosing(part)


def client_of(timeout: float) -> httpx.AsyncClient:
    """Return a client that uses a new connection for each request: on a kept connection a stray
    "200" would count as a delivery.

    Its cookie jar accepts nothing: cookies set by a receiver, or by a login page in its place, are
    not sent back.
    """
    return httpx.AsyncClient(
        transport=FreshConnections(trusting_of(None), Resolver()),
        timeout=timeout,
        trust_env=False,
        follow_redirects=False,
        cookies=CookieJar(DefaultCookiePolicy(allowed_domains=[])),
    )


def health_of(settings: Settings, probe: Readiness, site: Site) -> HealthServer | None:
    """Return the health endpoint, None if it is disabled."""
    health = settings.health
    if not health.enabled:
        return None
    token = health.token.get_secret_value() if health.token else None
    return HealthServer(
        probe, Access(health.host, health.port, token, health.hosts), site, files=files_limit()
    )


def sender_of(
    settings: Settings,
    database: Database,
    is_ours: Callable[[], bool] = lambda: True,
    context: Context | None = None,
) -> Sender | None:
    """Return the webhook sender, which posts while ``is_ours`` and as slowly as ``context``
    requires.

    None without a webhook.
    """
    given = settings.webhook
    if given.url is None or given.secret is None:
        return None
    client = client_of(given.timeout)
    receiver = Receiver(
        given.url.get_secret_value(),
        given.secret.get_secret_value(),
        table_config_of(settings).rules,
        given.timeout,
        given.max_attempts,
    )
    outbox = Outbox(database, settings.database.schema_)
    return Sender(outbox, client, receiver, SystemClock(), is_ours=is_ours, context=context)


def alerter_of(
    settings: Settings, database: Database, clock: Clock, me: str, redactor: Redactor
) -> Alerter | None:
    """Return the alerter that notifies people, named ``me`` among the shop's processes.

    None if there are no services, or the library is missing.
    """
    if not settings.notify.urls:
        return None
    try:
        services = services_of([url.get_secret_value() for url in settings.notify.urls])
    except NoLibraryError:
        structlog.get_logger("order_monitor.notify").error(
            "notify.missing", why=MISSING, do=MISSING_DO
        )
        return None
    row = NoticeStore(database, settings.database.schema_)
    messages, daily_at = messages_of(settings.notify), settings.notify.daily_minutes
    return Alerter(row, services, messages, clock, me, daily_at, redactor)


def messages_of(notify: NotifySettings) -> Messages:
    """Return the writer of messages about this host."""
    return Messages(notify.language, socket.gethostname())


def ping_of(settings: Settings) -> Ping | None:
    """Return the dead man's switch, None if there is none."""
    url = settings.health.ping_url
    if url is None:
        return None
    return Ping(client_of(PING_TIMEOUT), url.get_secret_value(), SystemClock())


_LAST_SPANS: Final = 2.0


def learning_of(
    settings: Settings, database: Database, orders: Orders, clock: Clock
) -> Learning | None:
    """Return the part that learns when orders end, None if only the schedule decides."""
    if settings.schedule.strategy != "learned":
        return None
    terms, schedule = terms_of(settings), schedule_of(settings)
    timings = Timings(database, orders, settings.database.schema_, terms.half_life, terms.packages)
    return Learning(Timing(schedule, terms), timings, clock, schedule)


def chains_of(
    settings: Settings,
    engine: Engine,
    database: Database,
    orders: Orders,
    clock: Clock,
    is_ours: Callable[[], bool] = lambda: True,
) -> Chains | None:
    """Return what ends the orders that other tenants took, None where the shop does that itself, or
    is only observed.
    """
    if settings.provider.chains == "shop" or settings.observe:
        return None
    store = ChainTable(database, orders.schema_cache)
    return Chains(engine, store, clock, settings.schedule.scan_interval, is_ours)


def late_orders_of(
    settings: Settings,
    engine: Engine,
    orders: Orders,
    clock: Clock,
    is_ours: Callable[[], bool] = lambda: True,
) -> LateOrders | None:
    """Return what reports orders that are open for long, None if that is off or the shop is only
    observed.
    """
    after = settings.schedule.late_after
    if settings.observe or not after:
        return None
    return LateOrders(engine, LateTable(orders.schema_cache), clock, after, is_ours)


def balances_of(settings: Settings, engine: Engine, clock: Clock) -> Balances | None:
    """Return the part that reads balances, None if that is disabled."""
    interval = settings.provider.balance_interval
    return Balances(engine, clock, interval, settings.provider.low_balance) if interval else None


class Runs(Protocol):
    """A part that runs as long as the daemon does."""

    async def run(self) -> None:
        """Run until cancelled."""


def running(parts: Mapping[str, Runs | None]) -> dict[str, Callable[[], Coroutine[Any, Any, None]]]:
    """Return the parts that are present, by name."""
    return {name: part.run for name, part in parts.items() if part is not None}


class App:
    """Everything that runs in one daemon."""

    def __init__(
        self,
        settings: Settings,
        stop: Stop,
        redactor: Redactor,
        dropped: Callable[[], int] = lambda: 0,
        clock: Clock | None = None,
    ) -> None:
        """Build the parts from the settings; nothing connects or listens yet.

        ``dropped`` returns the number of lost log lines.
        """
        money, settings = money_of(settings), as_observed(settings)
        clock, schedule = clock or SystemClock(), settings.schedule
        shared, give_up_after = settings.cluster.enabled, schedule.give_up_after
        redactor.learn(secrets_in(os.environ))
        database = self.database = database_of(settings, keeps_statements=True)
        view = self.view = StatusView(clock)
        orders = self.orders = orders_of(settings, database)
        metrics, self.traces = Metrics(view, dropped), traces_of(clock)
        recheck = Recheck(orders, clock, schedule.recheck_after) if schedule.recheck_after else None
        learning = self.learning = learning_of(settings, database, orders, clock)
        brake = BrakeWatch(orders.brake, clock)
        observers = (metrics, view.history, self.traces, recheck, learning, brake)
        presence = presence_of(settings, database, DAEMON)
        guard = self.settings_guard = SettingsGuard(
            database, settings.database.schema_, money, presence.ident, clock
        )
        directory = directory_of(settings, clock, redactor.follow, shared=shared)
        engine = self.engine = engine_of(
            GuardedShop(shop_of(settings, orders, directory, clock), orders, guard),
            directory,
            policy_of(settings, plan=plan_of(settings, learning.timing if learning else None)),
            clock,
            Observers(one for one in observers if one is not None),
        )
        guard.watch(engine.context)
        brake.watch(engine)
        self.heartbeat = Heartbeat(engine.context, presence, boot_id())
        cluster = Cluster(engine, membership_of(settings, database), clock) if shared else None
        leads = (lambda: cluster.leads) if cluster else lambda: True
        sender = self.sender = sender_of(settings, database, leads, engine.context)
        probe = self.probe = Readiness(engine, clock, schedule.scan_interval, cluster, sender)
        ping = self.ping = ping_of(settings)
        view.cluster = cluster
        view.watch(engine, probe, give_up_after, sender)
        self.notifier = Notifier(view, clock)
        alerter = alerter_of(settings, database, clock, presence.ident.id, redactor)
        is_counted = settings.health.enabled or alerter is not None
        tasks = running(
            {
                CLUSTER: cluster,
                "webhook": sender,
                "timing": learning,
                "balances": balances_of(settings, engine, clock),
                "presence": self.heartbeat,
                "settings": guard,
                "other daemons": OtherDaemons(
                    engine.context, presence, clock, cluster.members if cluster else None
                ),
                "brake": brake,
                "housekeeping": Housekeeping(orders, engine.context),
                "chains": chains_of(settings, engine, database, orders, clock, leads),
                "late orders": late_orders_of(settings, engine, orders, clock, leads),
                "census": view.queue_summary if is_counted else None,
                "systemd": self.notifier if self.notifier.listens else None,
            }
        )
        if alerter is not None:
            tasks["notify"] = lambda: alerter.run(view)
        if ping is not None:
            tasks["ping"] = lambda: ping.run(probe)
        if recheck is not None:
            tasks["rechecks"] = lambda: recheck.run(engine)
        if learning is not None:
            learning.watch(engine)
            view.learned = learning.timing
        grace, interval = settings.shutdown.grace, schedule.scan_interval
        self.life = Lifecycle(
            engine, clock, stop, grace=grace, scan_interval=interval, background=tasks
        )
        site = Dashboard(view, metrics, Finder(view, database, orders))
        self.health = health_of(settings, probe, site)

    async def __aenter__(self) -> Self:
        """Do nothing yet: connections and sockets are opened on first use."""
        return self

    async def __aexit__(self, *_: object) -> None:
        """Close everything."""
        await self.close()

    async def close(self) -> None:
        """Stop listening, save what was learned, and close every connection."""
        if self.health is not None:
            await self.health.stop()
        if self.learning is not None:
            await self.learning.save()
        await self.heartbeat.leave()
        await self.settings_guard.leave()
        if self.sender is not None:
            await self.sender.aclose()
        await self.engine.directory.aclose()
        await self.database.close()
        if self.ping is not None:
            await self.ping.aclose()
        if self.traces is not None:
            # An unreachable collector makes this block, in a thread that the exit does not wait
            # for.
            with suppress(TimeoutError):
                await asyncio.wait_for(asyncio.to_thread(self.traces.close), _LAST_SPANS)
