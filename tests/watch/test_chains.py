"""An order that another tenant took ends as its child, and by nobody else's word."""

import asyncio
import json
import uuid
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from order_monitor.core.answer import Answer, Cancelled, Completed
from order_monitor.core.check_result import CheckResult, WriteStatus
from order_monitor.core.pin import Pin
from order_monitor.core.schedule import Continuous, Schedule
from order_monitor.shop.accounts.pauses import Pauses, ends_of
from order_monitor.shop.database import Database
from order_monitor.shop.repository import Orders
from order_monitor.shop.writing.chains import ChainEnd, ChainTable
from order_monitor.shop.writing.dispatches import account_of
from order_monitor.shop.writing.reopening import Reopener, ReopenRefusedError
from order_monitor.watch.account import Account
from order_monitor.watch.chains import Chains
from order_monitor.watch.engine import Engine
from order_monitor.watch.policy import Policy
from order_monitor.watch.routing import ShopAccounts
from tests.support import stages
from tests.support.clocks import ManualClock
from tests.support.engines import AtClock
from tests.support.real_shop import RealShop, new_id, real_shop
from tests.support.shops import NOW
from tests.support.watching import watched

PIN = "AB12-CD34-EF56"


@dataclass
class Tenants:
    """Tenants of one shop, and the daemon's pass over their chains."""

    shop: RealShop
    database: Database
    orders: Orders
    engine: Engine
    chains: Chains
    znet: str
    internal: str

    async def parent(self, child: str | None, **more: Any) -> str:
        """Add an order that another tenant took as ``child``."""
        made = str(more.pop("id", new_id()))
        named = {"externalOrderId": child, "provider_referans": made, "providerId": self.internal}
        return await self.shop.add(id=made, **{**named, **more})

    async def child(self, parent: str, **more: Any) -> str:
        """Add an order of another tenant that was made for ``parent``, and sent to znet."""
        made = str(more.pop("id", new_id()))
        named = {
            "root_order_id": parent,
            "externalOrderId": made,
            "provider_referans": f"1760{uuid.UUID(made).int % 10**12:012d}",
            "providerId": self.znet,
        }
        return await self.shop.add(id=made, **{**named, **more})

    async def pair(self, **more: Any) -> tuple[str, str]:
        """Add a parent and its child."""
        child = new_id()
        parent = await self.parent(child)
        return parent, await self.child(parent, id=child, **more)

    async def end(self, order_id: str, answer: Answer) -> None:
        """Let the provider end an order."""
        (order,) = await self.orders.reread(
            [(await self.orders.reader.among([order_id]))[order_id]]
        )
        found = CheckResult(order, answer, order.sent_at or 0.0, account=self.znet)
        found.seen_at += 60
        (result,) = await self.orders.record([found])
        assert result.fate is WriteStatus.WRITTEN, result

    async def status(self, order_id: str) -> tuple[str, str | None]:
        row = await self.shop.row(order_id)
        return row["externalStatus"], row["pinCode"]


@pytest.fixture
async def tenants(database_dsn: str) -> AsyncIterator[Tenants]:
    async with real_shop(database_dsn) as shop:
        database, clock = shop.database(), ManualClock()
        orders = shop.orders(database)
        accounts = ShopAccounts(lambda made: Account(made.id, stages.NeverAsked()))
        policy = Policy(Continuous(Schedule()))
        engine = Engine(AtClock(orders, clock), accounts, policy, clock)
        chains = Chains(engine, ChainTable(database, orders.schema_cache), clock, 10.0)
        made = [await shop.integration(provider) for provider in ("znet", "internal")]
        yield Tenants(shop, database, orders, engine, chains, *made)


async def test_a_parent_ends_as_its_child_with_its_pin_and_an_event_of_its_own(
    tenants: Tenants,
) -> None:
    parent, child = await tenants.pair()
    assert await tenants.chains.step() == 0
    await tenants.end(child, Completed(Pin(PIN), f"tamam {PIN}"))
    assert await tenants.chains.step() == 1
    assert await tenants.status(parent) == ("done", PIN)
    (event,) = await tenants.shop.events(parent)
    assert (event["outcome"], event["cause"], event["has_pin"], event["repeat"]) == (
        *("completed", "child", True),
        False,
    )
    assert (event["account"], event["source"]) == (tenants.internal, "program")
    assert PIN not in str(event["message"])
    assert await tenants.chains.step() == 0, "once"
    row = await tenants.shop.row(parent)
    assert PIN not in f"{row['lastMessage']} {row['providerMessage']} {row['notes']}"


