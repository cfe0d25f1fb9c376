"""Check sees with the daemon's own eyes: whatever it finds no fault with, a pass asks about, writes
and tells.
"""

import json
import random
import uuid
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from order_monitor.app import database_of
from order_monitor.commands.check import examine
from order_monitor.commands.check_orders import REMEDIES
from order_monitor.commands.once import Wish
from order_monitor.commands.once import one_pass as make_pass
from order_monitor.commands.session import Session
from order_monitor.core.order import SkipReason
from order_monitor.settings.loading import load
from order_monitor.tell.redactor import Redactor
from tests.support.commands import check, of
from tests.support.market import PLAIN_TABLES, SHOP_TABLES, Market
from tests.support.processes import KOD, SIFRE, Panel, once, panel, running, settings
from tests.support.shops import SHOP, Shop

__all__ = ["panel"]

pytestmark = pytest.mark.long


def from_shop(shop: Shop, panel: Panel, **more: dict[str, Any]) -> str:
    provider = {"source": "database", "allow_private": True}
    return settings(shop.dsn, panel.server.url, provider=provider, **more)


async def market_of(shop: Shop) -> Market:
    await shop.connection.execute(SHOP_TABLES if shop.spelling is SHOP else PLAIN_TABLES)
    return Market(shop)


async def sent_long_ago(shop: Shop) -> None:
    sent_at = shop.spelling.name("sent_at")
    await shop.connection.execute(
        f"UPDATE product_orders SET \"{sent_at}\" = now() - interval '1 hour'"
    )


async def test_an_empty_routing_is_told_and_a_pass_in_vain_is_no_success(
    shop: Shop, panel: Panel, tmp_path: Path
) -> None:
    market = await market_of(shop)
    await market.integration(None, kod=KOD, sifre=SIFRE, base=panel.server.url)
    ids = [await shop.add(package_id=str(uuid.uuid4())) for _ in range(5)]
    await sent_long_ago(shop)
    config = from_shop(shop, panel)
    _, lines, _ = await check(tmp_path, config)
    warning = of(lines, "warning")["open orders"]
    assert warning["text"] == "5 orders cannot be asked about: no_routing"
    assert "package_routing" in warning["do"]
    assert sum(order_id in warning["do"] for order_id in ids) == 3
    assert "5 found, 5 of them cannot be asked about" in {line["text"] for line in lines}
    async with running(tmp_path, config, "--once", "--quiet") as run:
        assert await run.end() == 1
    assert "order-monitor check" in run.out.decode()
    assert not panel.server.calls


async def test_codes_and_orders_by_hand_are_no_fault(
    shop: Shop, panel: Panel, tmp_path: Path
) -> None:
    """Neither those routed so, nor those whose own row says so, nor another provider's."""
    market = await market_of(shop)
    await market.integration(None, kod=KOD, sifre=SIFRE, base=panel.server.url)
    other = await market.integration(None, provider="another")
    tenant = await market.integration(None, provider="internal")
    kind = '"providerType"' if shop.spelling is SHOP else "provider_type"
    for word in ("codes", "manual"):
        package = str(uuid.uuid4())
        await shop.connection.execute(
            f"INSERT INTO package_routing (package_id, {kind}) VALUES ($1::uuid, $2)", package, word
        )
        await shop.add(package_id=package)
    for own in ("MANUAL", "__codes__", other, tenant):
        await shop.add(provider_id=own)
    await sent_long_ago(shop)
    code, lines, _ = await check(tmp_path, from_shop(shop, panel))
    assert code == 0
    assert "open orders" not in of(lines, "warning")
    texts = {line["text"].partition(":")[0] for line in lines if line["subject"] == "open orders"}
    assert texts >= {
        f"{count} not asked about ({reason})"
        for count, reason in ((4, "no_provider"), (1, "other_provider"), (1, "waits_for_child"))
    }
    code, summary, _ = await once(tmp_path, from_shop(shop, panel))
    assert (code, summary["skipped"]) == (
        0,
        {"no_provider": 4, "other_provider": 1, "waits_for_child": 1},
    )


def test_each_fault_has_a_remedy() -> None:
    assert set(REMEDIES) == {reason for reason in SkipReason if reason.is_mendable}


@pytest.fixture
def capture(capsys: pytest.CaptureFixture[str]) -> Callable[[], Any]:
    def taken() -> Any:
        return json.loads(capsys.readouterr().out.splitlines()[-1])

    return taken


