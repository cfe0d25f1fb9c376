"""People in charge, as processes over a real database, with the daemon running beside them."""

import asyncio
import json
import re
import subprocess
import sys
import uuid
from datetime import UTC, datetime
from pathlib import Path

import pytest

from order_monitor.core.answer import Cancelled, Completed, Waiting
from order_monitor.core.pin import Pin
from tests.support import launch
from tests.support.commands import RARELY, call, daemon, events, is_final, prepare
from tests.support.market import PLAIN_TABLES, SHOP_TABLES, Market
from tests.support.orders import found
from tests.support.processes import KOD, PIN, SIFRE, Panel, once, panel, sent, settings
from tests.support.shops import SHOP, Shop
from tests.support.webhooks import SECRET, Receiver, hooked, receiver

__all__ = ["panel", "receiver"]

pytestmark = pytest.mark.long


async def one_sent(shop: Shop, panel: Panel) -> tuple[str, str]:
    """Return the id of the shop's only order, and settings by which nothing is asked soon."""
    await prepare(shop)
    (order_id,) = await sent(shop, 1)
    return order_id, settings(shop.dsn, panel.server.url, schedule=RARELY)


@pytest.mark.wall_clock
async def test_ask_answers_each_order_on_its_own_line(
    shop: Shop, panel: Panel, tmp_path: Path
) -> None:
    """One bad id does not stop the rest.

    The daemon beside it is not disturbed, and makes no second event.
    """
    config = settings(shop.dsn, panel.server.url, schedule=RARELY)
    await prepare(shop)
    a, b = await sent(shop, 2)
    lost, final = (await sent(shop, 1, reference=""))[0], await shop.add("completed")
    async with daemon(shop, tmp_path, config):
        code, out, err = await call(
            tmp_path, config, "ask", a, "nonsense", final, lost, b, f"{a[:-4]}0000"
        )
        assert code == 1
        lines = dict(line.split(": ", 1) for line in out.splitlines())
        assert (
            lines[a]
            == lines[b]
            == "the provider says completed (tamam); now 'completed', with its PIN"
        )
        assert lines[final] == "is 'completed'; only open orders are changed"
        assert lines[lost] == "not asked: it cannot be asked about: no_reference"
        assert "nonsense: there is no such order" in err
        assert f"there is no such order; near: {a}" in err
        await asyncio.sleep(0.5)
    told = await events(shop)
    assert [(str(e["order_id"]), e["decided_by"], e["repeat"]) for e in told] == [
        (a, "ask", False),
        (b, "ask", False),
    ]
    assert panel.server.calls == {f"r-{a[:8]}": 1, f"r-{b[:8]}": 1}
    code, out, _ = await call(tmp_path, config, "ask", a)
    assert code == 1
    assert re.search(
        r"is 'completed' since 20\d\d-\d\d-\d\d \d\d:\d\d:\d\d UTC, by ask; only open orders", out
    )


async def test_ask_by_account_or_lateness(plain_shop: Shop, panel: Panel, tmp_path: Path) -> None:
    shop = plain_shop
    config = settings(shop.dsn, panel.server.url, schedule={**RARELY, "give_up_after": 7200})
    await prepare(shop)
    (young,) = await sent(shop, 1)
    now = await shop.connection.fetchval("SELECT extract(epoch FROM clock_timestamp())::float8")
    old = await shop.add(sent_at=now - 8000)
    code, out, _ = await call(tmp_path, config, "ask", "--overdue", "--json")
    assert (code, [line["order_id"] for line in json.loads(out)]) == (0, [old])
    code, _, err = await call(tmp_path, config, "ask", "--account", "defolt")
    assert (code, "there is no account 'defolt'; near: default" in err) == (1, True)
    code, out, _ = await call(tmp_path, config, "ask", "--account", "default")
    assert (code, out.partition(":")[0]) == (0, young)
    assert (await call(tmp_path, config, "ask", "--overdue"))[:2] == (0, "nothing to ask about\n")
    assert (await call(tmp_path, config, "ask"))[0] == 2
    assert (await call(tmp_path, config, "ask", old, "--overdue"))[0] == 2


async def test_ask_says_what_hinders_it(
    plain_bare_shop: Shop, panel: Panel, tmp_path: Path
) -> None:
    shop = plain_bare_shop
    config = settings(shop.dsn, panel.server.url, schedule=RARELY)
    (order_id,) = await sent(shop, 1)
    code, _, err = await call(tmp_path, config, "ask", order_id)
    assert (code, "run order-monitor migrate" in err) == (1, True)
    await prepare(shop)
    panel.answer = Waiting("bekleniyor")
    assert (await call(tmp_path, config, "ask", order_id))[0] == 0
    panel.body = "3|Açıklama"
    code, out, _ = await call(tmp_path, config, "ask", order_id)
    assert (code, out) == (
        0,
        f"{order_id}: the provider says refused (Açıklama); nothing to write\n",
    )
    panel.body = "8|Bağlantı Hatası"
    code, out, _ = await call(tmp_path, config, "ask", order_id)
    assert code == 1
    assert "blocked" in out
    assert (await shop.row(order_id))["external_status"] == "processing"


