"""``order-monitor pause`` and ``resume``, for asking or for ends: stored in the database, so that
it applies to every process.
"""

from __future__ import annotations

from typing import Final

from order_monitor.commands.exits import ExitCode, NotDoneError
from order_monitor.commands.lookup import account_of, name_of, near
from order_monitor.commands.session import PEOPLES, Session, command
from order_monitor.core.errors import SettingsError, ShopError
from order_monitor.shop.accounts.pauses import EVERY_ACCOUNT, Pauses, ends_of, is_of_ends, only_ends
from order_monitor.tell.streams import show
from order_monitor.watch.routing import names_of

_ALL: Final = "all accounts"


@command("provider")
async def run_pause(
    session: Session,
    account: str | None,
    *,
    ends: bool,
    reason: str,
    by: str | None,
    seconds: float | None,
) -> int:
    """Pause an account, or with ``ends`` hold its ends, or the ends of all accounts, for so many
    ``seconds``; None until it is resumed.

    Raises:
        NotDoneError: there is no such account.
    """
    key, name, by = EVERY_ACCOUNT, _ALL, name_of(by)
    await session.need(*PEOPLES)
    async with session.accounts() as directory:
        if account is not None:
            meant = account_of(directory, account)
            key, name = meant.key, meant.name
    async with session.database.transaction() as connection:
        await Pauses(session.schema).pause(
            connection, ends_of(key) if ends else key, reason, by, seconds
        )
    until = f" for {seconds:g} s" if seconds else " until it is resumed"
    what = "its ends are held" if ends else "paused"
    show(f"{name}: {what}{until} by {by}: {reason}")
    return ExitCode.OK


@command()
async def run_resume(session: Session, account: str | None, *, ends: bool) -> int:
    """Resume an account, or its ends.

    Raises:
        NotDoneError: it was not paused.
    """
    pauses = Pauses(session.schema)
    await session.need(*PEOPLES)
    names = await _names(session)
    async with session.database.transaction() as connection:
        held = only_ends(read := await pauses.read(connection))
        kept = held if ends else [key for key in read if not is_of_ends(key)]
        paused = {key: _ALL if key == EVERY_ACCOUNT else names.get(key, key) for key in kept}
        wanted = EVERY_ACCOUNT if account is None else account
        meant = [key for key, name in paused.items() if wanted in (key, name)]
        done = len(meant) == 1 and await pauses.resume(
            connection, [ends_of(k) if ends else k for k in meant]
        )
    if not done:
        held_not = f"the ends of {account or _ALL!r} are not held"
        what = held_not if ends else f"{account!r} is not paused"
        raise NotDoneError(f"order-monitor: {what}{near(account or '', paused.values())}")
    again = "its ends are written again" if ends else "resumed; it is asked again within a scan"
    show(f"{paused[meant[0]]}: {again}")
    return ExitCode.OK


async def _names(session: Session) -> dict[str, str]:
    """Return the names of the accounts in the shop's tables.

    Empty if they cannot be read: a pause can still be ended.
    """
    try:
        return names_of(await session.integrations())
    except (SettingsError, ShopError):
        return {}
