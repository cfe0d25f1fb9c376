"""Batches that the database refuses, at realistic sizes: nothing is lost, nothing is written twice,
and nothing waits for long.

The real writer, recorder and ledger run over the model shop. The obstacle of each row is drawn at
random: locks, or triggers that refuse, rewrite or are slow, for a while or permanently.
"""

import asyncio
import os
import random
from collections import Counter
from dataclasses import dataclass, field

import pytest
import structlog

from order_monitor.core.answer import Answer, Cancelled, Completed
from order_monitor.core.check_result import CheckResult, WriteResult, WriteStatus
from order_monitor.core.order import Order
from order_monitor.core.pin import Pin
from order_monitor.watch.write_queue import WriteQueue
from tests.simulation.loop import SimClock, run
from tests.simulation.shop import (
    FINAL,
    ModelOrders,
    Pool,
    Store,
    Stored,
    database_over,
    layout_for,
    ledger_for,
)
from tests.simulation.world import drop

SIZES = (2, 3, 4, 5, 6, 7, 9, 16, 17, 31, 50, 64, 100, 199, 200, 201, 333, 500)
SHARES = (0.03, 0.2, 0.6)
CASES = [
    (size, share)
    for n, size in enumerate(SIZES)
    for m, share in enumerate(SHARES)
    if size < 50 or (n + m) % 3 == 0
]
"""Each size with each share of blocked rows.

The large sizes with one share only.
"""

ROUNDS = int(os.environ.get("SIMULATION_BATCHES", "1"))
AGAINST = ("poisoned", "locked", "blocked", "slow", "open", "no pin", "nothing", "delivered")
EPOCH = 1_790_000_000.0
LIFTED_AFTER = 40.0
"""Seconds after which a temporary obstacle is gone."""

ASKED_AGAIN = 30.0
"""Seconds after which a refused answer comes once more, like with the next question."""

FREE_WITHIN = 90.0
"""Seconds within which a row without an obstacle is written, regardless of the others'
obstacles.
"""

WRITTEN_WITHIN = 100.0
"""Seconds after the end of its obstacle within which a row is written."""

DONE_WITHIN = 600.0


