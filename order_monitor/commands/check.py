"""``order-monitor check``: look at everything, change nothing, and say what to do."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from pathlib import Path

from rich.console import Console
from rich.text import Text

from order_monitor.clock import SystemClock
from order_monitor.commands.compose import (
    ExitCode,
    database_of,
    directory_of,
    layout_of,
    run_to_exit,
    say,
    settings_of,
)
from order_monitor.directory import Directory
from order_monitor.logs import Redactor
from order_monitor.providers.seam import Balance
from order_monitor.settings import Settings
from order_monitor.shop.accounts import Integration, find_account_tables
from order_monitor.shop.database import Database
from order_monitor.shop.doctor import Doctor, Line, worst
from order_monitor.shop.migrate import Migration
from order_monitor.shop.orders import Orders

_COLOURS = {"ok": "green", "warning": "yellow", "error": "bold red"}


def run_check(config: Path | None, *, as_json: bool) -> int:
    """Check, print a line for each thing, and return 1 if one is an error."""
    settings, sink, redactor = settings_of(config, "database", "provider")
    return run_to_exit(_check(settings, redactor, as_json=as_json), sink)


async def _check(settings: Settings, redactor: Redactor, *, as_json: bool) -> int:
    lines = [Line("ok", "settings", "all understood")]
    database, layout, clock = database_of(settings), layout_of(settings), SystemClock()
    try:
        doctor = Doctor(database, Orders(database, layout), Migration(database, layout, clock), layout)
        lines += [line async for line in doctor.examine()]
        directory = directory_of(settings, clock, redactor.learn)
        if worst(lines) != "error":
            lines += await _check_accounts(settings, database, directory)
    finally:
        await database.close()
    _print(lines, redactor, as_json=as_json)
    return ExitCode.NOT_DONE if worst(lines) == "error" else ExitCode.OK


async def _check_accounts(settings: Settings, database: Database, directory: Directory) -> list[Line]:
    lines = []
    if settings.provider.source == "database":
        async with database.transaction() as connection:
            integrations = await (await find_account_tables(connection, settings.database.schema_)).read(connection)
        directory.update(integrations)
        lines += _not_ours(integrations, directory)
    for account in directory.accounts.values():
        lines.append(_account_line(account.name, await account.provider.balance()))
        await account.provider.aclose()
    if not directory.accounts:
        lines.append(
            Line("error", "accounts", "there is none to ask", "enable a znet integration, or set provider.source")
        )
    return lines


def _not_ours(integrations: list[Integration], directory: Directory) -> list[Line]:
    count = len(integrations) - len(directory.accounts)
    text = f"{count} integration{'s' if count > 1 else ''} of the shop not asked: disabled, of another provider, or bad address"
    return [Line("warning", "accounts", text)] if count else []


def _account_line(name: str, found: Balance | str) -> Line:
    if isinstance(found, Balance):
        return Line("ok", f"account {name}", f"answers; balance {found.amount}")
    return Line("error", f"account {name}", f"does not answer as it should: {found}", _ADVICE.get(found, ""))


_ADVICE = {
    "empty_answer": "check kod and sifre, and that znet allows this machine's address",
    "refused_8": "check kod and sifre, and that znet allows this machine's address",
    "html_answer": "check base_url",
    "redirect": "check base_url: https, and the name without or with www",
    "connect_error": "check base_url, and that this machine may reach it",
    "private_address": "see provider.allow_private",
}


def _print(lines: list[Line], redactor: Redactor, *, as_json: bool) -> None:
    if as_json:
        say(redactor(json.dumps([asdict(line) for line in lines], ensure_ascii=False)), to_stdout=True)
        return
    console = Console(file=sys.stdout, highlight=False, soft_wrap=True)
    for line in lines:
        text = Text.assemble((f"{line.level:<8}", _COLOURS[line.level]), f" {redactor(f'{line.subject}: {line.text}')}")
        console.print(text)
        if line.do:
            console.print(f"{'':<9}-> {redactor(line.do)}", markup=False)
