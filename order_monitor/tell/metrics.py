"""Metrics for Prometheus: counters are updated as events happen, gauges are read from memory at
each scrape.
"""

from __future__ import annotations

from collections import Counter as CountOf
from collections.abc import Callable, Iterator, Mapping
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Histogram, Metric
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.exposition import generate_latest
from prometheus_client.registry import Collector

from order_monitor import __version__
from order_monitor.core.answer import Answer
from order_monitor.core.check_result import WriteResult
from order_monitor.core.decision import StuckReason
from order_monitor.core.order import Order, SkipReason
from order_monitor.tell.attention import NOT_READY, REMEDIES, causes_in
from order_monitor.tell.queue_summary import QueueSummary
from order_monitor.tell.status_view import StatusView
from order_monitor.watch.observer import Observer

CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"
_CALL: Final = (0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 20.0)
_QUERY: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
_DELAY: Final = (0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1800.0)


class Metrics(Observer):
    """Counts what the engine does, and renders it for Prometheus."""

    def __init__(self, view: StatusView, dropped: Callable[[], int] = lambda: 0) -> None:
        """Read gauges from ``view``; ``dropped`` returns the number of lost log lines."""
        self._registry = CollectorRegistry()
        self._checks = Counter(
            "order_monitor_checks",
            "Checks made with the provider, by account and outcome.",
            ["account", "outcome"],
            registry=self._registry,
        )
        self._labels: set[tuple[str, str]] = set()
        self._filled = Counter(
            "order_monitor_filled",
            "Orders asked about before they were due, in the free places of a call.",
            ["account"],
            registry=self._registry,
        )
        self._ignored = Counter(
            "order_monitor_ignored_entries",
            "Entries in answers about orders that were not asked about.",
            ["account"],
            registry=self._registry,
        )
        self._filling: set[str] = set()
        self._ignoring: set[str] = set()
        self._writes = Counter(
            "order_monitor_writes",
            "Check results handed to the database, by what became of them.",
            ["result"],
            registry=self._registry,
        )
        self._check_seconds = self._histogram(
            "check_seconds", "Duration of one check with the provider, in seconds.", _CALL
        )
        self._write_seconds = self._histogram(
            "write_seconds", "Duration of writing one batch, in seconds.", _QUERY
        )
        self._scan_seconds = self._histogram(
            "scan_seconds", "Duration of one scan of the open orders, in seconds.", _QUERY
        )
        self._detection = self._histogram(
            "detection_seconds",
            "Seconds from the time a check was due until the end it found was written.",
            _DELAY,
        )
        self._registry.register(_Gauges(view, dropped))

    def _histogram(self, name: str, text: str, buckets: tuple[float, ...]) -> Histogram:
        return Histogram(f"order_monitor_{name}", text, buckets=buckets, registry=self._registry)

    def checked(self, account: str, order: Order, answer: Answer, seconds: float) -> None:
        """Count a check."""
        self._labels.add((account, answer.outcome))
        self._checks.labels(account, answer.outcome).inc()
        self._check_seconds.observe(seconds)

    def filled(self, account: str, count: int) -> None:
        """Count orders that were asked about before they were due."""
        self._filling.add(account)
        self._filled.labels(account).inc(count)

    def ignored(self, account: str, count: int) -> None:
        """Count entries about orders that were not asked about."""
        self._ignoring.add(account)
        self._ignored.labels(account).inc(count)

    def wrote(self, count: int, seconds: float) -> None:
        """Measure a batch."""
        self._write_seconds.observe(seconds)

    def settled(self, account: str, result: WriteResult, delay: float) -> None:
        """Count the result of a write."""
        self._writes.labels(str(result.fate)).inc()
        if result.write is not None and result.write.final:
            self._detection.observe(delay)

    def scanned(self, seconds: float) -> None:
        """Measure a scan."""
        self._scan_seconds.observe(seconds)

    def remain(self, accounts: Mapping[str, str]) -> None:
        """Drop the counts of accounts that are gone or have been renamed."""
        names = set(accounts.values())
        for known, counter in ((self._filling, self._filled), (self._ignoring, self._ignored)):
            for account in known - names:
                known.remove(account)
                counter.remove(account)
        for account, outcome in [label for label in self._labels if label[0] not in names]:
            self._labels.remove((account, outcome))
            self._checks.remove(account, outcome)

    def text(self) -> bytes:
        """Return everything in Prometheus' text format."""
        return generate_latest(self._registry)


