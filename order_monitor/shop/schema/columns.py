"""Find the shop's columns in the catalogue, in either spelling of the table."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

import asyncpg

from order_monitor.core.order import CLOCK_SKEW
from order_monitor.shop.database import Connection
from order_monitor.shop.schema.relations import RelationInfo

LOGICAL: Final[dict[str, tuple[str, str]]] = {
    "id": ("id", "id"),
    "tenant_id": ("tenant_id", "tenantId"),
    "external_status": ("external_status", "externalStatus"),
    "sent_at": ("sent_at", "sentAt"),
    "pin_code": ("pin_code", "pinCode"),
    "note": ("note", "lastMessage"),
    "provider_referans": ("provider_referans", "provider_referans"),
    "external_order_id": ("external_order_id", "externalOrderId"),
    "provider_message": ("provider_message", "providerMessage"),
    "package_id": ("package_id", "packageId"),
    "provider_id": ("provider_id", "providerId"),
    "notes": ("notes", "notes"),
    "notes_count": ("notes_count", "notesCount"),
    "last_sync_at": ("last_sync_at", "lastSyncAt"),
    "completed_at": ("completed_at", "completedAt"),
    "duration_ms": ("duration_ms", "durationMs"),
    "root_order_id": ("root_order_id", "rootOrderId"),
    "chain_path": ("chain_path", "chainPath"),
    "manual_note": ("manual_note", "manualNote"),
    "shop_status": ("status", "status"),
}
"""Logical name → (plain spelling, the running shop's spelling)."""

REQUIRED: Final = ("id", "external_status", "sent_at", "pin_code", "provider_referans")
ADDED_BY_MIGRATE: Final = ("provider_referans",)

ONLY_IF_WANTED: Final = ("chain_path", "manual_note", "shop_status")
"""The columns that are looked for only where the settings have a use for them."""

COLUMNS_SQL: Final = """
WITH RECURSIVE found AS (
    SELECT c.oid, c.relkind, a.attnum, a.attname, a.atttypid, a.atttypmod,
           a.attgenerated <> '' OR a.attidentity = 'a' AS generated
      FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
      JOIN pg_catalog.pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
     WHERE n.nspname = $1 AND c.relname = $2 AND c.relkind IN ('r', 'p', 'v', 'm', 'f')
       AND (pg_has_role(c.relowner, 'USAGE') OR has_column_privilege(c.oid, a.attnum, 'SELECT, INSERT, UPDATE, REFERENCES'))
), based(attnum, type, modifier, depth) AS (
    SELECT attnum, atttypid, atttypmod, 0 FROM found UNION ALL
    SELECT b.attnum, t.typbasetype, t.typtypmod, b.depth + 1 FROM based b
      JOIN pg_catalog.pg_type t ON t.oid = b.type AND t.typtype = 'd'
)
SELECT DISTINCT ON (f.attnum) f.attname::text AS column_name, b.depth > 0 AS is_domain,
       n.nspname::text AS udt_schema, t.typname::text AS udt_name,
       CASE WHEN n.nspname = 'pg_catalog' THEN format_type(t.oid, NULL) ELSE 'USER-DEFINED' END AS data_type,
       CASE WHEN t.oid IN ('bpchar'::regtype, 'varchar'::regtype) AND b.modifier > 4 THEN b.modifier - 4 END AS width,
       (SELECT array_agg(e.enumlabel::text ORDER BY e.enumsortorder) FROM pg_catalog.pg_enum e WHERE e.enumtypid = t.oid) AS labels,
       NOT f.generated AND (f.relkind <> 'v' OR pg_column_is_updatable(f.oid, f.attnum, false) OR EXISTS (
           SELECT FROM pg_catalog.pg_trigger g WHERE g.tgrelid = f.oid AND g.tgtype & 80 = 80)) AS written
  FROM found f JOIN based b ON b.attnum = f.attnum JOIN pg_catalog.pg_type t ON t.oid = b.type
  JOIN pg_catalog.pg_namespace n ON n.oid = t.typnamespace ORDER BY f.attnum, b.depth DESC
"""
"""A domain counts as its base type. In ``tgtype`` 80 is an INSTEAD OF trigger (64) for UPDATE (16).
"""

IS_TABLE_SQL: Final = """
SELECT EXISTS (SELECT FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
 WHERE n.nspname = $1 AND c.relname = $2 AND c.relkind IN ('r', 'p', 'v', 'm', 'f') AND ($3::text IS NULL OR EXISTS (
   SELECT FROM pg_catalog.pg_attribute a WHERE a.attrelid = c.oid AND a.attname = $3 AND a.attnum > 0 AND NOT a.attisdropped)))
"""

_UUID: Final = "^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$"
_TEXT: Final = frozenset({"text", "character varying", "name"})
_PADDED: Final = "character"
_NAIVE: Final = "timestamp without time zone"
_BESIDE: Final = "interval '3 hours'"
"""More than any daylight saving change: outside this interval the zone's other offset applies."""


def quoted(name: str) -> str:
    """Quote an SQL identifier."""
    return '"' + name.replace('"', '""') + '"'


def qualified(schema: str, name: str) -> str:
    """Return the SQL name of a table or an index in a schema."""
    return f"{quoted(schema)}.{quoted(name)}"


def literal(text: str) -> str:
    """Quote an SQL string (``standard_conforming_strings`` is on in every transaction)."""
    return "'" + text.replace("'", "''") + "'"


@dataclass(frozen=True, slots=True)
class Column:
    """A column as in the catalogue. ``width`` is in characters, None for no limit; ``is_written``:
    it can be written.
    """

    name: str
    data_type: str
    width: int | None = None
    cast: str = ""
    labels: tuple[str, ...] = ()
    is_written: bool = True
    is_domain: bool = False

    @property
    def sql(self) -> str:
        """The quoted name."""
        return quoted(self.name)

    @property
    def compared(self) -> str:
        """SQL to compare it with literals: a domain over an enum has no operators of its own."""
        return f"{self.sql}{self.cast}" if self.labels and self.is_domain else self.sql

    @property
    def is_text(self) -> bool:
        """Whether it can hold any text."""
        return not self.labels and self.data_type in (*_TEXT, _PADDED, "USER-DEFINED")

    @property
    def is_naive(self) -> bool:
        """Whether this is a time without a time zone."""
        return self.data_type == _NAIVE


@dataclass(frozen=True, slots=True)
class Table:
    """The orders table: its name, the columns found, those that cannot be written and are left out,
    and its shape.

    ``readable`` are further columns that help to distinguish a provider's code from what the shop
    itself wrote into the row. ``is_reference_indexed``: an index can find other orders with the
    same reference; ``is_external_indexed``: the same for the provider's own order id. With
    ``asks_by_id`` an order without any reference is asked about by its own id, which a client API
    knows. ``tenants_sql`` is SQL of the ids of the integrations that are other tenants, if they are
    asked about the children that are not in this table; empty if they are not.
    """

    schema: str
    name: str
    columns: Mapping[str, Column] = field(default_factory=dict)
    time_zone: str | None = None
    left_out: tuple[str, ...] = ()
    relation: RelationInfo = field(default_factory=RelationInfo)
    readable: tuple[str, ...] = ()
    is_reference_indexed: bool = False
    is_external_indexed: bool = False
    asks_by_id: bool = False
    tenants_sql: str = ""

    @property
    def sql(self) -> str:
        """The quoted, schema-qualified name, independent of search_path."""
        return qualified(self.schema, self.name)

    def __getitem__(self, logical: str) -> Column:
        """Return a column that is known to exist."""
        return self.columns[logical]

    def get(self, logical: str) -> Column | None:
        """Return a column, None if the table has none."""
        return self.columns.get(logical)

    def id_sql(self, text: str) -> str:
        """SQL for a text as an order's id, usable with the primary key; NULL if it is not one."""
        column = self["id"]
        if column.data_type == "uuid":
            return f"(CASE WHEN lower({text}) ~ '{_UUID}' THEN lower({text})::uuid END)"
        if column.is_text:
            return f"{text}{column.cast}"
        return f"(CASE WHEN {text} ~ '^[0-9]{{1,18}}$' THEN {text}::bigint END)"

    def epoch(self, logical: str, alias: str) -> str:
        """SQL for a time column as epoch seconds (``infinity`` becomes a float infinity, which
        needs no special decoding).

        A time without zone that is ambiguous, or never existed, because clocks were set is read so
        that it is not in the future.
        """
        written, zone = f"{alias}.{self[logical].sql}", self._zone(logical)
        return f"extract(epoch FROM {_read(written, zone) if zone else written})::float8"

    def instant(self, logical: str, seconds: str) -> str:
        """SQL that turns epoch ``seconds`` into a value for a time column."""
        zone = self._zone(logical)
        # In parentheses: next to BETWEEN, AT TIME ZONE is a syntax error.
        return (
            f"(to_timestamp({seconds}) AT TIME ZONE {zone})" if zone else f"to_timestamp({seconds})"
        )

    def since(self, logical: str, seconds: str) -> str:
        """SQL for a value below which there is nothing written after epoch ``seconds``: when clocks
        are set back, later times are written as earlier ones.
        """
        zone = self._zone(logical)
        at = f"to_timestamp({seconds})"
        if not zone:
            return at
        return (
            f"least({at} AT TIME ZONE {zone}, ({at} + {_BESIDE}) AT TIME ZONE {zone} - {_BESIDE})"
        )

    def _zone(self, logical: str) -> str:
        return literal(self.time_zone) if self[logical].is_naive and self.time_zone else ""


def _read(written: str, zone: str) -> str:
    """SQL that reads a time without zone.

    PostgreSQL takes the later of two readings. The other one is computed only if the first is in
    the future, and not by more than clocks are set. This saves the work for nearly every row,
    and avoids arithmetic with ``infinity``.
    """
    at = f"({written} AT TIME ZONE {zone})"
    again = f"({at} AT TIME ZONE {zone})"
    back = f"({at} - ({_BESIDE} - ({again} - (({at} - {_BESIDE}) AT TIME ZONE {zone}))))"
    return (
        f"CASE WHEN {at} > now() + interval '{CLOCK_SKEW:.0f} seconds' AND {at} < now() + {_BESIDE} THEN "
        f"CASE WHEN {again} <> {written} THEN {at} - ({again} - {written}) "
        f"WHEN ({back} AT TIME ZONE {zone}) = {written} THEN {back} ELSE {at} END ELSE {at} END"
    )


async def columns_of(connection: Connection, schema: str, table: str) -> dict[str, Column]:
    """Return all columns of a table by name; none if it does not exist or is hidden from us."""
    return {
        row["column_name"]: _column(row)
        for row in await connection.fetch(COLUMNS_SQL, schema, table)
    }


async def is_table(
    connection: Connection, schema: str, table: str, column: str | None = None
) -> bool:
    """Whether there is such a table, or one with this ``column``, even if hidden from this role."""
    return bool(await connection.fetchval(IS_TABLE_SQL, schema, table, column))


def _column(row: asyncpg.Record) -> Column:
    # A cast to varchar(n) would truncate silently; plain text is converted by assignment, which
    # rejects values that are too long. A cast to a type's bare name truncates nothing, and allows
    # an index on char(n) to be used.
    cast = "" if row["data_type"] in _TEXT else f"::{qualified(row['udt_schema'], row['udt_name'])}"
    return Column(
        row["column_name"],
        row["data_type"],
        row["width"],
        cast,
        tuple(row["labels"] or ()),
        row["written"],
        row["is_domain"],
    )
