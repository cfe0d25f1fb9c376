"""Replays a run's statements on the model shop against a real PostgreSQL, one at a time, and
reports differences.

The server's clock is the run's: functions of the same names precede PostgreSQL's own in the search
path. There, ``now()`` is the time of the statement, as in the model, not of the transaction. Not
replayed:

- errors caused by timing or chance (a deadlock, a lock that was not available, a timeout): the
  statement is skipped, and its transaction is rolled back as it was;
- statements about the tables' structure, which the model does not have;
- PostgreSQL's random values, and the order in which a statement without ORDER BY returns or numbers
  its rows: rows are compared as a set, and events get the model's numbers;
- waiting for a lock: a statement is replayed when the model executed it, after the other's end. One
  that would wait then is a difference.
"""

import json
import re
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any

import asyncpg

from order_monitor.shop.database import Database
from order_monitor.shop.dsn import parse_dsn
from order_monitor.shop.migration import Migration
from order_monitor.watch.system_clock import SystemClock
from tests.simulation.shop import FINAL, OPEN
from tests.simulation.tape import NOT_REPLAYED, Hand, State, TapeEntry
from tests.support.shops import LAYOUT

SHAPE = ("_columns", "_is_table", "_own_tables", "_unknown")
"""Statements about the tables' structure."""

_LIMIT = "2s"
"""The time a replayed statement may wait for a lock: none should wait at all."""

_MICROSECONDS = 2e-5
"""Seconds by which two times may differ that both sides computed."""

_ORDER = re.compile(r"order-([0-9]+)")
_UUID = re.compile(r"00000000-0000-0000-0000-([0-9]{12})")

TABLE = """
CREATE TABLE product_orders (id uuid PRIMARY KEY, external_status text, sent_at timestamptz, pin_code text, note text,
    provider_referans text, package_id text, provider_id text, last_sync_at timestamptz, external_order_id text,
    root_order_id uuid, chain_path text, status text);
CREATE INDEX ON product_orders (provider_referans);
CREATE TABLE package_routing (id text, tenant_id text, package_id text, primary_provider_id text);
CREATE TABLE integrations (id text PRIMARY KEY, tenant_id text, name text, provider text, base_url text, kod text, sifre text,
    enabled boolean NOT NULL);
"""

CLOCK = """
CREATE SCHEMA sim;
CREATE FUNCTION sim.clock_timestamp() RETURNS timestamptz LANGUAGE sql VOLATILE AS
    $$ SELECT to_timestamp(current_setting('sim.now')::float8) $$;
CREATE FUNCTION sim.now() RETURNS timestamptz LANGUAGE sql STABLE AS
    $$ SELECT to_timestamp(current_setting('sim.now')::float8) $$;
CREATE FUNCTION sim.statement_timestamp() RETURNS timestamptz LANGUAGE sql STABLE AS
    $$ SELECT to_timestamp(current_setting('sim.now')::float8) $$;
"""

TRIGGERS = f"""
CREATE TABLE sim.made_of (id uuid PRIMARY KEY, kind text NOT NULL);
CREATE FUNCTION sim.rewrite() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE made text := (SELECT kind FROM sim.made_of m WHERE m.id = NEW.id);
BEGIN
    IF made IS NULL OR current_setting('sim.hand', true) = 'yes' OR OLD.external_status = ANY('{{{",".join(FINAL)}}}')
        AND NEW.external_status = ANY('{{{",".join(OPEN)}}}') THEN
        RETURN NEW;
    END IF;
    IF made = 'refuse' THEN RAISE 'no'; END IF;
    IF made = 'nothing' THEN RETURN NULL; END IF;
    IF made = 'open' AND NEW.external_status = ANY('{{{",".join(FINAL)}}}') THEN
        NEW.external_status := OLD.external_status;
    END IF;
    IF made = 'no pin' THEN NEW.pin_code := OLD.pin_code; END IF;
    IF made = 'delivered' AND NEW.external_status = 'completed' THEN NEW.external_status := 'delivered'; END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER rewrite BEFORE UPDATE OF external_status, pin_code ON product_orders FOR EACH ROW EXECUTE FUNCTION sim.rewrite();
"""

