"""Which order owns a code: a code belongs to one order of a login, which the primary key of our
table enforces.

A cache at the provider, or a proxy that mixes up connections, may give order B the answer of order
A, and nothing in the answer shows it. So a code is claimed for its order in the transaction that
stores it, across any number of processes; a rollback removes the claim. Only a keyed digest of the
code is stored.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import Final

from order_monitor.core.pin import Pin, guarded_code, has_words_beside
from order_monitor.shop.database import Connection
from order_monitor.shop.schema.columns import Table, qualified
from order_monitor.shop.schema.table_config import PINS, dispatches_of, events_of, settings_of
from order_monitor.shop.writing.dispatches import root_sql

WORDS_APART: Final = "\x1f"
"""Separates the columns of an order's row."""

TEXT_AFTER: Final = 3
"""How many orders of a login must bring the same words and code to make it a text, not a code."""

SHARED: Final = "shared codes "
"""Prefix of the marks for packages whose orders share their codes."""


@dataclass(frozen=True, slots=True)
class Claim:
    """One order's claim on the code of its PIN.

    ``root`` is the first order of its chain; orders of one chain count as one owner. ``is_text``:
    there are words next to the code, so that it may turn out to be a text. ``same_as`` is the order
    that, according to a person, rightly has the same code.
    """

    order_id: str
    root: str
    logins: tuple[str, ...]
    digest: bytes
    is_text: bool = False
    is_shared: bool = False
    same_as: str | None = None


