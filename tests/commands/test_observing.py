"""``observe`` as real processes over a real database: while the mark stands, nobody writes."""

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr

from order_monitor.app import as_observed, plan_of, table_config_of
from order_monitor.core.answer import Cancelled
from order_monitor.core.check_result import CheckResult
from order_monitor.core.errors import ObservedError
from order_monitor.core.order import CONFIGURED
from order_monitor.settings.model import Settings
from order_monitor.settings.money import MONEY, money_of
from order_monitor.settings.sections import NotifySettings, ScheduleSettings, WebhookSettings
from order_monitor.shop.money_settings import OBSERVE, MoneySettings, refuse_while_observed
from order_monitor.shop.outbox import Outbox
from order_monitor.shop.presence import DAEMON, Ident
from order_monitor.watch.observing import ObservingPlan
from tests.support.commands import call, is_final
from tests.support.daemons import (
    prepare,
    reload,
    started,
    stop,
    stored,
    until_ready,
)
from tests.support.observing import OURS, counts, stands
from tests.support.processes import Panel, once, panel, sent, settings
from tests.support.shops import Shop

__all__ = ["panel"]

pytestmark = pytest.mark.long

OFF: dict[str, Any] = {}
ON: dict[str, Any] = {"schedule": {"observe": True}}


async def mark(shop: Shop) -> None:
    """Set the mark, as a daemon that observes does."""
    money = money_of(Settings(schedule=ScheduleSettings(observe=True)))
    await shop.connection.executemany(
        "INSERT INTO order_monitor_settings (name, value) VALUES ($1, $2) "
        "ON CONFLICT (name) DO UPDATE SET value = EXCLUDED.value",
        [(f"money.{key}", value) for key, value in money.items()],
    )


async def observations(shop: Shop) -> list[dict[str, Any]]:
    rows = await shop.connection.fetch("SELECT * FROM order_monitor_observed ORDER BY order_id")
    return [dict(row) for row in rows]


async def until(shop: Shop, count: int) -> None:
    """Wait until so many ends were observed."""
    async with asyncio.timeout(30):
        while len([row for row in await observations(shop) if row["done_at"]]) < count:
            await asyncio.sleep(0.05)


async def test_a_daemon_observes_and_goes_on_for_real(
    shop: Shop, panel: Panel, tmp_path: Path
) -> None:
    """Nothing is written while it observes; the next start without it ends the same orders."""
    await prepare(shop)
    ids = await sent(shop, 3, noted=False)
    table = await stands(shop)
    url = panel.server.url
    async with started(tmp_path, "one", settings(shop.dsn, url, **ON)) as run:
        await run.event("observing")
        await until_ready(run)
        await until(shop, 3)
        await stop(run)
    assert await stands(shop) == table
    assert not any((await counts(shop)).values())
    assert (await stored(shop))["schedule.observe"] == "true"
    asked = dict(panel.server.calls)
    assert set(asked.values()) == {1}
    async with started(tmp_path, "again", settings(shop.dsn, url, **ON)) as run:
        await until_ready(run)
        await stop(run)
    assert panel.server.calls == asked, "what was observed is not asked again, after a restart too"
    for order_id in ids[:1]:
        await shop.set(order_id, external_status="failed")
    code, out, err = await call(tmp_path, settings(shop.dsn, url), "report", "--observed", "--json")
    report = json.loads(out)
    assert (code, err) == (0, "")
    assert report["not_comparable"] == {"not_ended_by_them": 2}
    assert [(one["order_id"], one["ours"], one["theirs"]) for one in report["different"]] == [
        (ids[0], "completed with a PIN", "failed")
    ]
    for form in ((), ("--csv",)):
        code, out, err = await call(
            tmp_path, settings(shop.dsn, url), "report", "--observed", *form
        )
        assert (code, err) == (0, "")
        assert ids[0] in out
    async with started(tmp_path, "real", settings(shop.dsn, url)) as run:
        for order_id in ids[1:]:
            await is_final(shop, order_id, "completed")
        await stop(run)
    assert (await shop.row(ids[0]))["external_status"] == "failed"
    assert await shop.connection.fetchval("SELECT count(*) FROM order_monitor_events") == 2
    assert (await stored(shop))["schedule.observe"] == "false"


async def test_one_pass_observes(shop: Shop, panel: Panel, tmp_path: Path) -> None:
    await prepare(shop)
    await sent(shop, 3, noted=False)
    table = await stands(shop)
    config = settings(shop.dsn, panel.server.url, **ON)
    code, summary, err = await once(tmp_path, config)
    assert (code, summary["observed"], summary["completed"]) == (0, 3, 0), err
    code, summary, err = await once(tmp_path, config)
    assert (code, summary["observed"], summary["asked"]) == (0, 0, 0), err
    assert await stands(shop) == table
    assert not any((await counts(shop)).values())
    assert {row["status"] for row in await observations(shop)} == {"completed"}


