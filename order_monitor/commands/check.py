"""``order-monitor check``: examine everything, change nothing, and print what to do."""

from __future__ import annotations

import json
import shlex
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Final

from order_monitor.app import (
    membership_of,
    opener_of,
    presence_of,
    table_config_of,
    table_of,
)
from order_monitor.cluster.membership import (
    POOLED,
    LostMembershipError,
    OlderVersionError,
    announced,
    member_name,
    members_of,
)
from order_monitor.commands.check_attention import check_attention
from order_monitor.commands.check_orders import check_orders
from order_monitor.commands.exits import ExitCode, report
from order_monitor.commands.notify import notify_lines
from order_monitor.commands.session import Session, command
from order_monitor.commands.status import answers
from order_monitor.core.clock import Clock
from order_monitor.core.clocks import NOTABLE, WIDEST, ClockWatch
from order_monitor.core.easing import SHORTAGE_REMEDIES
from order_monitor.core.errors import SettingsError, ShopError, ShopUnavailableError
from order_monitor.core.login import INTERNAL, KIND_OF
from order_monitor.providers.http.failures import FAILURE_WORDS
from order_monitor.providers.http.transport import CERTIFICATE_WORDS
from order_monitor.providers.provider import Balance, NoBalance
from order_monitor.providers.registry import KINDS
from order_monitor.settings.loading import is_key, place_of, readable_secrets
from order_monitor.settings.model import Settings
from order_monitor.shop.accounts.tables import Integration
from order_monitor.shop.check.dry_run import DryRun
from order_monitor.shop.check.line import CheckLine, Level
from order_monitor.shop.check.tables import TableCheck, worst
from order_monitor.shop.database import Database, now_of
from order_monitor.shop.locks import OLDER_VERSION
from order_monitor.shop.migration import Migration
from order_monitor.shop.reading.search import lookup_columns
from order_monitor.shop.repository import Orders
from order_monitor.shop.webhook_mark import address_of, read_webhook
from order_monitor.tell.listening import trial
from order_monitor.tell.redactor import Redactor
from order_monitor.tell.screen import Screen, styled
from order_monitor.tell.streams import show
from order_monitor.watch.account import Account
from order_monitor.watch.routing import AnyOpener, Directory, names_of
from order_monitor.watch.system_clock import SystemClock

_COLOURS = {"ok": "green", "warning": "yellow", "error": "bold red"}


def run_check(config: Path | None, *, as_json: bool, rehearse: bool) -> int:
    """Check, and with ``rehearse`` also try the writes; print one line per finding, and return 1 if
    one is an error.
    """
    try:
        checked = command("provider", least=None)(examine)
        return checked(config, as_json=as_json, rehearse=rehearse, before=_readable(config))
    except SettingsError as error:
        if as_json:
            _print(_mistakes(error), Redactor(), as_json=True)
        raise


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
    """Return one line for each mistake in the settings."""
    lines = []
    for problem in error.problems:
        text, _, remedy = problem.partition("; ")
        lines.append(CheckLine("error", "settings", text, remedy or "correct it there"))
    return [
        *lines,
        *([CheckLine("error", "settings", *error.note.split("; ", 1))] if error.note else []),
    ]


