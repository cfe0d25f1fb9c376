"""Databases of a test's own, created and dropped over one connection a server.

A connection for each of the two commands that a test needs would cost the server as much as they do.
"""

import atexit
import uuid
from typing import Any, Protocol

import psycopg

_OPEN: dict[str, "psycopg.Connection[Any]"] = {}
"""By the server's DSN."""


class Server(Protocol):
    """A PostgreSQL server."""

    def dsn(self, name: str = "postgres") -> str:
        """Return the DSN of a database on it."""
        ...


def create(server: Server, template: str = "template0") -> str:
    """Create a copy of the database ``template``; return its name.

    Without fsync, copying files is the fastest way.
    """
    name = f"t{uuid.uuid4().hex}"
    # PostgreSQL 14 has no other way.
    how = "STRATEGY FILE_COPY" if _connected(server).info.server_version >= 150000 else ""
    _execute(server, f"CREATE DATABASE {name} TEMPLATE {template} {how}")
    return name


def drop(server: Server, name: str) -> None:
    """Drop a database, even while others are connected to it."""
    _execute(server, f"DROP DATABASE {name} WITH (FORCE)")


def _execute(server: Server, command: str) -> None:
    try:
        _connected(server).execute(command)
    except psycopg.OperationalError:
        if not _connected(server).broken:
            raise
        # A test restarted the server, or cut all its connections.
        _OPEN.pop(server.dsn()).close()
        _connected(server).execute(command)


def _connected(server: Server) -> "psycopg.Connection[Any]":
    if (dsn := server.dsn()) not in _OPEN:
        _OPEN[dsn] = psycopg.connect(dsn, autocommit=True)
    return _OPEN[dsn]


@atexit.register
def _close() -> None:
    for connection in _OPEN.values():
        connection.close()
