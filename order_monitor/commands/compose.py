"""Put the parts together from the settings: the one place that knows all of them."""

from __future__ import annotations

import asyncio
import sys
import threading
from collections.abc import Coroutine
from pathlib import Path
from typing import Any, Final

import httpx

from order_monitor.account import Account
from order_monitor.clock import Clock, SystemClock
from order_monitor.decide import Rules
from order_monitor.engine import Engine
from order_monitor.errors import OrderMonitorError, SettingsError, ShopUnavailableError
from order_monitor.gate import Gate, Pace
from order_monitor.logs import LineSink, set_up
from order_monitor.providers.connections import SingleConnections
from order_monitor.providers.znet import Znet, ZnetAccount
from order_monitor.schedule import Continuous, OnePass, Schedule
from order_monitor.settings import FINAL_STATUSES, Settings
from order_monitor.settings_file import load
from order_monitor.shop.database import Database
from order_monitor.shop.orders import NEVER_SENT, Layout, Orders
from order_monitor.tell.health import Access, HealthServer, Probe

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


def settings_of(config: Path | None, *need: str) -> tuple[Settings, LineSink]:
    """Read the settings and start logging by them.

    Raises:
        SettingsError: with every mistake.
    """
    settings = load(config, need=need)
    sink, redactor = set_up(settings.log.level, settings.log.format)
    redactor.learn(settings.secrets())
    return settings, sink


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
    )


def schedule_of(settings: Settings) -> Schedule:
    """Return the schedule."""
    s = settings.schedule
    return Schedule(s.first_check, s.base, s.cap, s.jitter, s.give_up_after)


def account_of(settings: Settings, clock: Clock) -> Account:
    """Return the one account that the settings name."""
    given = settings.provider
    assert given.base_url and given.kod and given.sifre  # noqa: S101, PT018 - settings_of was told that they are needed
    login = ZnetAccount(
        given.base_url,
        given.kod.get_secret_value(),
        given.sifre.get_secret_value(),
        given.status_path,
        given.connect_timeout,
        given.timeout,
        given.max_body,
        given.user_agent,
    )
    znet = Znet(login, SingleConnections(httpx.create_ssl_context()), clock)
    limits = settings.limits
    return Account(ACCOUNT, znet, Gate(limits.gate_after), Pace(limits.calls_per_second))


def engine_of(settings: Settings, database: Database, *, one_pass: bool = False, every: float | None = None) -> Engine:
    """Return the engine of the daemon, or with ``one_pass`` that of ``--once``."""
    clock = SystemClock()
    account = account_of(settings, clock)
    schedule = schedule_of(settings)
    return Engine(
        Orders(database, layout_of(settings)),
        {account.name: account},
        OnePass(schedule, every) if one_pass else Continuous(schedule),
        clock,
        concurrency=settings.limits.concurrency,
        give_up_after=settings.schedule.give_up_after,
        give_up_blind=settings.schedule.give_up_blind,
        one_pass=one_pass,
        patience=PATIENCE if one_pass else None,
    )


def health_of(settings: Settings, engine: Engine) -> HealthServer | None:
    """Return the health endpoint, None where it is switched off."""
    health = settings.health
    if not health.enabled:
        return None
    token = health.token.get_secret_value() if health.token else None
    probe = Probe(engine, SystemClock(), settings.schedule.scan_interval)
    return HealthServer(probe, Access(health.host, health.port, token, health.hosts))


async def close_all(engine: Engine, database: Database) -> None:
    """Give back every connection."""
    for account in engine.accounts.values():
        await account.provider.aclose()
    await database.close()


def run_to_exit(work: Coroutine[Any, Any, int], sink: LineSink) -> int:
    """Run ``work`` and return its exit code, or that of the error it ended with.

    A thread that hangs in the system's resolver would keep the process alive after its work: it is not waited for.
    """
    try:
        code = asyncio.run(work)
    except OrderMonitorError as error:
        code = report(error)
    sink.close()
    leave_soon(code)
    return code


def leave_soon(code: int) -> None:
    """Make sure that the process is gone a little later, whatever threads are left."""
    last = threading.Timer(_LAST_SECONDS, _exit_now, (code,))
    last.daemon = True
    last.start()


def _exit_now(code: int) -> None:
    import os  # noqa: PLC0415

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
