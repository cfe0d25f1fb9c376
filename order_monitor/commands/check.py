"""``order-monitor check``: look at everything, change nothing, and say what to do."""

from __future__ import annotations

import json
import shlex
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Final

from order_monitor.commands.check_orders import check_orders
from order_monitor.commands.composition import (
    database_of,
    directory_of,
    layout_of,
    membership_of,
    opener_of,
    presence_of,
    settings_of,
)
from order_monitor.commands.exits import ExitCode, report, run_to_exit
from order_monitor.commands.notify import notify_lines
from order_monitor.commands.status import answers
from order_monitor.core.clock import Clock
from order_monitor.core.clocks import NOTABLE, WIDEST, ClockWatch
from order_monitor.core.easing import SHORTAGE_REMEDIES
from order_monitor.core.errors import SettingsError, ShopError, ShopUnavailableError
from order_monitor.core.login import KINDS
from order_monitor.providers.failures import FAILURE_WORDS
from order_monitor.providers.provider import Balance, NoBalance
from order_monitor.providers.transport import CERTIFICATE_WORDS
from order_monitor.settings.loading import readable_secrets
from order_monitor.settings.model import Settings
from order_monitor.shop.accounts import Integration, find_account_tables
from order_monitor.shop.check_line import CheckLine, Level
from order_monitor.shop.database import Database
from order_monitor.shop.doctor import Doctor, worst
from order_monitor.shop.membership import OLDER_VERSION, POOLED, LostMembershipError, OlderVersionError
from order_monitor.shop.migration import Migration
from order_monitor.shop.order_search import lookup_columns
from order_monitor.shop.presence import database_time
from order_monitor.shop.rehearsal import Rehearsal
from order_monitor.shop.repository import Orders
from order_monitor.shop.webhook_mark import address_of, read_webhook
from order_monitor.tell.listening import trial
from order_monitor.tell.redactor import Redactor
from order_monitor.tell.screen import Screen, styled
from order_monitor.tell.streams import say
from order_monitor.watch.routing import AnyOpener, Directory, names_of
from order_monitor.watch.system_clock import SystemClock

_COLOURS = {"ok": "green", "warning": "yellow", "error": "bold red"}


def run_check(config: Path | None, *, as_json: bool, rehearse: bool = False) -> int:
    """Check, with ``rehearse`` try the writes too, print a line for each thing, and return 1 if one is an error."""
    try:
        settings, sink, redactor = settings_of(config, "database", "provider")
    except SettingsError as error:
        if as_json:
            _print(_mistakes(error), Redactor(), as_json=True)
        raise
    wish = _check(settings, redactor, as_json=as_json, rehearse=rehearse, before=_readable(config))
    return run_to_exit(wish, sink.close)


def _readable(config: Path | None) -> list[CheckLine]:
    """Warn of secrets that every user of this machine can read."""
    found = readable_secrets(config)
    if found is None:
        return []
    path, keys = found
    text = f"every user of this machine can read {path}, and in it {', '.join(keys)}"
    do = f"chmod 640 {shlex.quote(str(path))} and chgrp it to the daemon's group, or keep secrets in files of their own"
    return [CheckLine("warning", "secrets", text, do)]


def _mistakes(error: SettingsError) -> list[CheckLine]:
    """Say each mistake in the settings in a line of its own."""
    lines = []
    for problem in error.problems:
        text, _, remedy = problem.partition("; ")
        lines.append(CheckLine("error", "settings", text, remedy or "correct it there"))
    return [*lines, *([CheckLine("error", "settings", *error.note.split("; ", 1))] if error.note else [])]


