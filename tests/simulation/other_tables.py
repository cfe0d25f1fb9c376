"""The other tables in the model shop: accounts, pauses, learned timing, and the changes of a
reopening.
"""

import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from order_monitor.shop.writing.event_sql import PERSON, PROGRAM, WEBHOOK_MARK
from tests.simulation.posting import POSTING, Delivery, Posting
from tests.simulation.presence import PRESENT, Present
from tests.simulation.shared import SHARED, own_of

if TYPE_CHECKING:
    from tests.simulation.shop import Stored

NOT_TRIED = "AND tries = '[]'"
"""What the model looks for only if the statement does: that a delivery was never tried."""
_STATUS = re.compile(r"IN \('([a-z_]+)'\) AND NOT")


@dataclass(frozen=True)
class Login:
    """A row of integrations.

    ``address`` and ``sifre`` are right or wrong; ``kod`` is the dealer's name.
    """

    id: str
    name: str = "shop"
    enabled: bool = True
    address: str = "https://bayi.example"
    sifre: str = "right"
    provider: str = "znet"
    kod: str = "kod"


class OtherTables(Posting, Present):
    """The effect of a connection's statements on these tables."""

    author: str
    _later: list[Callable[[], None]]
    _changed: "dict[str, tuple[Stored, Stored]]"

    async def _lock_first(self, name: str, sql: str, args: Sequence[Any]) -> None:
        """Wait for the row lock that a statement without SKIP LOCKED would wait for."""
        if name == "_withdraw_delivery":
            await self._wait_for(f"delivery {args[0]}")
        elif name in ("_put_back", "_withdraw_event"):
            await self._wait_for(args[0] if name == "_put_back" else f"event {args[0]}")
        elif name == "_replay":
            await self._lock_replayed(sql, args)
        elif name == "_sketch":
            await self._wait_for(f"timing {args[0]} {args[1]}")
        elif name == "_lock_money":
            await self._wait_for("money")
        elif name in ("_withdraw_new", "_sweep"):
            await self._lock_new_deliveries(self._swept(args) if name == "_sweep" else [args[0]])
        else:
            await self._lock_shared(name, args)

    # --- the shop's accounts

    def _integrations(self, *_: Any) -> list[Any]:
        rows = [self.store.logins[key] for key in sorted(self.store.logins)]
        self.pool.on_logins(rows)
        names = ("id", "name", "enabled", "provider")
        return [
            {name: getattr(row, name) for name in names}
            | {"username": row.kod, "password": row.sifre}
            | {"base_url": row.address, "tenant_id": None}
            for row in rows
        ]

    # --- pauses

    def _pauses(self, *_: Any) -> list[Any]:
        now = self.store.now()
        paused = {account: until for account, until in self.store.pauses.items() if until > now}
        self.pool.on_pauses(set(paused))
        self.pool.seen["pauses"] = set(paused)
        return [
            {
                "account": name,
                "reason": "x",
                "paused_by": "x",
                "since": now,
                "until": until if until < math.inf else None,
            }
            for name, until in paused.items()
        ]

    def _pause(self, _: str, args: Sequence[Any]) -> list[Any]:
        account, _reason, _by, seconds = args
        until = math.inf if seconds is None else self.store.now() + seconds
        self._later.append(lambda: self.store.pauses.update({account: until}))
        return [account]

    def _resume(self, _: str, args: Sequence[Any]) -> list[Any]:
        def resume() -> None:
            for name in args[0]:
                self.store.pauses.pop(name, None)

        self._later.append(resume)
        return [name for name in self.store.pauses if name in args[0]]

    # --- a reopening

    def _last_event(self, _: str, args: Sequence[Any]) -> list[Any]:
        events = [event for event in self.store.events if event.order_id == args[0]]
        names = ("id", "from_status", "to_status", "decided_by", "source", "has_pin", "repeat")
        return [
            {name: getattr(e, name) for name in names}
            | {"is_taken": e.consumed_at is not None, "taken": "then"}
            for e in events[-1:]
        ]

    def _lock_event(self, _: str, args: Sequence[Any]) -> list[Any]:
        key = f"event {args[0]}"
        event = next(e for e in self.store.events if e.id == args[0])
        if event.consumed_at is not None or self.store.locked.get(key, self) is not self:
            return []
        self.store.locked[key] = self
        return [{"id": event.id}]

    def _withdraw_new(self, _: str, args: Sequence[Any]) -> list[Any]:
        """Mark as dead an event that was never queued for delivery."""
        event = next(e for e in self.store.events if e.id == args[0])
        if event.id in self.store.deliveries:
            return []
        aside = Delivery(
            event.id, event.order_id, self.store.now(), is_dead=True, is_withdrawn=True
        )
        self._later.append(lambda: self.store.deliveries.update({event.id: aside}))
        return [{"bool": True}]

    def _withdraw_delivery(self, sql: str, args: Sequence[Any]) -> list[Any]:
        delivery = self.store.deliveries[args[0]]
        if delivery.attempts or delivery.is_over or (delivery.is_tried and NOT_TRIED in sql):
            return []

        def withdraw() -> None:
            delivery.is_dead = delivery.is_withdrawn = True

        self._later.append(withdraw)
        return [{"bool": True}]

    def _withdraw_event(self, _: str, args: Sequence[Any]) -> None:
        event = next(e for e in self.store.events if e.id == args[0])

        def withdraw() -> None:
            event.repeat, event.consumed_at = True, self.store.now()

        self._later.append(withdraw)

    def _put_back(self, sql: str, args: Sequence[Any]) -> list[Any]:
        found, row = _STATUS.search(sql), self._row(args[0])
        assert found is not None
        if row is None or row.status != found[1] or _has_text(row.pin):
            return []
        self._changed[row.id] = (self._changed.get(row.id, (row,))[0], replace(row, status=args[1]))
        return [row.id]

    def _count_with_pin(self, _: str, args: Sequence[Any]) -> list[Any]:
        row = self._row(args[0])
        return [{"count": int(row is not None and _has_text(row.pin))}]

    def _note_reopening(self, _: str, args: Sequence[Any]) -> None:
        event = next(e for e in self.store.events if e.id == args[0])
        back, reason, by = args[1:]
        was, number, now = event.to_status, self.store.number_of("event"), self.store.now()
        fresh = replace(
            event,
            id=number,
            from_status=was,
            to_status=back,
            message=reason,
            checks=None,
            decided_at=now,
        )
        fresh = replace(fresh, decided_by=by, repeat=False, outcome="reopened", consumed_at=None)
        fresh = replace(
            fresh, source=PERSON, cause=PERSON, queued=WEBHOOK_MARK in self._all("settings")
        )
        self._events.append(fresh)

    def _integration_of(self, row: "Stored") -> str | None:
        """Return the account that took an order: from its row, otherwise from its dispatch."""
        if not self.pool.row_writer.table_config.accounts_from_shop:
            return None
        sent = self._newest_dispatches().get((row.id, row.reference.strip()))
        return own_of(row) or (sent.account if sent is not None else None)

    # --- learned timing

    def _is_table(self, *_: Any) -> list[Any]:
        return [{"exists": True}]

    def _columns(self, _: str, args: Sequence[Any]) -> list[Any]:
        text = {"data_type": "text", "udt_schema": "pg_catalog", "udt_name": "text", "labels": None}
        return [
            {"column_name": "sketch", "width": None, "written": True, "is_domain": False, **text}
        ]

    def _sketches(self, *_: Any) -> list[Any]:
        return [
            {"account": a, "package": p, "sketch": text}
            for (a, p), text in self.store.sketches.items()
        ]

    def _sketch(self, _: str, args: Sequence[Any]) -> list[Any]:
        return [{"sketch": self.store.sketches.get((args[0], args[1]), "")}]

    def _keep_sketch(self, _: str, args: Sequence[Any]) -> None:
        self._later.append(lambda: self.store.sketches.update({(args[0], args[1]): args[2]}))

    def _nothing(self, *_: Any) -> None:
        return None

    def _past(self, _: str, args: Sequence[Any]) -> list[Any]:
        found = []
        for event in reversed(self.store.events):
            row = self.store.rows.get(event.order_id)
            is_end = event.outcome in ("completed", "failed") and not event.repeat
            if row is None or not is_end or event.source != PROGRAM:
                continue
            if event.sent_at is not None and event.decided_at >= event.sent_at:
                more: dict[str, Any] = {
                    "age": event.decided_at - event.sent_at,
                    "at": event.decided_at,
                }
                more |= {"account": event.account, "integration": self._integration_of(row)}
                found.append(
                    {
                        "id": row.id,
                        "package": row.package or None,
                        "is_end": event.cause != "time_limit",
                        **more,
                    }
                )
        return found[: args[0]]


