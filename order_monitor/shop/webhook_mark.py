"""The mark in the database that determines since when, and to which address, this shop's events are
posted.

It applies to every process, whatever its settings. Only a digest of the address is stored, without
the parts that often contain a token: the user, the query and the fragment.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import Final
from urllib.parse import urlsplit

from order_monitor.core.errors import ShopMisfitError
from order_monitor.shop.database import Connection
from order_monitor.shop.marks import read_mark, set_mark
from order_monitor.shop.schema.columns import literal, qualified
from order_monitor.shop.schema.table_config import DELIVERIES, events_of, settings_of
from order_monitor.shop.writing.event_sql import WEBHOOK_MARK

_PORTS: Final = {"http": 80, "https": 443}


@dataclass(frozen=True, slots=True)
class Mark:
    """Events from ``since`` on go to the address of this digest; ``value`` is what is stored."""

    since: int
    address: str
    value: str


def address_of(url: str) -> str:
    """Return the digest of an address: of its scheme, host, port and path."""
    parts = urlsplit(url)
    scheme = parts.scheme.lower()
    port = parts.port if parts.port is not None else _PORTS.get(scheme)
    plain = f"{scheme}://{(parts.hostname or '').rstrip('.')}:{port}{parts.path or '/'}"
    return hashlib.sha256(plain.encode()).hexdigest()


async def read_webhook(connection: Connection, schema: str) -> Mark | None:
    """Return the mark, None if it is not set.

    Raises:
        ShopMisfitError: the stored value is not such a mark.
    """
    value = await read_mark(connection, schema, WEBHOOK_MARK)
    return None if value is None else _parsed(value)


async def set_first(
    connection: Connection,
    schema: str,
    address: str,
    by: str | None = None,
    since: int | None = None,
) -> Mark:
    """Return the mark; if it is not set, set it to ``address``. A concurrent caller waits for that.

    Posting begins with the oldest event that an older version has queued and not delivered,
    otherwise with the next event: a shop's first webhook does not report what happened before it.
    ``since`` is where it began by a mark that the database had and has lost, as in a failover.
    """
    deliveries = qualified(schema, DELIVERIES)
    await connection.execute(
        f"INSERT INTO {settings_of(schema)} (name, value, stored_by) SELECT {literal(WEBHOOK_MARK)}, json_build_object("
        "'since', least($3::bigint, COALESCE((SELECT min(event_id) "
        f"FROM {deliveries} WHERE delivered_at IS NULL AND dead_at IS NULL), "
        f"(SELECT max(id) + 1 FROM {events_of(schema)}), 1)), 'address', $1::text)::text, $2 "
        "ON CONFLICT DO NOTHING",
        address,
        by,
        since,
    )
    mark = await read_webhook(connection, schema)
    assert mark is not None
    return mark


async def adopt(connection: Connection, schema: str, address: str, by: str) -> Mark:
    """Post the events to ``address`` from now on, with those that wait; the start stays."""
    mark = await set_first(connection, schema, address, by)
    if mark.address == address:
        return mark
    value = json.dumps({"since": mark.since, "address": address})
    await set_mark(connection, schema, WEBHOOK_MARK, value, by)
    return Mark(mark.since, address, value)


async def began_at(connection: Connection, schema: str, mark: Mark) -> str | None:
    """Return when the first posted event was decided, for people; None if there is none yet."""
    at = await connection.fetchval(
        f"SELECT to_char(decided_at, 'YYYY-MM-DD HH24:MI:SS TZ') FROM {events_of(schema)} WHERE id >= $1 ORDER BY id LIMIT 1",
        mark.since,
    )
    return None if at is None else str(at)


def _parsed(value: str) -> Mark:
    try:
        given = json.loads(value)
        return Mark(int(given["since"]), str(given["address"]), value)
    except (ValueError, TypeError, KeyError):
        raise ShopMisfitError(
            f"the mark {WEBHOOK_MARK!r} in the table of settings is not as we write it"
        ) from None
