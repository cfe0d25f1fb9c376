"""What people decide, in the shop's database: pauses of accounts, the list for review, and an order put back to open."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import asyncpg

from order_monitor.account import Pause
from order_monitor.errors import SettingsError
from order_monitor.finding import Fate, Result
from order_monitor.shop.columns import Table, columns_of, literal, quoted
from order_monitor.shop.database import Connection, Database
from order_monitor.shop.layout import DELIVERIES, EVENTS, PAUSES, REVIEW, Layout, literals, open_statuses

_ASIDE: Final = "withdrawn: the order was put back to open"


@dataclass(frozen=True, slots=True)
class Review:
    """Something that a person must decide."""

    order_id: str
    kind: str
    detail: str
    account: str
    since: float


async def may_use(connection: Connection, schema: str, name: str, privilege: str) -> bool:
    """Whether a table of ours is there and this role may use it."""
    full = literal(f"{quoted(schema)}.{quoted(name)}")
    return bool(
        await connection.fetchval(
            f"SELECT to_regclass({full}) IS NOT NULL AND has_table_privilege(to_regclass({full}), {literal(privilege)})"
        )
    )


async def need_tables(connection: Connection, schema: str, *names: str) -> None:
    """See that tables of ours are there.

    Raises:
        SettingsError: one is not, and what to run.
    """
    missing = [name for name in names if not await columns_of(connection, schema, name)]
    if missing:
        raise SettingsError([f"there is no table {schema}.{name}; run order-monitor migrate" for name in missing])


class Pauses:
    """The table of paused accounts."""

    def __init__(self, schema: str) -> None:
        """Work on the table in ``schema``."""
        self._table = f"{quoted(schema)}.{quoted(PAUSES)}"

    async def read(self, connection: Connection) -> dict[str, Pause]:
        """Return the pauses in force."""
        rows = await connection.fetch(
            "SELECT account, reason, paused_by, extract(epoch FROM paused_at)::float8 AS since, "  # noqa: S608
            f"extract(epoch FROM until)::float8 AS until FROM {self._table} WHERE until IS NULL OR until > clock_timestamp()"
        )
        return {r["account"]: Pause(r["account"], r["reason"], r["paused_by"], r["since"], r["until"]) for r in rows}

    async def pause(self, connection: Connection, account: str, reason: str, by: str, seconds: float | None) -> None:
        """Pause an account, or pause it anew with another reason and end."""
        await connection.execute(
            f"INSERT INTO {self._table} AS p (account, reason, paused_by, until) "  # noqa: S608
            "VALUES ($1, $2, $3, clock_timestamp() + make_interval(secs => $4)) ON CONFLICT (account) DO UPDATE "
            "SET reason = EXCLUDED.reason, paused_by = EXCLUDED.paused_by, until = EXCLUDED.until, paused_at = now()",
            account,
            reason,
            by,
            seconds,
        )

    async def resume(self, connection: Connection, account: str) -> bool:
        """End a pause; return whether there was one."""
        done = await connection.execute(f"DELETE FROM {self._table} WHERE account = $1", account)  # noqa: S608
        return not str(done).endswith(" 0")


class Reviews:
    """The list of what a person must decide."""

    def __init__(self, schema: str) -> None:
        """Work on the table in ``schema``."""
        self._table = f"{quoted(schema)}.{quoted(REVIEW)}"

    async def open(self, connection: Connection, table: Table, results: Iterable[Result]) -> None:
        """Note what is stuck, each thing once while it is open."""
        stuck = [r for r in results if r.fate is Fate.STUCK and r.stuck is not None]
        if stuck:
            await connection.execute(
                f"INSERT INTO {self._table} (order_id, kind, detail) SELECT u.id{table['id'].cast}, u.kind, u.detail "  # noqa: S608
                "FROM unnest($1::text[], $2::text[], $3::text[]) AS u(id, kind, detail) ON CONFLICT DO NOTHING",
                [r.finding.order.id for r in stuck],
                [str(r.stuck) for r in stuck],
                [r.detail for r in stuck],
            )

    async def note(self, connection: Connection, table: Table, order_id: str, kind: str, account: str) -> None:
        """Note one thing, once while it is open."""
        await connection.execute(
            f"INSERT INTO {self._table} (order_id, kind, account) VALUES ($1::text{table['id'].cast}, $2, $3) "  # noqa: S608
            "ON CONFLICT DO NOTHING",
            order_id,
            kind,
            account,
        )

    async def close(self, connection: Connection, table: Table, order_ids: Sequence[str], by: str, how: str) -> None:
        """Close what is open about some orders."""
        await connection.execute(
            f"UPDATE {self._table} SET closed_at = clock_timestamp(), closed_by = $2, resolution = $3 "  # noqa: S608
            f"WHERE closed_at IS NULL AND order_id = ANY($1::text[]{table['id'].cast}[])",
            list(order_ids),
            by,
            how,
        )

    async def count(self, connection: Connection) -> int:
        """Return how many things are open."""
        return int(await connection.fetchval(f"SELECT count(*) FROM {self._table} WHERE closed_at IS NULL"))  # noqa: S608

    async def read(self, connection: Connection, limit: int = 1000) -> list[Review]:
        """Return what is open, oldest first."""
        rows = await connection.fetch(
            "SELECT order_id::text AS id, kind, detail, account, extract(epoch FROM opened_at)::float8 AS since "  # noqa: S608
            f"FROM {self._table} WHERE closed_at IS NULL ORDER BY id LIMIT $1",
            limit,
        )
        return [Review(r["id"], r["kind"], r["detail"] or "", r["account"] or "", r["since"]) for r in rows]


class ReopenRefusedError(Exception):
    """The order cannot be put back to open; the text says why, fit to be shown."""


class Reopener:
    """Puts an order that the daemon ended back to open, as long as nobody has acted on its end."""

    def __init__(self, table: Table, layout: Layout, *, webhook: bool) -> None:
        """Work on the orders ``table``; with ``webhook`` an end that was posted counts as acted on."""
        self._table = table
        self._layout = layout
        self._webhook = webhook
        self._events = f"{quoted(layout.schema)}.{quoted(EVENTS)}"
        self._deliveries = f"{quoted(layout.schema)}.{quoted(DELIVERIES)}"

    async def reopen(self, connection: Connection, order_id: str, reason: str, by: str) -> str:
        """Put the order back, withdraw the event of its end, and record the change; return the status it has now.

        Raises:
            ReopenRefusedError: somebody else ended it, or its end was acted on.
        """
        event = await self._last_event(connection, order_id)
        if self._webhook:
            await self._withdraw_delivery(connection, event["id"])
        # An event with repeat moves no money, and is no predecessor: the next end of this order counts as its first.
        await connection.execute(
            f"UPDATE {self._events} SET repeat = true, consumed_at = now() WHERE id = $1",  # noqa: S608
            event["id"],
        )
        back = await self._put_back(connection, order_id, event)
        await connection.execute(
            f"INSERT INTO {self._events} (order_id, tenant_id, from_status, to_status, has_pin, message, sent_at, "  # noqa: S608
            f"decided_by, repeat) SELECT order_id, tenant_id, to_status, $2, has_pin, $3, sent_at, $4, false "
            f"FROM {self._events} WHERE id = $1",
            event["id"],
            back,
            reason,
            by,
        )
        if self._webhook:
            await connection.execute(
                f"INSERT INTO {self._deliveries} (event_id, order_id) SELECT id, order_id FROM {self._events} "  # noqa: S608
                f"WHERE order_id = $1::text{self._table['id'].cast} ORDER BY id DESC LIMIT 1",
                order_id,
            )
        return back

    async def _last_event(self, connection: Connection, order_id: str) -> asyncpg.Record:
        row = await connection.fetchrow(
            "SELECT id, from_status, to_status, decided_by, consumed_at, "  # noqa: S608
            f"to_char(consumed_at, 'YYYY-MM-DD HH24:MI:SS TZ') AS taken FROM {self._events} "
            f"WHERE order_id = $1::text{self._table['id'].cast} ORDER BY id DESC LIMIT 1",
            order_id,
        )
        if row is None:
            msg = "order-monitor has not ended it: there is no event of it"
            raise ReopenRefusedError(msg)
        if row["to_status"] in open_statuses(self._table, self._layout):
            msg = "it is open"
            raise ReopenRefusedError(msg)
        if row["consumed_at"] is not None:
            msg = f"the shop has acted on its end (event {row['id']}, {row['taken']})"
            raise ReopenRefusedError(msg)
        if row["decided_by"] not in ("daemon", "ask"):
            msg = f"{row['decided_by']} ended it, and not the daemon"
            raise ReopenRefusedError(msg)
        locked = await connection.fetchval(
            f"SELECT id FROM {self._events} WHERE id = $1 AND consumed_at IS NULL FOR UPDATE SKIP LOCKED",  # noqa: S608
            row["id"],
        )
        if locked is None:
            msg = f"the shop is acting on its end just now (event {row['id']})"
            raise ReopenRefusedError(msg)
        return row

    async def _withdraw_delivery(self, connection: Connection, event_id: int) -> None:
        tried = await connection.fetchval(
            f"SELECT attempts > 0 FROM {self._deliveries} WHERE event_id = $1 FOR UPDATE",  # noqa: S608
            event_id,
        )
        # A post that failed may have been acted on all the same: its answer may only have been lost.
        if tried:
            msg = f"its end was posted to the shop, or tried to be (event {event_id})"
            raise ReopenRefusedError(msg)
        await connection.execute(
            f"UPDATE {self._deliveries} SET dead_at = clock_timestamp(), tries = tries || jsonb_build_object("  # noqa: S608
            f"'at', to_jsonb(clock_timestamp()), 'outcome', {literal(_ASIDE)}) WHERE event_id = $1",
            event_id,
        )

    async def _put_back(self, connection: Connection, order_id: str, event: asyncpg.Record) -> str:
        t, statuses = self._table, open_statuses(self._table, self._layout)
        was = event["from_status"]
        back = was if was in statuses else self._layout.rules.processing
        cleared = "".join(f", {c.sql} = NULL" for name in ("completed_at", "duration_ms") if (c := t.get(name)))
        done: Any = await connection.execute(
            f"UPDATE {t.sql} SET {t['external_status'].sql} = $2::text{t['external_status'].cast}{cleared} "  # noqa: S608
            f"WHERE {t['id'].sql} = $1::text{t['id'].cast} AND {t['external_status'].sql} IN ({literals([event['to_status']])})",
            order_id,
            back,
        )
        if str(done).endswith(" 0"):
            msg = f"its status is no longer {event['to_status']!r}: somebody changed it since"
            raise ReopenRefusedError(msg)
        return str(back)


async def people_tables(database: Database, schema: str) -> None:
    """See that what people's commands need is there.

    Raises:
        SettingsError: something is not, and what to run.
    """
    async with database.transaction() as connection:
        await need_tables(connection, schema, EVENTS, PAUSES, REVIEW)
