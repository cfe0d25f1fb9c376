"""What people are told of the clocks: by ``check`` and by ``explain``, and what ``--once`` leaves
for the next pass.
"""

import json
from pathlib import Path

import pytest

from order_monitor.app import database_of
from order_monitor.commands.check import clocks_line
from order_monitor.commands.once import Wish
from order_monitor.commands.once import one_pass as make_pass
from order_monitor.commands.session import Session
from order_monitor.settings.loading import load
from order_monitor.shop.migration import Migration
from order_monitor.tell.redactor import Redactor
from order_monitor.watch.system_clock import SystemClock, boot_id
from tests.support.clocks import UpForLong
from tests.support.processes import Panel, panel, running, settings
from tests.support.shops import Shop

__all__ = ["panel"]

pytestmark = pytest.mark.long

NOBODY = "http://127.0.0.1:1"


@pytest.fixture
async def ours(plain_shop: Shop) -> Shop:
    """A shop with our own tables."""
    async for _ in Migration(plain_shop.database(), plain_shop.table_config, SystemClock()).apply():
        pass
    return plain_shop


@pytest.mark.parametrize(
    ("difference", "level", "said"),
    [
        (0.2, "ok", "agree"),
        (-30.0, "ok", "agree"),
        (31.0, "warning", "the database's is 31 s ahead of this machine's"),
        (-3600.0, "warning", "the database's is 3600 s behind this machine's"),
        (3601.0, "error", "no order is ended by its age"),
        (-90_000.0, "error", "no order is ended by its age"),
    ],
)
def test_check_says_by_how_much_the_clocks_differ(difference: float, level: str, said: str) -> None:
    line = clocks_line(difference)
    assert (line.level, line.subject) == (level, "clocks")
    assert said in line.text
    assert bool(line.do) is (level != "ok")


async def test_check_holds_the_clocks_against_each_other(ours: Shop, tmp_path: Path) -> None:
    async with running(tmp_path, settings(ours.dsn, NOBODY), "check", "--json") as run:
        await run.end()
    assert [line["level"] for line in json.loads(run.out) if line["subject"] == "clocks"] == ["ok"]


async def test_explain_says_why_an_overdue_order_is_not_ended(ours: Shop, tmp_path: Path) -> None:
    late, young = await ours.add(sent_at=1_700_000_000.0), await ours.add(sent_at=None)
    await ours.set(young, sent_at=await ours.connection.fetchval("SELECT now()"))
    boot = UpForLong().boot()
    await ours.connection.execute(
        "INSERT INTO order_monitor_presence (id, host, pid, kind, version, boot_id, unsteady_until) "
        "VALUES ('x', 'h', 1, 'gone', '1', $1, $2)",
        boot_id(),
        boot + 550.0,
    )
    for order_id, is_said in ((late, True), (young, False)):
        async with running(
            tmp_path, settings(ours.dsn, NOBODY), "explain", order_id, "--json"
        ) as run:
            assert await run.end() == 0
        why = json.loads(run.out)["why"]
        assert ("its age cannot end it just now" in why) is is_said
        assert not is_said or "overdue" in why


async def test_one_pass_tells_the_next_how_the_clocks_stood(
    ours: Shop, panel: Panel, tmp_path: Path
) -> None:
    (tmp_path / "monitor.toml").write_text(settings(ours.dsn, panel.server.url))
    clock = UpForLong()
    given = load(tmp_path / "monitor.toml")
    for _ in range(2):
        async with database_of(given) as database:
            session = Session(given, database, Redactor())
            assert await make_pass(session, Wish(as_json=True), clock) == 0
    rows = await ours.connection.fetch("SELECT * FROM order_monitor_presence ORDER BY started_at")
    assert [(row["kind"], row["boot_id"], row["unsteady_until"]) for row in rows] == [
        ("once", boot_id(), 0.0)
    ] * 2
    for row in rows:
        assert row["utc_offset"] == pytest.approx(clock.time() - clock.boot(), abs=1)
        assert row["database_offset"] == pytest.approx(row["utc_offset"], abs=5)
