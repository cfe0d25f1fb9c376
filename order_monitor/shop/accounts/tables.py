"""The provider accounts in the shop's own tables: which one took an order, and its credentials."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final

from order_monitor.core.errors import TableError
from order_monitor.core.login import INTERNAL, KIND_OF, Credentials
from order_monitor.core.order import CONFIGURED, ReferenceFrom, Route
from order_monitor.shop.database import Connection
from order_monitor.shop.schema.columns import Column, Table, columns_of, is_table, qualified
from order_monitor.shop.schema.table_config import DISPATCHES, settings_of

ROUTING: Final = "package_routing"
INTEGRATIONS: Final = "integrations"

_ROUTING_COLUMNS: Final = {
    "id": ("id",),
    "tenant_id": ("tenant_id", "tenantId"),
    "package_id": ("package_id", "packageId"),
    "primary": ("primary_provider_id", "primaryProviderId"),
}
_ROUTING_KIND: Final = ("provider_type", "providerType")
_EXTERNAL: Final = "external"
_ROUTE_NAME: Final = "'route ' || COALESCE(r.tenant, '') || ' ' || r.package"
_UUID: Final = "^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$"

_INTEGRATION_COLUMNS: Final = {
    "id": ("id",),
    "tenant_id": ("tenant_id", "tenantId"),
    "name": ("name",),
    "provider": ("provider",),
    "base_url": ("base_url", "baseUrl"),
    "user": ("kod",),
    "password": ("sifre",),
    "enabled": ("enabled",),
}
_PROXY: Final = ("proxy", "proxy_url", "proxyUrl")
"""The column with an integration's own proxy, if there is one."""

_TOKEN: Final = ("api_token", "apiToken")
"""The column with the token of a client API account, if there is one."""

USED: Final = {
    ROUTING: (*(name for names in _ROUTING_COLUMNS.values() for name in names), *_ROUTING_KIND),
    INTEGRATIONS: (*(name for names in _INTEGRATION_COLUMNS.values() for name in names), *_PROXY),
}
"""The columns read from each table, in both spellings: one not seen would change what is done."""

USED_BY_SOME: Final = {INTEGRATIONS: _TOKEN}
"""More columns, without which only client API accounts cannot be asked."""


@dataclass(frozen=True, slots=True)
class Integration:
    """A row of the shop's ``integrations``. Its login is not in the repr."""

    id: str
    tenant_id: str | None
    name: str
    provider: str
    enabled: bool
    base_url: str = field(repr=False)
    user: str = field(repr=False)
    password: str = field(repr=False)
    proxy: str = field(default="", repr=False)
    token: str = field(default="", repr=False)

    @property
    def credentials(self) -> Credentials:
        """The login: identified by the user name at znet, by the token elsewhere.

        Two integrations with the same one are one login. A renewed token is a new login of the same
        account, which is remembered together with the previous one (`Logins`).
        """
        kind = KIND_OF.get(self.provider, self.provider)
        return Credentials.of(kind, self.base_url, self.user, self.token)


