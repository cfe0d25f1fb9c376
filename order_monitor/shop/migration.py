"""What order-monitor adds to the shop's database without stopping the shop: its own tables, one
column, and indexes.

Its own tables come first: nothing is asked without them, and a role that does not own the orders
table can still create them.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Final

import tenacity

from order_monitor.core.clock import Clock
from order_monitor.core.errors import (
    OrderMonitorError,
    RightsError,
    ShopMisfitError,
    ShopUnavailableError,
)
from order_monitor.core.outcome import Outcome
from order_monitor.shop.accounts.tables import INTEGRATIONS
from order_monitor.shop.database import Connection, Database
from order_monitor.shop.first_start import first_start_sql
from order_monitor.shop.locks import OLDER_VERSION, is_older_there
from order_monitor.shop.marks import FIRST_MIGRATE, FIRST_START, read_mark
from order_monitor.shop.schema.columns import (
    Column,
    Table,
    columns_of,
    is_table,
    literal,
    qualified,
    quoted,
)
from order_monitor.shop.schema.indexes import Change, IndexPlan, drop_of, is_broken, is_there, stale
from order_monitor.shop.schema.own_tables import grants_to_come, may_use
from order_monitor.shop.schema.relations import view_remark
from order_monitor.shop.schema.rights import Rights, missing_rights
from order_monitor.shop.schema.search import find_table
from order_monitor.shop.schema.table_config import (
    DELIVERIES,
    DISPATCHES,
    EVENTS,
    OBSERVATIONS,
    PAUSES,
    PINS,
    PRESENCE,
    REVIEW,
    SETTINGS,
    TIMING,
    TableConfig,
    events_of,
    is_open,
    is_unknown,
    settings_of,
)
from order_monitor.shop.writing.event_sql import outcome_of

REFERANS: Final = Column("provider_referans", "character varying", 255)
_LOCK_TIMEOUT: Final = "2s"
_LOCK_TRIES: Final = 10
_SLICE: Final = 10_000

_WAITED_FOR: Final = """
SELECT count(*) FROM pg_catalog.pg_stat_activity WHERE pid <> pg_backend_pid() AND datname = current_database()
   AND backend_type = 'client backend' AND xact_start < clock_timestamp() - make_interval(secs => $1)
