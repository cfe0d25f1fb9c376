"""``order-monitor release``: let through the ends that the brake holds for an account, or allow
orders sent before the first start to be failed by their age.
"""

from __future__ import annotations

from order_monitor.commands.exits import ExitCode, NotDoneError
from order_monitor.commands.lookup import account_of, name_of, when
from order_monitor.commands.session import PEOPLES, Session, command
from order_monitor.shop.first_start import release
from order_monitor.tell.streams import show


@command("provider")
async def run_release(session: Session, account: str, *, by: str | None) -> int:
    """Release what is held for an account.

    Raises:
        NotDoneError: nothing is held, or there is no such account.
    """
    name, orders = name_of(by), session.orders()
    await session.need(*PEOPLES)
    await orders.complete()
    async with session.accounts() as directory:
        # Orders of an account that the shop has removed may still be held; then only its id is
        # known.
        key = account.strip()
        if key not in {one.account for one in await orders.brake.held()}:
            key = account_of(directory, account).key
        counts = await orders.brake.release(key, name)
        names = {known.key: known.name for known in directory.accounts.values()}
    if not counts:
        raise NotDoneError(f"order-monitor: nothing is held of {names.get(key, key)}")
    for one, count in sorted(counts.items()):
        show(
            f"{names.get(one, one)}: {count} held order{'s' * (count != 1)} let through by {name}; "
            "each is asked about once more, and ends if it is cancelled still"
        )
    return ExitCode.OK


@command()
async def run_release_first_start(session: Session, *, by: str | None) -> int:
    """Release what only the first start holds.

    Raises:
        NotDoneError: nothing is held.
    """
    name = name_of(by)
    held = (await session.orders().reader.count_apart()).held
    async with session.database.transaction() as connection:
        moment = await release(connection, session.schema, name)
    if moment is None:
        raise NotDoneError(
            "order-monitor: there is nothing to release: no order is held because of the first start"
        )
    show(
        f"orders sent before {when(moment)} may be failed by their age from now on, released by {name}; "
        f"{held} {'is' if held == 1 else 'are'} past schedule.give_up_after"
    )
    return ExitCode.OK
