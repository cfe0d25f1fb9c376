"""Never well while nothing is written: whatever refuses the writes, and whatever else goes on."""

from collections.abc import Callable

import asyncpg
import pytest

from order_monitor.shop.writing import left_out
from order_monitor.tell.attention import lights_of
from order_monitor.tell.readiness import Readiness
from order_monitor.tell.status_view import StatusView
from tests.support.clocks import Drive
from tests.support.engines import Bench, text
from tests.support.shops import NOW, Shop

PIN = "OK|2|AB12-CD34-{}|tamam"
TRIGGER = """
CREATE FUNCTION no() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
  IF {when} THEN RAISE EXCEPTION USING ERRCODE = '{code}'; END IF; RETURN NEW; END $$;
CREATE TRIGGER no BEFORE {what} FOR EACH ROW EXECUTE FUNCTION no()
"""
WALLS = {
    "a trigger on every update": TRIGGER.format(
        when="true", code="P0001", what="UPDATE ON product_orders"
    ),
    "a full disk, by a trigger": TRIGGER.format(
        when="true", code="53100", what="UPDATE ON product_orders"
    ),
    "a trigger on our events": TRIGGER.format(
        when="true", code="23505", what="INSERT ON order_monitor_events"
    ),
    "a column of our events that nobody fills": "ALTER TABLE order_monitor_events ADD COLUMN code text NOT NULL",
    "a constraint on our events": "ALTER TABLE order_monitor_events ADD CHECK (source = 'shop')",
    "a trigger that keeps every row": TRIGGER.format(
        when="true", code="P0001", what="UPDATE ON product_orders"
    ).replace("RAISE EXCEPTION USING ERRCODE = 'P0001'", "RETURN NULL"),
}
MEND = """
DROP TRIGGER IF EXISTS no ON product_orders; DROP TRIGGER IF EXISTS no ON order_monitor_events;
ALTER TABLE order_monitor_events DROP COLUMN IF EXISTS code, DROP CONSTRAINT IF EXISTS order_monitor_events_source_check
"""


def numbered() -> Callable[[str], str]:
    numbers: dict[str, int] = {}
    return lambda reference: PIN.format(1000 + numbers.setdefault(reference, len(numbers)))


def probe_of(bench: Bench) -> Readiness:
    bench.engine.state.ticked_at = bench.clock.monotonic()
    return Readiness(bench.engine, bench.clock, 10.0)


def is_green(bench: Bench) -> bool:
    view = StatusView(bench.clock)
    view.watch(bench.engine, probe_of(bench), 86_400.0)
    return bool(lights_of(view)["database"]["ok"])


@pytest.mark.long
@pytest.mark.parametrize("wall", WALLS)
@pytest.mark.parametrize("answer", ["ends", "waits"])
async def test_a_wall_before_every_write_is_told_and_forgotten_when_it_is_gone(
    plain_shop: Shop, wall: str, answer: str
) -> None:
    shop = plain_shop
    ids = [await shop.add(sent_at=NOW - 100 - n) for n in range(5)]
    await shop.connection.execute(WALLS[wall])
    pin = numbered()
    bench = Bench(
        shop, lambda reference: text(pin(reference) if answer == "ends" else "OK|1| |bekleniyor")
    )
    async with Drive(bench.engine, bench.clock) as drive:
        await drive.run(50, scan_every=10)
        assert probe_of(bench).reasons() == []
        await drive.run(20, scan_every=10)
        (reason,) = probe_of(bench).reasons()
        assert reason.startswith("nothing written for 60 s: orders refused: 5 (")
        assert not is_green(bench)
        succeeded = bench.engine.state.succeeded_at
        await drive.run(900, scan_every=60)
        assert len(probe_of(bench).reasons()) == 1, "however far apart its checks are"
        assert bench.engine.state.succeeded_at == succeeded
        await shop.connection.execute(MEND)
        await drive.run(640, scan_every=60)
        assert probe_of(bench).reasons() == []
        assert is_green(bench)
    assert {await bench.status(i) for i in ids} == {
        "completed" if answer == "ends" else "processing"
    }