"""


class Migration:
    """Compares the database with what is needed, and adds what is missing."""

    def __init__(
        self, database: Database, table_config: TableConfig, clock: Clock, *, old: float = 60.0
    ) -> None:
        """Work on the table that ``table_config`` names; report transactions ``old`` seconds old."""
        self._database = database
        self._table_config = table_config
        self._clock = clock
        self._old = old

    async def table(self) -> Table:
        """Look up the table, which may still lack the column that is about to be added.

        Raises:
            SettingsError: another column is missing, or the table.
            RightsError: this role cannot see what is needed.
        """
        async with self._database.transaction() as connection:
            rights = await missing_rights(connection, self._table_config)
            if rights.is_beside_own:
                raise RightsError(rights.sql)
            return await find_table(connection, self._table_config, is_migrating=True)

    def wanted(self, table: Table) -> list[Change]:
        """Return everything that is needed, whether it exists or not."""
        column = table.get("provider_referans") or REFERANS
        plans = [
            IndexPlan(table, "referans", column.sql, f"{column.sql} IS NOT NULL"),
            IndexPlan(table, "open", table["sent_at"].sql, is_open(table, self._table_config)),
        ]
        if condition := is_unknown(table, self._table_config):
            plans.append(IndexPlan(table, "unknown", table["external_status"].sql, condition))
        indexes = [change for plan in plans for change in plan.changes()]
        added = [] if table.relation.is_view else [_column(table, column)]
        return [*added, *_own_tables(table, self._table_config), *indexes]

    async def missing(self, table: Table) -> list[Change]:
        """Return what does not exist yet, including an index that was left half-built."""
        async with self._database.transaction() as connection:
            return [
                change for change in self.wanted(table) if not await _has(connection, table, change)
            ]

    async def outdated(self, table: Table) -> list[Change]:
        """Return the changes that drop our indexes that no query uses any more."""
        async with self._database.transaction() as connection:
            return await stale(connection, table, self.wanted(table))

    async def apply(self) -> AsyncIterator[str]:
        """Add what is missing, and yield a line for each change. After an interruption, run it
        again.

        What this role may not add is left to the table's owner; everything else is added anyway.

        Raises:
            SettingsError: the table lacks more than we may add.
            OrderMonitorError: a process of version 0.1 is running; nothing was changed.
            ShopMisfitError: at the end, with the SQL that the owner must run.
            RightsError: at the end, if everything exists but this role may not use it.
            ShopError: the database could not be asked, or a lock could not be taken.
        """
        table = await self.table()
        await self._refuse_older(table)
        refused: list[str] = []
        unmade: list[str] = []
        for change in await self.missing(table):
            try:
                async for line in self._make(change):
                    yield line
            except ShopMisfitError as error:
                refused.append(f"{change.sql};")
                unmade += [change.table] if change.table and not change.column else []
                yield f"could not add {change.what}: {error}"
            else:
                yield f"added {change.what}"
        async with self._database.transaction() as connection:
            rights = await missing_rights(connection, self._table_config)
            to_come = await grants_to_come(connection, table.schema, unmade)
        if not rights.needed:
            async for line in self._bring_up_to_date(table):
                yield line
        for drop in await self.outdated(table):
            if why := await self._drop(drop):
                refused.append(f"{drop.sql};")
                yield f"could not drop {drop.what}: {why}"
            else:
                yield f"dropped {drop.what}, which served other statuses"
        if table.relation.is_view:
            yield f"{table.schema}.{table.name} {'; '.join(view_remark(table.relation))}"
        _refuse(refused, rights, to_come)

    async def _refuse_older(self, table: Table) -> None:
        """Change nothing while version 0.1 is running: it would no longer find its pauses, and
        would ask accounts that are paused.

        Raises:
            OrderMonitorError: it is running.
        """
        async with self._database.transaction() as connection:
            if await is_older_there(connection, f"{table.schema}.{table.name}"):
                raise OrderMonitorError(OLDER_VERSION)

    async def _make(self, change: Change) -> AsyncIterator[str]:
        if change.index is None or change.is_quick:
            await self._alter(change.sql)
            return
        async for line in self._build(change):
            yield line

    async def _bring_up_to_date(self, table: Table) -> AsyncIterator[str]:
        """Fill in what this version reads but older versions did not write."""
        async with self._database.transaction() as connection:
            events = await columns_of(connection, table.schema, EVENTS)
            pauses = await may_use(connection, table.schema, PAUSES, "DELETE")
        if "outcome" in events and (
            count := await self._fill(
                table, "outcome", fill_outcomes_sql(table, self._table_config)
            )
        ):
            yield f"filled the outcome of {count} events"
        if "source" in events and (
            count := await self._fill(table, "source", fill_sources_sql(table))
        ):
            yield f"filled the source and cause of {count} events"
        if (
            pauses
            and self._table_config.accounts_from_shop
            and (count := await self._rename_pauses(table))
        ):
            yield f"moved {count} pauses to their accounts' ids"

    async def _rename_pauses(self, table: Table) -> int:
        """Name pauses by account id. One under a name of several accounts pauses all of them."""
        async with self._database.transaction() as connection:
            if "id" not in await columns_of(connection, table.schema, INTEGRATIONS):
                return 0
            status = await connection.execute(rename_pauses_sql(table.schema))
            if await may_use(connection, table.schema, TIMING, "UPDATE"):
                await connection.execute(rename_timing_sql(table.schema))
        return int(status.rpartition(" ")[2])

    async def _drop(self, drop: Change) -> str:
        """Drop an index; return why this role may not, empty if it was dropped."""
        try:
            if drop.is_quick:
                await self._alter(drop.sql)
            else:
                async with self._database.plain() as connection:
                    await connection.execute(drop.sql)
        except ShopMisfitError as error:
            return str(error)
        return ""

    async def _fill(self, table: Table, column: str, slices: str) -> int:
        """Fill in ``column`` of older events, a slice at a time; return of how many."""
        done = 0
        async with self._database.transaction() as connection:
            lowest = await connection.fetchval(
                f"SELECT min(id) FROM {events_of(table.schema)} WHERE {column} IS NULL"
            )
            highest = await connection.fetchval(f"SELECT max(id) FROM {events_of(table.schema)}")
        for first in range(lowest, highest + 1, _SLICE) if lowest is not None else ():
            async with self._database.transaction() as connection:
                status = await connection.execute(
                    f"{slices} AND id BETWEEN {first} AND {first + _SLICE - 1}"
                )
            done += int(status.rpartition(" ")[2])
        return done

    async def _alter(self, sql: str) -> None:
        """Alter the table without making the shop queue behind us: lock it quickly or try again."""
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

    async def _build(self, change: Change) -> AsyncIterator[str]:
        """Build an index while the shop runs; one that was left invalid is dropped first."""
        async with self._database.plain() as connection:
            if count := await connection.fetchval(_WAITED_FOR, self._old):
                yield f"may have to wait for {count} transaction{'s' if count > 1 else ''} open for over {self._old:g} s"
            await connection.execute("SET statement_timeout = 0; SET lock_timeout = 0")
            if await is_broken(connection, change):
                await connection.execute(drop_of(change))
                yield f"dropped {change.what}, which was left half-built"
            await connection.execute(change.sql)
            # Behind a pooler another client gets this connection next.
            await connection.execute("RESET statement_timeout; RESET lock_timeout")


def _refuse(refused: list[str], rights: Rights, to_come: list[str]) -> None:
    """Raise an error with all that others must run: changes, and the rights this role lacks."""
    if refused:
        grants = [f"{grant};" for grant in (*rights.needed, *rights.further, *to_come)]
        raise ShopMisfitError(
            "\n".join(["let the owner of the table run, for example by psql:", *refused, *grants])
        )
    if rights.needed:
        raise RightsError(rights.sql)


def _column(table: Table, column: Column) -> Change:
    return Change(
        f"column {column.name}",
        f"ALTER TABLE {table.sql} ADD COLUMN IF NOT EXISTS {column.sql} varchar(255)",
        f"ALTER TABLE {table.sql} DROP COLUMN IF EXISTS {column.sql}",
    )


async def _has(connection: Connection, table: Table, change: Change) -> bool:
    if change.mark is not None:
        # A table that is about to be created has all its marks from the start; a missing right to
        # read it is reported with the rights.
        can_be_read = await may_use(connection, table.schema, SETTINGS, "SELECT")
        return not can_be_read or await read_mark(connection, table.schema, change.mark) is not None
    if change.table is not None:
        if change.column is None:
            return await is_table(connection, table.schema, change.table)
        # A table that is about to be created has all its columns from the start.
        return not await is_table(connection, table.schema, change.table) or await is_table(
            connection, table.schema, change.table, change.column
        )
    if change.index is None and change.place is None:
        return table.get("provider_referans") is not None
    return await is_there(connection, change)


def _own_tables(table: Table, table_config: TableConfig) -> list[Change]:
    """Return the changes that create our tables, and add what tables of older versions lack."""
    order, tenant = _type_of(table["id"]), table.get("tenant_id")
    waiting = "WHERE delivered_at IS NULL AND dead_at IS NULL"
    return [
        # One row for each change of status, for the shop's own code to consume.
        _our_table(
            table,
            EVENTS,
            f"id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, order_id {order} NOT NULL, "
            f"tenant_id {_type_of(tenant) if tenant else 'uuid'}, from_status text, to_status text NOT NULL, "
            "has_pin boolean NOT NULL, message text, checks integer, sent_at timestamptz, "
            "decided_at timestamptz NOT NULL DEFAULT now(), consumed_at timestamptz, "
            "decided_by text NOT NULL DEFAULT 'daemon', repeat boolean NOT NULL DEFAULT false, outcome text, "
            "source text, cause text, account text, reference text, uid uuid DEFAULT gen_random_uuid()",
            order="INDEX (order_id, to_status)",
            waiting="INDEX (id) WHERE consumed_at IS NULL",
        ),
        _outcome(table, table_config),
        *_origins(table),
        # The webhook's outbox: which event is still to be posted when, and the result of each try.
        _our_table(
            table,
            DELIVERIES,
            f"event_id bigint PRIMARY KEY REFERENCES {qualified(table.schema, EVENTS)} ON DELETE CASCADE, "
            f"order_id {order} NOT NULL, attempts integer NOT NULL DEFAULT 0, "
            "next_at timestamptz NOT NULL DEFAULT now(), delivered_at timestamptz, dead_at timestamptz, "
            "tries jsonb NOT NULL DEFAULT '[]'",
            due=f"INDEX (next_at) {waiting}",
            order=f"INDEX (order_id, event_id) {waiting}",
            dead="INDEX (event_id) WHERE dead_at IS NOT NULL",
        ),
        # The accounts that a person has paused: for every process, and after a restart.
        _our_table(
            table,
            PAUSES,
            "account text PRIMARY KEY, reason text NOT NULL, paused_by text NOT NULL, "
            "paused_at timestamptz NOT NULL DEFAULT now(), until timestamptz",
        ),
        # What a person must look at: contradictions, which are stored instead of guessed about.
        _our_table(
            table,
            REVIEW,
            f"id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, order_id {order} NOT NULL, kind text NOT NULL, "
            "detail text, account text, opened_at timestamptz NOT NULL DEFAULT now(), closed_at timestamptz, closed_by text, "
            "resolution text",
            open="UNIQUE INDEX (order_id, kind) WHERE closed_at IS NULL",
        ),
        # What was learned about when orders end: one sketch per product, without any order.
        _our_table(
            table,
            TIMING,
            "account text NOT NULL, package text NOT NULL, sketch text NOT NULL, updated_at timestamptz NOT NULL DEFAULT now(), "
            "PRIMARY KEY (account, package)",
        ),
        # Each order as it was sent: what is asked and believed depends on it.
        _our_table(
            table,
            DISPATCHES,
            f"number bigint GENERATED ALWAYS AS IDENTITY, order_id {order} NOT NULL, account text NOT NULL, "
            "reference text NOT NULL, sent_at timestamptz, login text NOT NULL, "
            "found_at timestamptz NOT NULL DEFAULT clock_timestamp(), first_understood_at timestamptz, "
            "first_odd_at timestamptz, touched integer NOT NULL DEFAULT 0, meant_by text, "
            "PRIMARY KEY (order_id, reference, account)",
            reference="INDEX (reference, login)",
            found="INDEX (found_at)",
        ),
        # The order that owns each code: a keyed digest. The key makes it belong to one order only.
        _our_table(
            table,
            PINS,
            f"login text NOT NULL, digest bytea NOT NULL, order_id {order} NOT NULL, "
            f"claimed_at timestamptz NOT NULL DEFAULT clock_timestamp(), seen_in {order}[] NOT NULL DEFAULT '{{}}', "
            "PRIMARY KEY (login, digest)",
            order="INDEX (order_id)",
            claimed="INDEX (claimed_at)",
        ),
        _settings(table),
        # For installations of a version without this mark.
        Change(
            "the moment of the first start",
            first_start_sql(table.schema),
            f"DELETE FROM {settings_of(table.schema)} WHERE name = {literal(FIRST_START)}",
            mark=FIRST_START,
        ),
        # Which processes work on this shop, and the state of their clocks when last seen.
        _our_table(
            table,
            PRESENCE,
            "id text PRIMARY KEY, host text NOT NULL, pid integer NOT NULL, kind text NOT NULL, version text NOT NULL, "
            "settings text, boot_id text, utc_offset double precision, database_offset double precision, "
            "unsteady_until double precision, started_at timestamptz NOT NULL DEFAULT clock_timestamp(), "
            "seen_at timestamptz NOT NULL DEFAULT clock_timestamp()",
            seen="INDEX (seen_at)",
        ),
        # What would have been written while the shop was only observed, with a digest of the PIN.
        _our_table(
            table,
            OBSERVATIONS,
            f"order_id {order} NOT NULL, tenant_id text, account text NOT NULL, "
            "reference text NOT NULL, sent_at timestamptz, first_asked_at timestamptz NOT NULL, "
            "last_asked_at timestamptz NOT NULL, checks integer NOT NULL DEFAULT 1, "
            "answer text NOT NULL, outcome text, status text, cause text, why text, "
            "has_pin boolean NOT NULL DEFAULT false, digest bytea, done_at timestamptz, "
            "found_ended boolean NOT NULL DEFAULT false, their_end_at timestamptz, "
            "noted_at timestamptz NOT NULL DEFAULT clock_timestamp(), "
            "PRIMARY KEY (order_id, reference, account)",
            pending="INDEX (order_id) WHERE done_at IS NULL",
            alone="INDEX (order_id) WHERE done_at IS NOT NULL AND their_end_at IS NULL AND NOT found_ended",
            noted="INDEX (noted_at)",
        ),
    ]


def _outcome(table: Table, table_config: TableConfig) -> Change:
    """The meaning of an event apart from status words; for old events by their status."""
    events = events_of(table.schema)
    add = f"ALTER TABLE {events} ADD COLUMN IF NOT EXISTS outcome text"
    sql = f"{add};\n{fill_outcomes_sql(table, table_config)}"
    reverse = f"ALTER TABLE {events} DROP COLUMN IF EXISTS outcome"
    return Change(f"column outcome of {EVENTS}", sql, reverse, table=EVENTS, column="outcome")


def fill_outcomes_sql(table: Table, table_config: TableConfig) -> str:
    """SQL that fills in missing outcomes; for an unknown word only if there was a PIN."""
    known = f"COALESCE({outcome_of('to_status', table_config)}, CASE WHEN has_pin THEN {literal(Outcome.COMPLETED)} END)"
    return f"UPDATE {events_of(table.schema)} SET outcome = {known} WHERE outcome IS NULL AND {known} IS NOT NULL"


def _origins(table: Table) -> list[Change]:
    """Who decided an event, why, at which account and reference, and its id for other systems."""
    events, changes = events_of(table.schema), []
    for column in ("source", "cause", "account", "reference", "uid"):
        sql = f"ALTER TABLE {events} ADD COLUMN IF NOT EXISTS {column} {'uuid' if column == 'uid' else 'text'}"
        if column == "uid":
            # Set separately: a default given with the column would rewrite every old event. Old
            # events keep their number as their name.
            sql += f";\nALTER TABLE {events} ALTER COLUMN uid SET DEFAULT gen_random_uuid()"
        reverse = f"ALTER TABLE {events} DROP COLUMN IF EXISTS {column}"
        changes.append(
            Change(f"column {column} of {EVENTS}", sql, reverse, table=EVENTS, column=column)
        )
    return changes


def fill_sources_sql(table: Table) -> str:
    """SQL that fills in who decided events of the previous version, and what ended the order.

    Their author is a name that a person may have had too, so only an event that followed a check is
    attributed to the program.
    """
    program = "decided_by IN ('daemon', 'ask') AND checks > 0"
    return (
        f"UPDATE {events_of(table.schema)} SET source = CASE WHEN {program} THEN 'program' ELSE 'person' END, "
        f"cause = CASE WHEN NOT COALESCE({program}, false) THEN 'person' "
        "WHEN outcome = 'failed' AND message LIKE 'Timeout: No response after %' THEN 'time_limit' ELSE 'answer' END "
        "WHERE source IS NULL"
    )


_FITS: Final = "right(p.account, length(left(i.id::text, 8)) + 1) = '-' || left(i.id::text, 8)"
"""SQL for whether a row ``p`` has the name that earlier versions gave to an integration ``i``."""


def rename_timing_sql(schema: str) -> str:
    """SQL that names learned timings by account id, where the old name was of one account only."""
    timing, integrations = qualified(schema, TIMING), qualified(schema, INTEGRATIONS)
    return (
        f"UPDATE {timing} p SET account = i.id::text FROM {integrations} i WHERE {_FITS} "
        f"AND NOT EXISTS (SELECT FROM {integrations} k WHERE k.id::text = p.account) "
        f"AND (SELECT count(*) FROM {integrations} i WHERE {_FITS}) = 1 "
        f"AND NOT EXISTS (SELECT FROM {timing} t WHERE t.account = i.id::text AND t.package = p.package)"
    )


def rename_pauses_sql(schema: str) -> str:
    """SQL that names pauses by account id instead of a name and the beginning of an id."""
    pauses, integrations = qualified(schema, PAUSES), qualified(schema, INTEGRATIONS)
    is_old = f"NOT EXISTS (SELECT FROM {integrations} k WHERE k.id::text = p.account)"
    return (
        f"WITH old AS (DELETE FROM {pauses} p WHERE {is_old} AND EXISTS (SELECT FROM {integrations} i WHERE {_FITS}) "
        f"RETURNING p.*) INSERT INTO {pauses} (account, reason, paused_by, paused_at, until) "
        "SELECT DISTINCT ON (i.id::text) i.id::text, p.reason, p.paused_by, p.paused_at, p.until "
        f"FROM old p JOIN {integrations} i ON {_FITS} ORDER BY i.id::text, p.paused_at DESC ON CONFLICT DO NOTHING"
    )


def _settings(table: Table) -> Change:
    """What all processes share: settings that decide about money, marks, the key for digests."""
    made = _our_table(
        table,
        SETTINGS,
        "name text PRIMARY KEY, value text NOT NULL, stored_at timestamptz NOT NULL DEFAULT now(), stored_by text",
    )
    first = (
        f"INSERT INTO {settings_of(table.schema)} (name, value) SELECT n.name, "
        f"CASE WHEN EXISTS (SELECT FROM {events_of(table.schema)}) "
        "THEN '-infinity' ELSE extract(epoch FROM now())::text END "
        f"FROM (VALUES ({literal(FIRST_MIGRATE)}), ({literal(FIRST_START)})) AS n(name) ON CONFLICT DO NOTHING"
    )
    return replace(made, sql=f"{made.sql};\n{first}")


def _our_table(table: Table, name: str, columns: str, **indexes: str) -> Change:
    """Return the change that creates one of our tables, with indexes by the ends of their names."""
    full = qualified(table.schema, name)
    statements = [f"CREATE TABLE IF NOT EXISTS {full} ({columns})"]
    for end, index in indexes.items():
        kind, _, rest = index.partition("INDEX ")
        statements.append(
            f"CREATE {kind}INDEX IF NOT EXISTS {quoted(f'{name}_{end}')} ON {full} {rest}"
        )
    return Change(
        f"table {name}", ";\n".join(statements), f"DROP TABLE IF EXISTS {full}", table=name
    )


def _type_of(column: Column) -> str:
    """Return SQL for a column's type, without its width."""
    return column.cast.removeprefix("::") or "text"