async def test_a_failed_child_fails_its_parent(tenants: Tenants) -> None:
    parent, child = await tenants.pair()
    await tenants.end(child, Cancelled("stok yok"))
    assert await tenants.chains.step() == 1
    assert await tenants.status(parent) == ("failed", None)
    assert (await tenants.shop.row(parent))["lastMessage"] == "stok yok"


@pytest.mark.long
@pytest.mark.parametrize("length", [2, 3, 50])
async def test_a_chain_of_any_length_ends_in_one_pass(tenants: Tenants, length: int) -> None:
    """Of which only the last order has been asked about at a provider."""
    ids = [new_id() for _ in range(length)]
    for n, order_id in enumerate(ids[:-1]):
        root = {"root_order_id": ids[0]} if n else {}
        await tenants.parent(ids[n + 1], id=order_id, **root)
    await tenants.child(ids[0], id=ids[-1])
    await tenants.end(ids[-1], Completed(Pin(PIN)))
    assert await tenants.chains.step() == length - 1
    assert [await tenants.status(order_id) for order_id in ids] == [("done", PIN)] * length
    causes = [(await tenants.shop.events(order_id))[0]["cause"] for order_id in ids]
    assert causes == ["child"] * (length - 1) + ["answer"]


@pytest.mark.parametrize(
    ("child", "expected"),
    [
        ({"status": "approved", "externalStatus": "done", "pinCode": PIN}, ("done", PIN)),
        ({"status": "Approved ", "externalStatus": "sent", "pinCode": PIN}, ("done", PIN)),
        ({"status": "rejected", "externalStatus": "sent"}, ("failed", None)),
        ({"status": "pending", "externalStatus": "failed"}, ("sent", None)),
        ({"status": "pending", "externalStatus": "done", "pinCode": PIN}, ("sent", None)),
        ({"status": "sent", "externalStatus": "sent"}, ("sent", None)),
        ({"status": "approved", "externalStatus": "done"}, ("done", None)),
    ],
)
async def test_a_child_has_ended_by_the_shops_own_status_and_never_by_its_external_one(
    tenants: Tenants, child: dict[str, Any], expected: tuple[str, str | None]
) -> None:
    parent, _ = await tenants.pair(status=child.pop("externalStatus"), age=90)
    await tenants.shop.connection.execute(
        'UPDATE product_orders SET status = $1, "pinCode" = $2 WHERE "providerId" = $3',
        *(child["status"], child.get("pinCode"), tenants.znet),
    )
    await tenants.chains.step()
    assert await tenants.status(parent) == expected


@pytest.mark.parametrize(
    "named",
    [
        {},
        {"root_order_id": "another"},
        {"chain_path": "another"},
        {"provider_referans": "1760000000000001", "externalOrderId": "1760000000000001"},
    ],
)
async def test_a_strangers_order_gives_nobody_its_pin(
    tenants: Tenants, named: dict[str, Any]
) -> None:
    """The parent names it, and it names nobody, or somebody else."""
    another = await tenants.parent(None)
    given = {name: another if value == "another" else value for name, value in named.items()}
    stranger = new_id()
    parent = await tenants.parent(stranger)
    await tenants.child(another, **{"root_order_id": None, **given, "id": stranger})
    await tenants.shop.set(stranger, status="approved", pinCode=PIN)
    assert await tenants.chains.step() == 0
    assert await tenants.status(parent) == ("sent", None)


@pytest.mark.parametrize(
    ("mine", "its"),
    [
        ({}, {"root_order_id": "parent"}),
        ({}, {"provider_referans": "parent"}),
        ({}, {"provider_referans": "parent", "externalOrderId": "parent"}),
        ({}, {"chain_path": '["root", "parent", "child"]'}),
        ({"chain_path": '["root","parent","child"]'}, {"chain_path": '["root","parent","child"]'}),
        ({"chain_path": '["root", "parent"]'}, {"chain_path": '["root","parent"]'}),
        ({"root_order_id": "root"}, {"root_order_id": "root"}),
        ({"root_order_id": "root"}, {"chain_path": '["root"]'}),
    ],
)
async def test_each_way_in_which_a_child_names_its_parent(
    tenants: Tenants, mine: dict[str, str], its: dict[str, str]
) -> None:
    ids = {name: new_id() for name in ("root", "parent", "child")}

    def named(values: dict[str, str]) -> dict[str, str]:
        for name, order_id in ids.items():
            values = {key: value.replace(name, order_id) for key, value in values.items()}
        return {key.replace(ids["root"], "root"): value for key, value in values.items()}

    await tenants.parent(None, id=ids["root"])
    await tenants.parent(ids["child"], id=ids["parent"], **named(mine))
    await tenants.child(ids["parent"], **{"root_order_id": None, **named(its), "id": ids["child"]})
    await tenants.shop.set(ids["child"], status="approved", pinCode=PIN)
    assert await tenants.chains.step() == 1
    assert await tenants.status(ids["parent"]) == ("done", PIN)
    assert await tenants.status(ids["root"]) == ("sent", None)


