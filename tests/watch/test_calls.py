"""The calls under way, and the clients they use."""

import asyncio

from order_monitor.watch.calls import Calls
from tests.support.stages import NeverAsked


class Client(NeverAsked):
    """A provider that says when it was closed."""

    def __init__(self) -> None:
        self.closed = asyncio.Event()

    async def aclose(self) -> None:
        self.closed.set()


async def test_a_client_that_is_replaced_is_closed_when_the_calls_under_way_have_ended() -> None:
    calls, client, answer = Calls(lambda: None), Client(), asyncio.Event()

    async def call() -> None:
        await answer.wait()
        assert not client.closed.is_set()

    calls.start(call(), "call")
    calls.retire(client)
    for _ in range(5):
        await asyncio.sleep(0)
    assert (len(calls), client.closed.is_set()) == (1, False)
    answer.set()
    async with asyncio.timeout(30):
        await client.closed.wait()
    assert len(calls) == 0
