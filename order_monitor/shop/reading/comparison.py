"""Another monitor's results compared with what would have been written, from the observations and
the current orders.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

import asyncpg

from order_monitor.core.outcome import Outcome
from order_monitor.core.pin import Pin, is_no_pin
from order_monitor.shop.accounts.tables import reference_sql
from order_monitor.shop.database import Database
from order_monitor.shop.observations import outcome_of_word
from order_monitor.shop.repository import Orders
from order_monitor.shop.schema.table_config import observations_of


class Verdict(StrEnum):
    """The result of comparing one dispatch."""

    SAME = "same"
    DIFFERENT = "different"
    NOT_COMPARABLE = "not_comparable"


@dataclass(frozen=True, slots=True)
class Compared:
    """One dispatch.

    ``ours`` and ``theirs`` are the two results in words, ``why`` is the difference, or the reason
    why there is nothing to compare. ``ours_at`` and ``theirs_at`` are epoch seconds, None if
    unknown. ``were_they_first`` is None if only one side has ended it.
    """

    order_id: str
    tenant_id: str | None
    account: str
    reference: str
    verdict: Verdict
    why: str
    ours: str
    theirs: str
    ours_at: float | None
    theirs_at: float | None
    were_they_first: bool | None

    @property
    def lead(self) -> float | None:
        """Seconds by which we found the end before the other monitor; negative if after it.

        None if either time is unknown.
        """
        if self.ours_at is None or self.theirs_at is None:
            return None
        return self.theirs_at - self.ours_at


async def read_comparison(database: Database, orders: Orders, seconds: float) -> list[Compared]:
    """Compare the orders asked about in the last ``seconds``, the latest first.

    Raises:
        ShopError: the database could not be asked.
    """
    table, writer = orders.table, orders.row_writer
    sql = (
        "SELECT v.*, v.order_id::text AS id, extract(epoch FROM v.done_at)::float8 AS ours_at, "
        "extract(epoch FROM v.their_end_at)::float8 AS theirs_at, "
        f"o.{table['id'].sql} IS NOT NULL AS is_there, "
        f"o.{table['external_status'].sql}::text AS now_status, "
        f"o.{table['pin_code'].sql}::text AS now_pin, "
        f"{reference_sql(table, 'o')} AS now_reference "
        f"FROM {observations_of(table.schema)} v LEFT JOIN {table.sql} o "
        f"ON o.{table['id'].sql} = v.order_id "
        "WHERE v.last_asked_at > clock_timestamp() - make_interval(secs => $1) "
        "ORDER BY v.last_asked_at DESC, v.order_id"
    )
    async with database.transaction() as connection:
        rows = await connection.fetch(sql, seconds)
    return [_compared(row, orders) for row in rows] if writer.key else []


def _compared(row: asyncpg.Record, orders: Orders) -> Compared:
    rules, config = orders.row_writer.rules, orders.row_writer.table_config
    theirs = outcome_of_word(row["now_status"] or "", config) if row["is_there"] else None
    ours = Outcome(row["outcome"]) if row["outcome"] else None
    pin = row["now_pin"]
    their_digest = None if is_no_pin(pin, rules.no_pin) else Pin(pin).digest(orders.row_writer.key)
    verdict, why = _verdict(row, ours, theirs, their_digest, pins=not config.pins_elsewhere)
    theirs_at = row["theirs_at"] if theirs is not None else None
    return Compared(
        row["id"],
        row["tenant_id"],
        row["account"],
        row["reference"],
        verdict,
        why,
        _in_words(ours, row["why"] or row["answer"], has_pin=row["has_pin"]),
        _in_words(theirs, row["now_status"] or "", has_pin=their_digest is not None),
        row["ours_at"] if ours is not None else None,
        theirs_at,
        None if ours is None or theirs is None else _were_they_first(row),
    )


def _were_they_first(row: asyncpg.Record) -> bool:
    if row["theirs_at"] is None:
        return bool(row["found_ended"])
    return bool(row["theirs_at"] < row["ours_at"])


def _verdict(
    row: asyncpg.Record,
    ours: Outcome | None,
    theirs: Outcome | None,
    their_digest: bytes | None,
    *,
    pins: bool,
) -> tuple[Verdict, str]:
    """Return the result of the comparison, and the reason.

    An order that another monitor has ended while it still waits at the provider is a difference.
    """
    if why := _not_comparable(row, ours, theirs):
        return Verdict.NOT_COMPARABLE, why
    if ours is not theirs:
        return Verdict.DIFFERENT, "outcome"
    own_digest = None if row["digest"] is None else bytes(row["digest"])
    if not pins or ours is not Outcome.COMPLETED or own_digest == their_digest:
        return Verdict.SAME, ""
    if own_digest is not None and their_digest is not None:
        return Verdict.DIFFERENT, "pin"
    return Verdict.DIFFERENT, "pin_only_theirs" if own_digest is None else "pin_only_ours"


def _not_comparable(row: asyncpg.Record, ours: Outcome | None, theirs: Outcome | None) -> str:
    """Return why there are not two results to compare; an empty string if there are.

    A case for a person is not a result of ours.
    """
    if not row["is_there"]:
        return "deleted"
    if row["now_reference"] != row["reference"]:
        return "sent_anew"
    if theirs is None:
        return "not_ended_by_them" if ours else "open_for_both"
    if row["done_at"] is None:
        return "not_asked_again_yet"
    if ours is None and row["answer"] != "waiting":
        return row["why"] or "not_understood"
    return ""


def _in_words(outcome: Outcome | None, otherwise: str, *, has_pin: bool) -> str:
    if outcome is None:
        return otherwise
    return f"{outcome} with a PIN" if has_pin else str(outcome)