@pytest.mark.parametrize(
    "fresh",
    [
        {"externalOrderId": "parent", "provider_referans": "parent"},
        {"externalOrderId": "parent", "provider_referans": None},
        {"externalOrderId": "itself"},
        {"externalOrderId": "stub-child"},
        {"externalOrderId": "not an id"},
        {"externalOrderId": ""},
    ],
)
@pytest.mark.parametrize("is_named", [True, False])
@pytest.mark.parametrize("prefix", ["", "stub-"])
async def test_a_fresh_order_does_not_end_by_its_parent(
    tenants: Tenants, fresh: dict[str, str | None], prefix: str, *, is_named: bool
) -> None:
    """Nor by itself, whatever the row before it was sent says."""
    root, fresh_id, child = new_id(), new_id(), new_id()
    given = {
        key: value and {"parent": child, "itself": fresh_id}.get(value, value)
        for key, value in fresh.items()
    }
    await tenants.parent(None, id=root)
    path = f'["{root}", "{child}", "{fresh_id}"]'
    more = {"root_order_id": root, "chain_path": path} if is_named else {}
    await tenants.parent(f"{prefix}{fresh_id}", id=child, **more)
    await tenants.parent(None, **{"root_order_id": root, **more, "id": fresh_id, **given})
    await tenants.shop.set(child, status="approved", pinCode=PIN)
    assert await tenants.chains.step() == 0
    assert await tenants.status(fresh_id) == ("sent", None)


async def test_a_circle_ends_nobody_and_keeps_nobody_waiting(tenants: Tenants) -> None:
    ids = [new_id() for _ in range(3)]
    for n, order_id in enumerate(ids):
        await tenants.parent(ids[(n + 1) % 3], id=order_id)
    for n, order_id in enumerate(ids):
        await tenants.shop.set(order_id, root_order_id=ids[n - 1])
    pair = await tenants.pair()
    await tenants.end(pair[1], Completed(Pin(PIN)))
    assert await tenants.chains.step() == 1
    assert [await tenants.status(order_id) for order_id in ids] == [("sent", None)] * 3


async def test_a_child_that_is_deleted_or_reopened_ends_nobody(tenants: Tenants) -> None:
    deleted, gone = await tenants.pair()
    parent, child = await tenants.pair()
    for order_id in (gone, child):
        await tenants.end(order_id, Cancelled("stok yok"))
    await tenants.shop.connection.execute("DELETE FROM product_orders WHERE id = $1", gone)
    await tenants.shop.set(child, externalStatus="sent")
    assert await tenants.chains.step() == 0
    assert await tenants.status(deleted) == ("sent", None)
    await tenants.end(child, Completed(Pin(PIN)))
    assert await tenants.chains.step() == 1
    assert await tenants.status(parent) == ("done", PIN)


async def reopened(tenants: Tenants, order_id: str) -> str:
    row_writer = tenants.orders.row_writer
    async with tenants.database.transaction() as connection:
        return await Reopener(row_writer.table, row_writer.table_config).reopen(
            connection, order_id, "the provider was wrong", "Ay"
        )


async def test_reopened_by_a_person_a_child_takes_back_the_ends_that_it_led_to(
    tenants: Tenants,
) -> None:
    """Else its PIN would come into an order whose customer is paid back."""
    top, child = await tenants.pair()
    above = await tenants.parent(top)
    await tenants.shop.set(top, root_order_id=above)
    await tenants.end(child, Cancelled("stok yok"))
    assert await tenants.chains.step() == 2
    assert await reopened(tenants, child) == "sent"
    assert await tenants.chains.step() == 0
    for order_id in (child, top, above):
        assert await tenants.status(order_id) == ("sent", None)
        withdrawn, again = await tenants.shop.events(order_id)
        assert (withdrawn["repeat"], again["outcome"]) == (True, "reopened")
    await tenants.end(child, Completed(Pin(PIN)))
    assert await tenants.chains.step() == 2
    for order_id in (child, top, above):
        assert await tenants.status(order_id) == ("done", PIN)