@dataclass(frozen=True, slots=True)
class AccountTables:
    """The two tables with their actual column names."""

    schema: str
    routing: Mapping[str, Column]
    integrations: Mapping[str, Column]

    def route_sql(self, orders: Table, alias: str) -> tuple[str, str]:
        """Return SQL (columns, joins) for which account took an order, and how that is known (a
        `Route`).

        It is taken from the order's own row, otherwise from its recorded dispatch, otherwise from
        its package's present route.
        """
        own, noted = own_sql(orders, alias), dispatch_join(self.schema, orders, alias, "<>")
        if not orders.get("package_id"):
            column = f"COALESCE({own}, sent.account) AS integration"
            known = f"CASE WHEN {own} IS NOT NULL THEN {Route.OWN:d} WHEN sent.account IS NOT NULL THEN {Route.ONE:d}"
            return f"{column}, {known} ELSE {Route.NONE:d} END AS route", noted
        tenant = (
            f"{alias}.{orders['tenant_id'].sql}::text" if orders.get("tenant_id") else "NULL::text"
        )
        # If it was sent before its package's route was seen to change, either route is possible.
        is_one = f"route.targets = 1 AND NOT COALESCE(route.changed_at > {orders.epoch('sent_at', alias)}, false)"
        columns = (
            f"COALESCE({own}, sent.account, CASE WHEN {is_one} THEN route.target END) AS integration, "
            f"CASE WHEN {own} IS NOT NULL THEN {Route.OWN:d} WHEN sent.account IS NOT NULL THEN {Route.ONE:d} "
            f"WHEN route.package IS NULL THEN {Route.NONE:d} "
            f"WHEN route.is_nobodys THEN {Route.NOBODYS:d} WHEN route.is_internal THEN {Route.INTERNAL:d} "
            f"WHEN route.targets = 0 OR {is_one} THEN {Route.ONE:d} "
            f"ELSE {Route.SEVERAL:d} END AS route"
        )
        routes = (
            f"SELECT r.*, extract(epoch FROM s.stored_at)::float8 AS changed_at FROM ({self.routes_sql()}) r "
            f"LEFT JOIN {settings_of(self.schema)} s ON s.name = {_ROUTE_NAME}"
        )
        join = (
            f"LEFT JOIN ({routes}) route ON route.package = {alias}.{orders['package_id'].sql}::text "
            f"AND route.tenant IS NOT DISTINCT FROM {tenant}"
        )
        return columns, f"{noted} {join}"

    def watch_routes_sql(self) -> str:
        """SQL that records which routes have changed since any process looked, and when.

        A change dated later than now was before the database's clock went back: not after this.
        """
        settings = settings_of(self.schema)
        return (
            f"INSERT INTO {settings} AS k (name, value, stored_at) SELECT {_ROUTE_NAME}, r.target, "
            "CASE WHEN s.name IS NULL THEN '-infinity' ELSE clock_timestamp() END "
            f"FROM ({self.routes_sql()}) r LEFT JOIN {settings} s ON s.name = {_ROUTE_NAME} "
            "WHERE r.targets = 1 AND (s.value IS DISTINCT FROM r.target OR s.stored_at > clock_timestamp()) "
            "ON CONFLICT (name) DO UPDATE SET value = EXCLUDED.value, stored_at = EXCLUDED.stored_at"
        )

    def routes_sql(self) -> str:
        """SQL for each package's route: which account its orders go to, and how many accounts are
        possible; a fallback is not counted.
        """
        r = {name: f"r.{column.sql}::text" for name, column in self.routing.items()}
        target = _as_id_sql(r["primary"])
        table = f"{qualified(self.schema, ROUTING)} r"
        group = f"GROUP BY {r['package_id']}, {r['tenant_id']}"
        outside, nobodys, internal = "", "false", "false"
        if "kind" in r:
            # What goes to an account outside comes before codes and orders by hand, as in the shop
            # itself: an account that such a route still names has not taken the order.
            is_outside = f"({r['kind']} IS NULL OR lower(btrim({r['kind']})) = '{_EXTERNAL}')"
            outside = f" FILTER (WHERE {is_outside})"
            is_internal = f"COALESCE(lower(btrim({r['kind']})) = '{INTERNAL}', false)"
            lacks = f"count({target}){outside} = 0"
            internal = f"bool_or({is_internal}) AND {lacks}"
            nobodys = f"bool_or(NOT {is_outside}) AND NOT bool_or({is_internal}) AND {lacks}"
        return (
            f"SELECT {r['package_id']} AS package, {r['tenant_id']} AS tenant, "
            f"min({target}){outside} AS target, count(DISTINCT {target}){outside} AS targets, "
            f"{nobodys} AS is_nobodys, {internal} AS is_internal FROM {table} {group}"
        )

    def internal_sql(self) -> str:
        """SQL of the ids of the integrations that are other tenants of the shop."""
        i = {name: f"i.{column.sql}::text" for name, column in self.integrations.items()}
        return (
            f"SELECT {_as_id_sql(i['id'])} FROM {qualified(self.schema, INTEGRATIONS)} i "
            f"WHERE lower(btrim({i['provider']})) = '{INTERNAL}'"
        )

    async def read(self, connection: Connection) -> list[Integration]:
        """Return every integration."""
        i = {name: f"i.{column.sql}" for name, column in self.integrations.items()}
        more = "".join(f", {i[name]}::text AS {name}" for name in ("proxy", "token") if name in i)
        rows = await connection.fetch(
            f"SELECT {i['id']}::text AS id, {i['tenant_id']}::text AS tenant_id, {i['name']}::text AS name, "
            f"{i['provider']}::text AS provider, {i['enabled']}::boolean AS enabled, {i['base_url']}::text AS base_url, "
            f"{i['user']}::text AS username, {i['password']}::text AS password{more} "
            f"FROM {qualified(self.schema, INTEGRATIONS)} i"
        )
        return [
            Integration(
                _as_id(row["id"]),
                row["tenant_id"],
                row["name"] or "",
                (row["provider"] or "").strip().lower(),
                bool(row["enabled"]),
                (row["base_url"] or "").strip(),
                row["username"] or "",
                row["password"] or "",
                (row.get("proxy") or "").strip(),
                (row.get("token") or "").strip(),
            )
            for row in rows
        ]


