"""``order-monitor --once``: one pass over every open order, for cron."""

from __future__ import annotations

import asyncio
import json
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn

from order_monitor.app import (
    alerter_of,
    as_observed,
    chains_of,
    closing,
    database_of,
    directory_of,
    engine_of,
    heartbeat_of,
    orders_of,
    ping_of,
    policy_of,
    schedule_of,
    sender_of,
    settings_of,
    shop_of,
)
from order_monitor.commands.agreement import agreed
from order_monitor.commands.exits import ExitCode, run_to_exit
from order_monitor.core.clock import Clock
from order_monitor.core.judge import FEWEST, NOT_UNDERSTOOD
from order_monitor.core.outcome import FINAL
from order_monitor.core.schedule import OnePass
from order_monitor.settings.model import Settings
from order_monitor.shop.database import Database
from order_monitor.tell.attention import Cause, urgent_causes_of
from order_monitor.tell.readiness import Readiness
from order_monitor.tell.redactor import Redactor
from order_monitor.tell.screen import Screen
from order_monitor.tell.status_view import StatusView
from order_monitor.tell.streams import say
from order_monitor.watch.account import Account
from order_monitor.watch.brake_watch import BrakeWatch
from order_monitor.watch.engine import Engine
from order_monitor.watch.lifecycle import Lifecycle, Stop
from order_monitor.watch.system_clock import SystemClock

_ME: Final = "once"
"""The name of every pass in the shared notices, so that each pass knows what the previous one
saw.
"""

_TOLD_APART: Final = ("skipped", "seconds", "not_asked_accounts", "not_understood_accounts")


@dataclass(frozen=True, slots=True)
class Wish:
    """The options of a pass. ``accept`` uses the settings in force if this file's differ; ``every``
    is seconds.
    """

    as_json: bool = False
    every: float | None = None
    quiet: bool = False
    accept: bool = False


def run_once(config: Path | None, wish: Wish) -> int:
    """Make one pass, print its summary, and return the exit code."""
    settings, sink, redactor = settings_of(
        config, "database", "provider", least="error" if wish.quiet else None
    )
    return run_to_exit(one_pass(settings, redactor, wish), sink.close)


async def one_pass(
    settings: Settings, redactor: Redactor, wish: Wish, clock: Clock | None = None
) -> int:
    """Make one pass with the settings in force, print its summary, and return the exit code."""
    async with database_of(settings) as database:
        taken = await agreed(settings, database, accept=wish.accept, by="once", may_observe=True)
        if taken is None:
            return ExitCode.NOT_DONE
        observed = as_observed(taken)
        return await _pass(observed, database, redactor, wish, clock or SystemClock())


async def _pass(
    settings: Settings,
    database: Database,
    redactor: Redactor,
    wish: Wish,
    clock: Clock,
) -> int:
    began = time.monotonic()
    as_json, every, quiet = wish.as_json, wish.every, wish.quiet
    stop, view = Stop(), StatusView(clock)
    policy = policy_of(settings, one_pass=True, plan=OnePass(schedule_of(settings), every))
    orders = orders_of(settings, database)
    brake, sender = BrakeWatch(orders.brake, clock), sender_of(settings, database)
    with stop.on_signals():
        async with directory_of(settings, clock, redactor.follow) as directory, closing(sender):
            shop = shop_of(settings, orders, directory, clock)
            engine = engine_of(shop, directory, policy, clock, brake)
            brake.watch(engine)
            chains = chains_of(settings, engine, database, orders, clock)
            heartbeat = heartbeat_of(settings, database, engine, "once")
            readiness = Readiness(engine, clock, settings.schedule.scan_interval)
            view.watch(engine, readiness, settings.schedule.give_up_after, sender)
            life = Lifecycle(engine, clock, stop, grace=settings.shutdown.grace)
            if sender is not None:
                await sender.begin()

            async def before() -> None:
                await heartbeat.begin()
                await brake.step()

            is_shown = Screen(to_stderr=True).is_seen and not as_json and not quiet
            async with _progress(engine) if is_shown else nullcontext():
                written = await life.once(before)
                await brake.finish()
                if chains is not None and not await chains.attempt():
                    written = False
                await heartbeat.tell()
                causes = urgent_causes_of(view)
                if sender is not None and not stop.event.is_set():
                    await sender.drain()
                if not stop.event.is_set():
                    await _tell(settings, database, redactor, clock, causes, engine.state.open)
    summary = summarise(engine, time.monotonic() - began)
    is_lost = any(a.judge.reason(FEWEST) == NOT_UNDERSTOOD for a in engine.accounts.values())
    # Does not count orders that are not due yet, or that are left alone on purpose.
    is_in_vain = (
        not summary["asked"]
        and not len(engine.queue)
        and any(r.is_mendable for r in engine.state.skipped)
    )
    is_done = bool(
        written
        and not summary["not_asked"]
        and not summary["stuck"]
        and not summary["held"]
        and not is_lost
        and not is_in_vain
    )
    if not (quiet and is_done):
        say(*([json.dumps(summary)] if as_json else _in_words(summary)), to_stdout=True)
    await _ping(settings, is_good=is_done and not summary["not_understood_accounts"])
    return ExitCode.OK if is_done else ExitCode.NOT_DONE


