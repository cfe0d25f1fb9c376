"""Settings that decide money, as real processes over a real database: whoever differs from what is
in force writes no end.
"""

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from order_monitor.core.answer import Waiting
from order_monitor.settings.model import Settings
from order_monitor.settings.money import MONEY, money_of
from order_monitor.settings.sections import (
    DatabaseSettings,
    EventSettings,
    ProviderSettings,
    ScheduleSettings,
    StatusSettings,
)
from order_monitor.shop.money_settings import OBSERVE, digest_of
from tests.support.commands import call, is_final
from tests.support.daemons import (
    prepare,
    ready,
    reload,
    started,
    stop,
    stored,
    until_ready,
)
from tests.support.processes import Panel, panel, sent, settings
from tests.support.shops import Shop

__all__ = ["panel"]

pytestmark = pytest.mark.long

OTHER: dict[str, Any] = {
    "statuses.open": ["sent", "processing"],
    "statuses.completed": "done",
    "statuses.failed": "cancelled",
    "statuses.processing": "pending",
    "schedule.give_up_after": 3600,
    "schedule.give_up_blind": True,
    "schedule.confirm_cancelled": "5m",
    "provider.no_pin": ["yok"],
    "provider.unique_pins": False,
    "provider.reference_reuse": "newest",
    "database.pins": "elsewhere",
    "schedule.give_up_unknown": True,
    "schedule.brake_hold": 0,
    "schedule.ignore_before": "2026-11-01",
    "statuses.settled": ["archived"],
    "provider.replay": "pin",
    "provider.chains": "monitor",
    "schedule.observe": True,
    "events.consumer": "none",
}
"""A value of each key that is not the default."""


def of(shop: Shop, url: str, changes: dict[str, Any] | None = None) -> str:
    """Return a file with these keys changed."""
    sections: dict[str, dict[str, Any]] = {}
    for key, value in (changes or {}).items():
        section, _, name = key.partition(".")
        sections.setdefault(section, {})[name] = value
    return settings(shop.dsn, url, **sections)


def digest(key: str, value: Any) -> str:
    """Return the digest of the defaults with one key changed."""
    section, _, name = key.partition(".")
    kinds: dict[str, Any] = {
        "database": DatabaseSettings,
        "events": EventSettings,
        "provider": ProviderSettings,
        "schedule": ScheduleSettings,
        "statuses": StatusSettings,
    }
    changed: dict[str, Any] = {section: kinds[section](**{name: value})}
    return digest_of(money_of(Settings(**changed)))


async def lives(
    shop: Shop, settings_digest: str | None, *, ago: float = 0.0, kind: str = "daemon"
) -> None:
    """Let another process be seen ``ago`` seconds ago."""
    await shop.connection.execute(
        "INSERT INTO order_monitor_presence (id, host, pid, kind, version, settings, seen_at) "
        "VALUES ('other', 'h', 1, $1, '0', $2, clock_timestamp() - make_interval(secs => $3)) "
        "ON CONFLICT (id) DO UPDATE SET seen_at = EXCLUDED.seen_at, settings = EXCLUDED.settings",
        kind,
        settings_digest,
        ago,
    )


# --- every key, in every role


def test_another_value_of_each_key_is_tried() -> None:
    assert tuple(OTHER) == MONEY


async def test_of_who_takes_the_events_it_matters_only_whether_anyone_does(
    plain_shop: Shop, panel: Panel, tmp_path: Path
) -> None:
    """An event that is written as consumed is taken by no consumer: its money never moves."""
    await prepare(plain_shop)
    one, other = await sent(plain_shop, 2)
    usual, posts, none = (
        of(plain_shop, panel.server.url, {"events.consumer": who})
        for who in ("table", "webhook", "none")
    )
    decision = ("--failed", "--reason", "x")
    assert (await call(tmp_path, usual, "resolve", one, *decision))[0] == 0
    code, _, said = await call(tmp_path, none, "resolve", other, *decision)
    assert (code, "events.consumer is none, in force table" in said) == (1, True)
    assert (await call(tmp_path, posts, "resolve", other, *decision))[0] == 0
    consumed = "SELECT count(consumed_at), count(*) FROM order_monitor_events"
    assert tuple(await plain_shop.connection.fetchrow(consumed) or ()) == (0, 2)


