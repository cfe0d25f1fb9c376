"""The accounts that people have paused, in the shop's database."""

from __future__ import annotations

from collections.abc import Sequence

from order_monitor.core.gate import Pause
from order_monitor.shop.columns import quoted
from order_monitor.shop.database import Connection
from order_monitor.shop.layout import PAUSES


class Pauses:
    """The table of paused accounts."""

    def __init__(self, schema: str) -> None:
        """Work on the table in ``schema``."""
        self._table = f"{quoted(schema)}.{quoted(PAUSES)}"

    async def read(self, connection: Connection) -> dict[str, Pause]:
        """Return the pauses in force."""
        rows = await connection.fetch(
            "SELECT account, reason, paused_by, extract(epoch FROM paused_at)::float8 AS since, "
            f"extract(epoch FROM until)::float8 AS until FROM {self._table} WHERE until IS NULL OR until > clock_timestamp()"
        )
        return {r["account"]: Pause(r["account"], r["reason"], r["paused_by"], r["since"], r["until"]) for r in rows}

    async def pause(self, connection: Connection, account: str, reason: str, by: str, seconds: float | None) -> None:
        """Pause an account, or pause it anew with another reason and end."""
        await connection.execute(
            f"INSERT INTO {self._table} AS p (account, reason, paused_by, until) "
            "VALUES ($1, $2, $3, clock_timestamp() + make_interval(secs => $4)) ON CONFLICT (account) DO UPDATE "
            "SET reason = EXCLUDED.reason, paused_by = EXCLUDED.paused_by, until = EXCLUDED.until, paused_at = now()",
            account,
            reason,
            by,
            seconds,
        )

    async def resume(self, connection: Connection, accounts: Sequence[str]) -> bool:
        """End the pauses of these names; return whether there was one."""
        done = await connection.execute(f"DELETE FROM {self._table} WHERE account = ANY($1::text[])", list(accounts))
        return not str(done).endswith(" 0")