@pytest.mark.long
async def test_one_row_that_is_refused_for_ever_is_its_own_matter(plain_shop: Shop) -> None:
    """Two as well; and the others are written beside them."""
    bad = [
        await plain_shop.add(sent_at=NOW - 100, tenant_id="11111111-1111-4111-8111-111111111111")
        for _ in range(2)
    ]
    await plain_shop.connection.execute(
        TRIGGER.format(
            when="NEW.tenant_id IS NOT NULL", code="P0001", what="UPDATE ON product_orders"
        )
    )
    pin = numbered()
    bench = Bench(plain_shop, lambda reference: text(pin(reference)))
    async with Drive(bench.engine, bench.clock) as drive:
        for n in range(8):
            await plain_shop.add(sent_at=NOW + bench.clock.elapsed - 60 - n)
            await drive.run(200, scan_every=20)
            assert probe_of(bench).reasons() == []
    assert bench.engine.state.stuck.keys() == set(bad)


@pytest.mark.long
async def test_answers_that_need_no_write_are_neither_progress_nor_a_refusal(shop: Shop) -> None:
    """Orders that wait as before answer every few minutes, which is noted where the table has the
    column: no more gets through.
    """
    for n in range(4):
        await shop.add("processing", sent_at=NOW - 100 - n, note="bekleniyor")
    ending = [await shop.add(sent_at=NOW - 100 - n) for n in range(3)]
    names = {f"r-{i[:8]}" for i in ending}
    await shop.connection.execute(WALLS["a column of our events that nobody fills"])
    pin = numbered()
    bench = Bench(
        shop, lambda reference: text(pin(reference) if reference in names else "OK|1| |bekleniyor")
    )
    async with Drive(bench.engine, bench.clock) as drive:
        await drive.run(70, scan_every=10)
        assert "orders refused: 3" in probe_of(bench).reasons()[0]
        await drive.run(600, scan_every=60)
        assert "orders refused: 3" in probe_of(bench).reasons()[0]
        for order_id in ending[:2]:
            await shop.set(order_id, external_status="refunded")
        await drive.run(20, scan_every=10)
        assert probe_of(bench).reasons() == [], "two are gone: the shop has ended them"


async def test_rows_that_somebody_holds_for_more_than_a_minute_are_told(plain_shop: Shop) -> None:
    ids = [await plain_shop.add(sent_at=NOW - 100 - n) for n in range(3)]
    pin = numbered()
    bench = Bench(plain_shop, lambda reference: text(pin(reference)))
    other = await asyncpg.connect(plain_shop.dsn)
    async with Drive(bench.engine, bench.clock) as drive:
        async with other.transaction():
            await other.execute("SELECT 1 FROM product_orders FOR UPDATE")
            await drive.run(50, scan_every=10)
            assert probe_of(bench).reasons() == []
            await drive.run(30, scan_every=10)
            assert probe_of(bench).reasons() == ["nothing written for 60 s: held up: 3"]
        await drive.run(40, scan_every=10)
        assert probe_of(bench).reasons() == []
    await other.close()
    assert {await bench.status(i) for i in ids} == {"completed"}


@pytest.mark.long
async def test_a_word_that_the_column_refuses_leaves_the_program_ready(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Thirty wait, and some of them end meanwhile: nothing is stuck, messages go on, and the word
    comes when it may.
    """
    monkeypatch.setattr(left_out, "LOOK_AGAIN", 0.0)
    name = shop.spelling.name("external_status")
    await shop.connection.execute(
        f"ALTER TABLE product_orders ADD CONSTRAINT c CHECK (\"{name}\" <> 'processing')"
    )
    ids = [await shop.add(sent_at=NOW - 100 - n) for n in range(30)]
    ending, pin = {f"r-{i[:8]}" for i in ids[:4]}, numbered()
    bench = Bench(
        shop,
        lambda reference: text(
            pin(reference)
            if reference in ending and bench.clock.elapsed > 200
            else "OK|1| |bekleniyor"
        ),
    )
    async with Drive(bench.engine, bench.clock) as drive:
        await drive.run(1500, scan_every=60)
        assert probe_of(bench).reasons() == []
        assert bench.engine.state.stuck == {}
        assert [await bench.status(i) for i in ids] == ["completed"] * 4 + ["sent"] * 26
        assert all([(await shop.row(i))["note"] == "bekleniyor" for i in ids[4:]])
        assert (
            await shop.connection.fetchval(
                "SELECT count(*) FROM order_monitor_review WHERE closed_at IS NULL"
            )
            == 0
        )
        assert await shop.connection.fetchval("SELECT count(*) FROM order_monitor_review") < 20
        await shop.connection.execute("ALTER TABLE product_orders DROP CONSTRAINT c")
        await drive.run(1300, scan_every=60)
        assert {await bench.status(i) for i in ids[4:]} == {"processing"}, (
            "the same answer, and the word at last"
        )
