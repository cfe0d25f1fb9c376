"""SQL that records each change of status in the same statement that makes it, and gives a hint to whoever listens."""

from __future__ import annotations

from typing import Final

from order_monitor.shop.columns import literal, quoted
from order_monitor.shop.layout import DELIVERIES, Layout, events_of, literals

CHANNEL: Final = "order_monitor"
COMPLETED_WORDS: Final = ("completed", "delivered", "done", "approved")
FAILED_WORDS: Final = ("failed", "rejected", "cancelled", "canceled", "refunded")


def with_event(update: str, schema: str, layout: Layout, *, outcomes: bool) -> str:
    """SQL that makes an update, records each change of status and gives one hint for all; it must be read to be given at all.

    ``outcomes`` tells whether the events table has that column.
    """
    events = events_of(schema)
    deliveries = f"{quoted(schema)}.{quoted(DELIVERIES)}"
    outcome = ", outcome" if outcomes else ""
    told = outcome_of("e.to_status", layout)
    before = f"COALESCE(e.outcome, {told})" if outcomes else told
    is_first = f"COALESCE({before} = c.outcome, e.to_status = c.status) AND NOT e.repeat"
    value = ", c.outcome" if outcomes else ""
    queued = f"queued AS (INSERT INTO {deliveries} (event_id, order_id) SELECT id, order_id FROM event), "
    return (
        f"WITH changed AS ({update}), event AS (INSERT INTO {events} "
        f"(order_id, tenant_id, from_status, to_status, has_pin, message, checks, sent_at, decided_by, repeat{outcome}) "
        "SELECT c.id, c.tenant_id, c.was, c.status, COALESCE(btrim(c.pin), '') <> '', c.told, c.checks, "
        f"to_timestamp(c.sent_at), {literal(layout.author)}, c.is_late OR EXISTS (SELECT 1 FROM {events} e "
        f"WHERE e.order_id = c.id AND {is_first}){value} "
        "FROM changed c WHERE c.is_late OR c.was IS DISTINCT FROM c.status RETURNING id, order_id, repeat), "
        f"{queued if layout.webhook else ''}"
        f"hint AS (SELECT pg_notify({literal(CHANNEL)}, max(id)::text)::text AS given FROM event HAVING count(*) > 0) "
        "SELECT c.id::text, c.status, c.pin, COALESCE(e.repeat, false) AS repeat, (SELECT count(given) FROM hint) "
        "FROM changed c LEFT JOIN event e ON e.order_id = c.id"
    )


def outcome_of(status: str, layout: Layout) -> str:
    """SQL of what a change to ``status`` meant, for events that do not say so: by the settings' words, then by the usual ones.

    NULL for a word that nobody knows.
    """
    rules = layout.rules
    named = {"completed": (rules.completed, *COMPLETED_WORDS), "failed": (rules.failed, *FAILED_WORDS)}
    cases = [f"WHEN {status} = {literal(rules.processing)} THEN 'processing'"]
    cases += [f"WHEN {status} IN ({literals(dict.fromkeys(words))}) THEN '{name}'" for name, words in named.items()]
    cases.append(f"WHEN {status} IN ({literals(layout.open)}) THEN 'reopened'")
    return f"CASE {' '.join(cases)} END"
