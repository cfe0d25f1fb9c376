"""Many orders are decided at once, each as one alone would be: by processes over a real database."""

import asyncio
import os
import pty
import sys
import uuid
from pathlib import Path
from typing import Any

import pytest

from order_monitor.commands.resolve_many import Many
from order_monitor.core.order import Order
from order_monitor.tell.redactor import Redactor
from tests.support.commands import RARELY, call, events, prepare
from tests.support.market import PLAIN_TABLES
from tests.support.processes import KOD, ROOT, SIFRE, sent, settings
from tests.support.shops import Shop

pytestmark = pytest.mark.long

NOBODY = "http://127.0.0.1:1"
FAIL = ("--failed", "--reason", "never got there", "--by", "Ayşe")


async def reviewed(shop: Shop, kind: str, *order_ids: str) -> None:
    for order_id in order_ids:
        await shop.connection.execute(
            "INSERT INTO order_monitor_review (order_id, kind, account) VALUES ($1, $2, 'default')",
            *(uuid.UUID(order_id), kind),
        )


async def statuses(shop: Shop, *order_ids: str) -> list[str]:
    return [(await shop.row(order_id))["external_status"] for order_id in order_ids]


async def test_by_kind_each_has_its_own_event_as_one_alone(
    plain_shop: Shop, tmp_path: Path
) -> None:
    shop, config = plain_shop, settings(plain_shop.dsn, NOBODY, schedule=RARELY)
    await prepare(shop)
    a, b, c, alone = await sent(shop, 4)
    await reviewed(shop, "not_known", a, b, alone)
    await reviewed(shop, "unknown_state", c)
    assert (await call(tmp_path, config, "resolve", alone, *FAIL))[0] == 0
    code, out, _ = await call(
        tmp_path, config, "resolve", "--kind", "not_known", *FAIL, "--dry-run"
    )
    lines = out.splitlines()
    assert (code, {line.partition(":")[0] for line in lines[:-1]}) == (0, {a, b})
    assert lines[-1] == "2 orders; nothing was written (--dry-run)"
    for wrong in ((), ("--confirm", "3")):
        code, out, err = await call(
            tmp_path, config, "resolve", "--kind", "not_known", *FAIL, *wrong
        )
        assert (code, out, "2 orders" in err, "nothing was written" in err) == (1, "", True, True)
    assert len(await events(shop)) == 1
    code, out, err = await call(
        tmp_path, config, "resolve", "--kind", "not_known", *FAIL, "--confirm", "2"
    )
    assert (code, err) == (0, "")
    assert set(out.splitlines()) == {
        f"{a}: now 'failed', by Ayşe",
        f"{b}: now 'failed', by Ayşe",
        "2 orders: 2 decided, 0 not",
    }
    assert await statuses(shop, a, b, c) == ["failed", "failed", "sent"]
    told = await events(shop)
    own = ("id", "uid", "order_id", "decided_at", "reference", "sent_at")
    one, *others = ({k: v for k, v in event.items() if k not in own} for event in told)
    assert others == [one, one], "as one alone"
    rest = await shop.connection.fetch(
        "SELECT kind FROM order_monitor_review WHERE closed_at IS NULL"
    )
    assert [row["kind"] for row in rest] == ["unknown_state"]


SENDS_ANEW = """
    CREATE FUNCTION sends_anew() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
    UPDATE product_orders SET {} WHERE id = '{}' AND external_status = 'sent'; RETURN NULL; END $$;
    CREATE TRIGGER sends_anew AFTER UPDATE OF external_status ON product_orders
    FOR EACH ROW EXECUTE FUNCTION sends_anew()
"""


@pytest.mark.parametrize("change", ["provider_referans = 'again'", "sent_at = now()"])
async def test_one_that_was_sent_anew_since_they_were_counted_is_not_decided(
    plain_shop: Shop, tmp_path: Path, change: str
) -> None:
    """What a person has counted and confirmed was another dispatch of it."""
    shop, config = plain_shop, settings(plain_shop.dsn, NOBODY, schedule=RARELY)
    await prepare(shop)
    first, second = await sent(shop, 2)
    await shop.connection.execute(
        "UPDATE product_orders SET sent_at = sent_at - interval '1 h' WHERE id = $1::uuid", first
    )
    await reviewed(shop, "not_known", first, second)
    await shop.connection.execute(SENDS_ANEW.format(change, second))
    code, out, err = await call(
        tmp_path, config, "resolve", "--kind", "not_known", *FAIL, "--confirm", "2"
    )
    assert await statuses(shop, first, second) == ["failed", "sent"]
    assert (code, out.splitlines()[-1]) == (1, "2 orders: 1 decided, 1 not")
    assert f"{second}: not decided: it was sent again" in err