async def test_a_pause_holds_for_everybody_and_after_a_restart(
    shop: Shop, panel: Panel, tmp_path: Path
) -> None:
    config = settings(shop.dsn, panel.server.url)
    await prepare(shop)
    code, out, _ = await call(
        tmp_path, config, "pause", "default", "--reason", "bakım", "--by", "Ayşe"
    )
    assert (code, out) == (0, "default: paused until it is resumed by Ayşe: bakım\n")
    (order_id,) = await sent(shop, 1)
    for _ in range(2):
        async with daemon(shop, tmp_path, config) as run:
            told = await run.event("account.paused")
            assert (told["reason"], told["by"]) == ("bakım", "Ayşe")
            await asyncio.sleep(0.6)
    code, summary, _ = await once(tmp_path / "daemon", config)
    assert (code, summary["not_asked"]) == (1, 1)
    code, out, _ = await call(tmp_path, config, "ask", order_id)
    assert (code, "account default is paused since" in out, "by Ayşe: bakım" in out) == (
        1,
        True,
        True,
    )
    assert panel.server.calls == {}
    code, out, _ = await call(tmp_path, config, "explain", order_id, "--json")
    story = json.loads(out)
    assert (story["asked_about"], story["next"]) == (False, [])
    assert "its account is paused since" in story["why"]
    assert "by Ayşe: bakım" in story["why"]
    code, out, _ = await call(tmp_path, config, "check")
    assert "account default: is paused by Ayşe: bakım" in out
    async with daemon(shop, tmp_path, config) as run:
        await run.event("account.paused")
        assert (await call(tmp_path, config, "resume", "default"))[0] == 0
        await run.event("account.resumed")
        await is_final(shop, order_id)
    code, _, err = await call(tmp_path, config, "resume", "default")
    assert (code, "'default' is not paused" in err) == (1, True)


async def test_a_pause_ends_by_itself_and_names_are_checked(
    plain_shop: Shop, panel: Panel, tmp_path: Path
) -> None:
    shop = plain_shop
    config = settings(shop.dsn, panel.server.url)
    await prepare(shop)
    code, _, err = await call(tmp_path, config, "pause", "main", "--reason", "x")
    assert (code, "near: default" in err) == (1, True)
    async with daemon(shop, tmp_path, config) as run:
        assert (await call(tmp_path, config, "pause", "default", "--reason", "x", "--for", "4s"))[
            0
        ] == 0
        await run.event("account.paused")
        (order_id,) = await sent(shop, 1)
        await run.event("account.resumed")
        await is_final(shop, order_id)


async def test_a_shops_own_accounts_are_paused_by_their_names(
    shop: Shop, panel: Panel, tmp_path: Path
) -> None:
    await shop.connection.execute(SHOP_TABLES if shop.spelling is SHOP else PLAIN_TABLES)
    config = settings(
        shop.dsn, panel.server.url, provider={"source": "database", "allow_private": True}
    )
    await prepare(shop)
    base_url = '"baseUrl"' if shop.spelling is SHOP else "base_url"
    provider = '"providerId"' if shop.spelling is SHOP else "provider_id"
    ids = [str(uuid.uuid4()) for _ in range(2)]
    for n, integration in enumerate(ids):
        await shop.connection.execute(
            f"INSERT INTO integrations (id, name, provider, {base_url}, kod, sifre) VALUES ($1::uuid, $2, 'znet', $3, $4, $5)",
            integration,
            f"shop{n}",
            panel.server.url,
            KOD,
            SIFRE,
        )
    a, b = await sent(shop, 2)
    for order_id, integration in ((a, ids[0]), (b, ids[1])):
        await shop.connection.execute(
            f"UPDATE product_orders SET {provider} = $1 WHERE id = $2::uuid", integration, order_id
        )
    name = f"shop0-{ids[0][:8]}"
    assert (await call(tmp_path, config, "pause", name, "--reason", "x"))[0] == 0
    async with daemon(shop, tmp_path, config):
        await is_final(shop, b)
        assert (await shop.row(a))["external_status"] == "sent"
        await shop.connection.execute("UPDATE integrations SET name = 'bayi' WHERE name = 'shop0'")
        assert (await call(tmp_path, config, "resume", f"bayi-{ids[1][:8]}"))[0] == 1, (
            "another account"
        )
        code, out, _ = await call(tmp_path, config, "resume", f"bayi-{ids[0][:8]}")
        assert (code, out) == (
            0,
            f"bayi-{ids[0][:8]}: resumed; it is asked again within a scan\n",
        ), "by its name since"
        await is_final(shop, a)


