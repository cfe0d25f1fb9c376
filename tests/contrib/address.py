"""Converts a DSN to Django's settings."""

from typing import Any

from order_monitor.shop.dsn import parse_dsn


def database_of(dsn: str) -> dict[str, Any]:
    address = parse_dsn(dsn)
    return {
        "ENGINE": "django.db.backends.postgresql",
        "NAME": address.name,
        "USER": address.user,
        "PASSWORD": address.password or "",
        "HOST": address.hosts[0],
        "PORT": str(address.ports[0]),
    }
