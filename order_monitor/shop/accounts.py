"""The provider accounts in the shop's own tables: which integration took an order, and how to log in there."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from order_monitor.core.errors import SettingsError
from order_monitor.shop.columns import Column, Table, columns_of, quoted
from order_monitor.shop.database import Connection

ROUTING: Final = "package_routing"
INTEGRATIONS: Final = "integrations"

_ROUTING_COLUMNS: Final = {
    "id": ("id",),
    "tenant_id": ("tenant_id", "tenantId"),
    "package_id": ("package_id", "packageId"),
    "primary": ("primary_provider_id", "primaryProviderId"),
}
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


@dataclass(frozen=True, slots=True)
class AccountTables:
    """The two tables as they are spelled here."""

    schema: str
    routing: Mapping[str, Column]
    integrations: Mapping[str, Column]

    def route_sql(self, orders: Table, alias: str) -> tuple[str, str]:
        """Return (columns, joins) to add to the discovery query: the order's own integration, else its package's route."""
        own = f"{alias}.{orders['provider_id'].sql}::text" if orders.get("provider_id") else "NULL::text"
        if not orders.get("package_id"):
            return f"NULLIF(btrim({own}), '') AS integration, false AS routed", ""
        tenant = f"{alias}.{orders['tenant_id'].sql}::text" if orders.get("tenant_id") else "NULL::text"
        r = {name: f"r.{column.sql}::text" for name, column in self.routing.items()}
        routes = (
            f"SELECT DISTINCT ON (1, 2) {r['package_id']} AS package, {r['tenant_id']} AS tenant, {r['primary']} AS target "
            f"FROM {quoted(self.schema)}.{quoted(ROUTING)} r ORDER BY 1, 2, {r['id']}"
        )
        columns = (
            f"COALESCE(NULLIF(btrim({own}), ''), NULLIF(btrim(route.target), '')) AS integration, "
            "route.package IS NOT NULL AS routed"
        )
        join = (
            f"LEFT JOIN ({routes}) route ON route.package = {alias}.{orders['package_id'].sql}::text "
            f"AND route.tenant IS NOT DISTINCT FROM {tenant}"
        )
        return columns, join

    async def read(self, connection: Connection) -> list[Integration]:
        """Return every integration."""
        i = {name: f"i.{column.sql}" for name, column in self.integrations.items()}
        rows = await connection.fetch(
            f"SELECT {i['id']}::text AS id, {i['tenant_id']}::text AS tenant_id, {i['name']}::text AS name, "
            f"{i['provider']}::text AS provider, {i['enabled']}::boolean AS enabled, {i['base_url']}::text AS base_url, "
            f"{i['kod']}::text AS kod, {i['sifre']}::text AS sifre "
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
            )
            for row in rows
        ]


async def find_account_tables(connection: Connection, schema: str) -> AccountTables:
    """Look up both tables.

    Raises:
        SettingsError: a table or a column is missing, each named.
    """
    problems: list[str] = []
    found: list[dict[str, Column]] = []
    for table, names in ((ROUTING, _ROUTING_COLUMNS), (INTEGRATIONS, _INTEGRATION_COLUMNS)):
        there = await columns_of(connection, schema, table)
        if not there:
            problems.append(
                f"provider.source: there is no table {schema}.{table}, or this role may not see it; "
                'grant SELECT on it, or set provider.source = "config"'
            )
            found.append({})
            continue
        columns = {logical: next((there[n] for n in spelled if n in there), None) for logical, spelled in names.items()}
        problems += [
            f"provider.source: {schema}.{table} has no column {' or '.join(names[logical])}"
            for logical, column in columns.items()
            if column is None
        ]
        found.append({logical: column for logical, column in columns.items() if column is not None})
    if problems:
        raise SettingsError(problems)
    return AccountTables(schema, found[0], found[1])
