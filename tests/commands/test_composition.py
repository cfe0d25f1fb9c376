"""What the settings say arrives where it is needed."""

from typing import Any

import pytest

from order_monitor.commands.composition import PATIENCE, layout_of, opener_of, policy_of, schedule_of, terms_of
from order_monitor.providers.address_guard import ForbiddenHostError
from order_monitor.providers.resolver import Resolver
from order_monitor.providers.transport import FreshConnections, ProxyRoute
from order_monitor.providers.znet import Znet
from order_monitor.settings.asking import (
    DatabaseSettings,
    LimitSettings,
    ProviderSettings,
    ScheduleSettings,
    StatusSettings,
)
from order_monitor.settings.model import Settings
from order_monitor.settings.telling import EventSettings
from order_monitor.shop.accounts import Integration
from order_monitor.watch.account import Account
from order_monitor.watch.system_clock import SystemClock


def test_the_daemon_tries_to_write_for_ever_and_one_pass_for_a_minute() -> None:
    assert policy_of(Settings()).patience is None
    assert policy_of(Settings(), one_pass=True).patience == PATIENCE


@pytest.mark.parametrize(
    ("section", "key", "value"),
    [
        ("limits", "concurrency", 7),
        ("schedule", "give_up_after", 5000.0),
        ("schedule", "give_up_blind", True),
        ("schedule", "confirm_cancelled", 30.0),
    ],
)
def test_how_orders_are_watched_is_as_the_settings_say(section: str, key: str, value: Any) -> None:
    kind = {"limits": LimitSettings, "schedule": ScheduleSettings}[section]
    changed = Settings(**{section: kind(**{key: value})})
    assert getattr(policy_of(changed), key) == value != getattr(policy_of(Settings()), key)


@pytest.mark.parametrize("key", ["first_check", "base", "cap", "jitter", "give_up_after"])
def test_when_orders_are_asked_about_is_as_the_settings_say(key: str) -> None:
    value: Any = {"jitter": 0.5, "cap": 5000.0, "give_up_after": 5000.0}.get(key, 45.0)
    given: dict[str, Any] = {key: value}
    assert getattr(schedule_of(Settings(schedule=ScheduleSettings(**given))), key) == value
    assert getattr(schedule_of(Settings()), key) != value


def test_what_is_learned_goes_by_the_settings() -> None:
    terms = terms_of(
        Settings(schedule=ScheduleSettings(min_interval=9.0, budget=2.5), limits=LimitSettings(calls_per_second=4.0))
    )
    assert (terms.min_interval, terms.budget, terms.ceiling) == (9.0, 2.5, 4.0)


def test_the_table_is_read_and_written_as_the_settings_say() -> None:
    settings = Settings(
        database=DatabaseSettings(pins="elsewhere"),
        statuses=StatusSettings(completed="done"),
        schedule=ScheduleSettings(record_sync=False, await_pin=60.0),
        provider=ProviderSettings(source="database", refresh=7.0, unique_pins=False, reference_reuse="newest"),
        events=EventSettings(consumer="none"),
    )
    layout = layout_of(settings)
    assert layout.rules.completed == "done"
    assert "done" in layout.known
    assert (layout.record_sync, layout.await_pin, layout.refresh) == (False, 60.0, 7.0)
    assert (layout.accounts_from_shop, layout.unique_pins, layout.reference_reuse) == (True, False, "newest")
    assert (layout.is_consumed, layout.pins_elsewhere) == (True, True)
    plain = layout_of(Settings())
    assert (plain.is_consumed, plain.pins_elsewhere, plain.reference_reuse) == (False, False, "none")
    assert not layout_of(Settings(events=EventSettings(consumer="webhook"))).is_consumed


def opened(integration: Integration | None = None, **provider: Any) -> Account:
    given: dict[str, Any] = (
        {"base_url": "https://panel.example", "kod": "k", "sifre": "s"} if integration is None else {}
    )
    given |= {"source": "config" if integration is None else "database"}
    settings = Settings(provider=ProviderSettings(**{**given, **provider}))
    return opener_of(settings, SystemClock())(integration)


def connections_of(account: Account) -> FreshConnections:
    assert isinstance(account.provider, Znet)
    assert isinstance(account.provider._exchange._transport, FreshConnections)
    return account.provider._exchange._transport


def proxy_route_of(account: Account) -> ProxyRoute | None:
    return connections_of(account)._proxy_route


def integration(proxy: str = "", base_url: str = "https://panel.example") -> Integration:
    return Integration("i-1", None, "main", "znet", True, base_url, "k", "s", proxy)


PROXY = "http://user:CANARY@proxy.example:3128"


def test_the_proxy_of_the_settings_is_for_all_accounts_but_those_on_this_machine() -> None:
    assert proxy_route_of(opened()) is None
    for account in (opened(proxy=PROXY), opened(integration(), proxy=PROXY)):
        proxy_route = proxy_route_of(account)
        assert proxy_route is not None
        assert (proxy_route.proxy.host, proxy_route.proxy.password) == ("proxy.example", "CANARY")
        assert account.proxy == "http://proxy.example:3128"
    assert opened(proxy=PROXY, base_url="http://127.0.0.1:1", allow_http=True).proxy == ""


def test_an_integrations_own_proxy_comes_first() -> None:
    proxy_route = proxy_route_of(opened(integration("socks5h://other.example"), proxy=PROXY))
    assert proxy_route is not None
    assert (proxy_route.proxy.scheme, proxy_route.proxy.host) == ("socks5h", "other.example")


@pytest.mark.parametrize(
    ("account", "takes_names"),
    [
        (lambda: opened(proxy=PROXY), True),
        (lambda: opened(proxy="socks5h://proxy.example"), True),
        (lambda: opened(proxy="socks5://proxy.example"), False),
        (lambda: opened(integration(), proxy=PROXY), False),
        (lambda: opened(integration(), proxy="socks5h://proxy.example"), False),
        (lambda: opened(integration(PROXY), allow_private=True), True),
    ],
)
def test_a_name_is_given_to_the_proxy_only_where_it_may_lead_anywhere(account: Any, *, takes_names: bool) -> None:
    proxy_route = proxy_route_of(account())
    assert proxy_route is not None
    assert proxy_route.takes_names is takes_names


async def test_a_proxy_from_the_shops_tables_must_be_public_and_one_of_the_settings_need_not() -> None:
    with pytest.raises(ValueError, match="private"):
        opened(integration("http://10.0.0.7:3128"))
    with pytest.raises(ValueError, match="proxy"):
        opened(integration("proxy.example:3128"))
    for account in (opened(integration(), proxy="http://10.0.0.7:3128"), opened(proxy="http://localhost:3128")):
        proxy_route = proxy_route_of(account)
        assert proxy_route is not None
        assert await proxy_route.resolve("10.0.0.7", 3128) == ["10.0.0.7"]
    proxy_route = proxy_route_of(opened(integration(PROXY)))
    assert proxy_route is not None
    with pytest.raises(ForbiddenHostError):
        await proxy_route.resolve("10.0.0.7", 3128)


def test_all_accounts_look_names_up_by_one_resolver() -> None:
    opener = opener_of(Settings(provider=ProviderSettings(source="database", allow_private=True)), SystemClock())
    one, other = (connections_of(opener(integration()))._resolve for _ in range(2))
    assert isinstance(one, Resolver)
    assert one is other
