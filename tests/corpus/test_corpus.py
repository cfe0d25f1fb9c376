"""Every answer of the corpus, over a real connection, through the real transport and parser."""

import asyncio
import ssl

import pytest

from order_monitor.core.answer import Blocked, Busy, Completed, Garbled
from order_monitor.providers.client_api.client import ClientApi, ClientApiAccount
from order_monitor.providers.http.transport import FreshConnections
from order_monitor.providers.provider import Balance, Provider
from order_monitor.watch.system_clock import SystemClock
from tests.corpus import ENTRIES, REFERENCE, Entry, answer_of, balance_of, response_of
from tests.support.connections import client
from tests.support.servers import RawServer

CONTEXT = ssl.create_default_context()


@pytest.mark.parametrize("entry", ENTRIES.values(), ids=ENTRIES)
async def test_an_answer_is_read_rightly(entry: Entry) -> None:
    async def panel(
        head: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        writer.write(response_of(entry))
        writer.close()

    question = entry.get("question", "")
    async with RawServer(panel) as server:
        url = f"http://127.0.0.1:{server.port}"
        provider: Provider = client(url, CONTEXT)
        if question.startswith("client API"):
            provider = ClientApi(
                ClientApiAccount(url, "token"), FreshConnections(CONTEXT), SystemClock()
            )
        if question.endswith("balance"):
            balance = await provider.balance()
            number = balance.number if isinstance(balance, Balance) else None
            assert (balance, number) == balance_of(entry)
        else:
            answer = (await provider.ask(REFERENCE)).answer
            assert answer == answer_of(entry)
            if isinstance(answer, Garbled | Blocked | Busy) and "message" in entry:
                assert answer.message == entry["message"]
            if not isinstance(answer, Completed):
                assert "AB12" not in repr(answer), "a piece of a PIN is shown"
        await provider.aclose()
