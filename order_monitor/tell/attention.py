"""What a person should look at: one set of rules for the page, `status`, the metrics, the messages
and `check`.

`facts_of` gathers what the running program knows, `order_monitor.commands.check_attention` what the
tables know; `causes_of` judges both by the same rules.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final, Literal

from order_monitor.core.clocks import NOTABLE
from order_monitor.core.easing import SHORTAGE_WORDS
from order_monitor.tell.status_view import StatusView
from order_monitor.watch.account import Account

LATE: Final = 600.0
"""Seconds after which an overdue answer, or an event that the shop has not taken, needs a
person.
"""

NOT_READY: Final = "not_ready"
"""The kind of cause that means nothing works; the page shows the reasons themselves."""

CLOCKS: Final = "clocks"
"""The kind of cause that means no order is ended by its age for now."""

MONITOR: Final = "monitor"
"""The light of this program."""

REMEDIES: Final = {
    NOT_READY: "order-monitor check",
    "closed": "order-monitor check",
    "paused": "order-monitor resume ACCOUNT, once it may be asked again",
    "nobodys": "see that a process with cluster.enabled runs and is ready",
    "beside": "stop all but one, or set cluster.enabled for all",
    "mixed": "set cluster.enabled for all, or stop those",
    "late": "see the accounts: closed, paused, or limits.calls_per_second too low",
    "stuck": "order-monitor review",
    "held": "see whether the provider means it, then order-monitor release ACCOUNT; or resume --ends",
    "overdue": "order-monitor orders --overdue",
    "skipped": "order-monitor check",
    "first_start": "order-monitor release --first-start",
    "events": "see the shop's code that takes events from order_monitor_events, or the webhook's receiver",
    "dead": "order-monitor replay --dead, once the receiver works",
    "reviews": "order-monitor review",
    CLOCKS: "see that both machines keep their time by NTP",
    "differ": "see that both machines keep their time by NTP",
    "light": "order-monitor check",
}
"""What to do about each kind of cause. Its keys are all the kinds."""

Verdict = Literal["healthy", "needs_a_look", "not_healthy"]
"""The overall judgement: all is well; or it works, but a person should look at something; or it
does not work.
"""

_SETTLING: Final = 300.0
"""Seconds after the start during which the first scan may still be running."""

_REASONS: Final = 3

_EXPLAINS: Final = {"provider": "closed", MONITOR: "stuck"}
"""The kind of cause that already explains why a light shows a fault."""


@dataclass(frozen=True, slots=True)
class Cause:
    """One thing to look at.

    ``kind`` is a key of `REMEDIES`; its text is ``cause_KIND``, with placeholders for the other
    fields. ``n`` is a count, ``all`` the total it is taken from, ``t`` seconds, ``why`` a sentence
    in English, ``light`` one of the three parts. ``passes`` means that it ends within minutes
    without any action.
    """

    kind: str
    n: int = 0
    all: int = 0
    t: float = 0.0
    why: str = ""
    light: str = ""
    passes: bool = False

    @property
    def topic(self) -> str:
        """What distinguishes it from other causes: the kind, and the light if there is one."""
        return f"{self.kind}:{self.light}" if self.light else self.kind

    def document(self) -> dict[str, Any]:
        """Return it in the form of the status document."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Facts:
    """The input of the judgement. Fields are counts unless stated otherwise.

    A field that the caller cannot know keeps its default. ``late`` and ``events`` are seconds: how
    much the oldest answer is overdue, and how long the oldest event has waited. ``beside`` lists
    other daemons that do not share the accounts; ``shares`` says whether this one does. ``clocks``
    is the reason why no order is ended by its age, ``clocks_pass`` whether that ends without any
    action. ``difference`` is the difference between the clocks in seconds. ``dark`` lists the
    lights that show a fault.
    """

    accounts: int = 0
    closed: int = 0
    paused: int = 0
    nobodys: int = 0
    beside: Sequence[str] = ()
    shares: bool = False
    late: float = 0.0
    stuck: int = 0
    held: int = 0
    overdue: int = 0
    skipped: int = 0
    first_start: int = 0
    events: float = 0.0
    dead: int = 0
    reviews: int = 0
    clocks: str = ""
    clocks_pass: bool = False
    difference: float = 0.0
    dark: Sequence[str] = ()


