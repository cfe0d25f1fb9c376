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
    directory_of,
    engine_of,
    heartbeat_of,
    orders_of,
    ping_of,
    policy_of,
    schedule_of,
    sender_of,
    shop_of,
)
from order_monitor.commands.agreement import agreed
from order_monitor.commands.exits import ExitCode
from order_monitor.commands.session import Session, command
from order_monitor.core.clock import Clock
from order_monitor.core.judge import FEWEST, NOT_UNDERSTOOD
from order_monitor.core.outcome import FINAL
from order_monitor.core.schedule import OnePass
from order_monitor.tell.attention import urgent_causes_of
from order_monitor.tell.readiness import Readiness
from order_monitor.tell.screen import Screen
from order_monitor.tell.status_view import StatusView
from order_monitor.tell.streams import show
from order_monitor.watch.account import Account
from order_monitor.watch.brake_watch import BrakeWatch
from order_monitor.watch.engine import Engine
from order_monitor.watch.lifecycle import Lifecycle, Stop
from order_monitor.watch.system_clock import SystemClock

_ME: Final = "once"
"""The name of every pass in the shared notices, so that each pass knows what the previous one
saw.
"""

_SHOWN_APART: Final = ("skipped", "seconds", "not_asked_accounts", "not_understood_accounts")


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
    return command("provider", least="error" if wish.quiet else None)(one_pass)(config, wish)


async def one_pass(session: Session, wish: Wish, clock: Clock | None = None) -> int:
    """Make one pass with the settings in force, print its summary, and return the exit code."""
    session = await agreed(session, accept=wish.accept, by="once", may_observe=True)
    began, clock = time.monotonic(), clock or SystemClock()
    settings, database = as_observed(session.settings), session.database
    stop, view = Stop(), StatusView(clock)
    policy = policy_of(settings, one_pass=True, plan=OnePass(schedule_of(settings), wish.every))
    orders = orders_of(settings, database)
    brake, sender = BrakeWatch(orders.brake, clock), sender_of(settings, database)
    with stop.on_signals():
        async with (
            directory_of(settings, clock, session.redactor.follow) as directory,
            closing(sender),
        ):
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

            is_shown = Screen(to_stderr=True).is_seen and not wish.as_json and not wish.quiet
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
                    alerter = alerter_of(settings, database, clock, _ME, session.redactor)
                    if alerter is not None:
                        await alerter.one_pass(causes, engine.state.open)
    summary = summarise(engine, time.monotonic() - began)
    is_done = written and _is_done(engine, summary)
    if not (wish.quiet and is_done):
        show(*([json.dumps(summary)] if wish.as_json else _in_words(summary)))
    async with closing(ping_of(settings)) as ping:
        if ping is not None:
            await ping.tell(is_good=is_done and not summary["not_understood_accounts"])
    return ExitCode.OK if is_done else ExitCode.NOT_DONE


def _is_done(engine: Engine, summary: dict[str, Any]) -> bool:
    """Whether each order that was due was answered, and nothing waits for a person."""
    if any(summary[key] for key in ("not_asked", "stuck", "held")):
        return False
    if any(a.judge.reason(FEWEST) == NOT_UNDERSTOOD for a in engine.accounts.values()):
        return False
    # Orders that are not due yet, or that are left alone on purpose, need no answer.
    is_in_vain = not summary["asked"] and not len(engine.queue)
    return not (is_in_vain and any(reason.is_mendable for reason in engine.state.skipped))


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
    numbers = {k: v for k, v in summary.items() if k not in _SHOWN_APART}
    lines = [f"{name.replace('_', ' '):<12}{value:>8}" for name, value in numbers.items()]
    for name, found in summary["not_asked_accounts"].items():
        lines.append(f"  not asked {found['orders']} of account {name}: {found['reason']}")
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
