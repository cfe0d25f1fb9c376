"""Put the parts together from the settings: the one place that knows all of them."""

from __future__ import annotations

import asyncio
import functools
import os
import ssl
import sys
import threading
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import httpx

from order_monitor.account import Account
from order_monitor.clock import Clock, SystemClock
from order_monitor.decide import Rules
from order_monitor.directory import AnyOpener, Directory, OneAccount, ShopAccounts, label
from order_monitor.engine import Engine
from order_monitor.errors import OrderMonitorError, SettingsError, ShopUnavailableError
from order_monitor.gate import Gate, Pace
from order_monitor.intake import Shop
from order_monitor.logs import LineSink, Redactor, set_up
from order_monitor.observer import Observer
from order_monitor.providers.connections import SingleConnections
from order_monitor.providers.guard import PublicOnly, is_forbidden_host
from order_monitor.providers.znet import Znet, ZnetAccount
from order_monitor.schedule import Continuous, Plan, Schedule
from order_monitor.settings import FINAL_STATUSES, Settings
from order_monitor.settings_file import load
from order_monitor.shop.accounts import Integration
from order_monitor.shop.database import Database
from order_monitor.shop.layout import NEVER_SENT, Layout
from order_monitor.shop.orders import Orders
from order_monitor.shop.outbox import Outbox
from order_monitor.tell.health import Access, HealthServer, Site
from order_monitor.tell.probe import Probe
from order_monitor.tell.rounds import PING_TIMEOUT, Ping
from order_monitor.tell.webhook import Sender
from order_monitor.values import check_url

ACCOUNT: Final = "default"
PATIENCE: Final = 60.0
"""Seconds one pass tries to write without progress, before it says so and ends."""

_LAST_SECONDS: Final = 3.0


class ExitCode:
    """What the exit codes mean, everywhere."""

    OK = 0
    NOT_DONE = 1
    BAD_SETTINGS = 2
    NO_DATABASE = 3


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
    assert address is not None  # noqa: S101 - settings_of was told that it is needed
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
        ),
        record_sync=schedule.record_sync,
        accounts_from_shop=settings.provider.source == "database",
        refresh=settings.provider.refresh,
        webhook=settings.webhook.url is not None,
    )


def orders_of(settings: Settings, database: Database) -> Orders:
    """Return the orders table."""
    return Orders(database, layout_of(settings))


def schedule_of(settings: Settings) -> Schedule:
    """Return the schedule."""
    s = settings.schedule
    return Schedule(s.first_check, s.base, s.cap, s.jitter, s.give_up_after)


def open_znet(
    settings: Settings, clock: Clock, base_url: str, kod: str, sifre: str, *, name: str, guarded: bool
) -> Account:
    """Return an account with a client, a gate and a pace of its own. With ``guarded`` it calls public addresses only."""
    given, limits = settings.provider, settings.limits
    login = ZnetAccount(
        base_url, kod, sifre, given.status_path, given.connect_timeout, given.timeout, given.max_body, given.user_agent
    )
    connections = SingleConnections(_verified(), PublicOnly() if guarded else None)
    return Account(name, Znet(login, connections, clock), Gate(limits.gate_after), Pace(limits.calls_per_second))


@functools.cache
def _verified() -> ssl.SSLContext:
    """Return the one TLS context that every account shares."""
    return httpx.create_ssl_context()


def opener_of(settings: Settings, clock: Clock) -> AnyOpener:
    """Return what makes an account: of an integration of the shop's, or of the settings where there is none."""
    given = settings.provider

    def open_account(integration: Integration | None) -> Account:
        if integration is None:
            assert given.base_url and given.kod and given.sifre  # noqa: S101, PT018 - settings_of was told that they are needed
            kod, sifre = given.kod.get_secret_value(), given.sifre.get_secret_value()
            # An address in monitor.toml is the operator's own, and may be anywhere.
            return open_znet(settings, clock, given.base_url, kod, sifre, name=ACCOUNT, guarded=False)
        url = check_url(integration.base_url, allow_http=given.allow_http)
        if not given.allow_private and is_forbidden_host(urlsplit(url).hostname or ""):
            msg = "the address is private; see provider.allow_private"
            raise ValueError(msg)
        if not integration.kod.strip() or not integration.sifre.strip():
            msg = "kod or sifre is empty"
            raise ValueError(msg)
        login = (url, integration.kod, integration.sifre)
        return open_znet(settings, clock, *login, name=label(integration), guarded=not given.allow_private)

    return open_account