@dataclass
class Batches:
    """One batch submitted together, and the result of each of its findings."""

    size: int
    chance: random.Random
    share: float
    against: dict[str, str] = field(default_factory=dict)
    for_good: set[str] = field(default_factory=set)
    results: list[WriteResult] = field(default_factory=list)
    written_at: dict[str, float] = field(default_factory=dict)
    refused: Counter[str] = field(default_factory=Counter)
    answers: dict[str, Answer] = field(default_factory=dict)
    again: set[asyncio.TimerHandle] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.store = Store(EPOCH, self.chance)
        table_config = layout_for(give_up_after=86_400.0, last_sync=self.chance.random() < 0.3)
        pool = Pool(self.store, ledger_for(table_config, last_sync=table_config.record_sync))
        self.orders = ModelOrders(pool, database_over(pool))

    async def run(self) -> None:
        self.writer = WriteQueue(self.orders, SimClock(EPOCH), self)
        ids = [f"order-{n}" for n in range(self.size)]
        for n, order_id in enumerate(ids):
            self.store.rows[order_id] = Stored(order_id, "sent", EPOCH - 100, f"1{n:05}", "")
            pin = Pin(f"PIN-{n:05}")
            self.answers[order_id] = self.chance.choice(
                (Completed(pin, "x"), Completed(None, "x"), Cancelled("x"))
            )
        self.found = {o.id: o for o in await self.orders.reread([self._order(i) for i in ids])}
        kinds = self.chance.sample(AGAINST, self.chance.randint(1, 3))
        self.against = {
            i: self.chance.choice(kinds) for i in ids if self.chance.random() < self.share
        }
        self.for_good = {i for i in self.against if self.chance.random() < 0.2}
        writing = asyncio.create_task(self.writer.run())
        self._stand_against(self.against)
        for order_id in ids:
            self._submit(order_id)
        await asyncio.sleep(FREE_WITHIN)
        free = [i for i in ids if i not in self.against and i not in self.written_at]
        assert free == [], "nothing stands against these"
        await asyncio.sleep(LIFTED_AFTER + WRITTEN_WITHIN - FREE_WITHIN)
        late = [i for i in self.against if i not in self.for_good and i not in self.written_at]
        assert late == [], "nothing stands against these any more"
        await asyncio.sleep(DONE_WITHIN)
        for handle in self.again:
            handle.cancel()
        self.writer.close()
        await asyncio.wait_for(writing, 120)

    def _order(self, order_id: str) -> Order:
        row = self.store.rows[order_id]
        return Order(order_id, row.status, row.sent_at, row.reference)

    def _submit(self, order_id: str) -> None:
        now = self.store.now()
        self.writer.submit(
            CheckResult(
                self.found[order_id], self.answers[order_id], now, now, 1, account="default"
            )
        )

    def wrote(self, count: int, seconds: float) -> None:
        pass

    def is_stuck(self, order_id: str) -> bool:
        return True

    def handle(self, result: WriteResult) -> None:
        order_id = result.finding.order.id
        self.results.append(result)
        if result.fate is WriteStatus.WRITTEN:
            self.written_at[order_id] = self.store.now()
        elif result.is_refused:
            self.refused[order_id] += 1
            self.again.add(
                asyncio.get_running_loop().call_later(ASKED_AGAIN, self._submit, order_id)
            )

    def _stand_against(self, against: dict[str, str]) -> None:
        store = self.store
        store.poisoned = {i for i, kind in against.items() if kind == "poisoned"}
        store.slow = {i for i, kind in against.items() if kind == "slow"}
        store.blocked = {i for i, kind in against.items() if kind == "blocked"}
        store.rewriting = {
            i: kind
            for i, kind in against.items()
            if kind in ("open", "no pin", "nothing", "delivered")
        }
        for order_id, holder in list(store.locked.items()):
            if holder is self:
                del store.locked[order_id]
        store.locked |= {i: self for i, kind in against.items() if kind == "locked"}
        if against is self.against:
            left = {i: kind for i, kind in against.items() if i in self.for_good}
            asyncio.get_running_loop().call_later(LIFTED_AFTER, self._stand_against, left)

    def look(self) -> None:
        """The final state."""
        moved = Counter(event.order_id for event in self.store.events if not event.repeat)
        # Rows that are slow only together, or that get a different end, are still written.
        stays = {
            i
            for i in self.for_good
            if self.against[i] in ("poisoned", "locked", "blocked", "nothing", "open")
        }
        for order_id, answer in self.answers.items():
            row, is_end = self.store.rows[order_id], self.store.rows[order_id].status in FINAL
            pin = (
                answer.pin.reveal()
                if isinstance(answer, Completed) and answer.pin is not None
                else None
            )
            is_cut = self.against.get(order_id) == "no pin" and order_id in self.for_good
            kept = order_id in stays or (is_cut and pin is not None)
            assert is_end is not kept, f"{order_id} is {row.status}"
            assert (row.pin == pin) is (pin is None or not kept), f"{order_id} has {row.pin}"
            assert moved[order_id] == is_end, f"{moved[order_id]} events of {order_id} move money"
            if kept and order_id not in self.writer.backlog:
                assert self.refused[order_id], f"{order_id} has no fate"
                kinds = {kind for i, kind in self.store.reviews if i == order_id}
                assert kinds & {"rejected_by_database", "changed_by_trigger"}, (
                    f"{order_id} is before nobody: {kinds}"
                )
        # Only rows that are blocked until the end are counted.
        assert {i for i in self.for_good if self.against[i] == "locked"} <= set(self.writer.backlog)
        assert {self.against[i] for i in self.writer.backlog} <= {"locked", "blocked"}


@pytest.fixture(autouse=True)
def _say_nothing() -> None:
    structlog.configure(processors=[drop], cache_logger_on_first_use=False)


@pytest.mark.simulated
@pytest.mark.parametrize(("size", "share"), CASES)
def test_refused_batches_lose_nothing(size: int, share: float) -> None:
    for seed in range(ROUNDS * (3 if size < 20 else 1)):
        batches = Batches(size, random.Random(f"{size} {share} {seed}"), share)
        run(batches.run())
        batches.look()
