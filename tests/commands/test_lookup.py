"""People look orders up by what they have: an id, its beginning, the reference, or a column that
the settings name.
"""

import json
import uuid
from pathlib import Path
from typing import Any

import pytest

from order_monitor.core.errors import SettingsError
from order_monitor.shop.reading.history import OrderHistory
from order_monitor.shop.reading.search import Hits, Parameters, begins, equals, look_up, uuid_range
from order_monitor.shop.schema.columns import Column
from tests.support.commands import call, prepare
from tests.support.processes import PIN, Panel, panel, sent, settings
from tests.support.shops import Shop, migrate

__all__ = ["panel"]

NOBODY = "http://127.0.0.1:1"
A, B = "0b7a0a3e-1111-4000-8000-000000000001", "0b7a0a3e-2222-4000-8000-000000000002"


async def found(shop: Shop, typed: str, *lookup: str) -> OrderHistory | Hits:
    database = shop.database()
    return await look_up(database, shop.orders(database, lookup=lookup), typed)


async def id_of(shop: Shop, typed: str, *lookup: str) -> str:
    history = await found(shop, typed, *lookup)
    assert isinstance(history, OrderHistory), history
    return history.order.id


async def hits_of(shop: Shop, typed: str, *lookup: str) -> list[tuple[str, str]]:
    hits = await found(shop, typed, *lookup)
    assert isinstance(hits, Hits), hits
    return [(hit.order_id, hit.by) for hit in hits.hits]


async def add(shop: Shop, order_id: Any, reference: str = "", **more: str) -> None:
    """Add an order whose id is no uuid; ``more`` by the columns' own names."""
    values = {"id": order_id, "provider_referans": reference, **more}
    await shop.connection.execute(
        f"INSERT INTO product_orders ({', '.join(values)}) VALUES ({', '.join(f'${n + 1}' for n in range(len(values)))})",
        *values.values(),
    )


# --- by what an order is found


@pytest.mark.parametrize(
    "typed", [A, A.upper(), A.replace("-", ""), A[:13], A[:12].upper(), A[:13].replace("-", "")]
)
async def test_an_id_and_each_of_its_beginnings_that_no_other_has_finds_the_order(
    shop: Shop, typed: str
) -> None:
    await shop.add(order_id=A)
    await shop.add(order_id=B)
    assert await id_of(shop, typed) == A


@pytest.mark.parametrize("typed", ["4711-0001", " 4711-0001\n"])
async def test_the_reference_finds_the_order_whatever_its_state(shop: Shop, typed: str) -> None:
    await shop.add("completed", order_id=A, reference="4711-0001", pin=PIN)
    await shop.add(order_id=B, reference="4711-0002")
    assert await id_of(shop, typed) == A


@pytest.mark.parametrize(
    "kind", ["text", "bigint", "integer", "uuid", "varchar(40)", "char(40)", "numeric"]
)
async def test_a_column_that_the_settings_name_finds_the_order(shop: Shop, kind: str) -> None:
    """By its own name, whatever its type; what cannot stand in it simply finds nothing."""
    number = str(uuid.uuid4()) if kind == "uuid" else "100200300"
    await shop.connection.execute(f'ALTER TABLE product_orders ADD "Order No" {kind}')
    await shop.add(order_id=A)
    await shop.add(order_id=B)
    await shop.connection.execute(
        f"UPDATE product_orders SET \"Order No\" = '{number}' WHERE id = '{A}'"
    )
    assert await id_of(shop, number, "Order No") == A
    assert await hits_of(shop, number) == []
    for other in ("100200301", "nobody's", "9" * 30, "١٢٣٤"):
        assert await hits_of(shop, other, "Order No") == []


async def test_a_column_may_be_named_as_in_either_spelling(shop: Shop) -> None:
    package = str(uuid.uuid4())
    await shop.add(order_id=A, package_id=package)
    await shop.add(order_id=B, package_id=str(uuid.uuid4()))
    assert await id_of(shop, package, "package_id") == A
    assert await id_of(shop, package, shop.spelling.name("package_id")) == A


