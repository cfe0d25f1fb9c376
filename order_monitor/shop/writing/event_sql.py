"""SQL that records each change of status in the statement that makes it, and notifies listeners."""

from __future__ import annotations

from typing import Final

from order_monitor.core.order import CONFIGURED, SAME_TIME
from order_monitor.core.outcome import Outcome
from order_monitor.shop.schema.columns import literal, qualified
from order_monitor.shop.schema.table_config import (
    DELIVERIES,
    TableConfig,
    events_of,
    literals,
    settings_of,
)

CHANNEL: Final = "order_monitor"
PROGRAM: Final = "program"
PERSON: Final = "person"
"""Who decided: the values of an event's ``source``."""

WEBHOOK_MARK: Final = "webhook"
"""The name of the mark that stores where and since when this shop's events are posted."""


def with_event(update: str, schema: str, table_config: TableConfig, *, hints: bool = True) -> str:
    """SQL that makes an update, records each change of status and sends one notification for all.

    PostgreSQL sends it only if the row that contains it is read. Without ``hints`` none is sent: a
    listener then finds the event when it next looks.

    Whether an event is queued for delivery depends on the mark in the database, not on the settings
    of the process that writes it. If no consumer reads the events, one is written as consumed at
    exactly the time of its decision, a time that no consumer waiting for the commit can have.

    An event is a repeat if the same outcome was recorded before for the same dispatch: its order,
    account and reference. An older event without a reference counts as the same dispatch; so does
    one with this reference where one of the two does not know the account: a process whose account
    is in its settings has another key for it, and of several routes a person decides by none.
    """
    events = events_of(schema)
    told = f"COALESCE(e.outcome, {outcome_of('e.to_status', table_config)})"
    is_account = f"(e.account = c.account OR {literal(CONFIGURED)} IN (e.account, c.account))"
    same = (
        f"e.order_id = c.id AND NOT e.repeat AND COALESCE({told} = c.outcome, e.to_status = c.status) "
        f"AND (e.reference IS NULL OR (e.reference = c.reference AND {is_account}))"
    )
    # What had no time then, and has one now, was sent since.
    before = "COALESCE(e.sent_at, '-infinity')"
    consumed = "now()" if table_config.is_consumed else "NULL::timestamptz"
    hint = f"pg_notify({literal(CHANNEL)}, max(id)::text)::text" if hints else "NULL::text"
    return (
        f"WITH changed AS ({update}), told AS (SELECT c.id, count(*) > 0 AS before, "
        f"COALESCE(bool_or({before} < to_timestamp(c.sent_at) - interval '{SAME_TIME:g} s'), false) AS earlier "
        f"FROM changed c JOIN {events} e ON {same} GROUP BY c.id), event AS (INSERT INTO {events} "
        "(order_id, tenant_id, from_status, to_status, has_pin, message, checks, sent_at, consumed_at, decided_by, repeat, "
        "outcome, source, cause, account, reference) "
        "SELECT c.id, c.tenant_id, c.was, c.status, c.has_pin, c.told, c.checks, "
        f"to_timestamp(c.sent_at), {consumed}, {literal(table_config.author)}, "
        "c.is_late OR COALESCE(t.before, false), c.outcome, c.source, c.cause, c.account, c.reference "
        "FROM changed c LEFT JOIN told t ON t.id = c.id WHERE c.is_late OR c.was IS DISTINCT FROM c.status "
        "RETURNING id, order_id, repeat), "
        f"queued AS ({queue_sql(schema)}), "
        f"hint AS (SELECT {hint} AS given FROM event HAVING count(*) > 0) "
        "SELECT c.id::text, c.status, c.pin, e.id AS event_id, COALESCE(e.repeat, false) AS repeat, "
        "COALESCE(e.repeat AND NOT c.is_late AND t.earlier, false) AS anew, (SELECT count(given) FROM hint) "
        "FROM changed c LEFT JOIN event e ON e.order_id = c.id LEFT JOIN told t ON t.id = c.id"
    )


def queue_sql(schema: str) -> str:
    """SQL that queues the rows of ``event`` for delivery, if this shop's events are posted."""
    return (
        f"INSERT INTO {qualified(schema, DELIVERIES)} (event_id, order_id) SELECT id, order_id FROM event "
        f"WHERE EXISTS (SELECT FROM {settings_of(schema)} WHERE name = {literal(WEBHOOK_MARK)})"
    )


def is_withdrawn(schema: str, event: str) -> str:
    """SQL for whether an event was withdrawn: a repeat, before its order's reopening."""
    events = events_of(schema)
    return (
        f"{event}.repeat AND COALESCE((SELECT n.outcome = 'reopened' FROM {events} n WHERE n.order_id = {event}.order_id "
        f"AND n.id > {event}.id ORDER BY n.id LIMIT 1), false)"
    )


def put_back_sql(schema: str, cast: str) -> str:
    """SQL for when a person put some orders (``$1``) back to open last (epoch seconds)."""
    return (
        f"SELECT e.order_id::text AS id, extract(epoch FROM max(e.decided_at))::float8 AS at FROM {events_of(schema)} e "
        f"WHERE e.order_id = ANY($1::text[]{cast}[]) AND e.outcome = 'reopened' AND e.source = {literal(PERSON)} GROUP BY 1"
    )


def dispatch_of(schema: str, event: str) -> str:
    """SQL for the key that identifies an end elsewhere, even after a restore: a digest of order,
    account, reference, outcome and round.

    The round is the number of times the order had been reopened by then.
    """
    fields = [f"{event}.{name}" for name in ("order_id", "account", "reference", "outcome")]
    earlier = (
        f"(SELECT count(*) FROM {events_of(schema)} r WHERE r.order_id = {event}.order_id AND r.id < {event}.id "
        "AND r.outcome = 'reopened')"
    )
    # concat() ignores NULL.
    return f"encode(sha256(convert_to(concat({', chr(31), '.join([*fields, earlier])}), 'UTF8')), 'hex')"


def outcome_of(status: str, table_config: TableConfig) -> str:
    """SQL for what a change to ``status`` meant, for events without an outcome: by the words in the
    settings, then by the usual ones.

    NULL for an unknown word.
    """
    rules = table_config.rules
    cases = [
        f"WHEN {status} IN ({literals(rules.words(outcome))}) THEN {literal(outcome)}"
        for outcome in Outcome
    ]
    cases.append(f"WHEN {status} IN ({literals(table_config.open)}) THEN 'reopened'")
    return f"CASE {' '.join(cases)} END"
