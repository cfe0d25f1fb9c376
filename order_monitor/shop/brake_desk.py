"""What decides whether held ends are let through, read and noted for all processes; and a person's word that they are."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from order_monitor.core.brake import ASK_EVERY, Evidence
from order_monitor.shop.brake import Control, Held
from order_monitor.shop.catalogue import Catalogue
from order_monitor.shop.database import Connection, now_of


@dataclass(frozen=True, slots=True)
class Question:
    """What a login must be asked as a control, some in reserve too."""

    login: str
    controls: Sequence[Control]


class BrakeDesk:
    """The brake's part that is not in the transactions that write."""

    def __init__(self, catalogue: Catalogue) -> None:
        """Work on the tables that ``catalogue`` knows."""
        self._catalogue = catalogue

    async def understood(self, seen: Mapping[str, float]) -> None:
        """Note of accounts whose ends are held that an order was understood as waiting or completed, and when (epoch seconds).

        Raises:
            ShopError: the database could not be asked.
            SettingsError: the table is not as it must be.
        """
        brake = (await self._catalogue.complete()).ledger.brake
        async with self._catalogue.transaction() as connection:
            known = await brake.evidence(connection)
            latest: dict[str, float] = {}
            for account, at in seen.items():
                login = brake.login_of(account)
                latest[login] = max(at, latest.get(login, at))
            for login, at in sorted(latest.items()):
                before = known.get(login)
                if before is not None and before.understood_at <= before.tripped_at < at:
                    await brake.mark(connection, "understood", login, at)

    async def questions(self) -> list[Question]:
        """Return what must be asked as a control by now, of each login whose ends are held.

        Raises:
            ShopError: the database could not be asked.
            SettingsError: the table is not as it must be.
        """
        brake = (await self._catalogue.complete()).ledger.brake
        async with self._catalogue.transaction() as connection:
            held = [one for one in await brake.held(connection) if not one.is_released]
            known, now = await brake.evidence(connection), await now_of(connection)
            logins = sorted({brake.login_of(one.account) for one in held})
            due = [login for login in logins if now - known.get(login, Evidence()).control_at >= ASK_EVERY]
            return [Question(login, await brake.controls(connection, login)) for login in due]

    async def answered(self, login: str, verdict: str) -> None:
        """Note what the controls of a login said, just now.

        Raises:
            ShopError: the database could not be asked.
            SettingsError: the table is not as it must be.
        """
        brake = (await self._catalogue.complete()).ledger.brake
        async with self._catalogue.transaction() as connection:
            await brake.mark(connection, "control", login, await now_of(connection), verdict)

    async def held(self) -> list[Held]:
        """Return the orders whose ends are held.

        Raises:
            ShopError: the database could not be asked.
            SettingsError: the table is not as it must be.
        """
        brake = (await self._catalogue.complete()).ledger.brake
        async with self._catalogue.transaction() as connection:
            return await brake.held(connection)

    async def release(self, account: str, by: str) -> Mapping[str, int]:
        """Let through what is held of the login of ``account``; return how many orders of which accounts that is.

        Raises:
            ShopError: the database could not be asked.
            SettingsError: the table is not as it must be.
        """
        brake = (await self._catalogue.complete()).ledger.brake
        login = brake.login_of(account)
        async with self._catalogue.transaction() as connection:
            # Whoever is writing just now has done so before: what it holds is let through with the rest.
            await brake.lock(connection, [account])
            held = [one for one in await brake.held(connection) if brake.login_of(one.account) == login]
            now = await now_of(connection)
            if held:
                await brake.mark(connection, "released", login, now, by=by)
        return Counter(one.account for one in held)

    async def about(self, connection: Connection, account: str, since: float, now: float) -> list[str]:
        """Say what an order of ``account``, held ``since`` then, still lacks to be believed (epoch seconds)."""
        brake = self._catalogue.holdings.ledger.brake
        evidence = (await brake.evidence(connection)).get(brake.login_of(account), Evidence())
        return evidence.lacks(since, now, brake.rules.brake_hold)
