"""``order-monitor status`` and ``top``: ask the running daemon for its state, and show it in the
terminal.
"""

from __future__ import annotations

import signal
import time
from contextlib import nullcontext
from pathlib import Path
from typing import Any, Final

import httpx
from rich.console import Group
from rich.live import Live
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from order_monitor.app import settings_of
from order_monitor.commands.exits import ExitCode
from order_monitor.settings.model import Settings
from order_monitor.tell.attention import REMEDIES, Cause, Verdict, verdict_of
from order_monitor.tell.messages import Messages
from order_monitor.tell.screen import Screen, styled
from order_monitor.tell.streams import say, show_json

UNREACHABLE: Final = 4
_TIMEOUT: Final = 5.0
_ANYWHERE: Final = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - what is listened on, not what we listen on
_ROWS: Final = 10
_RELEASE: Final = "order-monitor release"


def run_status(config: Path | None, *, as_json: bool) -> int:
    """Print the daemon's status once.

    Return 0 if all is well, 1 if it does not work or a person should look at something, 4 if there
    is no answer.
    """
    settings, sink, _ = settings_of(config)
    found = ask(settings)
    sink.close()
    if isinstance(found, str):
        say(f"order-monitor: {found}")
        return UNREACHABLE
    if as_json:
        show_json(found)
    else:
        Screen().print(screen(found))
    return code_of(found)


def code_of(document: dict[str, Any]) -> int:
    """Return the exit code for a status document: 0 if all is well, 1 if the daemon does not work
    or a person should look at something.
    """
    return ExitCode.OK if _answers(document) == "healthy" else ExitCode.NOT_DONE


def run_top(config: Path | None, *, every: float) -> int:
    """Show the daemon's status until interrupted, refreshed every ``every`` seconds."""
    settings, sink, _ = settings_of(config)
    sink.close()
    found = ask(settings)
    if isinstance(found, str):
        say(f"order-monitor: {found}")
        return UNREACHABLE
    # The terminal must be restored before the process exits.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        _watch(settings, found, every)
    except KeyboardInterrupt:
        return ExitCode.OK
    return ExitCode.OK


def _watch(settings: Settings, found: dict[str, Any] | str, every: float) -> None:
    """Show a first document, and then new ones.

    In a pipe they are printed one below the other, until the reader closes it.
    """
    console = Screen()
    with (
        Live(console=console, screen=True, auto_refresh=False)
        if console.is_terminal
        else nullcontext() as live
    ):
        while not console.is_lost:
            shown = screen(found) if isinstance(found, dict) else styled(found, style="bold red")
            if live is not None:
                live.update(shown, refresh=True)
            else:
                console.print(shown)
            time.sleep(every)
            found = ask(settings)


def answers(settings: Settings) -> bool:
    """Whether a daemon answers at the address in the settings."""
    return isinstance(ask(settings), dict)


def ask(settings: Settings) -> dict[str, Any] | str:
    """Return the status document, or why there is none."""
    health = settings.health
    if not health.enabled:
        return "health.enabled is false: the daemon answers no requests"
    if not health.port:
        return "health.port is 0: the daemon's log tells the port it chose (health.listening); name one to use this"
    host = _ANYWHERE.get(health.host, health.host)
    where = f"[{host}]" if ":" in host else host
    headers = {"Authorization": f"Bearer {health.token.get_secret_value()}"} if health.token else {}
    try:
        answer = httpx.get(
            f"http://{where}:{health.port}/api/status",
            headers=headers,
            timeout=_TIMEOUT,
            trust_env=False,
        )
        document = answer.json() if answer.status_code == httpx.codes.OK else None
    except (httpx.HTTPError, ValueError):
        return f"no answer at {where}:{health.port}"
    if not isinstance(document, dict) or "ready" not in document:
        return f"{where}:{health.port} does not answer as order-monitor does (HTTP {answer.status_code})"
    return document


def screen(document: dict[str, Any]) -> Group:
    """Format a status document for a terminal."""
    return Group(
        _verdict(document),
        _orders(document),
        _accounts(document),
        *_members(document),
        *_lists(document),
    )


def _causes(document: dict[str, Any]) -> list[Cause]:
    return [Cause(**cause) for cause in document.get("attention", [])]


def _answers(document: dict[str, Any]) -> Verdict:
    """Return the daemon's own judgement.

    For an older version, which sends none, derive it from its causes.
    """
    found: Verdict = document.get("verdict") or verdict_of(
        _causes(document), ready=document["ready"]
    )
    return found


_TITLES: Final[dict[Verdict, tuple[str, str]]] = {
    "healthy": ("healthy", "bold green"),
    "needs_a_look": ("somebody should look", "bold yellow"),
    "not_healthy": ("not healthy", "bold red"),
}


