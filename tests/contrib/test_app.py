"""Everything around the consumer: checks, migrations, the reference, and the webhook's receiver."""

import json
import re
import sys
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime
from io import StringIO
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import psycopg
import pytest
from django.apps import apps
from django.core.checks import run_checks
from django.core.management import CommandError, call_command
from django.db import connection, connections, transaction
from django.test import Client, override_settings
from standardwebhooks.webhooks import Webhook

from order_monitor.contrib.django import new_reference, remember_reference
from order_monitor.contrib.django.command_line import run
from order_monitor.contrib.django.conf import load
from order_monitor.demo.postgres import EmbeddedPostgres
from tests.contrib import project
from tests.contrib.conftest import (
    MONITOR_TOML,
    SCHEMA,
    DjangoShop,
    point_to,
)
from tests.contrib.consumers import configured
from tests.contrib.shop import models, money
from tests.contrib.shop.models import ProductOrder
from tests.support import databases, readme


def found(*, databases: list[str] | None = None) -> list[tuple[str, str]]:
    """Return this app's results of the system checks."""
    messages = run_checks(databases=databases, include_deployment_checks=False)
    return [
        (m.id.partition(".")[2], f"{m.msg} {m.hint or ''}")
        for m in messages
        if m.id.startswith("order_monitor")
    ]


# --- system checks


@pytest.mark.long
def test_nothing_is_wrong(django_shop: DjangoShop) -> None:
    assert found(databases=["default"]) == []


@pytest.mark.parametrize(
    ("changes", "code", "said"),
    [
        ({"HANDLER": None}, "E002", "['HANDLER'] is missing"),
        ({"HANDLER": "tests.contrib.shop.money.gone"}, "E002", "gone"),
        ({"HANDLER": "tests.contrib.shop.money.parents_of"}, "E002", "must take (event, order)"),
        ({"HANDLER": "tests.contrib.project.SECRET_KEY"}, "E002", "no plain function"),
        ({"ORDER_MODEL": None}, "E001", "['ORDER_MODEL'] is missing"),
        ({"ORDER_MODEL": "shop.Gone"}, "E001", "there is no model 'shop.Gone'"),
        ({"ORDER_MODEL": "shop.User"}, "E003", "no field for the column provider_referans"),
        ({"MONEY_MODELS": ["shop.Gone"]}, "E001", "there is no model"),
        ({"MONEY_MODELS": "shop.User"}, "E001", "must be a list"),
        ({"HANDLER_TIMEOUT": "60"}, "E001", "must be a number above 0"),
        ({"POLL": 0}, "E001", "must be a number above 0"),
        ({"CONFIG": 5}, "E001", "must be a string"),
        ({"HANDLERS": "x"}, "E001", "has no key HANDLERS"),
    ],
)
def test_the_settings_are_checked(changes: dict[str, Any], code: str, said: str) -> None:
    with configured(**changes):
        ((id_, text),) = found()
    assert (id_, said in text) == (code, True), text


class Elsewhere:
    """A router that keeps one table in another database."""

    def __init__(self, model: str) -> None:
        self._model = model

    def db_for_write(self, model: Any, **_: Any) -> str | None:
        return "other" if model.__name__ == self._model else None


@pytest.mark.long
@pytest.mark.parametrize("model", ["User", "OrderEvent", "Attempt"])
def test_two_databases_are_refused(django_shop: DjangoShop, model: str) -> None:
    django_shop.ended()
    with override_settings(DATABASE_ROUTERS=[Elsewhere(model)]):
        assert [code for code, _ in found()] == ["E004"]
        with pytest.raises(CommandError, match="written in the database 'other'"):
            call_command("consume_order_events", "--once")
    assert django_shop.moved == []