async def test_resolve_completes_with_a_pin_that_no_list_of_processes_shows(
    shop: Shop, panel: Panel, receiver: Receiver, tmp_path: Path
) -> None:
    hook = {"url": receiver.url, "secret": SECRET}
    config = settings(shop.dsn, panel.server.url, schedule=RARELY, webhook=hook)
    await prepare(shop)
    (order_id,) = await sent(shop, 1)
    async with daemon(shop, tmp_path, config):
        code, out, _ = await call(
            tmp_path,
            config,
            "resolve",
            order_id,
            "--completed",
            "--pin-stdin",
            "--reason",
            "telefonla soruldu",
            "--by",
            "Ayşe",
            stdin=f"{PIN}\n",
        )
        assert (code, out) == (0, f"{order_id}: now 'completed' with its PIN, by Ayşe\n")
        while not receiver.got:
            await asyncio.sleep(0.02)
    row = await shop.row(order_id)
    assert (row["external_status"], row["pin_code"]) == ("completed", PIN)
    assert row["note"].endswith("telefonla soruldu")
    (event,) = await events(shop)
    assert (event["decided_by"], event["message"], event["has_pin"]) == (
        "Ayşe",
        "telefonla soruldu",
        True,
    )
    assert (receiver.got[0]["type"], receiver.got[0]["data"]["decided_by"]) == (
        "order.completed",
        "Ayşe",
    )
    assert PIN not in json.dumps(receiver.got)
    code, _, err = await call(tmp_path, config, "resolve", order_id, "--failed", "--reason", "x")
    assert code == 1
    assert "since" in err
    assert "by Ayşe; only open orders are changed" in err


async def test_resolve_refuses_what_the_daemon_would(
    plain_bare_shop: Shop, panel: Panel, tmp_path: Path
) -> None:
    shop = plain_bare_shop
    config = settings(shop.dsn, panel.server.url, schedule=RARELY)
    (early,) = await sent(shop, 1)
    code, _, err = await call(tmp_path, config, "resolve", early, "--failed", "--reason", "x")
    assert (code, "run order-monitor migrate" in err) == (1, True)
    await prepare(shop)
    (with_pin,) = await sent(shop, 1, pin="OTHER-1")
    (plain,) = await sent(shop, 1)
    cases: list[tuple[list[str], str, int, str]] = [
        ([with_pin, "--failed", "--reason", "x"], "", 1, "failed_with_pin"),
        ([with_pin, "--completed", "--pin-stdin"], PIN, 1, "pin_differs"),
        ([plain, "--completed", "--pin-stdin"], "X" * 200, 1, "pin_too_wide"),
        ([plain, "--completed", "--pin-stdin"], "\n", 1, "no PIN was given"),
        ([plain, "--failed"], "", 2, "--failed needs --reason"),
        ([plain, "--reopen"], "", 2, "--reopen needs --reason"),
        ([plain], "", 2, "give --completed, --failed or --reopen"),
        (
            [plain, "--failed", "--reason", "x", "--pin-stdin"],
            "",
            2,
            "--pin-stdin goes with --completed",
        ),
        (["nonsense", "--failed", "--reason", "x"], "", 1, "there is no such order"),
        ([plain, "--reopen", "--reason", "x"], "", 1, "order-monitor has not ended it"),
    ]
    for arguments, stdin, expected, text in cases:
        code, out, err = await call(tmp_path, config, "resolve", *arguments, stdin=stdin)
        assert (code, text in err) == (expected, True), (arguments, err)
        assert out == ""
    assert await events(shop) == []
    assert (await shop.row(with_pin))["pin_code"] == "OTHER-1"


@pytest.mark.parametrize(
    ("stdin", "said"),
    [
        (b"", "no PIN was given on standard input"),
        (b" \r\n", "no PIN was given on standard input"),
        (b"-\n", "no PIN was given on standard input"),
        ("PİN YOK\n".encode(), "no PIN was given on standard input"),
        (b"<script>HIDDEN-12</script>", "holds markup"),
        (b"HIDDEN-12\nWarning: x in /p.php on line 3\n", "holds a notice of PHP"),
        (b"HIDDEN\x0012", "holds characters that cannot be read"),
        (b"HIDDEN\xff12", "is not UTF-8"),
        ("HIDDEN-12".encode("utf-16"), "is not UTF-8"),
        (b"HIDDEN-12 " * 7000, "more than 65536 bytes"),
    ],
)
async def test_what_is_no_pin_is_not_stored_as_one(
    plain_shop: Shop, panel: Panel, tmp_path: Path, stdin: bytes, said: str
) -> None:
    """One line says why, and nothing of what was given."""
    shop = plain_shop
    order_id, config = await one_sent(shop, panel)
    code, out, err = await call(
        tmp_path, config, "resolve", order_id, "--completed", "--pin-stdin", stdin=stdin
    )
    assert (code, out, err.count("\n")) == (1, "", 1)
    assert said in err
    assert "nothing was written" in err
    assert "HIDDEN" not in err
    row = await shop.row(order_id)
    assert (row["external_status"], row["pin_code"]) == ("sent", None)
    assert await events(shop) == []


@pytest.mark.parametrize(
    ("stdin", "stored"),
    [
        (b"KEY-1234\nSERIAL-5678\n", "KEY-1234\nSERIAL-5678"),
        ("\ufeff KEY-1234 \r\nSERIAL-5678\r\n\r\n".encode(), "KEY-1234\nSERIAL-5678"),
        ("şİ-1234<br>SERİ&amp;5".encode(), "şİ-1234\nSERİ&5"),
    ],
)
async def test_a_pin_of_several_lines_is_read_whole(
    plain_shop: Shop, panel: Panel, tmp_path: Path, stdin: bytes, stored: str
) -> None:
    shop = plain_shop
    order_id, config = await one_sent(shop, panel)
    code, out, err = await call(
        tmp_path, config, "resolve", order_id, "--completed", "--pin-stdin", stdin=stdin
    )
    assert (code, "with its PIN" in out, err) == (0, True, "")
    row = await shop.row(order_id)
    assert (row["external_status"], row["pin_code"]) == ("completed", stored)
    assert "1234" not in out


