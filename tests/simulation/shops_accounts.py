"""The shop's accounts as they truly are, and what is done to them while processes ask."""

import asyncio
import math
from collections import Counter, defaultdict
from dataclasses import replace
from typing import TYPE_CHECKING

from tests.simulation.beside import Login
from tests.simulation.provider import RIGHT
from tests.simulation.scenario import CONFIG, Fault

if TYPE_CHECKING:
    from tests.simulation.world import World

NEVER_AGAIN = -math.inf
_IN_TIME = 80.0
"""Seconds, beside the time between two readings of the accounts, within which a mended login is tried."""


class Accounts:
    """Each account's row follows from what is wrong with it; each change has a number: who read an older one is not to blame."""

    def __init__(self, world: "World") -> None:
        self._world = world
        self._wrong: dict[str, Counter[str]] = defaultdict(Counter)
        self._names: dict[str, str] = {}
        self.versions: dict[str, int] = {}
        self.since: dict[str, float] = {}
        self.settings = Login(CONFIG)
        for key in world.scenario.accounts:
            self.versions[key], self.since[key] = 0, NEVER_AGAIN
            self._put(key, self._row(key))

    def _put(self, key: str, row: Login | None) -> None:
        if key == CONFIG:
            self.settings = row or self.settings
        elif row is None:
            self._world.store.logins.pop(key, None)
        else:
            self._world.store.logins[key] = row

    def kod_of(self, key: str) -> str:
        """The dealer's own name behind an account: the first two may be one dealer's."""
        accounts = self._world.scenario.accounts
        return f"kod-{accounts[0] if self._world.scenario.one_login and key in accounts[:2] else key}"

    def is_well(self, key: str) -> bool:
        """Whether it may be asked, by what the shop says."""
        return not self._wrong[key].keys() & {"switched_off", "removed", "moved"}

    def _row(self, key: str) -> Login:
        wrong, row = self._wrong[key], Login(key, self._names.get(key, "shop"), kod=self.kod_of(key))
        return replace(
            row,
            enabled="switched_off" not in wrong,
            address="http://10.0.0.1" if "moved" in wrong else row.address,
            sifre=f"wrong {self.versions[key]}" if "password" in wrong else RIGHT,
        )

    def _change(self, key: str) -> None:
        self.versions[key] += 1
        self.since[key] = self._world.now()
        self._put(key, None if "removed" in self._wrong[key] else self._row(key))
        if key == CONFIG:
            for process in self._world.processes:
                process.reload(
                    process.schedule, process.policy.concurrency, self._world.scenario.per_second, reopen=True
                )

    async def do(self, fault: Fault) -> None:
        """Let something be wrong for a while; another name stays."""
        key = self._world.scenario.accounts[fault.target % len(self._world.scenario.accounts)]
        if fault.kind == "renamed":
            self._names[key] = f"name-{fault.target}"
            self._change(key)
            return
        if key == CONFIG and fault.kind != "password":
            return
        self._wrong[key][fault.kind] += 1
        self._change(key)
        await asyncio.sleep(fault.seconds)
        self._wrong[key] -= Counter([fault.kind])
        self._change(key)

    async def look_whether_tried(self, fault: Fault) -> None:
        """Where nothing else is wrong, whoever has orders due of a mended account asks it in time."""
        key = self._world.scenario.accounts[fault.target % len(self._world.scenario.accounts)]
        world, version, mended = self._world, self.versions[key], self._world.now()
        await asyncio.sleep(world.scenario.refresh + _IN_TIME)
        waiting = [p for p in world.processes if p.born < mended and p.engine.queue.ready.count(key)]
        await asyncio.sleep(30)
        if not world.was_quiet_since(mended) or self.versions[key] != version or not self.is_well(key):
            return
        for process in waiting:
            is_due = process in world.processes and process.engine.queue.ready.count(key)
            is_tried = process.limits.asked_at.get(key, NEVER_AGAIN) >= mended
            world.check(not is_due or is_tried, f"{key} was mended at {mended:.0f} s, and is not tried")
