"""``order-monitor notify``: send a test message, or report that a process has died.

Neither needs the database.
"""

from __future__ import annotations

import asyncio
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from order_monitor.app import messages_of
from order_monitor.commands.exits import ExitCode, run_to_exit
from order_monitor.settings.loading import load, load_notify
from order_monitor.settings.sections import NotifySettings
from order_monitor.shop.check.line import CheckLine
from order_monitor.tell.logs import set_up
from order_monitor.tell.messages import Message
from order_monitor.tell.services import NoLibraryError, services_of
from order_monitor.tell.streams import say, show

_NO_ADDRESS: Final = "notify.urls is empty: no message can be sent"
_DAEMON: Final = "order-monitor.service"
_GIVEN: Final = re.compile(r"[A-Za-z0-9:._@\\-]{1,200}")


def run_test(config: Path | None) -> int:
    """Send a test message to each service.

    Print each result, and return 1 if a service did not accept it.
    """
    notify = load(config).notify
    return _send(notify, messages_of(notify).of_test())


def run_dead(
    config: Path | None, unit: str | None, environ: Mapping[str, str] | None = None
) -> int:
    """Report that ``unit`` has failed, and why, as far as systemd knows.

    Return 1 if a service did not accept the message.
    """
    environ = os.environ if environ is None else environ
    notify = load_notify(config)
    # systemd passes the failed unit's name and result to the unit that it starts for the failure.
    named = unit or environ.get("MONITOR_UNIT", "")
    how = [
        environ.get(name, "")
        for name in ("MONITOR_SERVICE_RESULT", "MONITOR_EXIT_CODE", "MONITOR_EXIT_STATUS")
    ]
    why = " ".join(word for word in how if _GIVEN.fullmatch(word))
    if not notify.urls:
        say(f"order-monitor: {_NO_ADDRESS}")
        return ExitCode.OK
    unit = named if _GIVEN.fullmatch(named) else _DAEMON
    return _send(notify, messages_of(notify).of_death(unit, why))


def _send(notify: NotifySettings, message: Message) -> int:
    urls = [url.get_secret_value() for url in notify.urls]
    if not urls:
        say(f"order-monitor: {_NO_ADDRESS}")
        return ExitCode.NOT_DONE
    sink, redactor = set_up("error", "auto")
    redactor.learn(urls)
    try:
        services = services_of(urls)
    except NoLibraryError as error:
        say(f"order-monitor: {error}")
        return ExitCode.NOT_DONE

    async def send() -> int:
        answers = await asyncio.gather(*(service.send(message) for service in services))
        for service, why in zip(services, answers, strict=True):
            show(redactor(f"{service.name}: {f'failed: {why}' if why else 'sent'}"))
        return ExitCode.NOT_DONE if any(answers) else ExitCode.OK

    return run_to_exit(send(), sink.close)


def notify_lines(notify: NotifySettings) -> list[CheckLine]:
    """Report whether messages to people can be sent, as far as that is visible without sending
    one.
    """
    if not notify.urls:
        return []
    try:
        services = services_of([url.get_secret_value() for url in notify.urls])
    except NoLibraryError as error:
        why, do = str(error).split(": ", 1)
        return [CheckLine("error", "notify.urls", f"no message can be sent: {why}", do)]
    bad = [service for service in services if service.problem]
    do = "see the page of that service at appriseit.com"
    lines = [
        CheckLine("error", "notify.urls", f"number {one.name}: {one.problem}", do) for one in bad
    ]
    if len(bad) < len(services):
        text = f"{len(services) - len(bad)} of {len(services)} can be tried: order-monitor notify --test"
        lines.append(CheckLine("ok", "notify.urls", text))
    return lines
