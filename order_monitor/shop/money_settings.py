"""The settings that decide about money, as they are in force for all processes of a shop: stored as
rows of our own table.

A process that writes an end must agree with what is stored; otherwise it writes none. A person can
replace the stored values (`order-monitor settings adopt`), and so can a daemon if no other running
daemon uses them: for example in a deployment that stops the old one and starts the new one.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import Final

from order_monitor.core.errors import ObservedError
from order_monitor.shop.database import Connection
from order_monitor.shop.locks import lock_of
from order_monitor.shop.marks import set_mark
from order_monitor.shop.presence import Ident
from order_monitor.shop.schema.columns import literal, qualified
from order_monitor.shop.schema.table_config import PRESENCE, settings_of

LIVES_FOR: Final = 60.0
"""Seconds after which a daemon that has not been seen counts as gone."""

OBSERVE: Final = "schedule.observe"
"""The key of the setting with which nothing is written: it decides for every process of the shop."""

OBSERVED: Final = (
    f"{OBSERVE} is in force for this shop, so nothing is written; start the daemon with "
    "observe = false, or run order-monitor settings adopt with it"
)
"""Why nothing is written while the mark stands, and how it is lifted."""

_PREFIX: Final = "money."
_ABSENT: Final = {OBSERVE: "false"}
"""What holds where a key is not stored, but others are: a version without it may be at work."""
_COUNT_DIGITS: Final = 2


@dataclass(frozen=True, slots=True)
class Difference:
    """A key whose stored value differs from this process's own."""

    key: str
    stored: str
    own: str

    def __str__(self) -> str:
        """Return the text used in every message."""
        return f"{self.key} is {self.own}, in force {self.stored}"


@dataclass(frozen=True, slots=True)
class Agreement:
    """The result of a comparison: ``added`` was not stored before, ``replaced`` was stored with
    another value, ``differing`` still has another value.
    """

    in_force: Mapping[str, str]
    added: tuple[str, ...] = ()
    replaced: tuple[Difference, ...] = ()
    differing: tuple[Difference, ...] = ()


@dataclass(frozen=True, slots=True)
class Kept:
    """A stored value, with the time (epoch seconds) and the author."""

    value: str
    stored_at: float
    stored_by: str | None = field(default=None)


def digest_of(values: Mapping[str, str]) -> str:
    """Return a short hex digest: the number of keys, and a hash of all values in order."""
    pairs = json.dumps(list(values.items()), ensure_ascii=False)
    return f"{len(values):0{_COUNT_DIGITS}x}{blake2b(pairs.encode(), digest_size=6).hexdigest()}"


def is_digest_of(digest: str, stored: Mapping[str, str], own: Mapping[str, str]) -> bool:
    """Whether the process that shows ``digest`` uses the ``stored`` values.

    ``own`` has the keys that this version knows, in order. Keys are only added at the end, so an
    older version's digest covers our first few keys. A newer version's digest cannot be checked and
    counts as true, so that nothing is taken from a daemon that may use the values.
    """
    try:
        count = int(digest[:_COUNT_DIGITS], 16)
    except ValueError:
        return True
    keys = list(own)[:count]
    return count > len(own) or digest == digest_of(
        {key: stored[key] for key in keys if key in stored}
    )


class MoneySettings:
    """The rows in a shop's schema."""

    def __init__(self, schema: str) -> None:
        """Work on the tables in ``schema``."""
        self._schema = schema
        self._presence = qualified(schema, PRESENCE)

    async def kept(self, connection: Connection) -> dict[str, Kept]:
        """Return what is stored, by key, including keys that only a newer version knows."""
        rows = await connection.fetch(
            "SELECT name, value, extract(epoch FROM stored_at)::float8 AS stored_at, stored_by "
            f"FROM {settings_of(self._schema)} WHERE starts_with(name, '{_PREFIX}') ORDER BY name"
        )
        return {
            r["name"].removeprefix(_PREFIX): Kept(r["value"], r["stored_at"], r["stored_by"])
            for r in rows
        }

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
        me: Ident | None = None,
    ) -> Agreement:
        """Compare ``own`` with what is stored; store what is missing and, with ``may_replace``,
        also what differs.

        A daemon, ``me``, replaces values only if no other running daemon uses the stored ones; if
        it agrees, it is visible as running from then on. Two processes never do this at the same
        time: the second one finds what the first has committed.
        """
        stored = await self.read(connection)
        if me is None and all(stored.get(key) == value for key, value in own.items()):
            return Agreement(stored)
        await connection.execute(
            "SELECT pg_advisory_xact_lock($1)", lock_of(f"order-monitor money {self._schema}")
        )
        stored = await self.read(connection)
        held = {**_ABSENT, **stored} if stored else {}
        differing = tuple(
            Difference(key, held[key], own[key])
            for key in own
            if held.get(key, own[key]) != own[key]
        )
        differs = {one.key for one in differing}
        added = tuple(key for key in own if key not in stored and key not in differs)
        is_free = (
            may_replace
            and bool(differing)
            and (me is None or not await self._is_lived_by(connection, stored, own, me))
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
        self, connection: Connection, stored: Mapping[str, str], own: Mapping[str, str], me: Ident
    ) -> bool:
        """Whether another running daemon uses the stored values.

        A running daemon with other settings than the stored ones is only waiting, as we are, and
        must not be waited for. Example: members A and B use a limit of 24 h, and both are changed
        to 12 h, one after the other.

        1. A is restarted: B runs with the stored 24 h, so A waits and asks nothing. B asks.
        2. B is restarted. Now A and B run with 12 h, and no daemon uses the stored 24 h. The first
           one that looks stores 12 h, the other one finds that it agrees, and both ask.

        If every running daemon counted, A would wait for B and B for A in step 2, without end.
        """
        rows = await connection.fetch(
            f"SELECT settings FROM {self._presence} WHERE kind = 'daemon' AND id <> $1 AND settings IS NOT NULL "
            "AND seen_at > clock_timestamp() - make_interval(secs => $2)",
            me.id,
            LIVES_FOR,
        )
        return any(is_digest_of(row["settings"], stored, own) for row in rows)

    async def _announce(self, connection: Connection, me: Ident, digest: str) -> None:
        """Become visible as soon as we agree: a daemon that looks next must not think us gone."""
        await connection.execute(
            f"INSERT INTO {self._presence} (id, host, pid, kind, version, settings) VALUES ($1, $2, $3, 'daemon', $4, $5) "
            "ON CONFLICT (id) DO UPDATE SET kind = EXCLUDED.kind, settings = EXCLUDED.settings, seen_at = clock_timestamp()",
            me.id,
            me.host,
            me.pid,
            me.version,
            digest,
        )

    async def leave(self, connection: Connection, me: Ident) -> None:
        """Stop using the values, so that the next process need not wait until we count as gone."""
        await connection.execute(
            f"UPDATE {self._presence} SET settings = NULL WHERE id = $1", me.id
        )


async def refuse_while_observed(connection: Connection, schema: str) -> None:
    """Let this transaction write only while no daemon observes.

    Whoever changes the mark waits for this transaction's end, and whoever writes after that sees
    it: no process needs to know of another.

    Raises:
        ObservedError: the mark stands.
    """
    value = await connection.fetchval(
        f"SELECT value FROM {settings_of(schema)} WHERE name = {literal(f'{_PREFIX}{OBSERVE}')} "
        "FOR SHARE"
    )
    if value == "true":
        raise ObservedError(OBSERVED)
