"""The webhook's side of the model shop: deliveries that are queued, tried, received, or dead."""

import hashlib
import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from order_monitor.shop.writing.event_sql import WEBHOOK_MARK
from tests.simulation.shared import Setting, Shared

if TYPE_CHECKING:
    from tests.simulation.shop import Event


@dataclass
class Delivery:
    """A row of order_monitor_deliveries.

    ``failed_at`` is when its last try failed, None while another is in flight.
    """

    event_id: int
    order_id: str
    next_at: float
    attempts: int = 0
    failed_at: float | None = None
    outcome: str = ""
    is_delivered: bool = False
    is_dead: bool = False
    is_withdrawn: bool = False
    is_tried: bool = False
    """Whether it was queued again: its earlier tries are not counted any more."""

    @property
    def is_over(self) -> bool:
        """Whether it is not tried any more."""
        return self.is_delivered or self.is_dead


class Posting(Shared):
    """The effect of a connection's statements on the deliveries."""

    _later: list[Callable[[], None]]

    def _first_webhook(self, _: str, args: Sequence[Any]) -> None:
        if self._one("settings", WEBHOOK_MARK) is not None:
            return
        waiting = [d.event_id for d in self.store.deliveries.values() if not d.is_over]
        since = min(waiting) if waiting else max((e.id for e in self.store.events), default=0) + 1
        if args[2] is not None:
            since = min(since, args[2])
        value = json.dumps({"since": since, "address": args[0]}, separators=(", ", " : "))
        self._put("settings", WEBHOOK_MARK, Setting(value, self.store.now()))

    async def _lock_replayed(self, sql: str, args: Sequence[Any]) -> None:
        """Wait for those who have just claimed some of the events."""
        for event_id in self._replayed(sql, args):
            await self._wait_for(f"delivery {event_id}")

    async def _lock_new_deliveries(self, ids: Iterable[int]) -> None:
        """Wait for a transaction that queues the same event; existing rows stay unchanged."""
        for event_id in ids:
            if event_id not in self.store.deliveries:
                await self._wait_for(f"delivery {event_id}")

    def _swept(self, args: Sequence[Any]) -> list[int]:
        first, last = args
        return [
            e.id
            for e in self.store.events
            if first <= e.id <= last
            and e.id not in self.store.deliveries
            and not self._is_withdrawn(e)
        ]

    def _is_withdrawn(self, event: "Event") -> bool:
        later = [e for e in self.store.events if e.order_id == event.order_id and e.id > event.id]
        return event.repeat and bool(later) and later[0].outcome == "reopened"

    def _sweep(self, _: str, args: Sequence[Any]) -> list[Any]:
        orders = {e.id: e.order_id for e in self.store.events}
        fresh = [
            Delivery(event_id, orders[event_id], self.store.now()) for event_id in self._swept(args)
        ]
        self._later.append(lambda: self.store.deliveries.update({d.event_id: d for d in fresh}))
        return fresh

    def _claim(self, sql: str, args: Sequence[Any]) -> list[Any]:
        limit, lease, mark = args
        now, seen = self.store.now(), set()
        claimed: list[Delivery] = []
        known = self._one("settings", WEBHOOK_MARK)
        if known is None or known.value != mark:
            return []
        for delivery in sorted(self.store.deliveries.values(), key=lambda d: d.event_id):
            if delivery.is_over or delivery.order_id in seen:
                continue
            seen.add(delivery.order_id)
            key = f"delivery {delivery.event_id}"
            is_due = delivery.next_at <= now or (
                NEVER_SO_LONG in sql
                and (not delivery.attempts or delivery.next_at > now + lease + 7200)
            )
            if is_due and len(claimed) < limit and self.store.locked.get(key, self) is self:
                self.store.locked[key] = self
                claimed.append(delivery)

        def take() -> None:
            for delivery in claimed:
                delivery.attempts += 1
                delivery.failed_at = None
                delivery.next_at = self.store.now() + lease

        self._later.append(take)
        return [
            {
                "event": json.dumps(self._event_of(d.event_id), default=str),
                "attempts": d.attempts + 1,
            }
            for d in claimed
        ]

    def _event_of(self, event_id: int) -> dict[str, Any]:
        event = next(e for e in self.store.events if e.id == event_id)
        return {
            **vars(event),
            "uid": event.uid,
            "decided_at": str(event.decided_at),
            "dispatch": self._dispatch_of(event),
        }

    def _dispatch_of(self, event: "Event") -> str:
        rounds = [e for e in self.store.events if e.order_id == event.order_id and e.id < event.id]
        count = sum(e.outcome == "reopened" for e in rounds)
        fields = (
            event.order_id,
            event.account or "",
            event.reference or "",
            event.outcome,
            str(count),
        )
        return hashlib.sha256(chr(31).join(fields).encode()).hexdigest()

    def _settle(self, sql: str, args: Sequence[Any]) -> None:
        delivery = self.store.deliveries[args[0]]
        if delivery.is_delivered:
            return

        def settle() -> None:
            if "SET next_at" in sql:
                delivery.next_at, delivery.failed_at = self.store.now() + args[2], self.store.now()
                delivery.outcome = args[1]
            elif "SET attempts" in sql:
                delivery.attempts, delivery.next_at = (
                    max(delivery.attempts - 1, 1),
                    self.store.now() + args[1],
                )
            elif "SET delivered_at" in sql:
                delivery.is_delivered = True
            else:
                delivery.is_dead = True

        self._later.append(settle)

    def _let_go(self, _: str, args: Sequence[Any]) -> list[Any]:
        longest, pace, first = args
        now = self.store.now()

        def is_outages(d: Delivery, failed_at: float) -> bool:
            own = 1.1 * first * 2.0 ** min(d.attempts - 1, 20)
            return bool(
                d.next_at - failed_at <= longest or (d.outcome != "http_429" and own <= longest)
            )

        failed = [
            d
            for _, d in sorted(self.store.deliveries.items())
            if not d.is_over
            and d.failed_at is not None
            and d.next_at > now
            and is_outages(d, d.failed_at)
        ]

        def let_go() -> None:
            for place, delivery in enumerate(failed, 1):
                if delivery.failed_at is not None and not delivery.is_over:
                    delivery.next_at = min(delivery.next_at, now + place / pace)

        self._later.append(let_go)
        return failed

    def _replay(self, sql: str, args: Sequence[Any]) -> list[Any]:
        """Queue events again."""
        now, chosen = self.store.now(), self._replayed(sql, args)

        def replay() -> None:
            for event_id, order_id in chosen.items():
                fresh = Delivery(event_id, order_id, now)
                again = self.store.deliveries.setdefault(event_id, fresh)
                again.is_tried = again is not fresh
                again.is_delivered = again.is_dead = again.is_withdrawn = False
                again.attempts, again.next_at, again.failed_at = 0, now, None

        self._later.append(replay)
        return [{"event_id": event_id} for event_id in chosen]

    def _replayed(self, sql: str, args: Sequence[Any]) -> dict[int, str]:
        """Return the events that are queued again, each with its order: some by number, an order's,
        recent ones, dead or failed ones; those that a reopening withdrew only if the statement does
        not leave them out.
        """
        ids, order_id, since, dead, _by, waiting = args
        now = self.store.now()
        chosen: dict[int, str] = {}
        for event in self.store.events:
            d = self.store.deliveries.get(event.id)
            is_dead = dead and d is not None and d.is_dead and d.attempts > 0
            is_failed = waiting and d is not None and not d.is_over and d.failed_at is not None
            is_recent = since is not None and event.decided_at > now - since
            is_one = event.id in ids or event.order_id == order_id or is_recent
            is_left_out = WITHDRAWN in sql and self._is_withdrawn(event)
            if (is_one or is_dead or is_failed) and not is_left_out:
                chosen[event.id] = event.order_id
        return chosen

    def _counts(self, *_: Any) -> list[Any]:
        rows = self.store.deliveries.values()
        return [
            {
                "waiting": sum(not d.is_over for d in rows),
                "dead": sum(d.is_dead and d.attempts > 0 for d in rows),
            }
        ]


REPLAY = 'INSERT INTO "public"."order_monitor_deliveries" AS d (event_id, order_id) SELECT e.id'
NEVER_SO_LONG = "make_interval(secs => $2::float8 + 7200.0)"
WITHDRAWN = "AND NOT (e.repeat AND COALESCE((SELECT n.outcome = 'reopened' FROM "

POSTING: dict[str, str] = {
    REPLAY: "_replay",
    'INSERT INTO "public"."order_monitor_settings" (name, value, stored_by) SELECT': "_first_webhook",
    'INSERT INTO "public"."order_monitor_deliveries" (event_id, order_id) SELECT e.id': "_sweep",
    "WITH due AS (SELECT d.event_id": "_claim",
    "WITH failed AS (SELECT d.event_id": "_let_go",
    'UPDATE "public"."order_monitor_deliveries" d SET': "_settle",
    "SELECT (SELECT count(*) FROM": "_counts",
}
"""The beginnings of the statements about these tables, and their handlers."""
