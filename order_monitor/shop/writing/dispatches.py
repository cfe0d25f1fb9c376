"""Each order as it was sent: to which account, under which reference, and when.

A dispatch is recorded before the first question about it, and determines what is asked and
believed. An answer is valid for the dispatch it was asked for, not for a later one: the locked row
is compared with the dispatch before anything is written.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

import asyncpg

from order_monitor.core.check_result import CheckResult
from order_monitor.core.login import INTERNAL
from order_monitor.core.order import CONFIGURED, NEVER_SENT, SAME_TIME, Order, Route
from order_monitor.shop.accounts.logins import Logins
from order_monitor.shop.accounts.tables import is_blank_sql
from order_monitor.shop.database import Connection
from order_monitor.shop.schema.columns import Table, literal
from order_monitor.shop.schema.table_config import (
    TableConfig,
    dispatches_of,
    literals,
    open_statuses,
)

LockedRow: TypeAlias = asyncpg.Record | Mapping[str, Any]
"""A row of the orders table as it was locked, or as it is taken to be."""

TOUCHED: Final = 5
"""How often the shop may change a dispatch's ``sent_at`` before its age counts from when it was
found.
"""

_SEPARATOR: Final = "\x1f"
_UUID: Final = "^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$"


@dataclass(frozen=True, slots=True)
class Standing:
    """What is recorded about a dispatch.

    ``found_at`` is epoch seconds; ``touched`` counts changes of its ``sent_at``. ``meant``: a
    person has said that the reference belongs to this order. ``twins`` are other orders of the same
    login that were sent under the same reference. ``odd_at``: since when no answer about it is
    understood, through its own fault (epoch seconds).
    """

    found_at: float
    touched: int
    meant: bool
    twins: tuple[str, ...] = ()
    odd_at: float | None = None


@dataclass(frozen=True, slots=True)
class Twin:
    """Another order with the reference, ``root`` its chain's first; times are epoch seconds."""

    id: str
    is_open: bool
    sent_at: float | None
    root: str
    meant: bool


