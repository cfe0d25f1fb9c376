"""A role of the database with few rights."""

import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from tests.support.shops import Shop


@asynccontextmanager
async def role_of(shop: Shop, rights: str = "") -> AsyncIterator[tuple[str, str]]:
    """A role with ``rights`` (``{role}`` stands for its name): its name, and its address of the
    shop's database.
    """
    role = f"r{uuid.uuid4().hex}"
    await shop.connection.execute(
        f"CREATE ROLE {role} LOGIN PASSWORD 'pw'; {rights.format(role=role)}"
    )
    try:
        yield role, f"postgresql://{role}:pw@{shop.dsn.partition('@')[2]}"
    finally:
        await shop.connection.execute(f"DROP OWNED BY {role}; DROP ROLE {role}")