async def _check(
    settings: Settings, redactor: Redactor, *, as_json: bool, rehearse: bool, before: Sequence[CheckLine] = ()
) -> int:
    """Look at everything; ``before`` is what was found already."""
    lines = [CheckLine("ok", "settings", "all understood"), *before, *_doubtful(settings), *_endpoint(settings)]
    database, layout, clock = database_of(settings), layout_of(settings), SystemClock()
    code = None
    try:
        orders = Orders(database, layout, writes_nothing=True)
        doctor = Doctor(database, orders, Migration(database, layout, clock), layout)
        lines += [line async for line in doctor.examine()]
        directory = directory_of(settings, clock, redactor.follow)
        if doctor.can_work:
            lines += await check_orders(orders, directory)
        lines += await _rehearse(database, orders) if rehearse else []
        lines.append(await _check_clocks(database, clock))
        if worst(lines) != "error":
            lines += await _check_lookup(database, orders)
            # Until our tables are there, nobody has said anything about a webhook.
            lines += [] if orders.lacks else await _check_webhook(settings, database)
            if settings.cluster.enabled:
                lines += await _check_cluster(settings, database)
            elif not orders.lacks:
                lines += await _check_other_daemons(settings, database)
            lines += await _check_accounts(settings, database, directory)
        lines += notify_lines(settings.notify)
    except ShopUnavailableError as error:
        # What was found before that is reported as well.
        text, _, remedy = str(error).partition("; ")
        lines.append(CheckLine("error", "database", f"cannot be reached: {text}", remedy))
        code = report(error)
    finally:
        await database.close()
    _print(lines, redactor, as_json=as_json)
    if code is not None:
        return code
    return ExitCode.NOT_DONE if worst(lines) == "error" else ExitCode.OK


def _doubtful(settings: Settings) -> list[CheckLine]:
    """Say which words among the open ones end an order in most shops."""
    text = (
        "{}: in most shops this ends an order; here such orders are asked about, and may get another status and a PIN"
    )
    do = "take it out of statuses.open, unless it is what the shop calls an order that the provider works on"
    return [CheckLine("warning", "statuses.open", text.format(word), do) for word in settings.statuses.doubtful()]


def _endpoint(settings: Settings) -> list[CheckLine]:
    """Say whether the health endpoint could listen; where this program does already, that is as it should be."""
    health = settings.health
    if not health.enabled:
        return []
    where = f"{health.host}:{health.port or 'any free port'}"
    trouble = trial(health.host, health.port)
    if trouble is None:
        return [CheckLine("ok", "health", f"can listen on {where}")]
    if trouble.is_ours or (trouble.is_taken and answers(settings)):
        return [CheckLine("ok", "health", f"{trouble.holder or 'order-monitor'} listens on {where}")]
    # Who has the port is not always to be seen: then it may be a daemon of ours that does not answer just now.
    level: Level = "warning" if trouble.is_taken and not trouble.holder else "error"
    return [CheckLine(level, trouble.key, trouble.cause, trouble.do)]


async def _rehearse(database: Database, orders: Orders) -> list[CheckLine]:
    """Try the writes, where the table and our own are there and may be written."""
    try:
        await orders.complete()
        return await Rehearsal(database, orders).lines()
    except ShopUnavailableError:
        raise
    except (SettingsError, ShopError) as error:
        return [CheckLine("error", "rehearsal", f"it could not be tried: {error}", "see the lines above")]


async def _check_clocks(database: Database, clock: Clock) -> CheckLine:
    """Say by how much the database's clock and this machine's differ."""
    clocks, began = ClockWatch(), clock.boot()
    now, boot = await database_time(database), clock.boot()
    clocks.note_machine(clock.time(), boot)
    clocks.note_database(now, boot, boot - began)
    return clocks_line(clocks.difference or 0.0)


def clocks_line(difference: float) -> CheckLine:
    """Say what it means that the database's clock is ahead by so many seconds."""
    words = f"the database's is {abs(difference):.0f} s {'ahead of' if difference > 0 else 'behind'} this machine's"
    if abs(difference) > WIDEST:
        return CheckLine("error", "clocks", f"{words}: no order is ended by its age", _CLOCKS_DO)
    if abs(difference) > NOTABLE:
        return CheckLine(
            "warning", "clocks", f"{words}: an order's age is the smaller of the two reckonings", _CLOCKS_DO
        )
    return CheckLine("ok", "clocks", "the database's and this machine's agree")


