"""What a person should look at: the one judgement that the page, the status document and the messages share."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Final

from order_monitor.core.easing import SHORTAGE_WORDS
from order_monitor.tell.overview import Overview
from order_monitor.watch.account import Account

LATE: Final = 600.0
"""Seconds from which on an overdue answer, or an event that the shop has not taken, is for a person."""

NOT_READY: Final = "not_ready"
"""The kind of the cause that says that nothing works; the page shows the reasons themselves."""

CLOCKS: Final = "clocks"
"""The kind of the cause that says that no order is ended by its age for now."""

MONITOR: Final = "monitor"
"""The light of this program itself."""

_SETTLING: Final = 300.0
"""Seconds after the start in which the first look may still be under way."""

_REASONS: Final = 3


@dataclass(frozen=True, slots=True)
class Cause:
    """One thing to look at. ``kind`` is from a closed set: ``cause_KIND`` are its words, with places for the other fields.

    ``n`` is how many, ``all`` of how many, ``t`` seconds, ``why`` a sentence in English, ``light`` which of the three parts.
    """

    kind: str
    n: int = 0
    all: int = 0
    t: float = 0.0
    why: str = ""
    light: str = ""

    @property
    def topic(self) -> str:
        """What tells it from others: the kind, and which light."""
        return f"{self.kind}:{self.light}" if self.light else self.kind

    def document(self) -> dict[str, Any]:
        """Return it as the status document has it."""
        return asdict(self)


def causes_of(view: Overview) -> list[Cause]:
    """Return everything that a person should look at; nothing where all is well. Not being ready is told apart."""
    state, clocks = view.engine.state, view.engine.board.clocks
    events, late = view.events(), view.oldest_due()
    waiting = events["oldest_waiting_seconds"] if events else 0.0
    difference = clocks.difference or 0.0
    why_not_by_age = clocks.why(view.clock.boot())
    found = [
        *_of_accounts(view),
        Cause("beside", len(state.beside), why=", ".join(state.beside)),
        *([Cause("late", t=late)] if late > LATE else []),
        Cause("stuck", len(state.stuck)),
        Cause("held", view.held()),
        Cause("overdue", view.count().overdue),
        Cause("first_start", state.first_start_held),
        *([Cause("events", t=waiting)] if waiting > LATE else []),
        Cause("dead", view.sender.dead if view.sender else 0),
        Cause("reviews", state.reviews),
        Cause(CLOCKS, why=why_not_by_age),
        *([Cause("differ", t=abs(difference))] if clocks.differs else []),
    ]
    found = [cause for cause in found if cause.n or cause.t or cause.why]
    dark = [Cause("light", light=name) for name, light in lights_of(view).items() if not light["ok"]]
    return found or dark


def urgent_causes_of(view: Overview) -> list[Cause]:
    """Return the same, with `NOT_READY` first where nothing works; while it has only just started, nothing."""
    state, age = view.engine.state, view.clock.time() - view.started
    if state.scans == 0 and state.scan_problem is None and age < _SETTLING:
        return []
    reasons = view.probe.reasons()
    unready = [Cause(NOT_READY, why="; ".join(reasons[:_REASONS]))] if reasons else []
    return [*unready, *causes_of(view)]


def _of_accounts(view: Overview) -> list[Cause]:
    accounts = list(view.engine.accounts.values())
    owners = view.cluster.owners() if view.cluster else None
    me = view.cluster.view.me.name if view.cluster and view.cluster.view else None
    ours = [one for one in accounts if owners is None or (me is not None and owners.get(one.name) == me)]
    shut = [one for one in ours if not one.paused and not one.gate.is_open]
    paused = [one for one in accounts if one.paused]
    return [
        Cause("closed", len(shut), len(accounts)),
        Cause("paused", len(paused)),
        Cause("nobodys", 0 if owners is None else _nobodys(view, accounts, owners)),
    ]


def _nobodys(view: Overview, accounts: list[Account], owners: Any) -> int:  # noqa: ANN401 - a mapping of names
    shares = view.count().shares
    return sum(not owners.get(one.name) and one.key in shares and shares[one.key].orders > 0 for one in accounts)


def lights_of(view: Overview) -> dict[str, dict[str, Any]]:
    """Say whose fault it is: the shop's database's, the provider's, or this program's."""
    state, accounts = view.engine.state, list(view.engine.accounts.values())
    now = view.clock.monotonic()
    unwell = [account for account in accounts if account.is_ours(now) and not account.is_well(now)]
    lost = sum(account.gate.is_open for account in unwell)
    live = view.probe.is_live()
    problem = "" if state.short_of else state.scan_problem
    database = problem or ("answers are not being written" if view.engine.writer.stands_still() else "")
    closed = f"{len(unwell) - lost} of {len(accounts)} accounts closed" if len(unwell) > lost else ""
    not_understood = f"{lost} of {len(accounts)} accounts not understood" if lost else ""
    provider = "; ".join(filter(None, (closed, not_understood)))
    monitor = "" if live else "the loop does not tick"
    if live and state.stuck:
        monitor = f"{len(state.stuck)} orders are stuck"
    if state.short_of:
        monitor = f"{SHORTAGE_WORDS[state.short_of]}: the database cannot be read"
    return {
        "database": {"ok": not database and (state.scans > 0 or bool(state.short_of)), "why": database},
        "provider": {
            "ok": bool(accounts) and not unwell,
            "why": provider if accounts else "there is no account to ask",
        },
        MONITOR: {"ok": not monitor, "why": monitor},
    }
