"""``order-monitor replay``: post events to the webhook again, and list the dead letters."""

from __future__ import annotations

from collections.abc import Sequence

from order_monitor.commands.exits import ExitCode, NotDoneError
from order_monitor.commands.lookup import history_of, name_of
from order_monitor.commands.session import Session, command
from order_monitor.shop.outbox import Outbox
from order_monitor.shop.schema.table_config import DELIVERIES, EVENTS, SETTINGS
from order_monitor.shop.webhook_mark import read_webhook
from order_monitor.tell.streams import say, show, show_json


@command()
async def run_replay(
    session: Session,
    *,
    ids: Sequence[int],
    order_id: str | None,
    since: float | None,
    dead: bool,
    waiting: bool,
) -> int:
    """Queue the chosen events again; return 1 if one does not exist."""
    outbox = await _outbox(session)
    if order_id is not None:
        order_id = (await history_of(session, session.orders(), order_id)).order.id
    found = await outbox.replay(
        name_of(None), ids=list(ids), order_id=order_id, since=since, dead=dead, waiting=waiting
    )
    for event_id in found:
        show(f"{event_id}: put up again; the daemon posts it")
    missing = [event_id for event_id in ids if event_id not in found]
    for event_id in missing:
        say(f"{event_id}: there is no such event, or a reopening has withdrawn it")
    if not found and not missing:
        say("order-monitor: no such events")
    return ExitCode.OK if found and not missing else ExitCode.NOT_DONE


@command()
async def run_dead_letters(session: Session, *, as_json: bool) -> int:
    """List the dead letters."""
    letters = await (await _outbox(session)).dead()
    if as_json:
        show_json(letters)
        return ExitCode.OK
    for letter in letters:
        what = f"order {letter['order_id']} to {letter['to_status']!r}"
        show(
            f"{letter['event_id']}: {what}, dead since {letter['since']} after {letter['attempts']}: {letter['why']}"
        )
    show("order-monitor replay --dead posts them again" if letters else "there are no dead letters")
    return ExitCode.OK


async def _outbox(session: Session) -> Outbox:
    """Return the outbox, if any process posts events, even if these settings name no webhook.

    Without the mark nothing may be queued either: the process that sets the mark starts with the
    oldest waiting event.

    Raises:
        NotDoneError: no process does.
        SettingsError: a table is missing; the text says what to run.
    """
    await session.need(EVENTS, DELIVERIES, SETTINGS)
    async with session.database.transaction() as connection:
        mark = await read_webhook(connection, session.schema)
    if mark is None:
        raise NotDoneError(
            "order-monitor: events are not being posted: no process with a [webhook] has run on this database"
        )
    return Outbox(session.database, session.schema)
