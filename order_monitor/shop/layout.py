"""What the settings say of the shop's tables, and the SQL conditions that follow from it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final

from order_monitor.core.decision import Rules
from order_monitor.core.errors import TableError
from order_monitor.core.login import Credentials
from order_monitor.core.outcome import Outcome
from order_monitor.shop.columns import Table, literal, quoted

NEVER_SENT: Final = "not_sent"
EVENTS: Final = "order_monitor_events"
DELIVERIES: Final = "order_monitor_deliveries"
PAUSES: Final = "order_monitor_pauses"
REVIEW: Final = "order_monitor_review"
TIMING: Final = "order_monitor_timing"
DISPATCHES: Final = "order_monitor_dispatches"
PINS: Final = "order_monitor_pins"
SETTINGS: Final = "order_monitor_settings"
PRESENCE: Final = "order_monitor_presence"


@dataclass(frozen=True, slots=True)
class Layout:
    """The orders table. ``known`` are the statuses that need no mention: final ones and ``not_sent``.

    With ``accounts_from_shop`` the shop's own tables say which account took an order; read again every ``refresh`` seconds.
    ``credentials`` are those of the account in the settings, where it stands there. With ``is_consumed`` nobody consumes the
    events: they are written as consumed. With ``pins_elsewhere`` the shop moves PINs out of their column. A PIN that an end lacks
    is waited for ``await_pin`` seconds. With ``unique_pins`` no PIN goes to a second order of its login. ``reference_reuse`` says
    whose an answer is where several orders of a login have its reference: ``none`` of theirs, or the ``newest`` one's. ``author``
    is written beside each event as who decided. ``lookup`` are further columns that a person may find an order by. Orders sent
    before ``ignore_before`` are left alone: ISO 8601, or seconds before the first ``migrate``; empty for the default, None for
    none. So are those whose row has one of the ``settled`` words as the shop's own status. ``further_rights`` are those on tables
    of ours that some settings need beside what all work needs.
    """

    schema: str
    table: str
    overrides: Mapping[str, str]
    time_zone: str | None
    open: tuple[str, ...]
    known: tuple[str, ...]
    rules: Rules
    record_sync: bool = True
    accounts_from_shop: bool = False
    refresh: float = 60.0
    is_consumed: bool = False
    pins_elsewhere: bool = False
    await_pin: float = 0.0
    unique_pins: bool = True
    reference_reuse: str = "none"
    credentials: Credentials | None = None
    author: str = "daemon"
    lookup: tuple[str, ...] = ()
    ignore_before: str | None = None
    settled: tuple[str, ...] = ()
    further_rights: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    @property
    def wanted(self) -> tuple[str, ...]:
        """The columns that are looked for only because a setting needs them."""
        return ("shop_status",) if self.settled else ()


def is_open(table: Table, layout: Layout) -> str:
    """SQL condition of an open order: word for word the partial index's, or PostgreSQL would not use that."""
    return f"{table['external_status'].compared} IN ({literals(open_statuses(table, layout))})"


def is_unknown(table: Table, layout: Layout) -> str | None:
    """SQL condition of an order whose status is neither open nor known; None where the column's type rules it out."""
    column = table["external_status"]
    if not column.labels:
        return f"{column.sql} NOT IN ({literals((*layout.open, *layout.known))})"
    unknown = [label for label in column.labels if label not in (*layout.open, *layout.known)]
    return f"{column.compared} IN ({literals(unknown)})" if unknown else None


def is_settled(table: Table, layout: Layout, alias: str) -> str:
    """SQL of whether the shop's own status says that an order is over; compared as text, in any case of letters."""
    column = table.get("shop_status")
    if column is None or not layout.settled:
        return "false"
    words = ", ".join(f"lower({literal(word.strip())})" for word in layout.settled)
    return f"COALESCE(lower(btrim({alias}.{column.sql}::text)) IN ({words}), false)"


def open_statuses(table: Table, layout: Layout) -> tuple[str, ...]:
    """Return the open statuses that the column can hold."""
    labels = table["external_status"].labels
    return tuple(status for status in layout.open if not labels or status in labels)


def lacks_pin(pin: str, layout: Layout) -> str:
    """SQL of whether a column's text is no PIN: nothing, a mark of nothing, or one of the words for it."""
    # Not every database can even hold the others; where a row is decided on, Python looks at it once more.
    words = literals(sorted({word.strip().lower() for word in layout.rules.no_pin if word.isascii()}))
    bare = f"COALESCE(btrim({pin}, E' \\t\\r\\n-*_.'), '') = ''"
    return f"({bare} OR lower(btrim({pin})) IN ({words}))" if words else f"({bare})"


def may_lack_pin(pin: str, layout: Layout) -> str:
    """SQL of whether a column's text could be no PIN: all that is none, and some that are. Python tells which (`is_no_pin`)."""
    return f"({lacks_pin(pin, layout)} OR {pin} !~ '[0-9]' OR {pin} ~ '[&<]')"


def events_of(schema: str) -> str:
    """SQL of the events table's name."""
    return f"{quoted(schema)}.{quoted(EVENTS)}"


def dispatches_of(schema: str) -> str:
    """Return the quoted name of the table of dispatches."""
    return f"{quoted(schema)}.{quoted(DISPATCHES)}"


def settings_of(schema: str) -> str:
    """SQL of the name of the table of what all processes share."""
    return f"{quoted(schema)}.{quoted(SETTINGS)}"


def literals(statuses: Iterable[str]) -> str:
    """Write statuses as SQL strings."""
    return ", ".join(literal(status) for status in statuses)


def words_of(layout: Layout) -> dict[str, str]:
    """Return the words that the settings write, by their keys under ``statuses``."""
    return {outcome: layout.rules.word(outcome) for outcome in Outcome}


def can_hold(table: Table, word: str) -> bool:
    """Whether a status fits its column, by that one's type."""
    column = table["external_status"]
    return (not column.labels or word in column.labels) and (column.width is None or len(word) <= column.width)


def check_statuses(table: Table, layout: Layout) -> None:
    """See that the words that end an order fit their column; without the one for waiting all goes on.

    Raises:
        TableError: naming the statuses that do not.
    """
    problems = [
        f"statuses.{key}: {table.name}.{table['external_status'].name} cannot hold this value"
        for key, word in words_of(layout).items()
        if key != "processing" and not can_hold(table, word)
    ]
    if problems:
        raise TableError(problems)
