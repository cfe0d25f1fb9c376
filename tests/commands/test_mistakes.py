"""A newcomer's mistakes: the cause in the database's or the system's words, the key, and what to
do; in check --json too.
"""

import asyncio
import os
import socket
import tempfile
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import httpx
import pytest

from order_monitor.demo.standin import StandIn
from order_monitor.settings.loading import readable_secrets
from order_monitor.tell.listening import holder_of, trial
from tests.support.commands import check, of
from tests.support.market import PLAIN_TABLES, Market
from tests.support.processes import KOD, SIFRE, Panel, once, panel, running, sent, settings
from tests.support.shops import Shop

__all__ = ["panel"]

pytestmark = pytest.mark.long

NOWHERE = "http://127.0.0.1:1"


@pytest.mark.parametrize(
    ("zone", "said", "remedy"),
    [
        ("Baku", 'time zone "Baku" not recognized', "did you mean Asia/Baku?"),
        ("istanbul", 'time zone "istanbul" not recognized', "Europe/Istanbul"),
        ("Mars/Base", 'time zone "Mars/Base" not recognized', "pg_timezone_names"),
    ],
)
async def test_a_time_zone_that_the_database_does_not_know(
    plain_shop: Shop, tmp_path: Path, zone: str, said: str, remedy: str
) -> None:
    await plain_shop.connection.execute("ALTER TABLE product_orders ALTER sent_at TYPE timestamp")
    config = settings(plain_shop.dsn, NOWHERE, database={"time_zone": zone})
    code, lines, _ = await check(tmp_path, config)
    error = of(lines, "error")["database.time_zone"]
    assert code == 1
    assert said in error["text"]
    assert remedy in error["do"]
    for arguments in ((), ("--once",), ("migrate",)):
        async with running(tmp_path, config, *arguments) as run:
            assert await run.end() == 2
        assert f"monitor.toml: database.time_zone: the database says: {said}; " in run.err.decode()
        assert "out of pg_timezone_names" in run.err.decode()


async def test_where_a_setting_is_set_is_told_whatever_finds_it_wrong(
    plain_shop: Shop, tmp_path: Path
) -> None:
    """The file, the variable or the secret's file, with the key and what is allowed: in check, a
    pass and the daemon.
    """
    await plain_shop.connection.execute("ALTER TABLE product_orders ALTER sent_at TYPE timestamp")
    secrets = tmp_path / "secrets"
    secrets.mkdir()
    file = secrets / "order_monitor_database__time_zone"
    file.write_text("Baku")
    plain = settings(plain_shop.dsn, NOWHERE)
    for config, more, place in (
        (
            f"{plain}\n".replace("[database]", '[database]\ntime_zone = "Baku"'),
            {},
            "monitor.toml: database.time_zone: ",
        ),
        (
            plain,
            {"ORDER_MONITOR_DATABASE__TIME_ZONE": "Baku"},
            "ORDER_MONITOR_DATABASE__TIME_ZONE: ",
        ),
        (plain, {"ORDER_MONITOR_SECRETS_DIR": str(secrets)}, f"{file}: "),
    ):
        for arguments in ((), ("--once",), ("check",), ("check", "--json"), ("migrate",)):
            async with running(tmp_path, config, *arguments, more=more) as run:
                assert await run.end() == (1 if "check" in arguments else 2)
            said = " ".join((run.out + run.err).decode().split())
            assert f"{place}the database says: time zone" in said, (arguments, said)
            assert "out of pg_timezone_names" in said


