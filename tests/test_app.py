"""Settings reach the parts that use them."""

import base64
import ssl
from types import SimpleNamespace
from typing import Any

import pytest
from pydantic import SecretStr

from order_monitor.app import (
    PATIENCE,
    App,
    as_observed,
    chains_of,
    late_orders_of,
    opener_of,
    policy_of,
    schedule_of,
    table_config_of,
    terms_of,
)
from order_monitor.providers.client_api.client import ClientApi
from order_monitor.providers.http.address_guard import ForbiddenHostError
from order_monitor.providers.http.resolver import Resolve, Resolver
from order_monitor.providers.http.transport import FreshConnections, ProxyRoute
from order_monitor.settings.model import Settings
from order_monitor.settings.money import money_of
from order_monitor.settings.sections import (
    ClusterSettings,
    DatabaseSettings,
    EventSettings,
    LimitSettings,
    ProviderSettings,
    ScheduleSettings,
    StatusSettings,
    WebhookSettings,
)
from order_monitor.shop.accounts.tables import Integration
from order_monitor.tell.redactor import Redactor
from order_monitor.watch.account import Account
from order_monitor.watch.lifecycle import Stop
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
        Settings(
            schedule=ScheduleSettings(min_interval=9.0, budget=2.5),
            limits=LimitSettings(calls_per_second=4.0),
        )
    )
    assert (terms.min_interval, terms.budget, terms.ceiling) == (9.0, 2.5, 4.0)


def test_the_table_is_read_and_written_as_the_settings_say() -> None:
    settings = Settings(
        database=DatabaseSettings(pins="elsewhere"),
        statuses=StatusSettings(completed="done"),
        schedule=ScheduleSettings(record_sync=False, await_pin=60.0),
        provider=ProviderSettings(
            source="database", refresh=7.0, unique_pins=False, reference_reuse="newest"
        ),
        events=EventSettings(consumer="none"),
    )
    table_config = table_config_of(settings)
    assert table_config.rules.completed == "done"
    assert "done" in table_config.known
    assert (table_config.record_sync, table_config.await_pin, table_config.refresh) == (
        False,
        60.0,
        7.0,
    )
    assert (
        table_config.accounts_from_shop,
        table_config.unique_pins,
        table_config.reference_reuse,
    ) == (True, False, "newest")
    assert (table_config.is_consumed, table_config.pins_elsewhere) == (True, True)
    plain = table_config_of(Settings())
    assert (plain.is_consumed, plain.pins_elsewhere, plain.reference_reuse) == (
        False,
        False,
        "none",
    )
    assert not table_config_of(Settings(events=EventSettings(consumer="webhook"))).is_consumed


def opened(integration: Integration | None = None, **provider: Any) -> Account:
    given: dict[str, Any] = (
        {"base_url": "https://panel.example", "kod": "k", "sifre": "s"}
        if integration is None
        else {}
    )
    given |= {"source": "config" if integration is None else "database"}
    settings = Settings(provider=ProviderSettings(**{**given, **provider}))
    return opener_of(settings, SystemClock())(integration)


def test_the_one_account_is_of_the_kind_that_is_set() -> None:
    account = opened(kind="client_api", token="t", batch=7)
    assert isinstance(account.provider, ClientApi)
    assert (account.kind, account.provider.batch, opened().kind) == ("client_api", 7, "znet")


Made = list[tuple[Resolve, ProxyRoute | None]]


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> Made:
    """Each account's connections: by what its host is looked up, and the route to its provider."""
    connections: Made = []

    class Noted(FreshConnections):
        def __init__(
            self, verify: ssl.SSLContext, resolve: Resolve, proxy_route: ProxyRoute | None
        ) -> None:
            connections.append((resolve, proxy_route))
            super().__init__(verify, resolve, proxy_route)

    monkeypatch.setattr("order_monitor.app.FreshConnections", Noted)
    return connections


def route(made: Made, integration: Integration | None = None, **provider: Any) -> ProxyRoute:
    """Return the route by which an account reaches its provider."""
    opened(integration, **provider)
    _, found = made[-1]
    assert found is not None
    return found


def integration(proxy: str = "", base_url: str = "https://panel.example") -> Integration:
    return Integration("i-1", None, "main", "znet", True, base_url, "k", "s", proxy)


PROXY = "http://user:CANARY@proxy.example:3128"


