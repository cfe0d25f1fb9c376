"""Find the orders table and match its columns; say each mismatch before anything is changed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final, TypeVar

import asyncpg

from order_monitor.core.errors import SettingsError, TableError
from order_monitor.shop.database import Connection
from order_monitor.shop.schema.columns import (
    ADDED_BY_MIGRATE,
    LOGICAL,
    ONLY_IF_WANTED,
    REQUIRED,
    Column,
    Table,
    columns_of,
    quoted,
)
from order_monitor.shop.schema.relations import RelationInfo, find_shape, problems_of
from order_monitor.shop.schema.table_config import TableConfig

_T = TypeVar("_T")

WRITTEN: Final = (
    "external_status",
    "pin_code",
    "note",
    "provider_message",
    "last_sync_at",
    "completed_at",
    "duration_ms",
    "notes",
    "notes_count",
    "manual_note",
)
"""The columns that are written if they exist."""

_TIMES: Final = ("timestamp with time zone", "timestamp without time zone", "date")
_NUMBERS: Final = ("integer", "bigint", "numeric", "double precision", "real")
_TYPES: Final[dict[str, tuple[str, ...]]] = {
    "sent_at": _TIMES,
    "last_sync_at": _TIMES,
    "completed_at": _TIMES,
    "duration_ms": _NUMBERS,
    "notes_count": _NUMBERS,
}
_TEXTS: Final = ("pin_code", "note", "provider_message", "manual_note")

_ELSEWHERE: Final = """
SELECT n.nspname || '.' || c.relname FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
 WHERE c.relkind IN ('r', 'p') AND c.relpersistence <> 't' AND replace(lower(c.relname), '_', '') = $1
   AND n.nspname NOT IN ('pg_catalog', 'information_schema') ORDER BY 1 LIMIT 3
"""


async def find_table(
    connection: Connection, table_config: TableConfig, *, is_migrating: bool = False
) -> Table:
    """Look up the table.

    For a migration what it adds may be missing, and the columns that only settings need.

    Raises:
        TableError: the table or a required column is missing or unusable; the text says what to do.
        SettingsError: a setting is missing without which the columns cannot be read.
    """
    schema, table, overrides = table_config.schema, table_config.table, table_config.overrides
    wanted, welcome = ((), ()) if is_migrating else (table_config.wanted, table_config.welcome)
    label = f"{schema}.{table}"
    relation = await find_shape(connection, schema, table, overrides.get("id", "id"))
    if relation is None:
        raise TableError([await _no_table(connection, schema, table)])
    there = await columns_of(connection, schema, table)
    if unfit := problems_of(relation, label):
        raise TableError(unfit)
    if not there:
        raise TableError(
            [
                f"database: this role may not see {label}; GRANT USAGE ON SCHEMA {quoted(schema)} and GRANT SELECT ON {label}"
            ]
        )
    found, problems = match_columns(there, overrides, label, (*wanted, *welcome))
    problems += [_unfound(n, label) for n in wanted if n not in found and n not in overrides]
    wanting = [n for n in REQUIRED if n not in found and n not in overrides]
    problems += [
        p for n in wanting if (p := _lacking(n, label, there, relation, may_lack=is_migrating))
    ]
    problems += _distribution(found, relation.distributed_by, label)
    left_out = {name: why for name, column in found.items() if (why := _unwritable(name, column))}
    problems += [
        f"database: {label}.{found[n].name} {why}" for n, why in left_out.items() if n in REQUIRED
    ]
    # Only the settings can resolve this: what the times in the table mean.
    if zone := await _zone(connection, found, table_config.time_zone, label):
        raise SettingsError([*problems, *zone])
    if problems:
        raise TableError(problems)
    kept = {name: column for name, column in found.items() if name not in left_out}
    told = tuple(f"{found[n].name} {why}" for n, why in left_out.items())
    readable = await _readable(connection, schema, table, found)
    own, external = [
        name in kept and await is_led_by_index(connection, schema, table, kept[name].name)
        for name in ("provider_referans", "external_order_id")
    ]
    return Table(
        schema, table, kept, table_config.time_zone, told, relation, readable, own, external
    )


async def is_led_by_index(connection: Connection, schema: str, table: str, column: str) -> bool:
    """Whether an index leads with a column, so that its values are found without a full read."""
    return bool(await connection.fetchval(_INDEXED, schema, table, column))


async def _readable(
    connection: Connection, schema: str, table: str, found: Mapping[str, Column]
) -> tuple[str, ...]:
    """Return readable columns with what the shop knows of an order, without a possible PIN."""
    rows = await connection.fetch(_READABLE, schema, table)
    told = {found[name].name for name in _TOLD if name in found}
    return tuple(row[0] for row in rows if row[0] not in told and "note" not in row[0].lower())


_READABLE: Final = """
SELECT a.attname::text FROM pg_catalog.pg_attribute a JOIN pg_catalog.pg_class c ON c.oid = a.attrelid
  JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace JOIN pg_catalog.pg_type t ON t.oid = a.atttypid
 WHERE n.nspname = $1 AND c.relname = $2 AND a.attnum > 0 AND NOT a.attisdropped
   AND (t.typcategory IN ('S', 'N') OR t.typname = 'uuid') AND has_column_privilege(c.oid, a.attnum, 'SELECT') ORDER BY 1