def _has_text(pin: str | None) -> bool:
    """Whether the PIN column contains anything except blanks."""
    return bool((pin or "").strip(" "))


STARTS: dict[str, str] = {
    'SELECT i."id"::text AS id': "_integrations",
    "SELECT account, reason, paused_by": "_pauses",
    'INSERT INTO "public"."order_monitor_pauses" AS p': "_pause",
    'DELETE FROM "public"."order_monitor_pauses"': "_resume",
    "SELECT id, from_status, to_status, decided_by, source, has_pin": "_last_event",
    'SELECT id FROM "public"."order_monitor_events" WHERE id = $1 AND NOT': "_lock_event",
    'INSERT INTO "public"."order_monitor_deliveries" AS d (event_id, order_id, dead_at, tries)': "_withdraw_new",
    'UPDATE "public"."order_monitor_deliveries" SET dead_at': "_withdraw_delivery",
    'UPDATE "public"."order_monitor_events" SET repeat = true, consumed_at': "_withdraw_event",
    'UPDATE "public"."product_orders" SET "external_status" = $2::text WHERE': "_put_back",
    'SELECT count(*) FROM "public"."product_orders" WHERE': "_count_with_pin",
    'WITH event AS (INSERT INTO "public"."order_monitor_events" (order_id, tenant_id, from_status': "_note_reopening",
    'SELECT account, package, sketch FROM "public"."order_monitor_timing"': "_sketches",
    'INSERT INTO "public"."order_monitor_timing"': "_nothing",
    'SELECT sketch FROM "public"."order_monitor_timing"': "_sketch",
    'UPDATE "public"."order_monitor_timing" SET sketch': "_keep_sketch",
    'DELETE FROM "public"."order_monitor_timing"': "_nothing",
    'INSERT INTO "public"."order_monitor_settings" AS k (name, value, stored_at) SELECT': "_nothing",
    "SET CONSTRAINTS ALL IMMEDIATE": "_nothing",
    **POSTING,
    **PRESENT,
    **SHARED,
}
"""The beginnings of the statements about these tables, and their handlers."""
