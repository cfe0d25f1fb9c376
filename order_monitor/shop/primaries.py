"""Which of several hosts is the primary: two that accept writes are two truths, and an old primary
that returns has lost what the new one knows.

A row lock, an advisory lock and our own tables decide what may be written, and each holds on one
server alone. So two writable servers stop everything, and a server of an older timeline than the
last one is not used.

Example: ``db1`` (timeline 1) is cut off, ``db2`` is promoted (timeline 2), and ``db1`` returns
without knowing of it. Both accept writes. Whoever is connected to ``db1`` sees orders as open that
have ended on ``db2``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, NamedTuple

import asyncpg

_SERVER: Final = """
SELECT pg_is_in_recovery() OR current_setting('transaction_read_only')::boolean AS is_read_only,
    extract(epoch FROM pg_postmaster_start_time())::float8 AS started_at
"""
_LINEAGE: Final = """
SELECT (SELECT system_identifier FROM pg_control_system()) AS system,
    ('x' || left(pg_walfile_name(pg_current_wal_insert_lsn()), 8))::bit(32)::bigint AS timeline
"""
_UNKNOWN: Final = (None, None)


class Server(NamedTuple):
    """A server that accepts writes.

    ``started_at`` (epoch seconds) tells two servers apart that are copies of each other. The
    ``system`` identifier and the ``timeline`` are None where they may not be read.
    """

    started_at: float
    system: int | None = None
    timeline: int | None = None


async def server_of(connection: asyncpg.Connection[Any]) -> Server | None:
    """Return the server behind a connection, None if it accepts no writes.

    Raises:
        asyncpg.PostgresError: it cannot be asked.
    """
    row = await connection.fetchrow(_SERVER)
    assert row is not None
    if row["is_read_only"]:
        return None
    try:
        lineage = await connection.fetchrow(_LINEAGE)
    except asyncpg.PostgresError:
        # Some hosted servers withhold these functions.
        lineage = None
    return Server(row["started_at"], *(_UNKNOWN if lineage is None else tuple(lineage)))


def two_primaries(found: Mapping[str, Server]) -> str:
    """Return why nothing may be done if several of the writable servers ``found`` (by host) are
    different ones, otherwise empty.

    Several hosts may be names of one server.
    """
    if len(set(found.values())) <= 1:
        return ""
    hosts = " and ".join(f"{host}{_named(server)}" for host, server in sorted(found.items()))
    return (
        f"several hosts of database.dsn accept writes: {hosts}; "
        "find out which of them is the primary, and stop the others or make them standbys"
    )


def _named(server: Server) -> str:
    return "" if server.timeline is None else f" (timeline {server.timeline})"


class Lineage:
    """Remembers the newest server that was used."""

    def __init__(self) -> None:
        """Start with none."""
        self._newest: Server | None = None

    def refuses(self, server: Server) -> str:
        """Return why a server may not be used after the newest one, empty if it may."""
        newest = self._newest
        if newest is None or newest.system is None or server.system is None:
            self._newest = server if newest is None or newest.system is None else newest
            return ""
        if server.system != newest.system:
            return (
                "it is another database cluster than the one used until now; if that is intended, "
                "restart order-monitor"
            )
        assert server.timeline is not None
        assert newest.timeline is not None
        if server.timeline < newest.timeline:
            return (
                f"it is an old primary (timeline {server.timeline}; another server was promoted "
                f"to timeline {newest.timeline}); make it a standby of that one"
            )
        self._newest = server
        return ""