async def test_a_child_stays_ended_once_the_shop_has_acted_on_its_parents_end(
    tenants: Tenants,
) -> None:
    parent, child = await tenants.pair()
    await tenants.end(child, Cancelled("stok yok"))
    assert await tenants.chains.step() == 1
    (event,) = await tenants.shop.events(parent)
    await tenants.shop.connection.execute(
        "UPDATE order_monitor_events SET consumed_at = now() WHERE id = $1", event["id"]
    )
    with pytest.raises(ReopenRefusedError, match=f"order {parent} .* the shop has acted on"):
        await reopened(tenants, child)
    assert await tenants.status(child) == ("failed", None)
    assert [e["repeat"] for e in await tenants.shop.events(child)] == [False]


async def test_a_parent_that_a_person_ended_again_stays_so_when_its_child_is_reopened(
    tenants: Tenants,
) -> None:
    parent, child = await tenants.pair()
    await tenants.end(child, Cancelled("stok yok"))
    assert await tenants.chains.step() == 1
    await tenants.shop.connection.execute(
        "INSERT INTO order_monitor_events (order_id, from_status, to_status, has_pin, outcome, source, cause, decided_by) "
        "VALUES ($1, 'sent', 'failed', false, 'failed', 'person', 'person', 'Ay')",
        parent,
    )
    assert await reopened(tenants, child) == "sent"
    assert await tenants.status(parent) == ("failed", None)


@pytest.mark.parametrize(
    "since",
    [
        {"externalStatus": "manual_required"},
        {"externalStatus": "not_sent", "provider_referans": None, "sentAt": None},
        {"externalStatus": "done"},
        {"externalStatus": "a word that nobody knows"},
    ],
)
async def test_an_event_whose_status_the_childs_row_has_no_more_ends_nobody(
    tenants: Tenants, since: dict[str, Any]
) -> None:
    """The shop has taken the order up again, or corrected its end."""
    parent, child = await tenants.pair()
    await tenants.end(child, Cancelled("stok yok"))
    await tenants.shop.set(child, **since)
    assert await tenants.chains.step() == 0
    assert await tenants.status(parent) == ("sent", None)
    await tenants.shop.set(child, externalStatus="failed", status="rejected")
    assert await tenants.chains.step() == 1
    assert await tenants.status(parent) == ("failed", None)


async def test_no_age_ends_an_order_that_waits_for_its_child(tenants: Tenants) -> None:
    """Not even where orders are given up blind, and its child contradicts itself."""
    parent, child = await tenants.pair()
    await tenants.end(child, Completed(None, "tamam"))
    await tenants.shop.set(child, status="rejected")
    rules = replace(tenants.orders.schema_cache.table_config.rules, give_up_blind=True)
    orders = tenants.shop.orders(tenants.database, rules=rules)
    table = ChainTable(tenants.database, orders.schema_cache)
    (end,) = await table.ended()
    assert end.answer is not None
    (result,) = await table.record([end.finding(end.answer, NOW + 90 * 86_400)])
    assert result.fate is WriteStatus.STUCK
    assert await tenants.status(parent) == ("sent", None)


@pytest.mark.parametrize(
    ("which", "reason"), [(1, "unknown_state"), (0, "rejected_by_database")], ids=["child", "it"]
)
async def test_where_rows_share_an_id_a_person_has_to_look(
    tenants: Tenants, which: int, reason: str
) -> None:
    connection, pair, fine = tenants.shop.connection, await tenants.pair(), await tenants.pair()
    for _, child in (pair, fine):
        await tenants.end(child, Cancelled("stok yok"))
    drop = "ALTER TABLE product_orders DROP CONSTRAINT product_orders_pkey CASCADE"
    await connection.execute(drop)
    again = "INSERT INTO product_orders SELECT * FROM product_orders WHERE id = $1"
    await connection.execute(again, pair[which])
    orders = tenants.shop.orders(tenants.database)
    store = ChainTable(tenants.database, orders.schema_cache)
    chains = Chains(tenants.engine, store, tenants.engine.context.clock, 10.0)
    assert await chains.step() == 1
    assert tenants.engine.state.stuck == {pair[0]: reason}
    assert await tenants.status(fine[0]) == ("failed", None)
    assert await tenants.status(pair[0]) == ("sent", None)


