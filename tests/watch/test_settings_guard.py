"""In accord with the others, or held: over a real table, on a clock of the test's own."""

from order_monitor.app import policy_of
from order_monitor.settings.model import Settings
from order_monitor.shop.database import Database
from order_monitor.shop.migration import Migration
from order_monitor.shop.money_settings import LIVES_FOR, digest_of
from order_monitor.shop.presence import Ident
from order_monitor.watch.context import Context
from order_monitor.watch.observer import Observers
from order_monitor.watch.settings_guard import EVERY, SettingsGuard
from order_monitor.watch.system_clock import SystemClock
from tests.support.clocks import ManualClock
from tests.support.shops import Shop

OLD, NEW = {"a": "1"}, {"a": "2"}


async def tables(shop: Shop) -> Database:
    database = shop.database()
    async for _ in Migration(database, shop.table_config, SystemClock()).apply():
        pass
    return database


def settings_guard(
    database: Database, own: dict[str, str], name: str, clock: ManualClock
) -> SettingsGuard:
    return SettingsGuard(database, "public", own, Ident(name, "h", 1, "daemon", "1"), clock)


async def test_after_the_database_was_away_nobody_counts_as_gone_at_once(plain_shop: Shop) -> None:
    """Whoever waits must not take what the others go by, only because they could not be seen
    either.
    """
    database, clock = await tables(plain_shop), ManualClock()
    await settings_guard(database, OLD, "old", clock).compare()
    waiting = settings_guard(database, NEW, "new", clock)
    await waiting.compare()
    assert waiting.problem
    await plain_shop.connection.execute(
        "UPDATE order_monitor_presence SET seen_at = seen_at - interval '1 h'"
    )
    waiting.missed()
    await waiting.compare()
    assert waiting.problem
    clock.ring(clock.monotonic() + LIVES_FOR)
    await waiting.compare()
    assert not waiting.problem


async def test_what_is_in_accord_is_seen_again_and_again_and_leaves(plain_shop: Shop) -> None:
    database, clock = await tables(plain_shop), ManualClock()
    one = settings_guard(database, OLD, "old", clock)
    await one.compare()
    await plain_shop.connection.execute("UPDATE order_monitor_presence SET seen_at = 'epoch'")
    await one.compare()
    assert await plain_shop.connection.fetchval(
        "SELECT seen_at = 'epoch' FROM order_monitor_presence"
    )
    clock.ring(clock.monotonic() + EVERY)
    await one.compare()
    assert await plain_shop.connection.fetchval(
        "SELECT seen_at > 'epoch' FROM order_monitor_presence"
    )
    await one.leave()
    assert (
        await plain_shop.connection.fetchval("SELECT settings FROM order_monitor_presence") is None
    )


async def test_what_was_in_accord_once_replaces_nothing_and_holds_the_board(
    plain_shop: Shop,
) -> None:
    database, clock = await tables(plain_shop), ManualClock()
    one, context = (
        settings_guard(database, OLD, "old", clock),
        Context(policy_of(Settings()), clock, Observers()),
    )
    one.watch(context)
    await one.compare()
    assert context.hold == ""
    await plain_shop.connection.execute(
        "UPDATE order_monitor_settings SET value = '3' WHERE name = 'money.a'"
    )
    await plain_shop.connection.execute("DELETE FROM order_monitor_presence")
    context.hold_for("another", "a table is missing")
    await one.compare()
    assert context.hold.startswith(
        "a table is missing; settings differ from those in force: a is 1, in force 3; stop"
    )
    context.hold_for("another", "")
    assert await one.change(NEW) == ()
    assert (context.hold, one.own) == ("", NEW)
    assert await plain_shop.connection.fetchval(
        "SELECT settings FROM order_monitor_presence"
    ) == digest_of(NEW)
