"""Accounts come and go: within an hour nothing is remembered of those that are gone, but in rings
of fixed size.
"""

import asyncio
import gc
import types
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest

from order_monitor.core.answer import Answer, Completed, Refused, Unreachable, Waiting
from order_monitor.core.check_result import CheckResult, WriteResult, WriteStatus
from order_monitor.core.decision import Write
from order_monitor.core.gate import Gate, Pace
from order_monitor.core.order import Order
from order_monitor.core.outcome import Outcome
from order_monitor.core.pin import Pin
from order_monitor.core.schedule import Continuous, Schedule
from order_monitor.providers.provider import Balance, NoBalance, Reply
from order_monitor.shop.accounts.tables import Integration
from order_monitor.shop.reading.orders import ALL, Part, Scan, Take
from order_monitor.tell.metrics import Metrics
from order_monitor.tell.readiness import Readiness
from order_monitor.tell.redactor import HIDDEN_FOR, Redactor
from order_monitor.tell.status_view import StatusView
from order_monitor.timing.learning import Learning
from order_monitor.timing.planner import Terms, Timing
from order_monitor.watch.account import Account
from order_monitor.watch.balances import Balances
from order_monitor.watch.brake_watch import BrakeWatch
from order_monitor.watch.engine import Engine
from order_monitor.watch.observer import Observers
from order_monitor.watch.policy import Policy
from order_monitor.watch.routing import ShopAccounts
from tests.support.clocks import Drive, ManualClock

GENERATIONS, ACCOUNTS = 6, 400
MARK = "gone-account"
"""Stands in the key, the name and the secrets of each account that goes."""

RINGS = 30 + 50 + 7 * 10
"""How many mentions of accounts the rings for the page may hold, and the memory of learned timing
where it has room for ten.
"""


@dataclass
class Street:
    """A shop whose accounts and open orders are what the test says, and whose every end is written."""

    clock: ManualClock
    integrations: list[Integration] = field(default_factory=list)
    orders: dict[str, Order] = field(default_factory=dict)
    records_every_check = False

    async def reread(self, orders: Sequence[Order]) -> list[Order]:
        return [self.orders[order.id] for order in orders if order.id in self.orders]

    async def scan(self, part: Part = ALL, take: Take | None = None) -> Scan:
        return Scan(self.clock.time(), list(self.orders.values()), [], list(self.integrations))

    async def record(self, findings: list[CheckResult], lock_wait: float) -> list[WriteResult]:
        return [self._written(finding) for finding in findings]

    def _written(self, finding: CheckResult) -> WriteResult:
        if isinstance(finding.answer, Completed):
            del self.orders[finding.order.id]
            return WriteResult(
                finding,
                WriteStatus.WRITTEN,
                Write(Outcome.COMPLETED, "completed", pin=Pin("x")),
                status="sent",
            )
        return WriteResult(finding, WriteStatus.UNCHANGED)


class Panel:
    """Some accounts answer, some refuse, some are not there."""

    def __init__(self, answer: Answer) -> None:
        self.answer = answer

    async def ask(self, reference: str) -> Reply:
        return Reply(self.answer)

    async def balance(self) -> Balance | NoBalance:
        return Balance("a lot")

    async def aclose(self) -> None:
        pass


class Desk:
    async def understood(self, seen: Any) -> None:
        pass


class TimingStore:
    async def read(self) -> None:
        return None

    async def history(self) -> list[Any]:
        return []

    async def save(self, learned: Any) -> None:
        pass


