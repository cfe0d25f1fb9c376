"""Compare the words in the table with the settings: which are unknown, and how the shop ends
orders.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from order_monitor.core.outcome import FINAL
from order_monitor.shop.check.line import CheckLine
from order_monitor.shop.database import Database
from order_monitor.shop.schema.columns import Table
from order_monitor.shop.schema.table_config import TableConfig, is_unknown

_SUBJECT: Final = "statuses"
_COUNTED: Final = 100_000
"""How many rows are looked at for each question: a shop's table may be very large."""

_NAMED: Final = 30
"""How many words are named at the most: a column may hold anything."""


async def words_of_the_table(
    database: Database, table: Table, table_config: TableConfig
) -> list[CheckLine]:
    """Return a warning for each word that the settings do not name, and for each end that the table
    has another word for.

    Raises:
        ShopError: the database could not be asked.
    """
    status = f"o.{table['external_status'].sql}"
    unknown = is_unknown(table, table_config)
    async with database.transaction() as connection:
        rows = await connection.fetch(
            f"SELECT s.status, count(*) AS count FROM (SELECT {status}::text AS status FROM {table.sql} o "
            f"WHERE o.{unknown} LIMIT {_COUNTED}) s GROUP BY 1 ORDER BY 2 DESC, 1 LIMIT {_NAMED}"
            if unknown
            else "SELECT WHERE false"
        )
        history = await connection.fetch(
            f"SELECT s.status, count(*) AS count FROM (SELECT {status}::text AS status FROM {table.sql} o "
            f"LIMIT {_COUNTED}) s WHERE s.status IS NOT NULL GROUP BY 1"
        )
    return [
        *(_unnamed(row["status"], row["count"], table_config) for row in rows),
        *_other_ends({row["status"]: row["count"] for row in history}, table_config),
    ]


def _unnamed(word: str, count: int, table_config: TableConfig) -> CheckLine:
    orders = f"{count}{'' if count < _COUNTED else ' or more'} order{'' if count == 1 else 's'}"
    text = f"{word!r} is in the table and not in the settings: {orders}"
    same = _in_another_case(word, (*table_config.open, *table_config.known))
    if same is None:
        return CheckLine("warning", _SUBJECT, text, "add it to statuses.open, if it is an open one")
    what = "add it to statuses.open as it is spelled" if same in table_config.open else "correct it"
    return CheckLine("warning", _SUBJECT, f"{text}; {same!r} is another word", what)


def _in_another_case(word: str, words: Iterable[str]) -> str | None:
    return next((one for one in words if one.casefold() == word.strip().casefold()), None)


def _other_ends(history: dict[str, int], table_config: TableConfig) -> list[CheckLine]:
    """Say where the table has ends but none by our word: who reads it would not see our ends."""
    lines = []
    for outcome in FINAL:
        own, *others = table_config.rules.words(outcome)
        counts = {word: history[word] for word in others if word in history}
        if own in history or not counts:
            continue
        usual = max(counts, key=lambda word: counts[word])
        text = (
            f"{own!r} is written, and no order in the table has it: {counts[usual]} have {usual!r}"
        )
        do = (
            f'set statuses.{outcome} = "{usual}", or statuses.preset, if the shop goes by that word'
        )
        lines.append(CheckLine("warning", f"statuses.{outcome}", text, do))
    return lines
