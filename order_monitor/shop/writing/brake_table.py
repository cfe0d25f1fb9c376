"""What decides whether held ends are released, for all processes; and release by a person."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from order_monitor.core.brake import ASK_EVERY, Evidence
from order_monitor.shop.database import Connection, now_of
from order_monitor.shop.money_settings import refuse_while_observed
from order_monitor.shop.schema.cache import SchemaCache
from order_monitor.shop.writing.brake import Control, Held


@dataclass(frozen=True, slots=True)
class Question:
    """The control orders to ask a login about, with some in reserve."""

    login: str
    controls: Sequence[Control]


class BrakeTable:
    """The part of the brake outside the writing transactions.

    Each method raises `ShopError` where the database cannot be asked, and `SettingsError` where the
    table is not as required.
    """

    def __init__(self, schema_cache: SchemaCache) -> None:
        """Work on the tables that ``schema_cache`` knows."""
        self._schema_cache = schema_cache

    async def understood(self, seen: Mapping[str, float]) -> None:
        """Record when accounts with held ends last had an order understood (epoch seconds)."""
        brake = (await self._schema_cache.complete()).row_writer.brake
        if not brake.is_on:
            return
        async with self._schema_cache.transaction() as connection:
            known, now = await brake.evidence(connection), await now_of(connection)
            latest: dict[str, float] = {}
            for account, at in seen.items():
                login = brake.login_of(account)
                latest[login] = max(at, latest.get(login, at))
            for login, at in sorted(latest.items()):
                if login not in known:
                    continue
                before = known[login].as_of(now)
                if before.understood_at <= before.tripped_at < at:
                    await brake.mark(connection, "understood", login, at)

    async def questions(self) -> list[Question]:
        """Return the control questions that are due, for each login with held ends."""
        async with self._schema_cache.opened() as (shop_tables, connection):
            brake = shop_tables.row_writer.brake
            held = [one for one in await brake.held(connection) if not one.is_released]
            known, now = await brake.evidence(connection), await now_of(connection)
            logins = sorted({brake.login_of(one.account) for one in held})
            due = [
                login
                for login in logins
                if now - known.get(login, Evidence()).as_of(now).control_at >= ASK_EVERY
            ]
            return [Question(login, await brake.controls(connection, login)) for login in due]

    async def answered(self, login: str, verdict: str) -> None:
        """Record the verdict of a login's controls, as of now."""
        async with self._schema_cache.opened() as (shop_tables, connection):
            now = await now_of(connection)
            await shop_tables.row_writer.brake.mark(connection, "control", login, now, verdict)

    async def held(self) -> list[Held]:
        """Return the orders whose ends are held."""
        async with self._schema_cache.opened() as (shop_tables, connection):
            return await shop_tables.row_writer.brake.held(connection)

    async def release(self, account: str, by: str) -> Mapping[str, int]:
        """Release what is held for an account's login; return how many orders per account."""
        async with self._schema_cache.opened() as (shop_tables, connection):
            brake = shop_tables.row_writer.brake
            login = brake.login_of(account)
            await refuse_while_observed(connection, brake.table.schema)
            # Wait for a process that is just writing, so that what it holds is released too.
            await brake.lock(connection, [account])
            held = [
                one for one in await brake.held(connection) if brake.login_of(one.account) == login
            ]
            if held:
                # What was held before the database's clock went back is dated later than now.
                now = max(await now_of(connection), *(one.since for one in held))
                await brake.mark(connection, "released", login, now, by=by)
        return Counter(one.account for one in held)

    async def about(
        self, connection: Connection, account: str, since: float, now: float
    ) -> list[str]:
        """Return what an order held ``since`` then (epoch seconds) lacks to be believed."""
        brake = self._schema_cache.row_writer.brake
        evidence = (await brake.evidence(connection)).get(brake.login_of(account), Evidence())
        return evidence.as_of(now).lacks(since, now, brake.rules.brake_hold)