def directory_of(settings: Settings, clock: Clock, on_secrets: Callable[[list[str]], None]) -> Directory:
    """Return the accounts: the one of the settings, or the shop's own."""
    opener = opener_of(settings, clock)
    return OneAccount(opener(None)) if settings.provider.source == "config" else ShopAccounts(opener, on_secrets)


def engine_of(
    settings: Settings,
    orders: Shop,
    redactor: Redactor,
    *,
    one_pass: bool = False,
    plan: Plan | None = None,
    observer: Observer | None = None,
) -> Engine:
    """Return the engine of the daemon, or with ``one_pass`` that of ``--once``; ``plan`` is by default the schedule."""
    clock = SystemClock()
    schedule = schedule_of(settings)
    return Engine(
        orders,
        directory_of(settings, clock, redactor.learn),
        plan or Continuous(schedule),
        clock,
        concurrency=settings.limits.concurrency,
        give_up_after=settings.schedule.give_up_after,
        give_up_blind=settings.schedule.give_up_blind,
        confirm_cancelled=settings.schedule.confirm_cancelled,
        one_pass=one_pass,
        patience=PATIENCE if one_pass else None,
        observer=observer,
    )


def health_of(settings: Settings, probe: Probe, site: Site) -> HealthServer | None:
    """Return the health endpoint, None where it is switched off."""
    health = settings.health
    if not health.enabled:
        return None
    token = health.token.get_secret_value() if health.token else None
    return HealthServer(probe, Access(health.host, health.port, token, health.hosts), site)


def sender_of(settings: Settings, database: Database) -> Sender | None:
    """Return the webhook, None where there is none."""
    given = settings.webhook
    if given.url is None or given.secret is None:
        return None
    client = httpx.AsyncClient(verify=_verified(), timeout=given.timeout, trust_env=False, follow_redirects=False)
    return Sender(
        Outbox(database, settings.database.schema_),
        client,
        given.url.get_secret_value(),
        given.secret.get_secret_value(),
        layout_of(settings).rules,
        SystemClock(),
        timeout=given.timeout,
        max_attempts=given.max_attempts,
    )


def ping_of(settings: Settings) -> Ping | None:
    """Return the dead man's switch, None where there is none."""
    url = settings.health.ping_url
    if url is None:
        return None
    client = httpx.AsyncClient(verify=_verified(), timeout=PING_TIMEOUT, trust_env=False, follow_redirects=False)
    return Ping(client, url.get_secret_value(), SystemClock())


async def close_all(engine: Engine, database: Database, sender: Sender | None = None) -> None:
    """Give back every connection."""
    if sender is not None:
        await sender.aclose()
    for account in engine.accounts.values():
        await account.provider.aclose()
    await database.close()


def run_to_exit(work: Coroutine[Any, Any, int], sink: LineSink) -> int:
    """Run ``work`` and return its exit code, or that of the error it ended with.

    A thread that hangs in the system's resolver would keep the process alive after its work: it is not waited for.
    """
    return asyncio.run(_to_exit(work, sink))


async def _to_exit(work: Coroutine[Any, Any, int], sink: LineSink) -> int:
    try:
        code = await work
    except OrderMonitorError as error:
        code = report(error)
    sink.close()
    # Before the event loop is closed, which would wait for such a thread too.
    leave_soon(code)
    return code


def leave_soon(code: int) -> None:
    """Make sure that the process is gone a little later, whatever threads are left."""
    last = threading.Timer(_LAST_SECONDS, _exit_now, (code,))
    last.daemon = True
    last.start()


def _exit_now(code: int) -> None:
    os._exit(code)


def report(error: OrderMonitorError) -> int:
    """Say on stderr what is wrong and return the exit code for it."""
    if isinstance(error, SettingsError):
        count = len(error.problems)
        say(f"order-monitor: {count} mistake{'s' if count > 1 else ''} in the settings:")
        for problem in error.problems:
            say(f"  {problem}")
        return ExitCode.BAD_SETTINGS
    if isinstance(error, ShopUnavailableError):
        say(f"order-monitor: the database cannot be reached: {error}")
        return ExitCode.NO_DATABASE
    say(f"order-monitor: the database refuses: {error}")
    return ExitCode.NOT_DONE


def say(line: str, *, to_stdout: bool = False) -> None:
    """Print a line, also where the stream cannot show its characters."""
    stream = sys.stdout if to_stdout else sys.stderr
    stream.buffer.write((line + "\n").encode("utf-8", "backslashreplace"))
    stream.flush()
