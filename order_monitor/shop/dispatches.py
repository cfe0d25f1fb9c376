"""Each order as it was sent: to which account, under which reference, when. Noted before its first question.

What is asked and believed goes by it. An answer holds for the dispatch it was asked for, and for none that came after: the locked
row is compared with it before anything is written.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from order_monitor.core.order import CONFIGURED, SAME_TIME, Order
from order_monitor.core.recording import Finding
from order_monitor.shop.columns import Table, literal
from order_monitor.shop.database import Connection
from order_monitor.shop.layout import NEVER_SENT, Layout, dispatches_of, literals, open_statuses
from order_monitor.shop.logins import Logins

TOUCHED: Final = 5
"""How often the shop may give the same dispatch another ``sent_at`` before its age counts from when it was found."""

_SEPARATOR: Final = "\x1f"


@dataclass(frozen=True, slots=True)
class Standing:
    """What is noted of a dispatch. ``found_at`` is epoch seconds, ``touched`` how often its ``sent_at`` was changed.

    ``meant`` tells that a person has said that its reference is this order's; ``twins`` are other orders of the same login that
    were sent under the same reference. ``odd_at``: since when no answer about it is understood, by its own fault (epoch seconds).
    """

    found_at: float
    touched: int
    meant: bool
    twins: tuple[str, ...] = ()
    odd_at: float | None = None


@dataclass(frozen=True, slots=True)
class Twin:
    """Another order with the same reference. ``sent_at`` is epoch seconds, ``root`` the order that a chain began with."""

    id: str
    is_open: bool
    sent_at: float | None
    root: str
    meant: bool


class Dispatches:
    """The table of dispatches beside the orders ``table``."""

    def __init__(self, table: Table, layout: Layout, logins: Logins) -> None:
        """Look for twins among the orders that ``logins`` says are of one login."""
        self._orders = table
        self._layout = layout
        self._logins = logins
        self._table = dispatches_of(layout.schema)

    async def note(self, connection: Connection, orders: Sequence[Order]) -> list[str]:
        """Note dispatches that are about to be asked about; return the orders whose time was now changed once too often."""
        rows = [(o.id, account_of(o), o.referans.strip(), o.sent_at, self._logins.of(account_of(o))[0]) for o in orders]
        if not rows:
            return []
        rows.sort()
        moved = f"abs(extract(epoch FROM d.sent_at - EXCLUDED.sent_at)) >= {SAME_TIME}"
        found = await connection.fetch(
            f"INSERT INTO {self._table} AS d (order_id, account, reference, sent_at, login) "
            f"SELECT u.id{self._orders['id'].cast}, u.account, u.reference, to_timestamp(u.sent_at), u.login "
            "FROM unnest($1::text[], $2::text[], $3::text[], $4::float8[], $5::text[]) "
            "AS u(id, account, reference, sent_at, login) "
            f"ON CONFLICT (order_id, reference, account) DO UPDATE SET number = DEFAULT, sent_at = EXCLUDED.sent_at, "
            f"login = EXCLUDED.login, touched = d.touched + CASE WHEN {moved} THEN 1 ELSE 0 END "
            "RETURNING order_id::text AS id, touched",
            *(list(column) for column in zip(*rows, strict=True)),
        )
        return [row["id"] for row in found if row["touched"] == TOUCHED]

    def namesakes_sql(self, select: str) -> str:
        """SQL of other orders of the shop's table that were sent under one of the references in ``$1``, save those in ``$2``."""
        t = self._orders
        return (
            f"{select} WHERE o.{t['provider_referans'].sql} = ANY($1::text[]{t['provider_referans'].cast}[]) "
            f"AND o.{t['id'].sql} <> ALL($2::text[]{t['id'].cast}[]) AND o.{t['sent_at'].sql} IS NOT NULL "
            f"AND o.{t['external_status'].sql}::text IS DISTINCT FROM {literal(NEVER_SENT)}"
        )

    async def standing(self, connection: Connection, orders: Sequence[tuple[str, str, str]]) -> dict[str, Standing]:
        """Return what is noted of dispatches, each (order, account, reference); nothing of one that is not noted."""
        logins = [_SEPARATOR.join(self._logins.of(account)) for _, account, _ in orders]
        rows = await connection.fetch(
            "SELECT d.order_id::text AS id, extract(epoch FROM d.found_at)::float8 AS found_at, d.touched, "
            "d.meant_by IS NOT NULL AS meant, extract(epoch FROM d.first_odd_at)::float8 AS odd_at, ARRAY(SELECT t.order_id::text "
            f"FROM {self._table} t WHERE t.reference = d.reference AND t.order_id <> d.order_id "
            f"AND t.login = ANY(string_to_array(u.logins, {_chr()}))) AS twins "
            "FROM unnest($1::text[], $2::text[], $3::text[], $4::text[]) AS u(id, account, reference, logins) "
            f"JOIN {self._table} d ON d.order_id = u.id{self._orders['id'].cast} AND d.account = u.account "
            "AND d.reference = u.reference",
            *(list(column) for column in zip(*orders, strict=True)),
            logins,
        )
        return {
            row["id"]: Standing(
                row["found_at"], row["touched"], row["meant"], tuple(sorted(set(row["twins"]))), row["odd_at"]
            )
            for row in rows
        }

    async def mark(self, connection: Connection, findings: Sequence[tuple[Finding, bool]]) -> None:
        """Note since when answers about dispatches are understood, or where True stands beside them, since when they are not."""
        rows = [
            (
                f.order.id,
                f.account or account_of(f.order),
                f.order.referans.strip(),
                f.seen_at,
                f.odd_since if is_odd else None,
            )
            for f, is_odd in findings
        ]
        await connection.execute(
            f"UPDATE {self._table} AS d SET "
            "first_understood_at = COALESCE(d.first_understood_at, CASE WHEN u.odd_at IS NULL THEN to_timestamp(u.seen_at) END), "
            "first_odd_at = CASE WHEN u.odd_at IS NOT NULL THEN COALESCE(d.first_odd_at, to_timestamp(u.odd_at)) END "
            "FROM unnest($1::text[], $2::text[], $3::text[], $4::float8[], $5::float8[]) "
            "AS u(id, account, reference, seen_at, odd_at) "
            f"WHERE d.order_id = u.id{self._orders['id'].cast} AND d.account = u.account AND d.reference = u.reference",
            *(list(column) for column in zip(*rows, strict=True)),
        )

    async def twins(self, connection: Connection, reference: str, ids: Sequence[str]) -> list[Twin]:
        """Return how other orders with the same reference are; one whose row is deleted has ended."""
        t = self._orders
        rows = await connection.fetch(
            f"SELECT u.id, o.{t['id'].sql} IS NOT NULL AND o.{t['external_status'].compared} "
            f"IN ({literals(open_statuses(t, self._layout))}) AS is_open, {t.epoch('sent_at', 'o')} AS sent_at, "
            f"{root_sql(t, 'o')} AS root, EXISTS (SELECT FROM {self._table} d WHERE d.order_id = u.id{t['id'].cast} "
            "AND d.reference = $2 AND d.meant_by IS NOT NULL) AS meant "
            f"FROM unnest($1::text[]) AS u(id) LEFT JOIN {t.sql} o ON o.{t['id'].sql} = u.id{t['id'].cast} ORDER BY 1",
            list(ids),
            reference,
        )
        return [Twin(r["id"], bool(r["is_open"]), r["sent_at"], r["root"] or r["id"], r["meant"]) for r in rows]

    async def mean(self, connection: Connection, order_id: str, by: str) -> bool:
        """Note that a person says an order's reference is its own, whoever else has it; return whether it is noted at all."""
        done = await connection.execute(
            f"UPDATE {self._table} SET meant_by = $2 WHERE number = (SELECT max(number) FROM {self._table} "
            f"WHERE order_id = $1::text{self._orders['id'].cast})",
            order_id,
            by,
        )
        return not str(done).endswith(" 0")


def account_of(order: Order) -> str:
    """Return the key of the account that took an order."""
    return order.integration or CONFIGURED


def root_sql(table: Table, alias: str) -> str:
    """SQL of the order that a chain of orders began with, an order's own id where it is in none: relatives are one owner."""
    own = f"{alias}.{table['id'].sql}::text"
    root = table.get("root_order_id")
    return own if root is None else f"COALESCE({alias}.{root.sql}::text, {own})"


def _chr() -> str:
    return "chr(31)"
