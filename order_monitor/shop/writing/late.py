"""Orders that are open for long: each dispatch gets one event about that, which moves no money."""

from __future__ import annotations

from typing import Final

from order_monitor.core.order import CONFIGURED, NOBODYS, OLDEST_SENT_AT, Route
from order_monitor.core.outcome import Cause
from order_monitor.shop.accounts.tables import reference_sql
from order_monitor.shop.locks import lock_of
from order_monitor.shop.money_settings import refuse_while_observed
from order_monitor.shop.reading.queries import Queries
from order_monitor.shop.schema.cache import SchemaCache
from order_monitor.shop.schema.columns import literal
from order_monitor.shop.schema.table_config import (
    events_of,
    is_open,
    is_settled,
    literals,
)
from order_monitor.shop.writing.event_sql import CHANNEL, PROGRAM, queue_sql

LATE: Final = "late"
"""The word in the event's ``outcome``."""

_AT_A_TIME: Final = 500


class LateTable:
    """Writes these events."""

    def __init__(self, schema_cache: SchemaCache) -> None:
        """Use the tables known to ``schema_cache``."""
        self._schema_cache = schema_cache
        self._queries = Queries(schema_cache)

    async def tell(self, after: float) -> list[str]:
        """Write the event of orders that were sent ``after`` seconds ago and are open; return
        which.

        Each call writes a limited number; the next one continues. If another process is at it, this
        one leaves it to that process.

        Raises:
            ShopError: the database could not be asked.
            SettingsError: the table is not as required.
        """
        schema = self._schema_cache.table_config.schema
        number = lock_of(f"late {schema}")
        async with self._schema_cache.opened() as (_, connection):
            if not await connection.fetchval("SELECT pg_try_advisory_xact_lock($1)", number):
                return []
            await refuse_while_observed(connection, schema)
            return [row["id"] for row in await connection.fetch(self._sql(), after)]

    def _sql(self) -> str:
        """SQL that locks the rows and reads them again: none of them ends before its event."""
        cache = self._schema_cache
        t, config = cache.table, cache.table_config
        events, order = events_of(config.schema), f"o.{t['id'].sql}"
        tenant = f"o.{t['tenant_id'].sql}" if t.get("tenant_id") else "NULL::uuid"
        sent = f"o.{t['sent_at'].sql}"
        until = t.instant("sent_at", "extract(epoch FROM now())::float8 - $1::float8")
        rows = (
            f"{self._queries.select_sql(f', {order} AS order_id, {tenant} AS tenant')} "
            f"WHERE o.{is_open(t, config)}{self._queries.watched()} AND {sent} <= {until} "
            f"AND {sent} >= {t.instant('sent_at', repr(OLDEST_SENT_AT))} AND NOT {is_settled(t, config, 'o')}"
        )
        account = f"COALESCE(s.integration, {literal(CONFIGURED)})"
        told = (
            f"SELECT FROM {events} e WHERE e.order_id = s.order_id AND e.outcome = {literal(LATE)} "
            "AND e.account = s.account AND e.reference = s.ref"
        )
        held = (
            f"SELECT s.* FROM late s JOIN {t.sql} o ON {order} = s.order_id WHERE o.{is_open(t, config)} "
            f"AND {sent} <= {until} AND NOT {is_settled(t, config, 'o')} AND {reference_sql(t, 'o')} = s.ref "
            "FOR SHARE OF o SKIP LOCKED"
        )
        consumed = "now()" if config.is_consumed else "NULL::timestamptz"
        return (
            f"WITH sent AS (SELECT s.*, {account} AS account, btrim(s.reference, E' \\t\\r\\n') AS ref FROM ({rows}) s "
            f"WHERE s.route <> {Route.NOBODYS:d} AND lower(COALESCE(s.integration, '')) NOT IN ({literals(sorted(NOBODYS))})), "
            f"late AS (SELECT s.* FROM sent s WHERE NOT EXISTS ({told}) "
            f"ORDER BY s.sent_at LIMIT {_AT_A_TIME}), held AS ({held}), "
            f"event AS (INSERT INTO {events} (order_id, tenant_id, from_status, to_status, has_pin, sent_at, consumed_at, "
            "decided_by, repeat, outcome, source, cause, account, reference) "
            f"SELECT s.order_id, s.tenant, s.status, s.status, false, to_timestamp(s.sent_at), {consumed}, "
            f"{literal(config.author)}, false, {literal(LATE)}, {literal(PROGRAM)}, {literal(Cause.TIME_LIMIT)}, "
            "s.account, s.ref FROM held s RETURNING id, order_id), "
            f"queued AS ({queue_sql(config.schema)}), "
            f"hint AS (SELECT pg_notify({literal(CHANNEL)}, max(id)::text)::text AS given FROM event HAVING count(*) > 0) "
            "SELECT e.order_id::text AS id, (SELECT count(given) FROM hint) FROM event e ORDER BY e.id"
        )
