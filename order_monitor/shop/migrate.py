"""What order-monitor adds to the shop's database: one column and its indexes, without stopping the shop."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any, Final

import tenacity

from order_monitor.clock import Clock
from order_monitor.errors import ShopUnavailableError
from order_monitor.shop.columns import Column, Table, columns_of, find_table, quoted
from order_monitor.shop.database import Database
from order_monitor.shop.layout import DELIVERIES, EVENTS, PAUSES, REVIEW, Layout, is_open, is_unknown

REFERANS: Final = Column("provider_referans", "character varying", 255)
_LOCK_TIMEOUT: Final = "2s"
_LOCK_TRIES: Final = 10
_LONGEST_NAME: Final = 63

_INDEX: Final = """
SELECT i.indisvalid FROM pg_catalog.pg_index i JOIN pg_catalog.pg_class c ON c.oid = i.indexrelid
  JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace WHERE n.nspname = $1 AND c.relname = $2
"""
_STALE: Final = """
SELECT c.relname FROM pg_catalog.pg_index i JOIN pg_catalog.pg_class c ON c.oid = i.indexrelid
  JOIN pg_catalog.pg_class t ON t.oid = i.indrelid JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
 WHERE n.nspname = $1 AND t.relname = $2 AND c.relname LIKE $3 AND c.relname <> ALL($4::text[]) ORDER BY 1
"""
_WAITED_FOR: Final = """
SELECT count(*) FROM pg_catalog.pg_stat_activity WHERE pid <> pg_backend_pid() AND datname = current_database()
   AND backend_type = 'client backend' AND xact_start < clock_timestamp() - make_interval(secs => $1)
