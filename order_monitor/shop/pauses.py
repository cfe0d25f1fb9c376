"""The accounts that people have paused, in the shop's database: asking them, or writing their ends."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from order_monitor.core.gate import Pause
from order_monitor.shop.columns import quoted
from order_monitor.shop.database import Connection
from order_monitor.shop.layout import PAUSES

EVERY_ACCOUNT: Final = "*"
_ENDS: Final = "ends "
"""Before the account's key where only its ends are held: so both can be in force, and older versions see no account in it."""


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


def ends_of(account: str) -> str:
    """Return the name under which the ends of an account are held, or of all with `EVERY_ACCOUNT`."""
    return f"{_ENDS}{account}"


def is_of_ends(name: str) -> bool:
    """Whether a pause is one of ends."""
    return name.startswith(_ENDS)


def pause_of_ends(pauses: Mapping[str, Pause], account: str) -> Pause | None:
    """Return what holds an account's ends, None where nothing does."""
    return pauses.get(ends_of(account)) or pauses.get(ends_of(EVERY_ACCOUNT))


def only_ends(pauses: Mapping[str, Pause]) -> dict[str, Pause]:
    """Return the accounts whose ends are held, without those that are not asked."""
    return {key.removeprefix(_ENDS): pause for key, pause in pauses.items() if is_of_ends(key)}
