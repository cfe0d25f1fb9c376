"""The program as its users run it: a process, with exit codes and signals, over a real database and
a real server.
"""

import asyncio
import json
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
import trustme

from order_monitor.app import database_of
from order_monitor.commands.once import Wish
from order_monitor.commands.once import one_pass as make_pass
from order_monitor.commands.session import Session
from order_monitor.core.answer import Cancelled, Completed, Waiting
from order_monitor.core.pin import Pin
from order_monitor.providers.http.transport import CERTIFICATE_WORDS
from order_monitor.settings.loading import load
from order_monitor.tell.redactor import Redactor
from tests.support.clocks import UpForLong
from tests.support.connections import server_context
from tests.support.processes import ROOT, Panel, Run, ended, once, panel, running, sent, settings
from tests.support.proxies import Proxy
from tests.support.servers import RawServer, answer
from tests.support.shops import Shop

__all__ = ["panel"]

pytestmark = pytest.mark.outside


KEYS = {
    "open",
    "asked",
    "completed",
    "failed",
    "waiting",
    "refused",
    "not_asked",
    "stuck",
    "overdue",
    "skipped",
    "seconds",
}


async def test_once_writes_all_and_exits_0(shop: Shop, panel: Panel, tmp_path: Path) -> None:
    ids = await sent(shop, 12)
    await sent(shop, 2, reference="")
    code, summary, _ = await once(tmp_path, settings(shop.dsn, panel.server.url))
    assert code == 0
    assert summary.keys() >= KEYS
    assert {k: summary[k] for k in ("open", "asked", "completed", "not_asked", "skipped")} == {
        "open": 14,
        "asked": 12,
        "completed": 12,
        "not_asked": 0,
        "skipped": {"no_reference": 2},
    }
    for order_id in ids:
        row = await shop.row(order_id)
        assert (row["external_status"], row["pin_code"]) == (
            "completed",
            panel.pin_of(row["provider_referans"]),
        )


@pytest.mark.parametrize(
    ("answer", "counted"),
    [(Waiting("x"), "waiting"), (Cancelled("x"), "failed"), (Completed(None), "completed")],
)
async def test_once_counts_each_kind(
    plain_shop: Shop, panel: Panel, tmp_path: Path, answer: Any, counted: str
) -> None:
    await sent(plain_shop, 5)
    panel.answer = answer
    code, summary, _ = await once(tmp_path, settings(plain_shop.dsn, panel.server.url))
    assert (code, summary["asked"], summary[counted]) == (0, 5, 5)


async def test_once_counts_a_refused_question(
    plain_shop: Shop, panel: Panel, tmp_path: Path
) -> None:
    await sent(plain_shop, 3)
    panel.body = "3|Açıklama"
    code, summary, _ = await once(tmp_path, settings(plain_shop.dsn, panel.server.url))
    assert (code, summary["asked"], summary["refused"], summary["failed"]) == (0, 3, 3, 0)


async def test_once_exits_1_when_the_account_is_shut(
    plain_shop: Shop, panel: Panel, tmp_path: Path
) -> None:
    ids = await sent(plain_shop, 30)
    panel.body = "8|Bağlantı Hatası"
    code, summary, errors = await once(tmp_path, settings(plain_shop.dsn, panel.server.url))
    assert (code, summary["asked"], summary["not_asked"], summary["failed"]) == (1, 0, 30, 0)
    assert errors.count("account.closed") == 1
    assert {(await plain_shop.row(i))["external_status"] for i in ids} == {"sent"}


