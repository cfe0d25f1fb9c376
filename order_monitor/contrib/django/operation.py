"""Migration operations: one that runs ``order-monitor migrate``, and two that take nothing away when
they are undone.
"""

from __future__ import annotations

from typing import Any
from urllib.parse import quote, urlencode

from django.core.exceptions import ImproperlyConfigured
from django.db.migrations.operations import AddField, CreateModel
from django.db.migrations.operations.base import Operation

from order_monitor.contrib.django.command_line import Said, run
from order_monitor.contrib.django.conf import Config, load

_BAD_SETTINGS = 2
_OF_TLS = ("sslmode", "sslrootcert", "sslcert", "sslkey")


class _Kept(Operation):
    """Takes nothing away when it is undone."""

    def database_backwards(
        self, app_label: str, schema_editor: Any, from_state: Any, to_state: Any
    ) -> None:
        """Keep everything."""


class MigrateOrderMonitor(_Kept):
    """Adds what order-monitor needs while the shop runs: the same command, with Django's own login.

    Reversing it removes nothing: the events record what happened to money. Without an orders table,
    as in a test database, it does nothing.
    """

    reversible = True
    reduces_to_sql = True
    atomic = False

    def state_forwards(self, app_label: str, state: Any) -> None:
        """Change no model state."""

    def database_forwards(
        self, app_label: str, schema_editor: Any, from_state: Any, to_state: Any
    ) -> None:
        """Run it; for ``sqlmigrate`` show what it would do."""
        config, connection = load(), schema_editor.connection
        if connection.vendor != "postgresql" or connection.alias != config.alias:
            return
        with connection.cursor() as cursor:
            cursor.execute(
                "SELECT to_regclass(quote_ident(%s)) IS NOT NULL", [config.model._meta.db_table]
            )
            if not cursor.fetchone()[0]:
                return
        if schema_editor.collect_sql:
            schema_editor.collected_sql += _run(config, connection, "--dry-run").text.splitlines()
            return
        said = _run(config, connection)
        if said.code:
            raise ImproperlyConfigured(
                f"order-monitor migrate ended with {said.code}:\n{said.text}"
            )

    def describe(self) -> str:
        """The description in ``migrate --plan``."""
        return "order-monitor migrate"


class CreateKept(_Kept, CreateModel):
    """Creates a table, unless an earlier time has left it; undoing it leaves the table.

    Its rows say which events have been acted on: without them, money could move twice or not at all.
    """

    def database_forwards(
        self, app_label: str, schema_editor: Any, from_state: Any, to_state: Any
    ) -> None:
        """Create the table if it is not there."""
        table = to_state.apps.get_model(app_label, self.name)._meta.db_table
        if schema_editor.collect_sql or table not in _tables(schema_editor):
            super().database_forwards(app_label, schema_editor, from_state, to_state)


class AddKept(_Kept, AddField):
    """Adds a column, unless an earlier time has left it; undoing it leaves the column."""

    def database_forwards(
        self, app_label: str, schema_editor: Any, from_state: Any, to_state: Any
    ) -> None:
        """Add the column if it is not there."""
        meta = to_state.apps.get_model(app_label, self.model_name)._meta
        column = meta.get_field(self.name).column
        if schema_editor.collect_sql or column not in _columns(schema_editor, meta.db_table):
            super().database_forwards(app_label, schema_editor, from_state, to_state)


def _tables(schema_editor: Any) -> list[str]:
    connection = schema_editor.connection
    with connection.cursor() as cursor:
        return list(connection.introspection.table_names(cursor))


def _columns(schema_editor: Any, table: str) -> list[str]:
    """Return a table's columns; none if it does not exist, for example because a database router excludes it."""
    if table not in _tables(schema_editor):
        return []
    connection = schema_editor.connection
    with connection.cursor() as cursor:
        found = connection.introspection.get_table_description(cursor, table)
    return [one.name for one in found]


def _run(config: Config, connection: Any, *options: str) -> Said:
    """Run it on Django's database.

    The settings file may give its own database as one DSN or in parts: the login is passed in the
    same form.
    """
    given = connection.settings_dict
    name, user, password = (str(given.get(key) or "") for key in ("NAME", "USER", "PASSWORD"))
    host, port = str(given.get("HOST") or "localhost"), str(given.get("PORT") or "5432")
    tls = {key: str(value) for key, value in given.get("OPTIONS", {}).items() if key in _OF_TLS}
    query = urlencode({"host": host, "port": port, **tls})
    dsn = f"postgresql://{quote(user, safe='')}:{quote(password, safe='')}@/{quote(name, safe='')}?{query}"
    said = run(config, ["migrate", *options], env={"ORDER_MONITOR_DATABASE__DSN": dsn})
    if said.code == _BAD_SETTINGS:
        parts = {"HOST": host, "PORT": port, "USER": user, "PASSWORD": password, "NAME": name}
        in_parts = {
            f"ORDER_MONITOR_DATABASE__{key}": value for key, value in parts.items() if value
        }
        again = run(config, ["migrate", *options], env=in_parts)
        return again if again.code != _BAD_SETTINGS else said
    return said
