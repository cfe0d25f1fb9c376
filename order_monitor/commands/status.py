"""``order-monitor status`` and ``top``: ask the running daemon how it is, and show it in the terminal."""

from __future__ import annotations

import json
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

from order_monitor.commands.composition import settings_of
from order_monitor.commands.exits import ExitCode
from order_monitor.settings.model import Settings
from order_monitor.tell.attention import Cause
from order_monitor.tell.messages import Messages
from order_monitor.tell.screen import Screen, styled
from order_monitor.tell.streams import say

UNREACHABLE: Final = 4
_TIMEOUT: Final = 5.0
_ANYWHERE: Final = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - what is listened on, not what we listen on
_ROWS: Final = 10


def run_status(config: Path | None, *, as_json: bool) -> int:
    """Print the daemon's status once; return 0 where it is healthy, 1 where not, 4 where nobody answers."""
    settings, sink, _ = settings_of(config)
    found = _ask(settings)
    sink.close()
    if isinstance(found, str):
        say(f"order-monitor: {found}")
        return UNREACHABLE
    if as_json:
        say(json.dumps(found, ensure_ascii=False), to_stdout=True)
    else:
        Screen().print(screen(found))
    return ExitCode.OK if found["ready"] else ExitCode.NOT_DONE


def run_top(config: Path | None, *, every: float) -> int:
    """Show the daemon's status until interrupted, a new one each ``every`` seconds."""
    settings, sink, _ = settings_of(config)
    sink.close()
    found = _ask(settings)
    if isinstance(found, str):
        say(f"order-monitor: {found}")
        return UNREACHABLE
    # The terminal must be put back in order before the process leaves.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        _watch(settings, found, every)
    except KeyboardInterrupt:
        return ExitCode.OK
    return ExitCode.OK


def _watch(settings: Settings, found: dict[str, Any] | str, every: float) -> None:
    """Show what was found, and what is found from then on; in a pipe one below the other, for as long as somebody reads."""
    console = Screen()
    with Live(console=console, screen=True, auto_refresh=False) if console.is_terminal else nullcontext() as live:
        while not console.is_lost:
            shown = screen(found) if isinstance(found, dict) else styled(found, style="bold red")
            if live is not None:
                live.update(shown, refresh=True)
            else:
                console.print(shown)
            time.sleep(every)
            found = _ask(settings)


def answers(settings: Settings) -> bool:
    """Whether a daemon answers at the address of the settings."""
    return isinstance(_ask(settings), dict)


def _ask(settings: Settings) -> dict[str, Any] | str:
    """Return the status document, or why there is none."""
    health = settings.health
    if not health.enabled:
        return "health.enabled is false: the daemon answers nobody"
    if not health.port:
        return "health.port is 0: the daemon's log tells the port it chose (health.listening); name one to use this"
    host = _ANYWHERE.get(health.host, health.host)
    where = f"[{host}]" if ":" in host else host
    headers = {"Authorization": f"Bearer {health.token.get_secret_value()}"} if health.token else {}
    try:
        answer = httpx.get(
            f"http://{where}:{health.port}/api/status", headers=headers, timeout=_TIMEOUT, trust_env=False
        )
        document = answer.json() if answer.status_code == httpx.codes.OK else None
    except (httpx.HTTPError, ValueError):
        return f"nobody answers at {where}:{health.port}"
    if not isinstance(document, dict) or "ready" not in document:
        return f"{where}:{health.port} does not answer as order-monitor does (HTTP {answer.status_code})"
    return document


def screen(document: dict[str, Any]) -> Group:
    """Lay a status document out for a terminal."""
    return Group(_verdict(document), _orders(document), _accounts(document), *_members(document), *_lists(document))


def _verdict(document: dict[str, Any]) -> Panel:
    lights = styled()
    for name, light in document["lights"].items():
        dot = ("● ", "green" if light["ok"] else "bold red")
        lights += styled(dot, f"{name} {'ok' if light['ok'] else light['why']}   ")
    ready = document["ready"]
    causes = [Cause(**cause) for cause in document.get("attention", [])]
    word, style = ("healthy", "bold green") if not causes else ("somebody should look", "bold yellow")
    title = styled(word if ready else "not healthy", style=style if ready else "bold red")
    reasons = [styled(f"! {reason}", style="red") for reason in document["reasons"]]
    said = Messages("en", "")
    reasons += [styled(f"! {said.sentence(cause)}", style="yellow") for cause in causes if cause.kind != "clocks"]
    clocks = document.get("clocks") or {"ends_by_age": True}
    if not clocks["ends_by_age"]:
        reasons.append(styled(f"! no order is ended by its age: {clocks['why']}", style="yellow"))
    return Panel(
        Group(lights, *reasons),
        title=title,
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
    told = [
        *([f"skipped: {skipped}"] if skipped else []),
        *([f"held by the first start: {held} (order-monitor release --first-start)"] if held else []),
    ]
    table.caption = styled("; ".join(told)) if told else None
    return table


def _accounts(document: dict[str, Any]) -> Table:
    table = Table(title="accounts", title_justify="left")
    for name in ("account", "gate", "orders", "due", "in flight", "calls/s", "balance", "last error"):
        table.add_column(name, justify="left" if name in ("account", "gate", "last error") else "right")
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
    """Show the processes that share the accounts, where some do."""
    cluster = document.get("cluster")
    if cluster is None:
        return []
    table = Table("process", "asks", "role", title="processes", title_justify="left")
    for member in cluster["members"]:
        role = ["this one"] if member["name"] == cluster["me"] else []
        role += ["posts and counts for all"] if member["leads"] else []
        table.add_row(styled(member["name"]), styled(", ".join(member["accounts"]) or "-"), ", ".join(role))
    return [table]


def _gate(account: dict[str, Any], cluster: dict[str, Any] | None) -> Text:
    if cluster is not None and account["owner"] != cluster["me"]:
        return styled(f"asked by {account['owner']}" if account["owner"] else "asked by nobody yet", style="dim")
    if account["paused"]:
        pause = account["paused"]
        until = f" until {pause['until'][:19]}" if pause["until"] else ""
        return styled(f"paused by {pause['by']} since {pause['since'][:19]}{until}: {pause['reason']}", style="yellow")
    if account.get("ends_paused"):
        pause = account["ends_paused"]
        return styled(f"ends held by {pause['by']} since {pause['since'][:19]}: {pause['reason']}", style="yellow")
    if account.get("held"):
        return styled(f"{account['held']} ends held by the brake: order-monitor release", style="yellow")
    return (
        styled("open", style="green") if account["open"] else styled(f"closed: {account['reason']}", style="bold red")
    )


def _lists(document: dict[str, Any]) -> list[Table]:
    shown = []
    if document["problems"]:
        problems = Table("order", "problem", "why", "account", title="for a person to look at", title_justify="left")
        for p in document["problems"][:_ROWS]:
            problems.add_row(*(styled(str(p[key] or "-")) for key in ("order_id", "kind", "why", "account")))
        shown.append(problems)
    if document["recent"]:
        recent = Table("at", "order", "change", "PIN", title="last changes", title_justify="left")
        for r in document["recent"][:_ROWS]:
            change = styled(f"{r['from']} -> {r['to']}")
            recent.add_row(str(r["at"])[11:19], styled(r["order_id"]), change, "yes" if r["has_pin"] else "")
        shown.append(recent)
    return shown


def _seconds(value: float | None) -> str:
    return "-" if value is None else f"{value:g} s"