@pytest.mark.long
@pytest.mark.parametrize(
    ("sql", "code", "said"),
    [
        (
            "ALTER TABLE order_monitor_events DROP COLUMN cause",
            "E008",
            "cause: it is of an older version. Run order-monitor migrate.",
        ),
        (
            "ALTER TABLE product_orders DROP COLUMN provider_referans",
            "E008",
            "no column provider_referans",
        ),
        ("DROP TABLE order_monitor_events CASCADE", "E007", "no table order_monitor_events"),
        ("DROP TABLE order_monitor_attempts", "E007", "manage.py migrate"),
    ],
)
def test_what_is_missing_is_told(django_shop: DjangoShop, sql: str, code: str, said: str) -> None:
    django_shop.sql.execute(sql)
    ((id_, text),) = found(databases=["default"])
    assert (id_, said in text) == (code, True), text
    with pytest.raises(CommandError):
        call_command("consume_order_events", "--once")


def test_a_newer_table_is_worth_a_word(django_shop: DjangoShop) -> None:
    django_shop.sql.execute("ALTER TABLE order_monitor_events ADD COLUMN mood text")
    assert [code for code, _ in found(databases=["default"])] == ["W003"]


def test_a_missing_right_is_told_as_sql(django_shop: DjangoShop) -> None:
    role = f"r{uuid.uuid4().hex}"
    django_shop.sql.execute(
        f"CREATE ROLE {role} LOGIN PASSWORD 'pw'; GRANT SELECT ON ALL TABLES IN SCHEMA public TO {role}"
    )
    order_id = django_shop.ended()
    try:
        point_to(f"postgresql://{role}:pw@{django_shop.dsn.partition('@')[2]}")
        ((code, text),) = found(databases=["default"])
        assert code == "E009"
        grants = text.partition(" lacks rights. ")[2]
        with pytest.raises(CommandError, match="GRANT"):
            call_command("consume_order_events", "--once")
        django_shop.sql.execute(grants)
        assert found(databases=["default"]) == []
        django_shop.sql.execute(
            f"GRANT INSERT, UPDATE ON wallet_entries, users TO {role}; GRANT USAGE ON ALL SEQUENCES IN SCHEMA public TO {role}"
        )
        call_command("consume_order_events", "--once")
        assert django_shop.moved == [(order_id, "debit")]
    finally:
        point_to(django_shop.dsn)
        django_shop.sql.execute(f"DROP OWNED BY {role}; DROP ROLE {role}")


def test_no_database_is_told(django_shop: DjangoShop) -> None:
    point_to("postgresql://nobody@/none?host=/nowhere")
    try:
        assert [code for code, _ in found(databases=["default"])] == ["W002"]
        with pytest.raises(CommandError, match="cannot be asked"):
            call_command("consume_order_events", "--once")
    finally:
        point_to(django_shop.dsn)


# --- migrations


@pytest.fixture
def bare_dsn(server: EmbeddedPostgres, tmp_path: Path) -> Iterator[str]:
    """A database without anything of ours."""
    name = databases.create(server)
    toml = tmp_path / "monitor.toml"
    toml.write_text(MONITOR_TOML.format(dsn=server.dsn(name), url="http://127.0.0.1:1"))
    project.ORDER_MONITOR["CONFIG"] = str(toml)
    point_to(server.dsn(name))
    yield server.dsn(name)
    point_to(server.dsn())
    databases.drop(server, name)


def laid(dsn: str) -> None:
    with psycopg.connect(dsn, autocommit=True) as own:
        own.execute(SCHEMA)


_SHAPE = """
SELECT c.relname::text, a.attname::text, format_type(a.atttypid, a.atttypmod), a.attnotnull, pg_get_expr(d.adbin, d.adrelid),
       CASE WHEN c.relkind = 'i' THEN pg_get_indexdef(c.oid) END
  FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 LEFT JOIN pg_attrdef d
    ON d.adrelid = c.oid AND d.adnum = a.attnum
 WHERE c.relnamespace = 'public'::regnamespace AND c.relkind IN ('r', 'i') AND c.relname ~ '^(order_monitor_|product_orders)'
   AND c.relname !~ '^order_monitor_(attempts|consumer)' ORDER BY 1, a.attnum
"""


@pytest.mark.long
def test_the_migrations_are_those_of_the_command(bare_dsn: str, django_shop: DjangoShop) -> None:
    """Django migrated django_shop."""
    laid(bare_dsn)
    toml = django_shop.toml.read_text().replace(django_shop.dsn, bare_dsn)
    django_shop.toml.write_text(toml)
    said = run(load(), ["migrate"])
    assert said.code == 0, said.text
    with psycopg.connect(bare_dsn) as own:
        assert own.execute(_SHAPE).fetchall() == django_shop.sql.execute(_SHAPE).fetchall()


