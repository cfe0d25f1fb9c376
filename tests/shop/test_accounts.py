"""Many tenants, many accounts, in the shop's own tables and in both spellings.

Each account its own world.
"""

from collections import Counter
from dataclasses import replace
from typing import Any

import httpx
import pytest

from order_monitor.core.answer import Completed
from order_monitor.core.check_result import CheckResult, WriteStatus
from order_monitor.core.errors import SettingsError, ShopError, ShopUnavailableError
from order_monitor.core.order import Order, Route, SkipReason
from order_monitor.core.pin import Pin
from order_monitor.shop.accounts.pauses import Pauses
from order_monitor.shop.accounts.tables import Integration
from order_monitor.shop.migration import Migration
from order_monitor.shop.reading.orders import Part, Slice
from order_monitor.watch.account import SLOW_AFTER, Account
from order_monitor.watch.routing import OneAccount, ShopAccounts, asked_of, label, names_of
from order_monitor.watch.system_clock import SystemClock
from tests.support.engines import AtClock, text
from tests.support.market import PLAIN_TABLES, Market, Panels, Silent, market, new_id, running
from tests.support.shops import LAYOUT, NOW, Shop

__all__ = ["market"]


async def test_an_order_finds_its_account(market: Market) -> None:
    tenant, other, package = new_id(), new_id(), new_id()
    routed, own, elsewhere = [await market.integration(tenant) for _ in range(3)]
    await market.route(tenant, package, routed)
    await market.route(other, package, elsewhere)
    await market.route(None, package, own)
    expected = {
        await market.shop.add(tenant_id=tenant, package_id=package): routed,
        await market.shop.add(tenant_id=tenant, package_id=package, provider_id=own): own,
        await market.shop.add(tenant_id=other, package_id=package): elsewhere,
        await market.shop.add(tenant_id=None, package_id=package): own,
    }
    unrouted = await market.shop.add(tenant_id=tenant, package_id=new_id())
    scan = await market.orders().scan()
    found = {o.id: (o.integration, o.route != Route.NONE) for o in scan.orders}
    assert found == {
        **{i: (target, True) for i, target in expected.items()},
        unrouted: (None, False),
    }
    assert scan.integrations is not None
    assert {i.id for i in scan.integrations} == {routed, own, elsewhere}
    for wanted in ([routed], [own, elsewhere], []):
        part = await market.orders().scan(Part(of=wanted))
        assert {o.id for o in part.orders} == {i for i, key in expected.items() if key in wanted}
        assert not part.is_whole


@pytest.mark.parametrize(
    ("provider", "reference", "external", "expected"),
    [
        ("znet", "1760885915220128", "own", "1760885915220128"),
        ("znet", None, "1234567", "1234567"),
        ("znet", " ", " 1234567 ", "1234567"),
        ("znet", None, "own", SkipReason.BAD_REFERENCE),
        ("znet", "own", "1234567", SkipReason.BAD_REFERENCE),
        ("znet", None, "ID_12345", SkipReason.BAD_REFERENCE),
        ("znet", None, "stub-own", SkipReason.BAD_REFERENCE),
        ("znet", None, None, SkipReason.NO_REFERENCE),
        ("znet", "", " ", SkipReason.NO_REFERENCE),
        ("barakat", "ID_1", "own", "ID_1"),
        ("barakat", None, "ID_2", "ID_2"),
        ("apstore", "", None, "own"),
        ("apstore", None, "own", "own"),
    ],
)
async def test_each_provider_is_asked_by_a_reference_that_it_knows(
    market: Market,
    provider: str,
    reference: str | None,
    external: str | None,
    expected: SkipReason | str,
) -> None:
    shop, own = market.shop, new_id()
    column = shop.spelling.name("external_order_id")
    await shop.connection.execute(f'ALTER TABLE product_orders ADD COLUMN "{column}" varchar')
    account = await market.integration(None, provider=provider, apiToken="t")
    values = {"provider_referans": reference, "external_order_id": external, "provider_id": account}
    given = {k: v and v.replace("own", own) for k, v in values.items()}
    await shop.add(order_id=own, reference="", noted=False)
    await shop.set(own, **given)
    orders = market.orders()
    scan = await orders.scan()
    accounts = ShopAccounts(lambda made: Account(label(made), Silent()))
    accounts.update(scan.integrations or [])
    (order,) = scan.orders
    found = asked_of(accounts, order, NOW)
    wanted = expected.replace("own", own) if not isinstance(expected, SkipReason) else expected
    assert (found if isinstance(found, SkipReason) else order.reference.strip()) == wanted
    if isinstance(expected, SkipReason):
        return
    assert (await orders.reread([order]))[0].registered
    (again,) = (await orders.scan()).orders
    assert again.registered, "what is noted is what is asked by"
    (result,) = await orders.record([CheckResult(order, Completed(None), NOW, account=account)])
    assert result.fate is WriteStatus.WRITTEN, "the locked row is compared with the same"


