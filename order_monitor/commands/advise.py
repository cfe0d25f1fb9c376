"""``order-monitor advise``: what learned timing would have gained on the shop's own history, before
anyone switches.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from order_monitor.app import schedule_of, terms_of
from order_monitor.commands.exits import ExitCode, NotDoneError
from order_monitor.commands.lookup import account_names
from order_monitor.commands.session import Session, command
from order_monitor.commands.tables import print_table
from order_monitor.shop.schema.table_config import EVENTS
from order_monitor.tell.streams import say, show
from order_monitor.timing.advice import FEWEST, Advice, Cost, Past, advise
from order_monitor.timing.plan import known_to_wait
from order_monitor.timing.store import Timings


@command()
async def run_advise(session: Session, *, as_json: bool) -> int:
    """Read the newest events, and compare the strategies.

    Raises:
        NotDoneError: there are too few events for a comparison.
    """
    terms, schedule = terms_of(session.settings), schedule_of(session.settings)
    await session.need(EVENTS)
    kept = Timings(
        session.database, session.orders(), session.schema, terms.half_life, terms.packages
    )
    history = await kept.history()
    names = await account_names(session)
    ends = [end for end in history if end.is_end]
    past = [
        Past(end.key, end.order_id, before, end.age, end.at)
        for end, before in zip(ends, known_to_wait(ends, schedule), strict=True)
        if before is not None
    ]
    if len(past) < len(ends):
        say(
            f"order-monitor: {len(ends) - len(past)} of {len(ends)} ends are left out: their sent_at cannot be right"
        )
    if len(past) < FEWEST:
        raise NotDoneError(
            f"order-monitor: {len(past)} ends in the events are too few to say anything; it takes {FEWEST}"
        )
    rows = [_row(advice, names) for advice in advise(past, schedule, terms)]
    if as_json:
        show(json.dumps(rows))
    else:
        print_table(list(rows[0]), rows, texts=("account", "package"))
    return ExitCode.OK


def _row(advice: Advice, names: Mapping[str, str]) -> dict[str, Any]:
    account, package = advice.key
    row: dict[str, Any] = {
        "account": names.get(account, account),
        "package": package or "-",
        "orders": advice.orders,
    }
    for name in ("backoff", "fixed", "learned"):
        cost: Cost = getattr(advice, name)
        row[f"{name}_delay_seconds"] = round(cost.delay, 1)
        row[f"{name}_calls"] = round(cost.calls, 1)
    row["learned_delay_from"] = round(max(0.0, advice.learned.delay - advice.learned.error), 1)
    row["learned_delay_to"] = round(advice.learned.delay + advice.learned.error, 1)
    return row