@pytest.mark.long
def test_both_ways_of_naming_the_database_are_told(bare_dsn: str) -> None:
    """Settings with the database in parts refuse an additional DSN."""
    laid(bare_dsn)
    toml = Path(project.ORDER_MONITOR["CONFIG"])  # type: ignore[arg-type]
    toml.write_text(
        toml.read_text().replace(
            f'dsn = "{bare_dsn}"', 'host = "nowhere"\nuser = "x"\npassword = "y"\nname = "z"'
        )
    )
    call_command("migrate", "order_monitor", verbosity=0)
    with psycopg.connect(bare_dsn) as own:
        assert own.execute("SELECT count(*) FROM order_monitor_events").fetchone() == (0,)


@pytest.mark.long
def test_what_migrate_refuses_is_told(bare_dsn: str) -> None:
    laid(bare_dsn)
    with psycopg.connect(bare_dsn, autocommit=True) as own:
        own.execute('ALTER TABLE product_orders DROP COLUMN "externalStatus"')
    with pytest.raises(Exception, match="order-monitor migrate ended with"):
        call_command("migrate", "order_monitor", verbosity=0)


def test_without_orders_nothing_is_added(bare_dsn: str) -> None:
    """As in a project's test database, where the shop's own tables do not exist."""
    call_command("migrate", verbosity=0)
    call_command("migrate", "order_monitor", "zero", verbosity=0)
    call_command("migrate", verbosity=0)
    with psycopg.connect(bare_dsn) as own:
        assert own.execute("SELECT to_regclass('order_monitor_events')::text").fetchone() == (None,)


@pytest.mark.long
def test_what_it_adds_can_be_read_first(bare_dsn: str) -> None:
    laid(bare_dsn)
    out = StringIO()
    call_command("sqlmigrate", "order_monitor", "0001", stdout=out)
    assert "CREATE TABLE IF NOT EXISTS" in out.getvalue()
    assert "CONCURRENTLY" in out.getvalue()
    call_command("migrate", verbosity=0)
    assert found(databases=["default"]) == []
    call_command("makemigrations", "--check", "--dry-run", "order_monitor", verbosity=0)


@pytest.mark.long
@pytest.mark.parametrize("to", ["zero", "0001", "0002"])
def test_undoing_it_takes_nothing_away(django_shop: DjangoShop, to: str) -> None:
    """Without the start and the attempts, money could move twice or not at all."""
    django_shop.sql.execute("UPDATE order_monitor_consumer SET since = 7, late = '{3,5}'")
    django_shop.sql.execute(
        "INSERT INTO order_monitor_attempts (event_id, order_id, attempts, unfinished, first_at, last_at, next_at, error, failing) "
        "VALUES (9, 'x', 3, 0, now(), now(), now(), 'no', true)"
    )
    call_command("migrate", "order_monitor", to, verbosity=0)
    call_command("migrate", "order_monitor", verbosity=0)
    assert django_shop.one("SELECT since, late FROM order_monitor_consumer") == (7, [3, 5])
    assert django_shop.one("SELECT attempts, failing FROM order_monitor_attempts") == (3, True)
    assert found(databases=["default"]) == []


def test_older_tables_get_the_new_columns(django_shop: DjangoShop) -> None:
    """With defaults, for consumers of the older version that still run."""
    call_command("migrate", "order_monitor", "0002", verbosity=0)
    django_shop.sql.execute(
        "ALTER TABLE order_monitor_attempts DROP COLUMN failing; ALTER TABLE order_monitor_consumer DROP COLUMN late"
    )
    assert [code for code, _ in found(databases=["default"])] == ["W001"]
    with pytest.raises(CommandError, match="has no column failing"):
        call_command("consume_order_events", "--once")
    call_command("migrate", "order_monitor", verbosity=0)
    assert found(databases=["default"]) == []
    django_shop.sql.execute(
        "INSERT INTO order_monitor_attempts (event_id, order_id, attempts, unfinished, first_at, last_at, next_at, error) "
        "VALUES (9, 'x', 3, 0, now(), now(), now(), 'no')"
    )
    assert django_shop.one("SELECT failing FROM order_monitor_attempts") is False
    assert django_shop.one("SELECT since, late FROM order_monitor_consumer") == (0, [])