async def test_a_persons_pin_that_another_order_has_is_not_written(
    shop: Shop, panel: Panel, tmp_path: Path
) -> None:
    """Copied from the wrong line, say. Only where that is what waits for a person is it meant."""
    config = settings(shop.dsn, panel.server.url, schedule=RARELY)
    await prepare(shop)
    first, second = await sent(shop, 2)
    typed = ("--completed", "--pin-stdin")
    assert (await call(tmp_path, config, "resolve", first, *typed, stdin=b"AB12-CD34\n"))[0] == 0
    code, _, err = await call(tmp_path, config, "resolve", second, *typed, stdin=b"AB12-CD34\n")
    assert (code, "pin_duplicate" in err, first in err) == (1, True, True)
    row = await shop.row(second)
    assert (row["external_status"], row["pin_code"]) == ("sent", None)
    named = (*typed, "--same-as", first)
    assert (await call(tmp_path, config, "resolve", second, *named, stdin=b"AB12-CD34\n"))[0] == 0


async def test_reopen_takes_back_an_end_that_nobody_acted_on(
    shop: Shop, panel: Panel, tmp_path: Path
) -> None:
    """The withdrawn event moves no money, and the next end counts as the first."""
    config = settings(shop.dsn, panel.server.url, schedule={"scan_interval": 3600})
    await prepare(shop)
    (order_id,) = await sent(shop, 1)
    panel.answer = Cancelled("iptal")
    assert (await once(tmp_path, config))[0] == 0
    code, out, err = await call(
        tmp_path, config, "resolve", order_id, "--reopen", "--reason", "yanlış", "--by", "Ayşe"
    )
    assert (code, out) == (
        0,
        f"{order_id}: 'sent' again; its end was withdrawn before the shop acted on it\n",
    ), err
    assert (await shop.row(order_id))["external_status"] == "sent"
    assert (await once(tmp_path, config))[0] == 0
    told = await events(shop)
    assert [
        (e["to_status"], e["decided_by"], e["repeat"], e["consumed_at"] is not None) for e in told
    ] == [
        ("failed", "daemon", True, True),
        ("sent", "Ayşe", False, False),
        ("failed", "daemon", False, False),
    ]
    await shop.connection.execute(
        "UPDATE order_monitor_events SET consumed_at = now() WHERE id = $1", told[-1]["id"]
    )
    code, _, err = await call(tmp_path, config, "resolve", order_id, "--reopen", "--reason", "x")
    assert (code, "the shop has acted on its end" in err) == (1, True)
    assert (await shop.row(order_id))["external_status"] == "failed"


async def test_reopen_waits_for_no_consumer_and_undoes_no_person(
    plain_shop: Shop, panel: Panel, receiver: Receiver, tmp_path: Path
) -> None:
    shop = plain_shop
    hook = {"url": receiver.url, "secret": SECRET}
    config = settings(shop.dsn, panel.server.url, schedule={"scan_interval": 3600})
    await prepare(shop)
    (a,) = await sent(shop, 1)
    panel.answer = Cancelled("iptal")
    assert (await once(tmp_path, config))[0] == 0
    async with shop.connection.transaction():
        await shop.connection.execute("SELECT * FROM order_monitor_events FOR UPDATE")
        code, _, err = await call(tmp_path, config, "resolve", a, "--reopen", "--reason", "x")
        assert (code, "is acting on its end just now" in err) == (1, True)
    (b,) = await sent(shop, 1)
    assert (
        await call(tmp_path, config, "resolve", b, "--failed", "--reason", "x", "--by", "Ayşe")
    )[0] == 0
    code, _, err = await call(tmp_path, config, "resolve", b, "--reopen", "--reason", "x")
    assert (code, "Ayşe ended it" in err) == (1, True)
    (c,) = await sent(shop, 1)
    posted = settings(shop.dsn, panel.server.url, webhook=hook)
    assert (await once(tmp_path, posted))[0] == 0
    code, _, err = await call(tmp_path, posted, "resolve", c, "--reopen", "--reason", "x")
    assert (code, "was posted to the shop" in err) == (1, True)
    (d,) = await sent(shop, 1)
    receiver.answers = [500]
    assert (await once(tmp_path, posted))[0] == 0
    code, _, err = await call(tmp_path, posted, "resolve", d, "--reopen", "--reason", "x")
    assert (code, "was posted to the shop, or tried" in err) == (1, True), (
        "who knows what became of that post"
    )


