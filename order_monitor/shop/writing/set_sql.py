"""SQL for the assignments of an order's update; the new values are in a row called ``u``."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Final

from order_monitor.shop.schema.columns import Table
from order_monitor.shop.schema.table_config import TableConfig

AUTHOR: Final = "order-monitor"

_LONGEST_NOTE: Final = 500
"""How many characters of a message a customer is shown, as in the running shop."""


def sets_of(table: Table, table_config: TableConfig) -> list[str]:
    """Return the assignments."""
    status, pin = table["external_status"], table["pin_code"].sql
    sets = [f"{status.sql} = u.status{status.cast}", f"{pin} = COALESCE(u.pin, o.{pin})"]
    for logical, value in (
        ("note", "u.note"),
        ("provider_message", _cut(table, "provider_message", "u.message")),
        (
            "last_sync_at",
            _instant(table, "last_sync_at", "u.seen_at") if table_config.record_sync else "",
        ),
        ("completed_at", _instant(table, "completed_at", "u.done_at")),
        ("duration_ms", "u.duration"),
    ):
        if (column := table.get(logical)) and value:
            sets.append(f"{column.sql} = COALESCE({value}, o.{column.sql})")
    if (column := table.get("notes")) and column.data_type == "jsonb":
        sets.append(f"{column.sql} = {_history(f'o.{column.sql}')}")
        if count := table.get("notes_count"):
            sets.append(f"{count.sql} = {_count(f'o.{column.sql}', f'o.{count.sql}')}")
    if table_config.has_customer_notes and (column := table.get("manual_note")):
        # What stands there may be a person's word to the customer, or a code.
        is_free = f"u.done_at IS NOT NULL AND COALESCE(btrim(o.{column.sql}::text), '') = ''"
        told = f"left(u.told, {min(column.width or _LONGEST_NOTE, _LONGEST_NOTE)})"
        sets.append(
            f"{column.sql} = CASE WHEN {is_free} THEN COALESCE({told}, o.{column.sql}) ELSE o.{column.sql} END"
        )
    return sets


def _instant(table: Table, logical: str, seconds: str) -> str:
    return table.instant(logical, seconds) if table.get(logical) else ""


def _cut(table: Table, logical: str, value: str) -> str:
    column = table.get(logical)
    return f"left({value}, {column.width})" if column and column.width else value


def _history(column: str) -> str:
    """SQL that adds an entry to a jsonb array; any other value is left unchanged."""
    return (
        f"CASE WHEN u.entry IS NULL THEN {column} WHEN {column} IS NULL THEN u.entry::jsonb "
        f"WHEN jsonb_typeof({column}) = 'array' THEN {column} || u.entry::jsonb ELSE {column} END"
    )


def _count(column: str, count: str) -> str:
    """SQL of how many entries a jsonb array has with the new one; what is no array is not counted."""
    return (
        f"CASE WHEN u.entry IS NULL THEN {count} WHEN {column} IS NULL THEN 1 "
        f"WHEN jsonb_typeof({column}) = 'array' THEN jsonb_array_length({column}) + 1 ELSE {count} END"
    )


def entry_of(message: str, seen_at: float, author: str = AUTHOR) -> str:
    """Return what is added to a jsonb array of ``{by, text, at}`` for a message seen at ``seen_at``
    (epoch seconds).

    It is built here because Citus does not compute an assignment that depends on session settings,
    as the text form of a time does.
    """
    at = (
        datetime.fromtimestamp(seen_at, UTC)
        .isoformat(timespec="milliseconds")
        .replace("+00:00", "Z")
    )
    return json.dumps([{"by": author, "text": message, "at": at}], ensure_ascii=False)