async def world(shop: Shop, market: Market, url: str, draw: random.Random) -> None:
    """Fill the shop with accounts, routes and orders, most of them as they should be."""
    await shop.connection.execute("TRUNCATE product_orders, package_routing, integrations")
    faulty = draw.random() < 0.7
    good = [await market.integration(None, kod=KOD, sifre=SIFRE, base=url)]
    kinds: list[dict[str, Any]] = [
        {"provider": "internal"},
        {"enabled": False},
        {"base": "ftp://x.example"},
        {"kod": " "},
    ]
    for more in draw.sample(kinds, draw.randint(0, 4)) if faulty else ():
        given: dict[str, Any] = {"kod": KOD, "sifre": SIFRE, "base": url, **more}
        good.append(await market.integration(None, **given))
    packages = [str(uuid.uuid4()) for _ in range(3)]
    for package in packages:
        for target in draw.choices(good, k=draw.choice((1, 1, 1, 2, 0) if faulty else (1,))):
            await market.route(None, package, target)
    for _ in range(draw.randint(1, 6)):
        more = {"package_id": draw.choice(packages)}
        if draw.random() < 0.4:
            more = {
                "provider_id": draw.choice(
                    [*good, *(("", "MANUAL", str(uuid.uuid4())) if faulty else ())]
                )
            }
        status, reference = "sent", None
        if faulty:
            status, reference = (
                draw.choice(("sent", "sent", "pending", "odd")),
                draw.choice((None, None, None, "", " ")),
            )
        await shop.add(status, reference=reference, **more)
    await sent_long_ago(shop)
    if faulty and draw.random() < 0.3:
        sent_at = shop.spelling.name("sent_at")
        await shop.connection.execute(
            f'UPDATE product_orders SET "{sent_at}" = NULL WHERE random() < 0.3'
        )


async def test_check_and_a_pass_find_the_same(
    plain_shop: Shop, panel: Panel, tmp_path: Path, capture: Any
) -> None:
    """Reason by reason in any shop.

    And where check finds nothing, all orders end and each has its event.
    """
    shop, seed = plain_shop, random.SystemRandom().randrange(1 << 30)
    market, without_fault = await market_of(shop), 0
    path = tmp_path / "monitor.toml"
    path.write_text(from_shop(shop, panel, log={"level": "error"}))
    given = load(path)
    for n in range(14):
        await world(shop, market, panel.server.url, random.Random(seed + n))
        async with database_of(given) as database:
            session = Session(given, database, Redactor())
            await examine(session, as_json=True, rehearse=False)
        lines = capture()
        told: Counter[str] = Counter()
        for line in lines:
            if (
                line["subject"] == "open orders"
                and "asked about" in line["text"]
                and "found" not in line["text"]
            ):
                reason = (
                    line["text"].rpartition(": ")[2]
                    if line["level"] == "warning"
                    else line["text"].split("(")[1].split(")")[0]
                )
                told[reason] += int(line["text"].split()[0])
        async with database_of(given) as database:
            code = await make_pass(Session(given, database, Redactor()), Wish(as_json=True))
        summary = capture()
        assert dict(told) == summary["skipped"], (seed + n, lines, summary)
        assert (summary["asked"] + told.total()) == summary["open"] + told["unknown_status"], (
            seed + n,
            summary,
        )
        if not [line for line in lines if line["level"] != "ok"]:
            without_fault += 1
            rows = await shop.connection.fetch(
                "SELECT external_status, pin_code, (SELECT count(*) FROM order_monitor_events e WHERE e.order_id = o.id) AS told "
                "FROM product_orders o WHERE provider_id IS DISTINCT FROM 'MANUAL'"
            )
            assert code == 0
            assert all(
                row["external_status"] == "completed" and row["pin_code"] and row["told"] == 1
                for row in rows
            ), seed + n
    assert without_fault, seed


async def test_it_writes_nothing(shop: Shop, panel: Panel, tmp_path: Path) -> None:
    """Neither routes nor logins nor dispatches, which a look notes; it sees them all the same."""
    market = await market_of(shop)
    key = await market.integration(None, kod=KOD, sifre=SIFRE, base=panel.server.url)
    package = str(uuid.uuid4())
    await market.route(None, package, key)
    await shop.add(package_id=package)
    await sent_long_ago(shop)
    tables = [
        row["name"]
        for row in await shop.connection.fetch(
            "SELECT relname::text AS name FROM pg_class WHERE relname LIKE 'order_monitor%' AND relkind = 'r'"
        )
    ]

    async def stored() -> dict[str, list[str]]:
        return {
            name: sorted(str(row) for row in await shop.connection.fetch(f"SELECT * FROM {name}"))
            for name in tables
        }

    config = from_shop(shop, panel)
    assert (await once(tmp_path, config))[0] == 0
    await shop.connection.execute(
        "DELETE FROM order_monitor_settings WHERE name LIKE 'route %' OR name LIKE 'login %'"
    )
    await shop.add(package_id=package)
    await sent_long_ago(shop)
    before = await stored()
    _, lines, _ = await check(tmp_path, config)
    assert any("found, 0 of them cannot be asked about" in line["text"] for line in lines), lines
    after = await stored()
    assert {
        name: [row for row in rows if row not in before[name]] for name, rows in after.items()
    } == {name: [] for name in tables}
    assert after == before
