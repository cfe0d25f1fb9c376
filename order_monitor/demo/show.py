"""The demo: the real program on its own database and provider, with live progress and a comparison
of the results at the end.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Protocol, TypeAlias

import asyncpg
from rich.console import Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from order_monitor.core.pin import Pin
from order_monitor.demo.scenario import (
    ACCOUNTS,
    CLIENT_API,
    FIRST_PANEL,
    DemoAccount,
    Planned,
)
from order_monitor.demo.standin import SIFRE, TOKEN, StandIn
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
SHOP_SCHEMA: Final = f"""
{SCHEMA};
ALTER TABLE product_orders
    ADD COLUMN provider_id varchar,
    ADD COLUMN external_order_id varchar,
    ADD COLUMN root_order_id uuid;
CREATE TABLE integrations (
    id uuid PRIMARY KEY,
    tenant_id uuid NOT NULL,
    name varchar(120) NOT NULL,
    provider varchar(20) NOT NULL,
    base_url varchar(255),
    api_token varchar(255),
    kod varchar(120),
    sifre varchar(120),
    enabled boolean NOT NULL DEFAULT true
);
CREATE TABLE package_routing (
    id uuid PRIMARY KEY,
    tenant_id uuid NOT NULL,
    package_id uuid NOT NULL,
    provider_type varchar(32) NOT NULL,
    primary_provider_id varchar
)
"""
"""The shop's tables of several tenants and several accounts."""

_INSERT: Final = """
INSERT INTO product_orders (id, tenant_id, external_status, sent_at, provider_referans,
                            provider_id, external_order_id, root_order_id)
SELECT i, t, s, to_timestamp(a), r, p, c, o FROM unnest($1::uuid[], $2::uuid[], $3::text[],
    $4::float8[], $5::text[], $6::text[], $7::text[], $8::uuid[]) AS u(i, t, s, a, r, p, c, o)
"""
_INTEGRATE: Final = """
INSERT INTO integrations (id, tenant_id, name, provider, base_url, kod, sifre, api_token)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8)
"""
_COLUMNS: Final = (
    *("id", "tenant_id", "status", "sent_at", "reference", "provider_id", "external_order_id"),
    "root",
)
_LINE_EVERY: Final = 2.0
_MOST_SHOWN: Final = 20

Panels: TypeAlias = Mapping[DemoAccount, StandIn]
"""The stand-in of each account that is asked."""


class Window(Protocol):
    """Shows the progress."""

    def show(self, engine: Engine, panels: Panels, total: int) -> None:
        """Show the current progress."""


async def fill(dsn: str, orders: list[Planned], panels: Panels) -> None:
    """Insert the accounts, each at its panel, and the planned orders into the tables."""
    connection = await asyncpg.connect(dsn)
    try:
        for account in ACCOUNTS:
            url = panels[account].url if account in panels else None
            await connection.execute(
                _INTEGRATE,
                account.id,
                orders[0].tenant_id,
                account.name,
                account.provider,
                url,
                account.kod,
                SIFRE,
                TOKEN,
            )
        columns = [[getattr(o, name) for o in orders] for name in _COLUMNS]
        await connection.execute(_INSERT, *columns)
    finally:
        await connection.close()


@dataclass(frozen=True, slots=True)
class Verdict:
    """The comparison by row: for each account and expected end the number of rows that agree, and
    what is wrong with each of those that differ.
    """

    agreed: Counter[tuple[str, str]]
    total: Counter[tuple[str, str]]
    differing: dict[str, str]
    pins: int


async def compare(dsn: str, orders: list[Planned]) -> Verdict:
    """Compare the providers' decisions with the rows in the database."""
    connection = await asyncpg.connect(dsn)
    try:
        rows = await connection.fetch(
            "SELECT id::text, external_status, pin_code FROM product_orders"
        )
    finally:
        await connection.close()
    stored = {
        row["id"]: (row["external_status"], Pin(row["pin_code"]) if row["pin_code"] else None)
        for row in rows
    }
    agreed: Counter[tuple[str, str]] = Counter()
    total: Counter[tuple[str, str]] = Counter()
    differing: dict[str, str] = {}
    pins = 0
    for order in orders:
        kind = (order.account.name, _kind(order))
        total[kind] += 1
        found = stored.get(order.id)
        if found == order.expected:
            agreed[kind] += 1
            pins += order.expected[1] is not None
        else:
            differing[order.id] = _difference(order.expected, found)
    return Verdict(agreed, total, differing, pins)


def _kind(order: Planned) -> str:
    return _state(order.expected) if order.ends else "cannot be asked: left alone"


def _state(row: tuple[str, Pin | None]) -> str:
    status, pin = row
    if pin is not None:
        return f"{status}, with PIN"
    return f"{status}, no PIN" if status == "completed" else status


