"""Names of PostgreSQL's advisory locks, and detection of an older version's locks."""

from __future__ import annotations

from hashlib import blake2b
from typing import Final

from order_monitor.shop.database import Connection

OLD_MEMBER: Final = "a member"
"""The mark of versions that locked accounts by name; which accounts they hold is unknown."""

OLDER_VERSION: Final = "a process of version 0.1 works on the same table: stop all of that version, migrate, start this one"

_IS_OLDER: Final = """
SELECT EXISTS (SELECT FROM pg_locks WHERE locktype = 'advisory' AND granted AND objsubid = 2 AND classid::bigint = $1
   AND database = (SELECT oid FROM pg_database WHERE datname = current_database()))
"""


async def is_older_there(connection: Connection, table: str) -> bool:
    """Whether a cluster member of version 0.1 works on ``table`` (with its schema)."""
    return bool(await connection.fetchval(_IS_OLDER, lock_class(table, OLD_MEMBER)))


def lock_class(space: str, mark: str) -> int:
    """Return the 31 bits that all locks of one ``mark`` share."""
    return lock_number(space, mark) & 0x7FFFFFFF


def lock_number(space: str, key: str) -> int:
    """Return the 64-bit number of a lock. With a million accounts, the chance that any two share a
    number is 1 in 30 million.
    """
    return lock_of(f"order-monitor\0{space}\0{key}")


def lock_of(name: str) -> int:
    """Return the 64-bit number under which all processes lock what has this name."""
    digest = blake2b(name.encode("utf-8", "surrogatepass"), digest_size=8).digest()
    return int.from_bytes(digest, signed=True)
