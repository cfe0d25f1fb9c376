"""What check says of the tables is what the running daemon says: one judgement, whoever is asked."""

import asyncio
import json
import shlex
from pathlib import Path
from typing import Any

import httpx
import pytest

from order_monitor.commands.check_attention import OWN_LINES
from order_monitor.commands.review import what_to_do
from order_monitor.core.answer import Completed
from order_monitor.core.pin import Pin
from order_monitor.tell.attention import Cause
from order_monitor.tell.messages import Messages
from tests.support.commands import call, check, free_port, of, status
from tests.support.market import PLAIN_TABLES, Market
from tests.support.processes import KOD, SIFRE, Panel, panel, running, sent, settings
from tests.support.shops import Shop

__all__ = ["panel"]

pytestmark = pytest.mark.long


async def attention(port: int) -> list[Cause]:
    async with httpx.AsyncClient(trust_env=False) as client:
        document: Any = (await client.get(f"http://127.0.0.1:{port}/api/status")).json()
    assert len(document["oldest_reviews"]) == document["reviews"]
    assert document["orders"]["open"] == sum(
        row["count"] for row in document["orders"]["by_age"]
    ) + sum(document["orders"]["skipped"].values())
    return [Cause(**cause) for cause in document["attention"] if not cause["passes"]]


async def spoil(shop: Shop) -> None:
    """Leave something of each kind in the tables that a person should look at."""
    (held,) = await sent(shop, 1)
    await shop.add(reference="", sent_at=await now(shop) - 100)
    await shop.add(sent_at=await now(shop) - 90_000)
    await shop.connection.execute(
        "INSERT INTO order_monitor_review (order_id, kind, account) VALUES ($1::uuid, 'held_by_brake', 'default')",
        held,
    )
    await shop.connection.execute(
        "INSERT INTO order_monitor_events (order_id, to_status, has_pin, decided_at) "
        "VALUES ($1::uuid, 'failed', false, now() - interval '1 hour')",
        held,
    )


async def now(shop: Shop) -> float:
    return float(
        await shop.connection.fetchval("SELECT extract(epoch FROM clock_timestamp())::float8")
    )


async def test_check_judges_the_tables_as_the_daemon_does(
    plain_shop: Shop, panel: Panel, tmp_path: Path
) -> None:
    shop, port = plain_shop, free_port()
    await shop.add(sent_at=await now(shop) - 100, pin="ANOTHER-PIN-1")
    panel.answer = Completed(Pin("NEW-PIN-1"), "")
    config = settings(shop.dsn, panel.server.url, health={"port": port})
    async with running(tmp_path, config) as run:
        await run.event("order.stuck")
        folder = tmp_path / "asker"
        folder.mkdir()
        assert (await call(folder, config, "pause", "default", "--reason", "maintenance"))[0] == 0
        await spoil(shop)
        wanted = {"stuck", "paused", "held", "overdue", "skipped", "events", "reviews"}
        async with asyncio.timeout(30):
            while {cause.kind for cause in await attention(port)} & wanted != wanted:
                await asyncio.sleep(0.05)
        _, lines, _ = await check(folder, config)
        warnings = [line for line in lines if line["level"] == "warning"]
        causes = [cause for cause in await attention(port) if cause.kind in wanted]
        said = Messages("en", "")
        told = {
            line["text"].rstrip("0123456789hmin ")
            for line in warnings
            if line["subject"] == "attention"
        }
        own = {
            line["subject"].partition(" default")[0]
            for line in warnings
            if line["subject"] != "attention"
        }
        for cause in causes:
            text = said.sentence(cause).rstrip("0123456789hmin ")
            assert (text in told) is (cause.kind not in OWN_LINES), (cause, lines)
            assert cause.kind not in OWN_LINES or OWN_LINES[cause.kind] in own, (cause, lines)
        assert len(told) == len([cause for cause in causes if cause.kind not in OWN_LINES])
        code, out, _ = await status(tmp_path, config)
        assert (code, "somebody should look" in out) == (1, True)
        assert (
            json.loads((await status(tmp_path, config, "--json"))[1])["verdict"] == "needs_a_look"
        )
        run.process.terminate()
        assert await run.end() == 0


async def test_where_nothing_waits_check_says_so(
    plain_shop: Shop, panel: Panel, tmp_path: Path
) -> None:
    _, lines, _ = await check(tmp_path, settings(plain_shop.dsn, panel.server.url))
    assert of(lines, "ok")["attention"]["text"] == "no order and no event waits for an operator"


async def test_what_it_prints_can_be_pasted(plain_shop: Shop, panel: Panel, tmp_path: Path) -> None:
    """A pause of an account whose name has blanks and quotes, of its ends, and of the ends of all."""
    await plain_shop.connection.execute(PLAIN_TABLES)
    await Market(plain_shop).integration(
        None, name="Ali's $HOME dealer", kod=KOD, sifre=SIFRE, base=panel.server.url
    )
    config = settings(
        plain_shop.dsn, panel.server.url, provider={"source": "database", "allow_private": True}
    )
    _, lines, _ = await check(tmp_path, config)
    (account,) = [
        line["subject"].removeprefix("account ")
        for line in lines
        if line["subject"].startswith("account ")
    ]
    assert account.startswith("Ali's $HOME dealer")
    for arguments in ((account,), (account, "--ends"), ("--ends",)):
        assert (await call(tmp_path, config, "pause", *arguments, "--reason", "why"))[0] == 0
    _, lines, _ = await check(tmp_path, config)
    printed = [line["do"] for line in lines if line["do"].startswith("order-monitor resume")]
    assert len(printed) == 3
    for command in printed:
        code, out, err = await call(tmp_path, config, *shlex.split(command)[1:])
        assert code == 0, (command, out, err)
    assert not await plain_shop.connection.fetchval("SELECT count(*) FROM order_monitor_pauses")


def test_an_order_id_that_is_a_text_can_be_pasted() -> None:
    assert "order-monitor resolve 'A 1'\"'\"'2' --completed" in what_to_do("A 1'2", "unknown_state")