@pytest.mark.parametrize("key", MONEY)
async def test_a_pass_and_people_that_differ_ask_and_write_nothing(
    plain_shop: Shop, panel: Panel, tmp_path: Path, key: str
) -> None:
    await prepare(plain_shop)
    usual, other = (
        of(plain_shop, panel.server.url),
        of(plain_shop, panel.server.url, {key: OTHER[key]}),
    )
    assert (await call(tmp_path, usual, "--once"))[0] == 0
    before = await stored(plain_shop)
    assert before == money_of(Settings())
    (order_id,) = await sent(plain_shop, 1)
    for arguments in (
        ("--once",),
        ("--once", "--json", "--quiet"),
        ("ask", order_id),
        ("resolve", order_id, "--failed", "--reason", "x"),
    ):
        code, out, err = await call(tmp_path, other, *arguments)
        assert (code, out) == (1, ""), err
        told = [line for line in err.splitlines() if line.startswith(f"order-monitor: {key} is ")]
        assert len(told) == 1, err
        assert told[0].endswith(f", in force {before[key]}")
        assert "--accept-settings" in err
    assert panel.server.calls == {}
    assert (await plain_shop.row(order_id))["external_status"] == "sent"
    assert await stored(plain_shop) == before


@pytest.mark.wall_clock
@pytest.mark.parametrize("key", MONEY)
async def test_a_daemon_that_differs_from_one_that_lives_asks_nothing_and_goes_on_when_it_is_gone(
    plain_shop: Shop, panel: Panel, tmp_path: Path, key: str
) -> None:
    await prepare(plain_shop)
    assert (await call(tmp_path, of(plain_shop, panel.server.url), "--once"))[0] == 0
    before = await stored(plain_shop)
    await lives(plain_shop, digest_of(money_of(Settings())))
    (order_id,) = await sent(plain_shop, 1)
    async with started(tmp_path, "d", of(plain_shop, panel.server.url, {key: OTHER[key]})) as run:
        await run.event("settings.differ")
        text = await until_ready(run, 503)
        assert f"settings differ from those in force: {key} is " in text
        assert (
            f", in force {before[key]}; stop the other process, or run order-monitor settings adopt"
            in text.replace('\\"', '"')
        )
        await asyncio.sleep(0.5)
        assert panel.server.calls == {}
        assert await stored(plain_shop) == before
        await lives(plain_shop, digest_of(money_of(Settings())), ago=61)
        told = await run.event("settings.stored")
        assert list(told["replaced"]) == [key]
        assert told["replaced"][key]["old"] == before[key]
        await until_ready(run)
        assert (await stored(plain_shop))[key] == told["replaced"][key]["new"] != before[key]
        assert len([e for e in run.events() if e["event"] == "settings.differ"]) == 1
        if key == OBSERVE:
            await run.event("order.observed")
        await stop(run)
    is_written = (await plain_shop.row(order_id))["external_status"] != "sent"
    assert is_written is (key != OBSERVE)


async def test_what_does_not_decide_money_may_differ(
    plain_shop: Shop, panel: Panel, tmp_path: Path
) -> None:
    await prepare(plain_shop)
    assert (await call(tmp_path, of(plain_shop, panel.server.url), "--once"))[0] == 0
    await sent(plain_shop, 2)
    other = {
        "schedule.base": 7,
        "limits.concurrency": 3,
        "statuses.open": ["queued", "pending", "processing", "sent"],
        "provider.no_pin": [
            *(w.upper() if w.isascii() else w for w in ProviderSettings().no_pin),
            "yok",
        ],
    }
    code, _, err = await call(tmp_path, of(plain_shop, panel.server.url, other), "--once")
    assert code == 0, err


# --- who accepts


async def test_a_pass_that_accepts_writes_the_stored_word(
    plain_shop: Shop, panel: Panel, tmp_path: Path
) -> None:
    await prepare(plain_shop)
    usual = of(
        plain_shop,
        panel.server.url,
        {"statuses.completed": "done", "schedule.give_up_after": 90_000},
    )
    other = of(plain_shop, panel.server.url)
    assert (await call(tmp_path, usual, "--once"))[0] == 0
    a, b, c = await sent(plain_shop, 3)
    assert (await call(tmp_path, other, "ask", a, "--accept-settings"))[0] == 0
    code, out, _ = await call(tmp_path, other, "resolve", b, "--completed", "--accept-settings")
    assert (code, "now 'done'" in out) == (0, True)
    assert (await call(tmp_path, other, "--once", "--accept-settings"))[0] == 0
    assert [(await plain_shop.row(i))["external_status"] for i in (a, b, c)] == ["done"] * 3
    assert (await stored(plain_shop))["statuses.completed"] == "done"
    assert (await call(tmp_path, other, "--accept-settings"))[0] == 2