def test_the_proxy_of_the_settings_is_for_all_accounts_but_those_on_this_machine(
    made: Made,
) -> None:
    opened()
    assert [found for _, found in made] == [None]
    for own in (None, integration()):
        assert opened(own, proxy=PROXY).proxy == "http://proxy.example:3128"
        found = route(made, own, proxy=PROXY)
        assert (found.proxy.host, found.proxy.password) == ("proxy.example", "CANARY")
    assert opened(proxy=PROXY, base_url="http://127.0.0.1:1", allow_http=True).proxy == ""


def test_an_integrations_own_proxy_comes_first(made: Made) -> None:
    found = route(made, integration("socks5h://other.example"), proxy=PROXY)
    assert (found.proxy.scheme, found.proxy.host) == ("socks5h", "other.example")


@pytest.mark.parametrize(
    ("own", "provider", "takes_names"),
    [
        (None, {"proxy": PROXY}, True),
        (None, {"proxy": "socks5h://proxy.example"}, True),
        (None, {"proxy": "socks5://proxy.example"}, False),
        ("", {"proxy": PROXY}, False),
        ("", {"proxy": "socks5h://proxy.example"}, False),
        (PROXY, {"allow_private": True}, True),
    ],
)
def test_a_name_is_given_to_the_proxy_only_where_it_may_lead_anywhere(
    made: Made, own: str | None, provider: dict[str, Any], *, takes_names: bool
) -> None:
    account = None if own is None else integration(own)
    assert route(made, account, **provider).takes_names is takes_names


async def test_a_proxy_from_the_shops_tables_must_be_public_and_one_of_the_settings_need_not(
    made: Made,
) -> None:
    with pytest.raises(ValueError, match="private"):
        opened(integration("http://10.0.0.7:3128"))
    with pytest.raises(ValueError, match="proxy"):
        opened(integration("proxy.example:3128"))
    for found in (
        route(made, integration(), proxy="http://10.0.0.7:3128"),
        route(made, proxy="http://localhost:3128"),
    ):
        assert await found.resolve("10.0.0.7", 3128) == ["10.0.0.7"]
    with pytest.raises(ForbiddenHostError):
        await route(made, integration(PROXY)).resolve("10.0.0.7", 3128)


def test_all_accounts_look_names_up_by_one_resolver(made: Made) -> None:
    opener = opener_of(
        Settings(provider=ProviderSettings(source="database", allow_private=True)), SystemClock()
    )
    for _ in range(2):
        opener(integration())
    (one, _), (other, _) = made
    assert isinstance(one, Resolver)
    assert one is other


@pytest.mark.parametrize("observe", [False, True])
def test_while_observing_no_chain_is_ended_and_no_late_order_told(*, observe: bool) -> None:
    settings = Settings(
        provider=ProviderSettings(chains="monitor", source="database"),
        schedule=ScheduleSettings(late_after=60.0, observe=observe),
    )
    nothing: Any = object()
    orders: Any = SimpleNamespace(schema_cache=nothing)
    clock = SystemClock()
    chains = chains_of(settings, nothing, nothing, orders, clock)
    late = late_orders_of(settings, nothing, orders, clock)
    assert (chains is None, late is None) == (observe, observe)


def app_of(**given: Any) -> tuple[App, Settings]:
    settings = Settings(
        database=DatabaseSettings(dsn=SecretStr("postgresql://x@localhost/x")),
        provider=ProviderSettings(source="database"),
        **given,
    )
    return App(settings, Stop(), Redactor()), settings


def test_a_member_posts_events_only_while_it_leads() -> None:
    """Else each member would post them all."""
    secret = "whsec_" + base64.b64encode(b"x" * 32).decode()
    posted = WebhookSettings(url="https://shop.example/hook", secret=secret)  # type: ignore[arg-type]
    app, _ = app_of(webhook=posted, cluster=ClusterSettings(enabled=True))
    assert app.sender is not None
    assert not app.sender.is_ours()
    alone, _ = app_of(webhook=posted)
    assert alone.sender is not None
    assert alone.sender.is_ours()


def test_what_an_observing_daemon_turns_off_is_not_stored_as_what_the_shop_wants() -> None:
    """Else the daemon that writes later would differ, and ask nothing."""
    app, given = app_of(schedule=ScheduleSettings(observe=True, await_pin=3600.0))
    assert app.settings_guard.own == money_of(given)
    assert as_observed(given) != given
