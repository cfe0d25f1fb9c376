"""The seam for a second provider, shown on one that answers in JSON.

Not shipped: an example of what an adapter is. GET {base}/orders/{reference}  ->  {"status":
"delivered", "pin": "0012-34", "note": "ok"}
"""

import json
from typing import Any

import httpx
import pytest

from order_monitor.core.answer import (
    Answer,
    Busy,
    Cancelled,
    Completed,
    Garbled,
    Unreachable,
    Waiting,
)
from order_monitor.core.pin import Pin
from order_monitor.core.schedule import Continuous, Schedule
from order_monitor.providers.provider import Balance, NoBalance, Reply
from order_monitor.watch.account import Account
from order_monitor.watch.engine import Engine
from order_monitor.watch.policy import Policy
from tests.support.clocks import Drive, ManualClock
from tests.support.engines import AtClock
from tests.support.shops import NOW, Shop


class JsonPanel:
    """All that a provider has to be: one question, one answer of the known types."""

    def __init__(self, base_url: str, transport: httpx.AsyncBaseTransport) -> None:
        self._client = httpx.AsyncClient(base_url=base_url, transport=transport, trust_env=False)

    async def ask(self, reference: str) -> Reply:
        try:
            response = await self._client.get(f"/orders/{reference}")
        except httpx.HTTPError:
            return Reply(Unreachable("connection_lost"))
        if response.status_code != 200:
            return Reply(Busy(f"http_{response.status_code}"))
        return Reply(understand(response.content))

    async def balance(self) -> Balance | NoBalance:
        return Balance("0")

    async def aclose(self) -> None:
        await self._client.aclose()


def understand(body: bytes) -> Answer:
    """Read one answer; what is not exactly as agreed is garbled, never guessed."""
    try:
        data = json.loads(body, object_pairs_hook=_once, parse_constant=_refuse)
    except (ValueError, RecursionError):
        return Garbled("no_json")
    if not isinstance(data, dict) or not isinstance(data.get("note", ""), str):
        return Garbled("wrong_shape")
    match data:
        case {"status": "delivered", "pin": str(pin)} if pin.strip():
            return Completed(Pin(pin), data.get("note", ""))
        case {"status": "delivered", "pin": None}:
            return Completed(None, data.get("note", ""))
        case {"status": "cancelled"}:
            return Cancelled(data.get("note", ""))
        case {"status": "waiting"}:
            return Waiting(data.get("note", ""))
        case _:
            return Garbled("wrong_shape")


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if len({key for key, _ in pairs}) != len(pairs):
        msg = "a key stands twice"
        raise ValueError(msg)
    return dict(pairs)


def _refuse(constant: str) -> None:
    raise ValueError(constant)


@pytest.mark.parametrize(
    ("body", "answer"),
    [
        (
            '{"status": "delivered", "pin": "0012-34", "note": "ok"}',
            Completed(Pin("0012-34"), "ok"),
        ),
        ('{"status": "delivered", "pin": null}', Completed(None)),
        ('{"status": "cancelled", "note": "no"}', Cancelled("no")),
        ('{"status": "waiting"}', Waiting()),
        ('{"status": "delivered", "pin": 1234}', Garbled("wrong_shape")),
        ('{"status": "delivered", "pin": NaN}', Garbled("no_json")),
        ('{"status": "delivered", "pin": ""}', Garbled("wrong_shape")),
        ('{"status": "waiting", "status": "cancelled"}', Garbled("no_json")),
        ('{"status": "failed"}', Garbled("wrong_shape")),
        ("[" * 100_000, Garbled("no_json")),
        ("OK|2|PIN|x", Garbled("no_json")),
    ],
)
def test_an_adapter_takes_nothing_for_an_end_that_is_none(body: str, answer: Answer) -> None:
    """A12: a PIN must be a string, a key stands once, NaN is no number."""
    assert understand(body.encode()) == answer


async def test_the_engine_needs_no_more_than_the_seam(plain_shop: Shop) -> None:
    order_id = await plain_shop.add(sent_at=NOW - 100)
    clock = ManualClock()
    body = '{"status": "delivered", "pin": "0012-34", "note": "ok"}'
    panel = JsonPanel(
        "https://json.example", httpx.MockTransport(lambda _: httpx.Response(200, text=body))
    )
    account = Account("json", panel)
    engine = Engine(
        AtClock(plain_shop.orders(), clock),
        {"json": account},
        Policy(Continuous(Schedule())),
        clock,
    )
    async with Drive(engine, clock) as drive:
        await drive.run(5, scan_every=10)
    await panel.aclose()
    row = await plain_shop.row(order_id)
    assert (row["external_status"], row["pin_code"], row["note"]) == ("completed", "0012-34", "ok")
