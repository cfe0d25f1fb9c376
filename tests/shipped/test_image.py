"""The image that the Dockerfile makes, run as deploy/compose.yaml has it run: read-only, as its own
user, without rights.
"""

import asyncio
import json
import os
import re
import signal
import stat
import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from order_monitor import __version__
from tests.faults.comparison import assert_all_right
from tests.faults.stage import Shop
from tests.shipped.container import Root, children
from tests.support.processes import KOD, SIFRE, Run, ended

MOST_MEGABYTES = 70
"""How much larger than its base it may be."""
SETTINGS = """
[provider]
base_url = "{url}"
allow_http = true
[schedule]
first_check = 1
base = 1
cap = 2
scan_interval = 0.2
[limits]
calls_per_second = 500
[health]
host = "0.0.0.0"
port = {port}
"""


@dataclass
class Container:
    """The image beside a shop's database and its provider."""

    root: Root
    folder: Path
    environ: dict[str, str]

    @asynccontextmanager
    async def running(self, *arguments: str) -> AsyncIterator[Run]:
        settings, secrets = self.folder / "settings", self.folder / "secrets"
        command = self.root.command(
            *arguments, settings=settings, secrets=secrets, environ=self.environ
        )
        async with ended(await started(*command)) as run:
            try:
                yield run
            finally:
                if run.process.returncode is None:
                    # It would outlive a systemd-nspawn that is killed.
                    kill(run.process.pid)

    async def told(self, *arguments: str) -> tuple[int, str]:
        """Return the exit code and the whole output."""
        async with self.running(*arguments) as run:
            code = await run.end()
        return code, (run.out + run.err).decode()

    async def beside(self, run: Run, *command: str) -> tuple[int, str]:
        """Run a command where a process runs already, as ``docker exec`` and a health check do."""
        async with ended(
            await started(*self.root.inside(run.process.pid, *command, environ=self.environ))
        ) as other:
            code = await other.end()
        return code, (other.out + other.err).decode()

    async def health(self, run: Run) -> tuple[int, str]:
        kind, *command = self.root.image.config["Healthcheck"]["Test"]
        assert kind == "CMD"
        return await self.beside(run, *command)


def kill(pid: int) -> None:
    for first in children(pid):
        os.kill(first, signal.SIGKILL)


async def started(*command: str) -> asyncio.subprocess.Process:
    pipe = asyncio.subprocess.PIPE
    return await asyncio.create_subprocess_exec(
        *command, stdin=asyncio.subprocess.DEVNULL, stdout=pipe, stderr=pipe
    )


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(30):
        while not condition():
            await asyncio.sleep(0.02)


@pytest.fixture
async def container(root: Root, bare: Shop, tmp_path: Path, unused_tcp_port: int) -> Container:
    """Settings in a file, secrets in /run/secrets, the port as a variable."""
    settings, secrets = tmp_path / "settings", tmp_path / "secrets"
    for folder in (settings, secrets):
        folder.mkdir()
        folder.chmod(0o755)
    (settings / "monitor.toml").write_text(SETTINGS.format(url=bare.panel.url, port=8080))
    given = {
        "database__dsn": bare.dsn,
        "provider__kod": KOD,
        "provider__sifre": SIFRE,
        "health__token": "tok-" * 8,
    }
    for name, value in given.items():
        (secrets / f"order_monitor_{name}").write_text(value)
    return Container(root, tmp_path, {"ORDER_MONITOR_HEALTH__PORT": str(unused_tcp_port)})


@pytest.fixture
async def shop(container: Container, bare: Shop) -> Shop:
    """The shop's database after ``migrate``, which the image does too."""
    code, told = await container.told("migrate")
    assert code == 0, told
    return bare


async def test_it_says_who_it_is(container: Container) -> None:
    code, told = await container.told("--version")
    assert (code, told.splitlines()[0]) == (0, f"order-monitor, version {__version__}")


async def test_it_has_no_rights_and_can_write_nothing(container: Container, shop: Shop) -> None:
    async with container.running() as run:
        await run.event("started")
        (first,) = children(run.process.pid)
        status = dict(
            re.findall(r"^(\w+):\s+(.*)$", Path(f"/proc/{first}/status").read_text(), re.MULTILINE)
        )
        assert status["NSpid"].split()[-1] == "1", "process 1, as in an engine"
        assert set(status["Uid"].split() + status["Gid"].split()) == {"10001"}
        assert (int(status["CapEff"], 16), int(status["CapBnd"], 16), status["NoNewPrivs"]) == (
            0,
            0,
            "1",
        )
        for path in ("/x", "/opt/order-monitor/x", "/etc/order-monitor/x", "/run/secrets/x"):
            assert (await container.beside(run, "touch", path))[0] != 0, path
        assert (await container.beside(run, "touch", "/tmp/x"))[0] == 0