def test_before_the_migrations_the_check_only_warns(bare_dsn: str) -> None:
    """An error would stop `migrate`."""
    laid(bare_dsn)
    assert [code for code, _ in found(databases=["default"])] == ["W001"]


# --- the dispatch


def test_the_reference_is_kept(django_shop: DjangoShop) -> None:
    order = ProductOrder.objects.get(
        pk=django_shop.order(status="not_sent", provider_referans=None)
    )
    first = new_reference()
    assert (first.isdecimal(), len(first)) == (True, 16)
    for given in (first, 12345, str(order.pk)):
        remember_reference(order, given)
        assert django_shop.one("SELECT provider_referans FROM product_orders") == str(given)
    order.save()
    assert django_shop.one("SELECT provider_referans FROM product_orders") == str(order.pk)
    assert django_shop.one('SELECT "externalStatus" FROM product_orders') == "not_sent"


@pytest.mark.parametrize("given", ["", "  ", "x" * 256, "a\x00b", "a\nb"])
def test_what_is_no_reference_is_refused(django_shop: DjangoShop, given: str) -> None:
    order = ProductOrder.objects.get(pk=django_shop.order())
    with pytest.raises(ValueError, match="a reference is"):
        remember_reference(order, given)
    assert django_shop.one("SELECT provider_referans FROM product_orders").startswith("r-")


def test_a_reference_in_a_transaction_is_refused(django_shop: DjangoShop) -> None:
    """A crash would undo the reference although the order is sent."""
    order = ProductOrder.objects.get(pk=django_shop.order())
    with transaction.atomic(), pytest.raises(RuntimeError):
        remember_reference(order, "1")


def test_an_order_that_is_gone_has_no_reference(django_shop: DjangoShop) -> None:
    order = ProductOrder.objects.get(pk=django_shop.order())
    django_shop.sql.execute("DELETE FROM product_orders")
    with pytest.raises(ProductOrder.DoesNotExist):
        remember_reference(order, "1")


# --- the book