async def test_the_child_is_looked_at_again_under_the_lock(tenants: Tenants) -> None:
    """What was found a moment ago is not written if it holds no more."""
    parent, child = await tenants.pair()
    await tenants.end(child, Cancelled("stok yok"))
    table = ChainTable(tenants.database, tenants.orders.schema_cache)
    (end,) = await table.ended()
    assert end.answer is not None
    await tenants.shop.set(child, externalStatus="sent")
    (result,) = await table.record([end.finding(end.answer, 0.0)])
    assert result.fate is WriteStatus.RESENT
    await tenants.shop.set(child, externalStatus="failed")
    async with tenants.shop.connection.transaction():
        await tenants.shop.connection.execute(
            'UPDATE product_orders SET "lastMessage" = $2 WHERE id = $1', child, "x"
        )
        (result,) = await table.record([end.finding(end.answer, 0.0)])
        assert result.fate is WriteStatus.RESENT, "somebody is changing it"
    (result,) = await table.record([end.finding(Completed(Pin("WRONG-1234")), 1e9)])
    assert await tenants.status(parent) == ("failed", None), "the child's word, not the finding's"


@pytest.mark.parametrize(
    ("child", "kind"),
    [
        ({"status": "rejected"}, "unknown_state"),
        ({"status": "approved", "pinCode": "<table>AB12"}, "pin_unreadable"),
        ({"status": "approved", "pinCode": None, "manualNote": "AB12-CD34"}, "pin_unreadable"),
    ],
)
async def test_what_a_child_says_in_two_ways_is_for_a_person(
    tenants: Tenants, child: dict[str, str | None], kind: str
) -> None:
    parent, other = await tenants.pair()
    await tenants.end(other, Completed(None, "tamam"))
    await tenants.shop.set(other, **child)
    with capture_logs() as logs:
        for _ in range(3):
            assert await tenants.chains.step() == 0
    told = [(line["event"], line["reason"]) for line in logs if line["event"] == "order.stuck"]
    assert told == [("order.stuck", kind)], "once"
    assert tenants.engine.state.stuck == {parent: kind}
    sql = "SELECT order_id::text, kind FROM order_monitor_review WHERE closed_at IS NULL"
    rows = await tenants.shop.connection.fetch(sql)
    assert [(row["order_id"], row["kind"]) for row in rows] == [(parent, kind)]
    assert await tenants.status(parent) == ("sent", None)
    await tenants.shop.set(other, status="approved", pinCode=PIN, manualNote=None)
    assert await tenants.chains.step() == 1
    assert tenants.engine.state.stuck == {}


async def test_a_child_whose_pin_is_no_longer_in_its_row_is_for_a_person(tenants: Tenants) -> None:
    """Its event says that it had one: without it the parent's customer would get none."""
    parent, child = await tenants.pair()
    await tenants.end(child, Completed(Pin(PIN), "tamam"))
    await tenants.shop.set(child, pinCode=None)
    assert await tenants.chains.step() == 0
    assert await tenants.status(parent) == ("sent", None)
    assert tenants.engine.state.stuck == {parent: "pin_unreadable"}


async def test_a_pin_that_comes_late_goes_up_the_whole_chain(tenants: Tenants) -> None:
    top, child = new_id(), new_id()
    parent = await tenants.parent(child, root_order_id=await tenants.parent(None, id=top))
    await tenants.shop.set(top, externalOrderId=parent)
    await tenants.child(top, id=child)
    await tenants.end(child, Completed(None, "tamam"))
    assert await tenants.chains.step() == 2
    assert await tenants.status(top) == ("done", None)
    await tenants.shop.set(child, pinCode=PIN)
    assert await tenants.chains.step() == 2
    assert [await tenants.status(i) for i in (top, parent)] == [("done", PIN)] * 2
    assert [event["repeat"] for event in await tenants.shop.events(top)] == [False, True]


