"""Facts that all processes of a shop share: marks, and the key for digests of codes and logins."""

from __future__ import annotations

import secrets
from typing import Final

from order_monitor.shop.database import Connection
from order_monitor.shop.schema.columns import literal
from order_monitor.shop.schema.table_config import settings_of

KEY: Final = "key"
"""The name of the key for digests: random bytes, created once and never changed, because otherwise
no stored code could be recognized any more.
"""

FIRST_MIGRATE: Final = "first_migrate"
"""The name of the mark with the time at which this shop was first migrated (epoch seconds;
-infinity if events were older).
"""

FIRST_START: Final = "first_start"
"""The name of the mark with the time before which nothing is ended by its age (epoch seconds;
-infinity if events were older).
"""

FIRST_START_RELEASED: Final = "first_start_released"
"""The name of the mark with the time at which a person allowed orders from before the first start
to be ended by their age (epoch seconds).
"""

_KEY_BYTES: Final = 32


async def digest_key(connection: Connection, schema: str) -> bytes:
    """Return the key for digests; the first caller creates it."""
    kept = await read_mark(connection, schema, KEY)
    if kept is None:
        await add_mark(connection, schema, KEY, secrets.token_hex(_KEY_BYTES))
        kept = await read_mark(connection, schema, KEY)
    assert kept is not None
    return bytes.fromhex(kept)


async def read_mark(connection: Connection, schema: str, name: str) -> str | None:
    """Return the value of a mark, None if it is not set."""
    value = await connection.fetchval(
        f"SELECT value FROM {settings_of(schema)} WHERE name = {literal(name)}"
    )
    return None if value is None else str(value)


async def add_mark(
    connection: Connection, schema: str, name: str, value: str, by: str | None = None
) -> bool:
    """Set a mark that is not set yet; return whether this call set it."""
    done = await connection.fetchval(
        f"INSERT INTO {settings_of(schema)} (name, value, stored_by) VALUES ($1, $2, $3) "
        "ON CONFLICT DO NOTHING RETURNING true",
        name,
        value,
        by,
    )
    return bool(done)


async def set_mark(
    connection: Connection, schema: str, name: str, value: str, by: str | None = None
) -> None:
    """Set a mark, whatever it was before."""
    await connection.execute(
        f"INSERT INTO {settings_of(schema)} (name, value, stored_by) VALUES ($1, $2, $3) ON CONFLICT (name) "
        "DO UPDATE SET value = EXCLUDED.value, stored_by = EXCLUDED.stored_by, stored_at = now()",
        name,
        value,
        by,
    )
