"""Shared state of all processes in the model shop: dispatches, codes, settings and reviews.

Each change belongs to its transaction. A key that another transaction is inserting or changing is
waited for, as a unique index waits for that transaction's end.
"""

import asyncio
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import asyncpg

from order_monitor.core.order import SAME_TIME
from order_monitor.shop.marks import FIRST_MIGRATE, FIRST_START
from order_monitor.shop.reviews import HELD_PIN, NOT_FOR_A_PERSON, UNCONFIRMED
from order_monitor.shop.writing.brake import KIND as HELD
from order_monitor.shop.writing.event_sql import PERSON, PROGRAM, WEBHOOK_MARK

if TYPE_CHECKING:
    from tests.simulation.shop import Event, Pool, Store, Stored

LONGEST_LOCK = 30.0
DAY = 86_400.0
_AT_ONCE = 0.01
_NAMED = re.compile(r"name = '([^']*)'")
_LIKE = re.compile(r"name LIKE '([^']*)%'")
_DAYS = re.compile(r"interval '([0-9]+) days'")


@dataclass(frozen=True)
class Dispatch:
    """A row of order_monitor_dispatches. ``noted_at`` is when it was committed."""

    number: int
    order_id: str
    account: str
    reference: str
    sent_at: float
    login: str
    found_at: float
    touched: int = 0
    meant_by: str | None = None
    noted_at: float = 0.0
    understood_at: float | None = None
    odd_at: float | None = None


@dataclass(frozen=True)
class Claimed:
    """A row of order_monitor_pins."""

    order_id: str
    claimed_at: float
    seen_in: tuple[str, ...] = ()


@dataclass(frozen=True)
class Setting:
    """A row of order_monitor_settings."""

    value: str
    stored_at: float
    stored_by: str | None = None


