"""A right that is missing is no table that is missing: told apart, all in one go, as SQL that mends
it when it is pasted.
"""

from pathlib import Path

import pytest

from order_monitor.demo.standin import StandIn
from order_monitor.shop.schema.own_tables import NEEDED
from tests.support.commands import check, of
from tests.support.market import PLAIN_TABLES, Market
from tests.support.processes import KOD, SIFRE, Panel, panel, running, settings
from tests.support.roles import role_of
from tests.support.shops import Shop, least_rights

__all__ = ["panel"]

pytestmark = pytest.mark.long


def enough(role: str = "{role}") -> str:
    return f"GRANT SELECT, UPDATE ON product_orders TO {role}; {least_rights(role)};"


@pytest.mark.parametrize("table", list(NEEDED))
async def test_check_survives_each_right_that_is_missing(
    plain_shop: Shop, tmp_path: Path, table: str
) -> None:
    async with (
        StandIn({}, kod=KOD, sifre=SIFRE) as server,
        role_of(plain_shop, enough()) as (role, dsn),
    ):
        config = settings(dsn, server.url)
        for right in NEEDED[table]:
            await plain_shop.connection.execute(f"REVOKE {right} ON {table} FROM {role}")
            code, lines, err = await check(tmp_path, config)
            error = of(lines, "error")
            assert (code, err, list(error)) == (1, "", ["rights"]), (right, lines)
            assert error["rights"]["do"] == f'GRANT {right} ON "public"."{table}" TO {role};'
            assert "migrate" not in str(lines), "nothing is missing"
            await plain_shop.connection.execute(error["rights"]["do"])
        code, lines, _ = await check(tmp_path, config)
        assert (code, of(lines, "error")) == (0, {})


async def test_all_that_is_missing_is_told_in_one_go_and_is_enough(
    plain_shop: Shop, panel: Panel, tmp_path: Path
) -> None:
    """In check, migrate, ``--once`` and the daemon's log: the same SQL, and after it nothing is
    missing any more.
    """
    shop = plain_shop
    await shop.connection.execute(PLAIN_TABLES)
    integration = await Market(shop).integration(None, kod=KOD, sifre=SIFRE, base=panel.server.url)
    order_id = await shop.add(provider_id=integration, sent_at=1.0)
    await shop.connection.execute("UPDATE product_orders SET sent_at = now() - interval '1 hour'")
    async with role_of(shop, "REVOKE USAGE ON SCHEMA public FROM PUBLIC") as (_, dsn):
        config = settings(
            dsn, panel.server.url, provider={"source": "database", "allow_private": True}
        )
        code, lines, _ = await check(tmp_path, config)
        assert (code, list(of(lines, "error"))) == (1, ["rights"])
        sql = of(lines, "error")["rights"]["do"]
        for arguments in ((), ("--once",), ("migrate",)):
            async with running(tmp_path, config, *arguments) as run:
                if arguments:
                    assert await run.end() == 1
                    assert sql in run.err.decode()
                    assert b"nothing to do" not in run.out
                else:
                    assert sql in (await run.event("scan.waiting"))["why"]
                    run.process.terminate()
                    assert await run.end() == 0
        await shop.connection.execute(sql)
        code, lines, _ = await check(tmp_path, config)
        assert (code, of(lines, "error"), of(lines, "warning")) == (0, {}, {})
        async with running(tmp_path, config, "migrate") as run:
            assert (await run.end(), b"nothing to do" in run.out) == (0, True)
        async with running(tmp_path, config, "--once") as run:
            assert await run.end() == 0, run.err
        assert (await shop.row(order_id))["external_status"] == "completed"


async def test_a_column_that_may_not_be_read_is_not_said_to_be_missing(
    plain_shop: Shop, tmp_path: Path
) -> None:
    columns = "id, tenant_id, external_status, sent_at, note, package_id, provider_referans"
    rights = f"GRANT SELECT ({columns}), UPDATE (external_status, note) ON product_orders TO {{role}}; {least_rights('{role}')}"
    async with role_of(plain_shop, rights) as (role, dsn):
        code, lines, _ = await check(tmp_path, settings(dsn, "http://127.0.0.1:1"))
        expected = f'GRANT SELECT ("pin_code") ON "public"."product_orders" TO {role}; '
        expected += f'GRANT UPDATE ("pin_code") ON "public"."product_orders" TO {role};'
        assert (code, of(lines, "error")["rights"]["do"]) == (1, expected)
        assert "no column" not in str(lines)


async def test_what_is_left_out_for_want_of_a_right_is_a_warning(
    plain_shop: Shop, tmp_path: Path
) -> None:
    await plain_shop.connection.execute("ALTER TABLE product_orders ADD COLUMN duration_ms integer")
    columns = (
        "id, tenant_id, external_status, sent_at, pin_code, note, package_id, provider_referans"
    )
    written = "external_status, pin_code, note"
    rights = f"GRANT SELECT ({columns}), UPDATE ({written}) ON product_orders TO {{role}}; {least_rights('{role}')}"
    async with (
        StandIn({}, kod=KOD, sifre=SIFRE) as server,
        role_of(plain_shop, rights) as (role, dsn),
    ):
        secret = {
            "url": "https://shop.example/hook",
            "secret": "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
        }
        config = settings(dsn, server.url, webhook=secret)
        code, lines, _ = await check(tmp_path, config)
        warning = of(lines, "warning")["rights"]["do"]
        assert code == 0
        assert f'GRANT UPDATE ON "public"."order_monitor_deliveries" TO {role};' in warning
        assert '("duration_ms")' in warning
        await plain_shop.connection.execute(warning)
        code, lines, _ = await check(tmp_path, config)
        assert (code, of(lines, "warning")) == (0, {})


async def test_who_cannot_make_our_tables_is_given_all_for_the_owner(
    bare_shop: Shop, tmp_path: Path
) -> None:
    """The SQL comes line by line, as it is pasted into psql, and brings the rights on what it
    makes.
    """
    async with role_of(bare_shop, "GRANT SELECT, UPDATE ON product_orders TO {role}") as (_, dsn):
        async with running(tmp_path, settings(dsn, "http://127.0.0.1:1"), "migrate") as run:
            assert await run.end() == 1
        lines = run.err.decode().splitlines()[1:]
        assert all(line.endswith(";") for line in lines), lines
        for line in lines:
            await bare_shop.connection.execute(line)
        async with running(tmp_path, settings(dsn, "http://127.0.0.1:1"), "migrate") as run:
            assert (await run.end(), b"nothing to do" in run.out) == (0, True), run.err


@pytest.mark.parametrize(
    ("command", "grant"),
    [
        (
            ("pause", "default", "--reason", "x"),
            'GRANT INSERT, UPDATE, DELETE ON "public"."order_monitor_pauses"',
        ),
        (("report", "--since", "1h"), 'GRANT SELECT ON "public"."order_monitor_events"'),
        (("replay", "--dead"), 'GRANT UPDATE ON "public"."order_monitor_deliveries"'),
    ],
)
async def test_peoples_commands_name_the_right_they_lack(
    plain_shop: Shop, tmp_path: Path, command: tuple[str, ...], grant: str
) -> None:
    revoke = "REVOKE SELECT ON order_monitor_events FROM {role}" if command[0] == "report" else ""
    async with role_of(plain_shop, enough() + revoke) as (role, dsn):
        async with running(tmp_path, settings(dsn, "http://127.0.0.1:1"), *command) as run:
            assert await run.end() == 1
        assert f"{grant} TO {role};" in run.err.decode()
        assert "migrate" not in run.err.decode()