@pytest.mark.parametrize("file", [ON, OFF], ids=["observing", "real"])
@pytest.mark.parametrize("accept", [(), ("--accept-settings",)], ids=["", "accept"])
async def test_while_the_mark_stands_people_write_nothing(
    plain_shop: Shop, panel: Panel, tmp_path: Path, file: dict[str, Any], accept: tuple[str, ...]
) -> None:
    """Whatever their own file says, and whatever they accept."""
    await prepare(plain_shop)
    ids = await sent(plain_shop, 3)
    await mark(plain_shop)
    await plain_shop.connection.execute(
        "INSERT INTO order_monitor_review (order_id, kind) VALUES ($1::uuid, 'pin_missing')", ids[0]
    )
    before = await stands(plain_shop), await everything(plain_shop)
    config = settings(plain_shop.dsn, panel.server.url, **file)
    taking = [
        ("resolve", ids[0], "--failed", "--reason", "x"),
        ("resolve", ids[0], "--completed", "--reason", "x"),
        ("resolve", ids[0], "--reopen", "--reason", "x"),
        ("resolve", ids[0], "--meant", "--reason", "x"),
        ("resolve", "--kind", "pin_missing", "--failed", "--reason", "x", "--confirm", "1"),
        ("ask", ids[0]),
        ("ask", "--overdue"),
    ]
    plain = [
        ("release", CONFIGURED),
        ("release", "--first-start"),
        ("review", "--close", ids[0], "--reason", "x"),
    ]
    for arguments in [*((*one, *accept) for one in taking), *([] if accept else plain)]:
        code, _, err = await call(tmp_path, config, *arguments)
        assert (code, "schedule.observe is" in err) == (1, True), (arguments, err)
    if not file and not accept:
        code, _, err = await call(tmp_path, config, "--once")
        assert (code, "schedule.observe is false, in force true" in err) == (1, True)
    assert (await stands(plain_shop), await everything(plain_shop)) == before
    assert panel.server.calls == {}


async def everything(shop: Shop) -> list[str]:
    """Return what stands in our own tables, save who was logged in at which account."""
    marks = "order_monitor_settings WHERE name <> 'key' AND NOT starts_with(name, 'login ')"
    return [
        str(await shop.connection.fetch(f"SELECT * FROM {name}"))
        for name in (*OURS, marks, "order_monitor_dispatches")
    ]


async def test_no_writer_of_whatever_settings_writes_while_the_mark_stands(shop: Shop) -> None:
    """A daemon that has looked a moment before, and does not know of the mark yet."""
    await prepare(shop)
    order_id = await shop.add()
    orders = shop.orders()
    await orders.prepare()
    await mark(shop)
    table = await stands(shop)
    finding = CheckResult(shop.order(order_id), Cancelled("x"), shop.order(order_id).sent_at or 0)
    with pytest.raises(ObservedError):
        await orders.record([finding])
    outbox = Outbox(shop.database(), "public")
    with pytest.raises(ObservedError):
        await outbox.replay("x", ids=[1], order_id=None, since=None, dead=True)
    assert await stands(shop) == table
    assert not any((await counts(shop)).values())


async def test_the_mark_waits_for_who_writes(plain_shop: Shop) -> None:
    """Once it stands, nobody is still writing who has not seen it."""
    await prepare(plain_shop)
    database, money = plain_shop.database(), MoneySettings("public")
    real = money_of(Settings())
    observing = money_of(Settings(schedule=ScheduleSettings(observe=True)))

    async def adopt() -> None:
        async with database.transaction() as connection:
            await money.reconcile(connection, observing, by="x", may_replace=True)

    async with database.transaction() as connection:
        await money.reconcile(connection, real, by="x")
    async with database.transaction() as writing:
        await refuse_while_observed(writing, "public")
        setting = asyncio.create_task(adopt())
        _, pending = await asyncio.wait([setting], timeout=0.5)
        assert pending
    await setting
    with pytest.raises(ObservedError):
        async with database.transaction() as writing:
            await refuse_while_observed(writing, "public")


async def test_a_version_that_does_not_know_it_is_not_overruled(plain_shop: Shop) -> None:
    """Its digest has no such key: while it lives, nobody sets the mark."""
    await prepare(plain_shop)
    database, money = plain_shop.database(), MoneySettings("public")
    observing = money_of(Settings(schedule=ScheduleSettings(observe=True)))
    values = list(money_of(Settings()).items())
    older = dict(values[: MONEY.index(OBSERVE)])
    async with database.transaction() as connection:
        await money.reconcile(connection, older, by="a", me=Ident("a", "h", 1, DAEMON, "0.1"))
        found = await money.reconcile(
            connection, observing, by="b", may_replace=True, me=Ident("b", "h", 2, DAEMON, "0.2")
        )
        assert [str(one) for one in found.differing] == [f"{OBSERVE} is true, in force false"]
        await money.leave(connection, Ident("a", "h", 1, DAEMON, "0.1"))
        found = await money.reconcile(
            connection, observing, by="b", may_replace=True, me=Ident("b", "h", 2, DAEMON, "0.2")
        )
        assert found.in_force[OBSERVE] == "true"


