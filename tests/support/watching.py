"""A database that records every statement: tests count what PostgreSQL was asked."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import asyncpg

from order_monitor.shop.database import Database
from order_monitor.shop.dsn import parse_dsn


@asynccontextmanager
async def watched(dsn: str) -> AsyncIterator[tuple[Database, list[str]]]:
    """Yield a database and its statements in order, including BEGIN and COMMIT."""
    asked: list[str] = []

    async def watch(connection: Any) -> None:
        connection.add_query_logger(
            lambda record: asked.extend(filter(str.strip, record.query.split(";\n")))
        )

    async def nothing(_: Any) -> None:
        """Like the program's own pool: no state outlives its transaction."""

    arguments = parse_dsn(dsn).connect_arguments()
    own: dict[str, Any] = {
        "min_size": 0,
        "max_size": 4,
        "statement_cache_size": 0,
        "init": watch,
        "reset": nothing,
    }
    async with asyncpg.create_pool(**arguments, **own) as pool:
        yield Database(parse_dsn(dsn), pool=pool), asked
