"""People are told, by processes over a real database and a service on loopback."""

import asyncio
import json
import os
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from order_monitor.core.answer import Waiting
from order_monitor.shop.schema.table_config import SETTINGS
from tests.support import launch
from tests.support.commands import RARELY, call, daemon, prepare
from tests.support.mailbox import TOKEN, Mailbox, mailbox
from tests.support.processes import Panel, panel, sent, settings
from tests.support.shops import Shop

__all__ = ["panel"]

pytestmark = pytest.mark.long

QUICK = 10.0
"""How many times as fast the daemons' clocks run: what must last for 30 s is told after three."""


@pytest.fixture
async def box() -> AsyncIterator[Mailbox]:
    async with mailbox() as made:
        yield made


async def notify(tmp_path: Path, config: str, *arguments: str, **environ: str) -> tuple[int, str]:
    """Run the command in a folder with these settings.

    Return its exit code and all that it said.
    """
    (tmp_path / "monitor.toml").write_text(config)
    given = {k: v for k, v in os.environ.items() if not k.startswith("ORDER_MONITOR_")} | environ
    process = await launch.start("notify", *arguments, cwd=tmp_path, env=given)
    async with asyncio.timeout(60):
        out, err = await process.communicate()
    said = (out + err).decode()
    assert "CANARY" not in said
    assert process.returncode is not None
    return process.returncode, said


def told_to(*urls: str, **more: Any) -> str:
    return "[notify]\n" + "\n".join(
        f"{key} = {json.dumps(value)}" for key, value in {"urls": urls, **more}.items()
    )


async def test_a_test_message_says_what_each_service_answered(tmp_path: Path, box: Mailbox) -> None:
    assert await notify(tmp_path, told_to(box.url, language="tr"), "--test") == (
        0,
        "1 (JSON): sent\n",
    )
    ((kind, title, text),) = box.got
    assert (kind, title.endswith(": Deneme"), text) == (
        "info",
        True,
        "order-monitor mesajları buraya ulaşıyor.",
    )
    async with mailbox() as broken:
        broken.status = 403
        code, said = await notify(
            tmp_path,
            told_to(
                box.url, broken.url, f"json://user:{TOKEN}@127.0.0.1:1/{TOKEN}", f"xyz://{TOKEN}"
            ),
            "--test",
        )
    lines = said.splitlines()
    assert (code, lines[0], lines[3]) == (
        1,
        "1 (JSON): sent",
        "4: failed: Apprise does not know such an address",
    )
    assert lines[1].startswith("2 (JSON): failed: ")
    assert "error=403" in lines[1]
    assert lines[2].startswith("3 (JSON): failed: ")


async def test_nobody_to_tell_or_a_mistake_is_said(tmp_path: Path) -> None:
    assert await notify(tmp_path, "", "--test") == (
        1,
        "order-monitor: notify.urls is empty: no message can be sent\n",
    )
    assert (await notify(tmp_path, "", "--dead"))[0] == 0, (
        "where nobody is to be told, there is nothing to do"
    )
    code, said = await notify(tmp_path, told_to("CANARY"), "--test")
    assert (code, "notify.urls: give addresses as Apprise takes them" in said) == (2, True)
    for wrong in ((), ("--test", "--dead"), ("--test", "--unit", "x")):
        assert (await notify(tmp_path, "", *wrong))[0] == 2


async def test_death_is_told_whatever_is_wrong_with_the_settings_and_without_the_database(
    tmp_path: Path, box: Mailbox
) -> None:
    """A mistake in the settings is what the daemon died of: systemd says how."""
    secrets = tmp_path / "secrets"
    secrets.mkdir()
    (secrets / "order_monitor_notify__urls").write_text(f"{box.url}\n{box.url}/second\n")
    (secrets / "order_monitor_database__dsn").write_text("nonsense")
    given = {
        "ORDER_MONITOR_SECRETS_DIR": str(secrets),
        "MONITOR_UNIT": "order-monitor@1.service",
        "MONITOR_SERVICE_RESULT": "exit-code",
        "MONITOR_EXIT_CODE": "exited",
        "MONITOR_EXIT_STATUS": "2",
    }
    code, said = await notify(
        tmp_path, "[schedule]\nbasis = 5\n[provider]\nsource = 'Database'\n", "--dead", **given
    )
    assert (code, said) == (0, "1 (JSON): sent\n2 (JSON): sent\n")
    assert [(kind, text) for kind, _, text in box.got] == 2 * [
        (
            "failure",
            "order-monitor@1.service has failed (exit-code exited 2). See: journalctl -u order-monitor@1.service",
        )
    ]
    code, _ = await notify(
        tmp_path,
        told_to(box.url),
        "--dead",
        "--unit",
        "order-monitor.service",
        MONITOR_EXIT_CODE="a b\n",
    )
    assert (
        box.texts[2]
        == "order-monitor.service has failed (no cause given). See: journalctl -u order-monitor.service"
    )


