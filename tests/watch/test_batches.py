"""Several orders in one call: a call that fails as a whole says nothing of any of them, and costs
none of them its turn.
"""

from collections.abc import Sequence
from typing import Any

import pytest

from order_monitor.core.answer import Answer, Busy, Completed, Refused, Unreachable, Waiting
from order_monitor.providers.provider import Balance, Batch, NoBalance, Reply
from tests.support.clocks import Drive
from tests.support.engines import Bench, text
from tests.support.shops import NOW, Shop


class Together:
    """A provider that answers about fifty orders at once, unless ``failure`` says why the whole
    call fails.
    """

    batch = 50

    def calls_of(self, references: Sequence[str]) -> int:
        return -(-len(references) // self.batch)

    def __init__(self) -> None:
        self.failure: Answer | None = None
        self.poison = ""
        self.calls: list[list[str]] = []

    async def ask(self, reference: str) -> Reply:
        found = await self.ask_many([reference])
        answer = found.answers.get(reference, found.failure)
        assert answer is not None
        return Reply(answer)

    async def ask_many(self, references: Sequence[str]) -> Batch:
        self.calls.append(list(references))
        failure = Busy("http_500") if self.poison in references else self.failure
        return Batch({} if failure else dict.fromkeys(references, Completed(None)), failure=failure)

    async def balance(self) -> Balance | NoBalance:
        return Balance("1")

    async def aclose(self) -> None:
        pass


def bench_of(shop: Shop, **options: Any) -> tuple[Bench, Together]:
    bench, provider = Bench(shop, lambda _: text(""), **options), Together()
    bench.account.provider = provider
    return bench, provider


@pytest.mark.parametrize("give_up_blind", [False, True])
async def test_a_machine_that_is_short_of_something_ends_no_order(
    plain_shop: Shop, *, give_up_blind: bool
) -> None:
    old = await plain_shop.add(sent_at=NOW - 90_000)
    ids = [old, *[await plain_shop.add(sent_at=NOW - 100 - n) for n in range(60)]]
    bench, provider = bench_of(plain_shop, give_up_blind=give_up_blind)
    provider.failure = Unreachable("no_files")
    async with Drive(bench.engine, bench.clock) as drive:
        await drive.run(120, scan_every=10)
        assert bench.account.gate.is_open
        assert {await bench.status(i) for i in ids} == {"sent"}
        provider.failure = None
        await drive.run(300, scan_every=10)
    assert {await bench.status(i) for i in ids} == {"completed"}


async def test_one_order_that_spoils_each_call_keeps_no_other_from_its_answer(
    plain_shop: Shop,
) -> None:
    ids = [await plain_shop.add(sent_at=NOW - 100 - n) for n in range(60)]
    bench, provider = bench_of(plain_shop)
    provider.poison = f"r-{ids[7][:8]}"
    async with Drive(bench.engine, bench.clock) as drive:
        await drive.run(300, scan_every=10)
    assert [i for i in ids if await bench.status(i) != "completed"] == [ids[7]]
    assert max(map(len, provider.calls)) == 50
    assert bench.account.gate.is_open


async def test_one_pass_ends_however_long_the_provider_fails(plain_shop: Shop) -> None:
    ids = [await plain_shop.add(sent_at=NOW - 100 - n) for n in range(60)]
    for failure in (Busy("http_500"), Unreachable("no_files"), Refused("105")):
        bench, provider = bench_of(plain_shop, one_pass=True)
        provider.failure = failure
        async with Drive(bench.engine, bench.clock) as drive:
            await drive.run(300, scan_every=300)
        assert len(provider.calls) <= 61
        assert {await bench.status(i) for i in ids} == {"sent"}


async def test_a_pause_that_the_second_request_of_a_call_asks_for_is_kept(plain_shop: Shop) -> None:
    """What the first request brought is older than the refusal of the second, and opens nothing."""
    for n in range(4):
        await plain_shop.add(sent_at=NOW - 100 - n)
    bench, provider = bench_of(plain_shop)

    async def half(references: Sequence[str]) -> Batch:
        provider.calls.append(list(references))
        answers: dict[str, Answer] = {references[0]: Waiting("")}
        failure = Busy("http_429", retry_after=600.0) if len(references) > 1 else None
        return Batch(answers, len(references[:2]), failure)

    provider.ask_many = half  # type: ignore[method-assign]
    async with Drive(bench.engine, bench.clock) as drive:
        await drive.run(60, scan_every=10)
        assert not bench.account.gate.is_open
        first = len(provider.calls)
        await drive.run(400, scan_every=10)
    assert len(provider.calls) == first


async def test_further_requests_of_a_call_count_in_the_pace(plain_shop: Shop) -> None:
    """A call that took ten requests is followed by none for as long as ten take."""
    for n in range(40):
        await plain_shop.add(sent_at=NOW - 100 - n)
    bench, provider = bench_of(plain_shop, calls_per_second=1.0)
    provider.batch = 2

    async def often(references: Sequence[str]) -> Batch:
        provider.calls.append(list(references))
        return Batch(dict.fromkeys(references, Waiting("")), 10)

    provider.ask_many = often  # type: ignore[method-assign]
    async with Drive(bench.engine, bench.clock) as drive:
        await drive.run(60, scan_every=10)
    assert 5 <= len(provider.calls) <= 7