async def test_reopen_withdraws_a_post_that_was_never_tried(
    plain_shop: Shop, panel: Panel, receiver: Receiver, tmp_path: Path
) -> None:
    shop = plain_shop
    (order_id,) = await sent(shop, 1)
    await shop.note(order_id)
    orders = await hooked(shop, receiver.url)
    (order,) = await orders.reread((await orders.scan()).orders)
    await orders.record([found(order, Cancelled("iptal"))])
    config = settings(shop.dsn, panel.server.url, webhook={"url": receiver.url, "secret": SECRET})
    code, out, err = await call(tmp_path, config, "resolve", order_id, "--reopen", "--reason", "x")
    assert (code, "again" in out) == (0, True), err
    rows = await shop.connection.fetch(
        "SELECT event_id, dead_at IS NOT NULL AS dead FROM order_monitor_deliveries ORDER BY 1"
    )
    assert [(r["event_id"], r["dead"]) for r in rows] == [(1, True), (2, False)]
    code, _, err = await call(tmp_path, config, "resolve", order_id, "--reopen", "--reason", "x")
    assert (code, "not reopened: it is open" in err) == (1, True)
    panel.answer = Cancelled("iptal")
    assert (await once(tmp_path, config))[0] == 0
    assert [body["type"] for body in receiver.got] == ["order.reopened", "order.failed"]
    plain = settings(shop.dsn, panel.server.url)
    code, _, err = await call(tmp_path, plain, "resolve", order_id, "--reopen", "--reason", "x")
    assert (code, "was posted to the shop" in err) == (1, True), (
        "also by settings without a webhook"
    )
    assert [e["repeat"] for e in await events(shop)] == [True, False, False], (
        "and nothing of it stayed"
    )


async def test_a_persons_end_is_not_reopened_whatever_that_person_is_called(
    plain_shop: Shop, panel: Panel, tmp_path: Path
) -> None:
    """Linux ships a user named daemon: by that name an order was reopened with its PIN."""
    shop = plain_shop
    config = settings(shop.dsn, panel.server.url, schedule=RARELY)
    await prepare(shop)
    one, other = await sent(shop, 2)
    done = ("--completed", "--pin-stdin", "--by", "daemon")
    assert (await call(tmp_path, config, "resolve", one, *done, stdin=f"{PIN}\n"))[0] == 0
    assert (
        await call(tmp_path, config, "resolve", other, "--failed", "--reason", "x", "--by", "ask")
    )[0] == 0
    for order_id, why in (
        (one, "daemon ended it, and not the daemon"),
        (other, "ask ended it, and not the daemon"),
    ):
        code, _, err = await call(
            tmp_path, config, "resolve", order_id, "--reopen", "--reason", "x"
        )
        assert (code, why in err) == (1, True)
    assert (await shop.row(one))["pin_code"] == PIN


async def test_a_row_that_somebody_holds_is_not_resolved(
    plain_shop: Shop, panel: Panel, tmp_path: Path
) -> None:
    shop = plain_shop
    order_id, config = await one_sent(shop, panel)
    async with shop.connection.transaction():
        await shop.connection.execute("SELECT * FROM product_orders FOR UPDATE")
        code, _, err = await call(
            tmp_path, config, "resolve", order_id, "--failed", "--reason", "x"
        )
        assert (code, "another session holds the row" in err) == (1, True)
    assert (await shop.row(order_id))["external_status"] == "sent"


@pytest.mark.wall_clock
async def test_a_killed_resolve_leaves_all_or_nothing(
    plain_shop: Shop, panel: Panel, tmp_path: Path
) -> None:
    shop = plain_shop
    config = settings(shop.dsn, panel.server.url, schedule=RARELY)
    await prepare(shop)
    ids = await sent(shop, 8)
    (tmp_path / "monitor.toml").write_text(config)
    await shop.connection.execute(
        "INSERT INTO order_monitor_review (order_id, kind) SELECT id, 'pin_differs' FROM product_orders"
    )
    for n, order_id in enumerate(ids):
        typed = ("resolve", order_id, "--failed", "--reason", "x")
        process = await launch.start(
            *typed, cwd=tmp_path, stdout=launch.DEVNULL, stderr=launch.DEVNULL
        )
        await asyncio.sleep(0.03 + n * 0.03)
        if process.returncode is None:
            process.kill()
        await process.wait()
    await asyncio.sleep(0.3)
    rows = await shop.connection.fetch(
        "SELECT o.external_status = 'failed' AS ended, (SELECT count(*) FROM order_monitor_events e WHERE e.order_id = o.id) "
        "AS told, (SELECT count(*) FROM order_monitor_review r WHERE r.order_id = o.id AND r.closed_at IS NOT NULL) AS closed "
        "FROM product_orders o"
    )
    assert {(r["ended"], r["told"], r["closed"]) for r in rows} <= {(True, 1, 1), (False, 0, 0)}