_LATELY: Final = 15.0
"""Seconds within which a daemon that lives was seen."""

_CLOCKS_DO: Final = "see that both machines keep their time by NTP"


async def _check_lookup(database: Database, orders: Orders) -> list[CheckLine]:
    """Say what is wrong with ``database.lookup``, which only people's commands need."""
    try:
        await lookup_columns(database, orders)
    except SettingsError as error:
        return [CheckLine("error", *problem.split(": ", 1)) for problem in error.problems]
    return []


async def _check_webhook(settings: Settings, database: Database) -> list[CheckLine]:
    """Say whether what these settings say of the webhook is what all go by."""
    url = settings.webhook.url
    async with database.transaction() as connection:
        mark = await read_webhook(connection, settings.database.schema_)
    if mark is None:
        text = "nothing is posted yet: the first daemon with it begins, from the next event on"
        return [] if url is None else [CheckLine("ok", "webhook.url", text)]
    since = f"events are posted from number {mark.since} on"
    if url is None:
        return [CheckLine("ok", "webhook.url", f"{since}; by these settings they are put up, and others post them")]
    if mark.address != address_of(url.get_secret_value()):
        text = f"{since}, but to another address: by these settings nothing is posted"
        return [CheckLine("warning", "webhook.url", text, "order-monitor webhook adopt, if this is the right one")]
    return [CheckLine("ok", "webhook.url", since)]


async def _check_other_daemons(settings: Settings, database: Database) -> list[CheckLine]:
    """Say whether several daemons work on this shop although no sharing is set."""
    found = [peer for peer, _ in await presence_of(settings, database, "check").seen(_LATELY)]
    if len(found) < 2:  # noqa: PLR2004 - more than one
        return []
    names = ", ".join(f"{peer.host} (pid {peer.pid})" for peer in found)
    text = f"{len(found)} work on this shop: {names}; each asks about every order"
    return [CheckLine("warning", "daemons", text, "stop all but one, or set cluster.enabled for all")]


async def _check_cluster(settings: Settings, database: Database) -> list[CheckLine]:
    """Say whether locks would be worth anything here, where processes are to share the accounts."""
    try:
        async with membership_of(settings, database, on_trial=True).joined() as session:
            await session.look(())
    except SettingsError as error:
        return [CheckLine("error", *error.problems[0].split(": ", 1))]
    except OlderVersionError:
        return [CheckLine("warning", "cluster.enabled", *OLDER_VERSION.split(": ", 1))]
    except LostMembershipError:
        return [CheckLine("error", *POOLED.split(": ", 1))]
    return [CheckLine("ok", "cluster.enabled", "an account can be held for as long as its holder lives")]


async def _check_accounts(settings: Settings, database: Database, directory: Directory) -> list[CheckLine]:
    lines = []
    if settings.provider.source == "database":
        async with database.transaction() as connection:
            integrations = await (await find_account_tables(connection, settings.database.schema_)).read(connection)
        directory.update(integrations)
        lines += _not_ours(integrations, directory, opener_of(settings, SystemClock()))
    for account in directory.accounts.values():
        lines.append(_account_line(account.name, await account.provider.balance(), account.proxy))
        await account.provider.aclose()
    if not directory.accounts:
        lines.append(
            CheckLine(
                "error",
                "accounts",
                "there is none to ask",
                "correct or enable a znet integration, or set provider.source",
            )
        )
    return lines


def _not_ours(integrations: list[Integration], directory: Directory, opener: AnyOpener) -> list[CheckLine]:
    """Count the integrations that are not asked, and say of each that should be what is wrong with it."""
    count = len(integrations) - len(directory.accounts)
    if not count:
        return []
    text = f"{count} integration{'s' if count > 1 else ''} of the shop not asked: disabled, of another provider, or bad address"
    names, lines = names_of(integrations), [CheckLine("warning", "accounts", text)]
    for one in integrations:
        if one.enabled and one.provider in KINDS and one.id not in directory.accounts:
            try:
                opener(one)
            except ValueError as error:
                do = "correct it in the shop's table integrations"
                lines.append(CheckLine("warning", f"account {names[one.id]}", f"is not asked: {error}", do))
    return lines


