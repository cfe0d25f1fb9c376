"""Every kind of what waits for a person: `review` and `explain` say what can be done, and each
command that they name closes it.
"""

import re
import uuid
from pathlib import Path

import pytest

from order_monitor.commands.review import DO, what_to_do
from order_monitor.core.decision import StuckReason
from tests.support.commands import call
from tests.support.processes import sent, settings
from tests.support.shops import Shop

pytestmark = pytest.mark.long

NOBODY = "http://127.0.0.1:1"
COMMAND = re.compile(r"order-monitor ((?:review|resolve) [^;,:]*)")
ENDED = {
    "pin_missing": "completed",
    "completed_after_failed": "failed",
    "cancelled_after_completed": "completed",
    StuckReason.PIN_FOR_ENDED: "failed",
    StuckReason.REPEAT_SENT_ANEW: "failed",
}
CASES = [
    (kind, command)
    for kind in (*DO, "a_kind_to_come")
    for command in dict.fromkeys(
        found.replace(" or --failed", "").strip()
        for found in COMMAND.findall(what_to_do("ORDER", kind))
    )
]


def test_each_kind_has_a_command() -> None:
    assert set(DO) >= set(StuckReason)
    assert {kind for kind, _ in CASES} == {*DO, "a_kind_to_come"}


@pytest.mark.parametrize(("kind", "command"), CASES)
async def test_each_command_that_is_named_closes_it(
    plain_shop: Shop, tmp_path: Path, kind: str, command: str
) -> None:
    order_id, other = await sent(plain_shop, 2)
    status = ENDED.get(kind, "sent")
    await plain_shop.connection.execute(
        "UPDATE product_orders SET external_status = $2 WHERE id = $1::uuid", order_id, status
    )
    await plain_shop.note(order_id)
    await plain_shop.connection.execute(
        "INSERT INTO order_monitor_review (order_id, kind) VALUES ($1, $2)",
        uuid.UUID(order_id),
        str(kind),
    )
    config = settings(plain_shop.dsn, NOBODY)
    words = command.replace("ORDER", order_id, 1).replace("ORDER", other).split()
    for teller in (["review"], ["explain", order_id]):
        _, out, _ = await call(tmp_path, config, *teller)
        assert command.replace("ORDER", order_id, 1).split(" --")[0] in " ".join(out.split()), (
            teller
        )
    code, _, err = await call(
        tmp_path, config, *words, stdin="NEW-PIN-44551\n" if "--pin-stdin" in words else ""
    )
    assert code == 0, err
    assert await plain_shop.connection.fetchval(
        "SELECT bool_and(closed_at IS NOT NULL) FROM order_monitor_review"
    )


async def _with_code(shop: Shop, code: str | None) -> list[str]:
    """Two orders of one package: the first has ``code``, the second is open and waits for a person."""
    package = str(uuid.uuid4())
    first, second = await sent(shop, 2, package_id=package)
    await shop.connection.execute(
        "UPDATE product_orders SET external_status = 'completed', pin_code = $2 WHERE id = $1::uuid",
        first,
        code,
    )
    return [first, second, package]


async def test_an_order_that_rightly_has_anothers_code_takes_it_from_there(
    plain_shop: Shop, tmp_path: Path
) -> None:
    first, second, package = await _with_code(plain_shop, "PIN-CANARY-5501")
    config = settings(plain_shop.dsn, NOBODY)
    code, out, err = await call(
        tmp_path, config, "resolve", second, "--completed", "--same-as", first, "--for-package"
    )
    assert code == 0, err
    assert "5501" not in out + err
    row = await plain_shop.row(second)
    assert (row["external_status"], row["pin_code"]) == ("completed", "PIN-CANARY-5501")
    marks = await plain_shop.connection.fetch(
        "SELECT name FROM order_monitor_settings WHERE name LIKE '%shared%'"
    )
    assert len(marks) == 1, "the whole package shares its codes from now on"
    (third,) = await sent(plain_shop, 1, package_id=package)
    code, _, err = await call(
        tmp_path, config, "resolve", third, "--completed", "--pin-stdin", stdin="PIN-CANARY-5501"
    )
    assert code == 0, err


async def test_from_an_order_without_a_pin_none_is_taken(plain_shop: Shop, tmp_path: Path) -> None:
    first, second, _ = await _with_code(plain_shop, "yok")
    code, _, err = await call(
        tmp_path,
        settings(plain_shop.dsn, NOBODY),
        "resolve",
        second,
        "--completed",
        "--same-as",
        first,
    )
    assert (code, "has no PIN" in err) == (1, True)
    assert (await plain_shop.row(second))["external_status"] == "sent"