def _difference(expected: tuple[str, Pin | None], found: tuple[str, Pin | None] | None) -> str:
    """Say how a row differs, without either PIN."""
    if found is None:
        return f"{_state(expected)} is expected, and its row is gone"
    if _state(expected) == _state(found):
        return f"{_state(expected)} is expected, and another PIN is there"
    return f"{_state(expected)} is expected, and {_state(found)} is there"


async def watch(
    engine: Engine, panels: Panels, window: Window, total: int, *, until: float
) -> None:
    """Show the progress until every order that can be asked about is final, or ``until`` (epoch
    seconds).
    """
    while time.time() < until:
        window.show(engine, panels, total)
        if sum(engine.state.ends.values()) >= total:
            break
        await asyncio.sleep(0.1)
    window.show(engine, panels, total)


def _calls_to(panels: Panels, provider: str) -> tuple[int, int]:
    """Return how many calls an account kind's panels had, and about how many orders."""
    those = [panel for account, panel in panels.items() if account.provider == provider]
    return sum(p.requests for p in those), sum(sum(p.calls.values()) for p in those)


def _closed(engine: Engine) -> list[str]:
    """Return the accounts that are not asked now, and why."""
    return [
        f"{account.name} closed ({account.gate.reason})"
        for account in engine.accounts.values()
        if not account.gate.is_open
    ]


def _in_flight(engine: Engine) -> int:
    return sum(account.in_flight for account in engine.accounts.values())


class PlainLines:
    """Prints a line every few seconds, for pipes and logs."""

    def __init__(self, console: Screen) -> None:
        """Print on ``console``."""
        self._console = console
        self._next = 0.0
        self._began = time.monotonic()

    def show(self, engine: Engine, panels: Panels, total: int) -> None:
        """Print a line if it is time for one."""
        done = sum(engine.state.ends.values())
        if time.monotonic() < self._next and done < total:
            return
        self._next = time.monotonic() + _LINE_EVERY
        ends = engine.state.ends
        znet, _ = _calls_to(panels, FIRST_PANEL.provider)
        calls, asked = _calls_to(panels, CLIENT_API.provider)
        self._console.print(
            f"{time.monotonic() - self._began:5.1f} s  completed {ends['completed']}  failed {ends['failed']}  "
            f"to go {total - done}  calls to znet {znet}  to the client API {calls}, about {asked} orders  "
            f"in flight {_in_flight(engine)}  accounts {', '.join(_closed(engine)) or 'open'}",
            soft_wrap=True,
        )


class LiveTable:
    """A table that is updated in place, for terminals."""

    def __init__(self, live: Live) -> None:
        """Draw through ``live``."""
        self._live = live

    def show(self, engine: Engine, panels: Panels, total: int) -> None:
        """Redraw the table."""
        state = engine.state
        done = sum(state.ends.values())
        calls, asked = _calls_to(panels, CLIENT_API.provider)
        closed = _closed(engine)
        table = Table.grid(padding=(0, 2))
        rows: dict[str, str | Text] = {
            "completed": Text(str(state.ends["completed"]), "green"),
            "failed": Text(str(state.ends["failed"]), "yellow"),
            "still open": str(total - done),
            "cannot be asked": ", ".join(
                f"{reason} {n}" for reason, n in sorted(state.skipped.items())
            )
            or "0",
            "calls to znet": f"{_calls_to(panels, FIRST_PANEL.provider)[0]}",
            "calls to the client API": f"{calls}, about {asked} orders",
            "in flight": f"{_in_flight(engine)}",
            "answers": ", ".join(f"{name} {n}" for name, n in sorted(state.outcomes.items())),
            "accounts": Text(", ".join(closed), "bold red") if closed else Text("open", "green"),
        }
        for name, value in rows.items():
            table.add_row(Text(name, "dim"), value)
        self._live.update(Group(ProgressBar(total=total, completed=done, width=60), table))


def print_verdict(console: Screen, verdict: Verdict) -> None:
    """Print the comparison."""
    title = "What the providers decided, and what stands in the database"
    table = Table(title=title, title_justify="left")
    table.add_column("asked")
    table.add_column("end")
    for name in ("decided", "database", "differ"):
        table.add_column(name, justify="right")
    for (account, end), count in sorted(verdict.total.items()):
        agreed = verdict.agreed[account, end]
        table.add_row(account, end, str(count), str(agreed), str(count - agreed))
    console.print(table)
    console.print(f"{verdict.pins} PINs arrived, each compared letter by letter.")
    for order_id, why in list(verdict.differing.items())[:_MOST_SHOWN]:
        console.print(f"DIFFERS: order {order_id}: {why}", style="bold red", soft_wrap=True)