def _account_line(name: str, found: Balance | NoBalance, proxy: str) -> CheckLine:
    way = f", through the proxy {proxy}" if proxy else ""
    if isinstance(found, Balance) and found.number is None:
        text = f"answers{way}; its balance cannot be read as a number: {found.amount}"
        return CheckLine(
            "warning", f"account {name}", text, "provider.low_balance can warn nobody of it: look at the panel"
        )
    if isinstance(found, Balance):
        return CheckLine("ok", f"account {name}", f"answers{way}; balance {found.amount}")
    why = found.why
    words = f"{why}: {_WORDS[why]}" if why in _WORDS else why
    said = f", it said: {found.said}" if found.said else ""
    return CheckLine(
        "error", f"account {name}", f"does not answer as it should{way}: {words}{said}", _ADVICE.get(why, "")
    )


_WORDS: Final = CERTIFICATE_WORDS | FAILURE_WORDS
_OWN_CA = "if it is the panel's own authority that signed it, give its certificate (PEM) as provider.ca_file"
_ADVICE = {
    "empty_answer": "check kod and sifre, and that znet allows this machine's address",
    "refused_8": "check kod and sifre, and that znet allows this machine's address",
    "html_answer": "a web page came: check base_url, or wait where it speaks of maintenance",
    "not_understood": "a text came that is no answer: check base_url and status_path, or wait where it speaks of maintenance",
    "http_404": "check base_url and status_path: there is nothing at that address",
    "redirect": "check base_url: https, and the name without or with www",
    "connect_error": "check base_url, and that this machine may reach it",
    "name_not_found": "check the name in base_url, and that this machine resolves the names of the internet",
    "resolver_failed": "see /etc/resolv.conf, and that the servers named there answer; the account itself is not the cause",
    "proxy_unreachable": "check host, port and scheme of the proxy, and that it runs",
    "proxy_login": "check user and password of the proxy; special signs in them are escaped, like %40 for @",
    "proxy_refused": "let the proxy allow the provider's host and port (CONNECT, for https); see its log",
    "proxy_failed": "see the proxy's log: it accepts us, and does not get through to the provider",
    "proxy_protocol_error": "check the proxy's scheme and port: http, https, socks5 and socks5h are different things",
    **SHORTAGE_REMEDIES,
    "private_address": "see provider.allow_private",
    "tls_failed": "check base_url and its port: no TLS is spoken there, or only a version too old to be safe",
    "certificate_expired": "have the panel's certificate renewed; nothing is asked until then",
    "certificate_not_yet_valid": "set this machine's clock, or have the panel's certificate mended",
    "certificate_wrong_host": "use the name that the certificate is for in base_url",
    "certificate_self_signed": _OWN_CA,
    "certificate_unknown_issuer": f"{_OWN_CA}; else have the panel send its whole chain, with the intermediate certificate",
    "certificate_missing_intermediate": "have the panel send its whole chain (fullchain.pem); until it does, the intermediate"
    " certificate (PEM) can be given as provider.ca_file",
    "certificate_key_too_small": "have the panel's certificate renewed with a key of 2048 bit or more; nothing is asked until then",
    "certificate_weak_signature": "have the panel's certificate renewed, signed with SHA-256; nothing is asked until then",
    "certificate_invalid": _OWN_CA,
}


def _print(lines: list[CheckLine], redactor: Redactor, *, as_json: bool) -> None:
    if as_json:
        say(redactor(json.dumps([asdict(line) for line in lines], ensure_ascii=False)), to_stdout=True)
        return
    screen = Screen(soft_wrap=True)
    for line in lines:
        screen.print(styled((f"{line.level:<8}", _COLOURS[line.level]), f" {redactor(f'{line.subject}: {line.text}')}"))
        if line.do:
            screen.print(styled(f"{'':<9}-> {redactor(line.do)}"))
