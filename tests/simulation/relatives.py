"""Chains: orders that another tenant took, each as an order of its own in the same table.

The model shop's side of `order_monitor.shop.writing.chains`, and what must hold:

- an order that another tenant took ends only by its child, as that has ended, with its PIN;
- never by an answer, by its age, or by a child that does not name it in return;
- without a fault it ends within a few scans after its child;
- it is never asked about.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from order_monitor.core.login import INTERNAL
from order_monitor.core.outcome import FINAL as ENDS
from order_monitor.core.outcome import Cause, Outcome
from order_monitor.shop.writing.event_sql import PERSON
from tests.simulation.shared import Shared

if TYPE_CHECKING:
    from tests.simulation.scenario import OrderPlan
    from tests.simulation.shop import Commit, Event, Stored
    from tests.simulation.world import World

TENANT = "tenant"
"""The account that stands for another tenant of the shop."""

IN_TIME = 240.0
"""Seconds within which an order ends after its child: a pass that waits for a lock is made again
after a hundred times as long.
"""

EXCUSES = frozenset(
    {
        *("db_down", "db_stall", "db_cut", "commit_lost", "commit_cut", "deadlocks", "fails_over"),
        *("lock", "poison", "refuses_all", "blocked", "slow_trigger", "rewrites", "ends_paused"),
        *("kill", "crash", "stop", "other_file"),
    }
)
"""Ongoing faults that excuse a late end."""

_BY_STATUS = {"approved": Outcome.COMPLETED, "rejected": Outcome.FAILED}
_LAST = 2**31 - 1
NAMED, REVERSE = "WHERE COALESCE(n.c_root = n.p_id OR ", "AND NOT COALESCE(n.c_id = n.p_id OR "
"""What the model looks for only if the statement does: whether the two name one another."""
OPEN = ("sent", "pending", "processing", "queued")


@dataclass(frozen=True)
class Edge:
    """An order's child ``row``, and its end by its ``event`` and by the shop's own status."""

    parent: str
    row: "Stored"
    event: "Event | None"
    by_status: str | None
    by_event: str | None

    @property
    def end(self) -> str | None:
        """How the child has ended; None while it is open."""
        return self.by_status or self.by_event

    @property
    def columns(self) -> dict[str, Any]:
        """What the statements say of the child."""
        return {
            "child": self.row.id,
            "by_status": self.by_status,
            "by_event": self.by_event,
            "is_over": self.end is not None,
            "child_pin": self.row.pin,
            "had_pin": self.event is not None and self.event.has_pin,
            "told": self.event.message if self.event and self.by_event else None,
            "message": None,
            "note": (self.row.note or "").strip(" ") or None,
            "manual_note": None,
        }


def family(plan: "OrderPlan", reference: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the rows of an order and of those that other tenants took as it, the first one first:
    the id of each, and its columns.
    """
    ids = [f"order-{10_000 + 100 * plan.number + level}" for level in range(plan.above)]
    ids.append(f"order-{plan.number}")
    for place, order_id in enumerate(ids):
        is_last = place == len(ids) - 1
        yield (
            order_id,
            {
                "reference": reference if is_last else order_id,
                "account": plan.account if is_last else TENANT,
                "external": order_id if is_last else ids[place + 1],
                "root": ids[0] if place else None,
                "path": json.dumps(ids[: place + 1]),
            },
        )


def stranger(plan: "OrderPlan") -> tuple[str, dict[str, Any]]:
    """Return the row of another tenant's order that names an order as its child, which does not
    name it.
    """
    order_id = f"order-{90_000 + plan.number}"
    columns = {"reference": order_id, "account": TENANT, "external": f"order-{plan.number}"}
    return order_id, {**columns, "path": json.dumps([order_id])}