@pytest.mark.parametrize("kind", ["bigint", "text", "integer"])
async def test_ids_of_other_kinds_are_found_too(bare_shop: Shop, kind: str) -> None:
    shop = bare_shop
    await shop.connection.execute(
        f"ALTER TABLE product_orders DROP COLUMN id, ADD id {kind} PRIMARY KEY"
    )
    await migrate(shop.dsn)
    as_kind = str if kind == "text" else int
    for number in (123_456, 123_457, 12, 987_654):
        await add(shop, as_kind(number), f"ref-{number}")
    assert await id_of(shop, "123456") == "123456"
    assert await id_of(shop, "12") == "12", "a whole id may be of any length"
    assert await id_of(shop, "9876") == "987654"
    assert await id_of(shop, "ref-12") == "12"
    assert await hits_of(shop, "1234") == [("123456", "id"), ("123457", "id")]
    assert await hits_of(shop, "99999999999999999999") == []


async def test_a_whole_id_wins_over_all_else(plain_bare_shop: Shop) -> None:
    shop = plain_bare_shop
    await shop.connection.execute(
        "ALTER TABLE product_orders DROP COLUMN id, ADD id text PRIMARY KEY, ADD number text"
    )
    await migrate(shop.dsn)
    await add(shop, "12345", "first")
    await add(shop, "12345-b", "12345", number="12345")
    assert await id_of(shop, "12345", "number") == "12345"
    assert await id_of(shop, "12345-") == "12345-b"


async def test_one_order_found_in_two_ways_is_one_hit(plain_shop: Shop) -> None:
    await plain_shop.add(order_id=A, reference=A[:8])
    assert await id_of(plain_shop, A[:8]) == A


async def test_several_hits_are_told_apart_by_what_matched_and_are_bounded(shop: Shop) -> None:
    await shop.add(order_id=A, reference="same")
    await shop.add(order_id=B, reference="same", sent_at=1_790_000_500.0)
    assert await hits_of(shop, "same") == [(B, "provider_referans"), (A, "provider_referans")], (
        "the newest first"
    )
    assert await hits_of(shop, A[:9]) == [(B, "id"), (A, "id")]
    for _ in range(8):
        await shop.add(reference="same")
    ten = await found(shop, "same")
    assert isinstance(ten, Hits)
    assert (len(ten.hits), ten.has_more) == (10, False)
    await shop.add(reference="same")
    more = await found(shop, "same")
    assert isinstance(more, Hits)
    assert (len(more.hits), more.has_more) == (10, True)


# --- and by what it is not


@pytest.mark.parametrize(
    "typed",
    [
        "%",
        "%%%%",
        "____",
        "0b7_0a3e",
        "0b7%",
        "\\",
        "'; DROP TABLE product_orders; --",
        "0b7a0a3e1-",
    ],
)
async def test_what_is_typed_is_taken_literally(shop: Shop, typed: str) -> None:
    await shop.add(order_id=A)
    assert await hits_of(shop, typed) == []
    await shop.add(order_id=B, reference=typed)
    assert await id_of(shop, typed) == B


async def test_wildcards_in_a_text_id_are_taken_literally(plain_bare_shop: Shop) -> None:
    shop = plain_bare_shop
    await shop.connection.execute(
        "ALTER TABLE product_orders DROP COLUMN id, ADD id text PRIMARY KEY"
    )
    await migrate(shop.dsn)
    for order_id in ("ab_cdef", "abXcdef", "50%-off-1", "50-off-2"):
        await add(shop, order_id)
    assert await id_of(shop, "ab_c") == "ab_cdef"
    assert await id_of(shop, "50%-") == "50%-off-1"


@pytest.mark.parametrize("typed", ["", " ", "\t", "\0", "a\0b", "\ud800", "0b7"])
async def test_a_blank_or_what_no_text_can_hold_or_too_short_finds_nothing(
    plain_shop: Shop, typed: str
) -> None:
    """Orders without a reference are not what a blank means."""
    await plain_shop.add(order_id=A, reference="")
    assert await hits_of(plain_shop, typed) == []


