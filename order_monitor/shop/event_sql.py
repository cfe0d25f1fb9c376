"""SQL that records each change of status in the same statement that makes it, and gives a hint to whoever listens."""

from __future__ import annotations

from typing import Final

from order_monitor.core.order import SAME_TIME
from order_monitor.core.outcome import Outcome
from order_monitor.shop.columns import literal, quoted
from order_monitor.shop.layout import DELIVERIES, Layout, events_of, literals, settings_of

CHANNEL: Final = "order_monitor"
PROGRAM: Final = "program"
PERSON: Final = "person"
"""Who decided: what stands in an event's ``source``."""

WEBHOOK_MARK: Final = "webhook"
"""The name under which all processes find where and since when this shop's events are posted."""


def with_event(update: str, schema: str, layout: Layout, *, hints: bool = True) -> str:
    """SQL that makes an update, records each change of status and gives one hint for all; it must be read to be given at all.

    Without ``hints`` none is given: whoever listens for them finds the event when it next looks.

    Whether an event is put up for delivery is for the mark in the database to say, and not for the settings of whoever writes it.
    One that nobody consumes is written as consumed at the very time of its decision: no consumer that waits for its commit can have
    that time.

    An event is a repeat where the same outcome was told before of the same dispatch: its order, account and reference. An older
    event that does not say its reference counts as one of the same.
    """
    events = events_of(schema)
    told = f"COALESCE(e.outcome, {outcome_of('e.to_status', layout)})"
    same = (
        f"e.order_id = c.id AND NOT e.repeat AND COALESCE({told} = c.outcome, e.to_status = c.status) "
        "AND (e.reference IS NULL OR (e.reference = c.reference AND e.account = c.account))"
    )
    consumed = "now()" if layout.is_consumed else "NULL::timestamptz"
    hint = f"pg_notify({literal(CHANNEL)}, max(id)::text)::text" if hints else "NULL::text"
    return (
        f"WITH changed AS ({update}), told AS (SELECT c.id, count(*) > 0 AS before, "
        f"COALESCE(bool_or(e.sent_at < to_timestamp(c.sent_at) - interval '{SAME_TIME:g} s'), false) AS earlier "
        f"FROM changed c JOIN {events} e ON {same} GROUP BY c.id), event AS (INSERT INTO {events} "
        "(order_id, tenant_id, from_status, to_status, has_pin, message, checks, sent_at, consumed_at, decided_by, repeat, "
        "outcome, source, cause, account, reference) "
        "SELECT c.id, c.tenant_id, c.was, c.status, c.has_pin, c.told, c.checks, "
        f"to_timestamp(c.sent_at), {consumed}, {literal(layout.author)}, "
        "c.is_late OR COALESCE(t.before, false), c.outcome, c.source, c.cause, c.account, c.reference "
        "FROM changed c LEFT JOIN told t ON t.id = c.id WHERE c.is_late OR c.was IS DISTINCT FROM c.status "
        "RETURNING id, order_id, repeat), "
        f"queued AS (INSERT INTO {quoted(schema)}.{quoted(DELIVERIES)} (event_id, order_id) SELECT id, order_id FROM event "
        f"WHERE {is_posted(schema)}), "
        f"hint AS (SELECT {hint} AS given FROM event HAVING count(*) > 0) "
        "SELECT c.id::text, c.status, c.pin, e.id AS event_id, COALESCE(e.repeat, false) AS repeat, "
        "e.repeat AND NOT c.is_late AND COALESCE(t.earlier, false) AS anew, (SELECT count(given) FROM hint) "
        "FROM changed c LEFT JOIN event e ON e.order_id = c.id LEFT JOIN told t ON t.id = c.id"
    )


def is_posted(schema: str) -> str:
    """SQL condition that this shop's events are posted."""
    return f"EXISTS (SELECT FROM {settings_of(schema)} WHERE name = {literal(WEBHOOK_MARK)})"


def is_withdrawn(schema: str, event: str) -> str:
    """SQL condition that an event was withdrawn: the next one of its order is that of a reopening, which makes it a repeat."""
    events = events_of(schema)
    return (
        f"{event}.repeat AND COALESCE((SELECT n.outcome = 'reopened' FROM {events} n WHERE n.order_id = {event}.order_id "
        f"AND n.id > {event}.id ORDER BY n.id LIMIT 1), false)"
    )


def dispatch_of(schema: str, event: str) -> str:
    """SQL of what an end is known by elsewhere, also after a restore: a digest of order, account, reference, outcome and round.

    The round is how often the order had been put back to open by then.
    """
    fields = [f"{event}.{name}" for name in ("order_id", "account", "reference", "outcome")]
    earlier = (
        f"(SELECT count(*) FROM {events_of(schema)} r WHERE r.order_id = {event}.order_id AND r.id < {event}.id "
        "AND r.outcome = 'reopened')"
    )
    # concat() takes NULL for nothing.
    return f"encode(sha256(convert_to(concat({', chr(31), '.join([*fields, earlier])}), 'UTF8')), 'hex')"


def outcome_of(status: str, layout: Layout) -> str:
    """SQL of what a change to ``status`` meant, for events that do not say so: by the settings' words, then by the usual ones.

    NULL for a word that nobody knows.
    """
    rules = layout.rules
    cases = [f"WHEN {status} IN ({literals(rules.words(outcome))}) THEN {literal(outcome)}" for outcome in Outcome]
    cases.append(f"WHEN {status} IN ({literals(layout.open)}) THEN 'reopened'")
    return f"CASE {' '.join(cases)} END"