async def test_contradictions_are_kept_for_a_person(
    shop: Shop, panel: Panel, tmp_path: Path
) -> None:
    config = settings(shop.dsn, panel.server.url)
    await prepare(shop)
    (differs,) = await sent(shop, 1, pin="OTHER-1")
    assert (await once(tmp_path, config))[0] == 1
    assert (await once(tmp_path, config))[0] == 1
    code, out, _ = await call(tmp_path, config, "review", "--json")
    assert code == 0
    assert [(r["order_id"], r["kind"]) for r in json.loads(out)] == [(differs, "pin_differs")], (
        "once, however often it is met"
    )
    story = json.loads((await call(tmp_path, config, "explain", differs, "--json"))[1])
    assert story["review"] == ["pin_differs"]
    assert "for review" in (await call(tmp_path, config, "explain", differs))[1]
    assert (
        "Waiting for a person (order-monitor review): 1"
        in (await call(tmp_path, config, "check"))[1]
    )
    panel.answer = Completed(Pin("OTHER-1"), "")
    code, out, _ = await call(tmp_path, config, "ask", "--stuck")
    assert (code, "now 'completed'" in out) == (0, True)
    assert (await call(tmp_path, config, "ask", "--stuck"))[:2] == (0, "nothing to ask about\n"), (
        "it has ended"
    )
    (other,) = await sent(shop, 1, pin="OTHER-2")
    assert (await once(tmp_path, config))[0] == 1
    code, out, _ = await call(tmp_path, config, "review")
    assert f"{other}  " in out
    assert (await call(tmp_path, config, "resolve", other, "--completed", "--reason", "kept"))[
        0
    ] == 0
    rows = await shop.connection.fetch(
        "SELECT * FROM order_monitor_review WHERE order_id = $1::uuid", other
    )
    assert [(r["closed_at"] is not None, r["resolution"]) for r in rows] == [
        (True, "completed: kept")
    ]


async def test_replay_posts_again_and_lists_dead_letters(
    plain_bare_shop: Shop, panel: Panel, receiver: Receiver, tmp_path: Path
) -> None:
    shop = plain_bare_shop
    hook = {"url": receiver.url, "secret": SECRET}
    config = settings(shop.dsn, panel.server.url, webhook=hook)
    plain = settings(shop.dsn, panel.server.url)
    code, _, err = await call(tmp_path, config, "replay")
    assert (code, "run order-monitor migrate" in err) == (1, True)
    await prepare(shop)
    for file in (plain, config):
        code, out, err = await call(tmp_path, file, "replay", "--since", "1h")
        assert (code, out, len(err.splitlines())) == (1, "", 1), (
            "or the first daemon would begin with what is replayed"
        )
        assert "events are not being posted" in err
    assert (await once(tmp_path, config))[0] == 0
    assert (await call(tmp_path, plain, "replay"))[:2] == (0, "there are no dead letters\n")
    ids = await sent(shop, 3)
    receiver.answers = [410]
    assert (await once(tmp_path, config))[0] == 0
    code, out, _ = await call(tmp_path, config, "replay", "--json")
    (letter,) = json.loads(out)
    assert (letter["why"], letter["attempts"]) == ("http_410", 1)
    before = len(receiver.got)
    async with daemon(shop, tmp_path, config):
        code, out, err = await call(tmp_path, config, "replay", "--dead")
        assert (code, out) == (0, f"{letter['event_id']}: put up again; the daemon posts it\n")
        await receiver.has_got(before + 1)
        code, out, err = await call(tmp_path, config, "replay", "1", "999")
        assert (code, "999: there is no such event" in err) == (1, True)
        await receiver.has_got(before + 2)
        for number, name in enumerate((ids[0], ids[0][:8], f"r-{ids[0][:8]}"), 3):
            assert (await call(tmp_path, plain, "replay", "--order", name))[0] == 0
            await receiver.has_got(before + number)
        assert len(set(receiver.ids[-3:])) == 1, "what is posted again keeps its name"
        code, out, _ = await call(tmp_path, config, "replay", "--since", "1h")
        assert (code, len(out.splitlines())) == (0, 3)
    assert (await call(tmp_path, config, "replay"))[1] == "there are no dead letters\n"
    code, _, err = await call(tmp_path, config, "replay", "--order", str(uuid.uuid4()))
    assert (code, "there is no such order" in err) == (1, True)
    tries = json.loads(
        await shop.connection.fetchval(
            "SELECT tries FROM order_monitor_deliveries WHERE event_id = 1"
        )
    )
    assert any(t["outcome"].startswith("replayed by ") for t in tries)


async def test_a_report_counts_what_happened(shop: Shop, panel: Panel, tmp_path: Path) -> None:
    config = settings(shop.dsn, panel.server.url, schedule={"give_up_after": 7200})
    await prepare(shop)
    package = str(uuid.uuid4())
    await sent(shop, 4, package_id=package)
    assert (await once(tmp_path, config))[0] == 0
    panel.answer = Cancelled("x")
    await sent(shop, 2)
    assert (await once(tmp_path, config))[0] == 0
    now = await shop.connection.fetchval("SELECT extract(epoch FROM clock_timestamp())::float8")
    await shop.add(sent_at=now - 8000, reference="")
    await shop.add(sent_at=now - 200_000)
    code, out, _ = await call(tmp_path, config, "report", "--since", "24h", "--json")
    assert code == 0
    rows = {(row["account"], row["package"]): row for row in json.loads(out)}
    assert rows["default", package]["completed"] == 4
    assert (
        rows["default", ""]["failed"],
        rows["default", ""]["open"],
        rows["default", ""]["overdue"],
    ) == (2, 2, 2)
    total = rows["all", ""]
    assert (
        total["sent"],
        total["completed"],
        total["failed"],
        total["open"],
        total["no_reference"],
    ) == (7, 4, 2, 2, 1)
    assert (total["open_to_6h"], total["open_over_24h"]) == (1, 1)
    assert 90 < total["seconds_to_end_mean"] < 200
    code, out, _ = await call(tmp_path, config, "report", "--csv")
    assert (
        code,
        out.splitlines()[0].startswith("account,package,sent,completed,failed,open,"),
    ) == (0, True)
    code, out, _ = await call(tmp_path, config, "report", "--since", "1s")
    assert (code, "all" in out) == (0, True)


