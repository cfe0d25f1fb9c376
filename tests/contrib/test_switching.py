"""The guide from Celery to order-monitor, followed exactly while orders come in: money moves once.

Differences from a real shop: addresses, a shorter minute, and a `systemctl` that controls this
test's processes.
"""

import asyncio
import hashlib
import os
import re
import shutil
import subprocess
import sys
import time
import uuid
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import psycopg
import pytest

from order_monitor.core.answer import AboutOrder, Cancelled, Completed, Waiting
from order_monitor.core.pin import Pin
from order_monitor.demo.postgres import EmbeddedPostgres
from order_monitor.demo.standin import render
from tests.contrib.conftest import SCHEMA
from tests.contrib.stage import Stage
from tests.faults.panel import FaultyPanel
from tests.support import databases
from tests.support.readme import ROOT

ORDERS = int(os.environ.get("SWITCHING_ORDERS", "200"))
"""``make money`` takes 2,000."""

REDIS = shutil.which("redis-server")
GUIDE = (ROOT / "docs" / "switching.md").read_text("utf-8")
ARABIC = (ROOT / "docs" / "ar" / "switching.md").read_text("utf-8")
SHOP = Path(__file__).parent / "shop"
MORE_TOML = """
[schedule]
first_check = 0.2
base = 0.3
cap = 1
scan_interval = 0.2
await_pin = 0

[limits]
calls_per_second = 1000

[health]
port = 0
"""
DISPATCH = """
from django.db.models.functions import Now

from order_monitor.contrib.django import new_reference
from orders.models import ProductOrder
from orders.tasks import check_order_status
from orders.znet import send_to_znet


def dispatch(order):
    referans = new_reference()
    send_to_znet(order, referans)
    ProductOrder.objects.filter(pk=order.pk).update(provider_referans=referans, external_status="sent", sent_at=Now())
    check_order_status.apply_async((str(order.pk), str(order.tenant_id)), countdown=60)
"""
WEB = """
import signal, sys, time
import shop.celery
from orders.dispatch import ProductOrder, dispatch

signal.signal(signal.SIGTERM, lambda *_: globals().update(stopping=True))
stopping = False
while not stopping:
    for order in ProductOrder.objects.filter(external_status="not_sent", status="pending")[:20]:
        if not stopping:
            dispatch(order)
    time.sleep(0.05)
"""
CELERY = "import django; django.setup()\nfrom orders.tasks import app\n"
MANAGE = "import sys\nfrom django.core.management import execute_from_command_line\nexecute_from_command_line(sys.argv)\n"
SYSTEMCTL = """
import os, socket, sys
with socket.socket(socket.AF_UNIX) as manager:
    manager.connect(os.environ["SYSTEMCTL"])
    manager.sendall(" ".join(sys.argv[1:]).encode() + b"\\n")
    sys.exit(int(manager.makefile().readline()))
"""
END = "SELECT count(*) FROM product_orders WHERE status = 'pending'"


class Oracle(FaultyPanel):
    """Knows an order's end only by its reference, and reports it some time after the first
    question.

    Cancels so few that the brake of a shop without history stays open: above half of the first 20.
    """

    def __init__(self) -> None:
        super().__init__(latency=0.01)
        self.first: dict[str, float] = {}

    @staticmethod
    def end(reference: str) -> AboutOrder:
        number = hashlib.sha256(reference.encode()).digest()[0]
        if number < 40:
            return Cancelled("Oyuncu bulunamadi")
        return Completed(Pin(f"AB{reference}-XZ") if number < 220 else None, "tamam")

    def _truth(self, reference: str) -> bytes:
        after = hashlib.sha256(reference.encode()).digest()[1] / 100
        is_over = time.time() >= self.first.setdefault(reference, time.time()) + after
        return render(self.end(reference) if is_over else Waiting("bekliyor")).encode()


