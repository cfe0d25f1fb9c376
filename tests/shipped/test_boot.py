"""deploy's units in a booted systemd: started, killed, frozen, reloaded and stopped under load,
compared row by row.
"""

import asyncio
import re
import socket
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.faults.comparison import assert_all_right
from tests.faults.stage import Shop
from tests.shipped.container import Root
from tests.shipped.machine import CommandFailedError, Machine, booted
from tests.support.processes import KOD, SIFRE, settings
from tests.support.shops import migrate

ONE = "order-monitor.service"
OPERATOR = "/usr/local/sbin/order-monitor-as-operator"
MOST_EXPOSED = 1.2
WARNING, INFO = 4, 6


@pytest.fixture(scope="session")
def running_machine(root: Root, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    folder = tmp_path_factory.mktemp("etc")
    folder.chmod(0o755)
    (folder / "credentials").mkdir(mode=0o700)
    with booted(root, folder) as made:
        yield made


@pytest.fixture
async def machine(running_machine: Machine, shop: Shop) -> AsyncIterator[Machine]:
    """The machine with settings in monitor.toml, secrets as the units' credentials, nothing of ours
    running.
    """
    given = {"database__dsn": shop.dsn, "provider__kod": KOD, "provider__sifre": SIFRE}
    for name, value in given.items():
        (running_machine.settings / "credentials" / f"order_monitor_{name}").write_text(value)
    write(running_machine, shop)
    yield running_machine
    await running_machine.reset()


@pytest.fixture
async def shop(bare: Shop, tmp_path: Path) -> Shop:
    """A shop's database that ``order-monitor migrate`` has been over."""
    await migrate(bare.dsn)
    return bare


def write(machine: Machine, shop: Shop, **more: dict[str, Any]) -> None:
    """Write monitor.toml without a secret: those come as credentials."""
    changes: dict[str, dict[str, Any]] = {"schedule": {"cap": 2}, "log": {"level": "info"}, **more}
    text = settings(shop.dsn, shop.panel.url, **changes)
    kept = [
        line for line in text.splitlines() if not line.startswith(("dsn =", "kod =", "sifre ="))
    ]
    (machine.settings / "monitor.toml").write_text("\n".join(kept))


def pid(found: dict[str, str]) -> int:
    return int(found["MainPID"])


async def signalled(machine: Machine, name: str, unit: str = ONE) -> None:
    await machine.systemctl("kill", f"--signal={name}", "--kill-whom=main", unit)


async def ended_well(shop: Shop, at_least: int) -> None:
    await shop.settle()
    assert_all_right(await shop.verdict(), at_least=at_least)


async def test_it_is_ready_after_its_first_scan(machine: Machine, shop: Shop) -> None:
    await shop.place(7, within=600)
    async with shop.hand() as connection, connection.transaction():
        await connection.execute("LOCK TABLE product_orders IN ACCESS EXCLUSIVE MODE")
        await machine.systemctl("start", "--no-block", ONE)
        await machine.becomes(ONE, ActiveState="activating", SubState="start")
        await asyncio.sleep(3)
        assert (await machine.show(ONE))["ActiveState"] == "activating", "it has seen no order yet"
    found = await machine.becomes(ONE, ActiveState="active", SubState="running")
    found = await machine.becomes(ONE, StatusText="7 open orders, 1 of 1 accounts open")
    assert found["NRestarts"] == "0"


async def test_secrets_come_as_credentials(machine: Machine, shop: Shop) -> None:
    """Only root and the unit's own user of the moment may read them, and no variable holds one."""
    await machine.systemctl("start", ONE)
    process = f"/proc/{pid(await machine.show(ONE))}"
    variables = await machine.run("cat", f"{process}/environ")
    assert "CREDENTIALS_DIRECTORY=/run/credentials/order-monitor.service" in variables.split("\0")
    assert not any(secret in variables for secret in (KOD, SIFRE, shop.dsn))
    status = await machine.run("cat", f"{process}/status")
    (user,) = re.findall(r"^Uid:\s+(\d+)\s", status, re.MULTILINE)
    assert 61184 <= int(user) <= 65519, "systemd's range of dynamic users"
    assert (
        await machine.run("stat", "--format=%a", "/run/credentials/order-monitor.service")
    ).strip() in (
        "500",
        "550",
    )
    told = "\n".join(str(line["MESSAGE"]) for line in await machine.journal(ONE))
    assert not any(secret in told for secret in (SIFRE, shop.dsn))


async def test_a_person_decides_with_the_services_settings_and_credentials(
    machine: Machine, shop: Shop
) -> None:
    """As docs/questions.md has it; beside the running daemon, with the PIN on standard input."""
    (order_id,) = await shop.place(1, within=600)
    await machine.systemctl("start", ONE)
    assert "waiting" in (await machine.run(OPERATOR, "explain", order_id, "--now")).lower()
    decided = ("resolve", order_id, "--completed", "--pin-stdin", "--reason", "cost 5$$, 10% off")
    told = await machine.run(OPERATOR, *decided, given="TEL-4711-PHONE\n")
    assert "now 'completed' with its PIN, by root" in told
    async with shop.hand() as connection:
        row = await connection.fetchrow("SELECT external_status, pin_code FROM product_orders")
        event = await connection.fetchrow(
            "SELECT source, decided_by, message FROM order_monitor_events ORDER BY id DESC LIMIT 1"
        )
    assert tuple(row or ()) == ("completed", "TEL-4711-PHONE")
    assert tuple(event or ()) == ("person", "root", "cost 5$, 10% off")
    with pytest.raises(CommandFailedError, match=": 1: "):
        await machine.run(OPERATOR, "resolve", order_id, "--failed", "--reason", "two words")
    found = await machine.run("sh", "-c", "ls /run/credentials; journalctl --all --no-pager")
    assert not any(secret in found for secret in (SIFRE, shop.dsn, "TEL-4711"))


async def test_killed_it_comes_back(machine: Machine, shop: Shop) -> None:
    async with shop.under_load():
        await machine.systemctl("start", ONE)
        before = await machine.show(ONE)
        await asyncio.sleep(1)
        await signalled(machine, "KILL")
        after = await machine.becomes(ONE, NRestarts="1", ActiveState="active")
        assert pid(after) != pid(before)
    await ended_well(shop, at_least=20)


async def test_frozen_the_watchdog_ends_it(machine: Machine, shop: Shop) -> None:
    await machine.drop_in(ONE, "[Service]\nWatchdogSec=6\n")
    async with shop.under_load():
        await machine.systemctl("start", ONE)
        before = await machine.show(ONE)
        await asyncio.sleep(8)
        assert (await machine.show(ONE))["MainPID"] == before["MainPID"], "it is fed in time"
        await signalled(machine, "STOP")
        await machine.becomes(ONE, NRestarts="1", ActiveState="active")
    assert any("Watchdog timeout" in str(line["MESSAGE"]) for line in await machine.journal(ONE))
    await ended_well(shop, at_least=20)


async def test_reload_takes_good_settings_and_refuses_bad_ones(
    machine: Machine, shop: Shop
) -> None:
    await machine.systemctl("start", ONE)
    before = await machine.show(ONE)
    write(machine, shop, schedule={"cap": 3})
    await machine.systemctl("reload", ONE)
    write(machine, shop, schedule={"cap": "soon"})
    await machine.systemctl("reload", ONE)
    async with asyncio.timeout(20):
        while not (told := {e["event"]: e for e in await machine.events(ONE)}).keys() >= {
            "settings.refused"
        }:
            await asyncio.sleep(0.2)
    assert "schedule.cap" in told["settings.reloaded"]["changed"]
    assert "schedule.cap" in str(told["settings.refused"]["problems"])
    after = await machine.becomes(ONE, ActiveState="active", SubState="running")
    assert (pid(after), after["NRestarts"]) == (pid(before), "0"), "it went on"


async def test_stopped_under_load_it_loses_nothing(machine: Machine, shop: Shop) -> None:
    async with shop.under_load(batch=20):
        for _ in range(3):
            await machine.systemctl("start", ONE)
            await asyncio.sleep(1)
            begun = time.monotonic()
            await machine.systemctl("stop", ONE)
            assert time.monotonic() - begun < 10, "calls under way are finished, not waited for"
            found = await machine.show(ONE)
            assert (found["ActiveState"], found["Result"], found["ExecMainStatus"]) == (
                "inactive",
                "success",
                "0",
            )
    await machine.systemctl("start", ONE)
    await ended_well(shop, at_least=60)


async def test_bad_settings_do_not_make_it_loop(machine: Machine, shop: Shop) -> None:
    write(machine, shop, schedule={"cap": "soon"})
    with pytest.raises(CommandFailedError):
        await machine.systemctl("start", ONE)
    await asyncio.sleep(float(re.sub(r"\D", "", (await machine.show(ONE))["RestartUSec"])) + 1)
    found = await machine.show(ONE)
    assert (found["ActiveState"], found["ExecMainStatus"], found["NRestarts"]) == (
        "failed",
        "2",
        "0",
    )
    assert any("schedule.cap" in str(line["MESSAGE"]) for line in await machine.journal(ONE))


async def test_that_it_has_failed_is_told_once_an_hour(machine: Machine, shop: Shop) -> None:
    """Whatever is wrong with the settings, the addresses are read.

    The image has no Apprise, and that is said.
    """
    write(machine, shop, schedule={"cap": "soon"}, notify={"urls": ["json://127.0.0.1:1"]})
    for _ in range(3):
        with pytest.raises(CommandFailedError):
            await machine.systemctl("start", ONE)
        await machine.becomes(ONE, ActiveState="failed")
        await asyncio.sleep(3)
    unit = f"order-monitor-failed@{ONE}.service"
    said = [str(line["MESSAGE"]) for line in await machine.journal(unit)]
    assert [text for text in said if "order-monitor: " in text] == [
        "order-monitor: the library apprise is not installed: pip install 'order-monitor[notify]'"
    ], said


async def test_the_log_is_in_the_journal_with_its_levels(machine: Machine, shop: Shop) -> None:
    await machine.systemctl("start", ONE)
    async with shop.hand() as connection:
        await connection.execute("ALTER TABLE product_orders RENAME TO gone")
        async with asyncio.timeout(20):
            while not any(e["event"].startswith("scan.") for e in await machine.events(ONE)):
                await asyncio.sleep(0.2)
        await connection.execute("ALTER TABLE gone RENAME TO product_orders")
    found = {e["event"]: (e["level"], e["priority"]) for e in await machine.events(ONE)}
    assert found["started"] == ("info", INFO)
    assert any(priority <= WARNING for _, priority in found.values()), found
    levels = {"debug": 7, "info": INFO, "warning": WARNING, "error": 3, "critical": 2}
    assert all(levels[level] == priority for level, priority in found.values()), found


def free_instances(count: int) -> list[int]:
    """Return instances of the template whose ports, which its unit names, are free here."""
    found = []
    with ExitStack() as held:
        for number in range(1, 10):
            try:
                held.enter_context(socket.create_server(("127.0.0.1", 8080 + number)))
            except OSError:
                continue
            found.append(number)
    assert len(found) >= count, "ports 8081 to 8089 are taken"
    return found[:count]


async def test_two_share_the_accounts(machine: Machine, shop: Shop) -> None:
    """Of one account one of them asks and the other stands by, and takes it over from one that
    dies.
    """
    units = {f"order-monitor@{number}.service": 8080 + number for number in free_instances(2)}
    async with shop.under_load():
        await machine.systemctl("start", *units)
        holder = await held_by(units)
        before = shop.panel.calls
        await signalled(machine, "KILL", holder)
        (other,) = units.keys() - {holder}
        assert await held_by({other: units[other]}) == other
        await machine.becomes(holder, NRestarts="1", ActiveState="active")
        assert shop.panel.calls > before
    await ended_well(shop, at_least=20)


async def held_by(units: dict[str, int]) -> str:
    """Wait until the one account has a holder among units, each given with its port.

    Return which.
    """
    async with asyncio.timeout(30), httpx.AsyncClient() as client:
        while True:
            for unit, port in units.items():
                cluster = (await client.get(f"http://127.0.0.1:{port}/api/status")).json()[
                    "cluster"
                ]
                if any(
                    member["name"] == cluster["me"] and member["accounts"]
                    for member in cluster["members"]
                ):
                    return unit
            await asyncio.sleep(0.2)


async def test_the_timer_asks_without_a_daemon(machine: Machine, shop: Shop) -> None:
    await machine.drop_in(
        "order-monitor-once.timer",
        "[Timer]\nOnCalendar=\nOnCalendar=*:*:0/4\nRandomizedDelaySec=0\n",
    )
    ids = await shop.place(10)
    await machine.systemctl("start", "order-monitor-once.timer")
    await ended_well(shop, at_least=len(ids))
    await machine.systemctl("stop", "order-monitor-once.timer")
    found = await machine.becomes(
        "order-monitor-once.service", ActiveState="inactive", Result="success"
    )
    assert found["ExecMainStatus"] == "0"
    assert [
        line
        for line in await machine.journal("order-monitor-once.service")
        if '"open"' in str(line["MESSAGE"])
    ]


async def test_they_are_exposed_to_little(machine: Machine) -> None:
    """As systemd sees a loaded unit, not only its file."""
    for unit in (
        ONE,
        "order-monitor-once.service",
        "order-monitor@1.service",
        "order-monitor-failed@x.service",
    ):
        told = await machine.run("systemd-analyze", "security", "--no-pager", unit)
        (level,) = re.findall(r"Overall exposure level for \S+: ([0-9.]+)", told)
        assert float(level) <= MOST_EXPOSED, told