async def test_quiet_says_nothing_when_all_went_well(
    plain_shop: Shop, panel: Panel, tmp_path: Path
) -> None:
    config = settings(plain_shop.dsn, panel.server.url, log={"level": "info"})
    await sent(plain_shop, 2)
    assert await call(tmp_path, config, "--once", "--quiet") == (0, "", "")
    await sent(plain_shop, 12)
    panel.body = "8|Bağlantı Hatası"
    code, out, err = await call(tmp_path, config, "--once", "--quiet")
    assert (code, "not asked" in out, "account.closed" in err) == (1, True, True)
    assert (await call(tmp_path, config, "--quiet"))[0] == 2


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_is_of_the_same_commands(shell: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "order_monitor", "completion", shell],
        capture_output=True,
        text=True,
        check=True,
    )
    assert "_ORDER_MONITOR_COMPLETE" in done.stdout


def test_the_man_page_is_of_the_same_commands() -> None:
    from order_monitor.commands.cli import cli_group
    from order_monitor.commands.man_page import commands_of

    done = subprocess.run(
        [sys.executable, "-m", "order_monitor", "man"], capture_output=True, text=True, check=True
    )
    for name, command in commands_of(cli_group).items():
        assert f".SS \\fB{name}\\fR" in done.stdout
        for parameter in command.params:
            for option in parameter.opts:
                if option.startswith("--"):
                    assert option.replace("-", "\\-") in done.stdout
    assert not re.search(r"^\.(?!TH |SH |SS |TP)", done.stdout, re.MULTILINE), (
        "no text is taken for a request"
    )


async def test_a_pin_that_another_order_has_is_kept_back_and_accepted_on_purpose(
    plain_shop: Shop, panel: Panel, tmp_path: Path
) -> None:
    """Through `--once`, `review` and `resolve`, as a person would meet it."""
    shop = plain_shop
    config = settings(shop.dsn, panel.server.url)
    await prepare(shop)
    a, b = await sent(shop, 2)
    panel.body = f"OK|2|{PIN}|tamam"
    code, summary, _ = await once(tmp_path, config)
    assert (code, summary["completed"], summary["stuck"]) == (1, 1, 1)
    rows = {i: (await shop.row(i))["pin_code"] for i in (a, b)}
    assert sorted(rows.values(), key=str) == [None, PIN]
    (kept_back,) = [i for i, pin in rows.items() if pin is None]
    code, out, _ = await call(tmp_path, config, "review", "--json")
    (entry,) = json.loads(out)
    assert (entry["order_id"], entry["kind"]) == (kept_back, "pin_duplicate")
    code, _, _ = await call(
        tmp_path, config, "resolve", kept_back, "--completed", "--pin-stdin", stdin=f"{PIN}\n"
    )
    assert code == 0
    assert (await shop.row(kept_back))["pin_code"] == PIN
    assert (await call(tmp_path, config, "review", "--json"))[1].strip() == "[]"


async def test_once_takes_along_what_ended_without_its_pin(
    plain_shop: Shop, panel: Panel, tmp_path: Path
) -> None:
    shop = plain_shop
    config = settings(shop.dsn, panel.server.url, schedule={"first_check": 0})
    await prepare(shop)
    package = str(uuid.uuid4())
    now = await shop.connection.fetchval("SELECT extract(epoch FROM clock_timestamp())::float8")
    await shop.add(sent_at=now - 100, package_id=package)
    assert (await once(tmp_path, config))[0] == 0
    late = await shop.add(sent_at=now - 90, package_id=package)
    panel.body = "OK|2| |onaylandı"
    assert (await once(tmp_path, config))[1]["completed"] == 1
    assert (await shop.row(late))["pin_code"] is None
    panel.body = "OK|2|LATE-1|yüklendi"
    code, summary, _ = await once(tmp_path, config)
    assert (code, summary["open"], summary["asked"]) == (0, 0, 1)
    assert (await shop.row(late))["pin_code"] == "LATE-1"
    assert (await once(tmp_path, config))[1]["asked"] == 0
    code, out, _ = await call(tmp_path, config, "explain", late)
    assert "with its PIN" in out.splitlines()[0]