async def test_where_there_is_none_nothing_is_decided(plain_shop: Shop, tmp_path: Path) -> None:
    config = settings(plain_shop.dsn, NOBODY, schedule=RARELY)
    await prepare(plain_shop)
    (order,) = await sent(plain_shop, 1)
    for confirm, code in (
        ((), 0),
        (("--confirm", "0"), 0),
        (("--confirm", "1"), 1),
        (("--dry-run",), 0),
    ):
        assert (await call(tmp_path, config, "resolve", "--kind", "not_known", *FAIL, *confirm))[
            0
        ] == code
    assert await statuses(plain_shop, order) == ["sent"]


async def test_by_age_and_account_only_those_that_are_all_of_it(
    plain_shop: Shop, tmp_path: Path
) -> None:
    shop = plain_shop
    await shop.connection.execute(PLAIN_TABLES)
    config = settings(
        shop.dsn, NOBODY, provider={"source": "database", "allow_private": True}, schedule=RARELY
    )
    await prepare(shop)
    now = await shop.connection.fetchval("SELECT extract(epoch FROM clock_timestamp())::float8")
    first, second = (str(uuid.uuid4()) for _ in range(2))
    for n, account in enumerate((first, second)):
        await shop.connection.execute(
            "INSERT INTO integrations (id, name, provider, base_url, kod, sifre) VALUES ($1::uuid, $2, 'znet', $3, $4, $5)",
            *(account, f"Bayi {n}", NOBODY, KOD, SIFRE),
        )
    ages = ((3 * 86_400, first), (3600, first), (3 * 86_400, second))
    old, young, others = [await shop.add(sent_at=now - age) for age, _ in ages]
    for order, (_, account) in zip((old, young, others), ages, strict=True):
        await shop.connection.execute(
            "UPDATE product_orders SET provider_id = $2 WHERE id = $1::uuid", order, account
        )
    code, out, err = await call(
        tmp_path,
        config,
        "resolve",
        "--account",
        f"Bayi 0-{first[:8]}",
        "--older-than",
        "2d",
        *FAIL,
        "--confirm",
        "1",
    )
    assert (code, out.splitlines()) == (
        0,
        [f"{old}: now 'failed', by Ayşe", "1 order: 1 decided, 0 not"],
    ), err
    assert await statuses(shop, old, young, others) == ["failed", "sent", "sent"]
    code, _, err = await call(
        tmp_path, config, "resolve", "--account", "nobody", *FAIL, "--confirm", "1"
    )
    assert (code, "there is no account 'nobody'" in err) == (1, True)


async def test_what_cannot_be_decided_is_said_and_stops_no_other(
    plain_shop: Shop, tmp_path: Path
) -> None:
    """A failure is never written over a PIN, an ended order stays, a row that somebody holds is
    left: as for one alone.
    """
    shop, config = plain_shop, settings(plain_shop.dsn, NOBODY, schedule=RARELY)
    await prepare(shop)
    a, with_pin, ended, b = await sent(shop, 4)
    await shop.connection.execute(
        "UPDATE product_orders SET pin_code = 'PIN-1' WHERE id = $1::uuid", with_pin
    )
    await shop.connection.execute(
        "UPDATE product_orders SET external_status = 'completed' WHERE id = $1::uuid", ended
    )
    await reviewed(shop, "not_known", a, with_pin, ended, b)
    code, out, err = await call(
        tmp_path, config, "resolve", "--kind", "not_known", *FAIL, "--confirm", "4"
    )
    assert code == 1
    assert out.splitlines()[-1] == "4 orders: 2 decided, 2 not"
    assert {line.partition(":")[0] for line in err.splitlines()} == {with_pin, ended}
    assert await statuses(shop, a, with_pin, ended, b) == ["failed", "sent", "completed", "failed"]
    assert "PIN-1" not in out + err


