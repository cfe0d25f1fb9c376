"""System checks: whether the settings, the tables and the rights meet the consumer's needs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from django.apps import apps
from django.core.checks import CheckMessage, Error, Warning  # noqa: A004 - Django's own name
from django.core.exceptions import ImproperlyConfigured
from django.db import DatabaseError, connections, router
from django.db.migrations.loader import MigrationLoader

from order_monitor.contrib.django.conf import Config, handler_of, load, model_of
from order_monitor.contrib.django.consumer import BORN_HINT, born_sql, born_words
from order_monitor.contrib.django.event import EVENTS, KNOWN
from order_monitor.contrib.django.reference import COLUMN

LABEL: Final = "order_monitor"
DELIVERIES: Final = "order_monitor_deliveries"
_OWN: Final = ("order_monitor_attempts", "order_monitor_consumer")
_MODELS: Final = ("Attempt", "Start")

_STANDING: Final = """
SELECT c.relname::text, (SELECT array_agg(a.attname::text) FROM pg_catalog.pg_attribute a
         WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped),
       has_table_privilege(c.oid, 'SELECT'), has_any_column_privilege(c.oid, 'UPDATE'),
       has_table_privilege(c.oid, 'INSERT') AND has_table_privilege(c.oid, 'UPDATE') AND has_table_privilege(c.oid, 'DELETE')
  FROM unnest(%s::text[]) AS n(name) JOIN pg_catalog.pg_class c ON c.oid = to_regclass(quote_ident(n.name))
