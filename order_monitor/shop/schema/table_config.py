"""How the settings describe the shop's tables, and the SQL conditions that follow from that."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final

from order_monitor.core.decision import Rules
from order_monitor.core.errors import TableError
from order_monitor.core.login import Credentials, knows_own_ids
from order_monitor.core.outcome import Outcome
from order_monitor.shop.schema.columns import Table, literal, qualified

EVENTS: Final = "order_monitor_events"
DELIVERIES: Final = "order_monitor_deliveries"
PAUSES: Final = "order_monitor_pauses"
REVIEW: Final = "order_monitor_review"
TIMING: Final = "order_monitor_timing"
DISPATCHES: Final = "order_monitor_dispatches"
PINS: Final = "order_monitor_pins"
SETTINGS: Final = "order_monitor_settings"
PRESENCE: Final = "order_monitor_presence"
OBSERVATIONS: Final = "order_monitor_observed"
CONSUMER: Final = "order_monitor_consumer"
"""A table of the Django app: from which event on the shop's consumers act."""


@dataclass(frozen=True, slots=True)
class TableConfig:
    """The orders table.

    ``known`` are the statuses that need no report: final ones and ``not_sent``. With
    ``accounts_from_shop`` the shop's own tables determine which account took an order; they are
    read again every ``refresh`` seconds. ``credentials`` are those of an account configured in the
    settings. With ``is_consumed`` no consumer reads the events, so they are written as consumed.
    With ``pins_elsewhere`` the shop moves PINs out of their column. ``await_pin``: seconds to wait
    for a PIN that an end lacks. With ``unique_pins`` no PIN goes to a second order of its login.
    ``reference_reuse`` decides which order an answer belongs to if several orders of a login have
    its reference: ``none`` of them, or the ``newest``. ``author`` is written with each event as the
    one who decided. ``lookup`` are further columns by which a person can find an order. Orders sent
    before ``ignore_before`` are left alone: ISO 8601, or seconds before the first ``migrate``;
    empty for the default, None for none. So are orders whose row has one of the ``settled`` words
    as the shop's own status. With ``follows_chains`` an order that another
    tenant took ends as that tenant's order does. With ``has_customer_notes`` the customer's own
    note gets the message of an end; ``note_author`` is written with each entry of the order's
    history. ``further_rights`` are rights on our tables that some settings need in
    addition. Where this process ``observes``, reading leaves nothing behind but the record of
    dispatches.
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
    follows_chains: bool = False
    has_customer_notes: bool = False
    note_author: str = "order-monitor"
    further_rights: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    observes: bool = False

    @property
    def asks_by_id(self) -> bool:
        """Whether an order may be asked about by its own id: where an account can be a client API's."""
        return self.accounts_from_shop or (
            self.credentials is not None and knows_own_ids(self.credentials.provider)
        )

    @property
    def wanted(self) -> tuple[str, ...]:
        """The columns that are looked for only because a setting needs them."""
        settled = ("shop_status",) if self.settled else ()
        return (*settled, "manual_note") if self.has_customer_notes else settled

    @property
    def welcome(self) -> tuple[str, ...]:
        """Further such columns, without which a setting is obeyed as far as that goes."""
        return ("chain_path", "manual_note", "shop_status") if self.follows_chains else ()


def is_open(table: Table, table_config: TableConfig) -> str:
    """SQL condition for an open order: the partial index's own, or PostgreSQL would not use it."""
    return (
        f"{table['external_status'].compared} IN ({literals(open_statuses(table, table_config))})"
    )


def is_unknown(table: Table, table_config: TableConfig) -> str | None:
    """SQL condition for a status neither open nor known; None if the type makes it impossible."""
    column = table["external_status"]
    if not column.labels:
        return f"{column.sql} NOT IN ({literals((*table_config.open, *table_config.known))})"
    unknown = [
        label for label in column.labels if label not in (*table_config.open, *table_config.known)
    ]
    return f"{column.compared} IN ({literals(unknown)})" if unknown else None


def is_settled(table: Table, table_config: TableConfig, alias: str) -> str:
    """SQL for whether the shop's own status, in any case, says that an order is over."""
    return _is_shops_word(table, table_config.settled, alias)


def is_paid_back(table: Table, table_config: TableConfig, alias: str) -> str:
    """SQL for whether the shop's own status says that an order has failed, whatever its end here
    was: its customer has the money back.
    """
    return _is_shops_word(table, table_config.rules.words(Outcome.FAILED), alias)


def _is_shops_word(table: Table, words: Iterable[str], alias: str) -> str:
    column = table.get("shop_status")
    among = ", ".join(f"lower({literal(word.strip())})" for word in words)
    if column is None or not among:
        return "false"
    return f"COALESCE(lower(btrim({alias}.{column.sql}::text)) IN ({among}), false)"


def open_statuses(table: Table, table_config: TableConfig) -> tuple[str, ...]:
    """Return the open statuses that the column can hold."""
    labels = table["external_status"].labels
    return tuple(status for status in table_config.open if not labels or status in labels)


def lacks_pin(pin: str, table_config: TableConfig) -> str:
    """SQL for whether a column's text is no PIN: empty, only signs, or one of the words for it."""
    # Not every database encoding can hold the non-ASCII words; before deciding about a row, Python
    # checks it again.
    words = literals(
        sorted({word.strip().lower() for word in table_config.rules.no_pin if word.isascii()})
    )
    bare = f"COALESCE(btrim({pin}, E' \\t\\r\\n-*_.'), '') = ''"
    return f"({bare} OR lower(btrim({pin})) IN ({words}))" if words else f"({bare})"


def may_lack_pin(pin: str, table_config: TableConfig) -> str:
    """SQL for whether a column's text could be no PIN: true for all that are none, and for some
    that are.

    Python decides (`is_no_pin`).
    """
    return f"({lacks_pin(pin, table_config)} OR {pin} !~ '[0-9]' OR {pin} ~ '[&<]')"


def events_of(schema: str) -> str:
    """SQL name of the events table."""
    return qualified(schema, EVENTS)


def dispatches_of(schema: str) -> str:
    """SQL name of the dispatches table."""
    return qualified(schema, DISPATCHES)


def observations_of(schema: str) -> str:
    """SQL of the name of the table of observations."""
    return qualified(schema, OBSERVATIONS)


def settings_of(schema: str) -> str:
    """SQL name of the settings table, which all processes share."""
    return qualified(schema, SETTINGS)


def literals(statuses: Iterable[str]) -> str:
    """Return statuses as SQL string literals, separated by commas."""
    return ", ".join(literal(status) for status in statuses)


def words_of(table_config: TableConfig) -> dict[str, str]:
    """Return the status words that are written, by their keys under ``statuses``."""
    return {outcome: table_config.rules.word(outcome) for outcome in Outcome}


def can_hold(table: Table, word: str) -> bool:
    """Whether the status column's type can hold a word."""
    column = table["external_status"]
    return (not column.labels or word in column.labels) and (
        column.width is None or len(word) <= column.width
    )


def check_statuses(table: Table, table_config: TableConfig) -> None:
    """Check that the words that end an order fit their column.

    The word for waiting is not required.

    Raises:
        TableError: names the statuses that do not fit.
    """
    problems = [
        f"statuses.{key}: {table.name}.{table['external_status'].name} cannot hold this value"
        for key, word in words_of(table_config).items()
        if key != "processing" and not can_hold(table, word)
    ]
    if problems:
        raise TableError(problems)