class Chained(Shared):
    """The effect of a connection's statements about chains."""

    def _take(self, order_id: str, fits: Any) -> "Stored | None":
        raise NotImplementedError

    def _as_orders(self, rows: Any) -> list[dict[str, Any]]:
        raise NotImplementedError

    def _edge(self, sql: str, parent: "Stored | None") -> Edge | None:
        """Return the link of an order to its child, if another tenant took it and both name it, as
        far as the statement asks for that.
        """
        login = self.store.logins.get(parent.account) if parent is not None else None
        if parent is None or login is None or login.provider != INTERNAL:
            return None
        child = self._row(parent.external or "")
        if child is None or (NAMED in sql and not _is_named(parent, child)):
            return None
        if REVERSE in sql and _is_reverse(parent, child):
            return None
        events = [e for e in [*self.store.events, *self._events] if e.order_id == child.id]
        event = events[-1] if events else None
        by_status = _BY_STATUS.get((child.shop_status or "").lower())
        is_open = child.status in self.pool.row_writer.table_config.open
        holds = event is not None and (child.status == event.to_status or by_status is not None)
        is_end = event is not None and event.outcome in ENDS and not is_open and holds
        by_event = event.outcome if event is not None and is_end else None
        return Edge(parent.id, child, event, by_status, by_event)

    def _ended_children(self, sql: str, _: Sequence[Any]) -> list[Any]:
        open_ones = self.pool.row_writer.table_config.open
        rows = [row for row in self.store.rows.values() if row.status in open_ones]
        edges = {edge.parent: edge for row in rows if (edge := self._edge(sql, row)) is not None}
        above = {edge.row.id: parent for parent, edge in edges.items()}
        found = []
        for first in [parent for parent, edge in edges.items() if edge.end is not None]:
            parent: str | None = first
            level = 1
            while parent is not None:
                (order,) = self._as_orders([self.store.rows[parent]])
                found.append({**order, **edges[parent].columns, "level": level})
                parent, level = above.get(parent), level + 1
                if parent is not None and edges[parent].end is not None:
                    break
        return sorted(found, key=lambda row: (row["level"], row["id"]))

    def _late_children(self, sql: str, _: Sequence[Any]) -> list[Any]:
        last = {
            event.order_id: event
            for event in self.store.events
            if (event.cause, event.outcome, event.has_pin) == (Cause.CHILD, "completed", False)
        }
        found = []
        for event in last.values():
            row = self.store.rows.get(event.order_id)
            if row is None or row.status != event.to_status or not self._may_lack(row):
                continue
            if (edge := self._edge(sql, row)) is not None:
                (order,) = self._as_orders([row])
                found.append({**order, "ended_at": event.decided_at, **edge.columns})
        return found

    def _may_lack(self, row: "Stored") -> bool:
        raise NotImplementedError

    def _proof(self, sql: str, args: Sequence[Any]) -> list[Any]:
        found = []
        for order_id in sorted(args[0]):
            edge = self._edge(sql, self._row(order_id))
            if edge is not None and self._take(edge.row.id, lambda _: True) is not None:
                found.append({"id": order_id, **edge.columns})
        return found

    def _led_to(self, _: str, args: Sequence[Any]) -> list[Any]:
        """Find the orders that have ended since an event as their child, a reopened order, did."""
        child, since = args
        events = sorted([*self.store.events, *self._events], key=lambda event: event.id)
        last = {event.order_id: event for event in events if event.id > since}
        found = [
            order_id
            for order_id, event in last.items()
            if event.cause == Cause.CHILD
            and (row := self._row(order_id)) is not None
            and (row.status, row.external) == (event.to_status, child)
        ]
        return [{"id": order_id} for order_id in sorted(found)]


def _is_named(parent: "Stored", child: "Stored") -> bool:
    """Whether a child names its parent, or another order of its chain."""
    path, of_parent = _path(child), parent.root
    return (
        parent.id in (child.root, child.reference)
        or (parent.id in path and _place(path, parent.id) < _place(path, child.id))
        or (
            child.external != parent.id
            and of_parent is not None
            and (child.root == of_parent or of_parent in path)
        )
    )


def _is_reverse(parent: "Stored", child: "Stored") -> bool:
    """Whether the child is the parent's own parent, or itself."""
    path = _path(parent)
    return child.id in (parent.id, parent.reference, parent.root) or (
        child.id in path and _place(path, child.id) < _place(path, parent.id)
    )


def _path(row: "Stored") -> list[str]:
    return json.loads(row.path) if row.path else []


def _place(path: Sequence[str], order_id: str) -> int:
    return path.index(order_id) if order_id in path else _LAST