def credentials_of(integrations: Iterable[Integration]) -> dict[str, Credentials]:
    """Return the credentials by account key."""
    return {i.id: i.credentials for i in integrations}


def own_sql(orders: Table, alias: str) -> str:
    """SQL for the account in an order's own row, with a uuid in lower case; NULL if none."""
    column = orders.get("provider_id")
    if column is None:
        return "NULL::text"
    return _as_id_sql(f"{alias}.{column.sql}::text")


def _as_id_sql(text: str) -> str:
    """SQL of a text as an integration's id: a uuid in lower case, NULL where it is empty."""
    bare = f"NULLIF(btrim({text}), '')"
    return f"(CASE WHEN {bare} ~* '{_UUID}' THEN lower({bare}) ELSE {bare} END)"


def _as_id(text: str) -> str:
    """Return an integration's own id as orders name it: a uuid in a text may be in any case."""
    return text.lower() if re.fullmatch(_UUID, text, re.IGNORECASE) else text


_BLANK: Final = "E' \\t\\r\\n'"


def is_blank_sql(text: str) -> str:
    """SQL of whether a text, or NULL, names nothing: an order's reference then stands elsewhere."""
    return f"(COALESCE(btrim({text}, {_BLANK}), '') = '')"


def reference_sql(orders: Table, alias: str) -> str:
    """SQL of an order's reference as it is noted: without the blanks about it."""
    return f"btrim({row_reference_sql(orders, alias)}, {_BLANK})"


def row_reference_sql(orders: Table, alias: str) -> str:
    """SQL of an order's reference as its row has it; an empty text where it has none.

    Its own column says it, else the provider's order id, else its own id, as far as these may be
    asked by. Which of them an account knows is for `Order.skip_reason` to say. If another tenant
    took the order, and its order is in another database, it is that order's id.
    """
    return _by_source(orders, alias, lambda _, column: column)


def reference_from_sql(orders: Table, alias: str) -> str:
    """SQL of where an order's reference stands, a `ReferenceFrom`."""
    return _by_source(orders, alias, lambda source, _: f"{source:d}")


def _by_source(orders: Table, alias: str, value: Callable[[ReferenceFrom, str], str]) -> str:
    own = f"{alias}.{orders['provider_referans'].sql}::text"
    first = value(ReferenceFrom.COLUMN, f"COALESCE({own}, '')")
    others = []
    if (external := orders.get("external_order_id")) is not None:
        column = f"{alias}.{external.sql}::text"
        others.append(
            f"WHEN NOT {is_blank_sql(column)} THEN {value(ReferenceFrom.EXTERNAL_ID, column)}"
        )
    last = first
    if orders.asks_by_id:
        last = value(ReferenceFrom.ORDER_ID, f"{alias}.{orders['id'].sql}::text")
    elsewhere = _child_elsewhere(orders, alias, own)
    if last == first and not others:
        return first
    child = ""
    if elsewhere is not None:
        condition, name = elsewhere
        child = f"WHEN {condition} THEN {value(ReferenceFrom.CHILD, name)} "
    return f"(CASE {child}WHEN NOT {is_blank_sql(own)} THEN {first} {' '.join(others)} ELSE {last} END)"


