"""``order-monitor advise``: what learned timing would have brought on the shop's own history, before anyone switches."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from order_monitor.commands.composition import database_of, layout_of, schedule_of, settings_of, terms_of
from order_monitor.commands.exits import ExitCode, run_to_exit
from order_monitor.commands.lookup import account_names
from order_monitor.commands.tables import print_table
from order_monitor.core.timing.advice import FEWEST, Advice, Past, advise
from order_monitor.core.timing.plan import slot_before
from order_monitor.settings.model import Settings
from order_monitor.shop.layout import EVENTS
from order_monitor.shop.own_tables import need_tables
from order_monitor.shop.repository import Orders
from order_monitor.shop.timings import Timings
from order_monitor.tell.streams import say


def run_advise(config: Path | None, *, as_json: bool) -> int:
    """Read the newest events and compare; return 1 where there are too few of them to say anything."""
    settings, sink, _ = settings_of(config, "database", least="error")
    return run_to_exit(_advise(settings, as_json=as_json), sink.close)


async def _advise(settings: Settings, *, as_json: bool) -> int:
    database, terms, schedule = database_of(settings), terms_of(settings), schedule_of(settings)
    orders = Orders(database, layout_of(settings))
    try:
        async with database.transaction() as connection:
            await need_tables(connection, settings.database.schema_, EVENTS)
        kept = Timings(database, orders, settings.database.schema_, terms.half_life, terms.packages)
        history = await kept.history()
        names = await account_names(settings, database)
    finally:
        await database.close()
    past = [
        Past(end.key, end.order_id, slot_before(schedule, end.order_id, end.age), end.age, end.at)
        for end in history
        if end.is_end
    ]
    if len(past) < FEWEST:
        say(f"order-monitor: {len(past)} ends in the events are too few to say anything; it takes {FEWEST}")
        return ExitCode.NOT_DONE
    rows = [_row(advice, names) for advice in advise(past, schedule, terms)]
    if as_json:
        say(json.dumps(rows), to_stdout=True)
    else:
        print_table(list(rows[0]), rows, texts=("account", "package"))
    return ExitCode.OK


def _row(advice: Advice, names: Mapping[str, str]) -> dict[str, Any]:
    account, package = advice.key
    row: dict[str, Any] = {"account": names.get(account, account), "package": package or "-", "orders": advice.orders}
    for name in ("backoff", "fixed", "learned"):
        for what, value in asdict(getattr(advice, name)).items():
            row[f"{name}_{'delay_seconds' if what == 'delay' else 'calls'}"] = round(value, 1)
    return row
