"""Pauses that people have set, in the shop's database: accounts not asked, or ends not written."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from order_monitor.core.gate import Pause
from order_monitor.shop.database import Connection
from order_monitor.shop.schema.columns import qualified
from order_monitor.shop.schema.table_config import PAUSES

EVERY_ACCOUNT: Final = "*"
_ENDS: Final = "ends "
"""Prefix of the account's key if only its ends are held: so both can be in force, and older
versions do not take it for an account.
"""


class Pauses:
    """The table of paused accounts."""

    def __init__(self, schema: str) -> None:
        """Work on the table in ``schema``."""
        self._table = qualified(schema, PAUSES)

    async def read(self, connection: Connection) -> dict[str, Pause]:
        """Return the pauses in force."""
        rows = await connection.fetch(
            "SELECT account, reason, paused_by, extract(epoch FROM paused_at)::float8 AS since, "
            f"extract(epoch FROM until)::float8 AS until FROM {self._table} WHERE until IS NULL OR until > clock_timestamp()"
        )
        return {
            r["account"]: Pause(r["account"], r["reason"], r["paused_by"], r["since"], r["until"])
            for r in rows
        }

    async def pause(
        self, connection: Connection, account: str, reason: str, by: str, seconds: float | None
    ) -> None:
        """Pause an account, or change the reason and end of its pause."""
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
        """End the pauses with these names; return whether there were any."""
        done = await connection.execute(
            f"DELETE FROM {self._table} WHERE account = ANY($1::text[])", list(accounts)
        )
        return not str(done).endswith(" 0")


def ends_of(account: str) -> str:
    """Return the pause name for an account's ends; for those of all, pass `EVERY_ACCOUNT`."""
    return f"{_ENDS}{account}"


def is_of_ends(name: str) -> bool:
    """Whether a pause concerns ends."""
    return name.startswith(_ENDS)


def key_of(name: str) -> str:
    """Return the key of the account that a pause is of, or `EVERY_ACCOUNT`."""
    return name.removeprefix(_ENDS)


def pause_of_ends(pauses: Mapping[str, Pause], account: str) -> Pause | None:
    """Return the pause that holds an account's ends, None if there is none."""
    return pauses.get(ends_of(account)) or pauses.get(ends_of(EVERY_ACCOUNT))


def only_ends(pauses: Mapping[str, Pause]) -> dict[str, Pause]:
    """Return the accounts whose ends are held, without those that are not asked."""
    return {key.removeprefix(_ENDS): pause for key, pause in pauses.items() if is_of_ends(key)}
