"""The doctor: everything looked at, nothing changed, and what to do about each thing."""

import json
import uuid
from pathlib import Path
from typing import Any

import pytest

from order_monitor.demo.standin import StandIn
from tests.support.commands import check, of
from tests.support.market import PLAIN_TABLES, SHOP_TABLES, Market
from tests.support.processes import KOD, SIFRE, running, settings
from tests.support.shops import Shop


async def migrated(shop: Shop, tmp_path: Path, config: str) -> None:
    async with running(tmp_path, config, "migrate") as run:
        assert await run.end() == 0


@pytest.mark.long
async def test_all_is_well(shop: Shop, tmp_path: Path) -> None:
    async with StandIn({}, kod=KOD, sifre=SIFRE) as panel:
        config = settings(shop.dsn, panel.url, cluster={"enabled": True})
        await migrated(shop, tmp_path, config)
        code, lines, _ = await check(tmp_path, config)
        assert code == 0
        assert {line["level"] for line in lines} == {"ok"}
        assert {line["subject"] for line in lines} >= {
            "settings",
            "database",
            "rights",
            "account default",
            "cluster.enabled",
            "open orders",
        }
        assert all(line.keys() == {"level", "subject", "text", "do"} for line in lines)
        assert "balance 1523.40" in of(lines, "ok")["account default"]["text"]
        async with running(tmp_path, config, "check") as run:
            assert await run.end() == 0
        assert "ok" in run.out.decode()


@pytest.mark.long
async def test_it_changes_nothing(shop: Shop, tmp_path: Path) -> None:
    order_id = await shop.add()
    before = await shop.row(order_id)
    size = await shop.connection.fetchval("SELECT count(*) FROM pg_class")
    async with StandIn({}, kod=KOD, sifre=SIFRE) as panel:
        await check(tmp_path, settings(shop.dsn, panel.url))
        assert panel.calls == {}
    assert await shop.row(order_id) == before
    assert await shop.connection.fetchval("SELECT count(*) FROM pg_class") == size


@pytest.mark.long
async def test_what_migrate_would_add_is_a_warning(bare_shop: Shop, tmp_path: Path) -> None:
    shop = bare_shop
    async with StandIn({}, kod=KOD, sifre=SIFRE) as panel:
        code, lines, _ = await check(tmp_path, settings(shop.dsn, panel.url))
    assert (code, of(lines, "error")) == (0, {})
    warnings = of(lines, "warning")
    assert "table order_monitor_events" in warnings
    assert {line["do"] for line in warnings.values()} == {"order-monitor migrate"}


async def test_words_that_the_settings_do_not_name_are_listed_as_they_occur(
    shop: Shop, tmp_path: Path
) -> None:
    for word, count in (("done", 3), ("Sent", 2), ("forwarded", 1), ("FAILED", 1), ("sent", 1)):
        for _ in range(count):
            await shop.add(word)
    async with StandIn({}, kod=KOD, sifre=SIFRE) as panel:
        config = settings(shop.dsn, panel.url)
        _, lines, _ = await check(tmp_path, config)
        found = [(line["text"], line["do"]) for line in lines if line["subject"] == "statuses"]
        assert found == [
            (
                "'Sent' is in the table and not in the settings: 2 orders; 'sent' is another word",
                "add it to statuses.open as it is spelled",
            ),
            (
                "'FAILED' is in the table and not in the settings: 1 order; 'failed' is another word",
                "correct it",
            ),
            (
                "'forwarded' is in the table and not in the settings: 1 order",
                "add it to statuses.open, if it is an open one",
            ),
        ]
        assert of(lines, "warning")["statuses.completed"]["text"] == (
            "monitor.toml: statuses.completed: 'completed' is written, and no order in the table has it: 3 have 'done'"
        )
        assert "statuses.failed" not in of(lines, "warning")
        _, lines, _ = await check(tmp_path, f"{config}\n[statuses]\npreset = 'watan'\n")
        named = [line["text"][:8] for line in lines if line["subject"] == "statuses"]
        assert named == ["'Sent' i", "'FAILED'"]
        assert "statuses.completed" not in of(lines, "warning")


