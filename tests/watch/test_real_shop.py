"""The tables of the running shop with every kind of order that it has: each ends, or is named with
its reason.
"""

from typing import Any

import pytest

from order_monitor.core.answer import Completed
from order_monitor.core.check_result import CheckResult, WriteStatus
from order_monitor.core.decision import StuckReason
from order_monitor.core.order import Order, SkipReason
from order_monitor.core.pin import Pin
from order_monitor.core.schedule import Continuous, Schedule
from order_monitor.shop.reading.comparison import Verdict, read_comparison
from order_monitor.shop.writing.chains import ChainTable
from order_monitor.watch.chains import Chains
from order_monitor.watch.engine import Engine
from order_monitor.watch.policy import Policy
from order_monitor.watch.routing import ShopAccounts
from tests.support.clocks import Drive, ManualClock
from tests.support.engines import AtClock
from tests.support.real_shop import Providers, RealShop, code_of, new_id, shop
from tests.support.shops import NOW

__all__ = ["shop"]


@pytest.mark.long
async def test_each_order_ends_or_is_named_with_its_reason(shop: RealShop) -> None:  # noqa: PLR0915 - a shop has many kinds
    znet, barakat, internal, off, strange = [
        await shop.integration(provider, enabled=is_on)
        for provider, is_on in (
            *(("znet", True), ("barakat", True), ("internal", True)),
            *(("znet", False), ("gpay", True)),
        )
    ]
    routed, two, codes, by_hand, tenants, nowhere = [new_id() for _ in range(6)]
    await shop.route(routed, "external", znet.upper())
    await shop.route(routed, "codes", None)
    for target in (znet, barakat):
        await shop.route(two, "external", target)
    await shop.route(codes, "codes", None)
    await shop.route(by_hand, "manual", None)
    await shop.route(tenants, "internal", None)

    kinds: dict[str, tuple[str, Any]] = {}

    async def add(kind: str, expected: str | SkipReason, **values: Any) -> str:
        own = str(values.pop("id", new_id()))
        given: dict[str, Any] = {k: own if v == "own" else v for k, v in values.items()}
        order_id = await shop.add(id=own, **given)
        kinds[order_id] = (kind, expected)
        return order_id

    at_znet, at_barakat = {"providerId": znet}, {"providerId": barakat}
    own = {"externalOrderId": "own"}
    await add(
        *("znet, Django", "1760885915220128"),
        **{**at_znet, **own, "provider_referans": "1760885915220128", "status": "processing"},
    )
    await add("znet, NestJS", "4711001", **at_znet, externalOrderId="4711001")
    await add(
        *("znet, by its route", "1760885915220129"),
        packageId=routed,
        providerId="",
        provider_referans="1760885915220129",
    )
    for n, word in enumerate(("unknown", "timeout", "connection_error", "not_found", "wait")):
        reference = f"176088591522014{n}"
        await add(
            f"a poll's {word}", reference, status=word, **at_znet, provider_referans=reference
        )
    await add("its own uuid", SkipReason.BAD_REFERENCE, **at_znet, **own)
    await add("a uuid", SkipReason.BAD_REFERENCE, **at_znet, provider_referans=new_id())
    await add("nothing saved", SkipReason.NO_REFERENCE, **at_znet)
    ids = {"provider_referans": "ID_77", "externalOrderId": "ID_77"}
    await add("client API", "ID_77", **at_barakat, **ids)
    await add("client API, its own uuid", "own", **at_barakat, **own, provider_referans="own")
    await add("client API, not saved", "own", **at_barakat)
    await add("no date", SkipReason.NO_SENT_AT, age=None, **at_znet, provider_referans="1")
    await add("codes", SkipReason.NO_PROVIDER, age=None, providerId="__codes__", manualNote="X1")
    await add("codes, routed", SkipReason.NO_PROVIDER, age=None, packageId=codes)
    await add("by hand", SkipReason.NO_PROVIDER, age=None, providerId="MANUAL", mode="MANUAL")
    await add("by hand, routed", SkipReason.NO_PROVIDER, packageId=by_hand)
    await add("two accounts", SkipReason.SEVERAL_ACCOUNTS, packageId=two, provider_referans="2")
    await add("no route", SkipReason.NO_ROUTING, packageId=nowhere, provider_referans="3")
    await add("disabled", SkipReason.DISABLED, providerId=off, provider_referans="4")
    await add("no integration", SkipReason.NO_INTEGRATION, providerId=new_id(), **ids)
    await add("another provider", SkipReason.OTHER_PROVIDER, providerId=strange, **ids)
    await add(*("settled", SkipReason.SETTLED_BY_SHOP), **at_znet, provider_referans="5")
    settled = next(i for i, (kind, _) in kinds.items() if kind == "settled")
    await shop.set(settled, status="approved")
    await add("another word", SkipReason.UNKNOWN_STATUS, status="Sent", **at_znet)
    # A chain of three tenants, whose last order is znet's.
    first, second, third = new_id(), new_id(), new_id()
    chain = {"providerId": internal, "provider_referans": "own"}
    last = "1760885915220190"
    await add("a tenant's", last, id=first, **chain, externalOrderId=second)
    await add(
        "a tenant's tenant's", last, id=second, **chain, externalOrderId=third, root_order_id=first
    )
    await add(
        *("the last tenant's", last),
        **{"id": third, **at_znet, **own, "provider_referans": last, "root_order_id": first},
    )
    away = new_id()
    await add("its child is elsewhere", away, **chain, externalOrderId=away)
    await add("waits", SkipReason.WAITS_FOR_CHILD, **chain, externalOrderId=f"stub-{away}")
    await add("waits, routed", SkipReason.WAITS_FOR_CHILD, packageId=tenants)
    nobodys = [
        await shop.add(status, age=None, providerId=word, externalOrderId=external)
        for status, word, external in (
            *(("forwarded", "CHAIN_FORWARD", f"stub-{third}"), ("not_sent", None, None)),
            *(("manual_required", "MANUAL", None), ("done", znet, None)),
        )
    ]

    clock = ManualClock()
    providers, database = Providers(clock), shop.database()
    orders = shop.orders(database)
    schedule = Continuous(Schedule(jitter=0))
    accounts = ShopAccounts(providers.open)
    engine = Engine(AtClock(orders, clock), accounts, Policy(schedule), clock)
    chains = Chains(engine, ChainTable(database, orders.schema_cache), clock, 10.0)
    async with Drive(engine, clock) as drive:
        await drive.run(200, scan_every=10)
        assert await chains.step() == 2
        await drive.run(20, scan_every=10)

    found: dict[str, Any] = {}
    for order_id in kinds:
        row = await shop.row(order_id)
        found[order_id] = row["pinCode"] if row["externalStatus"] == "done" else None
        found[order_id] = found[order_id] or engine.skips.get(order_id, "nothing is said of it")
    expected = {
        order_id: want if isinstance(want, SkipReason) else code_of(want.replace("own", order_id))
        for order_id, (_, want) in kinds.items()
    }
    named = {kinds[i][0]: (found[i], expected[i]) for i in kinds if found[i] != expected[i]}
    assert named == {}
    assert [row["externalStatus"] for row in [await shop.row(i) for i in nobodys]] == [
        *("forwarded", "not_sent", "manual_required", "done")
    ]
    assert not {i for i in nobodys if i in engine.skips}, "and of these nobody need hear"
    by_kind = {kind for kind, name in providers.asked if name in kinds}
    assert by_kind == {"uuid"}, (
        "no order is asked about by a UUID but with uuid=1, and never at znet"
    )
    for order_id in (i for i in kinds if not isinstance(expected[i], SkipReason)):
        ends = [event["outcome"] for event in await shop.events(order_id)]
        assert ends == ["completed"], kinds[order_id]