"""
_INDEXED: Final = """
SELECT EXISTS (SELECT FROM pg_catalog.pg_index i JOIN pg_catalog.pg_class c ON c.oid = i.indrelid
  JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
  JOIN pg_catalog.pg_attribute a ON a.attrelid = c.oid AND a.attnum = i.indkey[0]
 WHERE n.nspname = $1 AND c.relname = $2 AND a.attname = $3 AND i.indisvalid
   AND (i.indpred IS NULL OR pg_get_expr(i.indpred, i.indrelid) ~* 'IS NOT NULL[)]*$'))
"""
"""An index that leads with a column; a condition that it be there at all does no harm."""

_TOLD: Final = ("pin_code", "note", "provider_message", "notes", "manual_note")


async def _no_table(connection: Connection, schema: str, table: str) -> str:
    near = [row[0] for row in await connection.fetch(_ELSEWHERE, _plain(table))]
    hint = "; set database.table"
    if near:
        hint = f": there is {' and '.join(near)}; set database.schema and database.table"
    return f"database: there is no table {schema}.{table}, or this role may not see it{hint}"


async def _zone(
    connection: Connection, found: Mapping[str, Column], time_zone: str | None, label: str
) -> list[str]:
    times = ", ".join(sorted(column.name for column in found.values() if column.is_naive))
    if not times:
        return []
    if not time_zone:
        return [
            f"database.time_zone: missing; {label} keeps {times} without a time zone: name the zone, like Asia/Baku"
        ]
    await connection.execute("SAVEPOINT zone")
    try:
        await connection.fetchval("SELECT now() AT TIME ZONE $1::text", time_zone)
    except asyncpg.PostgresError as error:
        said = str(error).splitlines()[0]
    else:
        return []
    finally:
        await connection.execute("ROLLBACK TO SAVEPOINT zone")
    near = [row[0] for row in await connection.fetch(_ZONES, time_zone)]
    allowed = "it must be a name out of pg_timezone_names, like Asia/Baku"
    remedy = f"did you mean {' or '.join(near)}? {allowed}" if near else allowed
    return [f"database.time_zone: the database says: {said}; {remedy}"]


_ZONES: Final = """
SELECT name FROM pg_catalog.pg_timezone_names WHERE lower(name) LIKE '%' || lower($1) || '%'
   AND name !~ '^(posix|right)/' ORDER BY length(name), name LIMIT 3
