"""What the orders table is: plain, partitioned, inherited, a view, or not to be written."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import asyncpg

from order_monitor.shop.database import Connection

PLAIN: Final = "r"
PARTITIONED: Final = "p"
VIEW: Final = "v"
MATERIALIZED: Final = "m"
FOREIGN: Final = "f"
"""Values of ``pg_class.relkind``."""

_LOOK: Final = r"""
SELECT c.oid, c.relkind::text AS kind, c.relpersistence::text AS persistence,
       (SELECT p.oid::regclass::text FROM pg_catalog.pg_inherits i JOIN pg_catalog.pg_class p ON p.oid = i.inhparent
         WHERE i.inhrelid = c.oid AND c.relispartition) AS partition_of,
       c.relkind <> 'v' OR (pg_catalog.pg_relation_is_updatable(c.oid, true) & 4) = 4 AS updatable,
       ARRAY(SELECT a.attname::text FROM pg_catalog.pg_partitioned_table p JOIN pg_catalog.pg_attribute a
              ON a.attrelid = p.partrelid AND a.attnum = ANY(p.partattrs) WHERE p.partrelid = c.oid) AS partitioned_by,
       (SELECT s.srvname::text FROM pg_catalog.pg_foreign_table f JOIN pg_catalog.pg_foreign_server s ON s.oid = f.ftserver
         WHERE f.ftrelid = c.oid) AS server,
       to_regclass('pg_catalog.pg_dist_partition') IS NOT NULL AS with_citus,
       c.relkind = 'v' AND pg_get_viewdef(c.oid) ~* '\mWHERE\M' AS filtered
  FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
 WHERE n.nspname = $1 AND c.relname = $2 AND c.relkind IN ('r', 'p', 'v', 'm', 'f')
"""
_PARTS: Final = """
WITH RECURSIVE part(oid, parent, level) AS (
    SELECT i.inhrelid, i.inhparent, 1 FROM pg_catalog.pg_inherits i WHERE i.inhparent = $1
    UNION ALL SELECT i.inhrelid, i.inhparent, level + 1 FROM part JOIN pg_catalog.pg_inherits i ON i.inhparent = part.oid
)
SELECT n.nspname::text AS schema, c.relname::text AS name, c.relkind::text AS kind, c.relispartition AS is_partition,
       pn.nspname::text AS parent_schema, p.relname::text AS parent
  FROM part JOIN pg_catalog.pg_class c ON c.oid = part.oid JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
  JOIN pg_catalog.pg_class p ON p.oid = part.parent JOIN pg_catalog.pg_namespace pn ON pn.oid = p.relnamespace
 ORDER BY part.level, 1, 2
"""
_BASES: Final = """
WITH RECURSIVE used(oid) AS (
    SELECT $1::oid UNION
    SELECT d.refobjid FROM used JOIN pg_catalog.pg_rewrite r ON r.ev_class = used.oid
      JOIN pg_catalog.pg_depend d ON d.classid = 'pg_catalog.pg_rewrite'::regclass AND d.objid = r.oid
       AND d.refclassid = 'pg_catalog.pg_class'::regclass
)
SELECT n.nspname || '.' || c.relname FROM used JOIN pg_catalog.pg_class c ON c.oid = used.oid
  JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace WHERE c.relkind IN ('r', 'p', 'f') ORDER BY 1
"""
_UNIQUE: Final = """
SELECT bool_or(i.indnkeyatts = 1) AS alone, count(*) > 0 AS somehow
  FROM pg_catalog.pg_index i JOIN pg_catalog.pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = ANY(i.indkey)
 WHERE i.indrelid = $1 AND a.attname = $2 AND i.indisunique AND i.indisvalid AND i.indpred IS NULL
"""
_DISTRIBUTED_BY: Final = """
SELECT column_to_column_name(logicalrelid, partkey)::text FROM pg_catalog.pg_dist_partition
 WHERE logicalrelid = $1 AND partkey IS NOT NULL
"""
"""From Citus's own catalogue; a reference table has no key."""

_UNLOCKABLE: Final = ("0A000", "42809")


@dataclass(frozen=True, slots=True)
class Part:
    """A partition or else a table that inherits; either may have parts of its own."""

    schema: str
    name: str
    kind: str
    is_partition: bool
    parent_schema: str
    parent: str


@dataclass(frozen=True, slots=True)
class RelationInfo:
    """The kind and structure of the table.

    ``bases`` are the tables behind a view; ``parts`` are the partitions or child tables, parents
    first. ``is_unique``: an index prevents two rows with the same id. ``is_keyed``: a key at least
    contains the id, as a partitioned table's key must contain the partition columns.
    ``partitioned_by`` are those columns; ``distributed_by`` is the column by which Citus spreads
    the rows over its nodes. A view with ``is_filtered`` may show only open rows.
    """

    kind: str = PLAIN
    persistence: str = "p"
    partition_of: str | None = None
    is_updatable: bool = True
    is_lockable: bool = True
    is_unique: bool = True
    is_keyed: bool = True
    server: str = ""
    bases: tuple[str, ...] = ()
    parts: tuple[Part, ...] = ()
    partitioned_by: tuple[str, ...] = ()
    distributed_by: str | None = None
    is_filtered: bool = False

    @property
    def is_view(self) -> bool:
        """Whether its rows belong to another table."""
        return self.kind == VIEW


