"""``--once`` carries the ends of children upward, too, where the settings say so."""

from pathlib import Path
from typing import Any

import pytest

from order_monitor.settings.money import MONEY
from tests.support.commands import call
from tests.support.real_shop import new_id, real_shop

pytestmark = pytest.mark.long

PIN = "AB12-CD34-EF56"


@pytest.mark.parametrize(("who", "ends"), [("monitor", True), ("shop", False)])
async def test_a_pass_ends_a_parent_only_where_the_settings_say_so(
    database_dsn: str, tmp_path: Path, who: str, *, ends: bool
) -> None:
    assert "provider.chains" in MONEY
    async with real_shop(database_dsn) as shop:
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
        config = (
            f'[database]\ndsn = "{database_dsn}"\n[provider]\nsource = "database"\n'
            f'chains = "{who}"\n[statuses]\npreset = "watan"\n'
        )
        code, _, err = await call(tmp_path, config, "--once")
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
        internal, parent, child = await shop.integration("internal"), new_id(), new_id()
        named: dict[str, Any] = {
            "externalOrderId": child,
            "provider_referans": parent,
            "providerId": internal,
        }
        await shop.add(id=parent, **named)
        await shop.add(id=child, root_order_id=parent, status="done", pinCode=PIN)
        await shop.set(child, status="approved")
        await shop.connection.execute(
            "CREATE FUNCTION cut() RETURNS trigger LANGUAGE plpgsql AS "
            "$$ BEGIN PERFORM pg_terminate_backend(pg_backend_pid()); RETURN NEW; END $$; "
            "CREATE TRIGGER cut BEFORE UPDATE ON product_orders FOR EACH ROW EXECUTE FUNCTION cut()"
        )
        config = (
            f'[database]\ndsn = "{database_dsn}"\n[provider]\nsource = "database"\n'
            'chains = "monitor"\n[statuses]\npreset = "watan"\n'
        )
        code, _, _ = await call(tmp_path, config, "--once")
        assert (code, (await shop.row(parent))["externalStatus"]) == (1, "sent")