class Dispatches:
    """The dispatches table that belongs to the orders ``table``."""

    def __init__(self, table: Table, table_config: TableConfig, logins: Logins) -> None:
        """Look for twins among the orders of one login, as ``logins`` knows them."""
        self._orders = table
        self._table_config = table_config
        self._logins = logins
        self._table = dispatches_of(table_config.schema)

    async def note(self, connection: Connection, orders: Sequence[Order]) -> list[str]:
        """Record dispatches before they are asked about; return orders touched `TOUCHED` times."""
        # Two rows of the shop's table may have one id, and this INSERT takes no key twice.
        sent = {(o.id, account_of(o), o.reference.strip()): o.sent_at for o in orders}
        rows = [(*key, sent[key], self._logins.of(key[1])[0]) for key in sorted(sent)]
        if not rows:
            return []
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

    def same_reference_sql(self, select: str) -> str | None:
        """SQL for other orders of the shop's table that are asked about by one of the references in
        ``$1``, except those in ``$2``.

        None where no index finds any.
        """
        t = self._orders
        reference, external = t["provider_referans"], t.get("external_order_id")
        ways: list[str] = []
        if t.is_reference_indexed:
            ways.append(f"o.{reference.sql} = ANY($1::text[]{reference.cast}[])")
        if external is not None and external.is_text and t.is_external_indexed:
            lacks = is_blank_sql(f"o.{reference.sql}::text")
            ways.append(f"(o.{external.sql} = ANY($1::text[]{external.cast}[]) AND {lacks})")
        if t["id"].data_type == "uuid":
            # An order without a reference is asked about by its own id.
            ids = f"SELECT CASE WHEN r ~* {literal(_UUID)} THEN r::uuid END FROM unnest($1::text[]) AS r"
            ways.append(f"o.{t['id'].sql} = ANY(ARRAY({ids}))")
        if not ways:
            return None
        return (
            f"{select} WHERE ({' OR '.join(ways)}) "
            f"AND o.{t['id'].sql} <> ALL($2::text[]{t['id'].cast}[]) AND o.{t['sent_at'].sql} IS NOT NULL "
            f"AND o.{t['external_status'].sql}::text IS DISTINCT FROM {literal(NEVER_SENT)}"
        )

    async def standing(
        self, connection: Connection, orders: Sequence[tuple[str, str, str]]
    ) -> dict[str, Standing]:
        """Return what is recorded of dispatches, each (order, account, reference), if anything."""
        logins = [_SEPARATOR.join(self._logins.of(account)) for _, account, _ in orders]
        rows = await connection.fetch(
            "SELECT d.order_id::text AS id, extract(epoch FROM d.found_at)::float8 AS found_at, d.touched, "
            "d.meant_by IS NOT NULL AS meant, extract(epoch FROM d.first_odd_at)::float8 AS odd_at, ARRAY(SELECT t.order_id::text "
            f"FROM {self._table} t WHERE t.reference = d.reference AND t.order_id <> d.order_id "
            f"AND t.login = ANY(string_to_array(u.logins, chr(31)))) AS twins "
            "FROM unnest($1::text[], $2::text[], $3::text[], $4::text[]) AS u(id, account, reference, logins) "
            f"JOIN {self._table} d ON d.order_id = u.id{self._orders['id'].cast} AND d.account = u.account "
            "AND d.reference = u.reference",
            *(list(column) for column in zip(*orders, strict=True)),
            logins,
        )
        return {
            row["id"]: Standing(
                row["found_at"],
                row["touched"],
                row["meant"],
                tuple(sorted(set(row["twins"]))),
                row["odd_at"],
            )
            for row in rows
        }

    async def mark(
        self, connection: Connection, findings: Sequence[tuple[CheckResult, bool]]
    ) -> None:
        """Record since when answers are understood or, where the flag is set, are not."""
        rows = [
            (
                f.order.id,
                f.account or account_of(f.order),
                f.order.reference.strip(),
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
        """Return the state of a reference's other orders; one whose row is deleted has ended."""
        t = self._orders
        rows = await connection.fetch(
            f"SELECT u.id, o.{t['id'].sql} IS NOT NULL AND o.{t['external_status'].compared} "
            f"IN ({literals(open_statuses(t, self._table_config))}) AS is_open, {t.epoch('sent_at', 'o')} AS sent_at, "
            f"{root_sql(t, 'o')} AS root, EXISTS (SELECT FROM {self._table} d WHERE d.order_id = u.id{t['id'].cast} "
            "AND d.reference = $2 AND d.meant_by IS NOT NULL) AS meant "
            f"FROM unnest($1::text[]) AS u(id) LEFT JOIN {t.sql} o ON o.{t['id'].sql} = u.id{t['id'].cast} ORDER BY 1",
            list(ids),
            reference,
        )
        return [
            Twin(r["id"], bool(r["is_open"]), r["sent_at"], r["root"] or r["id"], r["meant"])
            for r in rows
        ]

    async def mean(self, connection: Connection, order_id: str, by: str) -> bool:
        """Record that, according to a person, an order's reference is its own, even if others have
        it too.

        Return whether the order has a dispatch record at all.
        """
        done = await connection.execute(
            f"UPDATE {self._table} SET meant_by = $2 WHERE number = (SELECT max(number) FROM {self._table} "
            f"WHERE order_id = $1::text{self._orders['id'].cast})",
            order_id,
            by,
        )
        return not str(done).endswith(" 0")


def account_of(order: Order) -> str:
    """Return the key of the account that took an order, also of another tenant of the shop."""
    if order.integration is None and order.route == Route.INTERNAL:
        return INTERNAL
    return order.integration or CONFIGURED


def is_sent_again(row: LockedRow, reference: str, account: str | None) -> bool:
    """Whether the shop has sent an order again since it was sent under ``reference`` to ``account``.

    None: it makes no difference to which account.
    """
    if (row["reference"] or "").strip() != reference.strip():
        return True
    return account is not None and row["own"] is not None and row["own"] != account


def root_sql(table: Table, alias: str) -> str:
    """SQL for the first order of an order's chain, or its own id: a chain counts as one owner."""
    own = f"{alias}.{table['id'].sql}::text"
    root = table.get("root_order_id")
    # An empty text names no order: it would make one chain of all that have it.
    return own if root is None else f"COALESCE(NULLIF(btrim({alias}.{root.sql}::text), ''), {own})"
