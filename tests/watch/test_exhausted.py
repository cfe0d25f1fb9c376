"""This machine has run out of something: all calls go slower, no account is closed, and no order
pays for it.
"""

import errno
from typing import Any

import httpx
import pytest
from structlog.testing import capture_logs

from order_monitor.core.errors import ShopUnavailableError
from order_monitor.providers.http.failures import exhausted
from order_monitor.tell.attention import lights_of
from order_monitor.tell.readiness import Readiness
from order_monitor.tell.status_view import StatusView
from tests.support.clocks import Drive
from tests.support.engines import Bench, text
from tests.support.limits import no_files_left
from tests.support.shops import NOW, Shop


def runs_out() -> httpx.TransportError:
    error = exhausted(OSError(errno.EMFILE, "x"))
    assert error is not None
    return error


@pytest.mark.parametrize("give_up_blind", [False, True])
async def test_no_account_is_closed_and_no_order_ends_for_it(
    plain_shop: Shop, *, give_up_blind: bool
) -> None:
    """Not even an order past its deadline with ``give_up_blind``: it was not the provider that
    could not be asked.
    """
    old = await plain_shop.add(sent_at=NOW - 90_000)
    ids = [old, *[await plain_shop.add(sent_at=NOW - 100 - n) for n in range(60)]]
    is_short = True

    def panel(_: str) -> Any:
        if is_short:
            raise runs_out()
        return text("OK|2| |tamam")

    bench = Bench(plain_shop, panel, give_up_blind=give_up_blind)
    with capture_logs() as logs:
        async with Drive(bench.engine, bench.clock) as drive:
            await drive.run(120, scan_every=10)
            assert bench.account.gate.is_open
            assert bench.account.last_error == ""
            assert {await bench.status(i) for i in ids} == {"sent"}
            asked = len(bench.calls)
            assert asked < 60, "slower, for all"
            is_short = False
            await drive.run(200, scan_every=10)
    assert {await bench.status(i) for i in ids} == {"completed"}
    told = [line for line in logs if line["event"].startswith("machine.")]
    assert [(line["event"], line["reason"]) for line in told] == [
        ("machine.exhausted", "no_files"),
        ("machine.recovered", "no_files"),
    ]
    assert not [line for line in logs if line["event"].startswith("account.")]


async def test_one_pass_says_what_was_not_asked(plain_shop: Shop) -> None:
    ids = [await plain_shop.add(sent_at=NOW - 100 - n) for n in range(3)]

    def panel(_: str) -> Any:
        raise runs_out()

    bench = Bench(plain_shop, panel, one_pass=True)
    async with Drive(bench.engine, bench.clock) as drive:
        await drive.run(60, scan_every=70)
    assert {await bench.status(i) for i in ids} == {"sent"}
    assert bench.account.gate.is_open


async def test_without_files_for_the_database_all_go_slower_and_the_database_is_not_blamed(
    plain_shop: Shop,
) -> None:
    await plain_shop.add(sent_at=NOW - 100)
    bench = Bench(plain_shop, lambda _: text("OK|1| |x"))
    view = StatusView(bench.clock)
    view.watch(bench.engine, Readiness(bench.engine, bench.clock, 10.0), 86_400.0)
    with no_files_left(), pytest.raises(ShopUnavailableError, match=r"^no_files: "):
        await bench.engine.scan()
    assert bench.engine.context.easing.reason == "no_files"
    lights = lights_of(view)
    assert lights["database"]["ok"]
    assert (lights["monitor"]["ok"], lights["monitor"]["why"]) == (
        False,
        "this process, or this machine, may open no more files: the database cannot be read",
    )
    await bench.engine.scan()
    assert lights_of(view)["monitor"]["ok"] == view.probe.is_live()