async def examine(
    session: Session, *, as_json: bool, rehearse: bool, before: Sequence[CheckLine] = ()
) -> int:
    """Run all checks; ``before`` holds the findings so far."""
    settings, database, clock = session.settings, session.database, SystemClock()
    lines = [
        CheckLine("ok", "settings", "all understood"),
        *before,
        *_doubtful(settings),
        *_endpoint(settings),
    ]
    table_config, code = table_config_of(settings), None
    async with session.directory() as directory:
        try:
            orders = Orders(database, table_config, writes_nothing=True)
            table_check = TableCheck(
                database, orders, Migration(database, table_config, clock), table_config
            )
            lines += [line async for line in table_check.examine()]
            if table_check.can_work:
                found, scan = await check_orders(orders, directory)
                lines += found
                if scan is not None:
                    lines += await check_attention(settings, database, scan, directory)
            lines += await _rehearse(database, orders) if rehearse else []
            lines.append(await _check_clocks(database, clock))
            if worst(lines) != "error":
                lines += await _check_lookup(database, orders)
                # Until our tables exist, nothing about a webhook can be stored.
                lines += [] if orders.lacks else await _check_webhook(settings, database)
                if settings.cluster.enabled:
                    lines += await _check_cluster(settings, database)
                if not orders.lacks:
                    lines += await _check_other_daemons(settings, database)
                lines += await _check_accounts(session, directory)
            lines += notify_lines(settings.notify)
        except ShopUnavailableError as error:
            # Findings from before the error are reported as well.
            text, _, remedy = str(error).partition("; ")
            place = place_of("database.dsn" if settings.database.dsn else "database.host")
            text = f"cannot be reached, see {place}: {text}"
            lines.append(CheckLine("error", "database", text, remedy))
            code = report(error)
    _print([_placed(line) for line in lines], session.redactor, as_json=as_json)
    if code is not None:
        return code
    return ExitCode.NOT_DONE if worst(lines) == "error" else ExitCode.OK


def _placed(line: CheckLine) -> CheckLine:
    """Add the place where a faulty setting is set."""
    if line.level == "ok" or not is_key(line.subject):
        return line
    return replace(line, text=f"{place_of(line.subject)}: {line.text}")


def _doubtful(settings: Settings) -> list[CheckLine]:
    """Warn of settings without effect, and of open statuses that mean an ended order in most shops."""
    lines = []
    if settings.provider.chains == "monitor" and settings.provider.source != "database":
        text = "no chain is followed: that takes the shop's own accounts"
        do = 'set provider.source = "database"'
        lines.append(CheckLine("warning", "provider.chains", text, do))
    text = "{}: in most shops this ends an order; here such orders are asked about, and may get another status and a PIN"
    do = "take it out of statuses.open, unless it is what the shop calls an order that the provider works on"
    return lines + [
        CheckLine("warning", "statuses.open", text.format(word), do)
        for word in settings.statuses.doubtful()
    ]


def _endpoint(settings: Settings) -> list[CheckLine]:
    """Report whether the health endpoint could listen.

    A port that this program already holds is fine.
    """
    health = settings.health
    if not health.enabled:
        return []
    where = f"{health.host}:{health.port or 'any free port'}"
    trouble = trial(health.host, health.port)
    if trouble is None:
        return [CheckLine("ok", "health", f"can listen on {where}")]
    if trouble.is_ours or (trouble.is_taken and answers(settings)):
        holder = trouble.holder or "order-monitor"
        return [CheckLine("ok", "health", f"{holder} listens on {where}")]
    # The process that holds the port is not always visible: it may be a daemon of ours that does
    # not answer at the moment.
    level: Level = "warning" if trouble.is_taken and not trouble.holder else "error"
    return [CheckLine(level, trouble.key, trouble.cause, trouble.do)]


async def _rehearse(database: Database, orders: Orders) -> list[CheckLine]:
    """Try the writes, if the shop's table and our own exist and are writable."""
    try:
        await orders.complete()
        return await DryRun(database, orders).lines()
    except ShopUnavailableError:
        raise
    except (SettingsError, ShopError) as error:
        text = f"it could not be tried: {error}"
        return [CheckLine("error", "rehearsal", text, "see the lines above")]


async def _check_clocks(database: Database, clock: Clock) -> CheckLine:
    """Report the difference between the database's clock and this machine's."""
    clocks, began = ClockWatch(), clock.boot()
    async with database.transaction() as connection:
        now = await now_of(connection)
    boot = clock.boot()
    clocks.note_machine(clock.time(), boot)
    clocks.note_database(now, boot, boot - began)
    return clocks_line(clocks.difference or 0.0)