class Shared:
    """The effect of a connection's statements on these tables."""

    pool: "Pool"
    store: "Store"
    lock_wait: float
    _began: float
    _events: "list[Event]"
    _drafts: dict[str, dict[Any, Any]]

    def _row(self, order_id: str) -> "Stored | None":
        raise NotImplementedError

    # --- rows of these tables, as this transaction sees them

    def _all(self, table: str) -> dict[Any, Any]:
        draft = self._drafts.get(table)
        kept: dict[Any, Any] = getattr(self.store, table)
        return (
            kept
            if draft is None
            else {k: row for k, row in {**kept, **draft}.items() if row is not None}
        )

    def _one(self, table: str, key: Any) -> Any:
        draft = self._drafts.get(table, {})
        return draft[key] if key in draft else getattr(self.store, table).get(key)

    def _put(self, table: str, key: Any, row: Any) -> None:
        """Store a row, None to delete it, at the commit."""
        self._drafts.setdefault(table, {})[key] = row

    def _keep_drafts(self) -> None:
        now = self.store.now()
        for table, draft in self._drafts.items():
            kept: dict[Any, Any] = getattr(self.store, table)
            if table == "reviews":
                self.store.opened |= {key for key, row in draft.items() if row is not None}
            for key, row in draft.items():
                if row is None:
                    kept.pop(key, None)
                else:
                    kept[key] = replace(row, noted_at=now) if table == "dispatches" else row

    # --- locks

    async def _until_free(self, key: str) -> None:
        """Wait for another transaction's end without taking a lock."""
        end = asyncio.get_running_loop().time() + min(self.lock_wait, LONGEST_LOCK)
        while self.store.locked.get(key, self) is not self:
            await asyncio.sleep(_AT_ONCE)
            if asyncio.get_running_loop().time() > end:
                raise asyncpg.LockNotAvailableError("canceling statement due to lock timeout")

    async def _wait_for(self, key: str) -> None:
        """Lock something; if it is locked, wait, as PostgreSQL does without SKIP LOCKED."""
        await self._until_free(key)
        self.store.locked[key] = self

    async def _lock_shared(self, name: str, args: Sequence[Any]) -> None:
        """Wait as a statement about these tables would wait."""
        for table, key in self._inserted(name, args):
            await self._until_free(f"{table} {key}")
            if self._one(table, key) is None:
                self.store.locked[f"{table} {key}"] = self
        for table, key in self._changing(name, args):
            await self._wait_for(f"{table} {key}")

    @staticmethod
    def _inserted(name: str, args: Sequence[Any]) -> list[tuple[str, Any]]:
        """Insert unless it exists: wait for another's insert, and leave an existing row
        unchanged.
        """
        match name:
            case "_claim_codes":
                return [("pins", (login, digest)) for login, digest, _ in zip(*args, strict=True)]
            case "_add_mark":
                return [("settings", args[0])]
            case "_first_webhook":
                return [("settings", WEBHOOK_MARK)]
            case "_put_up":
                return [("reviews", (args[0], args[1]))]
            case "_review":
                return [("reviews", key) for key in zip(args[0], args[1], strict=True)]
            case "_wait":
                return [("reviews", (order_id, UNCONFIRMED)) for order_id in args[0]]
            case "_hold_pins":
                return [("reviews", (order_id, HELD_PIN)) for order_id in args[0]]
        return []

    def _changing(self, name: str, args: Sequence[Any]) -> list[tuple[str, Any]]:  # noqa: PLR0911 - one a statement
        """Insert or update: locked in any case."""
        match name:
            case "_note_dispatches":
                return [
                    ("dispatches", (i, reference, a))
                    for i, a, reference, *_ in zip(*args, strict=True)
                ]
            case "_mark_dispatches":
                keys = [(i, reference, a) for i, a, reference, *_ in zip(*args, strict=True)]
                return [
                    ("dispatches", key) for key in sorted(keys) if key in self._all("dispatches")
                ]
            case "_mean":
                key = self._last_noted(args[0])
                return [] if key is None else [("dispatches", key)]
            case "_seen_in":
                return [("pins", (args[0], args[1]))]
            case "_note_logins":
                return [("settings", login) for login in self._logins_due(args)]
            case "_set_mark" | "_tell" | "_announce" | "_leave_money":
                return [("settings" if name == "_set_mark" else "presence", args[0])]
            case "_lock_logins":
                return [("brake", number) for number in args[0]]
            case "_mend" | "_close_reviews":
                return [("reviews", key) for key in self._closed(name, args)]
            case "_close_pins":
                return [("reviews", (order_id, HELD_PIN)) for order_id in args[0]]
        return []

    # --- dispatches

    def _note_dispatches(self, _: str, args: Sequence[Any]) -> list[Any]:
        noted = []
        for order_id, account, reference, sent_at, login in zip(*args, strict=True):
            key, number = (order_id, reference, account), self.store.number_of("dispatch")
            old = self._one("dispatches", key)
            if old is None:
                row = Dispatch(
                    number, order_id, account, reference, sent_at, login, self.store.now()
                )
            else:
                touched = old.touched + (abs(old.sent_at - sent_at) >= SAME_TIME)
                row = replace(old, number=number, sent_at=sent_at, login=login, touched=touched)
            self._put("dispatches", key, row)
            noted.append({"id": order_id, "touched": row.touched})
        return noted

    def _mark_dispatches(self, _: str, args: Sequence[Any]) -> None:
        for order_id, account, reference, seen_at, odd_at in zip(*args, strict=True):
            row = self._one("dispatches", (order_id, reference, account))
            if row is None:
                continue
            understood = (
                seen_at if odd_at is None and row.understood_at is None else row.understood_at
            )
            odd = None if odd_at is None else odd_at if row.odd_at is None else row.odd_at
            self._put(
                "dispatches",
                (order_id, reference, account),
                replace(row, understood_at=understood, odd_at=odd),
            )

    def _newest_dispatches(self) -> dict[tuple[str, str], Dispatch]:
        """Return each order's newest dispatch under each of its references."""
        rows = sorted(self._all("dispatches").values(), key=lambda row: row.number)
        return {(row.order_id, row.reference): row for row in rows}

    def _standing(self, _: str, args: Sequence[Any]) -> list[Any]:
        found, rows = [], self._all("dispatches")
        for order_id, account, reference, joined in zip(*args, strict=True):
            noted, logins = rows.get((order_id, reference, account)), joined.split("\x1f")
            if noted is None:
                continue
            twins = [
                row.order_id
                for row in rows.values()
                if row.reference == reference and row.order_id != order_id and row.login in logins
            ]
            more = {"meant": noted.meant_by is not None, "twins": twins, "odd_at": noted.odd_at}
            found.append(
                {"id": order_id, "found_at": noted.found_at, "touched": noted.touched, **more}
            )
        return found

    def _twins(self, _: str, args: Sequence[Any]) -> list[Any]:
        ids, reference = args
        found = []
        for order_id in sorted(ids):
            row = self._row(order_id)
            meant = any(
                d.order_id == order_id and d.reference == reference and d.meant_by is not None
                for d in self._all("dispatches").values()
            )
            is_open = row is not None and row.status in self.pool.row_writer.table_config.open
            sent_at = row.sent_at if row is not None else None
            root = (row.root or row.id) if row is not None else None
            found.append(
                {
                    "id": order_id,
                    "is_open": is_open,
                    "sent_at": sent_at,
                    "root": root,
                    "meant": meant,
                }
            )
        return found

    def _last_noted(self, order_id: str) -> Any:
        """Return the key of an order's last noted dispatch."""
        rows = [
            (row.number, key)
            for key, row in self._all("dispatches").items()
            if row.order_id == order_id
        ]
        return max(rows)[1] if rows else None

    def _mean(self, _: str, args: Sequence[Any]) -> list[Any]:
        key = self._last_noted(args[0])
        if key is None:
            return []
        self._put("dispatches", key, replace(self._one("dispatches", key), meant_by=args[1]))
        return [key]

    # --- codes

    def _claim_codes(self, _: str, args: Sequence[Any]) -> list[Any]:
        claimed: list[Any] = []
        for login, digest, order_id in zip(*args, strict=True):
            if self._one("pins", (login, digest)) is None:
                self._put("pins", (login, digest), Claimed(order_id, self.store.now()))
                claimed.append({"id": order_id})
        return claimed

    def _owners(self, _: str, args: Sequence[Any]) -> list[Any]:
        keys = set(zip(*args, strict=True))
        return [
            {
                "login": login,
                "digest": digest,
                "id": row.order_id,
                "seen_in": list(row.seen_in),
                "root": self._root(row.order_id),
            }
            for (login, digest), row in self._all("pins").items()
            if (login, digest) in keys
        ]

    def _root(self, order_id: str) -> str:
        row = self._row(order_id)
        return order_id if row is None else row.root or row.id

    def _seen_in(self, _: str, args: Sequence[Any]) -> None:
        login, digest, order_id = args
        row = self._one("pins", (login, digest))
        if row is not None and order_id not in row.seen_in:
            self._put("pins", (login, digest), replace(row, seen_in=(*row.seen_in, order_id)))

    def _given(self, _: str, args: Sequence[Any]) -> list[Any]:
        given = {row.order_id for row in self._all("pins").values()}
        given |= {event.order_id for event in [*self.store.events, *self._events] if event.has_pin}
        return [{"id": order_id} for order_id in args[0] if order_id in given]

    def _brought(self, _: str, args: Sequence[Any]) -> list[Any]:
        pins = self._all("pins").items()
        claimed = {(row.order_id, digest) for (_, digest), row in pins}
        before = {
            (row.order_id, digest) for (_, digest), row in pins if row.claimed_at < self._began
        }
        return [
            {"id": order_id}
            for order_id, digest in zip(*args, strict=True)
            if (order_id, digest) in before
            and not any(i == order_id and other != digest for i, other in claimed)
        ]

    def _prune(self, *_: Any) -> list[Any]:
        """Do nothing: no row here is old enough to be forgotten."""
        return []

    # --- settings

    def _has_consumer(self, _: str, __: Sequence[Any]) -> list[Any]:
        return [{"coalesce": False}]

    def _read_mark(self, sql: str, _: Sequence[Any]) -> list[Any]:
        found = _NAMED.search(sql)
        assert found is not None
        row = self._one("settings", found[1])
        return [] if row is None else [{"value": row.value}]

    def _start_marks(self, *_: Any) -> list[Any]:
        rows = self._all("settings").items()
        return [
            {"name": name, "value": row.value, "stored_at": row.stored_at}
            for name, row in rows
            if name in (FIRST_MIGRATE, FIRST_START)
        ]

    def _add_mark(self, _: str, args: Sequence[Any]) -> list[Any]:
        if self._one("settings", args[0]) is not None:
            return []
        self._put("settings", args[0], Setting(args[1], self.store.now(), args[2]))
        return [{"bool": True}]

    def _set_mark(self, _: str, args: Sequence[Any]) -> None:
        self._put("settings", args[0], Setting(args[1], self.store.now(), args[2]))

    def _logins_due(self, args: Sequence[Any]) -> list[str]:
        due = []
        for login in sorted(args[0]):
            row = self._one("settings", login)
            if row is None or row.stored_at <= self.store.now() - DAY:
                due.append(login)
        return due

    def _note_logins(self, _: str, args: Sequence[Any]) -> None:
        for login in self._logins_due(args):
            self._put("settings", login, Setting("", self.store.now()))

    def _names_like(self, sql: str, _: Sequence[Any]) -> list[Any]:
        like, days = _LIKE.search(sql), _DAYS.search(sql)
        assert like is not None
        oldest = float("-inf") if days is None else self.store.now() - int(days[1]) * DAY
        rows = [
            (name, row) for name, row in self._all("settings").items() if name.startswith(like[1])
        ]
        rows = sorted(rows, key=lambda pair: (-pair[1].stored_at, pair[0]))
        return [{"name": name} for name, row in rows if row.stored_at > oldest]

    # --- the brake

    def _lock_logins(self, *_: Any) -> None:
        """Do nothing: the wait comes earlier."""

    def _brake_marks(self, *_: Any) -> list[Any]:
        rows = self._all("settings").items()
        return [
            {"name": name, "value": row.value} for name, row in rows if name.startswith("brake ")
        ]

    def _open_held(self) -> list[dict[str, Any]]:
        accounts, rows = self._all("review_accounts"), self._all("reviews").items()
        return [
            {"id": key[0], "account": accounts[key], "since": at}
            for key, at in rows
            if key[1] == HELD
        ]

    def _active(self, _: str, args: Sequence[Any]) -> list[Any]:
        accounts, released_at, now = args
        active = sum(
            row["account"] in accounts
            and not (row["since"] <= released_at and (released_at <= now or row["since"] > now))
            for row in self._open_held()
        )
        return [{"active": active}]

    def _held(self, *_: Any) -> list[Any]:
        return self._open_held()

    def _held_since(self, _: str, args: Sequence[Any]) -> list[Any]:
        return [
            {"id": row["id"], "since": row["since"]}
            for row in self._open_held()
            if row["id"] in args[0]
        ]

    def _count_ends(self, _: str, args: Sequence[Any]) -> list[Any]:
        accounts, after, until = args
        counted = Counter(
            event.outcome
            for event in [*self.store.events, *self._events]
            if event.account in accounts
            and after < event.decided_at <= until
            and event.source == PROGRAM
            and event.cause in ("answer", "time_limit")
            and not event.repeat
        )
        return [{"completed": counted["completed"], "failed": counted["failed"]}]

    def _controls(self, _: str, args: Sequence[Any]) -> list[Any]:
        return [
            {"id": event.order_id, "account": event.account, "reference": event.reference}
            for event in reversed(self.store.events)
            if event.account in args[0]
            and event.decided_at > self.store.now() - DAY
            and (event.outcome, event.source, event.cause, event.repeat)
            == ("completed", PROGRAM, "answer", False)
            and event.reference
        ]

    # --- what waits for a person, or for a second answer

    def _count_reviews(self, *_: Any) -> list[Any]:
        kinds = [kind for _, kind in self._all("reviews")]
        unconfirmed, pins = kinds.count(UNCONFIRMED), kinds.count(HELD_PIN)
        matters = self.pool.seen["reviews"] = len(kinds) - unconfirmed - pins
        return [{"matters": matters, "unconfirmed": unconfirmed, "pins": pins}]

    def _oldest_reviews(self, _: str, args: Sequence[Any]) -> list[Any]:
        accounts, rows = self._all("review_accounts"), list(self._all("reviews").items())
        found = [(key, since) for key, since in rows if key[1] not in NOT_FOR_A_PERSON][: args[0]]
        if len(found) < args[0]:
            self.pool.seen["reviews"] = len(found)
        return [
            {
                "id": key[0],
                "kind": key[1],
                "detail": "",
                "account": accounts.get(key, ""),
                "since": since,
            }
            for key, since in found
        ]

    def _review(self, _: str, args: Sequence[Any]) -> None:
        for *key, account in zip(args[0], args[1], args[-1], strict=True):
            if self._one("reviews", tuple(key)) is None:
                self._put("reviews", tuple(key), self.store.now())
                self._put("review_accounts", tuple(key), account)

    def _put_up(self, _: str, args: Sequence[Any]) -> None:
        *key, account = args
        self._review("", ([key[0]], [key[1]], [account]))

    def _about(self, _: str, args: Sequence[Any]) -> list[Any]:
        return [{"id": i, "kind": kind} for i, kind in self._all("reviews") if i in args[0]]

    def _closed(self, name: str, args: Sequence[Any]) -> list[tuple[str, str]]:
        keys = self._all("reviews")
        if name == "_mend":
            return [key for key in zip(args[0], args[1], strict=True) if key in keys]
        ids, _by, _how, kind = args
        return sorted(
            key
            for key in keys
            if key[0] in ids and key[1] == (kind or key[1]) and key[1] not in NOT_FOR_A_PERSON
        )

    def _mend(self, _: str, args: Sequence[Any]) -> None:
        for key in self._closed("_mend", args):
            self._put("reviews", key, None)

    def _mend_worded(self, *_: Any) -> None:
        """Nothing here is refused only for its word."""

    def _close_reviews(self, _: str, args: Sequence[Any]) -> None:
        for key in self._closed("_close_reviews", args):
            self._put("reviews", key, None)
            self._put("decided", key, args[1])

    def _wait(self, _: str, args: Sequence[Any]) -> None:
        for order_id, account, reference, since in zip(*args, strict=True):
            key = order_id, UNCONFIRMED
            if self._one("reviews", key) is None:
                self._put("reviews", key, since)
                self._put("review_accounts", key, account)
                self._put("review_references", key, reference)

    def _unconfirmed(self, _: str, args: Sequence[Any]) -> list[Any]:
        accounts, references = self._all("review_accounts"), self._all("review_references")
        return [
            {
                "id": key[0],
                "since": since,
                "account": accounts[key],
                "reference": references[key],
            }
            for key, since in self._all("reviews").items()
            if key[1] == UNCONFIRMED and (not args or key[0] in args[0])
        ]

    def _hold_pins(self, _: str, args: Sequence[Any]) -> None:
        for order_id, account, code, reference in zip(*args, strict=True):
            key, detail = (order_id, HELD_PIN), f"{code} {reference}"
            if self._one("reviews", key) is None:
                self._put("reviews", key, self.store.now())
                self._put("review_accounts", key, account)
                self._put("review_references", key, detail)
            elif code not in (before := self._one("review_references", key)).split(" ")[0]:
                self._put("review_references", key, f"{code},{before}")

    def _held_pins(self, _: str, args: Sequence[Any]) -> list[Any]:
        accounts, details = self._all("review_accounts"), self._all("review_references")
        return [
            {"number": number, "id": key[0], "account": accounts[key], "detail": details[key]}
            | {"since": since}
            for number, (key, since) in enumerate(self._all("reviews").items(), start=1)
            if key[1] == HELD_PIN
            and (number > args[0] if isinstance(args[0], int) else key[0] in args[0])
        ]

    def _close_pins(self, _: str, args: Sequence[Any]) -> list[Any]:
        closed = []
        for order_id, kind in zip(args[0], args[2], strict=True):
            key = order_id, HELD_PIN
            if self._one("reviews", key) is None:
                continue
            self._put("reviews", key, None)
            closed.append({"id": order_id})
            if kind is not None and self._one("reviews", (order_id, kind)) is None:
                self._put("reviews", (order_id, kind), self.store.now())
                self._put("review_accounts", (order_id, kind), self._one("review_accounts", key))
        return closed

    def _claimed_by(self, _: str, args: Sequence[Any]) -> list[Any]:
        return [
            {"id": row.order_id, "digest": digest}
            for (_, digest), row in self._all("pins").items()
            if row.order_id in args[0]
        ]

    def _claimed_under(self, _: str, args: Sequence[Any]) -> list[Any]:
        pins = self._all("pins").items()
        found = {
            (sent.reference, digest)
            for sent in self._all("dispatches").values()
            for (_, digest), row in pins
            if sent.reference in args[0] and row.order_id == sent.order_id
        }
        return [{"reference": reference, "digest": digest} for reference, digest in found]

    def _last_events(self, _: str, args: Sequence[Any]) -> list[Any]:
        last = {event.order_id: event for event in [*self.store.events, *self._events]}
        return [
            {"id": i, "source": last[i].source, "has_pin": last[i].has_pin}
            for i in sorted(args[0])
            if i in last
        ]

    def _put_back_at(self, _: str, args: Sequence[Any]) -> list[Any]:
        at = {
            event.order_id: event.decided_at
            for event in [*self.store.events, *self._events]
            if (event.outcome, event.source) == ("reopened", PERSON)
        }
        return [{"id": i, "at": at[i]} for i in args[0] if i in at]