async def test_a_late_pin_goes_into_no_parent_that_was_paid_back(tenants: Tenants) -> None:
    pairs = [await tenants.pair() for _ in range(2)]
    for _, child in pairs:
        await tenants.end(child, Completed(None, "tamam"))
    assert await tenants.chains.step() == 2
    (approved, one), (rejected, other) = pairs
    await tenants.shop.set(approved, status="approved")
    await tenants.shop.set(rejected, status="rejected")
    for child in (one, other):
        await tenants.shop.set(child, pinCode=f"{PIN}-{child[:4]}")
    assert await tenants.chains.step() == 1
    assert await tenants.status(approved) == ("done", f"{PIN}-{one[:4]}")
    assert await tenants.status(rejected) == ("done", None)


async def test_a_late_pin_goes_into_no_parent_that_its_child_did_not_end(tenants: Tenants) -> None:
    parent, child = await tenants.pair()
    await tenants.end(child, Completed(None, "tamam"))
    assert await tenants.chains.step() == 1
    connection, ends = tenants.shop.connection, "WHERE order_id = $1::text::uuid"
    await connection.execute(
        f"UPDATE order_monitor_events SET source = 'person', cause = 'person' {ends}", parent
    )
    await tenants.shop.set(child, pinCode=PIN)
    assert await tenants.chains.step() == 0
    assert await tenants.status(parent) == ("done", None)
    await connection.execute(f"UPDATE order_monitor_events SET cause = 'child' {ends}", parent)
    assert await tenants.chains.step() == 1


async def test_a_late_pin_that_another_order_has_is_told_of_once(tenants: Tenants) -> None:
    parent, child = await tenants.pair()
    await tenants.end(child, Completed(None, "tamam"))
    another = await tenants.pair()
    await tenants.end(another[1], Completed(Pin(PIN)))
    assert await tenants.chains.step() == 2
    await tenants.shop.set(child, pinCode=PIN)
    with capture_logs() as logs:
        for _ in range(3):
            assert await tenants.chains.step() == 0
            assert tenants.engine.state.stuck == {parent: "pin_duplicate"}
    assert [line["event"] for line in logs].count("order.stuck") == 1
    await tenants.shop.set(child, pinCode=None)
    assert await tenants.chains.step() == 0
    assert tenants.engine.state.stuck == {}


async def test_a_settled_or_held_parent_is_left_alone(tenants: Tenants) -> None:
    """By the shop's own word, or a person's pause."""
    settled, child = await tenants.pair()
    held, other = await tenants.pair()
    for order_id in (child, other):
        await tenants.end(order_id, Cancelled("stok yok"))
    await tenants.shop.set(settled, status="approved")
    table = ChainTable(tenants.database, tenants.orders.schema_cache)
    assert {end.order.id for end in await table.ended()} == {held}, "nor found at each pass"
    async with tenants.database.transaction() as connection:
        await Pauses("public").pause(connection, ends_of(tenants.internal), "x", "Ay", None)
    assert await tenants.chains.step() == 0
    assert await tenants.status(held) == ("sent", None)
    async with tenants.database.transaction() as connection:
        await Pauses("public").resume(connection, [ends_of(tenants.internal)])
    assert await tenants.chains.step() == 1
    assert await tenants.status(settled) == ("sent", None)
    assert await tenants.status(held) == ("failed", None)


async def test_a_flood_of_children_is_no_flood_of_the_parents_account(tenants: Tenants) -> None:
    """The children's own ends were believed already."""
    pairs = [await tenants.pair() for _ in range(30)]
    for _, child in pairs:
        await tenants.shop.set(child, status="rejected")
    cache = tenants.orders.schema_cache
    rules = replace(cache.table_config.rules, brake_hold=3600.0)
    cache.reconfigure(replace(cache.table_config, rules=rules))
    assert await tenants.chains.step() == 30


async def test_a_failed_child_fails_its_parent_without_a_second_answer(tenants: Tenants) -> None:
    """The child's own cancellation was confirmed already, and no provider is asked again."""
    parent, child = await tenants.pair()
    await tenants.shop.set(child, status="rejected")
    cache = tenants.orders.schema_cache
    rules = replace(cache.table_config.rules, confirm_cancelled=300.0)
    cache.reconfigure(replace(cache.table_config, rules=rules))
    assert await tenants.chains.step() == 1
    assert await tenants.status(parent) == ("failed", None)


async def test_while_the_board_is_held_nothing_is_written(tenants: Tenants) -> None:
    parent, child = await tenants.pair()
    await tenants.end(child, Completed(Pin(PIN)))
    tenants.engine.context.hold_for("settings", "they differ")
    assert await tenants.chains.step() == 0
    assert await tenants.status(parent) == ("sent", None)


