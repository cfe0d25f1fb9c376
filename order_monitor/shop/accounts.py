"""The provider accounts in the shop's own tables: which integration took an order, and how to log in there."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final

from order_monitor.core.errors import TableError
from order_monitor.core.login import CLIENT_API, KINDS, Credentials
from order_monitor.core.order import Route
from order_monitor.shop.columns import Column, Table, columns_of, is_table, quoted
from order_monitor.shop.database import Connection
from order_monitor.shop.layout import DISPATCHES, settings_of

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
    "kod": ("kod",),
    "sifre": ("sifre",),
    "enabled": ("enabled",),
}
_PROXY: Final = ("proxy", "proxy_url", "proxyUrl")
"""The column of an integration's own proxy, where there is one."""

_TOKEN: Final = ("api_token", "apiToken")
"""The column of the token that a client API knows an account by, where there is one."""

USED: Final = {
    ROUTING: (*(name for names in _ROUTING_COLUMNS.values() for name in names), *_ROUTING_KIND),
    INTEGRATIONS: (*(name for names in _INTEGRATION_COLUMNS.values() for name in names), *_PROXY),
}
"""The columns that are read of each table, in both spellings: one that this role may not see would change what is done."""

USED_BY_SOME: Final = {INTEGRATIONS: _TOKEN}
"""Further ones, without which only accounts of a client API cannot be asked."""


@dataclass(frozen=True, slots=True)
class Integration:
    """A row of the shop's ``integrations``. Its login never shows in a repr."""

    id: str
    tenant_id: str | None
    name: str
    provider: str
    enabled: bool
    base_url: str = field(repr=False)
    kod: str = field(repr=False)
    sifre: str = field(repr=False)
    proxy: str = field(default="", repr=False)
    token: str = field(default="", repr=False)

    @property
    def credentials(self) -> Credentials:
        """Who is logged in where: by the user's name at znet, elsewhere by the token. Two integrations that hold one are one login.

        A token that is renewed is another login of the same account, which is remembered with the one before (`Logins`).
        """
        kind = KINDS.get(self.provider, self.provider)
        return Credentials(kind, self.base_url, self.token if kind == CLIENT_API else self.kod)