@pytest.mark.wall_clock
async def test_a_daemon_tells_once_and_a_restart_tells_nothing_again(
    plain_shop: Shop, panel: Panel, box: Mailbox, tmp_path: Path
) -> None:
    panel.body = "<html>Bakımdayız</html>"
    config = settings(
        plain_shop.dsn, panel.server.url, notify={"urls": [box.url]}, limits={"gate_after": 1}
    )
    await prepare(plain_shop)
    await sent(plain_shop, 3)
    async with daemon(plain_shop, tmp_path, config, rate=QUICK) as run:
        await box.has_got(1)
        await run.event("notify.sent")
        await asyncio.sleep(0.3)
        assert "CANARY" not in (run.out + run.err).decode()
    first = list(box.texts)
    assert any("Accounts closed: 1 of 1" in text for text in first)
    async with daemon(plain_shop, tmp_path, config, rate=QUICK) as run:
        await run.event("account.closed")
        await asyncio.sleep(2)
    begun = [
        line for text in box.texts for line in text.splitlines() if not line.startswith("Still")
    ]
    assert len(begun) == len(set(begun)), "each thing once"
    kept = await plain_shop.connection.fetchval(
        f"SELECT value FROM {SETTINGS} WHERE name = 'notify'"
    )
    assert "CANARY" not in kept


@pytest.mark.wall_clock
async def test_of_two_daemons_one_tells(
    plain_shop: Shop, panel: Panel, box: Mailbox, tmp_path: Path
) -> None:
    panel.answer = Waiting("")
    config = settings(
        plain_shop.dsn,
        panel.server.url,
        notify={"urls": [box.url]},
        schedule=RARELY,
        cluster={"enabled": True},
    )
    await prepare(plain_shop)
    (order,) = await sent(plain_shop, 1)
    await plain_shop.connection.execute(
        "INSERT INTO order_monitor_review (order_id, kind) VALUES ($1::text::uuid, 'pin_missing')",
        order,
    )
    (tmp_path / "second").mkdir()
    async with (
        daemon(plain_shop, tmp_path, config, rate=QUICK) as one,
        daemon(plain_shop, tmp_path / "second", config, rate=QUICK) as other,
    ):
        await box.has_got(1)
        await asyncio.sleep(2)
        sent_by = [
            event
            for run in (one, other)
            for event in run.events()
            if event["event"] == "notify.sent"
        ]
    assert box.texts == ["Waiting for a person (order-monitor review): 1"]
    assert [event["kinds"] for event in sent_by] == [["reviews"]]


async def test_a_service_that_hangs_is_in_nobodys_way(
    plain_shop: Shop, panel: Panel, box: Mailbox, tmp_path: Path
) -> None:
    """Orders go on meanwhile, and a stop does not wait for it."""
    panel.body = "<html></html>"
    config = settings(
        plain_shop.dsn, panel.server.url, notify={"urls": [box.url]}, limits={"gate_after": 1}
    )
    await prepare(plain_shop)
    (order,) = await sent(plain_shop, 1)
    box.hold.clear()
    async with daemon(plain_shop, tmp_path, config, rate=QUICK):
        async with asyncio.timeout(30):
            while not box.asked:
                await asyncio.sleep(0.01)
        panel.body = None
        async with asyncio.timeout(30):
            while (await plain_shop.row(order))["external_status"] != "completed":
                await asyncio.sleep(0.02)
        began = time.monotonic()
    assert time.monotonic() - began < 5


async def test_a_pass_tells_too_and_the_next_one_not_again(
    plain_shop: Shop, panel: Panel, box: Mailbox, tmp_path: Path
) -> None:
    panel.answer = Waiting("")
    config = settings(
        plain_shop.dsn,
        panel.server.url,
        notify={"urls": [box.url], "language": "ar"},
        schedule=RARELY,
    )
    await prepare(plain_shop)
    (order,) = await sent(plain_shop, 1)
    await plain_shop.connection.execute(
        "INSERT INTO order_monitor_review (order_id, kind) VALUES ($1::text::uuid, 'pin_missing')",
        order,
    )
    for _ in range(2):
        assert (await call(tmp_path, config, "--once", "--quiet"))[0] == 0
    assert box.texts == ["بانتظار قرار شخص (order-monitor review): 1"]
    assert (await call(tmp_path, config, "review", "--close", order, "--reason", "x"))[0] == 0
    for _ in range(2):
        assert (await call(tmp_path, config, "--once", "--quiet"))[0] == 0
    assert box.texts[1:] == ["انتهى: بانتظار قرار شخص (order-monitor review): 1"]


async def test_check_says_whether_messages_can_be_sent(
    plain_shop: Shop, panel: Panel, tmp_path: Path
) -> None:
    await prepare(plain_shop)
    config = settings(
        plain_shop.dsn, panel.server.url, notify={"urls": ["json://127.0.0.1:1", "xyz://CANARY"]}
    )
    code, out, _ = await call(tmp_path, config, "check", "--json")
    lines = [line for line in json.loads(out) if line["subject"] == "notify.urls"]
    assert [(line["level"], line["text"]) for line in lines] == [
        ("error", "monitor.toml: notify.urls: number 2: Apprise does not know such an address"),
        ("ok", "1 of 2 can be tried: order-monitor notify --test"),
    ]
    assert (code, "CANARY" in out) == (1, False)