@pytest.mark.long
async def test_a_missing_column_is_an_error(plain_shop: Shop, tmp_path: Path) -> None:
    await plain_shop.connection.execute(
        "ALTER TABLE product_orders DROP COLUMN pin_code, DROP COLUMN sent_at"
    )
    code, lines, _ = await check(tmp_path, settings(plain_shop.dsn, "http://127.0.0.1:1"))
    assert code == 1
    assert len([line for line in lines if line["level"] == "error"]) == 2


@pytest.mark.long
async def test_missing_grants_are_named_exactly(shop: Shop, tmp_path: Path) -> None:
    async with StandIn({}, kod=KOD, sifre=SIFRE) as panel:
        await migrated(shop, tmp_path, settings(shop.dsn, panel.url))
        role = f"r{uuid.uuid4().hex}"
        status, pin = shop.spelling.name("external_status"), shop.spelling.name("pin_code")
        await shop.connection.execute(
            f"CREATE ROLE {role} LOGIN PASSWORD 'role-pw-CANARY'; GRANT SELECT ON product_orders TO {role};"
            f'GRANT UPDATE ("{status}") ON product_orders TO {role}; GRANT SELECT ON order_monitor_events TO {role}'
        )
        config = settings(
            f"postgresql://{role}:role-pw-CANARY@{shop.dsn.partition('@')[2]}", panel.url
        )
        code, lines, _ = await check(tmp_path, config)
        assert code == 1
        remedy = of(lines, "error")["rights"]["do"]
        assert f'"{pin}"' in remedy
        assert f'"{status}"' not in remedy
        assert f'GRANT INSERT, UPDATE ON "public"."order_monitor_events" TO {role};' in remedy
        await shop.connection.execute(remedy)
        code, lines, _ = await check(tmp_path, config)
        assert (code, of(lines, "error")) == (0, {}), "its own advice is enough"
        await shop.connection.execute("ALTER TABLE product_orders ENABLE ROW LEVEL SECURITY")
        code, lines, _ = await check(tmp_path, config)
        assert code == 1
        assert "row security policy" in of(lines, "error")["rights"]["do"], "B5"
        await shop.connection.execute(f"DROP OWNED BY {role}; DROP ROLE {role}")


@pytest.mark.long
@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        ("", "empty_answer"),
        ("8|Bağlantı Hatası", "refused_8"),
        ("<html><title>Bakım</title>", "html_answer, it answered: Bakım"),
        ("?", "not_understood"),
    ],
)
async def test_an_account_that_does_not_answer(
    plain_shop: Shop, tmp_path: Path, answer: str, reason: str
) -> None:
    from tests.support.servers import RawServer, says
    from tests.support.servers import answer as http

    async with RawServer(says(http(answer.encode()))) as server:
        code, lines, _ = await check(
            tmp_path, settings(plain_shop.dsn, f"http://127.0.0.1:{server.port}")
        )
        assert b"/servis/bakiye_kontrol.php?" in server.requests[0]
    assert code == 1
    assert reason in of(lines, "error")["account default"]["text"]


