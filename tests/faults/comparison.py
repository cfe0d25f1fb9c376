"""The final check of every fault: each row and its events, compared with the provider's truth."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

import asyncpg

from order_monitor.core.answer import AboutOrder, Completed

MOST_TOLD = 10


@dataclass
class Verdict:
    """The comparison of all rows."""

    rows: int = 0
    ends: Counter[str] = field(default_factory=Counter)
    """How many rows match the provider, by kind of end."""
    pins: int = 0
    """How many PINs were compared character by character."""
    wrong: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        """Return one line for the report."""
        ends = ", ".join(f"{count} {end}" for end, count in sorted(self.ends.items()))
        return f"{self.rows} rows: {ends}; {self.pins} PINs; {len(self.wrong)} differ"


async def compare(connection: asyncpg.Connection, truths: Mapping[str, AboutOrder]) -> Verdict:
    """Compare every row with ``truths`` (an order's id to its end): status, exact PIN, exactly one
    event that moves money.
    """
    rows = {
        row["id"]: (row["external_status"], row["pin_code"])
        for row in await connection.fetch(
            "SELECT id::text, external_status, pin_code FROM product_orders"
        )
    }
    moves: dict[str, list[str]] = {order_id: [] for order_id in rows}
    for event in await connection.fetch(
        "SELECT order_id::text AS id, outcome FROM order_monitor_events "
        "WHERE NOT repeat AND outcome IN ('completed', 'failed') ORDER BY id"
    ):
        moves.setdefault(event["id"], []).append(event["outcome"])
    verdict = Verdict(rows=len(rows))
    verdict.wrong += [f"{order_id} is nobody's" for order_id in rows.keys() ^ truths.keys()]
    verdict.wrong += [
        f"an event moves money for {order_id}, which is not there"
        for order_id in moves.keys() - rows.keys()
    ]
    for order_id, truth in truths.items():
        _judge(verdict, order_id, truth, rows.get(order_id), moves.get(order_id, []))
    return verdict


def _judge(
    verdict: Verdict,
    order_id: str,
    truth: AboutOrder,
    row: tuple[str, str | None] | None,
    moves: list[str],
) -> None:
    status = "completed" if isinstance(truth, Completed) else "failed"
    pin = truth.pin.reveal() if isinstance(truth, Completed) and truth.pin else None
    if row != (status, pin):
        verdict.wrong.append(f"{order_id} is {row}, the provider says {(status, pin)}")
    elif moves != [status]:
        verdict.wrong.append(f"{order_id} ended as {status}, and events move money for {moves}")
    else:
        verdict.ends[status] += 1
        verdict.pins += pin is not None


def assert_all_right(verdict: Verdict, *, at_least: int) -> None:
    """Fail unless every row is right, and there are enough rows to be meaningful."""
    assert verdict.wrong[:MOST_TOLD] == [], f"{verdict}"
    assert verdict.rows >= at_least, f"only {verdict}"
