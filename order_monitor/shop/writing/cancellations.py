"""Cancellations that wait for a second answer: stored in the reviews table, and believed there.

The first answer "cancelled" opens a row, under the lock of the order's own row. A later one, of any
process, is believed if that row is still open and the wait is over; any other answer closes it. So
every process decides by the same row, and a restart or another process that asks changes nothing.

Example, with a wait of 60 s: the daemon reads "cancelled" at 0 s, and the row opens. At 20 s a
person's ``ask`` reads "in process", which closes it. At 70 s the daemon reads "cancelled" again:
there is no row, so the wait begins at 70 s.

The rows are not for a person: `order_monitor.shop.reviews.Reviews` neither counts nor lists them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final, NamedTuple

from order_monitor.core.answer import Cancelled
from order_monitor.core.check_result import CheckResult, WriteResult, WriteStatus
from order_monitor.core.decision import Rules
from order_monitor.shop.database import Connection
from order_monitor.shop.reviews import UNCONFIRMED, Reviews
from order_monitor.shop.schema.columns import Table, literal
from order_monitor.shop.schema.table_config import dispatches_of

SHOWN: Final = 10_000
"""Maximum number of orders with such a cancellation read at a time, oldest first."""

_LATER: Final = 1.0
"""Seconds by which an answer may seem older than the first one, since processes estimate the
database's time.
"""


class Unconfirmed(NamedTuple):
    """An order whose cancellation waits ``since`` then (epoch seconds)."""

    order_id: str
    since: float


@dataclass(frozen=True, slots=True)
class Cancellations:
    """The rows about cancellations, in the transaction that writes."""

    table: Table
    rules: Rules

    @property
    def is_on(self) -> bool:
        """Whether the settings demand a second answer."""
        return self.rules.confirm_cancelled > 0

    @property
    def _reviews(self) -> Reviews:
        return Reviews(self.table.schema)

    async def hold(
        self, connection: Connection, results: Sequence[WriteResult], resent: Mapping[str, float]
    ) -> list[WriteResult]:
        """Return the results, with cancellations that wait for a second answer marked so. The
        orders' rows must be locked.

        ``resent`` are the orders that were sent again under the same reference, and when (epoch
        seconds). What was answered before that, or about another dispatch, says nothing.
        """
        asked = [r for r in results if self.is_on and _ends_by_cancellation(r)]
        if not asked:
            return list(results)
        since, past = await self._since(connection, [r.finding.order.id for r in asked])
        fresh: dict[str, CheckResult] = {}
        waiting: dict[str, WriteResult] = {}
        for result in asked:
            finding, order_id = result.finding, result.finding.order.id
            first = since.get(order_id)
            first = None if order_id in past else first
            if first is None or not _counts(first, finding, resent.get(order_id)):
                fresh[order_id], first = finding, finding.seen_at
            rest = self.rules.confirm_cancelled - finding.age_since(first)
            if rest > 0:
                again_at = finding.seen_at + min(rest, self.rules.confirm_cancelled)
                waiting[order_id] = replace(
                    result,
                    fate=WriteStatus.UNCONFIRMED,
                    write=None,
                    stuck=None,
                    again_at=again_at,
                )
        stale = [(order_id, UNCONFIRMED) for order_id in fresh if order_id in since]
        await self._reviews.mend(connection, self.table, stale, "begun again")
        await self._store(connection, fresh)
        return [waiting.get(r.finding.order.id, r) for r in results]

    async def waiting(self, connection: Connection) -> list[Unconfirmed]:
        """Return the orders whose cancellation waits, at most `SHOWN`, oldest first."""
        rows = await connection.fetch(f"{self._waiting_sql} ORDER BY w.id LIMIT {SHOWN}")
        return [Unconfirmed(row["id"], row["since"]) for row in rows]

    async def _since(
        self, connection: Connection, ids: Sequence[str]
    ) -> tuple[dict[str, float], set[str]]:
        """Return since when cancellations of these orders wait (epoch seconds), and those that are
        about a previous dispatch.
        """
        among = f"w.order_id = ANY($1::text[]{self.table['id'].cast}[])"
        rows = await connection.fetch(f"{self._waiting_sql} AND {among}", list(ids))
        return {row["id"]: row["since"] for row in rows}, {
            row["id"] for row in rows if row["is_past"]
        }

    @property
    def _waiting_sql(self) -> str:
        return (
            "SELECT w.order_id::text AS id, extract(epoch FROM w.opened_at)::float8 AS since, "
            f"EXISTS (SELECT FROM {dispatches_of(self.table.schema)} d WHERE d.order_id = w.order_id "
            "HAVING count(*) > 1 AND max(d.found_at) > w.opened_at) AS is_past "
            f"FROM {self._reviews.sql} w WHERE w.closed_at IS NULL AND w.kind = {literal(UNCONFIRMED)}"
        )

    async def _store(self, connection: Connection, fresh: Mapping[str, CheckResult]) -> None:
        if not fresh:
            return
        await connection.execute(
            f"INSERT INTO {self._reviews.sql} (order_id, kind, account, opened_at) "
            f"SELECT u.id{self.table['id'].cast}, {literal(UNCONFIRMED)}, u.account, to_timestamp(u.seen_at) "
            "FROM unnest($1::text[], $2::text[], $3::float8[]) AS u(id, account, seen_at) ON CONFLICT DO NOTHING",
            list(fresh),
            [finding.account for finding in fresh.values()],
            [finding.seen_at for finding in fresh.values()],
        )


def _ends_by_cancellation(result: WriteResult) -> bool:
    """Whether a provider's "cancelled" would end the order, or concern a person."""
    finding = result.finding
    return (
        result.fate in (WriteStatus.WRITTEN, WriteStatus.STUCK)
        and isinstance(finding.answer, Cancelled)
        and not (finding.by_person or finding.child or finding.order.awaits_pin)
    )


def _counts(first: float, finding: CheckResult, resent_at: float | None) -> bool:
    """Whether a stored cancellation is the first of two: it is about the same dispatch, and the
    process that has read this one has had no other answer since.
    """
    is_before = resent_at is not None and first < resent_at <= finding.seen_at
    is_from_the_future = first > finding.seen_at + _LATER
    was_otherwise = finding.other_at is not None and finding.other_at > first
    return not (is_before or is_from_the_future or was_otherwise)