@pytest.mark.long
async def test_the_proxy_is_told_and_what_it_says_is_never_the_panels(
    plain_shop: Shop, tmp_path: Path
) -> None:
    """From the settings and from an integration's column.

    Its login shows nowhere, and ``--once`` ends nothing for it.
    """
    from tests.support.servers import ProxyServer

    await plain_shop.connection.execute(
        PLAIN_TABLES + "ALTER TABLE integrations ADD COLUMN proxy text;"
    )
    market = Market(plain_shop)
    integration = await market.integration(
        None, name="main", kod=KOD, sifre=SIFRE, base="http://panel.example"
    )
    order_id = await plain_shop.add(provider_id=integration)
    login = ("puser-CANARY", "p@CANARY")
    async with (
        StandIn({}, kod=KOD, sifre=SIFRE) as panel,
        ProxyServer(int(panel.url.rpartition(":")[2]), login=login) as proxy,
    ):
        url = f"http://puser-CANARY:%s@127.0.0.1:{proxy.port}"
        given: dict[str, Any] = {
            "source": "database",
            "allow_private": True,
            "proxy": url % "p%40CANARY",
        }
        code, lines, errors = await check(
            tmp_path, settings(plain_shop.dsn, "http://panel.example", provider=given)
        )
        (told,) = (line for line in lines if line["subject"].startswith("account "))
        assert (code, told["level"]) == (0, "ok")
        assert (
            told["text"]
            == f"answers, through the proxy http://127.0.0.1:{proxy.port}; balance 1523.40"
        )
        assert "CANARY" not in f"{lines}{errors}"
        await plain_shop.connection.execute(
            "UPDATE integrations SET proxy = $1", url % "wrong-CANARY"
        )
        config = settings(plain_shop.dsn, "http://panel.example", provider=given)
        code, lines, errors = await check(tmp_path, config)
        (told,) = (line for line in lines if line["subject"].startswith("account "))
        assert (code, told["level"]) == (1, "error")
        assert "proxy_login: the proxy does not accept its login" in told["text"]
        assert told["do"]
        assert "CANARY" not in f"{lines}{errors}"
        async with running(tmp_path, config, "--once", "--json") as run:
            assert await run.end() == 1
        assert b"CANARY" not in run.out + run.err
        assert json.loads(run.out)["not_asked"] == 1
        assert (await plain_shop.row(order_id))["external_status"] == "sent"
        assert set(proxy.asked) == {"panel.example"}


@pytest.mark.long
async def test_what_looks_right_and_may_not_be_is_a_warning(
    plain_shop: Shop, tmp_path: Path
) -> None:
    """A word that ends an order in most shops among the open ones, and a balance that nobody can be
    warned of.
    """
    from tests.support.servers import RawServer, says
    from tests.support.servers import answer as http

    words = {"open": ["sent", "pending", "processing", "queued", "delivered"]}
    async with RawServer(says(http(b"OK|1.2.3"))) as server:
        url = f"http://127.0.0.1:{server.port}"
        code, lines, _ = await check(tmp_path, settings(plain_shop.dsn, url, statuses=words))
    told = of(lines, "warning")
    assert (code, of(lines, "error")) == (0, {})
    assert told["statuses.open"]["text"].startswith(
        "monitor.toml: statuses.open: delivered: in most shops this ends an order"
    )
    assert (
        told["account default"]["text"] == "answers; its balance cannot be read as a number: 1.2.3"
    )


@pytest.mark.long
async def test_orders_that_can_never_be_asked_about_are_counted(
    plain_shop: Shop, tmp_path: Path
) -> None:
    await plain_shop.add(reference="")
    await plain_shop.add(reference="")
    await plain_shop.add(sent_at=None)
    await plain_shop.add("teleported")
    async with StandIn({}, kod=KOD, sifre=SIFRE) as panel:
        code, lines, _ = await check(tmp_path, settings(plain_shop.dsn, panel.url))
    assert code == 0
    texts = [line["text"] for line in lines if line["subject"] == "open orders"]
    assert "2 orders cannot be asked about: no_reference" in texts
    assert "1 order cannot be asked about: unknown_status" in texts
    assert all(
        line["do"]
        for line in lines
        if line["subject"] == "open orders" and line["level"] == "warning"
    )