async def test_what_another_monitor_ended_is_found_by_what_it_was_asked_under(
    shop: RealShop,
) -> None:
    """Not all of these orders have a reference of their own."""
    znet, barakat = [await shop.integration(provider) for provider in ("znet", "barakat")]
    ids = [
        await shop.add(externalOrderId="1760000000000777", providerId=znet),
        await shop.add(externalOrderId="ID_77", providerId=barakat),
        await shop.add(provider_referans="1760000000000778\n", providerId=znet),
    ]
    orders = shop.orders(observes=True)
    await orders.prepare()
    early, *_ = observed = await orders.reread(list((await orders.reader.among(ids)).values()))
    store = orders.observations
    for order in observed[1:]:
        answer = Completed(Pin(f"PIN-{order.id[:8]}"))
        found = CheckResult(order, answer, NOW, account=order.integration or "")
        (result,) = await store.record([found], {})
        assert result.fate is WriteStatus.OBSERVED
    for order_id in ids:
        await shop.set(order_id, externalStatus="done", pinCode=f"PIN-{order_id[:8]}")
    ended = await store.ended_elsewhere(NOW + 5)
    assert [one.order.id for one in ended] == [early.id], "each is asked about once"
    sql = "SELECT order_id::text, their_end_at FROM order_monitor_observed"
    rows = await shop.connection.fetch(sql)
    assert {row[0]: row[1].timestamp() for row in rows} == {o.id: NOW + 5 for o in observed[1:]}
    compared = await read_comparison(shop.database(), orders, 1e9)
    assert [one.verdict for one in compared] == [Verdict.SAME] * 2


async def test_an_orders_columns_are_read_in_the_order_of_its_fields(shop: RealShop) -> None:
    await shop.add(providerId=await shop.integration("znet"))
    orders = shop.orders()
    await orders.prepare()
    (row,) = await shop.connection.fetch(orders.reader.queries.scan_sql())
    assert [*row.keys(), "ended_at"] == list(Order.__annotations__)


@pytest.mark.parametrize("blank", [None, "", " ", "\t", "\r\n"])
async def test_a_twin_is_found_by_its_external_id_where_its_reference_names_nothing(
    shop: RealShop, blank: str | None
) -> None:
    reference, znet = "1760000000000009", await shop.integration("znet")
    await shop.connection.execute('CREATE INDEX ON product_orders ("externalOrderId")')
    order_id = await shop.add(provider_referans=reference, providerId=znet)
    await shop.add(provider_referans=blank, externalOrderId=reference, providerId=znet)
    orders = shop.orders()
    await orders.prepare()
    (order,) = await orders.reread(list((await orders.reader.among([order_id])).values()))
    found = CheckResult(order, Completed(Pin("AB12-CD34")), NOW + 10, account=znet)
    (result,) = await orders.record([found])
    assert result.stuck is StuckReason.REFERENCE_TWICE


async def test_an_order_without_a_reference_is_found_by_another_that_names_its_id(
    shop: RealShop,
) -> None:
    """Both are asked about under the one's own id: neither may have the PIN of the other."""
    account = await shop.integration("barakat")
    victim = await shop.add(providerId=account)
    other = await shop.add(providerId=account, provider_referans=victim, externalOrderId=victim)
    orders = shop.orders()
    await orders.prepare()
    for order_id in (other, victim):
        (order,) = await orders.reread(list((await orders.reader.among([order_id])).values()))
        assert order.reference == victim
        pin = Pin(f"PIN-{order_id[:8]}")
        (result,) = await orders.record([CheckResult(order, Completed(pin), NOW, account=account)])
        assert result.stuck is StuckReason.REFERENCE_TWICE
        assert (await shop.row(order_id))["pinCode"] is None
