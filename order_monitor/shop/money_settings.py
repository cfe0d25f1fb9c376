"""The settings that decide money, as they are in force for all processes of a shop: kept as rows of our own table.

Whoever writes an end agrees with what is stored, or writes none. What is stored is replaced by a person (`order-monitor settings
adopt`), and by a daemon where no other daemon lives with what is stored: by a deploy that stops the old one and starts the new one.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import Final

from order_monitor.shop.columns import quoted
from order_monitor.shop.database import Connection
from order_monitor.shop.layout import PRESENCE, settings_of
from order_monitor.shop.marks import set_mark

LIVES_FOR: Final = 60.0
"""Seconds after which a daemon that has not been seen counts as gone."""

_PREFIX: Final = "money."
_COUNT_DIGITS: Final = 2


@dataclass(frozen=True, slots=True)
class Daemon:
    """A daemon, as the others see it: ``id`` is that of its row in the table of who is there."""

    id: str
    host: str
    pid: int
    version: str


@dataclass(frozen=True, slots=True)
class Difference:
    """A key whose stored value is not this process's own."""

    key: str
    stored: str
    own: str

    def __str__(self) -> str:
        """Say it as in every message."""
        return f"{self.key} is {self.own}, in force {self.stored}"


@dataclass(frozen=True, slots=True)
class Agreement:
    """What came of comparing: ``added`` was not stored yet, ``replaced`` was stored otherwise, ``differing`` still is."""

    in_force: Mapping[str, str]
    added: tuple[str, ...] = ()
    replaced: tuple[Difference, ...] = ()
    differing: tuple[Difference, ...] = ()


@dataclass(frozen=True, slots=True)
class Kept:
    """A stored value, when it was stored and by whom."""

    value: str
    stored_at: float
    stored_by: str | None = field(default=None)


def digest_of(values: Mapping[str, str]) -> str:
    """Return a short hex digest: how many keys these are, and a hash of all of them in their order."""
    pairs = json.dumps(list(values.items()), ensure_ascii=False)
    return f"{len(values):0{_COUNT_DIGITS}x}{blake2b(pairs.encode(), digest_size=6).hexdigest()}"


def is_digest_of(digest: str, stored: Mapping[str, str], own: Mapping[str, str]) -> bool:
    """Whether whoever shows ``digest`` goes by what is ``stored``; ``own`` has the keys that this version knows, in their order.

    Keys are only ever added at the end, so that an older version's digest is that of our first few. Of a newer version's it is
    not known, and it counts: nothing is taken from a daemon that may live by it.
    """
    try:
        count = int(digest[:_COUNT_DIGITS], 16)
    except ValueError:
        return True
    keys = list(own)[:count]
    return count > len(own) or digest == digest_of({key: stored[key] for key in keys if key in stored})


class MoneySettings:
    """The rows in a shop's schema."""

    def __init__(self, schema: str) -> None:
        """Work on the tables in ``schema``."""
        self._schema = schema
        self._presence = f"{quoted(schema)}.{quoted(PRESENCE)}"

    async def kept(self, connection: Connection) -> dict[str, Kept]:
        """Return what is stored, by key, also keys that only a newer version knows."""
        rows = await connection.fetch(
            "SELECT name, value, extract(epoch FROM stored_at)::float8 AS stored_at, stored_by "
            f"FROM {settings_of(self._schema)} WHERE starts_with(name, '{_PREFIX}') ORDER BY name"
        )
        return {r["name"].removeprefix(_PREFIX): Kept(r["value"], r["stored_at"], r["stored_by"]) for r in rows}

    async def read(self, connection: Connection) -> dict[str, str]:
        """Return the stored values, by key."""
        return {key: kept.value for key, kept in (await self.kept(connection)).items()}

    async def reconcile(
        self,
        connection: Connection,
        own: Mapping[str, str],
        *,
        by: str,
        may_replace: bool = False,
        me: Daemon | None = None,
    ) -> Agreement:
        """Compare ``own`` with what is stored, store what is not there yet, and where it ``may_replace`` also what differs.

        A daemon, ``me``, replaces only where no other lives with what is stored; it is seen to live from here on, where it
        agrees. Two processes never do this at the same time: the second one finds what the first has committed.
        """
        stored = await self.read(connection)
        if me is None and all(stored.get(key) == value for key, value in own.items()):
            return Agreement(stored)
        await connection.execute("SELECT pg_advisory_xact_lock($1)", _lock_of(self._schema))
        stored = await self.read(connection)
        added = tuple(key for key in own if key not in stored)
        differing = tuple(
            Difference(key, stored[key], own[key]) for key in own if stored.get(key, own[key]) != own[key]
        )
        is_free = (
            may_replace and bool(differing) and (me is None or not await self._is_lived_by(connection, stored, own, me))
        )
        for key in (*added, *(one.key for one in differing if is_free)):
            await set_mark(connection, self._schema, f"{_PREFIX}{key}", own[key], by)
        in_force = await self.read(connection)
        if me is not None and (is_free or not differing):
            await self._announce(connection, me, digest_of(own))
        if is_free:
            return Agreement(in_force, added, replaced=differing)
        return Agreement(in_force, added, differing=differing)

    async def _is_lived_by(
        self, connection: Connection, stored: Mapping[str, str], own: Mapping[str, str], me: Daemon
    ) -> bool:
        """Whether another daemon lives with what is stored.

        One that lives, but with other settings than the stored ones, only waits as we do, and must not be waited for. An example:
        members A and B go by a limit of 24 h, and both are to go by 12 h, one after the other.

        1. A is stopped and started: B lives with the stored 24 h, so A waits, and asks nothing. B asks.
        2. B is stopped and started. Now A lives, with 12 h, and B, with 12 h; nobody lives with the stored 24 h. Whoever looks
           first stores 12 h, the other one finds that it agrees, and both ask.

        If any daemon that lives counted, in step 2 A would wait for B and B for A, for ever.
        """
        rows = await connection.fetch(
            f"SELECT settings FROM {self._presence} WHERE kind = 'daemon' AND id <> $1 AND settings IS NOT NULL "
            "AND seen_at > clock_timestamp() - make_interval(secs => $2)",
            me.id,
            LIVES_FOR,
        )
        return any(is_digest_of(row["settings"], stored, own) for row in rows)

    async def _announce(self, connection: Connection, me: Daemon, digest: str) -> None:
        """Be seen from the very moment on in which we agree: a daemon that looks a moment later must not take us for gone."""
        await connection.execute(
            f"INSERT INTO {self._presence} (id, host, pid, kind, version, settings) VALUES ($1, $2, $3, 'daemon', $4, $5) "
            "ON CONFLICT (id) DO UPDATE SET kind = EXCLUDED.kind, settings = EXCLUDED.settings, seen_at = clock_timestamp()",
            me.id,
            me.host,
            me.pid,
            me.version,
            digest,
        )

    async def leave(self, connection: Connection, me: Daemon) -> None:
        """Live by them no more: whoever starts next need not wait until we count as gone."""
        await connection.execute(f"UPDATE {self._presence} SET settings = NULL WHERE id = $1", me.id)


def _lock_of(schema: str) -> int:
    """Return the number of the lock under which a schema's settings are compared and stored."""
    return int.from_bytes(blake2b(f"order-monitor money {schema}".encode(), digest_size=8).digest(), signed=True)