def clocks_line(difference: float) -> CheckLine:
    """Explain what a difference in seconds means; positive if the database's clock is ahead."""
    words = f"the database's is {abs(difference):.0f} s {'ahead of' if difference > 0 else 'behind'} this machine's"
    if abs(difference) > WIDEST:
        return CheckLine("error", "clocks", f"{words}: no order is ended by its age", _CLOCKS_DO)
    if abs(difference) > NOTABLE:
        text = f"{words}: an order's age is the smaller of the two values"
        return CheckLine("warning", "clocks", text, _CLOCKS_DO)
    return CheckLine("ok", "clocks", "the database's and this machine's agree")


_LATELY: Final = 15.0
"""Seconds within which a live daemon must have been seen."""

_CLOCKS_DO: Final = "see that both machines keep their time by NTP"


async def _check_lookup(database: Database, orders: Orders) -> list[CheckLine]:
    """Report what is wrong with ``database.lookup``, which only the commands for people use."""
    try:
        await lookup_columns(database, orders)
    except SettingsError as error:
        return [CheckLine("error", *problem.split(": ", 1)) for problem in error.problems]
    return []


async def _check_webhook(settings: Settings, database: Database) -> list[CheckLine]:
    """Report whether these settings agree with the webhook mark that all processes follow."""
    url = settings.webhook.url
    async with database.transaction() as connection:
        mark = await read_webhook(connection, settings.database.schema_)
    if mark is None:
        text = "nothing is posted yet: the first daemon with it begins, from the next event on"
        return [] if url is None else [CheckLine("ok", "webhook.url", text)]
    since = f"events are posted from number {mark.since} on"
    if url is None:
        text = f"{since}; by these settings they are put up, and others post them"
        return [CheckLine("ok", "webhook.url", text)]
    if mark.address != address_of(url.get_secret_value()):
        text = f"{since}, but to another address: by these settings nothing is posted"
        do = "order-monitor webhook adopt, if this is the right one"
        return [CheckLine("warning", "webhook.url", text, do)]
    return [CheckLine("ok", "webhook.url", since)]


async def _check_other_daemons(settings: Settings, database: Database) -> list[CheckLine]:
    """Report daemons that work on this shop without sharing its accounts, or that share them
    although these settings do not.
    """
    seen = await presence_of(settings, database, "check").seen(_LATELY)
    if not seen:
        return []
    async with database.transaction() as connection:
        members = await members_of(connection, table_of(settings))
    alone = [one for one in seen if announced(member_name(one.host, one.pid)) not in members]
    names = ", ".join(f"{one.host} (pid {one.pid})" for one in alone)
    do = "stop all but one, or set cluster.enabled for all"
    if alone and len(alone) < len(seen):
        text = f"{len(seen)} work on this shop, and not all share its accounts: {names} asks about every order"
    elif len(alone) > 1:
        text = f"{len(alone)} work on this shop: {names}; each asks about every order"
    elif alone and settings.cluster.enabled:
        text = f"cluster.enabled is set here, and {names} works on this shop without: it asks about every order"
        do = "restart it with these settings"
    elif not alone and not settings.cluster.enabled:
        text = f"{len(seen)} share the accounts of this shop; a daemon by these settings would ask about every order too"
        do = "set cluster.enabled here too"
    else:
        return []
    return [CheckLine("warning", "daemons", text, do)]


async def _check_cluster(settings: Settings, database: Database) -> list[CheckLine]:
    """Report whether locks work here, if processes should share the accounts."""
    try:
        async with membership_of(settings, database, on_trial=True).joined() as session:
            await session.see(())
    except SettingsError as error:
        return [CheckLine("error", *error.problems[0].split(": ", 1))]
    except OlderVersionError:
        return [CheckLine("warning", "cluster.enabled", *OLDER_VERSION.split(": ", 1))]
    except LostMembershipError:
        return [CheckLine("error", *POOLED.split(": ", 1))]
    text = "an account can be held for as long as its holder lives"
    return [CheckLine("ok", "cluster.enabled", text)]


