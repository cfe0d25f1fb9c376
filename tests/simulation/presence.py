"""The processes at work on the model shop: their rows with their clocks, and the settings that
decide money.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from tests.simulation.shared import DAY, Shared

_PREFIX = re.compile(r"starts_with\(name, '([^']*)'\)")


@dataclass(frozen=True)
class Attendant:
    """A row of order_monitor_presence."""

    kind: str
    settings: str | None
    seen_at: float
    boot: str = ""
    machine: float | None = None
    database: float | None = None
    until: float | None = None


class Present(Shared):
    """The effect of a connection's statements on these tables."""

    _later: list[Callable[[], None]]

    def _own_tables(self, _: str, args: Sequence[Any]) -> list[Any]:
        return [
            {"name": name, "is_there": True, "columns": ["uid"], "lacking": [], "role": "shop"}
            for name in sorted(args[1])
        ]

    def _tell(self, _: str, args: Sequence[Any]) -> list[Any]:
        me, _host, _pid, kind, _version, settings, boot, machine, database, until, prunes = args
        now, old = self.store.now(), self._one("presence", me)
        kept = settings if settings is not None or old is None else old.settings
        if prunes:
            for key, row in self._all("presence").items():
                if key != me and row.seen_at < now - DAY:
                    self._put("presence", key, None)
        self._put("presence", me, Attendant(kind, kept, now, boot, machine, database, until))
        return [{"extract": now}]

    def _recall(self, _: str, args: Sequence[Any]) -> list[Any]:
        boot, me = args
        kept = [
            row
            for key, row in self._all("presence").items()
            if row.boot == boot != "" and key != me
        ]
        found = {
            "now": self.store.now(),
            "unsteady_until": None,
            "utc_offset": None,
            "database_offset": None,
        }
        if not kept:
            return [{**found, "at": None, "is_there": None}]
        times = {
            id(row): None if row.database is None else row.seen_at - row.database for row in kept
        }
        newest = max(kept, key=lambda row: -1.0 if (at := times[id(row)]) is None else at)
        found["unsteady_until"] = max(
            (row.until for row in kept if row.until is not None), default=None
        )
        found |= {"utc_offset": newest.machine, "database_offset": newest.database}
        return [{**found, "at": times[id(newest)], "is_there": True}]

    # --- the settings that decide money

    def _money(self, sql: str, _: Sequence[Any]) -> list[Any]:
        found = _PREFIX.search(sql)
        assert found is not None
        rows = sorted(
            (name, row) for name, row in self._all("settings").items() if name.startswith(found[1])
        )
        self.pool.on_money({name.removeprefix(found[1]): row.value for name, row in rows})
        return [
            {"name": n, "value": r.value, "stored_at": r.stored_at, "stored_by": r.stored_by}
            for n, r in rows
        ]

    def _lock_money(self, *_: Any) -> None:
        """Locked until the transaction's end."""

    def _lived_by(self, _: str, args: Sequence[Any]) -> list[Any]:
        me, within = args
        now = self.store.now()
        return [
            {"settings": row.settings}
            for key, row in self._all("presence").items()
            if row.kind == "daemon"
            and key != me
            and row.settings is not None
            and row.seen_at > now - within
        ]

    def _announce(self, _: str, args: Sequence[Any]) -> None:
        me, *_rest, settings = args
        old = self._one("presence", me) or Attendant("daemon", None, 0.0)
        self._put(
            "presence", me, replace(old, kind="daemon", settings=settings, seen_at=self.store.now())
        )

    def _leave_money(self, _: str, args: Sequence[Any]) -> None:
        if (old := self._one("presence", args[0])) is not None:
            self._put("presence", args[0], replace(old, settings=None))


PRESENT: dict[str, str] = {
    "SELECT n.name, c.oid IS NOT NULL AS is_there": "_own_tables",
    'WITH pruned AS (DELETE FROM "public"."order_monitor_presence"': "_tell",
    "WITH kept AS (SELECT utc_offset, database_offset": "_recall",
    "SELECT name, value, extract(epoch FROM stored_at)": "_money",
    "SELECT pg_advisory_xact_lock($1)": "_lock_money",
    'SELECT settings FROM "public"."order_monitor_presence"': "_lived_by",
    'INSERT INTO "public"."order_monitor_presence" (id, host, pid, kind, version, settings)': "_announce",
    'UPDATE "public"."order_monitor_presence" SET settings = NULL': "_leave_money",
}
"""The beginnings of the statements about these tables, and their handlers."""