async def test_a_report_counts_each_order_once(
    plain_shop: Shop, panel: Panel, tmp_path: Path
) -> None:
    """A PIN that came later is no second end, and what was reopened is open: the sums of the rows
    are the orders.
    """
    config = settings(plain_shop.dsn, panel.server.url)
    await prepare(plain_shop)
    await sent(plain_shop, 3)
    assert (await once(tmp_path, config))[0] == 0
    await plain_shop.connection.execute(
        "INSERT INTO order_monitor_events (order_id, from_status, to_status, has_pin, outcome, sent_at, checks) "
        "SELECT order_id, to_status, to_status, true, 'late', sent_at, 1 FROM order_monitor_events LIMIT 1"
    )
    reopened = await plain_shop.connection.fetchval(
        "SELECT order_id FROM order_monitor_events ORDER BY id LIMIT 1"
    )
    await plain_shop.connection.execute(
        "UPDATE product_orders SET external_status = 'sent', pin_code = NULL WHERE id = $1",
        reopened,
    )
    code, out, _ = await call(tmp_path, config, "report", "--json")
    rows = json.loads(out)
    assert code == 0
    for part in (
        [row for row in rows if row["is_total"]],
        [row for row in rows if not row["is_total"]],
    ):
        assert [sum(row[name] for row in part) for name in ("sent", "completed", "open")] == [
            3,
            2,
            1,
        ]
    code, out, _ = await call(tmp_path, config, "report", "--csv")
    assert (code, len(out.splitlines())) == (0, 2), "the sheet's sum is the reader's own"


async def test_review_shows_what_a_person_needs(
    plain_shop: Shop, panel: Panel, tmp_path: Path
) -> None:
    """Which account by its name, the reference to look for there, how the order stands, and since
    when.
    """
    await plain_shop.connection.execute(PLAIN_TABLES)
    integration = await Market(plain_shop).integration(
        None, name="my dealer", kod=KOD, sifre=SIFRE, base=panel.server.url
    )
    order_id = await plain_shop.add(provider_id=integration, reference="R-4711")
    await plain_shop.connection.execute(
        "INSERT INTO order_monitor_review (order_id, kind, account) VALUES ($1::uuid, 'pin_missing', $2)",
        order_id,
        integration,
    )
    config = settings(
        plain_shop.dsn, panel.server.url, provider={"source": "database", "allow_private": True}
    )
    code, out, _ = await call(tmp_path, config, "review")
    assert code == 0
    assert f"account my dealer-{integration[:8]}, now 'sent', referans R-4711, sent 20" in out
    [line] = json.loads((await call(tmp_path, config, "review", "--json"))[1])
    assert (line["account"], line["referans"], line["status"]) == (
        f"my dealer-{integration[:8]}",
        "R-4711",
        "sent",
    )
    await plain_shop.connection.execute("UPDATE product_orders SET sent_at = '-infinity'")
    assert "referans R-4711, sent -\n" in (await call(tmp_path, config, "review"))[1]
    await plain_shop.connection.execute("DELETE FROM product_orders")
    assert "its row is gone" in (await call(tmp_path, config, "review"))[1]


async def test_a_flood_of_one_kind_hides_no_other_review(
    plain_shop: Shop, panel: Panel, tmp_path: Path
) -> None:
    """A brake holds thousands of orders; what came after is listed, and all are counted."""
    await prepare(plain_shop)
    await plain_shop.connection.execute(
        "INSERT INTO order_monitor_review (order_id, kind, account) "
        "SELECT gen_random_uuid(), 'held_by_brake', 'default' FROM generate_series(1, 1500)"
    )
    refused, ended = [await plain_shop.add() for _ in range(2)]
    await plain_shop.connection.execute(
        "INSERT INTO order_monitor_review (order_id, kind, detail) "
        "VALUES ($1::uuid, 'rejected_by_database', 'no [P0001]'), ($2::uuid, 'pin_for_ended', NULL)",
        refused,
        ended,
    )
    config = settings(plain_shop.dsn, panel.server.url)
    _, out, _ = await call(tmp_path, config, "review")
    assert "held_by_brake: 1500 orders" in out
    assert f"{ended}  " in out
    _, out, _ = await call(tmp_path, config, "check", "--json")
    assert f"order {refused}" in [line["subject"] for line in json.loads(out)]


async def test_what_a_person_fails_again_after_it_was_sent_again_is_for_review_too(
    plain_shop: Shop, panel: Panel, tmp_path: Path
) -> None:
    """Its event is a repeat, so that the shop pays nothing back; its customer may have paid twice."""
    shop = plain_shop
    order_id, config = await one_sent(shop, panel)
    given = ("resolve", order_id, "--failed", "--reason", "iptal", "--by", "Ay")
    assert (await call(tmp_path, config, *given))[0] == 0
    await shop.set(order_id, external_status="sent")
    assert "a repeat" in (await call(tmp_path, config, *given))[1]
    assert (await call(tmp_path, config, "review", "--json"))[1].strip() == "[]"
    await shop.set(order_id, external_status="sent", sent_at=datetime.now(UTC))
    code, out, _ = await call(tmp_path, config, *given)
    told = "it was sent again since that end, and a second refund may be due"
    lines = [f"{order_id}: {told}; it is for review: repeat_sent_anew"]
    assert (code, out.splitlines()[1:]) == (0, lines)
    (review,) = json.loads((await call(tmp_path, config, "review", "--json"))[1])
    assert (review["order_id"], review["kind"]) == (order_id, "repeat_sent_anew")
