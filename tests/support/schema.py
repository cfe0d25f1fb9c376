"""What migrate and check say about a shop's tables."""

from order_monitor.shop.check.line import CheckLine
from order_monitor.shop.check.tables import TableCheck
from order_monitor.shop.migration import Migration
from order_monitor.shop.schema.table_config import TableConfig
from order_monitor.watch.system_clock import SystemClock
from tests.support.shops import LAYOUT, Shop


def migration(shop: Shop, table_config: TableConfig = LAYOUT) -> Migration:
    return Migration(shop.database(), table_config, SystemClock())


async def lines(shop: Shop, table_config: TableConfig = LAYOUT) -> list[str]:
    return [line async for line in migration(shop, table_config).apply()]


async def indexes(shop: Shop) -> dict[str, bool]:
    rows = await shop.connection.fetch(
        "SELECT c.relname, i.indisvalid FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid "
        "WHERE i.indrelid = 'product_orders'::regclass AND NOT i.indisprimary"
    )
    return {row["relname"]: row["indisvalid"] for row in rows}


async def examined(shop: Shop) -> list[CheckLine]:
    database = shop.database()
    table_check = TableCheck(
        database,
        shop.orders(database),
        Migration(database, shop.table_config, SystemClock()),
        shop.table_config,
    )
    return [line async for line in table_check.examine()]


def of(found_lines: list[CheckLine], level: str) -> list[str]:
    return [
        f"{line.subject}: {line.text} -> {line.do}" for line in found_lines if line.level == level
    ]


async def explained(shop: Shop, sql: str, *arguments: object) -> str:
    return "\n".join(row[0] for row in await shop.connection.fetch(f"EXPLAIN {sql}", *arguments))


BEFORE = """
ALTER TABLE product_orders ADD COLUMN IF NOT EXISTS provider_referans varchar(255);
CREATE TABLE order_monitor_events (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, order_id uuid NOT NULL, tenant_id uuid,
  from_status text, to_status text NOT NULL, has_pin boolean NOT NULL, message text, checks integer, sent_at timestamptz,
  decided_at timestamptz NOT NULL DEFAULT now(), consumed_at timestamptz, decided_by text NOT NULL DEFAULT 'daemon',
  repeat boolean NOT NULL DEFAULT false, outcome text);
CREATE TABLE order_monitor_pauses (account text PRIMARY KEY, reason text NOT NULL, paused_by text NOT NULL,
  paused_at timestamptz NOT NULL DEFAULT now(), until timestamptz);
CREATE TABLE order_monitor_timing (account text NOT NULL, package text NOT NULL, sketch text NOT NULL,
  updated_at timestamptz NOT NULL DEFAULT now(), PRIMARY KEY (account, package));
"""
"""The tables as the version before made them, as far as anything of them changes."""