def _child_elsewhere(orders: Table, alias: str, own: str) -> tuple[str, str] | None:
    """SQL of whether an order's child is in another database, and of the child's id; None if there
    can be none.

    The row says so: a tenant's integration took it, it names another order as the provider's, its
    own reference is its own id or empty, and no row here has the other order's id.
    """
    external = orders.get("external_order_id")
    if not orders.tenants_sql or external is None:
        return None
    own_id, name = f"{alias}.{orders['id'].sql}::text", f"btrim({alias}.{external.sql}::text)"
    if orders["id"].data_type == "uuid":
        # Where it is compared with an answer, only one way of writing it counts.
        name = f"lower({name})"
    child = orders.id_sql(name)
    condition = (
        f"({is_blank_sql(own)} OR lower(btrim({own})) = lower({own_id})) "
        f"AND NOT {is_blank_sql(name)} AND {name} <> lower({own_id}) "
        # What no id is, is no child: a stub, or several in one text.
        f"AND {name} !~ '^stub-|,' AND {child} IS NOT NULL "
        f"AND {own_sql(orders, alias)} IN ({orders.tenants_sql}) "
        f"AND NOT EXISTS (SELECT FROM {orders.sql} c WHERE c.{orders['id'].sql} = {child})"
    )
    return condition, name


def dispatch_join(schema: str, orders: Table, alias: str, configured: str = "=") -> str:
    """SQL that joins, as ``sent``, an order's newest recorded dispatch under its reference: to the
    ``configured`` account, or with ``<>`` to one of the shop's. A process with the other kind of
    accounts may have recorded its own.
    """
    return (
        "LEFT JOIN LATERAL (SELECT d.account, extract(epoch FROM d.sent_at)::float8 AS at, d.touched, d.found_at, "
        "d.first_understood_at IS NOT NULL AS understood, extract(epoch FROM d.first_odd_at)::float8 AS odd_at "
        f"FROM {qualified(schema, DISPATCHES)} d "
        f"WHERE d.order_id = {alias}.{orders['id'].sql} AND d.reference = {reference_sql(orders, alias)} "
        f"AND d.account {configured} '{CONFIGURED}' ORDER BY d.number DESC LIMIT 1) sent ON true"
    )


async def _unseen(connection: Connection, schema: str, table: str) -> str:
    if await is_table(connection, schema, table):
        role = await connection.fetchval("SELECT quote_ident(current_user)")
        grant = f"GRANT SELECT ON {qualified(schema, table)} TO {role}"
        return f"provider.source: this role may not read {schema}.{table}; run: {grant};"
    return f'provider.source: there is no table {schema}.{table}; make it, or set provider.source = "config"'


def _spelled(
    there: Mapping[str, Column], names: Mapping[str, tuple[str, ...]]
) -> dict[str, Column]:
    """Return the columns that are there, by logical name."""
    return {
        logical: there[name]
        for logical, spelled in names.items()
        if (name := next((n for n in spelled if n in there), None)) is not None
    }


async def find_account_tables(connection: Connection, schema: str) -> AccountTables:
    """Look up both tables.

    Raises:
        TableError: names every missing table and column.
    """
    problems: list[str] = []
    found: list[dict[str, Column]] = []
    for table, names in ((ROUTING, _ROUTING_COLUMNS), (INTEGRATIONS, _INTEGRATION_COLUMNS)):
        there = await columns_of(connection, schema, table)
        if not there:
            problems.append(await _unseen(connection, schema, table))
            found.append({})
            continue
        columns = _spelled(there, names)
        problems += [
            f"provider.source: {schema}.{table} has no column {' or '.join(spelled)}"
            for logical, spelled in names.items()
            if logical not in columns
        ]
        if table == ROUTING:
            columns |= _spelled(there, {"kind": _ROUTING_KIND})
        else:
            texts = {name: column for name, column in there.items() if column.is_text}
            columns |= _spelled(texts, {"proxy": _PROXY, "token": _TOKEN})
        found.append(columns)
    if problems:
        raise TableError(problems)
    return AccountTables(schema, found[0], found[1])