async def test_a_reference_saved_meanwhile_is_another_dispatch(market: Market) -> None:
    account = await market.integration(None, provider="barakat", apiToken="t")
    own = await market.shop.add(reference="", provider_id=account, noted=False)
    orders = market.orders()
    (order,) = await orders.reread((await orders.scan()).orders)
    assert order.reference == own
    await market.shop.set(own, provider_referans="ID_7")
    answer = Completed(Pin("AB12-CD34"))
    (result,) = await orders.record([CheckResult(order, answer, NOW, account=account)])
    assert result.fate is WriteStatus.RESENT


async def test_an_accounts_id_is_the_same_in_any_case(market: Market) -> None:
    tenant, package = new_id(), new_id()
    account = await market.integration(tenant)
    await market.route(tenant, package, account.upper())
    await market.shop.add(provider_id=f" {account.upper()} ")
    await market.shop.add(tenant_id=tenant, package_id=package)
    await market.shop.add(tenant_id=tenant, package_id=package, provider_id="")
    assert {o.integration for o in (await market.orders().scan()).orders} == {account}
    tables = "ALTER TABLE integrations ALTER COLUMN id TYPE varchar(40)"
    await market.shop.connection.execute(tables)
    await market.shop.connection.execute("UPDATE integrations SET id = upper(id)")
    scan = await market.orders().scan()
    assert [i.id for i in scan.integrations or []] == [account]


@pytest.mark.parametrize(
    ("kinds", "expected"),
    [
        (["external"], "account"),
        (["EXTERNAL ", "codes", "manual"], "account"),
        (["codes", "external"], "account"),
        (["external", "external"], SkipReason.SEVERAL_ACCOUNTS),
        (["codes"], SkipReason.NO_PROVIDER),
        (["manual", "internal_codes"], SkipReason.NO_PROVIDER),
    ],
)
async def test_an_external_route_comes_before_codes_and_orders_by_hand(
    market: Market, kinds: list[str], expected: str
) -> None:
    """Whatever account a route of codes or by hand still names."""
    package, made = new_id(), []
    kind = '"providerType"' if market.is_shop else "provider_type"
    for word in kinds:
        made.append(await market.integration(None))
        await market.route(None, package, made[-1])
        target = '"primaryProviderId"' if market.is_shop else "primary_provider_id"
        sql = f"UPDATE package_routing SET {kind} = $1 WHERE {target} = $2"
        await market.shop.connection.execute(sql, word, made[-1])
    await market.shop.add(package_id=package, reference="", sent_at=None, noted=False)
    scan = await market.orders().scan()
    accounts = ShopAccounts(lambda i: Account(i.id, Silent()))
    accounts.update(scan.integrations or [])
    found = accounts.account_of(scan.orders[0])
    external = [i for i, k in zip(made, kinds, strict=True) if k.strip().lower() == "external"]
    wanted = external[0] if expected == "account" else expected
    assert (found.key if isinstance(found, Account) else found) == wanted


@pytest.mark.parametrize("word", ["MANUAL", "manual", "CHAIN_FORWARD", "__codes__", "codes"])
def test_what_nobody_was_sent_lacks_nothing(word: str) -> None:
    accounts = directory()
    accounts.update([integration()])
    order = Order("o", "sent", None, "", integration=word)
    assert asked_of(accounts, order, NOW) is SkipReason.NO_PROVIDER
    assert asked_of(accounts, order._replace(settled=True), NOW) is SkipReason.SETTLED_BY_SHOP


