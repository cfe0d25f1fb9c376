"""A client API that shuffles, drops, adds and repeats: no order gets the code of another.

``LIES_ORDERS=10000 pytest tests/watch/test_lies.py`` asks about ten thousand.
"""

import json
import os
import random
from typing import Any

import httpx

from order_monitor.core.schedule import Continuous, Schedule
from order_monitor.watch.engine import Engine
from order_monitor.watch.policy import Policy
from order_monitor.watch.routing import ShopAccounts
from tests.support.clocks import Drive, ManualClock
from tests.support.engines import AtClock, text
from tests.support.real_shop import Providers, RealShop, code_of, shop

__all__ = ["shop"]

ORDERS = int(os.environ.get("LIES_ORDERS", "600"))


class Liar(Providers):
    """Answers about what it was asked, and lies about everything else."""

    def __init__(self, clock: ManualClock, everybody: list[str]) -> None:
        super().__init__(clock)
        self.everybody = everybody
        self.random = random.Random(27)
        self.calls = 0

    def client_api(self, request: httpx.Request) -> httpx.Response:
        self.calls += 1
        names = json.loads(request.url.params["orders"])
        draw = self.random.random()
        if draw < 0.03:
            return text(self.random.choice(["<html>", "[", "null", '{"data": null}', "[] []", ""]))
        if draw < 0.05:
            return text(json.dumps({"status": "ERROR", "code": 500, "message": "x"}))
        entries: list[Any] = [self.entry(name) for name in names]
        if draw < 0.3:
            entries = self.random.sample(entries, len(entries) // 2)
        if entries and self.random.random() < 0.1:
            entries.append({**self.random.choice(entries), "pin": "TWICE-0000-0001"})
        for _ in range(self.random.randrange(6)):
            entries.append(self.stranger(names))
        self.random.shuffle(entries)
        return text(json.dumps({"status": "OK", "data": entries}))

    def entry(self, name: str) -> dict[str, Any]:
        return {"order_id": name, "status": "accept", "pin": code_of(name)}

    def stranger(self, names: list[str]) -> Any:
        """Somebody else's entry, in one of the ways that could be taken for an asked one's."""
        name, asked = self.random.choice(self.everybody), self.random.choice(names)
        code = "WRONG-0000-0001"
        return self.random.choice(
            [
                {
                    "order_id": name if name not in names else "ID_0",
                    "status": "accept",
                    "pin": code,
                },
                {"order_id": asked.lower(), "status": "accept", "pin": code},
                {"order_id": f"{asked}0", "status": "accept", "pin": code},
                {"order_id": [asked], "status": "accept", "pin": code},
                {"order": asked, "status": "accept", "pin": code},
                [asked, "accept", code],
                asked,
                None,
            ]
        )


async def test_no_order_gets_the_code_of_another(shop: RealShop) -> None:
    accounts = [await shop.integration("barakat"), await shop.integration("apstore")]
    names = [f"ID_{n:06d}" for n in range(ORDERS)]
    ids = {
        await shop.add(
            providerId=accounts[n % 2], provider_referans=name, externalOrderId=name
        ): name
        for n, name in enumerate(names)
    }
    clock = ManualClock()
    liar = Liar(clock, names)
    orders = shop.orders()
    engine = Engine(
        AtClock(orders, clock),
        ShopAccounts(liar.open),
        Policy(Continuous(Schedule(jitter=0))),
        clock,
    )
    async with Drive(engine, clock) as drive:
        for _ in range(30):
            await drive.run(120, scan_every=30)
            if not len(engine.queue):
                break
    rows = await shop.connection.fetch(
        'SELECT id::text, "pinCode" AS pin, "externalStatus" AS status FROM product_orders'
    )
    wrong = {r["id"]: r["pin"] for r in rows if r["pin"] not in (None, code_of(ids[r["id"]]))}
    assert wrong == {}
    assert {r["status"] for r in rows} <= {"done", "sent"}
    left = {r["id"] for r in rows if r["status"] != "done"}
    reviewed = await shop.connection.fetch(
        "SELECT order_id::text AS id FROM order_monitor_review WHERE closed_at IS NULL"
    )
    assert left <= {r["id"] for r in reviewed}, "each ends, or a person is told"
    assert len(left) <= ORDERS * 0.02
    assert all(r["pin"] == code_of(ids[r["id"]]) for r in rows if r["status"] == "done")