STATE = {
    "orders": "SELECT id::text, external_status, extract(epoch FROM sent_at)::float8, provider_referans, provider_id, pin_code, "
    "note, extract(epoch FROM last_sync_at)::float8 FROM product_orders",
    "events": "SELECT id, order_id::text, from_status, to_status, has_pin, message, checks, decided_by, repeat, outcome, source, "
    "cause, account, reference, consumed_at IS NOT NULL, extract(epoch FROM decided_at)::float8 FROM order_monitor_events",
    "deliveries": "SELECT event_id, order_id::text, attempts, delivered_at IS NOT NULL, dead_at IS NOT NULL "
    "FROM order_monitor_deliveries",
    "reviews": "SELECT order_id::text, kind, extract(epoch FROM opened_at)::float8 FROM order_monitor_review "
    "WHERE closed_at IS NULL",
    "dispatches": "SELECT order_id::text, account, reference, extract(epoch FROM sent_at)::float8, login, touched, meant_by, "
    "extract(epoch FROM found_at)::float8, extract(epoch FROM first_understood_at)::float8, "
    "extract(epoch FROM first_odd_at)::float8 FROM order_monitor_dispatches",
    "pins": "SELECT login, digest, order_id::text FROM order_monitor_pins",
    "settings": "SELECT name, value FROM order_monitor_settings",
    "presence": "SELECT id, kind, settings, extract(epoch FROM seen_at)::float8 FROM order_monitor_presence",
    "pauses": "SELECT account FROM order_monitor_pauses WHERE until IS NULL OR until > sim.now()",
    "timing": "SELECT account, package, sketch FROM order_monitor_timing WHERE sketch <> ''",
}