async def test_once_counts_as_overdue_what_stays_so(
    plain_shop: Shop, panel: Panel, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A definitive "still waiting" ends an overdue order.

    A refused question leaves it, and it is counted. In this process: on a machine that was started
    just now a process of its own ends nothing by its age.
    """
    path = tmp_path / "monitor.toml"
    path.write_text(settings(plain_shop.dsn, panel.server.url, schedule={"give_up_after": 50}))
    await sent(plain_shop, 3)

    async def one_pass() -> tuple[int, dict[str, Any]]:
        given = load(path)
        async with database_of(given) as database:
            session = Session(given, database, Redactor())
            code = await make_pass(session, Wish(as_json=True), UpForLong())
        return code, json.loads(capsys.readouterr().out.splitlines()[-1])

    panel.body = "3|Açıklama"
    code, summary = await one_pass()
    assert (code, summary["overdue"], summary["failed"]) == (0, 3, 0)
    panel.body = None
    panel.answer = Waiting("bekleniyor")
    code, summary = await one_pass()
    assert (code, summary["overdue"], summary["failed"], summary["waiting"]) == (0, 0, 3, 0)


async def test_once_exits_1_when_something_is_stuck(
    plain_shop: Shop, panel: Panel, tmp_path: Path
) -> None:
    await sent(plain_shop, 2)
    panel.answer = Completed(Pin("X" * 200), "")
    code, summary, _ = await once(tmp_path, settings(plain_shop.dsn, panel.server.url))
    assert (code, summary["stuck"], summary["completed"]) == (1, 2, 0)


async def test_once_exits_3_without_a_database(panel: Panel, tmp_path: Path) -> None:
    dsn = "postgresql://u:dsn-pw-CANARY@127.0.0.1:1/x"
    code, summary, errors = await once(tmp_path, settings(dsn, panel.server.url))
    assert (code, summary) == (3, {})
    assert "cannot be reached" in errors
    assert "CANARY" not in errors


async def test_once_exits_1_where_the_table_lacks_a_column(
    plain_shop: Shop, panel: Panel, tmp_path: Path
) -> None:
    await plain_shop.connection.execute("ALTER TABLE product_orders DROP COLUMN provider_referans")
    code, _, errors = await once(tmp_path, settings(plain_shop.dsn, panel.server.url))
    assert code == 1
    assert "provider_referans" in errors
    assert "order-monitor migrate" in errors


async def test_migrate_then_once(plain_bare_shop: Shop, panel: Panel, tmp_path: Path) -> None:
    await plain_bare_shop.connection.execute(
        "ALTER TABLE product_orders DROP COLUMN provider_referans"
    )
    config = settings(plain_bare_shop.dsn, panel.server.url)
    async with running(tmp_path, config, "migrate", "--dry-run") as run:
        assert await run.end() == 0
    assert run.out.decode().count("\nCREATE INDEX CONCURRENTLY") == 3
    async with running(tmp_path, config, "migrate") as run:
        assert await run.end() == 0
    assert "added column provider_referans" in run.out.decode()
    async with running(tmp_path, config, "migrate") as run:
        assert await run.end() == 0
    assert run.out.decode() == "nothing to do: everything is there\n"
    async with running(tmp_path, config, "migrate", "--format", "django") as run:
        assert await run.end() == 0
    compile(run.out, "migration", "exec")
    assert (await once(tmp_path, config))[0] == 0


async def test_once_every_asks_only_what_came_due(
    plain_shop: Shop, panel: Panel, tmp_path: Path
) -> None:
    now = await plain_shop.connection.fetchval(
        "SELECT extract(epoch FROM clock_timestamp())::float8"
    )
    await plain_shop.add(sent_at=now - 3000)
    due = await plain_shop.add(sent_at=now - 70)
    config = settings(
        plain_shop.dsn,
        panel.server.url,
        schedule={"first_check": 60, "base": 600, "cap": 3600, "jitter": 0},
    )
    code, summary, _ = await once(tmp_path, config, "--every", "60s")
    assert (code, summary["asked"]) == (0, 1)
    assert (await plain_shop.row(due))["external_status"] == "completed"


async def test_the_plain_summary_is_for_people(
    plain_shop: Shop, panel: Panel, tmp_path: Path
) -> None:
    await sent(plain_shop, 2)
    async with running(tmp_path, settings(plain_shop.dsn, panel.server.url), "--once") as run:
        assert await run.end() == 0
    assert "completed" in run.out.decode()


async def test_sigterm_finishes_what_is_under_way(shop: Shop, panel: Panel, tmp_path: Path) -> None:
    """The calls in flight are finished and their PINs written; no new call starts; exit code 0."""
    ids = await sent(shop, 40)
    panel.release.clear()
    config = settings(shop.dsn, panel.server.url, limits={"concurrency": 10})
    async with running(tmp_path, config) as run:
        await panel.started.wait()
        while len(panel.server.calls) < 10:
            await asyncio.sleep(0.01)
        run.process.send_signal(signal.SIGTERM)
        await run.event("stopping")
        panel.release.set()
        assert await run.end() == 0
    asked = set(panel.server.calls)
    assert len(asked) == 10
    rows = {i: await shop.row(i) for i in ids}
    done = {
        i
        for i, row in rows.items()
        if row["external_status"] == "completed"
        and row["pin_code"] == panel.pin_of(row["provider_referans"])
    }
    assert {f"r-{i[:8]}" for i in done} == asked
    assert run.events()[-1]["event"] == "stopped"


async def test_a_stop_waits_no_longer_than_its_grace(
    plain_shop: Shop, panel: Panel, tmp_path: Path
) -> None:
    await sent(plain_shop, 3)
    panel.release.clear()
    config = settings(plain_shop.dsn, panel.server.url, shutdown={"grace": 0.5})
    async with running(tmp_path, config) as run:
        await panel.started.wait()
        run.process.send_signal(signal.SIGINT)
        assert await run.end() == 0
    assert any(e["event"] == "calls.cut" for e in run.events())


@pytest.mark.long
async def test_answers_that_cannot_be_written_are_told_at_the_stop(
    plain_shop: Shop, panel: Panel, tmp_path: Path
) -> None:
    await sent(plain_shop, 3)
    panel.release.clear()
    async with Proxy(plain_shop.dsn) as proxy:
        config = settings(proxy.dsn, panel.server.url, shutdown={"grace": 1})
        async with running(tmp_path, config) as run:
            await panel.started.wait()
            proxy.flowing.clear()
            panel.release.set()
            await run.event("order.asked")
            run.process.send_signal(signal.SIGTERM)
            assert await run.end() == 1
        proxy.flowing.set()
    assert [e["count"] for e in run.events() if e["event"] == "answers.unwritten"] != []


@asynccontextmanager
async def strict(tmp_path: Path, config: str, code: str = "") -> AsyncIterator[Run]:
    """The program, or ``code``, with asyncio in debug mode and every warning an error."""
    (tmp_path / "monitor.toml").write_text(config)
    what = ("-c", code) if code else ("-m", "order_monitor")
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-X", "dev", "-W", "error", *what),
        cwd=tmp_path,
        env={**os.environ, "PYTHONASYNCIODEBUG": "1", "PYTHONPATH": str(ROOT)},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    async with ended(process) as run:
        yield run


def reported(run: Run) -> list[str]:
    """What Python and asyncio found wrong, save callbacks that were slow: a machine may be busy."""
    lines = run.err.decode().splitlines()
    plain = [line for line in lines if not line.startswith("{")]
    said = [
        event
        for event in run.events()
        if event.get("library") == "asyncio" and event["level"] != "debug"
    ]
    return plain + [
        str(event) for event in said if not str(event.get("message", "")).startswith("Executing ")
    ]


@pytest.mark.long
async def test_asyncios_debug_mode_finds_nothing_from_the_start_to_the_stop(
    plain_shop: Shop, panel: Panel, tmp_path: Path
) -> None:
    """No coroutine that nobody awaits, no error that nobody reads, nothing left open: also with
    calls and writes cut off.
    """
    await sent(plain_shop, 20)
    async with strict(
        tmp_path, settings(plain_shop.dsn, panel.server.url, shutdown={"grace": 1})
    ) as run:
        await run.event("order.completed")
        panel.release.clear()
        await sent(plain_shop, 5)
        panel.started.clear()
        await panel.started.wait()
        run.process.send_signal(signal.SIGHUP)
        await run.event("settings.reloaded")
        run.process.send_signal(signal.SIGTERM)
        assert await run.end() == 0
    assert any(event["event"] == "calls.cut" for event in run.events())
    assert reported(run) == []


CARELESS = """
import asyncio
from order_monitor.tell.logs import set_up

async def nobody_awaits():
    pass

async def fail():
    raise ValueError

async def main():
    {}
    await asyncio.sleep(0.01)

sink, _ = set_up("info", "json")
asyncio.run(main())
sink.close()
"""


@pytest.mark.parametrize(
    ("fault", "told"),
    [("nobody_awaits()", "never awaited"), ("asyncio.ensure_future(fail())", "ValueError")],
)
async def test_what_is_not_awaited_would_be_reported(fault: str, told: str, tmp_path: Path) -> None:
    async with strict(tmp_path, "", CARELESS.format(fault)) as run:
        await run.end()
    assert told in str(reported(run))


async def test_a_second_signal_leaves_at_once(
    plain_shop: Shop, panel: Panel, tmp_path: Path
) -> None:
    await sent(plain_shop, 3)
    panel.release.clear()
    async with running(tmp_path, settings(plain_shop.dsn, panel.server.url)) as run:
        await panel.started.wait()
        run.process.send_signal(signal.SIGTERM)
        await run.event("stopping")
        run.process.send_signal(signal.SIGTERM)
        async with asyncio.timeout(5):
            assert await run.end() == 128 + signal.SIGTERM


@pytest.mark.long
async def test_a_signal_at_any_moment_of_the_start_ends_it(
    plain_shop: Shop, panel: Panel, tmp_path: Path
) -> None:
    """D9: also before anything is set up."""
    for delay in (0.05, 0.2, 0.4, 0.6, 0.8):
        async with running(tmp_path, settings(plain_shop.dsn, panel.server.url)) as run:
            await asyncio.sleep(delay)
            run.process.send_signal(signal.SIGTERM)
            code = await run.end()
        # The interpreter itself needs a moment before it can be told anything.
        assert code == 0 or (delay <= 0.2 and code == -signal.SIGTERM)


async def test_the_daemon_waits_for_its_database_and_says_so_once(
    plain_shop: Shop, panel: Panel, tmp_path: Path
) -> None:
    ids = await sent(plain_shop, 5)
    async with Proxy(plain_shop.dsn) as proxy:
        port, dsn = proxy.port, proxy.dsn
        await proxy.stop()
        async with running(tmp_path, settings(dsn, panel.server.url)) as run:
            address = await run.event("health.listening")
            await run.event("database.lost")
            base = f"http://127.0.0.1:{address['port']}"
            async with httpx.AsyncClient(trust_env=False) as client:
                assert (await client.get(f"{base}/livez")).status_code == 200
                ready = await client.get(f"{base}/readyz")
                assert ready.status_code == 503
                assert "no scan yet" in ready.text
            await proxy.start_again(port)
            await run.event("order.completed")
            async with httpx.AsyncClient(trust_env=False) as client:
                assert (await client.get(f"{base}/readyz")).status_code == 200
                assert (await client.get(f"{base}/healthz")).json()["ready"] is True
            while {(await plain_shop.row(i))["external_status"] for i in ids} != {"completed"}:
                await asyncio.sleep(0.02)
            run.process.send_signal(signal.SIGTERM)
            assert await run.end() == 0
    names = [e["event"] for e in run.events()]
    assert names.count("database.lost") == 1
    assert names.count("database.back") == 1
    assert "library.message" not in names


HANGING = """
import asyncio, sys, time
from order_monitor.commands.exits import run_to_exit
from order_monitor.tell.logs import set_up

async def work():
    asyncio.get_running_loop().run_in_executor(None, time.sleep, 600)
    return 7

sys.exit(run_to_exit(work(), set_up("info", "json")[0].close))
"""


@pytest.mark.long
async def test_a_thread_that_hangs_does_not_keep_the_process() -> None:
    """D11: a look-up in the system's resolver cannot be cancelled.

    The process leaves without it, with its own exit code.
    """
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", HANGING)
    async with asyncio.timeout(30):
        assert await process.wait() == 7


async def test_two_daemons_and_a_cron_job_end_each_order_once(
    plain_shop: Shop, panel: Panel, tmp_path: Path
) -> None:
    """E1: overlap costs calls, never a wrong row."""
    await plain_shop.connection.execute(
        "CREATE TABLE ends (id uuid, was text, now text);"
        "CREATE FUNCTION note_end() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN "
        "IF NEW.external_status <> OLD.external_status THEN "
        "INSERT INTO ends VALUES (NEW.id, OLD.external_status, NEW.external_status); END IF; RETURN NEW; END $$;"
        "CREATE TRIGGER note_end AFTER UPDATE ON product_orders FOR EACH ROW EXECUTE FUNCTION note_end();"
    )
    await sent(plain_shop, 60)
    config = settings(plain_shop.dsn, panel.server.url)
    (tmp_path / "b").mkdir()
    (tmp_path / "c").mkdir()
    async with running(tmp_path, config) as a, running(tmp_path / "b", config) as b:
        assert (await once(tmp_path / "c", config))[0] == 0
        for run in (a, b):
            await run.event("started")
            run.process.send_signal(signal.SIGTERM)
            assert await run.end() == 0
    assert (
        await plain_shop.connection.fetchval("SELECT count(*) FROM ends WHERE now = 'completed'")
        == 60
    )
    assert (
        await plain_shop.connection.fetchval(
            "SELECT count(*) FROM (SELECT id FROM ends GROUP BY id HAVING count(*) > 1) x"
        )
        == 0
    )


async def test_an_interrupted_pass_reports_what_was_left(
    plain_shop: Shop, panel: Panel, tmp_path: Path
) -> None:
    await sent(plain_shop, 30)
    panel.release.clear()
    config = settings(plain_shop.dsn, panel.server.url, limits={"concurrency": 5})
    async with running(tmp_path, config, "--once", "--json") as run:
        await panel.started.wait()
        while len(panel.server.calls) < 5:
            await asyncio.sleep(0.01)
        run.process.send_signal(signal.SIGTERM)
        await run.event("stopping")
        panel.release.set()
        assert await run.end() == 1
    summary = json.loads(run.out)
    assert (summary["asked"], summary["completed"], summary["not_asked"]) == (5, 5, 25)


async def test_a_panel_with_its_own_authority_is_told_of_and_then_trusted(
    plain_shop: Shop, tmp_path: Path
) -> None:
    """`--once --json` names the account's reason, `check` says what to do, and ``provider.ca_file``
    mends it.
    """
    await sent(plain_shop, 8)

    async def handler(
        head: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        writer.write(answer(b"OK|1| |x" if b"pin_kontrol" in head else b"OK|5.00"))

    ca = trustme.CA()
    async with RawServer(handler, tls=server_context(ca.issue_cert("localhost"))) as server:
        url = f"https://localhost:{server.port}"
        code, summary, errors = await once(tmp_path, settings(plain_shop.dsn, url))
        assert (code, summary["not_asked"]) == (1, 8)
        # trustme's authority is no part of what the server sends.
        reason = "certificate_unknown_issuer"
        assert summary["not_asked_accounts"] == {"default": {"orders": 8, "reason": reason}}
        assert CERTIFICATE_WORDS[reason] in errors
        async with running(tmp_path, settings(plain_shop.dsn, url), "check", "--json") as run:
            assert await run.end() == 1
        (line,) = [line for line in json.loads(run.out) if line["subject"] == "account default"]
        assert CERTIFICATE_WORDS[reason] in line["text"]
        assert "provider.ca_file" in line["do"]
        (tmp_path / "ca.pem").write_bytes(ca.cert_pem.bytes())
        trusted = settings(plain_shop.dsn, url, provider={"ca_file": str(tmp_path / "ca.pem")})
        code, summary, _ = await once(tmp_path, trusted)
        assert (code, summary["asked"], summary["not_asked_accounts"]) == (0, 8, {})


@pytest.mark.long
@pytest.mark.parametrize("code", ["U0001", "42501", "55P03", "57014"])
async def test_one_row_that_a_trigger_refuses_holds_up_nothing(
    plain_shop: Shop, panel: Panel, tmp_path: Path, code: str
) -> None:
    """The others are written and new ones too, the daemon stays ready and stops at once, and the
    row is named with its code.
    """
    shop = plain_shop
    ids = await sent(shop, 60)
    async with running(tmp_path, settings(shop.dsn, panel.server.url), "migrate") as run:
        assert await run.end() == 0
    await shop.connection.execute(
        f"CREATE FUNCTION no() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN IF NEW.id = '{ids[20]}' THEN "
        f"RAISE EXCEPTION USING ERRCODE = '{code}'; END IF; RETURN NEW; END $$; "
        "CREATE TRIGGER t BEFORE UPDATE ON product_orders FOR EACH ROW EXECUTE FUNCTION no()"
    )
    open_orders = "SELECT count(*) FROM product_orders WHERE external_status <> 'completed'"
    async with running(tmp_path, settings(shop.dsn, panel.server.url)) as run:
        where = await run.event("health.listening")
        async with asyncio.timeout(20):
            while await shop.connection.fetchval(open_orders) > 1:
                await asyncio.sleep(0.05)
        await sent(shop, 5)
        async with asyncio.timeout(20):
            while await shop.connection.fetchval(open_orders) > 1:
                await asyncio.sleep(0.05)
        stuck = await run.event("order.stuck")
        async with httpx.AsyncClient() as client:
            assert (await client.get(f"http://127.0.0.1:{where['port']}/readyz")).status_code == 200
        run.process.send_signal(signal.SIGTERM)
        async with asyncio.timeout(10):
            assert await run.end() == 0
    assert (stuck["order_id"], code in stuck["detail"]) == (ids[20], True)
    assert not [e for e in run.events() if e["event"] in ("database.lost", "answers.unwritten")]
    async with running(tmp_path, settings(shop.dsn, panel.server.url), "check", "--json") as run:
        assert await run.end() == 1
    (line,) = [line for line in json.loads(run.out) if line["subject"] == f"order {ids[20]}"]
    assert (line["level"], code in line["text"]) == ("error", True)


async def test_what_a_lock_holds_up_is_named_at_the_stop_and_asked_at_once_after_the_start(
    plain_shop: Shop, panel: Panel, tmp_path: Path
) -> None:
    """It was read and is not lost: the order is open still, and due at once, not at its next time."""
    shop = plain_shop
    ids = await sent(shop, 3)
    slow = settings(shop.dsn, panel.server.url, schedule={"base": 3600, "cap": 3600})
    async with shop.connection.transaction():
        await shop.set(ids[0], note="busy")
        async with running(tmp_path, slow) as run:
            held = await run.event("writes.held_up")
            run.process.send_signal(signal.SIGTERM)
            async with asyncio.timeout(10):
                assert await run.end() == 1
    assert held["order_id"] == ids[0]
    (left,) = [e for e in run.events() if e["event"] == "answers.unwritten"]
    assert (left["count"], left["orders"]) == (1, [ids[0]])
    async with running(tmp_path, slow) as run:
        assert (await run.event("order.completed"))["order_id"] == ids[0]
        run.process.send_signal(signal.SIGTERM)
        assert await run.end() == 0