def as_sql(changes: list[Change]) -> str:
    """Return the changes as a script for psql."""
    if not changes:
        return "-- nothing to do"
    head = "-- CREATE INDEX CONCURRENTLY cannot run inside a transaction: psql -f, without --single-transaction"
    return "\n".join([head, *(f"{change.sql};" for change in changes)])


def as_django(changes: list[Change], missing: list[Change] | None = None) -> str:
    """Return the changes as a Django migration; the shop fills in its ``dependencies``.

    Undoing it removes only what it made: nothing of the shop's own table that existed before, which
    is everything not in ``missing``.
    """
    kept = (
        [] if missing is None else [one for one in changes if one.is_shops and one not in missing]
    )
    operations = "\n".join(
        f"        migrations.RunSQL(\n            sql={change.sql!r},\n            "
        f"reverse_sql={'migrations.RunSQL.noop' if change in kept else repr(change.reverse)},\n        ),"
        for change in changes
    )
    return (
        "from django.db import migrations\n\n\n"
        "class Migration(migrations.Migration):\n"
        '    """What order-monitor needs: a column and indexes, built while the shop runs."""\n\n'
        "    # CREATE INDEX CONCURRENTLY cannot run inside a transaction.\n"
        "    atomic = False\n\n"
        "    # The newest migration of this app goes here.\n"
        "    dependencies = []\n\n"
        f"    operations = [\n{operations}\n    ]"
    )