def _verdict(document: dict[str, Any]) -> Panel:
    """Show the overall judgement, and one line for each reason and for each thing that a person
    should look at.
    """
    lights = styled()
    for name, light in document["lights"].items():
        dot = ("● ", "green" if light["ok"] else "bold red")
        lights += styled(dot, f"{name} {'ok' if light['ok'] else light['why']}   ")
    said = Messages("en", "")
    reasons = [styled(f"! {reason}", style="red") for reason in document["reasons"]]
    for cause in _causes(document):
        do = "" if cause.passes else f" -> {REMEDIES[cause.kind]}" if cause.kind in REMEDIES else ""
        style = "dim" if cause.passes else "yellow"
        reasons.append(styled(f"! {said.sentence(cause)}", (do, "dim"), style=style))
    word, style = _TITLES[_answers(document)]
    return Panel(
        Group(lights, *reasons),
        title=styled(word, style=style),
        subtitle=styled(f"order-monitor {document['version']}"),
        title_align="left",
    )


def _orders(document: dict[str, Any]) -> Table:
    orders, found = document["orders"], document["detection_seconds"]
    table = Table(box=None, pad_edge=False)
    values = {
        "open": orders["open"],
        "due": orders["due"],
        "oldest due": f"{orders['oldest_due_seconds']:g} s",
        "overdue": orders["overdue"],
        "stuck": orders["stuck"],
        "held": orders.get("held", 0),
        "for review": document["reviews"],
        "found p50": _seconds(found["p50"]),
        "found p95": _seconds(found["p95"]),
    }
    for name in values:
        table.add_column(name, justify="right")
    table.add_row(*(str(value) for value in values.values()))
    skipped = ", ".join(f"{reason} {count}" for reason, count in orders["skipped"].items())
    held = orders.get("held_by_first_start")
    notes = [
        *([f"skipped: {skipped}"] if skipped else []),
        *([f"held by the first start: {held} ({_RELEASE} --first-start)"] if held else []),
    ]
    table.caption = styled("; ".join(notes)) if notes else None
    return table


def _accounts(document: dict[str, Any]) -> Table:
    table = Table("account", "gate", title="accounts", title_justify="left")
    for name in ("orders", "due", "in flight", "calls/s", "balance"):
        table.add_column(name, justify="right")
    table.add_column("last error")
    for account in document["accounts"]:
        gate = _gate(account, document.get("cluster"))
        rate = f"{account['calls_per_second']:g}/{account['limit_per_second']:g}"
        numbers = [str(account[key]) for key in ("orders", "due", "in_flight")]
        table.add_row(
            styled(account["name"]),
            gate,
            *numbers,
            rate,
            styled(str(account["balance"] or "-")),
            styled(account["last_error"]),
        )
    return table


def _members(document: dict[str, Any]) -> list[Table]:
    """Show the processes that share the accounts, if there are any."""
    cluster = document.get("cluster")
    if cluster is None:
        return []
    table = Table("process", "asks", "role", title="processes", title_justify="left")
    for member in cluster["members"]:
        role = ["this one"] if member["name"] == cluster["me"] else []
        role += ["posts and counts for all"] if member["leads"] else []
        table.add_row(
            styled(member["name"]), styled(", ".join(member["accounts"]) or "-"), ", ".join(role)
        )
    return [table]


def _gate(account: dict[str, Any], cluster: dict[str, Any] | None) -> Text:
    if cluster is not None and account["owner"] != cluster["me"]:
        owner = account["owner"]
        return styled(f"asked by {owner}" if owner else "not asked by any process yet", style="dim")
    if pause := account["paused"]:
        until = f" until {pause['until'][:19]}" if pause["until"] else ""
        why = f"since {pause['since'][:19]}{until}: {pause['reason']}"
        return styled(f"paused by {pause['by']} {why}", style="yellow")
    if pause := account.get("ends_paused"):
        why = f"since {pause['since'][:19]}: {pause['reason']}"
        return styled(f"ends held by {pause['by']} {why}", style="yellow")
    if account.get("held"):
        return styled(f"{account['held']} ends held by the brake: {_RELEASE}", style="yellow")
    if account["open"]:
        return styled("open", style="green")
    return styled(f"closed: {account['reason']}", style="bold red")


def _lists(document: dict[str, Any]) -> list[Table]:
    shown = []
    if document["problems"]:
        names, title = ("order", "problem", "why", "account"), "for a person to look at"
        problems = Table(*names, title=title, title_justify="left")
        for p in document["problems"][:_ROWS]:
            keys = ("order_id", "kind", "why", "account")
            problems.add_row(*(styled(str(p[key] or "-")) for key in keys))
        shown.append(problems)
    if document["recent"]:
        recent = Table("at", "order", "change", "PIN", title="last changes", title_justify="left")
        for r in document["recent"][:_ROWS]:
            change = styled(f"{r['from']} -> {r['to']}")
            pin = "yes" if r["has_pin"] else ""
            recent.add_row(str(r["at"])[11:19], styled(r["order_id"]), change, pin)
        shown.append(recent)
    return shown


def _seconds(value: float | None) -> str:
    return "-" if value is None else f"{value:g} s"
