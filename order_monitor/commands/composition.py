"""Put the parts together from the settings: the one place that knows all of them."""

from __future__ import annotations

import functools
import os
import secrets
import socket
import ssl
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from hashlib import blake2b
from pathlib import Path
from typing import Final, TypeAlias, assert_never
from urllib.parse import urlsplit

from order_monitor import __version__
from order_monitor.core.clock import Clock
from order_monitor.core.clocks import ClockWatch
from order_monitor.core.decision import Rules
from order_monitor.core.gate import Gate, Pace
from order_monitor.core.login import CLIENT_API, KINDS, Credentials
from order_monitor.core.order import CONFIGURED
from order_monitor.core.proxy import Proxy, parse_proxy
from order_monitor.core.schedule import Continuous, Plan, Schedule
from order_monitor.core.timing.plan import Learned
from order_monitor.core.timing.planner import Timing
from order_monitor.core.timing.terms import Terms
from order_monitor.providers.address_guard import is_forbidden_host, is_loopback, public_addresses
from order_monitor.providers.client_api import ClientApi, ClientApiAccount
from order_monitor.providers.exchange import CallLimits
from order_monitor.providers.provider import Provider
from order_monitor.providers.resolver import Resolve, Resolver
from order_monitor.providers.transport import FreshConnections, ProxyRoute, trusting
from order_monitor.providers.znet import Znet, ZnetAccount
from order_monitor.settings.asking import FINAL_STATUSES
from order_monitor.settings.loading import load
from order_monitor.settings.model import Settings
from order_monitor.settings.types import check_url
from order_monitor.shop.accounts import Integration
from order_monitor.shop.database import Database
from order_monitor.shop.layout import DELIVERIES, NEVER_SENT, TIMING, Layout
from order_monitor.shop.membership import Membership
from order_monitor.shop.money_settings import Daemon
from order_monitor.shop.presence import Ident, Presence
from order_monitor.shop.repository import Orders
from order_monitor.tell.logs import LineSink, set_up
from order_monitor.tell.redactor import Redactor
from order_monitor.tell.webhook import Sender
from order_monitor.watch.account import NOT_HELD, Account
from order_monitor.watch.attendance import Attendance
from order_monitor.watch.discovery import Shop
from order_monitor.watch.engine import Engine
from order_monitor.watch.observer import Observer
from order_monitor.watch.policy import Policy
from order_monitor.watch.routing import AnyOpener, Directory, OneAccount, ShopAccounts, label
from order_monitor.watch.system_clock import SystemClock, boot_id

PATIENCE: Final = 60.0
"""Seconds one pass tries to write without progress, before it says so and ends."""


def settings_of(config: Path | None, *need: str, least: str | None = None) -> tuple[Settings, LineSink, Redactor]:
    """Read the settings and start logging by them, or with ``least`` from another level on.

    Raises:
        SettingsError: with every mistake.
    """
    settings = load(config, need=need)
    sink, redactor = set_up(least or settings.log.level, settings.log.format)
    redactor.learn(settings.secrets())
    return settings, sink, redactor


def database_of(settings: Settings) -> Database:
    """Return the database, not connected yet."""
    address = settings.database.address()
    assert address is not None
    return Database(
        address, statement_timeout=settings.database.statement_timeout, pool_size=settings.database.pool_size
    )


def layout_of(settings: Settings) -> Layout:
    """Return what the settings say of the orders table."""
    statuses, schedule = settings.statuses, settings.schedule
    return Layout(
        schema=settings.database.schema_,
        table=settings.database.table,
        overrides=settings.database.columns,
        time_zone=settings.database.time_zone,
        open=statuses.open,
        known=tuple(
            dict.fromkeys(
                s for s in (*FINAL_STATUSES, NEVER_SENT, statuses.completed, statuses.failed) if s not in statuses.open
            )
        ),
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
        further_rights={
            **({DELIVERIES: ("UPDATE",)} if settings.webhook.url else {}),
            **({TIMING: ("SELECT", "INSERT", "UPDATE", "DELETE")} if schedule.strategy == "learned" else {}),
        },
    )


def _configured(settings: Settings) -> Credentials | None:
    """Return who is logged in at the account in the settings, where there is one."""
    given = settings.provider
    if given.source != "config" or given.base_url is None or given.kod is None:
        return None
    return Credentials("znet", given.base_url, given.kod.get_secret_value())