async def _tell(
    settings: Settings,
    database: Database,
    redactor: Redactor,
    clock: Clock,
    causes: list[Cause],
    waiting: int,
) -> None:
    """Notify people of what this pass found."""
    alerter = alerter_of(settings, database, clock, _ME, redactor)
    if alerter is not None:
        await alerter.one_pass(causes, waiting)


async def _ping(settings: Settings, *, is_good: bool) -> None:
    if (ping := ping_of(settings)) is not None:
        await ping.tell(is_good=is_good)
        await ping.aclose()


def summarise(engine: Engine, seconds: float) -> dict[str, Any]:
    """Return what one pass did.

    ``not_asked`` counts the orders that were due and got no answer.
    """
    state = engine.state
    return {
        "open": state.open,
        "asked": state.asked,
        **{str(outcome): state.ends[outcome] for outcome in FINAL},
        "waiting": state.outcomes["waiting"] - state.timeouts,
        "refused": state.outcomes["refused"],
        "garbled": state.outcomes["garbled"],
        "not_asked": max(0, state.eligible - state.asked),
        "not_asked_accounts": _not_asked(engine),
        "not_understood_accounts": [
            a.name for a in engine.accounts.values() if a.judge.is_in_doubt
        ],
        "not_written": len(engine.writer),
        "observed": state.observed,
        "gone": state.gone + state.resent,
        "stuck": len(state.stuck),
        "held": len(state.kept),
        "overdue": sum(engine.context.is_past_deadline(entry) for entry in engine.queue),
        "skipped": {str(reason): count for reason, count in sorted(state.skipped.items())},
        "seconds": round(seconds, 3),
    }


def _not_asked(engine: Engine) -> dict[str, dict[str, Any]]:
    """Return how many of each account's orders got no answer, and why."""
    counts = Counter(entry.account for entry in engine.queue if entry.due and not entry.checks)
    return {
        engine.name_of(key): {"orders": count, "reason": _reason(engine.accounts.get(key))}
        for key, count in counts.items()
    }


def _reason(account: Account | None) -> str:
    if account is None:
        return "no_account"
    return "paused" if account.paused else account.gate.reason or account.last_error or "stopped"


def _in_words(summary: dict[str, Any]) -> list[str]:
    skipped = ", ".join(f"{reason} {count}" for reason, count in summary["skipped"].items())
    numbers = {k: v for k, v in summary.items() if k not in _TOLD_APART}
    lines = [f"{name.replace('_', ' '):<12}{value:>8}" for name, value in numbers.items()]
    for name, told in summary["not_asked_accounts"].items():
        lines.append(f"  not asked {told['orders']} of account {name}: {told['reason']}")
    if summary["skipped"] and not summary["asked"]:
        lines.append("  nothing was asked: order-monitor check says why, and what to do")
    lines += [
        f"  nothing understood of account {name}" for name in summary["not_understood_accounts"]
    ]
    return [
        *lines,
        f"{'skipped':<12}{skipped or '0':>8}",
        f"{'seconds':<12}{summary['seconds']:>8.1f}",
    ]


@asynccontextmanager
async def _progress(engine: Engine) -> AsyncIterator[None]:
    """Show a progress bar on stderr while the block runs."""
    bar = asyncio.create_task(_show_progress(engine))
    try:
        yield
    finally:
        bar.cancel()
        with suppress(asyncio.CancelledError):
            await bar


async def _show_progress(engine: Engine) -> None:
    columns = (SpinnerColumn(), TextColumn("asking"), BarColumn(), MofNCompleteColumn())
    with Progress(*columns, console=Screen(to_stderr=True), transient=True) as progress:
        task = progress.add_task("asking", total=None)
        while True:
            progress.update(task, total=engine.state.eligible or None, completed=engine.state.asked)
            await asyncio.sleep(0.1)