"""


@dataclass(frozen=True, slots=True)
class Change:
    """One statement, and the one that undoes it. ``index`` names the index it builds, for which it runs outside a transaction.

    ``table`` names the table it makes.
    """

    what: str
    sql: str
    reverse: str
    index: str | None = None
    table: str | None = None


class Migration:
    """Compares the table with what is needed, and adds what is missing."""

    def __init__(self, database: Database, layout: Layout, clock: Clock, *, old: float = 60.0) -> None:
        """Work on the table that ``layout`` names; transactions older than ``old`` seconds are worth a word."""
        self._database = database
        self._layout = layout
        self._clock = clock
        self._old = old

    async def table(self) -> Table:
        """Look up the table, which may still be without the column that is about to be added.

        Raises:
            SettingsError: another column is missing, or the table.
        """
        layout = self._layout
        async with self._database.transaction() as connection:
            return await find_table(
                connection,
                schema=layout.schema,
                table=layout.table,
                overrides=layout.overrides,
                time_zone=layout.time_zone,
                without=("provider_referans",),
            )

    def wanted(self, table: Table) -> list[Change]:
        """Return everything that is needed, there or not."""
        column = table.get("provider_referans") or REFERANS
        changes = [
            Change(
                f"column {column.name}",
                f"ALTER TABLE {table.sql} ADD COLUMN IF NOT EXISTS {column.sql} varchar(255)",
                f"ALTER TABLE {table.sql} DROP COLUMN IF EXISTS {column.sql}",
            ),
            self._index(table, "referans", column.sql, f"{column.sql} IS NOT NULL"),
            self._index(table, "open", table["sent_at"].sql, is_open(table, self._layout)),
        ]
        if condition := is_unknown(table, self._layout):
            changes.append(self._index(table, "unknown", table["external_status"].sql, condition))
        return [*changes, _events(table), _deliveries(table), _pauses(table), _review(table)]

    @staticmethod
    def _index(table: Table, kind: str, column: str, condition: str) -> Change:
        """Name an index after its condition: other statuses need another index, and get it beside the old one."""
        digest = hashlib.sha256(f"{column} {condition}".encode()).hexdigest()[:8]
        tail = f"_om_{kind}_{digest}"
        name = table.name[: _LONGEST_NAME - len(tail)] + tail
        return Change(
            f"index {name}",
            f"CREATE INDEX CONCURRENTLY IF NOT EXISTS {quoted(name)} ON {table.sql} ({column}) WHERE {condition}",
            f"DROP INDEX CONCURRENTLY IF EXISTS {quoted(table.schema)}.{quoted(name)}",
            name,
        )

    async def missing(self, table: Table) -> list[Change]:
        """Return what is not there yet, an index that was left half-built included."""
        async with self._database.transaction() as connection:
            lacking = []
            for change in self.wanted(table):
                if change.index is not None:
                    there = bool(await connection.fetchval(_INDEX, table.schema, change.index))
                elif change.table is not None:
                    there = bool(await columns_of(connection, table.schema, change.table))
                else:
                    there = table.get("provider_referans") is not None
                if not there:
                    lacking.append(change)
            return lacking

    async def outdated(self, table: Table) -> list[str]:
        """Return the names of indexes of ours that no query uses any more."""
        needed = [change.index for change in self.wanted(table) if change.index]
        async with self._database.transaction() as connection:
            rows = await connection.fetch(_STALE, table.schema, table.name, "%\\_om\\_%\\_________", needed)
        return [row["relname"] for row in rows]

    async def apply(self) -> AsyncIterator[str]:
        """Add what is missing, and tell each thing done. Interrupted, it is simply run again.

        Raises:
            SettingsError: the table lacks more than we may add.
            ShopError: the database could not be asked, or its lock not be had.
        """
        table = await self.table()
        for change in await self.missing(table):
            if change.index is None:
                await self._alter(change.sql)
            else:
                async for line in self._build(table, change):
                    yield line
            yield f"added {change.what}"
        for name in await self.outdated(table):
            async with self._database.plain() as connection:
                await connection.execute(f"DROP INDEX CONCURRENTLY IF EXISTS {quoted(table.schema)}.{quoted(name)}")
            yield f"dropped index {name}, which served other statuses"

    async def _alter(self, sql: str) -> None:
        """Alter the table without making the shop queue behind us: the lock is had at once, or asked for again."""
        retrying = tenacity.AsyncRetrying(
            retry=tenacity.retry_if_exception_type(ShopUnavailableError),
            stop=tenacity.stop_after_attempt(_LOCK_TRIES),
            wait=tenacity.wait_random(0.5, 2.0),
            sleep=self._clock.sleep,
            reraise=True,
        )
        await retrying(self._alter_once, sql)

    async def _alter_once(self, sql: str) -> None:
        async with self._database.transaction() as connection:
            await connection.execute(f"SELECT set_config('lock_timeout', '{_LOCK_TIMEOUT}', true)")
            await connection.execute(sql)

    async def _build(self, table: Table, change: Change) -> AsyncIterator[str]:
        """Build an index beside the running shop. What an interrupted build left is invalid, and goes first."""
        async with self._database.plain() as connection:
            if count := await connection.fetchval(_WAITED_FOR, self._old):
                yield f"may have to wait for {count} transaction{'s' if count > 1 else ''} open for over {self._old:g} s"
            await connection.execute("SET statement_timeout = 0; SET lock_timeout = 0")
            if await _is_broken(connection, table.schema, change.index):
                await connection.execute(change.reverse)
                yield f"dropped {change.what}, which was left half-built"
            await connection.execute(change.sql)
            # Behind a pooler the connection is somebody else's next.
            await connection.execute("RESET statement_timeout; RESET lock_timeout")


def _events(table: Table) -> Change:
    """The events: one row a change of status, for the shop's own code to consume."""
    tenant = table.get("tenant_id")
    return _our_table(
        table,
        EVENTS,
        f"id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, order_id {_type_of(table['id'])} NOT NULL, "
        f"tenant_id {_type_of(tenant) if tenant else 'uuid'}, from_status text, to_status text NOT NULL, "
        "has_pin boolean NOT NULL, message text, checks integer, sent_at timestamptz, "
        "decided_at timestamptz NOT NULL DEFAULT now(), consumed_at timestamptz, "
        "decided_by text NOT NULL DEFAULT 'daemon', repeat boolean NOT NULL DEFAULT false",
        order="INDEX (order_id, to_status)",
        waiting="INDEX (id) WHERE consumed_at IS NULL",
    )