@dataclass(frozen=True, slots=True)
class AccountTables:
    """The two tables as they are spelled here."""

    schema: str
    routing: Mapping[str, Column]
    integrations: Mapping[str, Column]

    def route_sql(self, orders: Table, alias: str) -> tuple[str, str]:
        """Return (columns, joins) that say which account took an order, and how that is known (a `Route`).

        Its own row says so, else the dispatch that is noted of it, else its package's route as it is now.
        """
        own, noted = own_sql(orders, alias), dispatch_join(self.schema, orders, alias)
        if not orders.get("package_id"):
            column = f"COALESCE({own}, sent.account) AS integration"
            known = f"CASE WHEN {own} IS NOT NULL THEN {Route.OWN:d} WHEN sent.account IS NOT NULL THEN {Route.ONE:d}"
            return f"{column}, {known} ELSE {Route.NONE:d} END AS route", noted
        tenant = f"{alias}.{orders['tenant_id'].sql}::text" if orders.get("tenant_id") else "NULL::text"
        # Sent before its package's route was seen to change, an order may have gone either way.
        is_one = f"route.targets = 1 AND NOT COALESCE(route.changed_at > {orders.epoch('sent_at', alias)}, false)"
        columns = (
            f"COALESCE({own}, sent.account, CASE WHEN {is_one} THEN route.target END) AS integration, "
            f"CASE WHEN {own} IS NOT NULL THEN {Route.OWN:d} WHEN sent.account IS NOT NULL THEN {Route.ONE:d} "
            f"WHEN route.package IS NULL THEN {Route.NONE:d} "
            f"WHEN route.is_nobodys THEN {Route.NOBODYS:d} WHEN route.targets = 0 OR {is_one} THEN {Route.ONE:d} "
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
        """SQL that notes which routes have changed since any process looked last, and when that was seen."""
        settings = settings_of(self.schema)
        return (
            f"INSERT INTO {settings} AS k (name, value, stored_at) SELECT {_ROUTE_NAME}, r.target, "
            "CASE WHEN s.name IS NULL THEN '-infinity' ELSE clock_timestamp() END "
            f"FROM ({self.routes_sql()}) r LEFT JOIN {settings} s ON s.name = {_ROUTE_NAME} "
            "WHERE r.targets = 1 AND s.value IS DISTINCT FROM r.target "
            "ON CONFLICT (name) DO UPDATE SET value = EXCLUDED.value, stored_at = EXCLUDED.stored_at"
        )

    def routes_sql(self) -> str:
        """SQL of each package's route: where an order of it goes, and how many accounts that would be; a fallback is none."""
        r = {name: f"r.{column.sql}::text" for name, column in self.routing.items()}
        target = f"NULLIF(btrim({r['primary']}), '')"
        table = f"{quoted(self.schema)}.{quoted(ROUTING)} r"
        group = f"GROUP BY {r['package_id']}, {r['tenant_id']}"
        if "kind" in r:
            # What goes to an account outside comes before codes and orders by hand, as in the shop itself.
            outside = f"FILTER (WHERE {r['kind']} IS NULL OR {r['kind']} = '{_EXTERNAL}')"
            first = f"COALESCE(min({target}) {outside}, min({target}))"
            every, some = f"count(DISTINCT {target})", f"count(DISTINCT {target}) {outside}"
            count = f"CASE WHEN {some} > 0 THEN {some} ELSE {every} END"
            nobodys = f"bool_and({r['kind']} IS NOT NULL AND {r['kind']} <> '{_EXTERNAL}')"
        else:
            first, count, nobodys = f"min({target})", f"count(DISTINCT {target})", "false"
        return (
            f"SELECT {r['package_id']} AS package, {r['tenant_id']} AS tenant, {first} AS target, {count} AS targets, "
            f"{nobodys} AS is_nobodys "
            f"FROM {table} {group}"
        )

    async def read(self, connection: Connection) -> list[Integration]:
        """Return every integration."""
        i = {name: f"i.{column.sql}" for name, column in self.integrations.items()}
        more = "".join(f", {i[name]}::text AS {name}" for name in ("proxy", "token") if name in i)
        rows = await connection.fetch(
            f"SELECT {i['id']}::text AS id, {i['tenant_id']}::text AS tenant_id, {i['name']}::text AS name, "
            f"{i['provider']}::text AS provider, {i['enabled']}::boolean AS enabled, {i['base_url']}::text AS base_url, "
            f"{i['kod']}::text AS kod, {i['sifre']}::text AS sifre{more} "
            f"FROM {quoted(self.schema)}.{quoted(INTEGRATIONS)} i"
        )
        return [
            Integration(
                row["id"],
                row["tenant_id"],
                row["name"] or "",
                (row["provider"] or "").strip().lower(),
                bool(row["enabled"]),
                (row["base_url"] or "").strip(),
                row["kod"] or "",
                row["sifre"] or "",
                (row.get("proxy") or "").strip(),
                (row.get("token") or "").strip(),
            )
            for row in rows
        ]


def credentials_of(integrations: Iterable[Integration]) -> dict[str, Credentials]:
    """Return who is logged in where, by the accounts' keys."""
    return {i.id: i.credentials for i in integrations}


def own_sql(orders: Table, alias: str) -> str:
    """SQL of the account that an order's own row names, NULL where it names none; a uuid in lower case, as ids are written."""
    column = orders.get("provider_id")
    if column is None:
        return "NULL::text"
    own = f"NULLIF(btrim({alias}.{column.sql}::text), '')"
    return f"(CASE WHEN {own} ~* '{_UUID}' THEN lower({own}) ELSE {own} END)"


def reference_sql(orders: Table, alias: str) -> str:
    """SQL of an order's reference as it is noted: without the blanks about it."""
    return f"btrim({alias}.{orders['provider_referans'].sql}::text, E' \\t\\r\\n')"


def dispatch_join(schema: str, orders: Table, alias: str) -> str:
    """SQL that joins, as ``sent``, the newest dispatch that is noted of an order under the reference it has."""
    return (
        "LEFT JOIN LATERAL (SELECT d.account, extract(epoch FROM d.sent_at)::float8 AS at, d.touched, d.found_at, "
        "d.first_understood_at IS NOT NULL AS understood, extract(epoch FROM d.first_odd_at)::float8 AS odd_at "
        f"FROM {quoted(schema)}.{quoted(DISPATCHES)} d "
        f"WHERE d.order_id = {alias}.{orders['id'].sql} AND d.reference = {reference_sql(orders, alias)} "
        "ORDER BY d.number DESC LIMIT 1) sent ON true"
    )


async def _unseen(connection: Connection, schema: str, table: str) -> str:
    if await is_table(connection, schema, table):
        role = await connection.fetchval("SELECT quote_ident(current_user)")
        grant = f"GRANT SELECT ON {quoted(schema)}.{quoted(table)} TO {role}"
        return f"provider.source: this role may not read {schema}.{table}; run: {grant};"
    return f'provider.source: there is no table {schema}.{table}; make it, or set provider.source = "config"'


async def find_account_tables(connection: Connection, schema: str) -> AccountTables:
    """Look up both tables.

    Raises:
        TableError: a table or a column is missing, each named.
    """
    problems: list[str] = []
    found: list[dict[str, Column]] = []
    for table, names in ((ROUTING, _ROUTING_COLUMNS), (INTEGRATIONS, _INTEGRATION_COLUMNS)):
        there = await columns_of(connection, schema, table)
        if not there:
            problems.append(await _unseen(connection, schema, table))
            found.append({})
            continue
        columns = {logical: next((there[n] for n in spelled if n in there), None) for logical, spelled in names.items()}
        problems += [
            f"provider.source: {schema}.{table} has no column {' or '.join(names[logical])}"
            for logical, column in columns.items()
            if column is None
        ]
        found.append({logical: column for logical, column in columns.items() if column is not None})
        if table == ROUTING and (kind := next((there[n] for n in _ROUTING_KIND if n in there), None)):
            found[-1]["kind"] = kind
        for logical, spelled in (("proxy", _PROXY), ("token", _TOKEN)) if table == INTEGRATIONS else ():
            if (column := next((there[n] for n in spelled if n in there and there[n].is_text), None)) is not None:
                found[-1][logical] = column
    if problems:
        raise TableError(problems)
    return AccountTables(schema, found[0], found[1])