class _Gauges(Collector):
    """Reads the current values."""

    def __init__(self, view: StatusView, dropped: Callable[[], int]) -> None:
        self._view = view
        self._dropped = dropped

    def describe(self) -> list[Metric]:
        """Return nothing in advance: the metrics depend on the accounts."""
        return []

    def collect(self) -> Iterator[Metric]:
        """Yield each gauge."""
        yield from self._orders()
        yield from self._accounts()
        yield from self._clocks()
        yield self._attention()
        yield from self._told()

    def _orders(self) -> Iterator[Metric]:
        engine, queue_summary = self._view.engine, self._view.count()
        state = engine.state
        yield _gauge(
            "ready",
            "1 while the process is ready: see /readyz.",
            float(not self._view.probe.reasons()),
        )
        yield _gauge(
            "orders_due", "Orders whose next check is due and has not started.", queue_summary.due
        )
        yield _gauge(
            "orders_stuck",
            "Orders whose answer could not be written; each needs an operator.",
            len(state.stuck),
        )
        yield _gauge(
            "orders_held",
            "Orders whose end is held back, by the brake or by an operator.",
            self._view.held(),
        )
        stuck = GaugeMetricFamily(
            "order_monitor_orders_stuck_by_reason", "Stuck orders, by reason.", labels=["reason"]
        )
        reasons = CountOf(state.stuck.values())
        for why in StuckReason:
            stuck.add_metric([str(why)], reasons[str(why)])
        yield stuck
        yield _gauge(
            "orders_odd",
            "Orders whose own answers are not understood, while others of the account are.",
            len(state.odd),
        )
        yield _gauge(
            "oldest_due_seconds",
            "Seconds since the check that is overdue the longest was due.",
            self._view.oldest_due(),
        )
        yield _gauge(
            "oldest_open_seconds",
            "Age of the oldest open order that is asked about, in seconds.",
            round(queue_summary.oldest_open, 1),
        )
        yield _gauge(
            "inflight", "Checks in flight.", sum(a.in_flight for a in engine.accounts.values())
        )
        yield _gauge("writes_pending", "Check results not yet in the database.", len(engine.writer))
        oldest = engine.writer.oldest_seconds()
        yield _gauge(
            "writes_oldest_seconds",
            "Age of the oldest check result not yet in the database, in seconds.",
            oldest,
        )
        yield _gauge(
            "database_up",
            "1 while the shop's database is reachable.",
            float(state.scans > 0 and not state.scan_problem),
        )
        yield _gauge(
            "last_success_timestamp_seconds",
            "Unix time of the last understood answer, or of the last moment at which nothing was due.",
            state.succeeded_at or 0,
        )
        if self._view.speaks:
            yield from self._table(queue_summary)

    def _table(self, queue_summary: QueueSummary) -> Iterator[Metric]:
        """Values that are the same in every process."""
        state = self._view.engine.state
        yield _gauge("orders_open", "Open orders in the shop's table.", queue_summary.open)
        yield _gauge(
            "orders_overdue",
            "Open orders older than schedule.give_up_after.",
            queue_summary.overdue,
        )
        yield _gauge(
            "reviews",
            "Open reviews: decisions that need an operator (order-monitor review).",
            state.reviews,
        )
        skipped = GaugeMetricFamily(
            "order_monitor_orders_skipped",
            "Open orders that are not checked, by reason.",
            labels=["reason"],
        )
        for reason in SkipReason:
            skipped.add_metric([str(reason)], queue_summary.skipped[reason])
        yield skipped
        if (events := self._view.events()) is not None:
            yield _gauge(
                "events_waiting", "Events the shop has not consumed yet.", events["waiting"]
            )
            yield _gauge(
                "events_oldest_waiting_seconds",
                "Age of the oldest event the shop has not consumed, in seconds.",
                events["oldest_waiting_seconds"],
            )
        if (sender := self._view.sender) is not None:
            yield _gauge(
                "webhook_waiting", "Events waiting to be posted to the webhook.", sender.waiting
            )
            yield _gauge("webhook_dead", "Events given up as dead letters.", sender.dead)

    def _attention(self) -> Metric:
        """What the page lists as something to look at.

        Not being ready at all has a separate metric.
        """
        attention = GaugeMetricFamily(
            "order_monitor_attention",
            "1 while an operator should look at this kind of thing, as the page and order-monitor status say it.",
            labels=["kind"],
        )
        kinds = {cause.kind for cause in causes_in(self._view) if not cause.passes}
        for kind in REMEDIES:
            if kind != NOT_READY:
                attention.add_metric([kind], float(kind in kinds))
        return attention

    def _clocks(self) -> Iterator[Metric]:
        clocks = self._view.engine.context.clocks
        allowed = clocks.vouches(self._view.clock.boot())
        yield _gauge(
            "ends_by_age",
            "1 while the clocks agree, so that an order's age may end it.",
            float(allowed),
        )
        leaps = CounterMetricFamily(
            "order_monitor_clock_leaps",
            "Jumps of a clock since the start, by clock.",
            labels=["clock"],
        )
        for clock, count in clocks.leaps.items():
            leaps.add_metric([clock], count)
        yield leaps

    def _accounts(self) -> Iterator[Metric]:
        opened = GaugeMetricFamily(
            "order_monitor_account_open",
            "1 while the account may be asked (its circuit breaker is closed).",
            labels=["account"],
        )
        orders = GaugeMetricFamily(
            "order_monitor_account_orders", "Open orders of the account.", labels=["account"]
        )
        paused = GaugeMetricFamily(
            "order_monitor_account_paused",
            "1 while the account is paused by an operator.",
            labels=["account"],
        )
        understood = GaugeMetricFamily(
            "order_monitor_account_understood",
            "0 while none of the account's answers is understood.",
            labels=["account"],
        )
        balance = GaugeMetricFamily(
            "order_monitor_account_balance",
            "Balance of the account, in the provider's currency.",
            labels=["account"],
        )
        shares, now = self._view.count().shares, self._view.clock.monotonic()
        for key, account in self._view.engine.accounts.items():
            name = account.name
            if not account.is_held(now):
                continue
            opened.add_metric([name], float(account.gate.is_open))
            orders.add_metric([name], shares[key].orders if key in shares else 0)
            paused.add_metric([name], float(account.paused is not None))
            understood.add_metric([name], float(account.is_understood(now)))
            if (amount := account.balance_amount) is not None:
                balance.add_metric([name], amount)
        yield from (opened, orders, paused, understood, balance)

    def _told(self) -> Iterator[Metric]:
        view = self._view
        if view.cluster is not None:
            members = len(view.cluster.view.members) if view.cluster.view else 0
            yield _gauge(
                "cluster_members",
                "Processes sharing the accounts, as this one sees them; 0 while it is not a member.",
                members,
            )
            yield _gauge(
                "cluster_leader",
                "1 while this process is the leader: it posts events and reports for all.",
                float(view.cluster.leads),
            )
        if view.learned is not None:
            orders = GaugeMetricFamily(
                "order_monitor_timing_orders",
                "Ends the learned timing is based on, weighted by age.",
                labels=["account"],
            )
            for account, count in view.learned.orders().items():
                if account in view.engine.accounts:
                    orders.add_metric([view.engine.name_of(account)], count)
            yield orders
        build = GaugeMetricFamily(
            "order_monitor_build_info", "The running version.", labels=["version"]
        )
        build.add_metric([__version__], 1)
        yield build
        yield CounterMetricFamily(
            "order_monitor_log_lines_dropped",
            "Log lines dropped since the start.",
            value=self._dropped(),
        )


def _gauge(name: str, text: str, value: float) -> Metric:
    return GaugeMetricFamily(f"order_monitor_{name}", text, value=value)