async def test_two_routes_for_one_package_do_not_double_an_order(market: Market) -> None:
    tenant, package = new_id(), new_id()
    for _ in range(2):
        await market.route(tenant, package, await market.integration(tenant))
    await market.shop.add(tenant_id=tenant, package_id=package, noted=False)
    (order,) = (await market.orders().scan()).orders
    assert (order.integration, order.route) == (None, Route.SEVERAL), "whose it is, is for a person"


async def test_accounts_are_read_again_now_and_then_and_when_a_new_one_is_named(
    market: Market,
) -> None:
    first = await market.integration(None)
    await market.shop.add(provider_id=first)
    orders = market.orders()
    assert (await orders.scan()).integrations is not None
    assert (await orders.scan()).integrations is None, "not at every scan"
    second = await market.integration(None)
    await market.shop.add(provider_id=second)
    read = (await orders.scan()).integrations
    assert read is not None
    assert {i.id for i in read} == {first, second}
    await market.shop.add(provider_id=new_id())
    assert (await orders.scan()).integrations is not None
    assert (await orders.scan()).integrations is None, (
        "an account that is not there is not looked for each time"
    )


async def test_accounts_read_by_a_look_that_failed_are_read_again_at_the_next(
    market: Market,
) -> None:
    await market.shop.add(provider_id=await market.integration(None))
    _ = [line async for line in Migration(market.shop.database(), LAYOUT, SystemClock()).apply()]
    orders = market.orders()
    await orders.prepare()
    await market.shop.connection.execute("ALTER TABLE order_monitor_events RENAME TO away")
    with pytest.raises(ShopError):
        await orders.scan()
    await market.shop.connection.execute("ALTER TABLE away RENAME TO order_monitor_events")
    assert (await orders.scan()).integrations is not None


async def test_the_login_shows_in_no_repr(market: Market) -> None:
    await market.integration(None, password="SIFRE-CANARY", kod="KOD-CANARY")
    assert "CANARY" not in repr(await market.orders().scan())


@pytest.mark.parametrize("column", ["proxy varchar(255)", "proxy_url text", '"proxyUrl" text'])
async def test_an_integration_may_have_a_proxy_of_its_own(market: Market, column: str) -> None:
    with_it, without = await market.integration(None), await market.integration(None)
    await market.shop.connection.execute(f"ALTER TABLE integrations ADD COLUMN {column}")
    await market.shop.connection.execute(
        f"UPDATE integrations SET {column.split(maxsplit=1)[0]} = ' http://u:CANARY@proxy.example:1 ' WHERE id = $1::uuid",
        with_it,
    )
    read = (await market.orders().scan()).integrations
    assert read is not None
    assert {i.id: i.proxy for i in read} == {
        with_it: "http://u:CANARY@proxy.example:1",
        without: "",
    }
    assert "CANARY" not in repr(read)


async def test_a_column_called_proxy_that_holds_no_text_is_something_else(market: Market) -> None:
    await market.integration(None)
    await market.shop.connection.execute(
        "ALTER TABLE integrations ADD COLUMN proxy boolean NOT NULL DEFAULT true"
    )
    read = (await market.orders().scan()).integrations
    assert read is not None
    assert [i.proxy for i in read] == [""]


async def test_missing_tables_and_columns_are_named(shop: Shop) -> None:
    with pytest.raises(SettingsError) as error:
        await shop.orders(accounts_from_shop=True).scan()
    assert "package_routing" in str(error.value)
    assert "integrations" in str(error.value)
    await shop.connection.execute(
        PLAIN_TABLES.replace("ALTER TABLE product_orders ADD COLUMN provider_id varchar(64);", "")
    )
    await shop.connection.execute("ALTER TABLE integrations DROP COLUMN sifre")
    with pytest.raises(SettingsError, match=r"public\.integrations has no column sifre"):
        await shop.orders(accounts_from_shop=True).scan()


def integration(integration_id: str = "i-1", **changes: Any) -> Integration:
    return replace(
        Integration(
            integration_id,
            None,
            "main",
            "znet",
            enabled=True,
            base_url="https://x.example",
            user="k",
            password="s",
        ),
        **changes,
    )


