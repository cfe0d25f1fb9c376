"""Cancellations that wait for a second answer: stored in the reviews table, and believed there.

The first answer "cancelled" opens a row, under the lock of the order's own row. A later one, of any
process, is believed if that row is still open and the wait is over; any other answer closes it. So
every process decides by the same row, and a restart or another process that asks changes nothing.

Example, with a wait of 60 s: the daemon reads "cancelled" at 0 s, and the row opens. At 20 s a
person's ``ask`` reads "in process", which closes it. At 70 s the daemon reads "cancelled" again:
there is no row, so the wait begins at 70 s.

A row is dated when it is written, not when its answer was read: an answer whose write was delayed
would otherwise count from before another one that had no row to close.

The rows are not for a person: `order_monitor.shop.reviews.Reviews` neither counts nor lists them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

from order_monitor.core.answer import Cancelled
from order_monitor.core.check_result import CheckResult, WriteResult, WriteStatus
from order_monitor.core.confirmation import Unconfirmed, confirmation
from order_monitor.core.decision import Rules
from order_monitor.shop.database import Connection
from order_monitor.shop.reviews import UNCONFIRMED, Reviews
from order_monitor.shop.schema.columns import Table, literal

SHOWN: Final = 10_000
"""Maximum number of orders with such a cancellation read at a time, oldest first."""


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
        seconds): what was answered before says nothing about the order.
        """
        asked = [r for r in results if self.is_on and needs_confirmation(r)]
        if not asked:
            return list(results)
        stored = await self.of(connection, [r.order_id for r in asked])
        fresh: dict[str, tuple[CheckResult, float]] = {}
        waiting: dict[str, WriteResult] = {}
        for result in asked:
            finding, order_id = result.finding, result.order_id
            found = confirmation(
                stored.get(order_id), finding, self.rules.confirm_cancelled, resent.get(order_id)
            )
            if found.since is not None:
                fresh[order_id] = finding, found.since
            if found.again_at is not None:
                waiting[order_id] = replace(
                    result,
                    fate=WriteStatus.UNCONFIRMED,
                    write=None,
                    stuck=None,
                    again_at=found.again_at,
                    is_first=found.since is not None,
                )
        stale = [(order_id, UNCONFIRMED) for order_id in fresh if order_id in stored]
        await self._reviews.mend(connection, self.table, stale, "begun again")
        await self._store(connection, fresh)
        return [waiting.get(r.order_id, r) for r in results]

    async def waiting(self, connection: Connection) -> list[Unconfirmed]:
        """Return the orders whose cancellation waits, at most `SHOWN`, oldest first."""
        rows = await connection.fetch(f"{self._waiting_sql} ORDER BY w.id LIMIT {SHOWN}")
        return [Unconfirmed(*row.values()) for row in rows]

    async def of(self, connection: Connection, ids: Sequence[str]) -> dict[str, Unconfirmed]:
        """Return those of these orders whose cancellation waits, by their ids."""
        among = f"w.order_id = ANY($1::text[]{self.table['id'].cast}[])"
        rows = await connection.fetch(f"{self._waiting_sql} AND {among}", list(ids))
        return {row["id"]: Unconfirmed(*row.values()) for row in rows}

    @property
    def _waiting_sql(self) -> str:
        """SQL for the open rows. ``detail`` is the reference."""
        return (
            "SELECT w.order_id::text AS id, extract(epoch FROM w.opened_at)::float8 AS since, "
            "COALESCE(w.account, '') AS account, COALESCE(w.detail, '') AS reference "
            f"FROM {self._reviews.sql} w WHERE w.closed_at IS NULL AND w.kind = {literal(UNCONFIRMED)}"
        )

    async def _store(
        self, connection: Connection, fresh: Mapping[str, tuple[CheckResult, float]]
    ) -> None:
        if not fresh:
            return
        await connection.execute(
            f"INSERT INTO {self._reviews.sql} (order_id, kind, account, detail, opened_at) "
            f"SELECT u.id{self.table['id'].cast}, {literal(UNCONFIRMED)}, u.account, u.reference, to_timestamp(u.since) "
            "FROM unnest($1::text[], $2::text[], $3::text[], $4::float8[]) AS u(id, account, reference, since) "
            "ON CONFLICT DO NOTHING",
            list(fresh),
            [finding.account for finding, _ in fresh.values()],
            [finding.order.reference.strip() for finding, _ in fresh.values()],
            [since for _, since in fresh.values()],
        )


def needs_confirmation(result: WriteResult) -> bool:
    """Whether a provider's "cancelled" would end the order, or concern a person."""
    finding = result.finding
    return (
        result.fate in (WriteStatus.WRITTEN, WriteStatus.STUCK)
        and isinstance(finding.answer, Cancelled)
        and not (finding.by_person or finding.child)
    )