class Replay:
    """A PostgreSQL that executes the entries of a tape."""

    def __init__(self, dsn: str) -> None:
        """Replay into the empty database at ``dsn``, as a superuser."""
        self._dsn = dsn
        self._free: list[asyncpg.Connection] = []
        self._busy: dict[int, asyncpg.Connection] = {}
        self.differences: list[str] = []
        self.done: Counter[str] = Counter()
        """The number of replayed statements, by their handler in the model."""
        self.left_out: Counter[str] = Counter()

    async def prepare(self) -> None:
        """Create the tables, with a settable clock."""
        self._hand = await asyncpg.connect(self._dsn)
        name = await self._hand.fetchval("SELECT current_database()")
        await self._hand.execute(
            f"{CLOCK} ALTER DATABASE {name} SET search_path = sim, pg_catalog, public; "
            f"ALTER DATABASE {name} SET sim.now = '0'; ALTER DATABASE {name} SET timezone = 'UTC'"
        )
        await self._hand.execute(f"SET search_path = public; {TABLE}")
        database = Database(parse_dsn(self._dsn))
        try:
            _ = [line async for line in Migration(database, LAYOUT, SystemClock()).apply()]
        finally:
            await database.close()
        await self._hand.execute(
            f"{TRIGGERS} DELETE FROM order_monitor_settings; ALTER TABLE order_monitor_events ALTER id SET GENERATED BY DEFAULT; "
            "ALTER TABLE order_monitor_deliveries DROP CONSTRAINT order_monitor_deliveries_event_id_fkey; "
            f"SET sim.hand = 'yes'; SET lock_timeout = '{_LIMIT}'"
        )
        self._locker = await self._connect()

    async def _connect(self) -> asyncpg.Connection:
        made = await asyncpg.connect(self._dsn)
        await made.execute(f"SET lock_timeout = '{_LIMIT}'; SET sim.hand = 'no'")
        return made

    async def close(self) -> None:
        """Close every connection."""
        for one in (self._hand, self._locker, *self._free, *self._busy.values()):
            await one.close()

    async def play(self, entries: Sequence[TapeEntry], most: int = 5) -> None:
        """Replay all entries, or as many as give ``most`` differences."""
        for number, entry in enumerate(entries):
            if len(self.differences) >= most:
                return
            try:
                await self._do(entry)
            except asyncpg.PostgresError as error:
                self._differs(entry, f"raised {type(error).__name__}: {error}")
            if self.differences and not self.differences[-1].startswith("at entry"):
                self.differences[-1] = f"at entry {number}: {self.differences[-1]}"

    async def _do(self, entry: TapeEntry) -> None:
        if entry.kind == "hand":
            assert entry.hand is not None
            await self._by_hand(entry.hand, entry.at)
        elif entry.kind == "end":
            assert entry.state is not None
            await self._compare_state(entry.state, entry.at)
        elif entry.kind == "begin":
            connection = self._free.pop() if self._free else await self._connect()
            self._busy[entry.connection] = connection
            await connection.execute("BEGIN")
        elif entry.kind in ("commit", "rollback"):
            connection = self._busy.pop(entry.connection)
            await connection.execute(entry.kind.upper())
            self._free.append(connection)
            if entry.state is not None:
                await self._compare_state(entry.state, entry.at)
        elif entry.name in SHAPE or isinstance(entry.error, NOT_REPLAYED):
            self.left_out[entry.name] += 1
        else:
            await self._statement(self._busy[entry.connection], entry)

    async def _statement(self, connection: asyncpg.Connection, entry: TapeEntry) -> None:
        self.done[entry.name] += 1
        await connection.execute("SELECT set_config('sim.now', $1, false)", repr(entry.at))
        if entry.name in ("_update", "_late_update", "_note_reopening"):
            await connection.execute(
                "SELECT setval('order_monitor_events_id_seq', GREATEST($1::bigint, 1), $1::bigint > 0)",
                entry.events,
            )
        try:
            statement = await connection.prepare(entry.sql)
            rows = await statement.fetch(*map(_into, entry.args))
        except asyncpg.PostgresError as error:
            if entry.error is None or type(error) is not type(entry.error):
                self._differs(entry, f"raised {type(error).__name__}: {error}")
            return
        if entry.error is not None:
            self._differs(entry, f"did not raise {type(entry.error).__name__}")
            return
        if entry.name in ("_update", "_late_update"):
            await self._renumber(connection, entry, rows)
        found = [dict(row) for row in rows]
        if entry.result and not statement.get_attributes():
            # For a statement that returns nothing, the model gives what it has changed, if that is
            # wanted.
            changed = (statement.get_statusmsg() or "").split(" ")[-1]
            found = [{}] * (int(changed) if changed.isdigit() else 0)
        if found or statement.get_attributes():
            self._compare(entry, found)

    async def _renumber(
        self, connection: asyncpg.Connection, entry: TapeEntry, rows: Sequence[asyncpg.Record]
    ) -> None:
        """Give events the numbers of the model: within one statement PostgreSQL numbers them in any
        order.
        """
        wanted = {_into(row["id"]): row["event_id"] for row in entry.result}
        new = {
            row["event_id"]: wanted.get(row["id"]) for row in rows if row["event_id"] is not None
        }
        moved = {old: number for old, number in new.items() if number is not None and number != old}
        if not moved:
            return
        moves = "FROM unnest($1::bigint[], $2::bigint[]) AS u(old, new)"
        for table, column in (
            ("order_monitor_events", "id"),
            ("order_monitor_deliveries", "event_id"),
        ):
            # In two steps: numbers are swapped, and must stay unique.
            for one in (
                f"UPDATE {table} t SET {column} = -u.new {moves} WHERE t.{column} = u.old",
                f"UPDATE {table} t SET {column} = u.new {moves} WHERE t.{column} = -u.new",
            ):
                await connection.execute(one, list(moved), list(moved.values()))

    def _compare(self, entry: TapeEntry, real: list[dict[str, Any]]) -> None:
        model = list(entry.result)
        if _is_later_page(entry) or entry.name in UNTOLD or (real and not model and not real[0]):
            return
        if len(real) != len(model):
            self._differs(
                entry,
                f"gave {len(real)} rows and not {len(model)}: {_short(real)} / {_short(model)}",
            )
            return
        if not model or not all(isinstance(row, dict) for row in model):
            return
        unseen = {*UNSEEN.get(entry.name, ()), *(("event_id",) if len(model) > 1 else ())}
        names = [name for name in model[0] if name not in unseen]
        if real[0] and entry.name in ONE_VALUE:
            real = [dict.fromkeys(model[0], next(iter(row.values()))) for row in real]
        if missing := [name for name in names if real[0] and name not in real[0]]:
            self._differs(entry, f"has no column {missing}: it has {sorted(real[0])}")
        elif real[0]:
            only, lacks = _unlike(
                [[row[n] for n in names] for row in real],
                [[row[n] for n in names] for row in model],
            )
            if only or lacks:
                self._differs(entry, f"gave {names} {_short(only)}, and the model {_short(lacks)}")

    async def _compare_state(self, model: State, at: float) -> None:
        """Compare all tables, row by row."""
        await self._hand.execute("SELECT set_config('sim.now', $1, false)", repr(at))
        for name, sql in STATE.items():
            only, lacks = _unlike([tuple(row) for row in await self._hand.fetch(sql)], model[name])
            if only or lacks:
                self.differences.append(
                    f"{name} in PostgreSQL alone {_short(only)}, in the model {_short(lacks)}"
                )

    # --- the shop's own hand

    async def _by_hand(self, hand: Hand, at: float) -> None:
        await self._hand.execute("SELECT set_config('sim.now', $1, false)", repr(at))
        for order_id, row in hand.rows.items():
            await self._hand.execute(
                "DELETE FROM product_orders WHERE id = $1::text::uuid", _into(order_id)
            ) if row is None else (await self._put(order_id, row))
        for key, login in hand.logins.items():
            await self._hand.execute("DELETE FROM integrations WHERE id = $1", key)
            if login is not None:
                await self._hand.execute(
                    "INSERT INTO integrations (id, name, provider, base_url, kod, sifre, enabled) VALUES ($1,$2,$3,$4,$5,$6,$7)",
                    *(
                        key,
                        login.name,
                        login.provider,
                        login.address,
                        login.kod,
                        login.sifre,
                        login.enabled,
                    ),
                )
        for name, setting in hand.settings.items():
            await self._hand.execute("DELETE FROM order_monitor_settings WHERE name = $1", name)
            if setting is not None:
                await self._hand.execute(
                    "INSERT INTO order_monitor_settings (name, value, stored_at) VALUES ($1, $2, to_timestamp($3::float8))",
                    *(name, setting.value, setting.stored_at),
                )
        for (account, package), sketch in hand.sketches.items():
            await self._hand.execute(
                "INSERT INTO order_monitor_timing (account, package, sketch) VALUES ($1, $2, $3) ON CONFLICT DO NOTHING",
                *(account, package, sketch or ""),
            )
        for event_id, consumed_at in hand.consumed.items():
            await self._hand.execute(
                "UPDATE order_monitor_events SET consumed_at = to_timestamp($2::float8) WHERE id = $1",
                event_id,
                consumed_at,
            )
        if hand.triggers is not None:
            await self._hand.execute("DELETE FROM sim.made_of")
            await self._hand.executemany(
                "INSERT INTO sim.made_of VALUES ($1::text::uuid, $2)",
                [(_into(i), kind) for i, kind in hand.triggers.items()],
            )
        if hand.locked is not None:
            with suppress(asyncpg.NoActiveSQLTransactionError):
                await self._locker.execute("ROLLBACK")
            await self._locker.execute("BEGIN")
            await self._locker.fetch(
                "SELECT FROM product_orders WHERE id = ANY($1::text[]::uuid[]) FOR UPDATE",
                [_into(i) for i in hand.locked],
            )

    async def _put(self, order_id: str, row: Any) -> None:
        await self._hand.execute(
            "INSERT INTO product_orders (id, external_status, sent_at, pin_code, note, provider_referans, package_id, provider_id, "
            "last_sync_at, external_order_id, root_order_id, chain_path, status) VALUES ($1::text::uuid, $2, "
            "to_timestamp($3::float8), $4, $5, $6, $7, $8, to_timestamp($9::float8), $10, $11::text::uuid, $12, $13) "
            "ON CONFLICT (id) DO UPDATE SET (external_status, sent_at, pin_code, note, provider_referans, package_id, provider_id, "
            "last_sync_at, external_order_id, root_order_id, chain_path, status) = ROW (EXCLUDED.external_status, "
            "EXCLUDED.sent_at, EXCLUDED.pin_code, EXCLUDED.note, EXCLUDED.provider_referans, EXCLUDED.package_id, "
            "EXCLUDED.provider_id, EXCLUDED.last_sync_at, EXCLUDED.external_order_id, EXCLUDED.root_order_id, "
            "EXCLUDED.chain_path, EXCLUDED.status)",
            *(
                _into(order_id),
                row.status,
                row.sent_at,
                row.pin,
                row.note,
                _into(row.reference),
                row.package,
                row.account,
            ),
            row.last_sync_at,
            _into(row.external),
            _into(row.root),
            _ORDER.sub(lambda found: _into(found[0]), row.path) if row.path else None,
            row.shop_status,
        )

    def _differs(self, entry: TapeEntry, how: str) -> None:
        self.differences.append(
            f"{entry.name or entry.kind} {how} ({entry.sql.strip()[:90]} {_short(entry.args)})"
        )


