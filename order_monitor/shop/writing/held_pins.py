"""PINs that were read, but are neither in their order's row nor before a person yet.

While a person holds an account's ends, the database refuses the row, or another order has the same
reference, a PIN is read and not written: the order is asked again later, and the PIN written then.
But the order may end in another way first, by a person, by the shop, or by another answer, and is
then not asked again. So a row in the reviews table keeps which codes were read, and age does not
fail the order. Once the order has ended or was sent again, and a code is neither its own nor that
of another order with the reference, the row becomes a review.

Example: ends are held, and the provider says that order 7 is completed, with a PIN. A row
``pin_held`` opens. A person fails order 7. The row is closed, and a review ``pin_for_ended`` says
that the provider has sent a PIN. Had the person given it that PIN, nothing would be for review.

The rows are not for a person: `order_monitor.shop.reviews.Reviews` neither counts nor lists them.
Only keyed digests of codes are stored, as for codes that are in use.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import asyncpg

from order_monitor.core.check_result import WriteResult, WriteStatus
from order_monitor.core.decision import Rules, StuckReason
from order_monitor.core.pin import Pin, is_no_pin, read_pin
from order_monitor.shop.database import Connection
from order_monitor.shop.reviews import HELD_PIN, MENDED_BY, Reviews
from order_monitor.shop.schema.columns import literal
from order_monitor.shop.writing.dispatches import is_sent_again
from order_monitor.shop.writing.pins import Codes
from order_monitor.shop.writing.statements import Statements

AT_A_TIME: Final = 1000
"""Maximum number of rows examined at a time."""

_NO_CODE: Final = "-"
"""Stands for the digest of a PIN in which no code is recognised."""

_LONGEST: Final = 4000
_NOT_GIVEN: Final = "the provider has sent a PIN for it, which was not written"
_SILENT: Final = (
    StuckReason.REJECTED_BY_DATABASE,
    StuckReason.CHANGED_BY_TRIGGER,
    StuckReason.REFERENCE_TWICE,
)
"""Matters for a person that do not say that a PIN was read."""


@dataclass(frozen=True, slots=True)
class HeldPin:
    """What the row ``number`` says: which codes were read for an order, from where."""

    number: int
    order_id: str
    account: str
    reference: str
    codes: frozenset[str]
    since: float


@dataclass(frozen=True, slots=True)
class HeldPins:
    """The rows about PINs that were read and not written."""

    statements: Statements
    codes: Codes
    rules: Rules

    @property
    def _reviews(self) -> Reviews:
        return Reviews(self.statements.table.schema)

    @property
    def _cast(self) -> str:
        return self.statements.table["id"].cast

    async def note(self, connection: Connection, results: Sequence[WriteResult]) -> None:
        """Keep the PINs that were read and left for the next question. Their orders' rows must be
        locked.
        """
        left = [r for r in results if is_left(r)]
        if not left:
            return
        # A row may be about a dispatch that was sent before this one.
        await self.settle(connection, [r.order_id for r in left])
        await connection.execute(
            f"INSERT INTO {self._reviews.sql} AS w (order_id, kind, account, detail) "
            f"SELECT u.id{self._cast}, {literal(HELD_PIN)}, u.account, u.code || ' ' || u.reference "
            "FROM unnest($1::text[], $2::text[], $3::text[], $4::text[]) AS u(id, account, code, reference) ORDER BY u.id "
            "ON CONFLICT (order_id, kind) WHERE closed_at IS NULL DO UPDATE "
            "SET detail = split_part(EXCLUDED.detail, ' ', 1) || ',' || w.detail "
            "WHERE NOT split_part(EXCLUDED.detail, ' ', 1) = ANY(string_to_array(split_part(w.detail, ' ', 1), ',')) "
            f"AND length(w.detail) < {_LONGEST}",
            [r.order_id for r in left],
            [r.finding.account for r in left],
            await self._codes_read(connection, left),
            [r.finding.order.reference.strip() for r in left],
        )

    async def _codes_read(self, connection: Connection, left: Sequence[WriteResult]) -> list[str]:
        """Return the digest of each PIN. What the database has refused comes without one."""
        ids = [r.order_id for r in left if r.code is None]
        found = await connection.fetch(self.statements.read_sql(), ids) if ids else []
        words = {row["id"]: row["own_words"] or "" for row in found}
        codes = []
        for result in left:
            code, pin = result.code, result.finding.pin
            if code is None and pin is not None:
                code = self.codes.digest(pin, words.get(result.order_id, ""))
            codes.append(_NO_CODE if code is None else code.hex())
        return codes

    async def of(self, connection: Connection, ids: Sequence[str]) -> list[HeldPin]:
        """Return what is kept about these orders."""
        among = f"w.order_id = ANY($1::text[]{self._cast}[])"
        rows = await connection.fetch(f"{self._kept_sql} AND {among} ORDER BY w.id", list(ids))
        return [_held(row) for row in rows]

    @property
    def _kept_sql(self) -> str:
        return (
            "SELECT w.id AS number, w.order_id::text AS id, COALESCE(w.account, '') AS account, "
            "COALESCE(w.detail, '') AS detail, extract(epoch FROM w.opened_at)::float8 AS since "
            f"FROM {self._reviews.sql} w WHERE w.closed_at IS NULL AND w.kind = {literal(HELD_PIN)}"
        )

    async def settle_all(self, connection: Connection) -> None:
        """Do what `settle` does, for all orders."""
        sql, after = f"{self._kept_sql} AND w.id > $1 ORDER BY w.id LIMIT {AT_A_TIME}", 0
        while rows := await connection.fetch(sql, after):
            after = rows[-1]["number"]
            await self._settle(connection, [_held(row) for row in rows])

    async def settle(self, connection: Connection, ids: Sequence[str]) -> list[str]:
        """Close what is kept about those of these orders that have ended or were sent again.

        Return those that a person must look at now, because a PIN that was read is not theirs.
        """
        return await self._settle(connection, await self.of(connection, ids))

    async def _settle(self, connection: Connection, kept: Sequence[HeldPin]) -> list[str]:
        if not kept:
            return []
        found = [one.order_id for one in kept]
        rows = {row["id"]: row for row in await connection.fetch(self.statements.read_sql(), found)}
        over = {
            one.order_id: (one, kind)
            for one in kept
            if (kind := self._over(one, rows.get(one.order_id))) is not None
        }
        if not over:
            return []
        given = await self._given(connection, [one for one, _ in over.values()], rows)
        lost = {i: kind for i, (_, kind) in over.items() if i not in given}
        await self._close(connection, sorted(over.keys() - lost.keys()), "written after all", {})
        return await self._close(connection, sorted(lost), "for review", lost)

    async def has_code(self, connection: Connection, order_id: str, pin: Pin) -> bool:
        """Whether an order has the code of ``pin``, in its row or by a claim, or ``pin`` has none."""
        row = await connection.fetchrow(self.statements.read_sql(), [order_id])
        own_words = "" if row is None else row["own_words"] or ""
        digest = self.codes.digest(pin, own_words)
        if digest is None or (row is not None and digest.hex() in self._code_of(row)):
            return True
        claimed = await self.codes.claimed(connection, [order_id])
        return digest in claimed.get(order_id, ())

    def _over(self, one: HeldPin, row: asyncpg.Record | None) -> StuckReason | None:
        """Return the kind of review a PIN that is lost would be; None while it may be written."""
        is_open = row is not None and row["status"] in self.statements.open_statuses
        if row is None or not is_open or row["settled"]:
            return StuckReason.PIN_FOR_ENDED
        is_shops = self.statements.table_config.accounts_from_shop
        is_other = is_sent_again(row, one.reference, one.account if is_shops else None)
        return StuckReason.PIN_FOR_OTHER_DISPATCH if is_other else None

    async def _given(
        self,
        connection: Connection,
        kept: Sequence[HeldPin],
        rows: Mapping[str, asyncpg.Record],
    ) -> set[str]:
        """Return the orders all of whose codes are their own by now, in the row or claimed, or
        those of another order with the same reference.
        """
        under = await self.codes.claimed_under(connection, [one.reference for one in kept])
        claimed = await self.codes.claimed(connection, [one.order_id for one in kept])
        given = await self.codes.given(connection, [one.order_id for one in kept])
        found = set[str]()
        for one in kept:
            row = rows.get(one.order_id)
            digests = claimed.get(one.order_id, set()) | under.get(one.reference, set())
            own = {digest.hex() for digest in digests}
            if one.order_id in given or (row is not None and self._has_pin(row)):
                own.add(_NO_CODE)
            if row is not None:
                own |= self._code_of(row)
            if one.codes <= own:
                found.add(one.order_id)
        return found

    def _has_pin(self, row: asyncpg.Record) -> bool:
        return not is_no_pin(row["pin"], self.rules.no_pin)

    def _code_of(self, row: asyncpg.Record) -> set[str]:
        pin = read_pin(row["pin"] or "", self.rules.no_pin)
        digest = self.codes.digest(pin, row["own_words"] or "") if isinstance(pin, Pin) else None
        return set() if digest is None else {digest.hex()}

    async def _close(
        self, connection: Connection, ids: Sequence[str], how: str, kinds: Mapping[str, StuckReason]
    ) -> list[str]:
        """Close rows, and open a review of its kind for each that is named in ``kinds``.

        Return the orders whose row was closed here, and not by another process meanwhile.
        """
        if not ids:
            return []
        rows = await connection.fetch(
            f"WITH closed AS (UPDATE {self._reviews.sql} w SET closed_at = clock_timestamp(), "
            f"closed_by = {literal(MENDED_BY)}, resolution = $2 FROM unnest($1::text[], $3::text[]) AS u(id, kind) "
            f"WHERE w.closed_at IS NULL AND w.kind = {literal(HELD_PIN)} AND w.order_id = u.id{self._cast} "
            "RETURNING w.order_id, u.kind, w.account), "
            f"opened AS (INSERT INTO {self._reviews.sql} (order_id, kind, detail, account) "
            f"SELECT c.order_id, c.kind, {literal(_NOT_GIVEN)}, c.account FROM closed c WHERE c.kind IS NOT NULL "
            "ORDER BY 1, 2 ON CONFLICT DO NOTHING) "
            "SELECT order_id::text AS id FROM closed",
            list(ids),
            how,
            [str(kinds[i]) if i in kinds else None for i in ids],
        )
        return [row["id"] for row in rows]


def is_left(result: WriteResult) -> bool:
    """Whether a PIN was read, and neither written nor listed for a person as one."""
    finding = result.finding
    if finding.pin is None or finding.by_person or finding.child:
        return False
    if result.stuck in _SILENT:
        return not finding.order.awaits_pin
    is_held = result.fate in (WriteStatus.HELD, WriteStatus.RESENT)
    return is_held and (result.stuck or result.review) is None


def _held(row: asyncpg.Record) -> HeldPin:
    codes, _, reference = row["detail"].partition(" ")
    return HeldPin(
        row["number"],
        row["id"],
        row["account"],
        reference,
        frozenset(codes.split(",")),
        row["since"],
    )