async def test_check_and_a_whole_pass(container: Container, shop: Shop) -> None:
    await shop.place(40)
    code, told = await container.told("check", "--json")
    assert code == 0, told
    code, told = await container.told("--once", "--json")
    summary = json.loads(told.splitlines()[0])
    assert (code, summary["open"], summary["asked"]) == (0, 40, 40), told
    assert_all_right(await shop.verdict(), at_least=40)


async def test_bad_settings_are_exit_2(container: Container) -> None:
    code, told = await container.told("--surely-not")
    assert code == 2, told
    container.environ["ORDER_MONITOR_HEALTH__PORT"] = "many"
    code, told = await container.told()
    assert (code, "ORDER_MONITOR_HEALTH__PORT" in told) == (2, True), told


async def test_sigterm_under_load_loses_nothing(container: Container, shop: Shop) -> None:
    """The signal reaches process 1, which ends what it has begun."""
    async with shop.under_load(), container.running() as run:
        await until(lambda: shop.panel.calls > 20)
        run.process.terminate()
        begun = time.monotonic()
        assert await run.end() == 0, run.err.decode()[-2000:]
        assert time.monotonic() - begun < 10
        assert run.events()[-1]["event"] == "stopped"
    async with container.running() as run:
        await shop.settle()
        run.process.terminate()
        await run.end()
    assert_all_right(await shop.verdict(), at_least=20)


async def test_health_is_whether_it_lives(container: Container, shop: Shop) -> None:
    """A provider that is away does not make it unhealthy, and asking costs no start of Python."""
    shop.panel.fault = "cut"
    await shop.place(3)
    async with container.running() as run:
        await until(lambda: shop.panel.faults["cut"] > 0)
        while (await container.beside(run, "order-monitor", "status"))[0] != 1:
            await asyncio.sleep(0.2)
        before = os.times()
        assert await container.health(run) == (0, "")
        after = os.times()
        spent = (
            after.children_user
            + after.children_system
            - before.children_user
            - before.children_system
        )
        assert spent < 0.15, "seconds of the processor; a start of Python takes three times as many"
        (first,) = children(run.process.pid)
        os.kill(first, signal.SIGSTOP)
        begun = time.monotonic()
        code, _ = await container.health(run)
        assert code != 0, "a process that stands still"
        assert time.monotonic() - begun < 10, "the Dockerfile's timeout"
        os.kill(first, signal.SIGCONT)
        run.process.terminate()
        assert await run.end() == 0


async def test_health_where_only_the_file_names_the_port(
    container: Container, shop: Shop, unused_tcp_port: int
) -> None:
    container.environ.clear()
    text = SETTINGS.format(url=shop.panel.url, port=unused_tcp_port)
    (container.folder / "settings" / "monitor.toml").write_text(text)
    async with container.running() as run:
        await run.event("started")
        code, told = await container.health(run)
        assert code == 0, told


def files(root: Path) -> dict[str, os.stat_result]:
    found = {}
    for folder, folders, names in os.walk(root):
        for name in (*names, *folders):
            path = Path(folder, name)
            found[str(path.relative_to(root))] = path.lstat()
    return found


def test_nothing_is_in_it_that_is_not_needed(root: Root, base: Path) -> None:
    """The program, what it needs, its health check, its user: no pip, no build tool, no source, no
    test.
    """
    there, before = files(root.path), files(base)
    added = {path: found for path, found in there.items() if path not in before}
    own = {path for path in added if not path.startswith("opt/order-monitor/")}
    # A mount point of the build, and the user's entries.
    assert own <= {
        "opt/order-monitor",
        "etc/order-monitor",
        "usr/local/bin/order-monitor-live",
        "etc/pip.conf",
    } | {
        path
        for path in own
        if re.fullmatch(r"etc/(sub)?[ug]id-?|etc/(passwd|group|g?shadow)-", path)
    }
    (site,) = {path.partition("/site-packages/")[0] for path in added if "/site-packages/" in path}
    assert f"{site}/site-packages/order_monitor/tell/page/page.js" in added, (
        "the page is in the wheel"
    )
    names = {Path(path).name for path in added}
    assert not names & {"pip", "hatchling", "monitor.toml", "setuptools"}
    odd = [path for path, found in added.items() if found.st_mode & (stat.S_ISUID | stat.S_ISGID)]
    assert odd == [], "nothing gives rights"
    of_the_user = [
        path for path, found in added.items() if found.st_uid == 10001 or found.st_mode & 0o002
    ]
    assert [path for path in of_the_user if not stat.S_ISLNK(added[path].st_mode)] == [], (
        "it cannot change itself"
    )
    megabytes = (
        sum(found.st_size for found in added.values() if stat.S_ISREG(found.st_mode)) / 1_000_000
    )
    sys.stdout.write(f"\nthe image is {megabytes:.1f} MB larger than its base\n")
    assert megabytes < MOST_MEGABYTES