class Town:
    """The daemon's parts that remember something of accounts."""

    def __init__(self) -> None:
        self.clock = clock = ManualClock()
        self.street = Street(clock)
        self.redactor = Redactor(clock.monotonic)
        self.view = StatusView(clock)
        self.metrics = Metrics(self.view)
        schedule = Schedule(jitter=0)
        self.brake = BrakeWatch(Desk(), clock)  # type: ignore[arg-type]
        self.learning = Learning(
            Timing(schedule, Terms(packages=10)), TimingStore(), clock, schedule
        )
        observers = Observers([self.metrics, self.view.history, self.brake, self.learning])
        directory = ShopAccounts(self.open, self.redactor.follow)
        self.engine = Engine(
            self.street, directory, Policy(Continuous(schedule), concurrency=200), clock, observers
        )
        self.view.watch(self.engine, Readiness(self.engine, clock, 60.0), 86_400.0)
        self.view.learned = self.learning.timing
        self.brake.watch(self.engine)
        self.learning.watch(self.engine)
        self.balances = Balances(self.engine, clock, 60.0, 5.0)

    def open(self, made: Integration) -> Account:
        if made.base_url == "bad":
            raise ValueError("bad")
        n = int(made.id.rpartition("-")[2])
        answer = (Completed(Pin("x")), Waiting("x"), Refused("3", "x"), Unreachable("timeout"))[
            n % 4
        ]
        return Account(made.name, Panel(answer), Gate(2), Pace(1000.0))

    def settle(self, generation: int, count: int) -> None:
        """Let other accounts take the place of those before, each with two open orders."""
        self.street.integrations = [
            self.integration(f"{MARK}-{generation}-{n}", n) for n in range(count)
        ]
        self.street.integrations.append(self.integration("stays-0", 0))
        self.street.orders = {}
        for n, made in enumerate(self.street.integrations):
            for turn in range(2):
                order_id = f"{generation}-{n}-{turn}"
                sent_at = self.clock.time() - 300
                self.street.orders[order_id] = Order(
                    order_id,
                    "sent",
                    sent_at,
                    order_id,
                    None,
                    None,
                    made.id,
                    registered=True,
                    package=f"p{n % 3}",
                )

    @staticmethod
    def integration(key: str, n: int) -> Integration:
        url = "bad" if n % 50 == 49 else "https://x.example"
        return Integration(key, None, key, "znet", True, url, f"kod {key}", f"sifre/{key}")

    async def turn_over(self, balances: int) -> None:
        async with Drive(self.engine, self.clock) as drive:
            drive.tasks += [
                asyncio.create_task(self.balances.run(), name="balances"),
                asyncio.create_task(self.learning.run(), name="learning"),
            ]
            await drive.run(320, scan_every=60)
            while not self.clock.asleep["learning"]:
                await asyncio.sleep(0)
        read = sum(account.balance is not None for account in self.engine.accounts.values())
        assert read >= balances / 3, "those whose gate is open"
        while self.learning.timing.refresh():
            pass
        self.learning.timing.drain()

    def mentions(self) -> list[str]:
        """Every text that names an account which is gone, from the parts down."""
        return [text for text in texts(self) if MARK in text]


def texts(root: object) -> Iterator[str]:
    """Yield each text that hangs on something, once for each place it hangs at."""
    seen, waiting = set[int](), [root]
    while waiting:
        found = waiting.pop()
        if isinstance(found, str):
            yield found
        if isinstance(found, (str, type, types.ModuleType)) or id(found) in seen:
            continue
        seen.add(id(found))
        if isinstance(found, types.FunctionType):
            waiting += found.__closure__ or ()
        else:
            waiting += gc.get_referents(found)


@pytest.mark.long
async def test_what_is_gone_is_forgotten_within_an_hour() -> None:
    town = Town()
    for generation in range(GENERATIONS):
        town.settle(generation, ACCOUNTS)
        await town.turn_over(ACCOUNTS)
    assert len(town.engine.accounts) > 0.9 * ACCOUNTS
    assert len(town.mentions()) > ACCOUNTS, "the test sees what is remembered"
    scraped = len(town.metrics.text())
    town.settle(0, 0)
    await town.turn_over(0)
    town.clock.elapsed += HIDDEN_FOR
    town.settle(0, 0)
    await town.turn_over(0)
    left = town.mentions()
    assert len(left) <= RINGS, left[:20]
    assert len(town.metrics.text()) < scraped / 10
    assert MARK not in town.metrics.text().decode()
    assert set(town.engine.accounts) == {"stays-0"}
    assert 'outcome="completed"' in town.metrics.text().decode()


@pytest.mark.long
@pytest.mark.parametrize("generations", [2, 6])
async def test_metrics_do_not_grow_with_those_that_were_there(generations: int) -> None:
    town = Town()
    sizes = []
    for generation in range(generations):
        town.settle(generation, 50)
        await town.turn_over(50)
        town.clock.elapsed += 3600
        sizes.append(len(town.metrics.text()))
    assert max(sizes[1:]) <= 1.1 * sizes[1]