async def test_a_pass_that_accepts_gives_up_by_the_stored_limit(
    plain_shop: Shop, panel: Panel, tmp_path: Path
) -> None:
    await prepare(plain_shop)
    assert (await call(tmp_path, of(plain_shop, panel.server.url), "--once"))[0] == 0
    panel.answer = Waiting("bekleniyor")
    (order_id,) = await sent(plain_shop, 1)
    short = of(plain_shop, panel.server.url, {"schedule.give_up_after": 50})
    assert (await call(tmp_path, short, "--once"))[0] == 1
    assert (await call(tmp_path, short, "--once", "--accept-settings"))[0] == 0
    assert (await plain_shop.row(order_id))["external_status"] == "processing"


async def test_what_is_in_force_and_does_not_go_with_the_file_is_said(
    plain_shop: Shop, panel: Panel, tmp_path: Path
) -> None:
    await prepare(plain_shop)
    assert (
        await call(
            tmp_path, of(plain_shop, panel.server.url, {"schedule.give_up_after": 50}), "--once"
        )
    )[0] == 0
    late = of(plain_shop, panel.server.url, {"schedule.first_check": 60})
    code, _, err = await call(tmp_path, late, "--once", "--accept-settings")
    assert (code, "schedule: with the settings in force: give_up_after must be longer" in err) == (
        2,
        True,
    )


# --- deploys


async def test_a_deploy_with_a_changed_setting_stores_it_and_tells_old_and_new(
    plain_shop: Shop, panel: Panel, tmp_path: Path
) -> None:
    await prepare(plain_shop)
    async with started(tmp_path, "d", of(plain_shop, panel.server.url)) as run:
        first = await run.event("settings.stored")
        assert (set(first["added"]), first["replaced"]) == (set(MONEY), {})
        await until_ready(run)
        await stop(run)
    async with started(
        tmp_path, "d", of(plain_shop, panel.server.url, {"schedule.give_up_after": "1h"})
    ) as run:
        told = await run.event("settings.stored")
        assert told["replaced"] == {"schedule.give_up_after": {"old": "86400", "new": "3600"}}
        await until_ready(run)
        await stop(run)
    assert (await stored(plain_shop))["schedule.give_up_after"] == "3600"


@pytest.mark.wall_clock
async def test_a_killed_daemon_counts_for_a_minute_more(
    plain_shop: Shop, panel: Panel, tmp_path: Path
) -> None:
    """With the same settings the next one starts at once.

    With others it waits until the dead one is old.
    """
    await prepare(plain_shop)
    usual = of(plain_shop, panel.server.url)
    async with started(tmp_path, "d", usual) as run:
        await until_ready(run)
        run.process.kill()
        await run.end()
    async with started(tmp_path, "d", usual) as run:
        await until_ready(run)
        run.process.kill()
        await run.end()
    (order_id,) = await sent(plain_shop, 1)
    async with started(
        tmp_path, "d", of(plain_shop, panel.server.url, {"statuses.completed": "done"})
    ) as run:
        await run.event("settings.differ")
        await asyncio.sleep(0.5)
        assert panel.server.calls == {}
        await plain_shop.connection.execute(
            "UPDATE order_monitor_presence SET seen_at = seen_at - interval '61 s'"
        )
        await is_final(plain_shop, order_id, "done")
        await stop(run)


async def test_a_rolling_restart_of_two_with_a_changed_setting_comes_to_an_end(
    plain_shop: Shop, panel: Panel, tmp_path: Path
) -> None:
    await prepare(plain_shop)
    old, new = (
        of(plain_shop, panel.server.url),
        of(plain_shop, panel.server.url, {"statuses.completed": "done"}),
    )
    async with started(tmp_path, "a", old) as a, started(tmp_path, "b", old) as b:
        await until_ready(a)
        await until_ready(b)
        await stop(a)
        async with started(tmp_path, "a2", new) as a2:
            await a2.event("settings.differ")
            (order_id,) = await sent(plain_shop, 1)
            await is_final(plain_shop, order_id, "completed")
            assert (await ready(a2))[0] == 503
            await stop(b)
            async with started(tmp_path, "b2", new) as b2:
                await until_ready(a2)
                await until_ready(b2)
                (order_id,) = await sent(plain_shop, 1)
                await is_final(plain_shop, order_id, "done")
                changes = [
                    e for run in (a2, b2) for e in run.events() if e["event"] == "settings.stored"
                ]
                assert [list(e["replaced"]) for e in changes] == [["statuses.completed"]]
                await stop(a2)
                await stop(b2)