@pytest.mark.parametrize("lookup", ["order_numbr", "Order_Number", "nothing like it at all"])
async def test_a_column_that_is_not_there_is_told_with_what_is_near(
    shop: Shop, lookup: str
) -> None:
    """Also where the id alone would have done: a mistake shows at the first use."""
    await shop.connection.execute("ALTER TABLE product_orders ADD order_number text")
    await shop.add(order_id=A)
    with pytest.raises(
        SettingsError,
        match=f"database.lookup: public.product_orders has no column {lookup}; near: ",
    ):
        await found(shop, A, lookup)
    if lookup == "order_numbr":
        with pytest.raises(SettingsError, match=r"near: order_number\b"):
            await found(shop, "x", lookup)


@pytest.mark.parametrize("name", ["pin_code", "own name"])
async def test_the_pin_is_no_way_to_look_for_an_order(shop: Shop, name: str) -> None:
    lookup = shop.spelling.name("pin_code") if name == "own name" else name
    await shop.add("completed", order_id=A, pin=PIN)
    with pytest.raises(SettingsError, match="holds PINs"):
        await found(shop, PIN, lookup)


# --- what it costs


async def plan_of(shop: Shop, condition: str, *values: str) -> str:
    """Return PostgreSQL's plan for a search, over a table that is large enough for an index to pay."""
    sent_at = shop.spelling.name("sent_at")
    await shop.connection.execute(
        f'INSERT INTO product_orders (id, provider_referans, "{sent_at}") '
        "SELECT gen_random_uuid(), 'r-' || n, now() FROM generate_series(1, 20000) n"
    )
    await shop.connection.execute("ANALYZE product_orders")
    rows = await shop.connection.fetch(
        f"EXPLAIN SELECT 1 FROM product_orders o WHERE {condition}", *values
    )
    return "\n".join(row[0] for row in rows)


async def test_the_beginning_of_a_uuid_is_looked_for_by_the_primary_key(shop: Shop) -> None:
    given = Parameters()
    condition = begins(Column("id", "uuid"), A[:6], given)
    assert condition is not None
    plan = await plan_of(shop, condition, *given.values)
    assert "product_orders_pkey" in plan
    assert "Seq Scan" not in plan


@pytest.mark.parametrize(
    ("kind", "typed"), [("varchar(255)", "r-77"), ("text", "r-77"), ("bigint", "77"), ("uuid", A)]
)
async def test_an_index_of_the_shops_is_used(plain_shop: Shop, kind: str, typed: str) -> None:
    given = Parameters()
    data_type = {"varchar(255)": "character varying"}.get(kind, kind)
    condition = equals(Column("number", data_type), typed, given)
    assert condition is not None
    await plain_shop.connection.execute(
        f"ALTER TABLE product_orders ADD number {kind}; CREATE INDEX by_number ON product_orders (number)"
    )
    assert "by_number" in await plan_of(plain_shop, condition, *given.values)


@pytest.mark.parametrize(
    ("typed", "low", "high"),
    [
        ("abcd", "abcd0000-0000-0000-0000-000000000000", "abcdffff-ffff-ffff-ffff-ffffffffffff"),
        (
            "ABCDEF01-2",
            "abcdef01-2000-0000-0000-000000000000",
            "abcdef01-2fff-ffff-ffff-ffffffffffff",
        ),
        (
            "abcdef01-",
            "abcdef01-0000-0000-0000-000000000000",
            "abcdef01-ffff-ffff-ffff-ffffffffffff",
        ),
        (
            "abcdef012",
            "abcdef01-2000-0000-0000-000000000000",
            "abcdef01-2fff-ffff-ffff-ffffffffffff",
        ),
        (A, A, A),
    ],
)
def test_the_range_of_a_beginning(typed: str, low: str, high: str) -> None:
    assert uuid_range(typed) == (low, high)


@pytest.mark.parametrize(
    "typed", ["", "-", "abc-d", "abcdef012-", "xyz", "abcd efgh", A + "0", "١٢٣٤", "{abcd"]
)
def test_what_no_uuid_begins_with_has_no_range(typed: str) -> None:
    assert uuid_range(typed) is None


# --- the commands


