"""The daemon's own loop in virtual time, over a table and a provider in memory.

Discovery, queue, dispatcher, pace, answers and writer are the program's. The provider answers by
each order's end, which is known beforehand; the table is a list into which orders come as they are
sent. So hours take seconds, and every run is the same.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from order_monitor.core.answer import Answer, Completed, Waiting
from order_monitor.core.check_result import CheckResult, WriteResult, WriteStatus
from order_monitor.core.decision import Write
from order_monitor.core.gate import Pause
from order_monitor.core.order import Order, SkipReason
from order_monitor.core.outcome import Outcome
from order_monitor.core.schedule import Plan
from order_monitor.providers.provider import Balance, Batch, NoBalance, Provider, Reply
from order_monitor.shop.accounts.tables import Integration
from order_monitor.shop.reading.orders import ALL, Part, Scan, Take
from order_monitor.timing.learning import Learning
from order_monitor.watch.account import Account
from order_monitor.watch.engine import Engine
from order_monitor.watch.observer import Observer
from order_monitor.watch.policy import Policy
from order_monitor.watch.routing import AnyOpener, Directory
from tests.simulation.loop import SimClock

EPOCH: Final = 1_790_000_000.0
"""The time at the start, in seconds since the epoch (UTC); orders count from there."""


@dataclass(frozen=True, slots=True)
class Sent:
    """One order: when it was sent and when the provider decided, in seconds since the start; which
    account took it, and what was bought.
    """

    at: float
    ends: float
    account: str | None = None
    package: str | None = None


@dataclass
class World:
    """The orders of one run, named by their places, and what was found out about them.

    ``late`` is each end's delay in seconds, from the provider's decision to the row; ``asked`` is
    how often each order was asked about, and ``calls`` the number of calls.
    """

    orders: Sequence[Sent]
    clock: SimClock
    late: dict[str, float] = field(default_factory=dict)
    asked: Counter[str] = field(default_factory=Counter)
    calls: int = 0

    def decided(self, name: str) -> bool:
        """Whether the provider has decided about an order."""
        return self.clock.monotonic() >= self.orders[int(name)].ends


class VirtualShop:
    """The shop's table of open orders."""

    records_every_check = False

    def __init__(self, world: World) -> None:
        """Let the orders of ``world`` come as they are sent."""
        self._world = world
        self._open: dict[str, Order] = {}
        self._arrived = 0

    async def scan(self, part: Part = ALL, take: Take | None = None) -> Scan:
        """Return every open order."""
        orders, now = self._world.orders, self._world.clock.monotonic()
        while self._arrived < len(orders) and orders[self._arrived].at <= now:
            name, one = str(self._arrived), orders[self._arrived]
            self._open[name] = Order(
                name,
                "sent",
                EPOCH + one.at,
                name,
                integration=one.account,
                package=one.package,
                registered=True,
            )
            self._arrived += 1
        return Scan(self._world.clock.time(), list(self._open.values()), [])

    async def reread(self, orders: Sequence[Order]) -> list[Order]:
        """Return those that are still open."""
        return [self._open[order.id] for order in orders if order.id in self._open]

    async def record(
        self, findings: Sequence[CheckResult], lock_wait: float = 1.0
    ) -> list[WriteResult]:
        """Write the ends, and note how late they are."""
        return [self._write(finding) for finding in findings]

    def _write(self, finding: CheckResult) -> WriteResult:
        order, world = finding.order, self._world
        if not isinstance(finding.answer, Completed):
            return WriteResult(finding, WriteStatus.UNCHANGED, status=order.status)
        del self._open[order.id]
        world.late[order.id] = world.clock.monotonic() - world.orders[int(order.id)].ends
        write = Write(Outcome.COMPLETED, "completed")
        return WriteResult(finding, WriteStatus.WRITTEN, write=write, status=order.status)


class OneByOne:
    """A provider that answers about one order a call, ``latency`` seconds after it was asked."""

    def __init__(self, world: World, latency: float) -> None:
        """Answer by the orders of ``world``."""
        self._world, self._latency = world, latency

    async def ask(self, reference: str) -> Reply:
        """Answer about one order."""
        return Reply((await self._answers([reference]))[reference])

    async def _answers(self, references: Sequence[str]) -> dict[str, Answer]:
        world = self._world
        world.calls += 1
        world.asked.update(references)
        await asyncio.sleep(self._latency)
        return {
            name: Completed(None) if world.decided(name) else Waiting("") for name in references
        }

    async def balance(self) -> Balance | NoBalance:
        """Return any balance."""
        return Balance("0")

    async def aclose(self) -> None:
        """Do nothing."""


class InBatches(OneByOne):
    """A provider that answers about up to ``batch`` orders a call."""

    def __init__(self, world: World, latency: float, batch: int) -> None:
        """Answer by the orders of ``world``."""
        super().__init__(world, latency)
        self.batch = batch

    def calls_of(self, references: Sequence[str]) -> int:
        """Return how many calls it takes to ask about these orders."""
        return -(-len(references) // self.batch)

    async def ask_many(self, references: Sequence[str]) -> Batch:
        """Answer about several orders."""
        return Batch(await self._answers(references))


@dataclass(frozen=True, slots=True)
class ByIntegration(Directory):
    """Each order goes to the account of its integration, or to the only one."""

    known: Mapping[str, Account]

    @property
    def accounts(self) -> Mapping[str, Account]:
        """All accounts."""
        return self.known

    def account_of(self, order: Order) -> Account | SkipReason:
        """Return the account that took ``order``."""
        return self.known[order.integration or next(iter(self.known))]

    def update(self, integrations: Iterable[Integration]) -> list[Provider]:
        """Do nothing: the accounts stay."""
        return []

    def note_pauses(self, pauses: Mapping[str, Pause]) -> None:
        """Do nothing: no account is opened later."""

    def reopen(self, opener: AnyOpener) -> list[Provider]:
        """Do nothing: nothing is reloaded."""
        return []


async def watch_until(
    end: float,
    world: World,
    accounts: Mapping[str, Account],
    plan: Plan,
    *,
    scan_every: float,
    concurrency: int,
    learning: Learning | None = None,
) -> None:
    """Run the daemon's loop over ``world`` until ``end``; times are seconds since the start.

    With ``learning`` it learns from the ends that it finds.
    """
    policy = Policy(plan, concurrency=concurrency)
    directory = ByIntegration(accounts)
    engine = Engine(VirtualShop(world), directory, policy, world.clock, learning or Observer())
    tasks = [asyncio.create_task(one) for one in (engine.run(), engine.writer.run())]
    if learning is not None:
        learning.watch(engine)
        tasks.append(asyncio.create_task(learning.run()))
    while world.clock.monotonic() < end:
        await engine.scan()
        await asyncio.sleep(scan_every)
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks)
