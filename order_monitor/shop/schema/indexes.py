"""The indexes that are added while the shop runs: one on a plain table, one per partition on a
partitioned table.

PostgreSQL cannot build an index on a partitioned table CONCURRENTLY. So the parent gets an empty
index (ON ONLY), each partition gets its own, built CONCURRENTLY, and each is attached; partitions
added later inherit it from the parent. After an interruption the next run completes the work.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from typing import Final

from order_monitor.shop.database import Connection
from order_monitor.shop.schema.columns import Table, qualified, quoted
from order_monitor.shop.schema.relations import FOREIGN, PARTITIONED, Part

_LONGEST_NAME: Final = 63

_INDEX: Final = """
SELECT i.indisvalid FROM pg_catalog.pg_index i JOIN pg_catalog.pg_class c ON c.oid = i.indexrelid
  JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace WHERE n.nspname = $1 AND c.relname = $2
"""
_COVERED: Final = """
WITH RECURSIVE below(oid) AS (
    SELECT c.oid FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
     WHERE n.nspname = $1 AND c.relname = $2 AND c.relkind = 'I'
    UNION ALL SELECT h.inhrelid FROM below JOIN pg_catalog.pg_inherits h ON h.inhparent = below.oid
)
SELECT EXISTS (SELECT FROM below JOIN pg_catalog.pg_index i ON i.indexrelid = below.oid
  JOIN pg_catalog.pg_class t ON t.oid = i.indrelid JOIN pg_catalog.pg_namespace n ON n.oid = t.relnamespace
 WHERE n.nspname = $3 AND t.relname = $4)
"""
_STALE: Final = """
SELECT c.relname::text FROM pg_catalog.pg_index i JOIN pg_catalog.pg_class c ON c.oid = i.indexrelid
  JOIN pg_catalog.pg_class t ON t.oid = i.indrelid JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
 WHERE n.nspname = $1 AND t.relname = $2 AND c.relname LIKE '%\\_om\\_%\\_________' AND c.relname <> ALL($3::text[])
   AND NOT EXISTS (SELECT FROM pg_catalog.pg_inherits h WHERE h.inhrelid = c.oid) ORDER BY 1
"""


@dataclass(frozen=True, slots=True)
class IndexPlace:
    """A partition, and the whole table's index that its own is attached to: (schema, name) each."""

    part: tuple[str, str]
    root: tuple[str, str]


@dataclass(frozen=True, slots=True)
class Change:
    """One statement, and the one that undoes it.

    ``index`` is the name of the index it builds, in ``schema``; outside a transaction unless
    ``is_quick``. ``table`` is the table it creates or, with ``column``, adds that column to.
    ``place`` is the partition it is for. ``mark`` is the mark that it sets.
    """

    what: str
    sql: str
    reverse: str
    index: str | None = None
    table: str | None = None
    schema: str = ""
    is_quick: bool = False
    place: IndexPlace | None = None
    column: str | None = None
    mark: str | None = None

    @property
    def is_shops(self) -> bool:
        """Whether it adds a column to the shop's own table."""
        return (
            self.table is None and self.index is None and self.place is None and self.mark is None
        )


@dataclass(frozen=True, slots=True)
class IndexPlan:
    """One index on ``column``, where ``condition``. Its name depends on both: a change makes a new
    one.
    """

    table: Table
    kind: str
    column: str
    condition: str

    def name(self, of: str) -> str:
        """Return the index's name on the table ``of``."""
        digest = hashlib.sha256(f"{self.column} {self.condition}".encode()).hexdigest()[:8]
        tail = f"_om_{self.kind}_{digest}"
        return of[: _LONGEST_NAME - len(tail)] + tail

    def changes(self) -> list[Change]:
        """Return the changes that create it, in order; empty for a view, which cannot have any."""
        relation = self.table.relation
        if relation.is_view:
            return []
        top = (self.table.schema, self.table.name)
        changes = [self._make(*top, relation.kind)]
        for part in relation.parts:
            if part.kind != FOREIGN:
                changes += self._part(part)
        return changes

    def _part(self, part: Part) -> list[Change]:
        if not part.is_partition:
            return [self._make(part.schema, part.name, part.kind)]
        place = IndexPlace(
            (part.schema, part.name), (self.table.schema, self.name(self.table.name))
        )
        return [self._make(part.schema, part.name, part.kind, place), self._attach(part, place)]

    def _make(self, schema: str, of: str, kind: str, place: IndexPlace | None = None) -> Change:
        """Return the change for one table's index: on a partitioned table it is empty and quick."""
        name, is_parent = self.name(of), kind == PARTITIONED
        how, only = ("", "ONLY ") if is_parent else ("CONCURRENTLY ", "")
        sql = (
            f"CREATE INDEX {how}IF NOT EXISTS {quoted(name)} ON {only}{qualified(schema, of)} "
            f"({self.column}) WHERE {self.condition}"
        )
        made = Change(
            f"index {name}", sql, "", name, schema=schema, is_quick=is_parent, place=place
        )
        # An attached index is dropped together with its parent.
        return made if place else replace(made, reverse=drop_of(made))

    def _attach(self, part: Part, place: IndexPlace) -> Change:
        whole, own = self.name(part.parent), self.name(part.name)
        return Change(
            f"index {own} as a part of {whole}",
            f"ALTER INDEX {qualified(part.parent_schema, whole)} ATTACH PARTITION {qualified(part.schema, own)}",
            "",
            is_quick=True,
            place=place,
        )


async def is_there(connection: Connection, change: Change) -> bool:
    """Whether the index of ``change`` is there and valid; a parent's need not be valid."""
    if change.place is not None and await connection.fetchval(
        _COVERED, *change.place.root, *change.place.part
    ):
        return True
    if change.index is None:
        return False
    valid = await connection.fetchval(_INDEX, change.schema, change.index)
    return valid is not None if change.is_quick else bool(valid)


async def is_broken(connection: Connection, change: Change) -> bool:
    """Whether an interrupted build left the index half-built."""
    return await connection.fetchval(_INDEX, change.schema, change.index) is False


async def stale(connection: Connection, table: Table, needed: list[Change]) -> list[Change]:
    """Return the changes that drop our indexes that no query uses any more."""
    names = [change.index for change in needed if change.index]
    places = [(table.schema, table.name, table.relation.kind)]
    places += [(part.schema, part.name, part.kind) for part in table.relation.parts]
    drops = []
    for schema, of, kind in places:
        for row in await connection.fetch(_STALE, schema, of, names):
            name, is_quick = row["relname"], kind == PARTITIONED
            old = Change(f"index {name}", "", "", name, schema=schema, is_quick=is_quick)
            drops.append(replace(old, sql=drop_of(old)))
    return drops


def drop_of(change: Change) -> str:
    """SQL that drops an index; with its partitions' indexes it cannot run CONCURRENTLY."""
    assert change.index is not None
    how = "" if change.is_quick else "CONCURRENTLY "
    return f"DROP INDEX {how}IF EXISTS {qualified(change.schema, change.index)}"
