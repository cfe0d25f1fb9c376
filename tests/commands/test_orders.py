"""The list of open orders: which, in which order, and for whom it is written."""

import csv
import io
import json
import uuid
from pathlib import Path
from typing import Any

import pytest

from tests.support.commands import call, prepare
from tests.support.market import PLAIN_TABLES, SHOP_TABLES
from tests.support.processes import KOD, PIN, SIFRE, sent, settings
from tests.support.shops import SHOP, Shop

pytestmark = pytest.mark.long

NOBODY = "http://127.0.0.1:1"
COLUMNS = [
    *("order_id", "status", "account", "sent_at", "age_seconds", "referans", "last_sync_at"),
    *("overdue", "stuck", "skipped"),
]


def config_of(shop: Shop, **more: Any) -> str:
    return settings(shop.dsn, NOBODY, schedule={"give_up_after": 7200}, **more)


async def listed(tmp_path: Path, config: str, *arguments: str) -> list[dict[str, Any]]:
    code, out, err = await call(tmp_path, config, "orders", "--json", *arguments)
    assert code == 0, err
    found: list[dict[str, Any]] = json.loads(out)
    return found


async def ids(tmp_path: Path, config: str, *arguments: str) -> list[str]:
    return [row["order_id"] for row in await listed(tmp_path, config, *arguments)]


async def of_age(shop: Shop, *ages: float | None, **more: Any) -> list[str]:
    now = await shop.connection.fetchval("SELECT extract(epoch FROM clock_timestamp())::float8")
    return [await shop.add(sent_at=None if age is None else now - age, **more) for age in ages]


async def test_open_orders_are_listed_oldest_first(shop: Shop, tmp_path: Path) -> None:
    young, old, middle, undated = await of_age(shop, 60, 5000, 600, None)
    await shop.add("completed", pin=PIN)
    await shop.add("who knows")
    config = config_of(shop)
    assert await ids(tmp_path, config) == [old, middle, young, undated]
    assert await ids(tmp_path, config, "--open") == [old, middle, young, undated]
    assert await ids(tmp_path, config, "--limit", "2") == [old, middle]
    first, *_, last = await listed(tmp_path, config)
    assert list(first) == COLUMNS
    assert (first["status"], first["account"], first["referans"]) == (
        "sent",
        "default",
        f"r-{old[:8]}",
    )
    assert 5000 <= first["age_seconds"] < 5060
    assert first["sent_at"].endswith("+00:00")
    assert (first["overdue"], first["stuck"], first["skipped"]) == (False, None, None)
    assert (last["sent_at"], last["age_seconds"], last["skipped"]) == (None, None, "no_sent_at")


async def test_what_is_asked_for_narrows_the_list_together(shop: Shop, tmp_path: Path) -> None:
    """Late, older than some time, without a reference: by the same rules as the daemon's."""
    late, young = await of_age(shop, 8000, 60)
    lost_late, lost = await of_age(shop, 9000, 4000, reference=" \t")
    await of_age(shop, None)
    config = config_of(shop)
    assert await ids(tmp_path, config, "--overdue") == [lost_late, late]
    assert await ids(tmp_path, config, "--older-than", "1h") == [lost_late, late, lost]
    assert await ids(
        tmp_path, config, "--older-than", "30s", "--account", "default", "--limit", "9"
    ) == [*(lost_late, late, lost, young)]
    assert await ids(tmp_path, config, "--no-reference") == [lost_late, lost]
    assert await ids(tmp_path, config, "--no-reference", "--overdue", "--open") == [lost_late]
    row, *_ = await listed(tmp_path, config, "--no-reference")
    assert (row["referans"], row["skipped"], row["overdue"]) == (None, "no_reference", True)


async def test_stuck_orders_are_those_of_the_review_table(bare_shop: Shop, tmp_path: Path) -> None:
    shop = bare_shop
    config = config_of(shop)
    stuck, odd, mended = await of_age(shop, 60, 70, 80)
    code, out, err = await call(tmp_path, config, "orders", "--stuck", "--json")
    assert (code, out) == (1, "")
    assert "run: order-monitor migrate" in err
    await prepare(shop)
    assert await ids(tmp_path, config, "--stuck") == []
    for order_id, kind in (
        (stuck, "pin_differs"),
        (odd, "answered_otherwise"),
        (mended, "pin_too_wide"),
    ):
        await shop.connection.execute(
            "INSERT INTO order_monitor_review (order_id, kind) VALUES ($1::uuid, $2)",
            order_id,
            kind,
        )
    await shop.connection.execute(
        "UPDATE order_monitor_review SET closed_at = now() WHERE kind = 'pin_too_wide'"
    )
    assert [(r["order_id"], r["stuck"]) for r in await listed(tmp_path, config, "--stuck")] == [
        (stuck, "pin_differs")
    ]
    assert [(r["order_id"], r["stuck"]) for r in await listed(tmp_path, config)] == [
        *((mended, None), (odd, None), (stuck, "pin_differs"))
    ]


