"""Which dealer login each account uses, now and recently: codes and references are kept unique per
login.

A login is stored as a keyed digest, so all processes of a shop use the same name for it. A login
that an account has left still counts for `KEPT_DAYS`: a panel that moved to another address keeps
its codes and references.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from order_monitor.core.login import Credentials
from order_monitor.core.order import CONFIGURED
from order_monitor.shop.database import Connection
from order_monitor.shop.schema.table_config import settings_of

KEPT_DAYS: Final = 90
_NAME: Final = "login "
_AGAIN: Final = "1 day"
_SEPARATOR: Final = "\x1f"


class Logins:
    """The logins of one shop's accounts, as far as they are recorded."""

    def __init__(self, schema: str, key: bytes) -> None:
        """Name logins by digests with ``key``."""
        self._settings = settings_of(schema)
        self._key = key
        self._current: dict[str, str] = {}
        self._former: dict[str, tuple[str, ...]] = {}

    def of(self, account: str) -> tuple[str, ...]:
        """Return the login of an account, followed by its former ones.

        An account without a record is its own login. If accounts come from the shop's tables, an
        order without a known account may belong to any of them.
        """
        current = self._current.get(account)
        former = self._former.get(account, ())
        if current is None and account == CONFIGURED and self._current:
            return tuple(dict.fromkeys((*former, *self._current.values())))
        if current is None:
            return former or (f"account {account}",)
        return (current, *(login for login in former if login != current))

    def accounts_of(self, login: str) -> list[str]:
        """Return the accounts that use a login now, and the removed ones that used it last."""
        known = {
            account for account in (*self._current, *self._former) if self.of(account)[0] == login
        }
        return sorted(known) or [login.removeprefix("account ")]

    def is_known(self, account: str) -> bool:
        """Whether the login of an account is recorded."""
        return account in self._current

    async def note(self, connection: Connection, accounts: Mapping[str, Credentials]) -> None:
        """Record the current login of each account, and read its former ones."""
        current = {
            account: credentials.login(self._key) for account, credentials in accounts.items()
        }
        names = [f"{_NAME}{account}{_SEPARATOR}{login}" for account, login in current.items()]
        await connection.execute(
            f"INSERT INTO {self._settings} AS k (name, value) SELECT n, '' FROM unnest($1::text[]) AS n WHERE NOT EXISTS "
            f"(SELECT FROM {self._settings} s WHERE s.name = n AND s.stored_at > now() - interval '{_AGAIN}') "
            "ORDER BY n ON CONFLICT (name) DO UPDATE SET stored_at = now()",
            names,
        )
        rows = await connection.fetch(
            f"SELECT name FROM {self._settings} WHERE name LIKE '{_NAME}%' "
            f"AND stored_at > now() - interval '{KEPT_DAYS} days' ORDER BY stored_at DESC, name"
        )
        former: dict[str, tuple[str, ...]] = {}
        for row in rows:
            account, _, login = row["name"].removeprefix(_NAME).partition(_SEPARATOR)
            former[account] = (*former.get(account, ()), login)
        self._current, self._former = current, former