@dataclass(frozen=True, slots=True)
class ZnetLogin:
    """A user name and a password at a dealer panel."""

    base_url: str
    kod: str = field(repr=False)
    sifre: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class TokenLogin:
    """A token at a client API."""

    base_url: str
    token: str = field(repr=False)


def orders_of(settings: Settings, database: Database) -> Orders:
    """Return the orders table."""
    return Orders(database, layout_of(settings))


def schedule_of(settings: Settings) -> Schedule:
    """Return the schedule."""
    s = settings.schedule
    return Schedule(s.first_check, s.base, s.cap, s.jitter, s.give_up_after)


Login: TypeAlias = ZnetLogin | TokenLogin
"""How an account is reached: by which address, and by what it is known there."""


def open_login(
    settings: Settings, clock: Clock, login: Login, name: str, resolve: Resolve, proxy_route: ProxyRoute | None
) -> Account:
    """Return an account with a client, a gate and a pace of its own.

    It calls only what ``resolve`` returns, through the ``proxy_route`` where there is one.
    """
    given, limits = settings.provider, settings.limits
    connections = FreshConnections(trusting_of(given.ca_file), resolve, proxy_route)
    client = _client_of(settings, clock, login, connections)
    account = Account(name, client, Gate(limits.gate_after), Pace(limits.calls_per_second))
    if proxy_route is not None and not is_loopback(urlsplit(login.base_url).hostname or ""):
        account.proxy = proxy_route.proxy.shown
    return account


def _client_of(settings: Settings, clock: Clock, login: Login, connections: FreshConnections) -> Provider:
    given = settings.provider
    match login:
        case TokenLogin(base_url, token):
            # An answer about many orders is longer.
            longest = given.max_body * (1 + given.batch // 8)
            limits = CallLimits(given.connect_timeout, given.timeout, longest, given.user_agent)
            account = ClientApiAccount(base_url, token, limits, given.no_pin, given.replay, given.batch)
            return ClientApi(account, connections, clock)
        case ZnetLogin(base_url, kod, sifre):
            znet = ZnetAccount(
                base_url,
                kod,
                sifre,
                given.status_path,
                given.connect_timeout,
                given.timeout,
                given.max_body,
                given.user_agent,
                given.no_pin,
            )
            return Znet(znet, connections, clock)
        case _:
            assert_never(login)


def _login_of(integration: Integration, url: str) -> Login:
    """Return how the account of an integration is reached at ``url``.

    Raises:
        ValueError: its row lacks something for that.
    """
    if KINDS[integration.provider] == CLIENT_API:
        if not integration.token:
            msg = "it has no token: see the column api_token of integrations"
            raise ValueError(msg)
        return TokenLogin(url, integration.token)
    if not integration.kod.strip() or not integration.sifre.strip():
        msg = "kod or sifre is empty"
        raise ValueError(msg)
    return ZnetLogin(url, integration.kod, integration.sifre)


@functools.cache
def trusting_of(ca_file: str | None) -> ssl.SSLContext:
    """Return the one TLS context that every account shares."""
    return trusting(ca_file)


def opener_of(settings: Settings, clock: Clock, *, shared: bool = False) -> AnyOpener:
    """Return what makes an account: of an integration of the shop's, or of the settings where there is none."""
    given, resolve = settings.provider, Resolver()
    is_guarded = not given.allow_private
    checked = functools.partial(public_addresses, resolve=resolve)
    proxy = parse_proxy(given.proxy.get_secret_value()) if given.proxy else None

    def open_account(integration: Integration | None) -> Account:
        account = open_any(integration)
        if shared:
            account.lease_until = NOT_HELD
        return account

    def open_any(integration: Integration | None) -> Account:
        if integration is None:
            assert given.base_url and given.kod and given.sifre  # noqa: PT018 - settings_of was told that they are needed
            own_login = ZnetLogin(given.base_url, given.kod.get_secret_value(), given.sifre.get_secret_value())
            # An address in monitor.toml is the operator's own, and may be anywhere.
            proxy_route = _proxy_route(proxy, resolve, is_guarded=False)
            return open_login(settings, clock, own_login, CONFIGURED, resolve, proxy_route)
        url = check_url(integration.base_url, allow_http=given.allow_http)
        if is_guarded and is_forbidden_host(urlsplit(url).hostname or ""):
            msg = "the address is private; see provider.allow_private"
            raise ValueError(msg)
        login = _login_of(integration, url)
        proxy_route = _proxy_route(proxy, resolve, is_guarded=is_guarded)
        if own := integration.proxy.strip():
            # It comes from the same table as the address, and is other people's input as well.
            proxy_route = _proxy_route(parse_proxy(own), checked if is_guarded else resolve, is_guarded=is_guarded)
            if is_guarded and is_forbidden_host(parse_proxy(own).host):
                msg = "the proxy's address is private; see provider.allow_private, or set it as provider.proxy"
                raise ValueError(msg)
        return open_login(settings, clock, login, label(integration), checked if is_guarded else resolve, proxy_route)

    return open_account


def _proxy_route(proxy: Proxy | None, resolve: Resolve, *, is_guarded: bool) -> ProxyRoute | None:
    """Return the way through ``proxy``, which ``resolve`` finds.

    A name that it looked up itself could lead anywhere: where that is to be guarded against, it is given checked addresses.
    """
    return ProxyRoute(proxy, resolve, takes_names=not is_guarded and proxy.scheme != "socks5") if proxy else None


def directory_of(
    settings: Settings, clock: Clock, on_secrets: Callable[[Mapping[str, Iterable[str]]], None], *, shared: bool = False
) -> Directory:
    """Return the accounts: the one of the settings, or the shop's own. Those that are ``shared`` are nobody's at first."""
    opener = opener_of(settings, clock, shared=shared)
    return OneAccount(opener(None)) if settings.provider.source == "config" else ShopAccounts(opener, on_secrets)


def terms_of(settings: Settings) -> Terms:
    """Return what may be set of learned timing."""
    schedule, budget = settings.schedule, settings.schedule.budget
    ceiling = settings.limits.calls_per_second
    shortest = min(schedule.min_interval, schedule.cap)
    return Terms(shortest, None if isinstance(budget, str) else budget, ceiling, schedule.half_life)


def plan_of(settings: Settings, timing: Timing | None) -> Plan:
    """Return when orders are asked about: by ``timing`` where there is one, else by the schedule."""
    schedule = schedule_of(settings)
    return Continuous(schedule) if timing is None else Learned(schedule, timing)


def policy_of(settings: Settings, *, one_pass: bool = False, plan: Plan | None = None) -> Policy:
    """Return how orders are watched; ``plan`` is by default the schedule."""
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
    )