async def test_a_pass_that_the_database_does_not_take_is_made_up_for(tenants: Tenants) -> None:
    parent, child = await tenants.pair()
    await tenants.end(child, Completed(Pin(PIN)))
    away = "ALTER TABLE order_monitor_events RENAME TO {}"
    await tenants.shop.connection.execute(away.format("away"))
    assert not await tenants.chains.attempt()
    assert await tenants.status(parent) == ("sent", None)
    back = "ALTER TABLE away RENAME TO order_monitor_events"
    await tenants.shop.connection.execute(back)
    assert await tenants.chains.attempt()
    assert await tenants.status(parent) == ("done", PIN)


@pytest.mark.parametrize(
    ("takes", "begin"),
    [
        ([2.0, 2.0, 2.0, 2.0], [0.0, 12.0, 214.0, 416.0]),
        # One that was held up, as by a lock, costs no more than the others.
        ([0.01, 6.0, 0.01, 0.01], [0.0, 10.01, 26.01, 36.02]),
    ],
)
async def test_a_slow_pass_is_made_more_rarely(
    tenants: Tenants, takes: list[float], begin: list[float]
) -> None:
    clock, passes = ManualClock(), []

    class Slow(ChainTable):
        async def ended(self) -> list[ChainEnd]:
            passes.append(clock.elapsed)
            clock.elapsed += takes[len(passes) - 1]
            return await super().ended()

    store = Slow(tenants.database, tenants.orders.schema_cache)
    tenants.engine.state.scans = 1
    run = asyncio.create_task(Chains(tenants.engine, store, clock, 10.0).run())
    for _ in takes[1:]:
        while (alarm := clock.next_alarm()) is None:
            await asyncio.sleep(0.001)
        clock.ring(alarm)
        while clock.next_alarm() is None:
            await asyncio.sleep(0.001)
    run.cancel()
    assert passes == pytest.approx(begin)


async def test_one_refused_row_keeps_no_other_from_its_end(tenants: Tenants) -> None:
    pairs = [await tenants.pair() for _ in range(3)]
    for _, child in pairs:
        await tenants.end(child, Cancelled("stok yok"))
    await tenants.shop.connection.execute(
        f"ALTER TABLE product_orders ADD CHECK (id <> '{pairs[1][0]}' OR \"externalStatus\" = 'sent')"
    )
    assert await tenants.chains.step() == 2
    assert tenants.engine.state.stuck == {pairs[1][0]: "rejected_by_database"}


async def test_a_parent_sent_at_no_date_ends_too(tenants: Tenants) -> None:
    """It once ended the daemon, at each start again."""
    pairs = [await tenants.pair() for _ in range(2)]
    await tenants.shop.connection.execute(
        """UPDATE product_orders SET "sentAt" = '-infinity' WHERE id = $1::uuid""", pairs[0][0]
    )
    for _, child in pairs:
        await tenants.end(child, Cancelled("iptal"))
    assert await tenants.chains.step() == 2
    for parent, _ in pairs:
        assert await tenants.status(parent) == ("failed", None)
    assert (await tenants.shop.row(pairs[0][0]))["durationMs"] == 2**31 - 1


@pytest.mark.long
async def test_the_ended_children_are_found_by_indexes_alone(tenants: Tenants) -> None:
    """Among very many orders that are of no concern."""
    connection = tenants.shop.connection
    await connection.execute(
        'INSERT INTO product_orders ("externalStatus", status, "providerId", "externalOrderId") '
        "SELECT 'done', 'approved', $1, gen_random_uuid()::text FROM generate_series(1, 30000)",
        tenants.internal,
    )
    pairs = [await tenants.pair() for _ in range(20)]
    for _, child in pairs:
        await tenants.shop.set(child, status="approved")
    await connection.execute("ANALYZE product_orders")
    async with watched(tenants.shop.dsn) as (database, asked):
        orders = tenants.shop.orders(database)
        ends = await ChainTable(database, orders.schema_cache).ended()
    assert {end.order.id for end in ends} == {parent for parent, _ in pairs}
    (sql,) = [text for text in asked if text.startswith("WITH RECURSIVE p")]
    plan = "\n".join(row[0] for row in await connection.fetch(f"EXPLAIN {sql}"))
    assert "Seq Scan on product_orders" not in plan, plan