class Follower:
    """Follows the guide, block by block."""

    def __init__(self, stage: Stage, folder: Path, redis: str) -> None:
        self.stage = stage
        self.folder = folder
        self.redis = redis
        self.services: dict[str, asyncio.subprocess.Process] = {}
        self.done: list[str] = []
        self.consumer: list[str] = []
        self.changed: list[int] = []
        self.is_switching = asyncio.Event()
        self._lay()

    def _lay(self) -> None:
        """Return the shop's project as the plan left it."""
        for name in ("shop", "orders", "bin"):
            (self.folder / name).mkdir()
        settings = (SHOP.parent / "project.py").read_text().partition("\nORDER_MONITOR")[0]
        settings = settings.replace('"order_monitor.contrib.django",', "").replace(
            "tests.contrib.shop", "orders"
        )
        files = {
            "manage.py": MANAGE,
            "web.py": "import django; django.setup()\n" + WEB,
            "shop/__init__.py": "",
            "shop/settings.py": settings.replace("tests.contrib.urls", "shop.urls"),
            "shop/urls.py": "urlpatterns = []\n",
            "shop/celery.py": CELERY,
            "orders/__init__.py": "",
            "orders/dispatch.py": DISPATCH,
            "orders/znet.py": "def send_to_znet(order, referans):\n    pass\n",
            **{
                f"orders/{n}": self._own((SHOP / n).read_text())
                for n in ("models.py", "money.py", "tasks.py")
            },
        }
        for name, text in files.items():
            (self.folder / name).write_text(self._faster(text), "utf-8")
        python = f'#!/bin/sh\nexec "{sys.executable}"'
        (self.folder / "bin" / "stub.py").write_text(SYSTEMCTL)
        for name, line in {
            "python": f'{python} "$@"',
            "order-monitor": f'{python} -m order_monitor "$@"',
            "celery": f'{python} -m celery "$@"',
            "systemctl": f'{python} {self.folder}/bin/stub.py "$@"',
            "sudo": '#!/bin/sh\nexec "$@"',
            "pip": "#!/bin/sh\nexit 0",
        }.items():
            (self.folder / "bin" / name).write_text(line + "\n")
            (self.folder / "bin" / name).chmod(0o755)

    @staticmethod
    def _own(text: str) -> str:
        return text.replace("tests.contrib.shop", "orders")

    @staticmethod
    def _faster(text: str) -> str:
        return text.replace("countdown=60", "countdown=0.5")

    @property
    def env(self) -> dict[str, str]:
        return {
            **os.environ,
            "PATH": f"{self.folder}/bin:{os.environ['PATH']}",
            "PYTHONPATH": f"{self.folder}:{ROOT}",
            "DJANGO_SETTINGS_MODULE": "shop.settings",
            "SHOP_DSN": self.stage.dsn,
            "SHOP_PANEL": self.stage.panel.url,
            "SHOP_REDIS": self.redis,
            "CELERY_SECOND": "0.05",
            "SYSTEMCTL": str(self.folder / "systemctl"),
            "COVERAGE_PROCESS_START": "",
            "COVERAGE_PROCESS_CONFIG": "",
        }

    # --- services

    def command(self, name: str) -> list[str]:
        """Return a service's command."""
        python = [sys.executable]
        return {
            "shop-web": [*python, "web.py"],
            "shop-celery": [
                *python,
                "-m",
                "celery",
                "-A",
                "shop",
                "worker",
                # The shop's task takes no lock: of two threads with one order each moves its money.
                "--pool=threads",
                "-c",
                "1",
                "--without-mingle",
            ],
            "shop-beat": [
                *python,
                "-m",
                "celery",
                "-A",
                "shop",
                "beat",
                "-s",
                str(self.folder / "beat"),
            ],
            "shop-order-events": [*python, *self.consumer[1:]],
            "order-monitor": [*python, "-m", "order_monitor"],
        }[name]

    async def start(self, name: str) -> None:
        with (self.folder / f"{name}.log").open("ab") as log:
            self.services[name] = await asyncio.create_subprocess_exec(
                *self.command(name), cwd=self.folder, env=self.env, stdout=log, stderr=log
            )

    async def stop(self, name: str) -> None:
        process = self.services.pop(name)
        assert process.returncode is None, f"{name} was not running: {self.said(name)}"
        process.terminate()
        await asyncio.wait_for(process.wait(), 40)

    def said(self, name: str) -> str:
        return (self.folder / f"{name}.log").read_text("utf-8", "replace")[-3000:]

    @asynccontextmanager
    async def manager(self) -> AsyncIterator[None]:
        """Serve `systemctl`, and end all processes afterwards."""

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            verb, *words = (await reader.readline()).decode().split()
            name = words[-1]
            if verb in ("stop", "restart", "disable"):
                await self.stop(name)
            if verb in ("start", "restart", "enable"):
                await self.start(name)
            writer.write(b"0\n")
            await writer.drain()
            writer.close()

        server = await asyncio.start_unix_server(serve, self.folder / "systemctl")
        try:
            yield
        finally:
            server.close()
            for process in self.services.values():
                with suppress(ProcessLookupError):
                    process.kill()
                await process.wait()

    # --- the guide

    async def follow(self, text: str, before: Callable[[str, str], Any] | None = None) -> None:
        """Run all blocks of one section of the guide, in order."""
        for language, block in re.findall(r"^```(\w+)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL):
            if before is not None:
                await before(language, block)
            runs = {
                "sh": self._sh,
                "toml": self._toml,
                "python": self.python,
                "ini": self._ini,
                "sql": self._sql,
            }
            await runs[language](block)
            self.done.append(language)

    async def _sh(self, block: str) -> None:
        if "stop shop-beat" in block:
            self.is_switching.set()
        process = await asyncio.create_subprocess_exec(
            "bash", "-euo", "pipefail", "-c", block,
            cwd=self.folder, env=self.env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip
        said, _ = await asyncio.wait_for(process.communicate(), 90)
        assert process.returncode == 0, f"{block}\n{said.decode()[-3000:]}"

    async def _toml(self, block: str) -> None:
        text, count = re.subn(r'dsn = ".*"', f'dsn = "{self.stage.dsn}"', block)
        text, more = re.subn(
            r"\[provider\]\n",
            "[provider]\nallow_http = true\nallow_private = true\nbalance_interval = 0\n",
            text,
        )
        assert (count, more) == (1, 1)
        self.stage.toml.write_text(text + MORE_TOML)

    async def python(self, block: str) -> None:
        path = self.folder / block.partition("\n")[0].removeprefix("# ")
        if path.name == "settings.py":
            block = path.read_text() + block
        path.write_text(self._faster(block), "utf-8")

    async def _ini(self, block: str) -> None:
        (line,) = re.findall(r"^ExecStart=\S*/bin/python (.*)$", block, re.MULTILINE)
        self.consumer = ["python", *line.split()]

    async def _sql(self, block: str) -> None:
        async with await psycopg.AsyncConnection.connect(self.stage.dsn, autocommit=True) as own:
            self.changed.append((await own.execute(block.encode())).rowcount)


@pytest.fixture
def redis(tmp_path: Path) -> Iterator[str]:
    if REDIS is None:
        pytest.skip("redis-server is not installed: apt-get install redis-server")
    address = tmp_path / "redis"
    process = subprocess.Popen(
        [REDIS, "--port", "0", "--unixsocket", str(address), "--save", "", "--dir", str(tmp_path)],
        stdout=subprocess.DEVNULL,
    )
    end = time.monotonic() + 60
    while not address.exists():
        assert time.monotonic() < end
        time.sleep(0.02)
    yield f"redis+socket://{address}"
    process.terminate()
    process.wait(20)


@pytest.fixture
def database(server: EmbeddedPostgres) -> Iterator[tuple[str, str]]:
    """The shop before any change, and the id of its account."""
    name, account = databases.create(server), str(uuid.uuid4())
    with psycopg.connect(server.dsn(name), autocommit=True) as own:
        own.execute(SCHEMA)
    yield server.dsn(name), account
    databases.drop(server, name)


async def half_done(stage: Stage, oracle: Oracle) -> int:
    """Orders that Celery has left between its two steps: the task or its time limit ended them and
    moved no money.
    """
    ended, limited = await stage.order(5, sent=False), await stage.order(5, sent=False)
    async with await psycopg.AsyncConnection.connect(stage.dsn, autocommit=True) as own:
        for i, order_id in enumerate((*ended, *limited)):
            reference = next(
                r for r in (f"17800000{i:02d}{n:06d}" for n in range(1000)) if _fits(oracle, r, i)
            )
            is_ended = order_id in ended
            end = oracle.end(reference)
            pin = end.pin.reveal() if is_ended and isinstance(end, Completed) and end.pin else None
            word = "failed" if isinstance(end, Cancelled) or not is_ended else "done"
            await own.execute(
                'UPDATE product_orders SET provider_referans = %s, "externalStatus" = %s, "pinCode" = %s, '
                '"sentAt" = clock_timestamp() - %s::interval, "lastMessage" = %s WHERE id = %s',
                [
                    reference,
                    word,
                    pin,
                    "1h" if is_ended else "25h",
                    None if is_ended else "Timeout: No response after 24h",
                    order_id,
                ],
            )
    return len(ended) + len(limited)


def _fits(oracle: Oracle, reference: str, number: int) -> bool:
    """Some for each kind of end, all of which have ended at the provider."""
    oracle.first[reference] = 0
    return isinstance(oracle.end(reference), Cancelled) == bool(number % 2)


@pytest.mark.long
@pytest.mark.untraced
@pytest.mark.timeout(240 + ORDERS)
async def test_the_guide_moves_all_money_once(
    database: tuple[str, str], redis: str, tmp_path: Path
) -> None:
    pytest.importorskip("celery")
    dsn, account = database
    folder = tmp_path / "project"
    folder.mkdir()
    oracle = Oracle()
    async with oracle:
        stage = Stage(None, dsn, folder / "monitor.toml", oracle, 7, provider=account)
        await stage.open_wallets(20)
        follower = Follower(stage, folder, redis)
        async with (
            await psycopg.AsyncConnection.connect(dsn, autocommit=True) as own,
            follower.manager(),
        ):
            await own.execute(
                'INSERT INTO integrations (id, "tenantId", name, provider, "baseUrl", kod, sifre) '
                "VALUES (%s, gen_random_uuid(), 'main', 'znet', %s, 'kod', 'sifre')",
                [account, oracle.url],
            )
            planted = await half_done(stage, oracle)
            for name in ("shop-web", "shop-celery", "shop-beat"):
                await follower.start(name)
            await stage.order(20, sent=False)
            await until(own, "SELECT count(*) FROM wallet_entries WHERE told_by = 'celery'", 10)
            guide, back = GUIDE.split("\n## Going back\n")
            feeding = asyncio.create_task(feed(stage, ORDERS - 20, follower))
            await follower.follow(guide)
            await feeding
            await until(own, END, 0, seconds=180 + ORDERS / 4)
            assert follower.changed[0] == follower.changed[1] >= planted
            await compare(stage, own)
            counted = await own.execute(
                "SELECT told_by = 'celery', count(*) FROM wallet_entries GROUP BY 1"
            )
            by = {row[0]: row[1] for row in await counted.fetchall()}
            assert min(by[True], by[False]) >= 10, by
            assert set(follower.done) == {"sh", "toml", "python", "ini", "sql"}
            # And back, with some orders still open.
            await stage.order(10, sent=False)
            await until(
                own, "SELECT count(*) FROM product_orders WHERE \"externalStatus\" = 'not_sent'", 0
            )
            await follower.follow(back, before=dispatch_of_step_4(follower))
            await stage.order(10, sent=False)
            await until(own, END, 0)
            await compare(stage, own)
            later = await (
                await own.execute("SELECT count(*) FROM wallet_entries WHERE told_by = 'celery'")
            ).fetchone()
            assert later is not None
            assert later[0] >= by[True] + 10
            assert follower.services.keys() == {"shop-web", "shop-celery", "shop-beat"}
            sys.stdout.write(
                f"{ORDERS} orders: {by[True]} movements by Celery, {by[False]} by the consumer\n"
            )


def dispatch_of_step_4(follower: Follower) -> Callable[[str, str], Any]:
    (block,) = [
        b
        for b in re.findall(r"^```python\n(.*?)^```$", GUIDE, re.MULTILINE | re.DOTALL)
        if "apply_async" in b
    ]

    async def put_back(language: str, text: str) -> None:
        if "restart shop-web" in text:
            await follower.python(block)

    return put_back


async def feed(stage: Stage, count: int, follower: Follower) -> None:
    """Orders come in continuously: half of them before Celery is switched off."""
    batch = max(1, count // 60)
    for number in range(0, count, batch):
        if number >= count // 2:
            await follower.is_switching.wait()
        await stage.order(min(batch, count - number), sent=False)
        await asyncio.sleep(0.25)


async def until(own: Any, sql: str, wanted: int, *, seconds: float = 60) -> None:
    """Wait for a count: for zero, or for at least this many."""
    end, count = time.monotonic() + seconds, -1
    while time.monotonic() < end:
        count = (await (await own.execute(sql)).fetchone())[0]
        if count == 0 if wanted == 0 else count >= wanted:
            return
        await asyncio.sleep(0.1)
    left = await own.execute(
        'SELECT o."externalStatus", o.provider_referans IS NOT NULL, r.kind, count(*) FROM product_orders o '
        "LEFT JOIN order_monitor_review r ON r.order_id = o.id WHERE o.status = 'pending' GROUP BY 1, 2, 3"
    )
    pytest.fail(f"{sql}: {count}: {await left.fetchall()}")


async def compare(stage: Stage, own: Any) -> None:
    """Compare each row with the provider's decision for its reference."""
    rows = await (
        await own.execute(
            "SELECT id::text, provider_referans FROM product_orders WHERE provider_referans IS NOT NULL"
        )
    ).fetchall()
    await stage.compare({order_id: Oracle.end(reference) for order_id, reference in rows})


def test_both_languages_say_the_same() -> None:
    """The same commands, word for word, in the same order."""

    def blocks(text: str) -> list[tuple[str, str]]:
        return re.findall(r"^```(\w+)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)

    assert blocks(ARABIC) == blocks(GUIDE)
    assert len(re.findall(r"^## ", ARABIC, re.MULTILINE)) == len(
        re.findall(r"^## ", GUIDE, re.MULTILINE)
    )
