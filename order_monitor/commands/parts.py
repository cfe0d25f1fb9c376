"""The daemon's parts, put together once: for the daemon itself and for the demo."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Coroutine
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final

from order_monitor.clock import SystemClock
from order_monitor.commands.compose import close_all, database_of, engine_of, health_of, orders_of, ping_of, sender_of
from order_monitor.engine import Engine
from order_monitor.life import Life, Stop
from order_monitor.logs import Redactor
from order_monitor.observer import Observers
from order_monitor.settings import Settings
from order_monitor.shop.database import Database
from order_monitor.shop.orders import Orders
from order_monitor.tell.health import HealthServer
from order_monitor.tell.metrics import Metrics
from order_monitor.tell.page import Dashboard
from order_monitor.tell.probe import Probe
from order_monitor.tell.recheck import Rechecks
from order_monitor.tell.rounds import Balances, Ping
from order_monitor.tell.systemd import Notifier
from order_monitor.tell.traces import Traces, secrets_in, traces_of
from order_monitor.tell.view import View
from order_monitor.tell.webhook import Sender

_LAST_SPANS: Final = 2.0


@dataclass(frozen=True, slots=True)
class Parts:
    """All that runs in one daemon."""

    database: Database
    orders: Orders
    notifier: Notifier
    engine: Engine
    probe: Probe
    view: View
    health: HealthServer | None
    sender: Sender | None
    traces: Traces | None
    ping: Ping | None
    life: Life

    @classmethod
    def of(
        cls,
        settings: Settings,
        stop: Stop,
        redactor: Redactor,
        dropped: Callable[[], int] = lambda: 0,
    ) -> Parts:
        """Build them from the settings; nothing is connected and nothing listens yet."""
        clock, schedule = SystemClock(), settings.schedule
        database, view = database_of(settings), View(clock)
        orders, metrics, traces = orders_of(settings, database), Metrics(view, dropped), traces_of(clock)
        redactor.learn(secrets_in(os.environ))
        rechecks = Rechecks(orders, clock, schedule.recheck_after) if schedule.recheck_after else None
        observer = Observers(one for one in (metrics, view, traces, rechecks) if one is not None)
        engine = engine_of(settings, orders, redactor, observer=observer)
        sender, ping = sender_of(settings, database), ping_of(settings)
        probe = Probe(engine, clock, schedule.scan_interval)
        view.watch(engine, probe, schedule.give_up_after, sender)
        notifier = Notifier(view, clock)
        beside: dict[str, Callable[[], Coroutine[Any, Any, None]]] = {}
        if sender is not None:
            beside["webhook"] = sender.run
        if ping is not None:
            beside["ping"] = lambda: ping.run(probe)
        if rechecks is not None:
            beside["rechecks"] = lambda: rechecks.run(engine)
        if settings.provider.balance_interval:
            beside["balances"] = Balances(
                engine, clock, settings.provider.balance_interval, settings.provider.low_balance
            ).run
        if notifier.listens:
            beside["systemd"] = notifier.run
        grace, interval = settings.shutdown.grace, schedule.scan_interval
        life = Life(engine, clock, stop, grace=grace, scan_interval=interval, beside=beside)
        health = health_of(settings, probe, Dashboard(view, metrics))
        return cls(database, orders, notifier, engine, probe, view, health, sender, traces, ping, life)

    async def close(self) -> None:
        """Stop listening and give back every connection."""
        if self.health is not None:
            await self.health.stop()
        await close_all(self.engine, self.database, self.sender)
        if self.ping is not None:
            await self.ping.aclose()
        if self.traces is not None:
            # A collector that is away keeps this waiting, in a thread that the exit does not wait for.
            with suppress(TimeoutError):
                await asyncio.wait_for(asyncio.to_thread(self.traces.close), _LAST_SPANS)