async def test_an_event_that_moves_no_money_is_no_news_of_a_child(tenants: Tenants) -> None:
    parent, child = await tenants.pair()
    await tenants.end(child, Cancelled("stok yok"))
    await tenants.shop.connection.execute(
        "INSERT INTO order_monitor_events (order_id, from_status, to_status, has_pin, outcome) "
        "VALUES ($1, 'sent', 'sent', false, 'late')",
        child,
    )
    assert await tenants.chains.step() == 1
    assert await tenants.status(parent) == ("failed", None)


async def test_an_order_that_waits_for_its_child_is_named_so(tenants: Tenants) -> None:
    parent = await tenants.parent(None)
    package = new_id()
    await tenants.shop.route(package, "internal")
    routed = await tenants.shop.add(packageId=package)
    await tenants.engine.scan()
    assert tenants.engine.skips == dict.fromkeys((parent, routed), "waits_for_child")


@pytest.mark.parametrize("is_first", [True, False])
async def test_a_person_and_a_child_tell_one_end_of_a_parent_once(
    tenants: Tenants, *, is_first: bool
) -> None:
    """Where the package's route alone says that another tenant took it. The shop then saves an old
    copy of it.
    """
    package, child = new_id(), new_id()
    await tenants.shop.route(package, "internal")
    parent = await tenants.parent(child, providerId=None, packageId=package)
    await tenants.child(parent, id=child)

    async def resolve() -> None:
        order = (await tenants.orders.reader.among([parent]))[parent]
        account = account_of(order)
        finding = CheckResult(order, Cancelled("no"), NOW, account=account, by_person=True)
        (result,) = await tenants.orders.record([finding])
        assert result.fate is WriteStatus.WRITTEN

    if is_first:
        await resolve()
        await tenants.shop.set(parent, externalStatus="sent")
    await tenants.end(child, Cancelled("stok yok"))
    assert await tenants.chains.step() == 1
    if not is_first:
        await tenants.shop.set(parent, externalStatus="sent")
        await resolve()
    assert [event["repeat"] for event in await tenants.shop.events(parent)] == [False, True]


def test_no_orders_own_way_leads_through_here() -> None:
    room = Path(__file__).parents[2] / "order_monitor"
    named = {
        p.relative_to(room).as_posix()
        for p in room.rglob("*.py")
        if ".chains import" in p.read_text()
    }
    assert named == {"app.py", "watch/chains.py"}


@pytest.mark.parametrize("length", [4, 5])
@pytest.mark.parametrize("link", ["root", "path"])
async def test_a_code_goes_all_the_way_up(tenants: Tenants, length: int, link: str) -> None:
    """Also where no common root is named: each child's code was judged when the child got it."""
    ids = [new_id() for _ in range(length)]
    for place, order_id in enumerate(ids[:-1]):
        more: dict[str, Any] = {"providerId": tenants.internal}
        if link == "path":
            more["chain_path"] = json.dumps(ids[: place + 1])
        elif place:
            more["root_order_id"] = ids[0]
        await tenants.parent(ids[place + 1], id=order_id, **more)
    last = {"root_order_id": ids[0]} if link == "root" else {"chain_path": json.dumps(ids)}
    await tenants.child(ids[-2], id=ids[-1], **({"root_order_id": None} | last))
    await tenants.orders.schema_cache.complete()
    await tenants.end(ids[-1], Completed(Pin(PIN)))
    for _ in range(length):
        await tenants.chains.step()
    assert [await tenants.status(order_id) for order_id in ids] == [("done", PIN)] * length


@pytest.mark.parametrize(
    "text",
    ["XK7P Q2MN 9RTW", "Kod: FF9MJ31CXKRG", "FFMJCXKRGH", "user: ali pass: x7Kq2", "AB12 CD34"],
)
async def test_a_child_whose_text_may_be_its_code_is_for_a_person(
    tenants: Tenants, text: str
) -> None:
    parent, child = await tenants.pair(manualNote=text)
    await tenants.shop.set(child, status="approved", externalStatus="done")
    await tenants.chains.step()
    assert await tenants.status(parent) == ("sent", None)
    kinds = await tenants.shop.connection.fetch(
        "SELECT kind FROM order_monitor_review WHERE order_id::text = $1", parent
    )
    assert [row["kind"] for row in kinds] == ["pin_unreadable"]