async def find_shape(
    connection: Connection, schema: str, table: str, id_column: str
) -> RelationInfo | None:
    """Return what a table is, None if it does not exist; ``id_column`` is the name of its key."""
    row = await connection.fetchrow(_LOOK, schema, table)
    if row is None:
        return None
    parts = tuple(Part(**part) for part in await connection.fetch(_PARTS, row["oid"]))
    is_view = row["kind"] in (VIEW, MATERIALIZED)
    unique = await connection.fetchrow(_UNIQUE, row["oid"], id_column)
    assert unique is not None
    inherited = any(not part.is_partition for part in parts)
    return RelationInfo(
        row["kind"],
        row["persistence"],
        row["partition_of"],
        row["updatable"],
        row["kind"] != VIEW or await _is_lockable(connection, schema, table),
        bool(unique["alone"]) and not inherited,
        unique["somehow"] and not inherited,
        row["server"] or "",
        tuple(base[0] for base in await connection.fetch(_BASES, row["oid"])) if is_view else (),
        parts,
        tuple(row["partitioned_by"]),
        await connection.fetchval(_DISTRIBUTED_BY, row["oid"]) if row["with_citus"] else None,
        row["filtered"],
    )


async def _is_lockable(connection: Connection, schema: str, table: str) -> bool:
    """Ask the planner whether a view's rows can be locked; a missing right does not answer that."""
    name = await connection.fetchval("SELECT format('%I.%I', $1::text, $2::text)", schema, table)
    await connection.execute("SAVEPOINT lockable")
    try:
        await connection.fetch(f"EXPLAIN SELECT 1 FROM {name} FOR NO KEY UPDATE")
    except asyncpg.PostgresError as error:
        if error.sqlstate[:2] not in ("0A", "42"):
            raise
        await connection.execute("ROLLBACK TO SAVEPOINT lockable")
        return error.sqlstate not in _UNLOCKABLE
    return True


def problems_of(relation: RelationInfo, label: str) -> list[str]:
    """Return why this kind of table cannot be the orders table, and which one to use instead."""
    behind = f"set database.table to the table behind it ({', '.join(relation.bases) or 'see its definition'})"
    if relation.kind == MATERIALIZED:
        return [
            f"database: {label} is a materialized view, a copy that cannot be written to; {behind}"
        ]
    if relation.kind == FOREIGN:
        why = "its rows are in another database, where an order and its event cannot be one transaction"
        return [
            f"database: {label} is a foreign table (server {relation.server}): {why}; set database.dsn to that database"
        ]
    if relation.persistence == "t":
        return [
            f"database: {label} is a temporary table, visible to one session only; set database.table to a lasting one"
        ]
    if relation.is_view and not (relation.is_updatable and relation.is_lockable):
        can = "be written" if not relation.is_updatable else "have its rows locked"
        return [
            f"database: {label} is a view that cannot {can} (it joins, groups or computes its rows); {behind}"
        ]
    return []


def remarks_of(relation: RelationInfo, label: str) -> list[tuple[str, str]]:
    """Return the limitations of this kind of table, each with what to do."""
    remarks = []
    if relation.is_view:
        remarks.append(view_remark(relation))
        if relation.is_filtered:
            remarks.append(_FILTERED)
    if relation.persistence == "u":
        remarks.append(
            ("is unlogged: a crash of the server empties it", f"ALTER TABLE {label} SET LOGGED")
        )
    if relation.partition_of:
        remarks.append(
            (
                f"is one partition of {relation.partition_of}: orders in the others are not seen",
                f"set database.table to {relation.partition_of}",
            )
        )
    foreign = [f"{part.schema}.{part.name}" for part in relation.parts if part.kind == FOREIGN]
    if foreign:
        text = f"has rows in another database ({', '.join(foreign)}): there an order and its event are not one transaction"
        remarks.append((text, "keep open orders out of foreign partitions"))
    return remarks


_FILTERED: Final = (
    "is a view that shows some rows only: an order that leaves it when it ends cannot be read back, and no late PIN is looked for",
    "let the view show the rows that have ended too, or set database.table to the table behind it",
)


def view_remark(relation: RelationInfo) -> tuple[str, str]:
    """Return a view's limitation, and what to do."""
    bases = ", ".join(relation.bases) or "see its definition"
    return (
        f"is a view: orders are read and written through it, but no index can be put on it (behind it: {bases})",
        "set database.table to the table behind it and run order-monitor migrate, or index that table by hand (the reference too)",
    )