@pytest.mark.parametrize("first", [ON, OFF], ids=["observing first", "real first"])
async def test_of_two_daemons_the_second_waits(
    plain_shop: Shop, panel: Panel, tmp_path: Path, first: dict[str, Any]
) -> None:
    await prepare(plain_shop)
    url = panel.server.url
    second = OFF if first is ON else ON
    async with started(tmp_path, "first", settings(plain_shop.dsn, url, **first)) as one:
        await until_ready(one)
        async with started(tmp_path, "second", settings(plain_shop.dsn, url, **second)) as two:
            await two.event("settings.differ")
            ids = await sent(plain_shop, 2, noted=False)
            if first is ON:
                await until(plain_shop, 2)
                assert [(await plain_shop.row(i))["external_status"] for i in ids] == ["sent"] * 2
            else:
                for order_id in ids:
                    await is_final(plain_shop, order_id, "completed")
                assert await observations(plain_shop) == []
            assert set(panel.server.calls.values()) == {1}
            await stop(two)
        await stop(one)


async def test_what_is_left_from_before_stays_as_it_is(
    plain_shop: Shop, panel: Panel, tmp_path: Path
) -> None:
    """What a look for real would put on the list for people, and take off it."""
    await prepare(plain_shop)
    package = "11111111-1111-1111-1111-111111111111"
    with_pin, without, held = [
        await plain_shop.add("completed", package_id=package, pin=pin)
        for pin in ("PIN-1", None, None)
    ]
    await plain_shop.connection.executemany(
        "INSERT INTO order_monitor_events (order_id, from_status, to_status, has_pin, outcome, "
        "source, cause, account, decided_at) VALUES ($1::uuid, 'sent', 'completed', $2, "
        "'completed', 'program', 'answer', 'default', now() - interval '1 hour')",
        [(with_pin, True), (without, False)],
    )
    await plain_shop.connection.execute(
        "INSERT INTO order_monitor_review (order_id, kind, account) "
        "VALUES ($1::uuid, 'held_by_brake', 'default')",
        held,
    )
    await mark(plain_shop)
    before = await everything(plain_shop)
    await sent(plain_shop, 1, noted=False)
    url = panel.server.url
    assert (await once(tmp_path, settings(plain_shop.dsn, url, **ON)))[0] == 0
    after = await everything(plain_shop)
    assert after[: len(OURS)] == before[: len(OURS)]
    await plain_shop.connection.execute(
        "UPDATE order_monitor_settings SET value = 'false' WHERE name = 'money.schedule.observe'"
    )
    await once(tmp_path, settings(plain_shop.dsn, url))
    found = await plain_shop.connection.fetch("SELECT kind, closed_by FROM order_monitor_review")
    assert {(row["kind"], row["closed_by"] is None) for row in found} == {
        ("pin_missing", True),
        ("held_by_brake", False),
    }


async def test_a_reload_begins_no_observing(plain_shop: Shop, panel: Panel, tmp_path: Path) -> None:
    await prepare(plain_shop)
    url = panel.server.url
    async with started(tmp_path, "one", settings(plain_shop.dsn, url)) as run:
        await until_ready(run)
        told = await reload(run, tmp_path / "one", settings(plain_shop.dsn, url, **ON))
        assert "schedule.observe" in told["need_restart"]
        (order_id,) = await sent(plain_shop, 1)
        await is_final(plain_shop, order_id, "completed")
        await stop(run)
    assert (await stored(plain_shop))["schedule.observe"] == "false"


def test_what_observes_tells_nobody_and_learns_nothing() -> None:
    given = Settings(
        schedule=ScheduleSettings(
            observe=True, strategy="learned", recheck_after=60.0, confirm_cancelled=30.0
        ),
        webhook=WebhookSettings(
            url=SecretStr("https://shop.example/hook"),
            secret=SecretStr("whsec_MDEyMzQ1Njc4OWFiY2RlZg=="),
        ),
        notify=NotifySettings.model_validate({"urls": ["json://x.example"]}),
    )
    seen = as_observed(given)
    assert money_of(given)["schedule.observe"] == "true"
    assert (seen.webhook.url, seen.notify.urls) == (None, ())
    assert (seen.schedule.strategy, seen.schedule.recheck_after) == ("backoff", 0.0)
    assert (seen.schedule.brake_hold, seen.schedule.await_pin) == (0.0, 0.0)
    assert seen.schedule.confirm_cancelled == 30.0
    assert table_config_of(seen).observes
    assert isinstance(plan_of(seen, None), ObservingPlan)
    real = given.model_copy(update={"schedule": ScheduleSettings(strategy="learned")})
    assert as_observed(real) is real
    assert not isinstance(plan_of(real, None), ObservingPlan)