"""


def _distribution(found: Mapping[str, Column], column: str | None, label: str) -> list[str]:
    """Return the problem if Citus distributes the rows so that an order's row cannot be locked: it
    must know which node the row is on.
    """
    keys = [found[name].name for name in ("tenant_id", "id") if name in found]
    if column is None or column in keys:
        return []
    return [
        f"database: {label} is distributed by {column}: distribute it by {' or '.join(keys)}, else no row can be locked"
    ]


def match_columns(
    there: Mapping[str, _T], overrides: Mapping[str, str], label: str, wanted: tuple[str, ...]
) -> tuple[dict[str, _T], list[str]]:
    """Return the columns by logical name, and the mistakes in the column names of the settings.

    The spelling of the status column is preferred: a table in the shop's spelling may have an
    unrelated ``note`` column.
    """
    shop_spelling = (
        LOGICAL["external_status"][0] not in there and LOGICAL["external_status"][1] in there
    )
    found: dict[str, _T] = {}
    problems = []
    for logical, (plain, shop) in LOGICAL.items():
        if logical in ONLY_IF_WANTED and logical not in wanted:
            continue
        if logical in overrides:
            if overrides[logical] in there:
                found[logical] = there[overrides[logical]]
            else:
                problems.append(_misnamed(logical, overrides[logical], label, there))
            continue
        name = next(
            (n for n in ((shop, plain) if shop_spelling else (plain, shop)) if n in there), None
        )
        if name is not None:
            found[logical] = there[name]
    return found, problems


def _misnamed(logical: str, name: str, label: str, there: Iterable[str]) -> str:
    near = _near([name], there)
    key = "notes.customer_column" if logical == "manual_note" else f"database.columns.{logical}"
    return f"{key}: {label} has no column {name}" + (
        f"; it has {' and '.join(near)}" if near else ""
    )


def _unfound(name: str, label: str) -> str:
    """Return what to do about a column that a setting needs and that does not exist."""
    text = f"{label} has no column {LOGICAL[name][0]}, in which to look for these words"
    return f"statuses.settled: {text}; name it under [database.columns] as {name}, or leave statuses.settled out"


def _lacking(
    name: str, label: str, there: Iterable[str], relation: RelationInfo, *, may_lack: bool
) -> str | None:
    """Return what to do about a column that does not exist; None if it is about to be added."""
    plain, shop = LOGICAL[name]
    spelled = plain if plain == shop else f'{plain} (or "{shop}")'
    text = f"database: {label} has no column {spelled}"
    if near := _near([plain, shop], there):
        return f'{text}, but {" and ".join(near)}: name it under [database]: columns = {{ {name} = "{near[0]}" }}'
    if name not in ADDED_BY_MIGRATE:
        return f"{text}; name it under [database.columns] (order-monitor migrate adds only {', '.join(ADDED_BY_MIGRATE)})"
    if relation.is_view:
        return f"{text}; it is a view: add {plain} varchar(255) to the table behind it, and to the view's definition"
    if relation.partition_of:
        return f"{text}, and is a partition of {relation.partition_of}; set database.table to that"
    return None if may_lack else f"{text}; run: order-monitor migrate"


def _near(names: Iterable[str], there: Iterable[str]) -> list[str]:
    wanted = {_plain(name) for name in names}
    return sorted(name for name in there if _plain(name) in wanted)


def _plain(name: str) -> str:
    return name.replace("_", "").lower()


def _unwritable(logical: str, column: Column) -> str:
    """Return why a column cannot be used, else nothing. An optional one is then left out."""
    if logical in WRITTEN and not column.is_written:
        return "is generated or computed, and cannot be written: make it a plain column"
    allowed = _TYPES.get(logical)
    if allowed is not None and column.data_type not in allowed:
        return f"is of type {column.data_type}: make it {allowed[0]}"
    if logical in _TEXTS and not column.is_text:
        return f"is of type {column.data_type}: make it text"
    return ""