async def test_an_update_adds_a_new_key_beside_a_daemon_of_the_version_before(
    plain_shop: Shop, panel: Panel, tmp_path: Path
) -> None:
    """Which knows only the first few keys: it lives by what is stored all the same, and nothing is
    taken from it.
    """
    from order_monitor.settings.money import MONEY
    from order_monitor.shop.money_settings import digest_of

    fresh = MONEY[-1]
    await prepare(plain_shop)
    assert (await call(tmp_path, of(plain_shop, panel.server.url), "--once"))[0] == 0
    await plain_shop.connection.execute(
        f"DELETE FROM order_monitor_settings WHERE name = 'money.{fresh}'"
    )
    known = {key: value for key, value in money_of(Settings()).items() if key != fresh}
    await lives(plain_shop, digest_of(known))
    async with started(tmp_path, "d", of(plain_shop, panel.server.url)) as run:
        told = await run.event("settings.stored")
        assert (told["added"], told["replaced"]) == ([fresh], {})
        await until_ready(run)
        await stop(run)
    async with started(
        tmp_path, "d", of(plain_shop, panel.server.url, {"statuses.failed": "cancelled"})
    ) as run:
        await run.event("settings.differ")
        run.process.kill()
    assert (await stored(plain_shop))["statuses.failed"] == "failed"


# --- while it runs


@pytest.mark.wall_clock
async def test_a_running_daemon_holds_when_others_are_adopted_and_goes_on_when_its_own_are(
    plain_shop: Shop, panel: Panel, tmp_path: Path
) -> None:
    await prepare(plain_shop)
    usual, other = (
        of(plain_shop, panel.server.url),
        of(plain_shop, panel.server.url, {"statuses.completed": "done"}),
    )
    async with started(tmp_path, "d", usual) as run:
        await until_ready(run)
        code, out, _ = await call(tmp_path, other, "settings", "adopt", "--by", "Ayşe")
        assert (code, out.splitlines()[0]) == (0, "statuses.completed: completed -> done")
        assert "a running daemon with other settings asks nothing any more" in out
        assert "statuses.completed is completed, in force done" in await until_ready(run, 503)
        calls = dict(panel.server.calls)
        (order_id,) = await sent(plain_shop, 1)
        await asyncio.sleep(1)
        assert panel.server.calls == calls
        assert (await call(tmp_path, other, "ask", order_id))[0] == 0
        assert (await plain_shop.row(order_id))["external_status"] == "done"
        assert (await call(tmp_path, usual, "settings", "adopt"))[0] == 0
        await run.event("settings.agree")
        await until_ready(run)
        (order_id,) = await sent(plain_shop, 1)
        await is_final(plain_shop, order_id, "completed")
        await stop(run)


async def test_what_was_answered_when_it_had_to_hold_is_not_written(
    plain_shop: Shop, panel: Panel, tmp_path: Path
) -> None:
    await prepare(plain_shop)
    usual, other = (
        of(plain_shop, panel.server.url),
        of(plain_shop, panel.server.url, {"statuses.completed": "done"}),
    )
    panel.release.clear()
    (order_id,) = await sent(plain_shop, 1)
    async with started(tmp_path, "d", usual) as run:
        await panel.started.wait()
        assert (await call(tmp_path, other, "settings", "adopt"))[0] == 0
        await run.event("settings.differ")
        panel.release.set()
        await run.event("writes.waiting")
        assert (await plain_shop.row(order_id))["external_status"] == "sent"
        assert (await call(tmp_path, usual, "settings", "adopt"))[0] == 0
        await is_final(plain_shop, order_id, "completed")
        await stop(run)


async def test_a_reload_with_another_setting_is_stored_where_it_is_alone(
    plain_shop: Shop, panel: Panel, tmp_path: Path
) -> None:
    await prepare(plain_shop)
    async with started(tmp_path, "d", of(plain_shop, panel.server.url)) as run:
        await until_ready(run)
        changed = of(plain_shop, panel.server.url, {"schedule.give_up_after": "50h"})
        told = await reload(run, tmp_path / "d", changed)
        assert told["changed"] == ["schedule.give_up_after"]
        assert (await stored(plain_shop))["schedule.give_up_after"] == "180000"
        replaced = [e["replaced"] for e in run.events() if e["event"] == "settings.stored"][-1]
        assert replaced == {"schedule.give_up_after": {"old": "86400", "new": "180000"}}
        assert (await ready(run))[0] == 200
        kept = await plain_shop.connection.fetchval("SELECT settings FROM order_monitor_presence")
        assert kept == digest("schedule.give_up_after", "50h")
        await stop(run)


