"""What the settings say of money: written alike where it means the same, and read back as it was."""

from typing import Any

import pytest

from order_monitor.core.errors import SettingsError
from order_monitor.settings.model import Settings, known_keys
from order_monitor.settings.money import MONEY, money_of, with_money

NOT_MONEY = {
    "database": (
        *("dsn", "host", "port", "user", "password", "name", "statement_timeout", "time_zone"),
        *("schema", "table", "columns", "lookup", "pool_size"),
    ),
    "provider": (
        *("source", "kind", "allow_http", "allow_private", "refresh", "base_url", "kod", "sifre"),
        *("status_path", "token", "connect_timeout", "timeout", "max_body", "user_agent"),
        *("ca_file", "batch", "proxy", "balance_interval", "low_balance"),
    ),
    "schedule": (
        *("first_check", "base", "cap", "jitter", "recheck_after", "late_after", "await_pin"),
        *("strategy", "budget", "min_interval", "half_life", "scan_interval", "record_sync"),
    ),
    "statuses": ("preset",),
}
"""What two processes may have differently: a new setting goes here, or at the end of `MONEY`."""


def of(**sections: dict[str, Any]) -> Settings:
    given: dict[str, Any] = sections
    return Settings(**given)


def test_the_keys_are_settings_and_none_is_a_secret() -> None:
    assert {f"{section}.{key}" for section, keys in known_keys().items() for key in keys} > set(
        MONEY
    )
    canary = of(
        database={"dsn": "postgresql://u:CANARY@h/n"},
        provider={"kod": "CANARY", "sifre": "CANARY"},
        health={"token": "CANARY"},
    )
    assert "CANARY" not in str(money_of(canary))
    assert money_of(canary) == money_of(Settings())


@pytest.mark.parametrize("section", NOT_MONEY)
def test_each_setting_is_said_to_decide_money_or_not(section: str) -> None:
    deciding = [key for key in known_keys()[section] if f"{section}.{key}" in MONEY]
    assert sorted((*deciding, *NOT_MONEY[section])) == sorted(known_keys()[section])


def test_each_value_is_written_in_one_way() -> None:
    found = money_of(
        of(schedule={"give_up_after": "1.5h"}, provider={"no_pin": ["YOK ", "yok", "0"]})
    )
    assert (found["schedule.give_up_after"], found["provider.no_pin"]) == ("5400", '["0", "yok"]')
    assert found["schedule.confirm_cancelled"] == "0"
    assert found["schedule.give_up_blind"] == "false"
    assert found["statuses.open"] == '["pending", "processing", "queued", "sent"]'
    assert (
        money_of(of(schedule={"confirm_cancelled": "1ms"}))["schedule.confirm_cancelled"] == "0.001"
    )


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (
            {"statuses": {"open": ["sent", "processing"]}},
            {"statuses": {"open": ["processing", "sent", "sent"]}},
        ),
        ({"provider": {"no_pin": ["Yok", "0"]}}, {"provider": {"no_pin": ["0", "yok"]}}),
        (
            {"statuses": {"preset": "watan", "open": ["processing"]}},
            {
                "statuses": {
                    "open": ["processing"],
                    "completed": "done",
                    "settled": ["approved", "rejected"],
                }
            },
        ),
        ({"schedule": {"give_up_after": "2h"}}, {"schedule": {"give_up_after": 7200}}),
    ],
)
def test_what_means_the_same_is_no_difference(one: dict[str, Any], other: dict[str, Any]) -> None:
    assert money_of(of(**one)) == money_of(of(**other)) != money_of(Settings())
    assert money_of(of(**one)) == money_of(of(**other)) != money_of(Settings())


OTHERS = of(
    statuses={
        "open": ["sent", "busy, or so"],
        "completed": "done",
        "failed": "bad",
        "processing": "busy, or so",
        "settled": ["x"],
    },
    schedule={
        "give_up_after": "1.5h",
        "give_up_blind": True,
        "confirm_cancelled": "1ms",
        "give_up_unknown": True,
        "brake_hold": "2h",
        "ignore_before": "2026-11-01",
        "first_check": 7,
    },
    provider={
        "no_pin": ["Yok", "[null]"],
        "unique_pins": False,
        "reference_reuse": "newest",
        "kod": "x",
    },
    database={"pins": "elsewhere", "dsn": "postgresql://u:p@h/n"},
)


def test_with_the_stored_values_all_else_stays() -> None:
    mine = of(
        database={"dsn": "postgresql://me:pw@h/n", "schema": "shop"},
        provider={"kod": "k", "sifre": "s", "no_pin": ["0"]},
        schedule={"cap": 700, "give_up_after": 100},
    )
    taken = with_money(mine, money_of(OTHERS))
    assert money_of(taken) == money_of(OTHERS)
    assert (taken.database.schema_, taken.schedule.cap, taken.schedule.first_check) == (
        "shop",
        700,
        60,
    )
    assert taken.secrets() == mine.secrets()
    assert taken.provider.no_pin == ("null", "yok")
    assert with_money(mine, money_of(mine)) == mine
    assert with_money(mine, {"a.new": "key"}) == mine
    watan = of(statuses={"preset": "watan"})
    assert money_of(with_money(mine, money_of(watan))) == money_of(watan)
    assert money_of(with_money(watan, money_of(mine))) == money_of(mine)


@pytest.mark.parametrize(
    ("mine", "stored", "where"),
    [
        (
            {"schedule": {"first_check": 100}},
            {"schedule.give_up_after": "50"},
            "schedule: with the settings in force: ",
        ),
        ({}, {"database.pins": "a vault"}, "database.pins: with the settings in force: "),
        (
            {},
            {"schedule.give_up_blind": "perhaps"},
            "schedule.give_up_blind: with the settings in force: ",
        ),
    ],
)
def test_what_does_not_go_together_is_said(
    mine: dict[str, Any], stored: dict[str, str], where: str
) -> None:
    with pytest.raises(SettingsError) as caught:
        with_money(of(**mine), stored)
    assert [problem.startswith(where) for problem in caught.value.problems] == [True]