async def test_a_shops_own_accounts_are_named_and_one_can_be_chosen(
    shop: Shop, tmp_path: Path
) -> None:
    await shop.connection.execute(SHOP_TABLES if shop.spelling is SHOP else PLAIN_TABLES)
    base_url, provider = (
        ('"baseUrl"', '"providerId"') if shop.spelling is SHOP else ("base_url", "provider_id")
    )
    first, second = str(uuid.uuid4()), str(uuid.uuid4())
    for n, integration in enumerate((first, second)):
        await shop.connection.execute(
            f"INSERT INTO integrations (id, name, provider, {base_url}, kod, sifre, enabled) "
            "VALUES ($1::uuid, 'baku', 'znet', 'https://bayi.example.com', $2, $3, $4)",
            *(integration, KOD, SIFRE, n == 0),
        )
    asked, disabled, by_hand = await of_age(shop, 60, 70, 80)
    await shop.set(by_hand, provider_id="MANUAL", sent_at=None)
    for order_id, integration in ((asked, first), (disabled, second)):
        await shop.connection.execute(
            f"UPDATE product_orders SET {provider} = $1 WHERE id = $2::uuid", integration, order_id
        )
    config = config_of(shop, provider={"source": "database"})
    name = f"baku-{first[:8]}"
    assert [
        (row["order_id"], row["account"], row["skipped"]) for row in await listed(tmp_path, config)
    ] == [*((disabled, None, "disabled"), (asked, name, None))]
    assert await ids(tmp_path, config, "--account", name) == [asked]
    assert await ids(tmp_path, config, "--no-provider") == [by_hand]
    _, _, err = await call(tmp_path, config, "orders")
    assert "1 from codes or by hand (no_provider) not listed" in err
    code, out, err = await call(tmp_path, config, "orders", "--account", "baku")
    assert (code, out) == (2, "")
    assert f"there is no account 'baku'; near: {name}" in err


async def test_an_unknown_account_is_exit_2_with_what_is_near(
    plain_shop: Shop, tmp_path: Path
) -> None:
    code, out, err = await call(tmp_path, config_of(plain_shop), "orders", "--account", "defolt")
    assert (code, out, err) == (
        2,
        "",
        "order-monitor: there is no account 'defolt'; near: default\n",
    )


@pytest.mark.parametrize(
    "arguments", [("--limit", "0"), ("--older-than", "soon"), ("--limit", "x"), ("nonsense",)]
)
async def test_bad_usage_is_exit_2(
    plain_shop: Shop, tmp_path: Path, arguments: tuple[str, ...]
) -> None:
    assert (await call(tmp_path, config_of(plain_shop), "orders", *arguments))[0] == 2


async def test_a_spreadsheet_gets_no_formula_and_whole_cells(
    plain_shop: Shop, tmp_path: Path
) -> None:
    """The apostrophe stands in the CSV only."""
    formulas = ["=1+1", "+1", "-1", "@SUM(A1)", 'a,"b"\nc', "çğ=1"]
    for n, formula in enumerate(formulas):
        await of_age(plain_shop, 1000 - n, reference=formula)
    config = config_of(plain_shop)
    code, out, _ = await call(tmp_path, config, "orders", "--csv")
    assert code == 0
    rows = list(csv.DictReader(io.StringIO(out)))
    assert list(rows[0]) == COLUMNS
    assert [row["referans"] for row in rows] == [
        "'=1+1",
        "'+1",
        "'-1",
        "'@SUM(A1)",
        'a,"b"\nc',
        "çğ=1",
    ]
    assert [row["referans"] for row in await listed(tmp_path, config)] == formulas


async def test_an_empty_list_is_empty_in_every_form(plain_shop: Shop, tmp_path: Path) -> None:
    config = config_of(plain_shop)
    assert (await call(tmp_path, config, "orders"))[:2] == (0, "no such order is open\n")
    assert (await call(tmp_path, config, "orders", "--json"))[:2] == (0, "[]\n")
    assert (await call(tmp_path, config, "orders", "--csv"))[:2] == (0, ",".join(COLUMNS) + "\n")


async def test_people_read_a_table_and_are_told_what_it_leaves_out(
    plain_shop: Shop, tmp_path: Path
) -> None:
    """Nothing in it does something to their terminal; the PIN is not in it."""
    (odd,) = await of_age(plain_shop, 8100, reference="a\x1b[31mb[red]")
    await sent(plain_shop, 2, pin=PIN)
    code, out, err = await call(tmp_path, config_of(plain_shop), "orders", "--limit", "1")
    assert (code, err) == (0, "order-monitor: 1 of 3 orders shown; --limit shows more\n")
    heads, line = out.splitlines()
    assert heads.split() == ["order", "status", "account", "sent", "age", "referans", "remarks"]
    assert line.split()[:3] == [odd, "sent", "default"]
    assert "2 h 15 min" in line
    assert r"a\u001b[31mb[red]" in line
    assert line.rstrip().endswith("overdue")


@pytest.mark.parametrize("moment", ["infinity", "-infinity", "epoch"])
async def test_a_time_that_is_no_date_breaks_nothing(
    plain_shop: Shop, tmp_path: Path, moment: str
) -> None:
    (order_id,) = await of_age(plain_shop, 60)
    await plain_shop.connection.execute(f"UPDATE product_orders SET sent_at = '{moment}'")
    for form in ("--json", "--csv", "--open"):
        code, out, err = await call(tmp_path, config_of(plain_shop), "orders", form)
        assert (code, err) == (0, "")
        assert order_id in out
    code, out, err = await call(tmp_path, config_of(plain_shop), "explain", order_id)
    assert (code, err) == (0, "")
    assert out.startswith("Open, and not asked about: it is skipped: ")