def _deliveries(table: Table) -> Change:
    """The webhook's outbox: which event still has to be posted when, and what each try brought."""
    waiting = "WHERE delivered_at IS NULL AND dead_at IS NULL"
    return _our_table(
        table,
        DELIVERIES,
        f"event_id bigint PRIMARY KEY REFERENCES {quoted(table.schema)}.{quoted(EVENTS)} ON DELETE CASCADE, "
        f"order_id {_type_of(table['id'])} NOT NULL, attempts integer NOT NULL DEFAULT 0, "
        "next_at timestamptz NOT NULL DEFAULT now(), delivered_at timestamptz, dead_at timestamptz, "
        "tries jsonb NOT NULL DEFAULT '[]'",
        due=f"INDEX (next_at) {waiting}",
        order=f"INDEX (order_id, event_id) {waiting}",
        dead="INDEX (event_id) WHERE dead_at IS NOT NULL",
    )


def _pauses(table: Table) -> Change:
    """The accounts that a person has paused: it holds for every process, and after a restart."""
    return _our_table(
        table,
        PAUSES,
        "account text PRIMARY KEY, reason text NOT NULL, paused_by text NOT NULL, "
        "paused_at timestamptz NOT NULL DEFAULT now(), until timestamptz",
    )


def _review(table: Table) -> Change:
    """What a person must look at: contradictions, which are kept and never guessed."""
    return _our_table(
        table,
        REVIEW,
        f"id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, order_id {_type_of(table['id'])} NOT NULL, kind text NOT NULL, "
        "detail text, account text, opened_at timestamptz NOT NULL DEFAULT now(), closed_at timestamptz, closed_by text, "
        "resolution text",
        open="UNIQUE INDEX (order_id, kind) WHERE closed_at IS NULL",
    )


def _our_table(table: Table, name: str, columns: str, **indexes: str) -> Change:
    """Return what makes a table of ours beside the orders, with its indexes: by the end of each one's name."""
    full = f"{quoted(table.schema)}.{quoted(name)}"
    statements = [f"CREATE TABLE IF NOT EXISTS {full} ({columns})"]
    for end, index in indexes.items():
        kind, _, rest = index.partition("INDEX ")
        statements.append(f"CREATE {kind}INDEX IF NOT EXISTS {quoted(f'{name}_{end}')} ON {full} {rest}")
    return Change(f"table {name}", ";\n".join(statements), f"DROP TABLE IF EXISTS {full}", table=name)


def _type_of(column: Column) -> str:
    """SQL for a column's type, without its width."""
    return column.cast.removeprefix("::") or "text"


async def _is_broken(connection: Any, schema: str, index: str | None) -> bool:  # noqa: ANN401 - asyncpg's connection
    return await connection.fetchval(_INDEX, schema, index) is False


def as_sql(changes: list[Change]) -> str:
    """Write the changes as a script for psql."""
    if not changes:
        return "-- nothing to do"
    head = "-- CREATE INDEX CONCURRENTLY cannot run inside a transaction: psql -f, without --single-transaction"
    return "\n".join([head, *(f"{change.sql};" for change in changes)])


def as_django(changes: list[Change]) -> str:
    """Write the changes as a Django migration; its ``dependencies`` are the shop's to fill in."""
    operations = "\n".join(
        f"        migrations.RunSQL(\n            sql={change.sql!r},\n            reverse_sql={change.reverse!r},\n        ),"
        for change in changes
    )
    return (
        "from django.db import migrations\n\n\n"
        "class Migration(migrations.Migration):\n"
        '    """What order-monitor needs: a column and indexes, built beside the running shop."""\n\n'
        "    # CREATE INDEX CONCURRENTLY cannot run inside a transaction.\n"
        "    atomic = False\n\n"
        "    # The newest migration of this app goes here.\n"
        "    dependencies = []\n\n"
        f"    operations = [\n{operations}\n    ]"
    )
