"""``order-monitor demo``: the complete program, without configuration."""

from __future__ import annotations

import asyncio
import time
from contextlib import AsyncExitStack, nullcontext
from typing import Any, Final

from rich.live import Live

from order_monitor.app import App, table_config_of
from order_monitor.commands.exits import ExitCode, leave_soon
from order_monitor.core.clocks import SETTLING
from order_monitor.demo.postgres import EmbeddedPostgres, EmbeddedPostgresError
from order_monitor.demo.scenario import (
    ACCOUNTS,
    FIRST_PANEL,
    GIVE_UP_AFTER,
    Planned,
    scripts_at,
    write_story,
)
from order_monitor.demo.show import (
    SHOP_SCHEMA,
    LiveTable,
    Panels,
    PlainLines,
    compare,
    fill,
    print_verdict,
    watch,
)
from order_monitor.demo.standin import SIFRE, TOKEN, StandIn
from order_monitor.settings.model import Settings
from order_monitor.shop.marks import FIRST_START, set_mark
from order_monitor.shop.migration import Migration
from order_monitor.tell.logs import set_up
from order_monitor.tell.redactor import Redactor
from order_monitor.tell.screen import Screen
from order_monitor.watch.lifecycle import Stop
from order_monitor.watch.system_clock import SystemClock


class _Settled(SystemClock):
    """The clocks of a machine that has been up long enough to trust them: the demo's database uses
    the same clocks.
    """

    def boot(self) -> float:
        """Return seconds since boot, increased by the time after which ages are trusted."""
        return super().boot() + SETTLING


_PATIENCE: Final = 6
"""How many times the demo's length to wait for the last order, on a slow machine."""

_LEAST: Final = 90
"""Seconds to wait for it at least."""


def run_demo(*, orders: int, seed: int, seconds: int, keep_running: bool) -> int:
    """Run the demo; return 0 if the database agrees with the provider in every row."""
    console = Screen()
    sink, redactor = set_up("warning" if keep_running else "error", "auto")
    redactor.learn([SIFRE, TOKEN])
    console.print("Starting a PostgreSQL of our own …")
    try:
        with EmbeddedPostgres() as server:
            if server.runs_as:
                console.print(f"(PostgreSQL refuses to run as root: it runs as {server.runs_as}.)")
            story = _play(
                console,
                server.dsn(),
                orders,
                seed,
                seconds,
                redactor=redactor,
                keep_running=keep_running,
            )
            code = asyncio.run(story)
    except EmbeddedPostgresError as error:
        console.print(f"order-monitor: {error}", style="red", soft_wrap=True)
        code = ExitCode.NOT_DONE
    else:
        gone = not server.directory.exists()
        console.print("Nothing is left behind." if gone else f"Left behind: {server.directory}")
    sink.close()
    leave_soon(code)
    return code


def demo_settings(dsn: str, count: int, seconds: float) -> Settings:
    """Return settings with the schedule compressed to a demo of ``seconds``."""
    scale = seconds / 20
    given: dict[str, Any] = {
        "database": {"dsn": dsn},
        "provider": {
            "source": "database",
            "chains": "monitor",
            "allow_http": True,
            # The stand-ins listen on this machine.
            "allow_private": True,
            "timeout": max(1.0, 2 * scale),
        },
        "schedule": {
            "first_check": 1.0 * scale,
            "base": 0.5 * scale,
            "cap": 2.0 * scale,
            # The free places of a call of the client API go to orders asked this long ago.
            "min_interval": 0.25 * scale,
            "give_up_after": GIVE_UP_AFTER,
            "scan_interval": max(0.5, scale),
        },
        "limits": {"calls_per_second": max(50.0, 12 * count / seconds), "gate_after": 8},
        "health": {"port": 0},
        "shutdown": {"grace": 5.0},
    }
    return Settings(**given)


async def _play(
    console: Screen,
    dsn: str,
    count: int,
    seed: int,
    seconds: int,
    *,
    redactor: Redactor,
    keep_running: bool,
) -> int:
    stop = Stop()
    async with AsyncExitStack() as stack:
        stack.enter_context(stop.on_signals())
        began = time.time()
        orders = write_story(count, seed, seconds, began)
        panels = {
            account: await stack.enter_async_context(
                StandIn(scripts_at(account, orders), kod=account.kod, stall=max(1.5, seconds / 8))
            )
            for account in ACCOUNTS
            if account.is_asked
        }
        settings = demo_settings(dsn, count, seconds)
        parts = App(settings, stop, redactor, clock=_Settled())
        stack.push_async_callback(parts.close)
        await _prepare(console, parts.database, settings, dsn, orders, panels)
        if parts.health is not None:
            await parts.health.start()
            host, port = parts.health.bound()
            console.print(f"The page: http://{host}:{port}/")
        running = asyncio.create_task(parts.life.forever(), name="daemon")
        # Halfway through, one panel is down for a moment: its account closes, the others go on.
        asyncio.get_running_loop().call_later(
            seconds * 0.35, _outage, panels[FIRST_PANEL], max(1.0, seconds / 12)
        )
        with (
            Live(console=console, refresh_per_second=10)
            if console.is_terminal
            else nullcontext() as live
        ):
            window = LiveTable(live) if live is not None else PlainLines(console)
            watching = asyncio.create_task(
                watch(
                    parts.engine,
                    panels,
                    window,
                    sum(order.ends for order in orders),
                    until=began + max(seconds * _PATIENCE, _LEAST),
                ),
                name="watch",
            )
            await asyncio.wait([running, watching], return_when=asyncio.FIRST_COMPLETED)
            watching.cancel()
        verdict = await compare(dsn, orders)
        print_verdict(console, verdict)
        if keep_running and not running.done():
            urls = "\n".join(f"{account.name}: {panel.url}" for account, panel in panels.items())
            console.print(f"Still running. The database: {dsn}\n{urls}\nCtrl-C ends it.")
            await asyncio.wait([running])
        stop.event.set()
        clean = await running
    agree = not verdict.differing and clean
    console.print(
        "The database agrees with the providers in every row." if agree else "They do not agree."
    )
    return ExitCode.OK if agree else ExitCode.NOT_DONE


def _outage(standin: StandIn, seconds: float) -> None:
    standin.outage_until = time.time() + seconds


async def _prepare(
    console: Screen,
    database: Any,  # noqa: ANN401
    settings: Settings,
    dsn: str,
    orders: list[Planned],
    panels: Panels,
) -> None:
    async with database.plain() as connection:
        await connection.execute(SHOP_SCHEMA)
    async for line in Migration(database, table_config_of(settings), SystemClock()).apply():
        console.print(f"migrate: {line}")
    async with database.transaction() as connection:
        # The demo begins with orders that are a day old, as in a shop where the program has run for
        # a long time.
        await set_mark(connection, settings.database.schema_, FIRST_START, "-infinity")
    await fill(dsn, orders, panels)
    console.print(
        f"{len(orders)} orders stand open in product_orders: of two znet accounts, of a client API, "
        "and in chains of three tenants. The providers' stand-ins listen.",
        soft_wrap=True,
    )