def directory() -> ShopAccounts:
    def open_account(made: Integration) -> Account:
        if made.base_url.startswith("http:"):
            msg = "plain http"
            raise ValueError(msg)
        return Account(label(made), Silent())

    return ShopAccounts(open_account)


def reason(found: Account | SkipReason) -> SkipReason | str:
    return found.name if isinstance(found, Account) else found


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, "main-i-1"),
        ({"provider": "internal"}, SkipReason.WAITS_FOR_CHILD),
        ({"provider": "another"}, SkipReason.OTHER_PROVIDER),
        ({"enabled": False}, SkipReason.DISABLED),
        ({"base_url": "http://x.example"}, SkipReason.BAD_ADDRESS),
    ],
)
def test_what_is_not_ours_is_skipped_by_its_reason(
    changes: dict[str, Any], expected: SkipReason | str
) -> None:
    accounts = directory()
    accounts.update([integration(**changes)])
    order = Order("o", "sent", NOW, "1", integration="i-1")
    assert reason(accounts.account_of(order)) == expected
    assert (
        reason(accounts.account_of(order._replace(integration="nope"))) == SkipReason.NO_INTEGRATION
    )
    assert (
        reason(accounts.account_of(order._replace(integration=None))) == SkipReason.NO_INTEGRATION
    )
    assert (
        reason(accounts.account_of(order._replace(integration=None, route=Route.NONE)))
        == SkipReason.NO_ROUTING
    )


def test_a_changed_password_opens_a_new_client_and_lets_a_probe_through() -> None:
    accounts = directory()
    assert accounts.update([integration()]) == []
    account = accounts.accounts["i-1"]
    old = account.provider
    account.gate.limit = 1
    account.gate.failed(100.0, "refused_8", probe=False)
    assert accounts.update([integration(name="main", enabled=True)]) == [], (
        "nothing of the login changed"
    )
    assert account.provider is old
    assert accounts.update([integration(password="new")]) == [old]
    assert accounts.accounts["i-1"] is account, "its gate, pace and orders stay"
    assert account.provider is not old
    assert account.gate.lets_through(100.0)


def test_another_kind_of_provider_is_another_way_to_ask() -> None:
    """With the same address and login: two providers of one kind are asked alike."""
    accounts = directory()
    accounts.update([integration(provider="barakat", token="T")])
    old = accounts.accounts["i-1"].provider
    assert accounts.update([integration(provider="apstore", token="T")]) == []
    assert accounts.update([integration(provider="znet", token="T")]) == [old]


def test_another_proxy_is_another_way_to_ask_and_its_login_is_a_secret() -> None:
    learned: list[str] = []
    accounts = directory()
    accounts.on_secrets = lambda known: learned.extend(
        secret for of in known.values() for secret in of
    )
    accounts.update([integration()])
    old = accounts.accounts["i-1"].provider
    assert accounts.update([integration(proxy="http://proxy-user:p%40ss@proxy.example")]) == [old]
    assert {"proxy-user", "p@ss"} <= set(learned)
    accounts.update([integration(proxy="nonsense u:pass-word@")])
    assert "nonsense u:pass-word@" in learned, "what cannot be read is all secret"


def test_an_account_that_goes_is_closed_and_one_that_comes_back_is_fresh() -> None:
    accounts = directory()
    accounts.update([integration(), integration("i-2")])
    first = accounts.accounts["i-1"].provider
    assert accounts.update([integration(enabled=False), integration("i-2")]) == [first]
    assert list(accounts.accounts) == ["i-2"]
    second = accounts.accounts["i-2"].provider
    assert accounts.update([integration()]) == [second]
    assert list(accounts.accounts) == ["i-1"]


def test_an_address_that_turns_bad_closes_its_account() -> None:
    accounts = directory()
    accounts.update([integration()])
    provider = accounts.accounts["i-1"].provider
    assert accounts.update([integration(base_url="http://x.example")]) == [provider]
    assert accounts.accounts == {}