async def test_a_reload_with_another_setting_is_refused_whole_where_another_daemon_lives(
    plain_shop: Shop, panel: Panel, tmp_path: Path
) -> None:
    await prepare(plain_shop)
    async with started(tmp_path, "d", of(plain_shop, panel.server.url)) as run:
        await until_ready(run)
        await lives(plain_shop, digest_of(money_of(Settings())))
        changed = of(
            plain_shop, panel.server.url, {"schedule.give_up_after": "50h", "limits.concurrency": 3}
        )
        told = await reload(run, tmp_path / "d", changed, "settings.refused")
        assert told["problems"] == [
            "schedule.give_up_after is 180000, in force 86400; another daemon lives by it",
        ]
        assert (await stored(plain_shop))["schedule.give_up_after"] == "86400"
        assert (await ready(run))[0] == 200
        await lives(plain_shop, digest_of(money_of(Settings())), ago=61)
        told = await reload(run, tmp_path / "d", changed)
        assert set(told["changed"]) == {"limits.concurrency", "schedule.give_up_after"}
        await stop(run)


async def test_a_reload_to_what_somebody_adopted_lets_it_go_on(
    plain_shop: Shop, panel: Panel, tmp_path: Path
) -> None:
    await prepare(plain_shop)
    other = of(plain_shop, panel.server.url, {"schedule.give_up_blind": True})
    async with started(tmp_path, "d", of(plain_shop, panel.server.url)) as run:
        await until_ready(run)
        assert (await call(tmp_path, other, "settings", "adopt"))[0] == 0
        await until_ready(run, 503)
        assert (await reload(run, tmp_path / "d", other))["changed"] == ["schedule.give_up_blind"]
        await until_ready(run)
        await stop(run)


# --- the commands


async def test_settings_are_shown_with_what_differs(
    plain_shop: Shop, panel: Panel, tmp_path: Path
) -> None:
    usual, other = (
        of(plain_shop, panel.server.url),
        of(plain_shop, panel.server.url, {"statuses.completed": "done"}),
    )
    await prepare(plain_shop)
    await plain_shop.connection.execute("DROP TABLE order_monitor_settings")
    code, _, err = await call(tmp_path, usual, "settings", "show")
    assert (code, "run: order-monitor migrate" in err) == (1, True)
    assert (await call(tmp_path, usual, "settings", "adopt"))[0] == 1
    await prepare(plain_shop)
    code, out, _ = await call(tmp_path, usual, "settings", "show")
    assert (code, out.count("not stored yet")) == (0, len(MONEY))
    code, out, _ = await call(tmp_path, usual, "settings", "adopt", "--by", "Ayşe")
    assert (code, out.count("which was not stored yet")) == (0, len(MONEY))
    assert (await call(tmp_path, usual, "settings", "adopt"))[
        1
    ] == "nothing to do: this file's are in force\n"
    await plain_shop.connection.execute(
        "INSERT INTO order_monitor_settings (name, value) VALUES ('money.x.new', '1')"
    )
    code, out, _ = await call(tmp_path, other, "settings", "show")
    assert [line for line in out.splitlines() if line.startswith("!")] == [
        "! statuses.completed          completed   here: done"
    ]
    assert "  x.new                       1   unknown here" in out
    code, out, _ = await call(tmp_path, other, "settings", "show", "--json")
    line = json.loads(out)[1]
    assert line.pop("stored_at").endswith(" UTC")
    assert line == {
        "key": "statuses.completed",
        "stored": "completed",
        "own": "done",
        "differs": True,
        "stored_by": "Ayşe",
    }


async def test_no_secret_is_stored(plain_shop: Shop, panel: Panel, tmp_path: Path) -> None:
    await prepare(plain_shop)
    assert (await call(tmp_path, of(plain_shop, panel.server.url), "--once"))[0] == 0
    rows = await plain_shop.connection.fetch(
        "SELECT * FROM order_monitor_settings WHERE name <> 'key'"
    )
    assert "CANARY" not in str(rows)
    assert {row["stored_by"] for row in rows if row["name"].startswith("money.")} == {"once"}
