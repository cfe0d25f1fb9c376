"""SQL of what an update of an order sets, column by column as far as they are there; the new values stand in a row called ``u``."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Final

from order_monitor.shop.columns import Table
from order_monitor.shop.layout import Layout

AUTHOR: Final = "order-monitor"


def sets_of(table: Table, layout: Layout) -> list[str]:
    """Return each assignment."""
    status, pin = table["external_status"], table["pin_code"].sql
    sets = [f"{status.sql} = u.status{status.cast}", f"{pin} = COALESCE(u.pin, o.{pin})"]
    for logical, value in (
        ("note", "u.note"),
        ("provider_message", _cut(table, "provider_message", "u.message")),
        ("last_sync_at", _instant(table, "last_sync_at", "u.seen_at") if layout.record_sync else ""),
        ("completed_at", _instant(table, "completed_at", "u.done_at")),
        ("duration_ms", "u.duration"),
    ):
        if (column := table.get(logical)) and value:
            sets.append(f"{column.sql} = COALESCE({value}, o.{column.sql})")
    if (column := table.get("notes")) and column.data_type == "jsonb":
        sets.append(f"{column.sql} = {_history(f'o.{column.sql}')}")
    return sets


def _instant(table: Table, logical: str, seconds: str) -> str:
    return table.instant(logical, seconds) if table.get(logical) else ""


def _cut(table: Table, logical: str, value: str) -> str:
    column = table.get(logical)
    return f"left({value}, {column.width})" if column and column.width else value


def _history(column: str) -> str:
    """SQL that adds an entry to a jsonb array; what is no array is left as it is."""
    return (
        f"CASE WHEN u.entry IS NULL THEN {column} WHEN {column} IS NULL THEN u.entry::jsonb "
        f"WHEN jsonb_typeof({column}) = 'array' THEN {column} || u.entry::jsonb ELSE {column} END"
    )


def entry_of(message: str, seen_at: float) -> str:
    """Return what is added to a jsonb array of ``{by, text, at}`` for a message seen at ``seen_at`` (epoch seconds).

    It is made here, because Citus computes nothing in an assignment that depends on a session's settings, as a time's text does.
    """
    at = datetime.fromtimestamp(seen_at, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    return json.dumps([{"by": AUTHOR, "text": message, "at": at}], ensure_ascii=False)