def test_an_account_goes_by_its_id_and_is_called_what_the_shop_calls_it_now() -> None:
    accounts = directory()
    accounts.update([integration(), integration("i-2")])
    account = accounts.accounts["i-1"]
    assert (account.key, account.name) == ("i-1", "main-i-1")
    assert accounts.update([integration(name="bayi"), integration("i-2")]) == []
    assert accounts.accounts["i-1"] is account
    assert account.name == "bayi-i-1"
    assert accounts.named("bayi-i-1") is accounts.named("i-1") is account
    assert accounts.named("main-i-1") is None


ALIKE = [
    ["0190aaaa-0000-7000-8000-000000000001", "0190aaaa-0000-7000-8000-000000000002"],
    ["00000000-0000-0000-0000-000000000001", "00000000-0000-0000-0000-000000000002"],
    ["12345678", "123456789"],
    ["account-1", "account-10", "account-"],
    ["ключ-один-первый", "ключ-один-второй"],
]


@pytest.mark.parametrize("ids", ALIKE, ids=lambda ids: ids[0])
def test_accounts_of_one_name_whose_ids_begin_alike_are_accounts_of_their_own(
    ids: list[str],
) -> None:
    """Ids ordered by time, counted up, or texts: their first characters are the same."""
    accounts = directory()
    accounts.update([integration(one, user=f"kod of {one}") for one in ids])
    assert list(accounts.accounts) == ids
    assert len({id(account) for account in accounts.accounts.values()}) == len(ids)
    assert len({account.name for account in accounts.accounts.values()}) == len(ids)
    for one in ids:
        found = accounts.account_of(Order("o", "sent", NOW, "1", integration=one))
        assert isinstance(found, Account)
        assert found.key == one


def test_names_that_could_be_read_two_ways_are_told_apart() -> None:
    found = names_of([integration("2", name="a-1"), integration("1-2", name="a")])
    assert len(set(found.values())) == 2


def test_accounts_that_hold_one_login_share_its_pace_and_nothing_else() -> None:
    accounts = directory()
    accounts.update(
        [
            integration("a"),
            integration("b", base_url="https://X.example:443/panel", password="other"),
            integration("c", user="z"),
        ]
    )
    a, b, c = (accounts.accounts[key] for key in "abc")
    assert a.pace is b.pace
    assert a.login == b.login != c.login
    assert a.pace is not c.pace
    assert a.gate is not b.gate
    assert a.provider is not b.provider
    accounts.update(
        [
            integration("a"),
            integration("b", base_url="https://elsewhere.example"),
            integration("c", user="z"),
        ]
    )
    assert a.pace is not b.pace, "it has another login now"


def test_the_secrets_of_the_tables_are_learned() -> None:
    learned: dict[str, Any] = {}
    accounts = ShopAccounts(lambda i: Account(label(i), Silent()), learned.update)
    proxy = "http://someone:PROXY@proxy.example:3128"
    accounts.update([integration(user="KOD", password="SIFRE", token="TOKEN", proxy=proxy)])
    (secrets,) = learned.values()
    assert {"KOD", "SIFRE", "TOKEN", "PROXY"} <= set(secrets)


async def test_pausing_again_changes_the_reason_the_name_and_the_end(plain_shop: Shop) -> None:
    async with plain_shop.database().transaction() as connection:
        for seconds, reason, by in ((60.0, "x", "Ay"), (7200.0, "y", "Su"), (None, "z", "Ay")):
            await Pauses("public").pause(connection, "a", reason, by, seconds)
            (pause,) = (await Pauses("public").read(connection)).values()
            assert (pause.reason, pause.by) == (reason, by)
            left = await connection.fetchval(
                "SELECT extract(epoch FROM until - clock_timestamp())::float8 "
                "FROM order_monitor_pauses"
            )
            assert left is None if seconds is None else left > seconds - 30


def test_one_account_serves_every_order() -> None:
    account = Account("default", Silent())
    one = OneAccount(account)
    assert one.account_of(Order("o", "sent", NOW, "1")) is account
    assert one.update([]) == []


# --- each account its own world, in the running engine


