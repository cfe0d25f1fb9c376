"""``--once`` carries the ends of children upward, too, where the settings say so."""

from pathlib import Path
from typing import Any

import pytest

from order_monitor.settings.money import MONEY
from tests.support.commands import call
from tests.support.real_shop import RealShop, new_id, real_shop

pytestmark = pytest.mark.long

PIN = "AB12-CD34-EF56"


async def parent_of_ended(shop: RealShop) -> str:
    """Return an open order whose child has been approved, with its PIN."""
    internal, parent, child = await shop.integration("internal"), new_id(), new_id()
    of_parent: dict[str, Any] = {
        "providerId": internal,
        "externalOrderId": child,
        "provider_referans": parent,
    }
    await shop.add(id=parent, **of_parent)
    of_child: dict[str, Any] = {"root_order_id": parent, "status": "done", "pinCode": PIN}
    await shop.add(id=child, **of_child)
    await shop.set(child, status="approved")
    return parent


def config_of(dsn: str, who: str) -> str:
    """Return settings by which ``who`` ends the parents."""
    return (
        f'[database]\ndsn = "{dsn}"\n[provider]\nsource = "database"\n'
        f'chains = "{who}"\n[statuses]\npreset = "watan"\n'
    )


@pytest.mark.parametrize(("who", "ends"), [("monitor", True), ("shop", False)])
async def test_a_pass_ends_a_parent_only_where_the_settings_say_so(
    database_dsn: str, tmp_path: Path, who: str, *, ends: bool
) -> None:
    assert "provider.chains" in MONEY
    async with real_shop(database_dsn) as shop:
        parent = await parent_of_ended(shop)
        code, _, err = await call(tmp_path, config_of(database_dsn, who), "--once")
        assert code == 0, err
        row = await shop.row(parent)
        assert (row["externalStatus"], row["pinCode"]) == (
            ("done", PIN) if ends else ("sent", None)
        )
        assert PIN not in err


async def test_a_pass_whose_ends_of_parents_the_database_did_not_take_is_not_done(
    database_dsn: str, tmp_path: Path
) -> None:
    async with real_shop(database_dsn) as shop:
        parent = await parent_of_ended(shop)
        await shop.connection.execute(
            "CREATE FUNCTION cut() RETURNS trigger LANGUAGE plpgsql AS "
            "$$ BEGIN PERFORM pg_terminate_backend(pg_backend_pid()); RETURN NEW; END $$; "
            "CREATE TRIGGER cut BEFORE UPDATE ON product_orders FOR EACH ROW EXECUTE FUNCTION cut()"
        )
        code, _, _ = await call(tmp_path, config_of(database_dsn, "monitor"), "--once")
        assert (code, (await shop.row(parent))["externalStatus"]) == (1, "sent")