CHAINED: Mapping[str, str] = {
    "WITH RECURSIVE p AS MATERIALIZED": "_ended_children",
    "SELECT p.*, ": "_late_children",
    "SELECT p.id, ": "_proof",
    "SELECT e.order_id::text AS id FROM (SELECT DISTINCT ON (order_id) order_id, cause": "_led_to",
}
"""The beginnings of the statements about chains, and their handlers."""


class Relatives:
    """Checks the chains of a world."""

    def __init__(self, world: "World") -> None:
        self._world = world
        self.strangers: set[str] = set()
        """Orders that name another one as their child, which does not name them."""
        self._late: dict[str, float] = {}
        """For how many seconds the end of each order's child could have been written."""

    def from_here(self, row: "Stored") -> list["Stored"]:
        """Return an order and those below it in its chain; a provider was asked for the last."""
        found = [row]
        while row.account == TENANT and (child := self._world.store.rows.get(row.external or "")):
            row = child
            found.append(row)
        return found

    def ended(self, before: "Stored", after: "Stored", event: "Event", commit: "Commit") -> None:
        """An order that another tenant took has ended, or got its PIN, by the program."""
        world, child = self._world, self._world.store.rows.get(after.external or "")
        world.check(event.cause == Cause.CHILD, f"{after.id} ended by {event.cause}, not its child")
        if child is None or not self._is_mutual(after, child):
            world.check(False, f"{after.id} ended by {after.external}, which does not name it")
            return
        if before.status != after.status:
            end = _BY_STATUS.get((child.shop_status or "").lower()) or self._end_of(child)
            what = f"{after.id} ended {event.outcome}, and its child {child.id} {end}"
            world.check(event.outcome == end, what)
        if after.pin != before.pin:
            what = f"{after.id} got PIN {after.pin!r}, and its child {child.id} has {child.pin!r}"
            world.check(after.pin == child.pin, what)

    def _end_of(self, row: "Stored") -> str | None:
        """Return how the last event of an order that ended says it did."""
        events = [e for e in self._world.store.events if e.order_id == row.id]
        is_end = bool(events) and events[-1].to_status == row.status
        return events[-1].outcome if is_end and events[-1].outcome in ENDS else None

    @staticmethod
    def _is_mutual(parent: "Stored", child: "Stored") -> bool:
        return _is_named(parent, child) and not _is_reverse(parent, child)

    def look_for_late(self, seconds: float) -> None:
        """Add ``seconds`` for each order whose child has ended, and check the total."""
        world, known = self._world, self._late
        self._late = {}
        is_excused = bool(world.going_on.keys() & EXCUSES) or not world.processes
        for row, child in self._owed():
            is_held = is_excused or self._is_held(row, child)
            late = known.get(row.id, 0.0) + (0.0 if is_held else seconds)
            self._late[row.id] = late
            what = f"{row.id} is {row.status} {late:.0f} s after its child {child.id}"
            world.check(late <= IN_TIME, f"{what} ended {child.status}")

    def unfinished(self) -> list[str]:
        """Return what children have, and their parents do not have yet."""
        return [
            f"{row.id} is {row.status}, has_pin {row.pin is not None}, and its child {child.id} "
            f"{child.status}, {child.pin is not None}"
            for row, child in self._owed()
        ]

    def _owed(self) -> "Iterator[tuple[Stored, Stored]]":
        """Yield the orders that still lack their child's end or PIN, with the child."""
        rows = self._world.store.rows
        for row in rows.values():
            child = rows.get(row.external or "")
            if row.account != TENANT or child is None or not self._is_mutual(row, child):
                continue
            is_owed = row.status in OPEN and self._end_of(child) is not None
            lacks = row.status == "completed" and row.pin is None and child.pin is not None
            if (is_owed or lacks) and not self._is_with_a_person(row):
                yield row, child

    def _is_held(self, row: "Stored", child: "Stored") -> bool:
        store = self._world.store
        return bool(store.locked.keys() & {row.id, child.id})

    def _is_with_a_person(self, row: "Stored") -> bool:
        kept = {order_id for order_id, _ in self._world.store.reviews}
        last = [e.source for e in self._world.store.events if e.order_id == row.id][-1:]
        return row.id in kept or row.id in self._world.touched or last == [PERSON]
