"""Free places of a call go to orders that are not due, at no order's cost."""

from collections import Counter
from collections.abc import Sequence

import pytest

from order_monitor.core.answer import Answer, Busy, Completed, Refused, Waiting
from order_monitor.core.pin import Pin
from order_monitor.providers.provider import Balance, Batch, NoBalance, Reply
from tests.support.clocks import Drive
from tests.support.engines import Bench, text
from tests.support.shops import NOW, Shop


class Panel:
    """Answers about many orders at once: each waits until it is ``done``, but those that are `odd`."""

    def __init__(self, clock_of: Bench, batch: int = 50) -> None:
        self.bench, self.batch = clock_of, batch
        self.done: set[str] = set()
        self.odd: set[str] = set()
        self.failure: Answer | None = None
        self.calls: list[tuple[float, list[str]]] = []

    def calls_of(self, references: Sequence[str]) -> int:
        return -(-len(references) // self.batch)

    async def ask(self, reference: str) -> Reply:
        found = await self.ask_many([reference])
        answer = found.answers.get(reference, found.failure)
        assert answer is not None
        return Reply(answer)

    async def ask_many(self, references: Sequence[str]) -> Batch:
        self.calls.append((self.bench.clock.monotonic(), list(references)))
        if self.failure is not None:
            return Batch({}, failure=self.failure)
        answers: dict[str, Answer] = {}
        for reference in references:
            if reference in self.done:
                answers[reference] = Completed(Pin(f"PIN-{reference}"))
            else:
                answers[reference] = Refused("3", "?") if reference in self.odd else Waiting("")
        return Batch(answers)

    async def balance(self) -> Balance | NoBalance:
        return Balance("1")

    async def aclose(self) -> None:
        pass

    def asked(self, reference: str) -> list[float]:
        return [at for at, names in self.calls if reference in names]


def panel_of(shop: Shop, batch: int = 50) -> tuple[Bench, Panel]:
    bench = Bench(shop, lambda _: text(""))
    panel = Panel(bench, batch)
    bench.account.provider = panel
    return bench, panel


def reference(order_id: str) -> str:
    return f"r-{order_id[:8]}"


@pytest.mark.long
async def test_free_places_are_filled_and_cause_no_call(plain_shop: Shop) -> None:
    ids = [await plain_shop.add(sent_at=NOW - 3000 - n) for n in range(30)]
    calls, seldom = {}, 0
    for batch in (1, 50):
        bench, panel = panel_of(plain_shop, batch)
        async with Drive(bench.engine, bench.clock) as drive:
            await drive.run(900, scan_every=10)
        calls[batch] = Counter(len(names) for _, names in panel.calls)
        asked = [len(panel.asked(reference(i))) for i in ids]
        if batch == 1:
            assert set(calls[1]) == {1}
            seldom = max(asked)
        else:
            assert max(calls[50]) == 30
            assert min(asked) > 2 * seldom, "each goes along with the others"
    assert calls[50].total() <= calls[1].total(), "no call goes out for one that is not due"


@pytest.mark.long
async def test_no_order_loses_its_own_time(plain_shop: Shop) -> None:
    """What is asked before its time is asked at its time too."""
    order_id = await plain_shop.add(sent_at=NOW - 100)
    for n in range(20):
        await plain_shop.add(sent_at=NOW - 400 - 7 * n)
    bench, panel = panel_of(plain_shop)
    slots = []
    async with Drive(bench.engine, bench.clock) as drive:
        for _ in range(150):
            await drive.run(4, scan_every=10)
            entry = bench.engine.queue.get(order_id)
            assert entry is not None
            slots.append(entry.due)
        now = bench.clock.time()
    due = [slot for slot in dict.fromkeys(slots) if slot < now - 5]
    asked = [at + now - bench.clock.monotonic() for at in panel.asked(reference(order_id))]
    assert [slot for slot in due if not any(0 <= at - slot < 3 for at in asked)] == []
    assert len(due) >= 3
    assert len(asked) > 2 * len(due)


@pytest.mark.long
@pytest.mark.parametrize("what", ["odd", "fails"])
async def test_what_is_not_understood_of_a_filled_order_is_forgotten(
    plain_shop: Shop, what: str
) -> None:
    due = await plain_shop.add(sent_at=NOW - 100)
    filled = await plain_shop.add(sent_at=NOW - 3000)
    bench, panel = panel_of(plain_shop)
    async with Drive(bench.engine, bench.clock) as drive:
        await drive.run(70, scan_every=10)
        entry = bench.engine.queue.get(filled)
        assert entry is not None
        before = (entry.due, entry.rare, entry.checks)
        panel.calls.clear()
        if what == "odd":
            panel.odd.add(reference(filled))
        else:
            panel.failure = Busy("http_500")
        for _ in range(100):
            await drive.run(1, scan_every=10)
            if entry.due != before[0] or any(reference(filled) in n for _, n in panel.calls):
                break
        assert any(len(names) == 2 for _, names in panel.calls), due
        assert (entry.due, entry.rare, entry.checks) == before


@pytest.mark.long
async def test_an_end_found_early_is_written_at_once(plain_shop: Shop) -> None:
    ids = [await plain_shop.add(sent_at=NOW - 3000 - n) for n in range(40)]
    bench, panel = panel_of(plain_shop)
    async with Drive(bench.engine, bench.clock) as drive:
        await drive.run(120, scan_every=10)
        panel.done.update(map(reference, ids))
        calls = len(panel.calls)
        while len(panel.calls) == calls:
            await drive.run(1, scan_every=10)
        await drive.run(3, scan_every=10)
    rows = [await plain_shop.row(order_id) for order_id in ids]
    assert [row["external_status"] for row in rows] == ["completed"] * 40
    assert [row["pin_code"] for row in rows] == [f"PIN-{reference(i)}" for i in ids]


async def test_nothing_fresh_nor_parked_goes_along(plain_shop: Shop) -> None:
    for n in range(10):
        await plain_shop.add(sent_at=NOW - 3000 - n)
    fresh = await plain_shop.add(sent_at=NOW - 1)
    odd = await plain_shop.add(sent_at=NOW - 2000)
    bench, panel = panel_of(plain_shop)
    panel.odd.add(reference(odd))
    async with Drive(bench.engine, bench.clock) as drive:
        await drive.run(240, scan_every=10)
    sent = min(panel.asked(reference(fresh)))
    assert sent >= bench.engine.context.policy.min_interval - 1
    assert 1 <= len(panel.asked(reference(odd))) <= 8, "at its own times alone"
