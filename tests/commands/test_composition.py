"""What the settings say arrives where it is needed."""

from typing import Any

import pytest

from order_monitor.commands.composition import PATIENCE, layout_of, policy_of, schedule_of, terms_of
from order_monitor.settings.asking import (
    DatabaseSettings,
    LimitSettings,
    ProviderSettings,
    ScheduleSettings,
    StatusSettings,
)
from order_monitor.settings.model import Settings
from order_monitor.settings.telling import EventSettings


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