async def _check_accounts(session: Session, directory: Directory) -> list[CheckLine]:
    settings, lines = session.settings, []
    if settings.provider.source == "database":
        integrations = await session.integrations()
        directory.update(integrations)
        lines += _not_ours(integrations, directory, opener_of(settings, SystemClock()))
    else:
        lines += await _other_kinds(session)
    for account in directory.accounts.values():
        lines.append(_account_line(account, await account.provider.balance()))
    if not directory.accounts:
        do = "correct or enable an integration, or set provider.source"
        lines.append(CheckLine("error", "accounts", "there is none to ask", do))
    return lines


async def _other_kinds(session: Session) -> list[CheckLine]:
    """Report providers of the shop's integrations that the single configured account cannot ask."""
    try:
        integrations = await session.integrations()
    except (SettingsError, ShopError):
        # No such tables, or no right to read them: with a single account they are not needed.
        return []
    kind = session.settings.provider.kind
    others = sorted(
        {one.provider for one in integrations if one.enabled and KIND_OF.get(one.provider) != kind}
    )
    if not others:
        return []
    text = f"the shop's integrations name {', '.join(others)} too: the one account, of kind {kind}, does not know their orders"
    do = 'set provider.source = "database", so that each order is asked about at its own account'
    return [CheckLine("warning", "provider.source", text, do)]


def _not_ours(
    integrations: list[Integration], directory: Directory, opener: AnyOpener
) -> list[CheckLine]:
    """Count the integrations that are not asked, and report what is wrong with each that should
    be.
    """
    count = len(integrations) - len(directory.accounts)
    if not count:
        return []
    text = f"{count} integration{'s' if count > 1 else ''} of the shop not asked: disabled, of another provider, or bad address"
    names, lines = names_of(integrations), [CheckLine("warning", "accounts", text)]
    for one in integrations:
        is_asked = one.provider in KIND_OF and one.provider != INTERNAL
        if one.enabled and is_asked and one.id not in directory.accounts:
            try:
                opener(one)
            except ValueError as error:
                do = "correct it in the shop's table integrations"
                lines.append(
                    CheckLine("warning", f"account {names[one.id]}", f"is not asked: {error}", do)
                )
    return lines


def _account_line(account: Account, found: Balance | NoBalance) -> CheckLine:
    name, way = account.name, f", through the proxy {account.proxy}" if account.proxy else ""
    if isinstance(found, Balance) and found.number is None:
        text = f"answers{way}; its balance cannot be read as a number: {found.amount}"
        do = "provider.low_balance cannot warn about it: look at the panel"
        return CheckLine("warning", f"account {name}", text, do)
    if isinstance(found, Balance):
        return CheckLine("ok", f"account {name}", f"answers{way}; balance {found.amount}")
    why = found.why
    words = f"{why}: {_WORDS[why]}" if why in _WORDS else why
    said = f", it answered: {found.said}" if found.said else ""
    text = f"does not answer as it should{way}: {words}{said}"
    do = KINDS[account.kind].advice.get(why) or _ADVICE.get(why, "")
    return CheckLine("error", f"account {name}", text, do)


_WORDS: Final = CERTIFICATE_WORDS | FAILURE_WORDS
_OWN_CA = "if it is the panel's own authority that signed it, give its certificate (PEM) as provider.ca_file"
_ADVICE = {
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
    "certificate_not_yet_valid": "set this machine's clock, or have the panel's certificate fixed",
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
        text = json.dumps([asdict(line) for line in lines], ensure_ascii=False)
        show(redactor(text))
        return
    screen = Screen(soft_wrap=True)
    for line in lines:
        text = redactor(f"{line.subject}: {line.text}")
        screen.print(styled((f"{line.level:<8}", _COLOURS[line.level]), f" {text}"))
        if line.do:
            screen.print(styled(f"{'':<9}-> {redactor(line.do)}"))
