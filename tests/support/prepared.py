"""Whether statements stay prepared on a database's connections."""

from order_monitor.shop.database import Database

COUNT = "SELECT count(*) FROM pg_prepared_statements WHERE statement LIKE '%canary%'"


async def are_kept(database: Database) -> bool:
    """Whether a statement is still prepared in the next transaction."""
    async with database.transaction() as connection:
        await connection.fetchval("SELECT 'canary'")
    async with database.transaction() as connection:
        return bool(await connection.fetchval(COUNT))