async def test_a_review_that_was_closed_meanwhile_is_decided_no_more(
    plain_shop: Shop, tmp_path: Path
) -> None:
    """On the locked row: it was understood after all between the count and the decision."""
    from order_monitor.app import database_of
    from order_monitor.commands.exits import NotDoneError
    from order_monitor.commands.resolve import Decision, resolve_one
    from order_monitor.commands.session import Session
    from order_monitor.settings.loading import load

    shop = plain_shop
    await prepare(shop)
    (order,) = await sent(shop, 1)
    await reviewed(shop, "not_known", order)
    (tmp_path / "monitor.toml").write_text(settings(shop.dsn, NOBODY))
    given = load(tmp_path / "monitor.toml", {})
    database = database_of(given)
    decision = Decision("failed", "x", "Ayşe", kind="not_known")
    locked = asyncio.Event()

    async def close_it() -> None:
        async with shop.connection.transaction():
            await shop.connection.execute(
                "SELECT 1 FROM product_orders WHERE id = $1::uuid FOR UPDATE", order
            )
            locked.set()
            await asyncio.sleep(0.6)
            await shop.connection.execute("UPDATE order_monitor_review SET closed_at = now()")

    closing = asyncio.create_task(close_it())
    await locked.wait()
    try:
        with pytest.raises(NotDoneError, match="nothing of kind not_known is open"):
            await resolve_one(Session(given, database, Redactor()), order, decision)
    finally:
        await closing
        await database.close()
    assert await statuses(shop, order) == ["sent"]
    assert await events(shop) == []


@pytest.mark.parametrize(
    "arguments",
    [
        (),
        (str(uuid.UUID(int=7)), "--kind", "not_known"),
        (str(uuid.UUID(int=7)), "--confirm", "1"),
        (str(uuid.UUID(int=7)), "--dry-run"),
        ("--kind", "nonsense"),
        ("--kind", "pin_missing", "--pin-stdin"),
        ("--kind", "pin_duplicate", "--same-as", "x"),
        ("--kind", "not_known", "--confirm", "-1"),
        ("--older-than", "soon"),
    ],
)
async def test_bad_usage_is_said(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    code, out, err = await call(
        tmp_path, settings("postgresql://h/n", NOBODY), "resolve", "--completed", *arguments
    )
    assert (code, out) == (2, "")
    assert err


async def on_terminal(folder: Path, typed: bytes, *arguments: str) -> tuple[int, str]:
    """Run the program with a terminal as its standard input, on which something is typed."""
    ours, theirs = pty.openpty()
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "order_monitor", *arguments),
        cwd=folder,
        stdin=theirs,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    os.close(theirs)
    os.write(ours, typed)
    async with asyncio.timeout(60):
        out, _ = await process.communicate()
    os.close(ours)
    assert process.returncode is not None
    return process.returncode, out.decode()


async def test_on_a_terminal_the_count_is_typed(plain_shop: Shop, tmp_path: Path) -> None:
    shop = plain_shop
    await prepare(shop)
    orders = await sent(shop, 2)
    await reviewed(shop, "not_known", *orders)
    (tmp_path / "monitor.toml").write_text(settings(shop.dsn, NOBODY))
    wanted = ("resolve", "--kind", "not_known", *FAIL)
    for typed in (b"y\n", b"1\n", b"\n"):
        code, out = await on_terminal(tmp_path, typed, *wanted)
        assert (code, "2 orders to be decided (failed). Type the number to go on:" in out) == (
            1,
            True,
        )
        assert await statuses(shop, *orders) == ["sent", "sent"]
    code, out = await on_terminal(tmp_path, b"2\n", *wanted)
    assert (code, await statuses(shop, *orders)) == (0, ["failed", "failed"]), out


def test_an_order_without_a_date_is_of_no_age() -> None:
    many = Many(older_than=60.0)
    made: Any = [Order("a", "sent", at, "r") for at in (None, float("-inf"), 1000.0, 950.0)]
    assert [many.is_old_enough(order, 1010.0) for order in made] == [False, False, False, True]