async def test_explain_takes_whatever_finds_the_order(shop: Shop, tmp_path: Path) -> None:
    await shop.connection.execute("ALTER TABLE product_orders ADD order_number text")
    await shop.add(order_id=A, reference="4711")
    await shop.connection.execute("UPDATE product_orders SET order_number = 'N-100'")
    config = settings(shop.dsn, NOBODY, database={"lookup": ["order_number"]})
    for typed in (A, A[:4], "4711", "N-100"):
        code, out, err = await call(tmp_path, config, "explain", "--json", typed)
        assert (code, err) == (0, ""), err
        assert json.loads(out)["order"]["id"] == A


async def test_explain_lists_several_and_guesses_none(shop: Shop, tmp_path: Path) -> None:
    for n in range(12):
        await shop.add(
            "completed" if n else "sent",
            order_id=f"0b7a0a3e-0000-4000-8000-{n:012}",
            pin=PIN if n else None,
        )
    for arguments in (("explain", "0b7a"), ("explain", "--json", "0b7a")):
        code, out, err = await call(tmp_path, settings(shop.dsn, NOBODY), *arguments)
        assert (code, out) == (1, "")
        first, *lines = err.splitlines()
        assert first == "0b7a: several orders, which begin with it or have it:"
        assert (len(lines), lines[-1]) == (11, "  and more")
        assert all("0b7a0a3e-0000-4000-8000-" in line and "(by id)" in line for line in lines[:-1])


async def test_a_beginning_that_is_too_short_is_told(shop: Shop, tmp_path: Path) -> None:
    await shop.add(order_id=A)
    code, out, err = await call(tmp_path, settings(shop.dsn, NOBODY), "explain", "0b7")
    assert (code, out) == (1, "")
    assert (
        "there is no order 0b7; the beginning of an id must have 4 characters at least; near: " + A
        in err
    )


async def test_a_lookup_of_nothing_is_exit_2_and_check_tells_it(
    plain_shop: Shop, tmp_path: Path
) -> None:
    shop = plain_shop
    await shop.add(order_id=A)
    config = settings(shop.dsn, NOBODY, database={"lookup": ["tenantid"]})
    await prepare(shop)
    for arguments in (("explain", A), ("ask", A), ("resolve", A, "--failed", "--reason", "x")):
        code, out, err = await call(tmp_path, config, *arguments)
        assert (code, out) == (2, "")
        assert (
            "database.lookup: public.product_orders has no column tenantid; near: tenant_id" in err
        )
    code, out, _ = await call(tmp_path, config, "check")
    assert (code, "database.lookup: public.product_orders has no column tenantid" in out) == (
        1,
        True,
    )
    code, _, err = await call(
        tmp_path, settings(shop.dsn, NOBODY, database={"lookups": ["id"]}), "explain", A
    )
    assert (code, "did you mean database.lookup?" in err) == (2, True)


async def test_ask_and_resolve_take_the_same_and_touch_none_of_several(
    shop: Shop, panel: Panel, tmp_path: Path
) -> None:
    config = settings(
        shop.dsn, panel.server.url, schedule={"first_check": 3600, "base": 3600, "cap": 3600}
    )
    await prepare(shop)
    await sent(shop, 1, order_id=A, reference="same")
    await sent(shop, 1, order_id=B, reference="same")
    await sent(shop, 1, reference="other")
    for arguments in (
        ("ask", "0b7a0a3e"),
        ("ask", "same"),
        ("resolve", "same", "--failed", "--reason", "x"),
    ):
        code, out, err = await call(tmp_path, config, *arguments)
        assert code == 1
        assert out == ""
        assert f"{arguments[1]}: several orders" in err
        assert A in err
        assert B in err
    assert panel.server.calls == {}
    code, out, _ = await call(tmp_path, config, "ask", "--json", "same", A[:13], "nobody's")
    assert code == 1
    assert [(line["order_id"], line["done"], line["text"]) for line in json.loads(out)] == [
        ("same", False, "several orders"),
        ("nobody's", False, "there is no such order"),
        (A, True, "the provider says completed (tamam); now 'completed', with its PIN"),
    ]
    code, out, _ = await call(
        tmp_path, config, "resolve", "other", "--failed", "--reason", "x", "--by", "Ayşe"
    )
    assert (code, "now 'failed', by Ayşe" in out) == (0, True)
    assert [(await shop.row(i))["external_status"] for i in (A, B)] == ["completed", "sent"]