def test_the_handler_of_the_book(django_shop: DjangoShop, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[Any] = []
    monkeypatch.setitem(sys.modules, "orders.models", models)
    monkeypatch.setitem(sys.modules, "orders.money", money)
    monkeypatch.setitem(
        sys.modules, "orders.mails", SimpleNamespace(tell_customer=lambda *args: told.append(args))
    )
    monkeypatch.setitem(
        sys.modules, "orders.znet", SimpleNamespace(send_to_znet=lambda *args: told.append(args))
    )
    handler, dispatch = ModuleType("handler"), ModuleType("dispatch")
    exec(readme.block("python", "from orders.mails"), vars(handler))
    root = django_shop.order(status="forwarded")
    order_id = django_shop.order(root_order_id=root)
    rejected = django_shop.ended("failed")
    django_shop.event(order_id)
    monkeypatch.setattr(sys.modules[__name__], "handler_of_the_book", handler.handle, raising=False)
    with configured(HANDLER=f"{__name__}.handler_of_the_book"):
        call_command("consume_order_events", "--once")
        assert [one[1] for one in told] == ["rejected", "approved"]
        assert sorted(django_shop.moved) == sorted(
            [(rejected, "refund"), (order_id, "debit"), (root, "debit")]
        )
        django_shop.sql.execute(
            "UPDATE product_orders SET \"pinCode\" = 'AB12' WHERE id = %s", [order_id]
        )
        django_shop.event(order_id, repeat=True, has_pin=True)
        call_command("consume_order_events", "--once")
        # A person gave the money back, or another PIN, before the late one came.
        parents = {"rejected": None, "approved": "BY-HAND"}
        for status, pin in parents.items():
            parent = django_shop.order(pinCode=pin)
            django_shop.sql.execute(
                "UPDATE product_orders SET status = %s WHERE id = %s", [status, parent]
            )
            child = django_shop.order(root_order_id=parent, pinCode="CD34")
            django_shop.event(child, repeat=True, has_pin=True)
            call_command("consume_order_events", "--once")
            assert (
                django_shop.one('SELECT "pinCode" FROM product_orders WHERE id = %s', parent) == pin
            )
    assert django_shop.one('SELECT "pinCode" FROM product_orders WHERE id = %s', root) == "AB12"
    assert len(django_shop.moved) == 3
    (found,) = [
        b
        for b in re.findall(
            r"^```python\n(.*?)^```$", readme.PAGES["django.md"], re.MULTILINE | re.DOTALL
        )
        if "def dispatch" in b
    ]
    exec(found, vars(dispatch))
    order = models.ProductOrder.objects.get(pk=root)
    dispatch.dispatch(order)
    row = django_shop.one(
        'SELECT provider_referans, "externalStatus" FROM product_orders WHERE id = %s', root
    )
    assert row == (told[-1][1], "sent")


# --- the webhook's receiver


def post(shop: DjangoShop, event_id: int, *, secret: str | None = None, **changes: Any) -> int:
    """Post a signed event; return the response's status."""
    uid = changes.pop("uid", None) or str(
        shop.one("SELECT uid::text FROM order_monitor_events WHERE id = %s", event_id)
    )
    body = json.dumps(
        {"type": "order.completed", "timestamp": "x", "data": {"id": event_id, "uid": uid}}
    )
    at = datetime.now(UTC)
    signature = Webhook(secret or str(project.ORDER_MONITOR["WEBHOOK_SECRET"])).sign(uid, at, body)
    headers = {
        "webhook-id": uid,
        "webhook-timestamp": str(int(at.timestamp())),
        "webhook-signature": signature,
    }
    response = Client(raise_request_exception=False).post(
        "/hooks/orders", body, content_type="application/json", headers=headers
    )
    return int(response.status_code)


def test_a_posted_event_is_acted_on_once(django_shop: DjangoShop) -> None:
    order_id = django_shop.ended()
    (event_id,) = django_shop.unconsumed
    assert post(django_shop, event_id) == 200
    assert post(django_shop, event_id) == 200
    call_command("consume_order_events", "--once")
    assert django_shop.moved == [(order_id, "debit")]
    other = django_shop.ended()
    (event_id,) = django_shop.unconsumed
    call_command("consume_order_events", "--once")
    assert post(django_shop, event_id) == 200
    assert django_shop.moved == [(order_id, "debit"), (other, "debit")]


def test_an_older_events_name_is_its_number(django_shop: DjangoShop) -> None:
    django_shop.ended()
    (event_id,) = django_shop.unconsumed
    assert post(django_shop, event_id, uid=str(event_id)) == 404, "it has a name of its own"
    django_shop.sql.execute("UPDATE order_monitor_events SET uid = NULL")
    assert post(django_shop, event_id, uid=str(event_id)) == 200
    assert len(django_shop.moved) == 1


def test_a_number_alone_does_not_identify_an_event(django_shop: DjangoShop) -> None:
    """After a restore, another event may have it."""
    django_shop.ended()
    django_shop.ended()
    first, second = django_shop.unconsumed
    uid = django_shop.one("SELECT uid::text FROM order_monitor_events WHERE id = %s", second)
    assert post(django_shop, first, uid=uid) == 404
    assert post(django_shop, 2**70, uid=uid) == 404
    assert django_shop.moved == []
    assert post(django_shop, second, uid=uid) == 200


def test_what_the_daemon_did_not_sign_is_refused(django_shop: DjangoShop) -> None:
    django_shop.ended()
    (event_id,) = django_shop.unconsumed
    assert post(django_shop, event_id, secret="whsec_bm90IHRoZSBzZWNyZXQgb2YgdGhlIHNob3A=") == 401
    assert Client().post("/hooks/orders", "{}", content_type="application/json").status_code == 401
    assert Client().get("/hooks/orders").status_code == 405
    assert (
        Client().post("/hooks/orders", "x" * 70_000, content_type="text/plain").status_code == 413
    )
    assert post(django_shop, event_id, uid=str(uuid.uuid4())) == 404
    assert django_shop.moved == []


def test_what_cannot_be_acted_on_now_is_posted_again(django_shop: DjangoShop) -> None:
    order_id = django_shop.ended()
    event_id, later = *django_shop.unconsumed, django_shop.event(order_id, "processing")
    queue(django_shop, event_id, later)
    assert post(django_shop, later) == 503
    with psycopg.connect(django_shop.dsn) as other:
        other.execute(
            "UPDATE order_monitor_events SET consumed_at = now() WHERE id = %s", [event_id]
        )
        assert post(django_shop, event_id) == 503
        other.rollback()
    with configured(HANDLER=f"{__name__}.refuses", FIRST_PAUSE=60):
        assert post(django_shop, event_id) == 500
        assert post(django_shop, event_id) == 503
    assert django_shop.attempt(event_id) == (1, False, "ValueError: not today")
    assert django_shop.moved == []


def refuses(event: Any, order: Any) -> None:
    raise ValueError("not today")


def queue(shop: DjangoShop, *event_ids: int, delivered: bool = False) -> None:
    """Queue events for the webhook, as the daemon does."""
    shop.sql.execute(
        "INSERT INTO order_monitor_deliveries (event_id, order_id, delivered_at) "
        "SELECT id, order_id, CASE WHEN %s THEN now() END FROM order_monitor_events WHERE id = ANY(%s)",
        [delivered, list(event_ids)],
    )


@pytest.mark.parametrize("is_delivered", [True, False])
def test_what_is_never_posted_blocks_nothing(
    django_shop: DjangoShop, *, is_delivered: bool
) -> None:
    """It is older than the webhook, or another receiver has accepted it."""
    order_id = django_shop.ended()
    old, event_id = *django_shop.unconsumed, django_shop.event(order_id)
    if is_delivered:
        queue(django_shop, old, delivered=True)
    queue(django_shop, event_id)
    assert post(django_shop, event_id) == 200
    assert (django_shop.moved, django_shop.unconsumed) == ([(order_id, "debit")], [old])


def test_what_the_handler_failed_on_blocks_its_order(django_shop: DjangoShop) -> None:
    order_id = django_shop.ended()
    event_id, later = *django_shop.unconsumed, django_shop.event(order_id, "failed")
    with configured(HANDLER=f"{__name__}.refuses"):
        assert post(django_shop, event_id) == 500
    assert post(django_shop, later) == 503


def test_a_receiver_sees_that_the_handler_is_broken(django_shop: DjangoShop) -> None:
    """Each request begins without any memory."""
    for _ in range(6):
        django_shop.ended()
    with configured(HANDLER=f"{__name__}.refuses", MAX_ATTEMPTS=2):
        for _ in range(4):
            for event_id in django_shop.unconsumed:
                assert post(django_shop, event_id) == 500
            django_shop.sql.execute("UPDATE order_monitor_attempts SET next_at = now()")
    aside = django_shop.all("SELECT set_aside_at FROM order_monitor_attempts")
    assert aside == [None] * 6
    for event_id in django_shop.unconsumed:
        assert post(django_shop, event_id) == 200
    assert len(django_shop.moved) == 6


def born(shop: DjangoShop) -> int:
    """An event that a process with ``events.consumer = "none"`` has written."""
    shop.ended("failed")
    event_id = shop.unconsumed[-1]
    shop.sql.execute(
        "UPDATE order_monitor_events SET consumed_at = decided_at, decided_by = 'cron' WHERE id = %s",
        [event_id],
    )
    return event_id


def test_no_field_needs_an_app_that_is_not_installed() -> None:
    """Django 6.0 refuses each command for it."""
    for model in apps.get_app_config("order_monitor").get_models():
        assert [one.id for one in model.check(databases=["default"]) if one.is_serious()] == []


def test_an_event_written_as_consumed_is_found_among_very_many(django_shop: DjangoShop) -> None:
    event_id = born(django_shop)
    django_shop.sql.execute(
        "INSERT INTO order_monitor_events (order_id, outcome, to_status, has_pin, decided_by, decided_at, consumed_at) "
        "SELECT gen_random_uuid(), 'processing', 'processing', false, 'x', now(), now() + interval '1 s' "
        "FROM generate_series(1, 1100)"
    )
    out = StringIO()
    call_command("order_events_in_trouble", stdout=out)
    assert out.getvalue().startswith(f"{event_id} ")


def test_an_event_before_the_start_is_not_said_to_be_tried_again(django_shop: DjangoShop) -> None:
    event_id = born(django_shop)
    django_shop.sql.execute("UPDATE order_monitor_consumer SET since = %s", [event_id + 1])
    with pytest.raises(CommandError, match="none of these"):
        call_command("order_events_in_trouble", "--retry", str(event_id))
    ((consumed,),) = django_shop.sql.execute(
        "SELECT consumed_at IS NOT NULL FROM order_monitor_events WHERE id = %s", [event_id]
    ).fetchall()
    assert consumed


@pytest.mark.parametrize("is_posted", [True, False])
def test_an_event_that_was_written_as_consumed_is_told(
    django_shop: DjangoShop, caplog: pytest.LogCaptureFixture, *, is_posted: bool
) -> None:
    """Nobody has acted on it: to say that it is done would lose its money."""
    event_id = born(django_shop)
    if is_posted:
        queue(django_shop, event_id)
        django_shop.sql.execute("DELETE FROM order_monitor_consumer")
    assert post(django_shop, event_id) == 500
    assert f"Event {event_id} was written as consumed by cron" in caplog.text
    ((code, said),) = found(databases=["default"])
    assert (code, f"Event {event_id} " in said) == ("W004", True)
    out = StringIO()
    call_command("order_events_in_trouble", stdout=out)
    assert "was written as consumed" in out.getvalue()
    call_command("order_events_in_trouble", "--retry", str(event_id), stdout=out)
    assert found(databases=["default"]) == []
    assert post(django_shop, event_id) == 200
    assert len(django_shop.moved) == 1


def test_the_consumer_tells_of_it_and_goes_on(
    django_shop: DjangoShop, caplog: pytest.LogCaptureFixture
) -> None:
    event_id, other = born(django_shop), django_shop.ended()
    call_command("consume_order_events", "--once")
    assert f"Event {event_id} was written as consumed by cron" in caplog.text
    assert django_shop.moved == [(other, "debit")]
    assert found(databases=["default"])
    call_command(
        "order_events_in_trouble",
        "--done",
        str(event_id),
        "--reason",
        "refunded by hand",
        stdout=StringIO(),
    )
    assert found(databases=["default"]) == []
    assert post(django_shop, event_id) == 200
    assert django_shop.moved == [(other, "debit")]


def test_before_the_start_it_is_nobodys_business(django_shop: DjangoShop) -> None:
    """A shop that used no events has a whole past of them."""
    born(django_shop)
    call_command("consume_order_events", "--once", "--from=now")
    assert found(databases=["default"]) == []


class AllElsewhere:
    """A router that keeps everything in another database."""

    def db_for_read(self, model: Any, **_: Any) -> str:
        return "other"

    db_for_write = db_for_read


@pytest.mark.parametrize("alias", ["default", "other"])
def test_the_receiver_is_its_own_transaction(
    django_shop: DjangoShop, monkeypatch: pytest.MonkeyPatch, alias: str
) -> None:
    django_shop.ended()
    (event_id,) = django_shop.unconsumed
    monkeypatch.setitem(connections.settings[alias], "ATOMIC_REQUESTS", True)
    with override_settings(DATABASE_ROUTERS=[AllElsewhere()] if alias == "other" else []):
        assert post(django_shop, event_id) == 200
    assert len(django_shop.moved) == 1


def test_without_a_secret_nothing_is_taken(django_shop: DjangoShop) -> None:
    django_shop.ended()
    (event_id,) = django_shop.unconsumed
    with configured(WEBHOOK_SECRET=None):
        assert post(django_shop, event_id) == 500
    assert connection.vendor == connections["other"].vendor
    assert len(django_shop.unconsumed) == 1