class Codes:
    """The codes table that belongs to the orders ``table``."""

    def __init__(self, table: Table, schema: str, key: bytes) -> None:
        """Digest codes with ``key``."""
        self._orders = table
        self._schema = schema
        self._key = key
        self._table = qualified(schema, PINS)

    def digest(self, pin: Pin, own: str) -> bytes | None:
        """Return the digest of a PIN's code, if any; ``own`` is the row's other text."""
        code = guarded_code(pin.reveal(), own.split(WORDS_APART))
        if code is None:
            return None
        return blake2b(
            code.encode("utf-8", "surrogatepass"), key=self._key, digest_size=16
        ).digest()

    def is_text(self, pin: Pin) -> bool:
        """Whether there are words next to the code."""
        return has_words_beside(pin.reveal())

    async def take_over(self, connection: Connection, claims: Sequence[Claim]) -> int:
        """Claim the codes that belong to no order yet; return of how many orders."""
        return len(set(await self._take(connection, _wanted(claims))))

    async def _take(
        self, connection: Connection, wanted: Sequence[tuple[str, bytes, str]]
    ) -> list[str]:
        """Claim codes that belong to no order yet; return the order of each."""
        if not wanted:
            return []
        rows = await connection.fetch(
            f"INSERT INTO {self._table} (login, digest, order_id) SELECT u.login, u.digest, u.id{self._orders['id'].cast} "
            "FROM unnest($1::text[], $2::bytea[], $3::text[]) WITH ORDINALITY AS u(login, digest, id, n) ORDER BY u.n "
            "ON CONFLICT DO NOTHING RETURNING order_id::text AS id",
            *(list(column) for column in zip(*wanted, strict=True)),
        )
        return [row["id"] for row in rows]

    async def claim(self, connection: Connection, claims: Sequence[Claim]) -> dict[str, str]:
        """Claim codes for their orders; return orders whose code is another's, with that one."""
        wanted = _wanted(claims)
        if len(await self._take(connection, wanted)) == len(wanted):
            return {}  # As usual: no order had any of them before.
        codes = sorted({(login, digest) for login, digest, _ in wanted})
        columns = [list(column) for column in zip(*codes, strict=True)]
        rows = await connection.fetch(
            f"SELECT p.login, p.digest, p.order_id::text AS id, p.seen_in::text[] AS seen_in, {self._root()} AS root "
            f"FROM {self._table} p JOIN (SELECT DISTINCT * FROM unnest($1::text[], $2::bytea[]) AS u(login, digest)) u "
            "ON p.login = u.login AND p.digest = u.digest",
            *columns,
        )
        owners = {(row["login"], bytes(row["digest"])): row for row in rows}
        refused: dict[str, str] = {}
        for one in claims:
            for login in one.logins:
                owner = owners[login, one.digest]
                is_own = (
                    owner["id"] in (one.order_id, one.same_as)
                    or owner["root"] == one.root
                    or one.is_shared
                )
                if is_own or (
                    one.is_text
                    and await self._is_text_by_now(connection, login, one, owner["seen_in"])
                ):
                    continue
                refused[one.order_id] = owner["id"]
        return refused

    def _root(self) -> str:
        t = self._orders
        if t.get("root_order_id") is None:
            return "p.order_id::text"
        return f"COALESCE((SELECT {root_sql(t, 'o')} FROM {t.sql} o WHERE o.{t['id'].sql} = p.order_id), p.order_id::text)"

    async def _is_text_by_now(
        self, connection: Connection, login: str, one: Claim, seen: Sequence[str]
    ) -> bool:
        """Record that one more order brought these words; return whether enough have."""
        others = {*seen, one.order_id}
        if len(others) > len(seen):
            await connection.execute(
                f"UPDATE {self._table} SET seen_in = seen_in || $3::text{self._orders['id'].cast} "
                f"WHERE login = $1 AND digest = $2 AND NOT $3::text{self._orders['id'].cast} = ANY(seen_in)",
                login,
                one.digest,
                one.order_id,
            )
        return len(others) + 1 >= TEXT_AFTER

    async def claimed(self, connection: Connection, ids: Sequence[str]) -> dict[str, set[bytes]]:
        """Return the digests of the codes that belong to these orders."""
        rows = await connection.fetch(
            f"SELECT p.order_id::text AS id, p.digest FROM {self._table} p "
            f"WHERE p.order_id = ANY($1::text[]{self._orders['id'].cast}[])",
            list(ids),
        )
        found: dict[str, set[bytes]] = {}
        for row in rows:
            found.setdefault(row["id"], set()).add(bytes(row["digest"]))
        return found

    async def claimed_under(
        self, connection: Connection, references: Sequence[str]
    ) -> dict[str, set[bytes]]:
        """Return the digests of the codes of all orders that were sent under these references."""
        rows = await connection.fetch(
            f"SELECT DISTINCT d.reference, p.digest FROM {dispatches_of(self._schema)} d "
            f"JOIN {self._table} p ON p.order_id = d.order_id WHERE d.reference = ANY($1::text[])",
            sorted(set(references)),
        )
        found: dict[str, set[bytes]] = {}
        for row in rows:
            found.setdefault(row["reference"], set()).add(bytes(row["digest"]))
        return found

    async def given(self, connection: Connection, ids: Sequence[str]) -> set[str]:
        """Return the orders that were given a PIN before, according to claims and events."""
        cast = self._orders["id"].cast
        rows = await connection.fetch(
            f"SELECT u.id FROM unnest($1::text[]) AS u(id) WHERE EXISTS (SELECT FROM {self._table} p "
            f"WHERE p.order_id = u.id{cast}) OR EXISTS (SELECT FROM {events_of(self._schema)} e "
            f"WHERE e.order_id = u.id{cast} AND e.has_pin)",
            list(ids),
        )
        return {row["id"] for row in rows}

    async def brought(self, connection: Connection, digests: Mapping[str, bytes]) -> set[str]:
        """Return the orders that had this code, and no other, from another dispatch of theirs."""
        cast = self._orders["id"].cast
        rows = await connection.fetch(
            f"SELECT DISTINCT u.id FROM unnest($1::text[], $2::bytea[]) AS u(id, digest) JOIN {self._table} p "
            f"ON p.order_id = u.id{cast} AND p.digest = u.digest AND p.claimed_at < now() "
            f"WHERE NOT EXISTS (SELECT FROM {self._table} q WHERE q.order_id = u.id{cast} AND q.digest <> u.digest)",
            list(digests),
            list(digests.values()),
        )
        return {row["id"] for row in rows}

    async def shared(self, connection: Connection) -> frozenset[str]:
        """Return the packages whose orders share their codes, as set by a person."""
        rows = await connection.fetch(
            f"SELECT name FROM {settings_of(self._schema)} WHERE name LIKE '{SHARED}%'"
        )
        return frozenset(row["name"].removeprefix(SHARED) for row in rows)


def _wanted(claims: Iterable[Claim]) -> list[tuple[str, bytes, str]]:
    """Return the rows that claims would add: login, digest and order."""
    return sorted({(login, c.digest, c.order_id) for c in claims for login in c.logins})


def names(packages: Iterable[str]) -> list[str]:
    """Return the mark names of packages."""
    return [f"{SHARED}{package}" for package in packages]
