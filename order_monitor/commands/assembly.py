"""The daemon's parts, put together once: for the daemon itself and for the demo."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Coroutine, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final, Protocol

from order_monitor.commands.composition import (
    close_all,
    daemon_of,
    database_of,
    engine_of,
    membership_of,
    orders_of,
    plan_of,
    policy_of,
    presence_of,
    schedule_of,
    terms_of,
)
from order_monitor.commands.serving import alerter_of, health_of, ping_of, sender_of
from order_monitor.core.clock import Clock
from order_monitor.core.timing.planner import Timing
from order_monitor.settings.model import Settings
from order_monitor.settings.money import money_of
from order_monitor.shop.database import Database
from order_monitor.shop.presence import DAEMON
from order_monitor.shop.repository import Orders
from order_monitor.shop.timings import Timings
from order_monitor.tell.health import HealthServer
from order_monitor.tell.metrics import Metrics
from order_monitor.tell.overview import Overview
from order_monitor.tell.page import Dashboard
from order_monitor.tell.ping import Ping
from order_monitor.tell.readiness import Readiness
from order_monitor.tell.redactor import Redactor
from order_monitor.tell.systemd import Notifier
from order_monitor.tell.traces import Traces, secrets_in, traces_of
from order_monitor.tell.webhook import Sender
from order_monitor.watch.accord import Accord, AgreedShop
from order_monitor.watch.attendance import Attendance
from order_monitor.watch.balances import Balances
from order_monitor.watch.brake_watch import BrakeWatch
from order_monitor.watch.cluster import Cluster
from order_monitor.watch.doubts import Doubts
from order_monitor.watch.engine import Engine
from order_monitor.watch.housekeeping import Housekeeping
from order_monitor.watch.learning import Learning
from order_monitor.watch.lifecycle import CLUSTER, Lifecycle, Stop
from order_monitor.watch.observer import Observers
from order_monitor.watch.other_daemons import OtherDaemons
from order_monitor.watch.reconciliation import Reconciliation
from order_monitor.watch.system_clock import SystemClock, boot_id

_LAST_SPANS: Final = 2.0


def learning_of(settings: Settings, database: Database, orders: Orders, clock: Clock) -> Learning | None:
    """Return what learns when orders end, None where the schedule alone decides."""
    if settings.schedule.strategy != "learned":
        return None
    terms, schedule = terms_of(settings), schedule_of(settings)
    keeper = Timings(database, orders, settings.database.schema_, terms.half_life, terms.packages)
    return Learning(Timing(schedule, terms), keeper, clock, schedule)


def doubts_of(settings: Settings, engine: Engine, orders: Orders, clock: Clock) -> Doubts | None:
    """Return what keeps cancellations that wait for a second answer, None where the first is believed."""
    confirm = settings.schedule.confirm_cancelled
    return Doubts(engine, orders.unconfirmed, clock, confirm) if confirm else None


def balances_of(settings: Settings, engine: Engine, clock: Clock) -> Balances | None:
    """Return what reads the balances, None where nobody wants to know."""
    interval = settings.provider.balance_interval
    return Balances(engine, clock, interval, settings.provider.low_balance) if interval else None


class Runs(Protocol):
    """A part that runs as long as the daemon does."""

    async def run(self) -> None:
        """Run for ever."""


def running(parts: Mapping[str, Runs | None]) -> dict[str, Callable[[], Coroutine[Any, Any, None]]]:
    """Return what is to run, by name."""
    return {name: part.run for name, part in parts.items() if part is not None}


@dataclass(frozen=True, slots=True)
class Assembly:
    """All that runs in one daemon."""

    database: Database
    orders: Orders
    notifier: Notifier
    engine: Engine
    probe: Readiness
    view: Overview
    health: HealthServer | None
    sender: Sender | None
    traces: Traces | None
    ping: Ping | None
    learning: Learning | None
    attendance: Attendance
    life: Lifecycle
    accord: Accord

    @classmethod
    def of(
        cls,
        settings: Settings,
        stop: Stop,
        redactor: Redactor,
        dropped: Callable[[], int] = lambda: 0,
        clock: Clock | None = None,
    ) -> Assembly:
        """Build them from the settings; nothing is connected and nothing listens yet."""
        clock, schedule, shared = clock or SystemClock(), settings.schedule, settings.cluster.enabled
        database, view = database_of(settings), Overview(clock)
        orders, metrics, traces = orders_of(settings, database), Metrics(view, dropped), traces_of(clock)
        redactor.learn(secrets_in(os.environ))
        reconciliation = Reconciliation(orders, clock, schedule.recheck_after) if schedule.recheck_after else None
        learning = learning_of(settings, database, orders, clock)
        brake = BrakeWatch(orders.brake, clock)
        observer = Observers(
            one for one in (metrics, view.history, traces, reconciliation, learning, brake) if one is not None
        )
        policy = policy_of(settings, plan=plan_of(settings, learning.timing if learning else None))
        presence = presence_of(settings, database, DAEMON)
        accord = Accord(database, settings.database.schema_, money_of(settings), daemon_of(presence.ident), clock)
        shop = AgreedShop(orders, orders, accord)
        engine = engine_of(settings, shop, redactor, policy, observer, shared=shared, clock=clock)
        accord.watch(engine.board)
        brake.watch(engine)
        attendance = Attendance(engine.board, presence, boot_id())
        cluster = Cluster(engine, membership_of(settings, database), clock) if shared else None
        leads = (lambda: cluster.leads) if cluster else lambda: True
        sender = sender_of(settings, database, leads, engine.board)
        probe, ping = Readiness(engine, clock, schedule.scan_interval, cluster, sender), ping_of(settings)
        view.cluster = cluster
        view.watch(engine, probe, schedule.give_up_after, sender)
        notifier, alerter = Notifier(view, clock), alerter_of(settings, database, clock, presence.ident.id, redactor)
        census = view.census if settings.health.enabled or alerter is not None else None
        balances, doubts = balances_of(settings, engine, clock), doubts_of(settings, engine, orders, clock)
        tasks = running({CLUSTER: cluster, "webhook": sender, "timing": learning, "balances": balances})
        tasks |= {"presence": attendance.run, "settings": accord.run}
        if not shared:
            tasks["other daemons"] = OtherDaemons(engine.board, presence, clock).run
        tasks |= running(
            {"brake": brake, "housekeeping": Housekeeping(orders, clock), "doubts": doubts, "census": census}
        )
        if alerter is not None:
            tasks["notify"] = lambda: alerter.run(view)
        if ping is not None:
            tasks["ping"] = lambda: ping.run(probe)
        if reconciliation is not None:
            tasks["rechecks"] = lambda: reconciliation.run(engine)
        if learning is not None:
            learning.watch(engine)
            view.learned = learning.timing
        if notifier.listens:
            tasks["systemd"] = notifier.run
        grace, interval = settings.shutdown.grace, schedule.scan_interval
        life = Lifecycle(engine, clock, stop, grace=grace, scan_interval=interval, beside=tasks)
        health = health_of(settings, probe, Dashboard(view, metrics))
        return cls(
            database,
            orders,
            notifier,
            engine,
            probe,
            view,
            health,
            sender,
            traces,
            ping,
            learning,
            attendance,
            life,
            accord,
        )

    async def close(self) -> None:
        """Stop listening, keep what was learned, and give back every connection."""
        if self.health is not None:
            await self.health.stop()
        if self.learning is not None:
            await self.learning.save()
        await self.attendance.leave()
        await self.accord.leave()
        await close_all(self.engine, self.database, self.sender)
        if self.ping is not None:
            await self.ping.aclose()
        if self.traces is not None:
            # A collector that is away keeps this waiting, in a thread that the exit does not wait for.
            with suppress(TimeoutError):
                await asyncio.wait_for(asyncio.to_thread(self.traces.close), _LAST_SPANS)