@pytest.mark.long
async def test_the_shops_accounts_are_each_asked(shop: Shop, tmp_path: Path) -> None:
    from tests.support.shops import SHOP

    await shop.connection.execute(SHOP_TABLES if shop.spelling is SHOP else PLAIN_TABLES)
    market = Market(shop)
    async with StandIn({}, kod=KOD, sifre=SIFRE) as panel:
        await market.integration(None, name="good", kod=KOD, sifre=SIFRE, base=panel.url)
        await market.integration(None, name="bad", kod=KOD, sifre="wrong-CANARY", base=panel.url)
        await market.integration(None, name="off", enabled=False, base=panel.url)
        more: dict[str, Any] = {"provider": {"source": "database", "allow_private": True}}
        code, lines, _ = await check(tmp_path, settings(shop.dsn, panel.url, **more))
        assert code == 1
        assert [s.split("-")[0] for s in of(lines, "ok") if s.startswith("account")] == [
            "account good"
        ]
        assert [s.split("-")[0] for s in of(lines, "error")] == ["account bad"]
        assert "1 integration of the shop not asked" in of(lines, "warning")["accounts"]["text"]
        more["provider"]["allow_private"] = False
        code, lines, _ = await check(tmp_path, settings(shop.dsn, panel.url, **more))
        assert "there is none to ask" in of(lines, "error")["accounts"]["text"]


async def test_an_unreachable_database_is_exit_3(tmp_path: Path) -> None:
    code, lines, errors = await check(
        tmp_path, settings("postgresql://u:dsn-CANARY@127.0.0.1:1/x", "http://127.0.0.1:1")
    )
    assert code == 3
    assert "ConnectionRefusedError" in of(lines, "error")["database"]["text"]
    assert "CANARY" not in errors + str(lines)


NO_PROCESSING = (
    "ALTER TABLE product_orders ADD CONSTRAINT c CHECK (external_status <> 'processing')"
)
NO_COMPLETED = (
    "ALTER TABLE product_orders ADD CONSTRAINT d CHECK (external_status <> 'completed') NOT VALID"
)


async def test_what_would_refuse_a_write_is_told_by_check_and_by_migrate(
    plain_shop: Shop, tmp_path: Path
) -> None:
    await plain_shop.connection.execute(NO_PROCESSING)
    async with StandIn({}, kod=KOD, sifre=SIFRE) as panel:
        config = settings(plain_shop.dsn, panel.url)
        code, lines, _ = await check(tmp_path, config)
        assert (code, of(lines, "error")) == (0, {})
        assert "the constraint c" in of(lines, "warning")["statuses.processing"]["text"]
        await plain_shop.connection.execute(NO_COMPLETED)
        code, lines, _ = await check(tmp_path, config)
        assert (code, [*of(lines, "error")]) == (1, ["statuses.completed"])
        async with running(tmp_path, config, "migrate") as run:
            assert await run.end() == 0
        told = run.out.decode()
        assert "warning: statuses.processing: 'processing' is refused by the constraint c" in told
        assert "error: statuses.completed: 'completed' is refused by the constraint d" in told


@pytest.mark.long
async def test_check_tries_the_writes_where_it_is_told_to(plain_shop: Shop, tmp_path: Path) -> None:
    order_id = await plain_shop.add("failed")
    async with StandIn({}, kod=KOD, sifre=SIFRE) as panel:
        config = settings(plain_shop.dsn, panel.url)

        async def rehearsed() -> tuple[int, list[str]]:
            async with running(tmp_path, config, "check", "--rehearse", "--json") as run:
                code = await run.end()
            lines = [line for line in json.loads(run.out) if line["subject"] == "rehearsal"]
            return code, [f"{line['level']}: {line['text']}" for line in lines]

        code, lines = await rehearsed()
        assert (code, len(lines)) == (0, 4)
        assert order_id in lines[0]
        await plain_shop.connection.execute(
            "CREATE FUNCTION no() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'no'; END $$; "
            "CREATE TRIGGER no BEFORE INSERT ON order_monitor_events FOR EACH ROW EXECUTE FUNCTION no()"
        )
        code, lines = await rehearsed()
        assert (code, [line.split(":")[0] for line in lines]) == (
            1,
            ["ok", "error", "error", "error"],
        )
        code, _, _ = await check(tmp_path, config)
        assert code == 0, "a trigger shows only when a write is tried"
        await plain_shop.connection.execute("DROP TABLE order_monitor_events CASCADE")
        code, lines = await rehearsed()
        assert code == 1
        assert "order_monitor_events" in lines[0]
    assert (await plain_shop.row(order_id))["external_status"] == "failed"
