"""The document that the page, ``/api/status`` and the command line show.

Bounded: rings of fixed size, labels from closed sets. It contains no PIN, no secret and no data of
the shop's customers.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any, Final

from order_monitor import __version__
from order_monitor.cluster.members import Cluster
from order_monitor.core.gate import Pause
from order_monitor.core.tracked_order import TrackedOrder
from order_monitor.shop.reviews import Review
from order_monitor.tell.attention import causes_in, lights_of, verdict_of
from order_monitor.tell.curve_cache import Picture
from order_monitor.tell.history import History, iso
from order_monitor.tell.queue_summary import AGES, Problem, QueueSummary, Share
from order_monitor.tell.status_view import StatusView
from order_monitor.tell.webhook import Sender
from order_monitor.watch.account import Account

_DELAY_BUCKETS: Final = (1.0, 5.0, 15.0, 60.0, 300.0)


def document_of(view: StatusView) -> dict[str, Any]:
    """Return everything that the program shows about itself, ready for JSON."""
    state, count = view.engine.state, view.count()
    reasons, causes = view.probe.reasons(), causes_in(view)
    owners = view.cluster.owners() if view.cluster else None
    odd = Counter(state.odd.values())
    return {
        "version": __version__,
        "started_at": iso(view.started),
        "now": iso(view.clock.time()),
        "ready": not reasons,
        "reasons": reasons,
        "lights": lights_of(view),
        "verdict": verdict_of(causes, ready=not reasons),
        "attention": [cause.document() for cause in causes],
        "orders": {
            "open": count.open,
            "due": count.due,
            "overdue": count.overdue,
            "stuck": len(state.stuck),
            "held": view.held(),
            "held_by_first_start": state.first_start_held,
            "skipped": {str(reason): number for reason, number in sorted(count.skipped.items())},
            "awaiting_pin": count.awaiting_pin,
            "read_seconds_ago": view.read_seconds_ago(),
            "oldest_due_seconds": view.oldest_due(),
            "unwritten": len(view.engine.writer),
            "oldest_unwritten_seconds": round(view.engine.writer.oldest_seconds(), 1),
            "by_age": [
                {"up_to": limit, "count": number}
                for limit, number in zip((*AGES, None), count.by_age, strict=True)
            ],
        },
        "accounts": [
            _account(view, account, count, owners, odd[account.key])
            for account in view.engine.accounts.values()
        ],
        "cluster": _members(view.cluster, owners or {}),
        "recent": list(view.history.rings.recent),
        "failures": list(view.history.rings.failures),
        "problems": [_problem(problem, view.engine.name_of) for problem in count.problems],
        "all_problems": count.all_problems,
        "next": [_coming(entry, view.engine.name_of) for entry in count.next],
        "clocks": _clocks(view),
        "events": view.events(),
        "webhook": _webhook(view.sender),
        "reviews": state.reviews,
        "oldest_reviews": [_review(review, view.engine.name_of) for review in state.oldest_reviews],
        "beside": list(state.beside),
        "detection_seconds": _detection(view.history),
        "timing": None
        if view.learned is None
        else [_picture(one, view.engine.name_of) for one in view.gallery.pictures(view.learned)],
        "history": [
            {"at": iso(m.at), "open": m.open, "checks": m.checks, "ended": m.ended}
            for m in view.history.rings.minutes
        ],
    }


def _clocks(view: StatusView) -> dict[str, Any]:
    """Report whether orders may be ended by their age, and how far the database's clock is
    ahead.
    """
    clocks = view.engine.context.clocks
    why, difference = clocks.why(view.clock.boot()), clocks.difference
    return {
        "ends_by_age": not why,
        "why": why,
        "differ": clocks.differs,
        "difference_seconds": None if difference is None else round(difference, 1),
        "leaps": clocks.leaps,
    }


def _members(cluster: Cluster | None, owners: Mapping[str, str]) -> dict[str, Any] | None:
    """Report which members share the accounts, and who owns which; None without a cluster."""
    if cluster is None:
        return None
    view = cluster.view
    accounts: dict[str, list[str]] = {}
    for account, member in owners.items():
        accounts.setdefault(member, []).append(account)
    return {
        "me": view.me.name if view else None,
        "problem": cluster.problem,
        "members": [
            {"name": m.name, "leads": m.leads, "accounts": sorted(accounts.get(m.name, []))}
            for m in (view.members if view else ())
        ],
    }


def _account(
    view: StatusView,
    account: Account,
    count: QueueSummary,
    owners: Mapping[str, str] | None,
    odd: int,
) -> dict[str, Any]:
    now = view.clock.monotonic()
    share = count.shares.get(account.key, Share())
    meter = view.history.rings.rates.get(account.name)
    opens = account.gate.opens_at()
    return {
        "name": account.name,
        "owner": None if owners is None else owners.get(account.name, ""),
        "open": account.gate.is_open,
        "reason": account.gate.reason if not account.gate.is_open else "",
        "last_error": account.last_error,
        "said": account.said,
        "understood": account.is_understood(now),
        "fault": str(account.fault) if account.last_error else "",
        "odd_orders": odd,
        "in_flight": account.in_flight,
        "orders": share.orders,
        "awaiting_pin": share.awaiting_pin,
        "due": share.due,
        "calls_per_second": round(meter.per_second(now), 2) if meter else 0.0,
        "limit_per_second": account.pace.per_second,
        "next_probe_seconds": None if opens is None else round(max(0.0, opens - now), 1),
        "last_answer_at": iso(account.answered_at),
        "paused": _pause(account.paused),
        "held": view.engine.state.held.get(account.key, 0),
        "ends_paused": _pause(view.ends_paused(account.key)),
        "balance": account.balance,
    }


def _detection(history: History) -> dict[str, Any]:
    delays = sorted(history.rings.delays)
    groups = Counter(next((b for b in _DELAY_BUCKETS if delay <= b), None) for delay in delays)
    return {
        "p50": _quantile(delays, 0.5),
        "p95": _quantile(delays, 0.95),
        "buckets": [{"up_to": limit, "count": groups[limit]} for limit in (*_DELAY_BUCKETS, None)],
    }


def _problem(problem: Problem, name_of: Callable[[str], str]) -> dict[str, Any]:
    return {
        "order_id": problem.order_id,
        "kind": problem.kind,
        "why": problem.why,
        "referans": problem.reference,
        "account": problem.account and name_of(problem.account),
        "since": iso(problem.since),
    }


def _review(review: Review, name_of: Callable[[str], str]) -> dict[str, Any]:
    account = name_of(review.account) if review.account else None
    found = {"order_id": review.order_id, "kind": review.kind, "account": account}
    return {**found, "since": iso(review.since)}


def _coming(entry: TrackedOrder, name_of: Callable[[str], str]) -> dict[str, Any]:
    due = {"order_id": entry.id, "account": name_of(entry.account), "at": iso(entry.due)}
    return {**due, "referans": entry.reference}


def _picture(one: Picture, name_of: Callable[[str], str]) -> dict[str, Any]:
    account, package = one.key
    return {
        "account": name_of(account),
        "package": package,
        "orders": round(one.orders),
        "half_seconds": one.half,
        "curve": [{"age": age, "share": share} for age, share in one.curve],
        "checks": one.checks,
    }


def _webhook(sender: Sender | None) -> dict[str, Any] | None:
    if sender is None:
        return None
    return {"waiting": sender.waiting, "dead": sender.dead, "problem": sender.problem or None}


def _pause(pause: Pause | None) -> dict[str, Any] | None:
    if pause is None:
        return None
    times = {"since": iso(pause.since), "until": iso(pause.until)}
    return {"reason": pause.reason, "by": pause.by, **times}


def _quantile(ordered: list[float], share: float) -> float | None:
    return round(ordered[min(len(ordered) - 1, int(share * len(ordered)))], 3) if ordered else None
