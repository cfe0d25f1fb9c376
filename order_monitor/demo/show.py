"""The demo: the real program on a world of its own, watched while it runs and compared with the truth at the end."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from dataclasses import dataclass
from typing import Final, Protocol

import asyncpg
from rich.console import Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from order_monitor.core.pin import Pin
from order_monitor.demo.scenario import Planned
from order_monitor.demo.standin import StandIn
from order_monitor.tell.screen import Screen
from order_monitor.watch.engine import Engine

SCHEMA: Final = """
CREATE TABLE product_orders (
    id uuid PRIMARY KEY,
    tenant_id uuid,
    status varchar(20) NOT NULL DEFAULT 'pending',
    external_status varchar(30) NOT NULL DEFAULT 'not_sent',
    sent_at timestamptz,
    pin_code varchar(120),
    note text,
    package_id uuid,
    completed_at timestamptz,
    duration_ms integer,
    last_sync_at timestamptz
)
"""
_INSERT: Final = """
INSERT INTO product_orders (id, tenant_id, external_status, sent_at, provider_referans)
SELECT i, t, s, to_timestamp(a), r FROM unnest($1::uuid[], $2::uuid[], $3::text[], $4::float8[], $5::text[]) AS u(i, t, s, a, r)
"""
_LINE_EVERY: Final = 2.0


class Window(Protocol):
    """Shows the progress."""

    def show(self, engine: Engine, standin: StandIn, total: int) -> None:
        """Show how it stands now."""


async def fill(dsn: str, orders: list[Planned]) -> None:
    """Put the planned orders into the table."""
    connection = await asyncpg.connect(dsn)
    try:
        columns = [[getattr(o, name) for o in orders] for name in ("id", "tenant_id", "status", "sent_at", "referans")]
        await connection.execute(_INSERT, *columns)
    finally:
        await connection.close()


@dataclass(frozen=True, slots=True)
class Verdict:
    """The comparison, row by row: how many rows agree for each expected end, and the ids of those that do not."""

    agreed: Counter[str]
    total: Counter[str]
    differing: list[str]
    pins: int


async def compare(dsn: str, orders: list[Planned]) -> Verdict:
    """Compare what the provider decided with what stands in the database."""
    connection = await asyncpg.connect(dsn)
    try:
        rows = await connection.fetch("SELECT id::text, external_status, pin_code FROM product_orders")
    finally:
        await connection.close()
    stored = {row["id"]: (row["external_status"], Pin(row["pin_code"]) if row["pin_code"] else None) for row in rows}
    agreed: Counter[str] = Counter()
    total: Counter[str] = Counter()
    differing = []
    for order in orders:
        kind = _kind(order)
        total[kind] += 1
        if stored.get(order.id) == order.expected:
            agreed[kind] += 1
        else:
            differing.append(order.id)
    pins = sum(1 for order in orders if order.expected[1] is not None and stored.get(order.id) == order.expected)
    return Verdict(agreed, total, differing, pins)


def _kind(order: Planned) -> str:
    if order.script is None:
        return "cannot be asked: left alone"
    status, pin = order.expected
    return f"{status}, with PIN" if pin is not None else f"{status}, no PIN" if status == "completed" else status


async def watch(engine: Engine, standin: StandIn, window: Window, total: int, *, until: float) -> None:
    """Show the progress until every order that can be asked about is final, or ``until`` (epoch seconds)."""
    while time.time() < until:
        window.show(engine, standin, total)
        if sum(engine.state.ends.values()) >= total:
            break
        await asyncio.sleep(0.1)
    window.show(engine, standin, total)


class PlainLines:
    """A line now and then, for pipes and logs."""

    def __init__(self, console: Screen) -> None:
        """Print on ``console``."""
        self._console = console
        self._next = 0.0
        self._began = time.monotonic()

    def show(self, engine: Engine, standin: StandIn, total: int) -> None:
        """Print a line if it is time for one."""
        done = sum(engine.state.ends.values())
        if time.monotonic() < self._next and done < total:
            return
        self._next = time.monotonic() + _LINE_EVERY
        ends = engine.state.ends
        account = next(iter(engine.accounts.values()))
        gate = "open" if account.gate.is_open else f"closed ({account.gate.reason})"
        self._console.print(
            f"{time.monotonic() - self._began:5.1f} s  completed {ends['completed']}  failed {ends['failed']}  "
            f"to go {total - done}  calls {sum(standin.calls.values())}  in flight {account.in_flight}  account {gate}",
            soft_wrap=True,
        )


class LiveTable:
    """A table that changes in place, for terminals."""

    def __init__(self, live: Live) -> None:
        """Draw through ``live``."""
        self._live = live

    def show(self, engine: Engine, standin: StandIn, total: int) -> None:
        """Draw the table anew."""
        state = engine.state
        done = sum(state.ends.values())
        account = next(iter(engine.accounts.values()))
        gate = Text("open", "green") if account.gate.is_open else Text(f"closed: {account.gate.reason}", "bold red")
        table = Table.grid(padding=(0, 2))
        rows: dict[str, str | Text] = {
            "completed": Text(str(state.ends["completed"]), "green"),
            "failed": Text(str(state.ends["failed"]), "yellow"),
            "still open": str(total - done),
            "cannot be asked": ", ".join(f"{reason} {n}" for reason, n in sorted(state.skipped.items())) or "0",
            "calls to znet": f"{sum(standin.calls.values())}   in flight {account.in_flight}",
            "answers": ", ".join(f"{name} {n}" for name, n in sorted(state.outcomes.items())),
            "account": gate,
        }
        for name, value in rows.items():
            table.add_row(Text(name, "dim"), value)
        self._live.update(Group(ProgressBar(total=total, completed=done, width=60), table))


def print_verdict(console: Screen, verdict: Verdict) -> None:
    """Print the comparison."""
    table = Table(title="What znet decided, and what stands in the database", title_justify="left")
    table.add_column("end")
    table.add_column("znet", justify="right")
    table.add_column("database", justify="right")
    table.add_column("differ", justify="right")
    for kind, count in sorted(verdict.total.items()):
        table.add_row(kind, str(count), str(verdict.agreed[kind]), str(count - verdict.agreed[kind]))
    console.print(table)
    console.print(f"{verdict.pins} PINs arrived, each compared letter by letter.")
    for order_id in verdict.differing[:20]:
        console.print(f"DIFFERS: order {order_id}", style="bold red")