def own_of(row: "Stored") -> str | None:
    """Return the account in an order's own row."""
    return row.account.strip() or None


SHARED: dict[str, str] = {
    'DELETE FROM "public"."order_monitor_pins"': "_prune",
    'DELETE FROM "public"."order_monitor_dispatches"': "_prune",
    'DELETE FROM "public"."order_monitor_observed"': "_prune",
    'INSERT INTO "public"."order_monitor_dispatches" AS d': "_note_dispatches",
    "SELECT d.order_id::text AS id, extract(epoch FROM d.found_at)": "_standing",
    'SELECT u.id, o."id" IS NOT NULL AND': "_twins",
    'UPDATE "public"."order_monitor_dispatches" SET meant_by': "_mean",
    'UPDATE "public"."order_monitor_dispatches" AS d SET first_understood_at': "_mark_dispatches",
    'INSERT INTO "public"."order_monitor_pins" (login, digest, order_id)': "_claim_codes",
    "SELECT p.login, p.digest, p.order_id::text AS id": "_owners",
    'UPDATE "public"."order_monitor_pins" SET seen_in': "_seen_in",
    "SELECT u.id FROM unnest($1::text[]) AS u(id) WHERE EXISTS (SELECT FROM": "_given",
    "SELECT DISTINCT u.id FROM unnest($1::text[], $2::bytea[])": "_brought",
    'SELECT value FROM "public"."order_monitor_settings" WHERE name =': "_read_mark",
    "SELECT COALESCE(has_table_privilege(to_regclass($1)": "_has_consumer",
    'INSERT INTO "public"."order_monitor_settings" (name, value, stored_by) VALUES ($1, $2, $3) ON CONFLICT DO NOTHING': (
        "_add_mark"
    ),
    'INSERT INTO "public"."order_monitor_settings" (name, value, stored_by) VALUES ($1, $2, $3) ON CONFLICT (name)': (
        "_set_mark"
    ),
    'INSERT INTO "public"."order_monitor_settings" AS k (name, value) SELECT n,': "_note_logins",
    'SELECT name FROM "public"."order_monitor_settings" WHERE name LIKE': "_names_like",
    "SELECT pg_advisory_xact_lock(n) FROM unnest(": "_lock_logins",
    'SELECT name, value FROM "public"."order_monitor_settings" WHERE name LIKE': "_brake_marks",
    "SELECT count(*) AS active FROM": "_active",
    "SELECT order_id::text AS id, account, extract(epoch FROM opened_at)": "_held",
    "SELECT r.order_id::text AS id, extract(epoch FROM opened_at)": "_held_since",
    "SELECT count(*) FILTER (WHERE e.outcome IN ('completed')) AS completed": "_count_ends",
    "SELECT e.order_id::text AS id, e.account, e.reference": "_controls",
    "SELECT count(*) FILTER (WHERE kind NOT IN ('cancel_unconfirmed'": "_count_reviews",
    'INSERT INTO "public"."order_monitor_review" AS w': "_hold_pins",
    "SELECT w.id AS number, w.order_id::text AS id": "_held_pins",
    'WITH closed AS (UPDATE "public"."order_monitor_review"': "_close_pins",
    "SELECT p.order_id::text AS id, p.digest": "_claimed_by",
    "SELECT DISTINCT d.reference, p.digest": "_claimed_under",
    'INSERT INTO "public"."order_monitor_review" (order_id, kind, account, detail, opened_at)': "_wait",
    'INSERT INTO "public"."order_monitor_review" (order_id, kind, account) VALUES': "_put_up",
    'INSERT INTO "public"."order_monitor_review"': "_review",
    'SELECT order_id::text AS id, kind FROM "public"."order_monitor_review"': "_about",
    "SELECT order_id::text AS id, kind, detail, account,": "_oldest_reviews",
    'UPDATE "public"."order_monitor_review" AS w SET resolution': "_mend_worded",
    'UPDATE "public"."order_monitor_review" r SET': "_mend",
    'UPDATE "public"."order_monitor_review" SET closed_at': "_close_reviews",
    "SELECT w.order_id::text AS id, extract(epoch FROM w.opened_at)": "_unconfirmed",
    "SELECT DISTINCT ON (e.order_id) e.order_id::text AS id, e.source, e.has_pin FROM": "_last_events",
    "SELECT e.order_id::text AS id, extract(epoch FROM max(e.decided_at))": "_put_back_at",
}
"""The beginnings of the statements about these tables, and their handlers."""