"""


def _error(number: int, text: str, hint: str | None = None) -> CheckMessage:
    return Error(text, hint=hint, id=f"order_monitor.E{number:03}")


def _warning(number: int, text: str, hint: str | None = None) -> CheckMessage:
    return Warning(text, hint=hint, id=f"order_monitor.W{number:03}")


def check_settings(app_configs: Sequence[Any] | None = None, **_: Any) -> list[CheckMessage]:
    """Check everything that needs no database."""
    try:
        config = load()
        config.model  # noqa: B018 - raises
    except ImproperlyConfigured as error:
        return [_error(1, str(error))]
    found: list[CheckMessage] = []
    try:
        handler_of(config)
    except ImproperlyConfigured as error:
        found.append(_error(2, str(error)))
    if all(field.column != COLUMN for field in config.model._meta.concrete_fields):
        text = f"{config.order_model} has no field for the column {COLUMN}."
        hint = f"Add {COLUMN} = models.CharField(max_length=255, null=True) to it."
        found.append(_error(3, text, hint))
    return [*found, *_aliases(config)]


def _aliases(config: Config) -> list[CheckMessage]:
    """Whether one transaction covers everything that an event changes."""
    alias = config.alias
    hint = "They must be in one database: else an event could be acted on twice, or not at all."
    found: list[CheckMessage] = []
    models = [
        ("the order events", apps.get_model(LABEL, "OrderEvent")),
        ("attempts", apps.get_model(LABEL, "Attempt")),
    ]
    try:
        models += [(name, model_of("MONEY_MODELS", name)) for name in config.money_models]
    except ImproperlyConfigured as error:
        return [_error(1, str(error))]
    for name, model in models:
        if (other := router.db_for_write(model)) != alias:
            text = (
                f"{name}: written in the database {other!r}, and {config.order_model} in {alias!r}."
            )
            found.append(_error(4, text, hint))
    if connections[alias].vendor != "postgresql":
        found.append(_error(5, f"The database {alias!r} is not PostgreSQL."))
    return found


def check_database(
    app_configs: Sequence[Any] | None = None, databases: Sequence[str] | None = None, **_: Any
) -> list[CheckMessage]:
    """Check the tables, during ``manage.py migrate`` and ``manage.py check --database default``."""
    try:
        config = load()
        connection = connections[config.alias]
        if config.alias not in (databases or ()) or connection.vendor != "postgresql":
            return []
        migrations = MigrationLoader(connection)
        if migrations.graph.leaf_nodes(LABEL)[0] not in migrations.applied_migrations:
            # An error would stop ``migrate`` from creating what is missing.
            text = "The tables of order_monitor are not up to date."
            return [_warning(1, text, "Run manage.py migrate.")]
        found = _tables(config)
        return found if any(one.is_serious() for one in found) else [*found, *_born(config)]
    except ImproperlyConfigured:
        return []  # the other check reports it
    except DatabaseError as error:
        return [_warning(2, f"The tables could not be looked at: {error}".strip())]


def _born(config: Config) -> list[CheckMessage]:
    """Whether a process has written an event as consumed.

    A warning: an error would stop ``migrate`` of every app, and the consumer can still act on all
    other events, and logs this one.
    """
    with connections[config.alias].cursor() as cursor:
        cursor.execute(f"{born_sql(config)} LIMIT 1")
        return [
            _warning(4, born_words(event_id, decided_by), BORN_HINT)
            for event_id, _, decided_by in cursor.fetchall()
        ]


def problems(config: Config) -> list[CheckMessage]:
    """Return everything that would stop the consumer, and the warnings."""
    found = [*_aliases(config)]
    if found:
        return found
    try:
        return _tables(config)
    except DatabaseError as error:
        return [_error(6, f"The database {config.alias!r} cannot be asked: {error}".strip())]


@dataclass(frozen=True, slots=True)
class _Standing:
    """A table's columns, and this role's rights on it.

    ``may_update`` is true if the role may update any of its columns.
    """

    columns: list[str]
    may_select: bool
    may_update: bool
    may_all: bool


def _tables(config: Config) -> list[CheckMessage]:
    table = config.model._meta.db_table
    names = [EVENTS, *_OWN, *([DELIVERIES] if config.webhook_secret else []), table]
    with connections[config.alias].cursor() as cursor:
        cursor.execute("SELECT quote_ident(current_user)")
        role = cursor.fetchone()[0]
        cursor.execute(_STANDING, [names])
        there = {row[0]: _Standing(*row[1:]) for row in cursor.fetchall()}
    found: list[CheckMessage] = []
    migrate = "Run order-monitor migrate."
    hints = {EVENTS: migrate, DELIVERIES: migrate, table: "Is ORDER_MONITOR['ORDER_MODEL'] right?"}
    for name in names:
        if name not in there:
            hint = hints.get(name, "Run manage.py migrate order_monitor.")
            found.append(_error(7, f"There is no table {name}.", hint))
    if EVENTS in there:
        found += _columns(there[EVENTS].columns)
    for name, model in zip(_OWN, _MODELS, strict=True):
        fields = [field.column for field in apps.get_model(LABEL, model)._meta.concrete_fields]
        if name in there and (missing := [f for f in fields if f not in there[name].columns]):
            text = f"{name} has no column {', '.join(missing)}."
            found.append(_error(8, text, "Run manage.py migrate order_monitor."))
    if table in there:
        fields = [field.column for field in config.model._meta.concrete_fields]
        if missing := [name for name in fields if name not in there[table].columns]:
            text = f"{table} has no column {', '.join(missing)}, which {config.order_model} names."
            found.append(_error(8, text))
    if grants := _grants(there, table):
        hint = " ".join(f"GRANT {grant} TO {role};" for grant in grants)
        found.append(_error(9, f"The role {role} lacks rights.", hint))
    return found


def _columns(there: list[str]) -> list[CheckMessage]:
    """Compare the events' columns with those that this version knows."""
    found: list[CheckMessage] = []
    if missing := [name for name in sorted(KNOWN) if name not in there]:
        text = f"{EVENTS} has no column {', '.join(missing)}: it is of an older version."
        found.append(_error(8, text, "Run order-monitor migrate."))
    if new := [name for name in there if name not in KNOWN]:
        text = f"{EVENTS} has columns that this version does not know: {', '.join(new)}."
        hint = "It goes on without them; install the daemon's version of order-monitor here too."
        found.append(_warning(3, text, hint))
    return found


def _grants(there: dict[str, _Standing], table: str) -> list[str]:
    """Return the rights that are missing on existing tables."""
    found = []
    if (events := there.get(EVENTS)) is not None:
        found += [f"SELECT ON {EVENTS}"] * (not events.may_select)
        found += [f"UPDATE (consumed_at) ON {EVENTS}"] * (not events.may_update)
    found += [
        f"SELECT, INSERT, UPDATE, DELETE ON {name}"
        for name in _OWN
        if (own := there.get(name)) is not None and not (own.may_select and own.may_all)
    ]
    if (deliveries := there.get(DELIVERIES)) is not None and not deliveries.may_select:
        found.append(f"SELECT ON {DELIVERIES}")
    orders = there.get(table)
    # Locking a row needs the right to update it.
    if orders is not None and not (orders.may_select and orders.may_update):
        found.append(f"SELECT, UPDATE ON {table}")
    return found
