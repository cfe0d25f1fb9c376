"""The job of the PostgreSQL queues: read the order's row, ask, and write the end."""

from __future__ import annotations

from typing import Any, Final

import asyncpg

from benchmarks.compare.contestants.client import client
from benchmarks.compare.load import OPEN, READ, Load
from order_monitor.core.answer import Completed

WRITE: Final = (
    "UPDATE product_orders SET external_status = 'completed', pin_code = $2, completed_at = now() "
    "WHERE id = $1 AND external_status = ANY($3)"
)
CONNECTIONS: Final = 4
"""The same number as order-monitor keeps."""


class StillOpenError(Exception):
    """The order is still open and must be asked about again."""


class Job:
    """Checks one order per call."""

    def __init__(self, load: Load, pool: asyncpg.Pool[Any]) -> None:
        """Ask at the address in ``load``, and write through ``pool``."""
        self._client = client(load.url)
        self._pool = pool

    async def check(self, order_id: str) -> None:
        """Check one order.

        Raises:
            StillOpenError: the order has not ended yet.
        """
        row = await self._pool.fetchrow(READ + "$1", order_id)
        if row is None or row["external_status"] not in OPEN:
            return
        answer = (await self._client.ask(row["provider_referans"])).answer
        if not isinstance(answer, Completed) or answer.pin is None:
            raise StillOpenError
        await self._pool.execute(WRITE, order_id, answer.pin.reveal(), OPEN)


def pool_of(load: Load) -> asyncpg.Pool[Any]:
    """Return the pool for the orders, not opened yet."""
    return asyncpg.create_pool(load.dsn, min_size=1, max_size=CONNECTIONS, reset=_kept)


async def _kept(connection: object) -> None:
    """Do not reset a connection: the pool's own reset costs four statements each time, and nothing
    here needs it.
    """
