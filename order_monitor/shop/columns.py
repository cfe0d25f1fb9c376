"""Find the shop's columns by looking, in either spelling of the same table."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

import asyncpg

from order_monitor.errors import SettingsError
from order_monitor.shop.database import Connection

LOGICAL: Final[dict[str, tuple[str, str]]] = {
    "id": ("id", "id"),
    "tenant_id": ("tenant_id", "tenantId"),
    "external_status": ("external_status", "externalStatus"),
    "sent_at": ("sent_at", "sentAt"),
    "pin_code": ("pin_code", "pinCode"),
    "note": ("note", "lastMessage"),
    "provider_referans": ("provider_referans", "provider_referans"),
    "provider_message": ("provider_message", "providerMessage"),
    "package_id": ("package_id", "packageId"),
    "provider_id": ("provider_id", "providerId"),
    "notes": ("notes", "notes"),
    "last_sync_at": ("last_sync_at", "lastSyncAt"),
    "completed_at": ("completed_at", "completedAt"),
    "duration_ms": ("duration_ms", "durationMs"),
}
"""Logical name → (plain spelling, the running shop's spelling)."""

REQUIRED: Final = ("id", "external_status", "sent_at", "pin_code", "provider_referans")
ADDED_BY_MIGRATE: Final = ("provider_referans",)

_LOOK: Final = """
SELECT c.column_name, c.data_type, c.character_maximum_length, c.udt_schema, c.udt_name,
       (SELECT array_agg(e.enumlabel::text) FROM pg_catalog.pg_enum e
          JOIN pg_catalog.pg_type t ON t.oid = e.enumtypid JOIN pg_catalog.pg_namespace n ON n.oid = t.typnamespace
         WHERE t.typname = c.udt_name AND n.nspname = c.udt_schema) AS labels
  FROM information_schema.columns c WHERE c.table_schema = $1 AND c.table_name = $2
"""
_TEXT: Final = frozenset({"text", "character varying", "character", "name", "citext"})
_NAIVE: Final = "timestamp without time zone"


def quoted(name: str) -> str:
    """Quote an SQL identifier."""
    return '"' + name.replace('"', '""') + '"'


def literal(text: str) -> str:
    """Quote an SQL string (``standard_conforming_strings`` is on in every transaction)."""
    return "'" + text.replace("'", "''") + "'"


@dataclass(frozen=True, slots=True)
class Column:
    """A column as it really is. ``width`` is in characters, None for no limit."""

    name: str
    data_type: str
    width: int | None = None
    cast: str = ""
    labels: tuple[str, ...] = ()

    @property
    def sql(self) -> str:
        """The quoted name."""
        return quoted(self.name)

    @property
    def is_naive(self) -> bool:
        """Whether this is a time without a zone."""
        return self.data_type == _NAIVE


@dataclass(frozen=True, slots=True)
class Table:
    """The orders table: its name and the columns found."""

    schema: str
    name: str
    columns: Mapping[str, Column] = field(default_factory=dict)
    time_zone: str | None = None

    @property
    def sql(self) -> str:
        """The quoted, schema-qualified name: no search_path has a say."""
        return f"{quoted(self.schema)}.{quoted(self.name)}"

    def __getitem__(self, logical: str) -> Column:
        """Return a column that is known to be there."""
        return self.columns[logical]

    def get(self, logical: str) -> Column | None:
        """Return a column, None where the table has none."""
        return self.columns.get(logical)

    def epoch(self, logical: str, alias: str) -> str:
        """SQL for a time column as epoch seconds (``infinity`` comes out as infinity, and harms no decoder)."""
        column = self[logical]
        zone = f" AT TIME ZONE {literal(self.time_zone)}" if column.is_naive and self.time_zone else ""
        return f"extract(epoch FROM {alias}.{column.sql}{zone})::float8"

    def instant(self, logical: str, seconds: str) -> str:
        """SQL that turns epoch ``seconds`` into a value for a time column."""
        zone = f" AT TIME ZONE {literal(self.time_zone)}" if self[logical].is_naive and self.time_zone else ""
        return f"to_timestamp({seconds}){zone}"


async def find_table(
    connection: Connection,
    *,
    schema: str,
    table: str,
    overrides: Mapping[str, str],
    time_zone: str | None,
    without: tuple[str, ...] = (),
) -> Table:
    """Look up the table.

    Args:
        connection: where to look.
        schema: the table's schema.
        table: the table's name.
        overrides: logical name → actual name, from the settings.
        time_zone: the zone of time columns that have none.
        without: required columns that may be missing for once, because the caller is about to add them.

    Raises:
        SettingsError: the table or a required column is missing, named with what to do.
    """
    there = await columns_of(connection, schema, table)
    label = f"{schema}.{table}"
    if not there:
        raise SettingsError([f"database: there is no table {label}, or this role may not see it; set database.table"])
    found, problems = _match(there, overrides, label)
    for name in REQUIRED:
        if name not in found and name not in without and name not in overrides:
            problems.append(_lacking(name, label))
    naive = [c.name for c in found.values() if c.is_naive]
    if naive and not time_zone:
        times = ", ".join(sorted(naive))
        problems.append(
            f"database.time_zone: missing; {label} keeps {times} without a time zone: name the zone, like Asia/Baku"
        )
    if problems:
        raise SettingsError(problems)
    return Table(schema, table, found, time_zone)


async def columns_of(connection: Connection, schema: str, table: str) -> dict[str, Column]:
    """Return every column of a table by its name; nothing where the table is not there, or not to be seen."""
    return {row["column_name"]: _column(row) for row in await connection.fetch(_LOOK, schema, table)}


def _match(
    there: Mapping[str, Column], overrides: Mapping[str, str], label: str
) -> tuple[dict[str, Column], list[str]]:
    """Prefer the spelling the status column has: a table in the shop's spelling may own an unrelated ``note``."""
    shop_spelling = LOGICAL["external_status"][0] not in there and LOGICAL["external_status"][1] in there
    found: dict[str, Column] = {}
    problems = []
    for logical, (plain, shop) in LOGICAL.items():
        if logical in overrides:
            if overrides[logical] in there:
                found[logical] = there[overrides[logical]]
            else:
                problems.append(f"database.columns.{logical}: {label} has no column {overrides[logical]}")
            continue
        name = next((n for n in ((shop, plain) if shop_spelling else (plain, shop)) if n in there), None)
        if name is not None:
            found[logical] = there[name]
    return found, problems


def _lacking(name: str, label: str) -> str:
    plain, shop = LOGICAL[name]
    spelled = plain if plain == shop else f'{plain} (or "{shop}")'
    if name in ADDED_BY_MIGRATE:
        return f"database: {label} has no column {spelled}; run: order-monitor migrate"
    return (
        f"database: {label} has no column {spelled}; name it under [database.columns] "
        f"(order-monitor migrate adds only {', '.join(ADDED_BY_MIGRATE)})"
    )


def _column(row: asyncpg.Record) -> Column:
    is_text = row["data_type"] in _TEXT
    # A cast to varchar(n) would cut silently; plain text is converted by assignment, which refuses what is too long.
    cast = "" if is_text else f"::{quoted(row['udt_schema'])}.{quoted(row['udt_name'])}"
    return Column(
        row["column_name"], row["data_type"], row["character_maximum_length"], cast, tuple(row["labels"] or ())
    )