def engine_of(
    settings: Settings,
    orders: Shop,
    redactor: Redactor,
    policy: Policy,
    observer: Observer | None = None,
    *,
    shared: bool = False,
    clock: Clock | None = None,
) -> Engine:
    """Return an engine that watches ``orders`` by ``policy``; where accounts are ``shared`` it asks only those it is given.

    It ends no order by its age before an `Attendance` has learned how the clocks stood.
    """
    clock, clocks = clock or SystemClock(), ClockWatch(is_recalling=True)
    directory = directory_of(settings, clock, redactor.follow, shared=shared)
    return Engine(orders, directory, policy, clock, observer, clocks)


def presence_of(settings: Settings, database: Database, kind: str) -> Presence:
    """Return the row of this process, which is a ``kind``, among those that work on the shop."""
    ident = Ident(secrets.token_hex(8), socket.gethostname(), os.getpid(), kind, __version__)
    return Presence(database, settings.database.schema_, ident)


def attendance_of(settings: Settings, database: Database, engine: Engine, kind: str) -> Attendance:
    """Return what tells of this process, which is a ``kind``, and of its clocks."""
    return Attendance(engine.board, presence_of(settings, database, kind), boot_id())


def membership_of(settings: Settings, database: Database, *, on_trial: bool = False) -> Membership:
    """Return the way into the membership of all over this shop's orders, under this machine's name and this process's number.

    ``on_trial`` it is one that nobody else is in.
    """
    place = settings.database
    table = f"{place.schema_}.{place.table}{' on trial' * on_trial}"
    return Membership(database, table, f"{socket.gethostname()}-{os.getpid()}", mark_of(settings))


def daemon_of(ident: Ident) -> Daemon:
    """Return the process of this row, as the others see it where settings are compared."""
    return Daemon(ident.id, ident.host, ident.pid, ident.version)


def mark_of(settings: Settings) -> str:
    """Return what tells one schedule from another among the processes of a cluster."""
    return blake2b(repr((settings.schedule, settings.limits)).encode(), digest_size=4).hexdigest()


async def close_all(engine: Engine, database: Database, sender: Sender | None = None) -> None:
    """Give back every connection."""
    if sender is not None:
        await sender.aclose()
    for account in engine.accounts.values():
        await account.provider.aclose()
    await database.close()