async def test_an_account_paused_by_its_new_name_is_not_asked(market: Market) -> None:
    a, b = await market.integration(None, kod="A"), await market.integration(None, kod="B")
    panels = Panels(market, lambda kod: text("OK|1| |bekliyor"))
    _ = [line async for line in Migration(market.shop.database(), LAYOUT, SystemClock()).apply()]
    for account in (a, b):
        await market.shop.add(provider_id=account, sent_at=NOW - 1000)
    await panels.engine.scan()
    await market.shop.connection.execute(
        "UPDATE integrations SET name = 'bayi' WHERE id = $1::uuid", a
    )
    async with market.shop.database().transaction() as connection:
        await Pauses("public").pause(connection, a, "x", "Ayşe", None)
    panels.engine.discovery.shop = AtClock(market.orders(), panels.clock)
    await panels.engine.scan()
    async with running(panels) as drive:
        await drive.run(60)
    assert set(panels.calls) == {"B"}


async def test_a_client_dropped_by_a_look_that_failed_is_given_back_by_the_next(
    market: Market,
) -> None:
    await market.shop.add(provider_id=await market.integration(None), sent_at=NOW - 1000)
    _ = [line async for line in Migration(market.shop.database(), LAYOUT, SystemClock()).apply()]
    panels = Panels(market, lambda kod: text("OK|1| |bekliyor"))
    discovery = panels.engine.discovery
    assert await discovery.scan() == []
    (account,) = panels.engine.accounts.values()
    await market.shop.connection.execute("UPDATE integrations SET enabled = false")
    discovery.shop.orders.reader.accounts_read_at = float("-inf")  # type: ignore[attr-defined]
    await market.shop.connection.execute("ALTER TABLE order_monitor_events RENAME TO away")
    with pytest.raises(ShopError):
        await discovery.scan()
    await market.shop.connection.execute("ALTER TABLE away RENAME TO order_monitor_events")
    assert await discovery.scan() == [account.provider]
    assert await discovery.scan() == []


async def test_accounts_read_by_a_look_that_failed_are_read_again_by_the_next(
    market: Market,
) -> None:
    """They may have reached no part of the program, and are read again only when `refresh` is over."""
    account, orders = await market.integration(None), market.orders()

    def breaks(_: Slice) -> None:
        raise ShopUnavailableError("the connection is gone")

    with pytest.raises(ShopUnavailableError):
        await orders.scan(take=breaks)
    assert [one.id for one in (await orders.scan()).integrations or ()] == [account]
    assert (await orders.scan()).integrations is None, "the control: else not at each look"


async def test_one_tenants_wrong_password_takes_nothing_from_the_others(market: Market) -> None:
    bad, good = (
        await market.integration(None, kod="bad"),
        await market.integration(None, kod="good"),
    )
    for n in range(30):
        await market.shop.add(provider_id=bad, sent_at=NOW - 1000 - n)
    good_ids = [await market.shop.add(provider_id=good, sent_at=NOW - 2000 - n) for n in range(30)]
    panels = Panels(
        market,
        lambda kod: text("8|Bağlantı Hatası" if kod == "bad" else "OK|2| |tamam"),
        concurrency=4,
    )
    async with running(panels) as drive:
        await drive.run(4, scan_every=10)
    assert {(await market.shop.row(i))["external_status"] for i in good_ids} == {"completed"}
    gates = {a.name: a.gate.is_open for a in panels.engine.accounts.values()}
    assert sorted(gates.values()) == [False, True]
    assert panels.calls["bad"] < 10


async def test_a_changed_password_takes_effect_without_a_restart(market: Market) -> None:
    account = await market.integration(None, kod="k", password="wrong")
    ids = [await market.shop.add(provider_id=account, sent_at=NOW - 1000 - n) for n in range(8)]
    panels = Panels(market, lambda _: text("8|hata"))

    async def by_password(request: httpx.Request) -> httpx.Response:
        return text("OK|2| |tamam" if request.url.params["sifre"] == "right" else "8|hata")

    panels.ask = by_password  # type: ignore[method-assign]
    async with running(panels) as drive:
        await drive.run(30, scan_every=10)
        await market.shop.connection.execute("UPDATE integrations SET sifre = 'right'")
        panels.engine.discovery.shop.orders.reader.accounts_read_at = float("-inf")  # type: ignore[attr-defined]
        await drive.run(65, scan_every=10)
    assert {(await market.shop.row(i))["external_status"] for i in ids} == {"completed"}


