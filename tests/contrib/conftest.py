"""A Django project in this process, over a database with the running shop's tables."""

import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import django
import psycopg
import pytest
from django.conf import settings as django_settings

from order_monitor.demo.postgres import EmbeddedPostgres
from tests.conftest import CITUS
from tests.contrib import project
from tests.contrib.address import database_of
from tests.support import databases

if not django_settings.configured:
    django_settings.configure(
        **{name: value for name, value in vars(project).items() if name.isupper()}
    )
    django.setup()

SCHEMA = (Path(__file__).parent / "schema.sql").read_text("utf-8")
MONITOR_TOML = """
[database]
dsn = "{dsn}"

[provider]
base_url = "{url}"
kod = "kod"
sifre = "sifre"
allow_http = true
balance_interval = 0

[statuses]
open = ["sent", "pending", "processing", "queued", "unknown"]
completed = "done"
settled = ["approved", "rejected"]

[schedule]
first_check = 0.2
base = 0.3
cap = 1
scan_interval = 0.2
await_pin = 0

[limits]
calls_per_second = 1000

[health]
port = 0
"""


def point_to(dsn: str) -> None:
    """Connect Django to this database from now on."""
    from django.db import connections

    for alias in ("default", "other"):
        connections[alias].close()
        connections[alias].settings_dict.update(database_of(dsn))


@dataclass
class DjangoShop:
    """The shop's database, through a separate connection."""

    dsn: str
    toml: Path
    sql: "psycopg.Connection[Any]"
    users: list[str] = field(default_factory=list)

    def user(self, balance: int = 1000) -> str:
        """Add a customer; return the id."""
        made = str(uuid.uuid4())
        self.sql.execute("INSERT INTO users (id, balance) VALUES (%s, %s)", [made, balance])
        self.users.append(made)
        return made

    def order(self, *, status: str = "done", **more: Any) -> str:
        """Add an order; return its id."""
        made = str(uuid.uuid4())
        values = {
            "id": made,
            "userId": more.pop("user", None) or (self.users[0] if self.users else self.user()),
            "price": 10,
            "externalStatus": status,
            "provider_referans": f"r-{made[:8]}",
            **more,
        }
        names = ", ".join(f'"{name}"' for name in values)
        marks = ", ".join(["%s"] * len(values))
        self.sql.execute(
            f'INSERT INTO product_orders ({names}, "sentAt") VALUES ({marks}, clock_timestamp())',
            list(values.values()),
        )
        return made

    def event(
        self,
        order_id: str,
        outcome: str = "completed",
        *,
        repeat: bool = False,
        has_pin: bool = False,
    ) -> int:
        """Write an end as the daemon does; return the event's number."""
        word = {"completed": "done"}.get(outcome, outcome)
        with self.sql.transaction():
            row = self.sql.execute(
                "INSERT INTO order_monitor_events (order_id, from_status, to_status, has_pin, repeat, outcome, source, cause, "
                "account, reference, sent_at) VALUES (%s, 'sent', %s, %s, %s, %s, 'program', 'answer', 'default', 'r', now()) "
                "RETURNING id",
                [order_id, word, has_pin, repeat, outcome],
            ).fetchone()
            assert row is not None
            self.sql.execute("SELECT pg_notify('order_monitor', %s)", [str(row[0])])
        return int(row[0])

    def ended(self, outcome: str = "completed", **more: Any) -> str:
        """Add an order that has ended, with its event; return its id."""
        made = self.order(**more)
        self.event(made, outcome)
        return made

    def all(self, sql: str, *values: Any) -> list[Any]:
        """Return the rows or, for a single column, its values."""
        rows = self.sql.execute(sql, values).fetchall()
        return [row[0] if len(row) == 1 else row for row in rows]

    def one(self, sql: str, *values: Any) -> Any:
        return self.all(sql, *values)[0]

    @property
    def unconsumed(self) -> list[int]:
        return self.all("SELECT id FROM order_monitor_events WHERE consumed_at IS NULL ORDER BY id")

    @property
    def moved(self) -> list[tuple[str, str]]:
        """The movements of money: the order, and the kind."""
        return self.all("SELECT order_id::text, kind FROM wallet_entries ORDER BY id")

    def attempt(self, event_id: int) -> tuple[int, bool, str]:
        """How often an event was tried, whether it is set aside, and its error."""
        return self.one(
            "SELECT attempts, set_aside_at IS NOT NULL, error FROM order_monitor_attempts WHERE event_id = %s",
            event_id,
        )


@pytest.fixture(scope="session")
def django_template(server: EmbeddedPostgres, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The name of a database after `manage.py migrate`, which runs `order-monitor migrate`."""
    from django.core.management import call_command

    name = databases.create(server)
    with psycopg.connect(server.dsn(name), autocommit=True) as connection:
        connection.execute(SCHEMA)
    toml = tmp_path_factory.mktemp("migrate") / "monitor.toml"
    toml.write_text(MONITOR_TOML.format(dsn=server.dsn(name), url="http://127.0.0.1:1"))
    project.ORDER_MONITOR["CONFIG"] = str(toml)
    point_to(server.dsn(name))
    call_command("migrate", verbosity=0)
    point_to(server.dsn())
    return name


@pytest.fixture
def django_shop(
    server: EmbeddedPostgres, django_template: str, tmp_path: Path
) -> Iterator[DjangoShop]:
    if CITUS is not None:
        pytest.skip("the app is tested on PostgreSQL alone")
    name = databases.create(server, django_template)
    toml = tmp_path / "monitor.toml"
    toml.write_text(MONITOR_TOML.format(dsn=server.dsn(name), url="http://127.0.0.1:1"))
    project.ORDER_MONITOR["CONFIG"] = str(toml)
    point_to(server.dsn(name))
    connection = psycopg.connect(server.dsn(name), autocommit=True)
    try:
        connection.execute(
            "UPDATE order_monitor_settings SET value = '-infinity' WHERE name LIKE 'first%'"
        )
        connection.execute(
            "INSERT INTO order_monitor_consumer (id, since, set_at) VALUES (1, 0, now())"
        )
        yield DjangoShop(server.dsn(name), toml, connection)
    finally:
        connection.close()
        point_to(server.dsn())
        databases.drop(server, name)
