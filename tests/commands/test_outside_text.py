"""Text from outside is shown as what it is by every command: nothing in it acts on a terminal or
hides from the eye.
"""

import asyncio
import json
import os
import pty
import re
import signal
import sys
import unicodedata
import uuid
from pathlib import Path
from subprocess import PIPE
from typing import Any

import pytest

from order_monitor.core.answer import Cancelled, Refused, Waiting
from tests.support.commands import RARELY, call, free_port, prepare
from tests.support.market import PLAIN_TABLES, SHOP_TABLES
from tests.support.orders import found
from tests.support.processes import KOD, SIFRE, Panel, panel, running, sent, settings
from tests.support.servers import RawServer, says
from tests.support.servers import answer as http
from tests.support.shops import SHOP, Shop
from tests.support.webhooks import hooked

__all__ = ["panel"]

pytestmark = pytest.mark.long

HOSTILE = "\x1b]0;pwned\x07\x1b[31mred\u202e\u200b\x9b2J\rgone\x08\x7f\u2028\u2066\u3164\U000e0041\nid: forged"
OURS = re.compile(r"\x1b\[[0-9;]*m")


def harmless(*outputs: str) -> None:
    """Nothing but lines of what can be seen."""
    for output in outputs:
        bad = {
            c
            for c in output
            if c != "\n" and unicodedata.category(c) in {"Cc", "Cf", "Cs", "Zl", "Zp"}
        }
        assert not bad | ({"\u3164"} & set(output)), f"{bad} in {output!r}"
        assert not any(line.startswith("id: forged") for line in output.splitlines()), (
            "nor a line of its own"
        )


async def shown(tmp_path: Path, config: str, *arguments: str) -> str:
    """Return what a command prints in all, which is harmless."""
    _, out, err = await call(tmp_path, config, *arguments)
    harmless(out, err)
    assert "Traceback" not in err
    if "--json" in arguments:
        assert json.loads(out) is not None
    return out + err


@pytest.mark.parametrize("answer", [Waiting(HOSTILE), Refused("3", HOSTILE)])
async def test_what_a_provider_says(
    plain_shop: Shop, panel: Panel, tmp_path: Path, answer: Any
) -> None:
    config = settings(plain_shop.dsn, panel.server.url, schedule=RARELY)
    await prepare(plain_shop)
    (order_id,) = await sent(plain_shop, 1)
    panel.answer = answer
    panel.body = f"3|{HOSTILE}" if isinstance(answer, Refused) else None
    for arguments in (("explain", "--now", order_id), ("ask", order_id)):
        assert "pwned" in await shown(tmp_path, config, *arguments)
        assert "pwned" in await shown(tmp_path, config, *arguments, "--json")
    panel.body = f"<title>{HOSTILE}</title>"
    for arguments in (("explain", "--now", order_id), ("ask", order_id)):
        await shown(tmp_path, config, *arguments)
        await shown(tmp_path, config, *arguments, "--json")


async def test_what_a_provider_says_to_the_doctor(plain_shop: Shop, tmp_path: Path) -> None:
    async with RawServer(says(http(f"<title>{HOSTILE}</title>".encode()))) as server:
        config = settings(plain_shop.dsn, f"http://127.0.0.1:{server.port}")
        assert "pwned" in await shown(tmp_path, config, "check")
        assert "pwned" in await shown(tmp_path, config, "check", "--json")


async def test_what_stands_in_the_shops_tables(shop: Shop, panel: Panel, tmp_path: Path) -> None:
    await shop.connection.execute(SHOP_TABLES if shop.spelling is SHOP else PLAIN_TABLES)
    base_url, provider = (
        ('"baseUrl"', '"providerId"') if shop.spelling is SHOP else ("base_url", "provider_id")
    )
    integration = str(uuid.uuid4())
    await shop.connection.execute(
        f"INSERT INTO integrations (id, name, provider, {base_url}, kod, sifre) VALUES ($1::uuid, $2, 'znet', $3, $4, $5)",
        *(integration, f"A{HOSTILE}", panel.server.url, KOD, SIFRE),
    )
    orders = await hooked(shop, "https://shop.example/hook")
    (order_id,) = await sent(shop, 1, reference=f"R{HOSTILE}", note=f"N{HOSTILE}")
    await shop.connection.execute(f"UPDATE product_orders SET {provider} = $1", integration)
    ended = await shop.add()
    await shop.note(ended)
    await orders.record([found(shop.order(ended), Cancelled(HOSTILE))])
    await shop.connection.execute(
        "INSERT INTO order_monitor_review (order_id, kind, detail) VALUES ($1::uuid, $2, $2)",
        order_id,
        HOSTILE,
    )
    more: dict[str, dict[str, Any]] = {
        "provider": {"source": "database", "allow_private": True},
        "database": {"lookup": ["provider_referans"]},
    }
    config = settings(shop.dsn, panel.server.url, schedule=RARELY, **more)
    config = re.sub(r"^(base_url|kod|sifre) = .*\n", "", config, flags=re.MULTILINE)
    listed = json.loads((await call(tmp_path, config, "orders", "--json"))[1])
    assert listed[0]["referans"] == f"R{HOSTILE}", "as data it is what it was"
    told = json.loads((await call(tmp_path, config, "explain", "--json", order_id))[1])
    assert told["order"]["note"] == f"N{HOSTILE}"
    account = listed[0]["account"]
    for arguments in (
        *(
            ("orders",),
            ("explain", order_id),
            ("explain", ended),
            ("review",),
            ("report",),
            ("check",),
        ),
        *(("ask", "--account", account), ("orders", "--stuck")),
    ):
        await shown(tmp_path, config, *arguments)
        await shown(tmp_path, config, *arguments, "--json")
    await shown(tmp_path, config, "orders", "--csv")
    await shown(tmp_path, config, "report", "--csv")
    await shown(tmp_path, config, "explain", "R\x1b")
    await shown(tmp_path, config, "pause", account, "--reason", HOSTILE, "--by", HOSTILE)
    for arguments in (
        ("explain", order_id),
        ("ask", order_id),
        ("resume", account),
        ("resume", account),
    ):
        await shown(tmp_path, config, *arguments)
    await shown(
        tmp_path, config, "resolve", order_id, "--failed", "--reason", HOSTILE, "--by", HOSTILE
    )
    await shown(tmp_path, config, "explain", order_id)