@pytest.mark.long
async def test_a_disabled_integration_is_asked_no_more(market: Market) -> None:
    account = await market.integration(None, kod="k")
    await market.shop.add(provider_id=account, sent_at=NOW - 100)
    panels = Panels(market, lambda _: text("OK|1| |x"))
    async with running(panels) as drive:
        await drive.run(5, scan_every=10)
        assert panels.calls["k"] == 1
        await market.shop.connection.execute("UPDATE integrations SET enabled = false")
        panels.engine.discovery.shop.orders.reader.accounts_read_at = float("-inf")  # type: ignore[attr-defined]
        await drive.run(2000, scan_every=10)
    assert panels.calls["k"] == 1
    assert panels.engine.state.skipped == Counter({SkipReason.DISABLED: 1})
    assert len(panels.engine.queue) == 0


async def test_orders_follow_their_route_to_another_account(market: Market) -> None:
    one, two = await market.integration(None, kod="one"), await market.integration(None, kod="two")
    order_id = await market.shop.add(provider_id=one, sent_at=NOW - 30)
    panels = Panels(market, lambda _: text("OK|1| |x"))
    async with running(panels) as drive:
        await drive.run(5, scan_every=10)
        await market.shop.set(order_id, provider_id=two)
        await drive.run(60, scan_every=10)
    assert panels.calls["one"] == 0
    assert panels.calls["two"] >= 1


async def test_stalling_accounts_share_their_places_among_themselves(market: Market) -> None:
    """Nine panels that never answer hold all the places once.

    From then on the one that answers has as many as alone.
    """
    import asyncio

    never = asyncio.Event()

    async def stall() -> httpx.Response:
        await never.wait()
        return text("OK|1| |x")

    for n in range(9):
        sick = await market.integration(None, kod=f"sick-{n}", name=f"sick {n}")
        for m in range(10):
            await market.shop.add(provider_id=sick, sent_at=NOW - 100 - m)
    well = await market.integration(None, kod="well", name="well")
    ids = [await market.shop.add(provider_id=well, sent_at=NOW - 5000 - n) for n in range(20)]
    panels = Panels(
        market, lambda kod: text("OK|2| |tamam") if kod == "well" else stall(), concurrency=10
    )
    await panels.engine.scan()
    tasks = [
        asyncio.create_task(panels.engine.writer.run()),
        asyncio.create_task(panels.engine.run(), name="engine"),
    ]
    try:
        async with asyncio.timeout(20):
            while panels.engine.state.ends["completed"] < 20:
                await asyncio.sleep(0.002)
                panels.clock.ring(panels.clock.elapsed + SLOW_AFTER / 4)
    finally:
        never.set()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await panels.engine.dispatcher.calls.finish(5)
    assert {(await market.shop.row(i))["external_status"] for i in ids} == {"completed"}
    assert sum(count for kod, count in panels.calls.items() if kod != "well") <= 10, (
        "the slow ones stay within their places"
    )


@pytest.mark.long
async def test_very_many_orders_of_others_do_not_keep_an_accounts_own_from_being_read(
    market: Market,
) -> None:
    """The server finds a few among them only in more than a statement's time."""
    shop = market.shop
    key = await market.integration(None)
    order_id = await shop.add(provider_id=key)
    status, sent = shop.spelling.name("external_status"), shop.spelling.name("sent_at")
    await shop.connection.execute(
        f'INSERT INTO product_orders (id, "{status}", "{sent}", provider_referans) '
        "SELECT gen_random_uuid(), 'sent', now(), n::text FROM generate_series(1, 120000) n"
    )
    await shop.connection.execute("ANALYZE")
    # However fast this machine is.
    for patience in (0.3, 0.15, 0.07, 0.03, 0.015):
        database = shop.database(statement_timeout=patience)
        orders = shop.orders(database, accounts_from_shop=True, refresh=60.0)
        try:
            await orders.scan(Part(of=[key]))
        except ShopError:
            break
    else:
        pytest.fail("nothing takes long here")
    assert [order.id for order in (await orders.scan(Part(of=[key]))).orders] == [order_id]