def causes_of(facts: Facts) -> list[Cause]:
    """Return everything that a person should look at; empty if all is well.

    Not being ready is reported separately.
    """
    late, events, difference = facts.late, facts.events, abs(facts.difference)
    found = [
        Cause("closed", facts.closed, facts.accounts),
        Cause("paused", facts.paused),
        Cause("nobodys", facts.nobodys),
        Cause(
            "mixed" if facts.shares else "beside", len(facts.beside), why=", ".join(facts.beside)
        ),
        Cause("late", t=late if late > LATE else 0.0),
        Cause("stuck", facts.stuck),
        Cause("held", facts.held),
        Cause("overdue", facts.overdue),
        Cause("skipped", facts.skipped),
        Cause("first_start", facts.first_start),
        Cause("events", t=events if events > LATE else 0.0),
        Cause("dead", facts.dead),
        Cause("reviews", facts.reviews),
        Cause(CLOCKS, why=facts.clocks, passes=facts.clocks_pass),
        Cause("differ", t=difference if difference > NOTABLE else 0.0),
    ]
    found = [cause for cause in found if cause.n or cause.t or cause.why]
    kinds = {cause.kind for cause in found}
    return [
        *found,
        *(Cause("light", light=name) for name in facts.dark if _EXPLAINS.get(name) not in kinds),
    ]


def verdict_of(causes: Sequence[Cause], *, ready: bool) -> Verdict:
    """Return the overall judgement, from whether the program is ``ready`` and what there is to look
    at.
    """
    if not ready:
        return "not_healthy"
    return "healthy" if all(cause.passes for cause in causes) else "needs_a_look"


def causes_in(view: StatusView) -> list[Cause]:
    """Return what a person should look at in the running program."""
    return causes_of(facts_of(view))


def facts_of(view: StatusView) -> Facts:
    """Return what the running program knows."""
    state, clocks, boot = view.engine.state, view.engine.context.clocks, view.clock.boot()
    accounts, events, count = list(view.engine.accounts.values()), view.events(), view.count()
    owners = view.cluster.owners() if view.cluster else None
    me = view.cluster.view.me.name if view.cluster and view.cluster.view else None
    ours = [
        one for one in accounts if owners is None or (me is not None and owners.get(one.name) == me)
    ]
    return Facts(
        accounts=len(accounts),
        closed=sum(not one.paused and not one.gate.is_open for one in ours),
        paused=sum(bool(one.paused) for one in accounts),
        nobodys=0 if owners is None else _nobodys(view, accounts, owners),
        beside=state.beside,
        shares=view.cluster is not None,
        late=view.oldest_due(),
        stuck=len(state.stuck),
        held=view.held(),
        overdue=count.overdue,
        skipped=sum(number for reason, number in count.skipped.items() if reason.is_mendable),
        first_start=state.first_start_held,
        events=events["oldest_waiting_seconds"] if events else 0.0,
        dead=view.sender.dead if view.sender else 0,
        reviews=state.reviews,
        clocks=clocks.why(boot),
        clocks_pass=clocks.settles(boot),
        difference=clocks.difference or 0.0,
        dark=[name for name, light in lights_of(view).items() if not light["ok"]],
    )


def urgent_causes_of(view: StatusView) -> list[Cause]:
    """Return the same, with `NOT_READY` first if nothing works.

    Empty while the program has only just started.
    """
    state, age = view.engine.state, view.clock.time() - view.started
    if state.scans == 0 and state.scan_problem is None and age < _SETTLING:
        return []
    reasons = view.probe.reasons()
    unready = [Cause(NOT_READY, why="; ".join(reasons[:_REASONS]))] if reasons else []
    return [*unready, *causes_in(view)]


def _nobodys(view: StatusView, accounts: list[Account], owners: Any) -> int:  # noqa: ANN401 - a mapping of names
    shares = view.count().shares
    return sum(
        not owners.get(one.name) and one.key in shares and shares[one.key].orders > 0
        for one in accounts
    )


def lights_of(view: StatusView) -> dict[str, dict[str, Any]]:
    """Show whose fault a problem is: the shop's database's, the provider's, or this program's."""
    state, accounts = view.engine.state, list(view.engine.accounts.values())
    now = view.clock.monotonic()
    unwell = [account for account in accounts if account.is_ours(now) and not account.is_well(now)]
    lost = sum(account.gate.is_open for account in unwell)
    live = view.probe.is_live()
    problem = "" if state.short_of else state.scan_problem
    if not problem and view.engine.writer.stands_still():
        problem = "answers are not being written"
    counts = {"closed": len(unwell) - lost, "not understood": lost}
    provider = "; ".join(
        f"{count} of {len(accounts)} accounts {what}" for what, count in counts.items() if count
    )
    monitor = "" if live else "the loop does not tick"
    if live and state.stuck:
        monitor = f"{len(state.stuck)} orders are stuck"
    if state.short_of:
        monitor = f"{SHORTAGE_WORDS[state.short_of]}: the database cannot be read"
    return {
        "database": {
            "ok": not problem and (state.scans > 0 or bool(state.short_of)),
            "why": problem or "",
        },
        "provider": {
            "ok": bool(accounts) and not unwell,
            "why": provider if accounts else "there is no account to ask",
        },
        MONITOR: {"ok": not monitor, "why": monitor},
    }