@pytest.mark.parametrize("form", ["json", "console"])
async def test_what_a_daemon_tells(
    plain_shop: Shop, panel: Panel, tmp_path: Path, form: str
) -> None:
    port = free_port()
    more: dict[str, dict[str, Any]] = {
        "health": {"port": port},
        "log": {"format": form},
        "limits": {"gate_after": 1},
    }
    config = settings(plain_shop.dsn, panel.server.url, **more)
    await prepare(plain_shop)
    panel.body = f"<title>{HOSTILE}</title>"
    (order_id,) = await sent(plain_shop, 1)
    async with running(tmp_path, config) as run:
        while b"account.closed" not in run.err:
            assert run.process.returncode is None, run.err
            await asyncio.sleep(0.02)
        await shown(tmp_path, config, "pause", "default", "--reason", HOSTILE, "--by", HOSTILE)
        while b"account.paused" not in run.err:
            await asyncio.sleep(0.02)
        await shown(tmp_path, config, "status")
        assert "pwned" in await shown(tmp_path, config, "status", "--json")
        (tmp_path / "top").mkdir()
        async with running(tmp_path / "top", config, "top", "--every", "0.1s") as watching:
            while watching.out.count(b"accounts") < 2:
                await asyncio.sleep(0.02)
            watching.process.send_signal(signal.SIGINT)
            assert await watching.end() == 0
        harmless(watching.out.decode(), watching.err.decode())
        run.process.terminate()
        assert await run.end() == 0
    harmless(run.err.decode())
    assert run.err.count(b"pwned") >= 3, "what the panel said, and what a person did"
    if form == "json":
        paused = next(event for event in run.events() if event["event"] == "account.paused")
        assert paused["reason"] == HOSTILE
    assert order_id in run.err.decode()


async def test_what_somebody_types(plain_shop: Shop, panel: Panel, tmp_path: Path) -> None:
    """Click repeats an argument that it does not understand."""
    config = settings(plain_shop.dsn, panel.server.url)
    await prepare(plain_shop)
    typed = HOSTILE.replace("\n", " ")
    for arguments in (
        *(
            (typed,),
            ("orders", typed),
            (f"--{typed}",),
            ("orders", "--older-than", typed),
            ("--config", typed, "orders"),
        ),
        *(
            ("explain", typed),
            ("ask", typed),
            ("resume", typed),
            ("pause", typed, "--reason", "x"),
            ("replay", typed),
        ),
        *(("orders", "--account", typed), ("resolve", typed, "--completed"), ("completion", typed)),
    ):
        assert await shown(tmp_path, config, *arguments)


async def test_bytes_that_are_no_text_are_typed(plain_shop: Shop, tmp_path: Path) -> None:
    await prepare(plain_shop)
    (tmp_path / "monitor.toml").write_text(settings(plain_shop.dsn, "http://127.0.0.1:1"))
    for arguments in (
        [b"explain", b"a\xff\x9b"],
        [b"\xff"],
        [b"orders", b"--account", b"\x9b"],
        [b"resume", b"\xff"],
    ):
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "order_monitor",
            *arguments,
            cwd=tmp_path,
            stdout=PIPE,
            stderr=PIPE,
        )
        out, err = await process.communicate()
        assert process.returncode in (1, 2), err
        assert b"Traceback" not in err
        harmless(out.decode(), err.decode())


@pytest.mark.parametrize("command", [("check",), ("orders",)])
async def test_on_a_terminal_our_own_colours_pass_and_no_others(
    plain_shop: Shop, tmp_path: Path, command: tuple[str, ...]
) -> None:
    await sent(plain_shop, 1, reference=f"R{HOSTILE}")
    screen, behind = pty.openpty()
    environ = {**os.environ, "TERM": "xterm-256color", "COLUMNS": "200"}
    environ.pop("NO_COLOR", None)
    told = b""
    async with (
        RawServer(says(http(f"<title>{HOSTILE}</title>".encode()))) as server,
        asyncio.timeout(60),
    ):
        (tmp_path / "monitor.toml").write_text(
            settings(plain_shop.dsn, f"http://127.0.0.1:{server.port}")
        )
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "order_monitor", *command),
            cwd=tmp_path,
            stdout=behind,
            stderr=behind,
            env=environ,
        )
        os.close(behind)
        while chunk := await asyncio.to_thread(read, screen):
            told += chunk
        await process.wait()
    os.close(screen)
    text = told.decode().replace("\r\n", "\n")
    assert "pwned" in text
    assert "\x1b[31mred" not in text
    if command == ("check",):
        assert "\x1b[32mok" in text, "ours"
    harmless(OURS.sub("", text))


def read(screen: int) -> bytes:
    try:
        return os.read(screen, 65_536)
    except OSError:  # the other end is closed
        return b""