async def refusing_tls(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """A PostgreSQL without TLS, as far as anybody gets with it."""
    await reader.read(8)
    writer.write(b"N")
    await writer.drain()
    writer.close()


async def test_tls_that_the_server_does_not_speak(tmp_path: Path) -> None:
    server = await asyncio.start_server(refusing_tls, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    async with server:
        config = settings(f"postgresql://u:CANARY@127.0.0.1:{port}/shop?sslmode=require", NOWHERE)
        code, lines, err = await check(tmp_path, config)
    error = of(lines, "error")["database"]
    assert code == 3
    assert "speaks no TLS, which sslmode demands" in error["text"]
    assert "sslmode=prefer" in error["do"]
    assert "speaks no TLS" in err
    assert "CANARY" not in err + str(lines)


async def test_a_database_and_a_role_that_are_not_there(plain_shop: Shop, tmp_path: Path) -> None:
    head, _, rest = plain_shop.dsn.partition("@/")
    query = rest.partition("?")[2]
    for dsn, said in (
        (f"{head}@/no_such_shop?{query}", "there is no such database"),
        (f"postgresql://nobody_at_all:CANARY@/x?{query}", "the password is wrong"),
    ):
        code, lines, err = await check(tmp_path, settings(dsn, NOWHERE))
        error = of(lines, "error")["database"]
        assert code == 3
        assert said in error["text"]
        assert error["do"]
        assert "CANARY" not in err + str(lines)


@pytest.mark.parametrize(
    ("toml", "text", "do"),
    [
        (
            "[provider]\nsource = 'Database'",
            "monitor.toml: provider.source: should be 'config' or 'database'",
            "",
        ),
        (
            "[provider]\nbase_url = 'http://x.example'",
            "provider.base_url: plain http would show the login",
            "allow_http",
        ),
        (
            "[database]\npool_size = 'four'",
            "monitor.toml: database.pool_size: should be a whole number",
            "",
        ),
        ("[log]\nlevvel = 1", "monitor.toml: log.levvel: unknown key", "did you mean log.level?"),
        ("[log", "monitor.toml: not valid TOML", ""),
    ],
)
async def test_mistakes_in_the_settings_are_lines_of_json_too(
    tmp_path: Path, toml: str, text: str, do: str
) -> None:
    code, lines, err = await check(tmp_path, toml)
    told = [line for line in lines if text in line["text"]]
    assert code == 2
    assert {line["level"] for line in lines} == {"error"}
    assert told
    assert told[0]["do"]
    assert do in told[0]["do"]
    assert text in err


async def test_a_host_that_is_not_this_machines(plain_shop: Shop, tmp_path: Path) -> None:
    """198.51.100.0/24 is for documents alone."""
    async with StandIn({}, kod=KOD, sifre=SIFRE) as panel:
        health = {"host": "198.51.100.7", "port": 8765, "allow_open": True}
        config = settings(plain_shop.dsn, panel.url, health=health)
        code, lines, _ = await check(tmp_path, config)
        error = of(lines, "error")["health.host"]
        assert code == 1
        assert (
            error["text"]
            == f"monitor.toml: health.host: cannot listen on 198.51.100.7:8765: {os.strerror(99)}"
        )
        assert "127.0.0.1" in error["do"]
        async with running(tmp_path, config) as run:
            why = (await run.event("health.waiting"))["why"]
            assert why.startswith("health.host: cannot listen on 198.51.100.7:8765")
            run.process.terminate()
            assert await run.end() == 0


async def test_who_has_the_port_is_told(plain_shop: Shop, tmp_path: Path) -> None:
    async with StandIn({}, kod=KOD, sifre=SIFRE) as panel:
        with socket.create_server(("127.0.0.1", 0)) as taken:
            port = taken.getsockname()[1]
            config = settings(plain_shop.dsn, panel.url, health={"port": port})
            code, lines, _ = await check(tmp_path, config)
            error = of(lines, "error")["health.port"]
            assert code == 1
            assert f"(pid {os.getpid()})" in error["text"]
            assert (
                error["do"] == "stop that, choose a free port (0 = any), or health.enabled = false"
            )
        async with running(tmp_path, config) as run:
            await run.event("health.listening")
            code, lines, _ = await check(tmp_path, config)
            assert (code, of(lines, "error")) == (0, {}), "a daemon of ours has it, as it should be"
            run.process.terminate()
            assert await run.end() == 0


def test_a_port_is_free_again_when_nobody_has_it() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        host, port = taken.getsockname()[:2]
        assert (holder_of(port) or "").endswith(f"(pid {os.getpid()})")
        assert (found := trial(host, port)) is not None
        assert found.is_taken
    assert trial(host, port) is None
    assert holder_of(port) is None


async def test_where_every_integration_is_on_http_each_is_named(
    plain_shop: Shop, tmp_path: Path
) -> None:
    await plain_shop.connection.execute(PLAIN_TABLES)
    market = Market(plain_shop)
    one = await market.integration(None, name="one", base="http://panel.example")
    await market.integration(None, name="two", base="http://panel.example")
    await plain_shop.add(provider_id=one, sent_at=1_750_000_000.0)
    provider: dict[str, Any] = {
        "source": "database",
        "allow_http": False,
        "base_url": "https://x.example",
    }
    config = settings(plain_shop.dsn, NOWHERE, provider=provider)
    code, lines, _ = await check(tmp_path, config)
    warnings = {
        s.partition("-")[0]: line
        for s, line in of(lines, "warning").items()
        if s.startswith("account ")
    }
    assert (code, set(warnings)) == (1, {"account one", "account two"})
    assert all("https" in line["text"] and line["do"] for line in warnings.values())
    assert of(lines, "error")["accounts"]["text"] == "there is none to ask"
    assert (
        of(lines, "warning")["open orders"]["text"] == "1 order cannot be asked about: bad_address"
    )
    async with running(tmp_path, config, "--once", "--quiet") as run:
        assert await run.end() == 1


async def test_an_address_that_is_no_host_name_stops_its_own_account_alone(
    plain_shop: Shop, panel: Panel, tmp_path: Path
) -> None:
    """An invisible character, pasted with the address, is in one row of many."""
    await plain_shop.connection.execute(PLAIN_TABLES)
    market = Market(plain_shop)
    bad = await market.integration(None, name="bad", base="https://bayi.example.com\u200b")
    good = await market.integration(None, name="good", base=panel.server.url, kod=KOD, sifre=SIFRE)
    (lost,) = await sent(plain_shop, 1, provider_id=bad)
    (found,) = await sent(plain_shop, 1, provider_id=good)
    provider = {"source": "database", "allow_private": True}
    config = settings(plain_shop.dsn, NOWHERE, provider=provider)
    _, lines, _ = await check(tmp_path, config)
    (warning,) = [line for s, line in of(lines, "warning").items() if s.startswith("account bad")]
    assert "https://bayi.example.com" in warning["text"] + warning["do"]
    _, summary, _ = await once(tmp_path, config)
    assert (summary["completed"], summary["skipped"]) == (1, {"bad_address": 1})
    assert (await plain_shop.row(found))["external_status"] == "completed"
    assert (await plain_shop.row(lost))["external_status"] == "sent"


async def test_secrets_that_every_user_can_read_are_a_warning(plain_shop: Shop) -> None:
    """Not where the file, or the way to it, is closed to others; and not where it holds none."""
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        home.chmod(0o755)
        file = home / "monitor.toml"
        file.write_text(settings(plain_shop.dsn, NOWHERE))
        for mode, home_mode, is_warned in (
            (0o644, 0o755, True),
            (0o640, 0o755, False),
            (0o644, 0o750, False),
        ):
            file.chmod(mode)
            home.chmod(home_mode)
            found = readable_secrets(file)
            assert (found is not None) is is_warned, (mode, home_mode)
        home.chmod(0o755)
        file.chmod(0o644)
        _, lines, _ = await check(home, file.read_text())
        warning = of(lines, "warning")["secrets"]
        assert "database.dsn, provider.kod, provider.sifre" in warning["text"]
        assert KOD not in str(lines)
        file.write_text("[log]\nlevel = 'info'\n")
        assert readable_secrets(file) is None


async def test_two_daemons_by_accident_are_told_by_both_and_by_check(
    plain_shop: Shop, tmp_path: Path
) -> None:
    """In log, page and check; not where the accounts are meant to be shared."""
    paths = [tmp_path / name for name in ("one", "two")]
    for path in paths:
        path.mkdir()
    async with StandIn({}, kod=KOD, sifre=SIFRE) as panel:
        config = settings(plain_shop.dsn, panel.url)
        async with (
            running(paths[0], config, rate=10) as one,
            running(paths[1], config, rate=10) as two,
        ):
            pids = {run.process.pid for run in (one, two)}
            for run in (one, two):
                told = await run.event("daemon.beside")
                (other,) = pids - {run.process.pid}
                assert told["others"][0].endswith(f"(pid {other})")
                assert "cluster.enabled" in told["do"]
            port = (await one.event("health.listening"))["port"]
            async with httpx.AsyncClient() as client:
                document = (await client.get(f"http://127.0.0.1:{port}/api/status")).json()
            assert len(document["beside"]) == 1
            code, lines, _ = await check(tmp_path, config)
            warning = of(lines, "warning")["daemons"]
            assert code == 0
            assert all(str(pid) in warning["text"] for pid in pids)
            for run in (one, two):
                run.process.terminate()
                assert await run.end() == 0
        _, lines, _ = await check(tmp_path, config)
        assert "daemons" not in of(lines, "warning")


async def test_one_with_sharing_and_one_without_are_told_by_both(
    plain_shop: Shop, tmp_path: Path
) -> None:
    """In log, page, status and check, whichever settings file check reads; not while all share."""
    async with AsyncExitStack() as stack:
        panel = await stack.enter_async_context(StandIn({}, kod=KOD, sifre=SIFRE))
        shared = settings(plain_shop.dsn, panel.url, cluster={"enabled": True})
        alone = settings(plain_shop.dsn, panel.url)
        runs = {}
        for name, config in (("one", shared), ("two", shared)):
            (tmp_path / name).mkdir()
            runs[name] = await stack.enter_async_context(running(tmp_path / name, config, rate=10))
        for run in runs.values():
            await run.event("cluster.joined")
        port = (await runs["one"].event("health.listening"))["port"]
        async with httpx.AsyncClient(trust_env=False) as client:
            while (
                await plain_shop.connection.fetchval("SELECT count(*) FROM order_monitor_presence")
                < 2
            ):
                await asyncio.sleep(0.05)
            document = (await client.get(f"http://127.0.0.1:{port}/api/status")).json()
            assert document["beside"] == []
            _, lines, _ = await check(tmp_path, shared)
            assert "daemons" not in of(lines, "warning")
            _, lines, _ = await check(tmp_path, alone)
            assert of(lines, "warning")["daemons"]["do"] == "set cluster.enabled here too"
            (tmp_path / "three").mkdir()
            third = await stack.enter_async_context(running(tmp_path / "three", alone, rate=10))
            pid = f"(pid {third.process.pid})"
            for run in runs.values():
                told = await run.event("daemon.beside")
                assert (len(told["others"]), told["others"][0].endswith(pid), told["shares"]) == (
                    1,
                    True,
                    True,
                )
            told = await third.event("daemon.beside")
            assert not told["shares"]
            document = (await client.get(f"http://127.0.0.1:{port}/api/status")).json()
            assert [cause["kind"] for cause in document["attention"] if "pid" in cause["why"]] == [
                "mixed"
            ]
        for config in (shared, alone):
            _, lines, _ = await check(tmp_path, config)
            warning = of(lines, "warning")["daemons"]
            assert "not all share" in warning["text"]
            assert pid in warning["text"]
        for run in (*runs.values(), third):
            run.process.terminate()
            assert await run.end() == 0
