"""The true state of the shop's accounts, and their changes while processes ask."""

import asyncio
import math
from collections import Counter, defaultdict
from dataclasses import replace
from typing import TYPE_CHECKING

from order_monitor.core.login import INTERNAL
from tests.simulation.other_tables import Login
from tests.simulation.provider import RIGHT
from tests.simulation.relatives import TENANT
from tests.simulation.scenario import CONFIG, Fault

if TYPE_CHECKING:
    from tests.simulation.world import World

NEVER_AGAIN = -math.inf
_LOOK = 30.0
"""Seconds between two reads of the accounts, and the duration of a read."""

_IN_TIME = 80.0
"""Seconds, in addition to the time between two reads of the accounts, within which a repaired login
is tried.
"""


class Accounts:
    """Each account's row depends on its active faults.

    Each change has a number: a process that has read an older one is not at fault.
    """

    def __init__(self, world: "World") -> None:
        self._world = world
        self._wrong: dict[str, Counter[str]] = defaultdict(Counter)
        self._names: dict[str, str] = {}
        self.versions: dict[str, int] = {}
        self.since: dict[str, float] = {}
        self.settings = Login(CONFIG)
        for key in world.scenario.accounts:
            self.versions[key], self.since[key] = 0, NEVER_AGAIN
            self.put(key, self.row(key))
        if world.scenario.has_chains:
            self.versions[TENANT], self.since[TENANT] = 0, NEVER_AGAIN
            self.put(TENANT, Login(TENANT, provider=INTERNAL))

    def put(self, key: str, row: Login | None) -> None:
        if key == CONFIG:
            self.settings = row or self.settings
        elif row is None:
            self._world.store.logins.pop(key, None)
        else:
            self._world.store.logins[key] = row

    def kod_of(self, key: str) -> str:
        """Return the dealer's name of an account: the first two may share one."""
        accounts = self._world.scenario.accounts
        return (
            f"kod-{accounts[0] if self._world.scenario.one_login and key in accounts[:2] else key}"
        )

    def is_well(self, key: str) -> bool:
        """Whether the shop's data allow calls."""
        return not self._wrong[key].keys() & {"switched_off", "removed", "moved"}

    def row(self, key: str) -> Login:
        wrong, row = (
            self._wrong[key],
            Login(key, self._names.get(key, "shop"), kod=self.kod_of(key)),
        )
        return replace(
            row,
            enabled="switched_off" not in wrong,
            address="http://10.0.0.1" if "moved" in wrong else row.address,
            sifre=f"wrong {self.versions[key]}" if "password" in wrong else RIGHT,
        )

    def _change(self, key: str) -> None:
        self.versions[key] += 1
        self.since[key] = self._world.now()
        self.put(key, None if "removed" in self._wrong[key] else self.row(key))
        if key == CONFIG:
            for process in self._world.processes:
                process.reload(
                    process.schedule,
                    process.policy.concurrency,
                    self._world.scenario.per_second,
                    reopen=True,
                )

    async def do(self, fault: Fault) -> None:
        """Apply a fault for a while; a new name stays."""
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
        """If there is no other fault, a process with due orders of a repaired account asks it in
        time.

        A password that was wrong only briefly may never have been read: then there was nothing to
        repair.
        """
        if fault.seconds < self._world.scenario.refresh + 2 * _LOOK:
            return
        key = self._world.scenario.accounts[fault.target % len(self._world.scenario.accounts)]
        world, version, mended = self._world, self.versions[key], self._world.now()
        await asyncio.sleep(world.scenario.refresh + _IN_TIME)
        waiting = [
            p for p in world.processes if p.born < mended and p.engine.queue.ready.count(key)
        ]
        await asyncio.sleep(30)
        if (
            not world.was_quiet_since(mended)
            or self.versions[key] != version
            or not self.is_well(key)
        ):
            return
        for process in waiting:
            is_due = process in world.processes and process.engine.queue.ready.count(key)
            is_tried = process.limits.asked_at.get(key, NEVER_AGAIN) >= mended
            world.check(
                not is_due or is_tried, f"{key} was mended at {mended:.0f} s, and is not tried"
            )