UNTOLD = ("_nothing", "_prune", "_lock_logins", "_lock_money", "_time")
"""Statements whose result is unused, or is the clock."""

ONE_VALUE = (
    "_newest",
    "_count_with_pin",
    "_add_mark",
    "_withdraw_new",
    "_withdraw_delivery",
)
"""Statements that return one value, under any name."""

UNSEEN: dict[str, tuple[str, ...]] = {
    "_oldest_reviews": ("detail",),
    "_count_apart": ("took",),
    "_pauses": ("since", "reason", "paused_by"),
    "_held_pins": ("number",),
    "_claim": ("event",),
    "_last_event": ("taken",),
}
"""What the model does not compute."""


def _is_later_page(entry: TapeEntry) -> bool:
    """Whether rows from a number on are read: the model numbers reviews in its own way."""
    return entry.name == "_held_pins" and isinstance(entry.args[0], int) and entry.args[0] > 0


def _into(value: Any) -> Any:
    """Convert a parameter to PostgreSQL: the model's orders have no uuid."""
    if isinstance(value, list | tuple):
        return [_into(one) for one in value]
    if isinstance(value, str) and (found := _ORDER.fullmatch(value)):
        return f"00000000-0000-0000-0000-{int(found[1]):012}"
    return value


def _back(value: Any) -> Any:
    """Convert a value from PostgreSQL."""
    if isinstance(value, list | tuple):
        return [_back(one) for one in value]
    return (
        _UUID.sub(lambda found: f"order-{int(found[1])}", value)
        if isinstance(value, str)
        else value
    )


def _unlike(
    real: Sequence[Sequence[Any]], model: Sequence[Sequence[Any]]
) -> tuple[list[Any], list[Any]]:
    """Return the rows that only the first has, and those that only the second has, in any order."""
    others = sorted(([_plain(value) for value in row] for row in model), key=repr)
    only = []
    for row in sorted(([_plain(_back(value)) for value in row] for row in real), key=repr):
        found = next((other for other in others if _is_same(row, other)), None)
        if found is None:
            only.append(row)
        else:
            others.remove(found)
    return only, others


def _plain(value: Any) -> Any:
    if isinstance(value, datetime):
        return value.astimezone(UTC).timestamp()
    if isinstance(value, tuple | list):
        return [_plain(one) for one in value]
    return str(value) if isinstance(value, str) else value


def _is_same(one: Any, other: Any) -> bool:
    """Whether two values are equal: PostgreSQL rounds times to microseconds."""
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(_is_same, one, other))
    if isinstance(one, float) and isinstance(other, float):
        return one == other or abs(one - other) < _MICROSECONDS
    return bool(one == other)


def _short(what: Any) -> str:
    return json.dumps(what, default=str)[:300]
