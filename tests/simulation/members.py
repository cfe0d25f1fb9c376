"""The members of a cluster at the model shop: each has a session of its own, whose advisory locks
say which accounts it holds. And what must hold:

- a login is asked by no process while another one holds it, nor while a call of the one that gave
  it up is under way;
- events are posted by the leader alone;
- what an account owes is asked by some process, wherever the account moves (`tests.simulation.sight`).

A process can be frozen, as by SIGSTOP; its session can hang, as when the network is cut, or be
ended by the server.
"""

import asyncio
import itertools
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import asyncpg

from order_monitor.cluster.membership import IDLE_LIMIT, LEADER
from order_monitor.shop.database import Database, classify
from order_monitor.shop.dsn import Address
from order_monitor.shop.locks import lock_number

if TYPE_CHECKING:
    from tests.simulation.process import Process
    from tests.simulation.shop import Pool, Store
    from tests.simulation.world import World

SPACE = "public.product_orders"
"""What the members share."""

_BEGUN = 0.01
"""Seconds after it was frozen within which a process goes on with what it had begun."""

LOSES_AFTER = 6.0
"""Seconds after its session was ended within which a process has stopped to ask: its lease, and a
call that was about to begin.
"""


class Session:
    """A member's own connection, as the server sees it."""

    def __init__(self, store: "Store", pool: "Pool") -> None:
        self.pid = store.number_of("session")
        self.name = ""
        self.tokens: list[tuple[int, int]] = []
        self.keys: dict[int, float] = {}
        """The numbers of its locks, and since when it has them."""
        self.is_cut = False
        """Whether the network between the two is cut."""
        self._store = store
        self._pool = pool
        self._asked_at = self.began = store.now()
        self._ended_at: float | None = None

    @property
    def is_there(self) -> bool:
        """Whether the server keeps the session."""
        return self.ended_at is None

    @property
    def ended_at(self) -> float | None:
        """When the server ended the session, in epoch seconds; None if it has not."""
        if self._ended_at is None and self._store.now() - self._asked_at >= IDLE_LIMIT:
            self._ended_at = self._asked_at + IDLE_LIMIT
        return self._ended_at

    def end(self) -> None:
        """End it: its locks are free."""
        if self.is_there:
            self._ended_at = self._store.now()

    def close(self) -> None:
        """Close it from the client's side; the server hears nothing of that through a cut."""
        if not self.is_cut:
            self.end()

    def get_server_pid(self) -> int:
        return self.pid

    async def execute(self, sql: str) -> str:
        await self._reach()
        return sql

    async def fetchval(self, sql: str, *args: Any) -> Any:
        if sql.startswith("SHOW server_version_num"):
            return "160000"
        await self._reach()
        if sql == "SELECT pg_backend_pid()":
            return self.pid
        if "application_name" in sql:
            self.name = args[0]
        elif sql.startswith("SELECT pg_advisory_lock("):
            self.tokens.append((args[0], args[1]))
        else:
            msg = f"the model shop does not know this statement: {sql[:300]}"
            raise AssertionError(msg)
        return None

    async def fetch(self, sql: str, *args: Any) -> list[dict[str, Any]]:
        await self._reach()
        found = self._fetched(sql, args)
        # The answer is on its way: a frozen process reads it later.
        await asyncio.sleep(self._store.chance.uniform(0.001, 0.2))
        return found

    def _fetched(self, sql: str, args: Sequence[Any]) -> list[dict[str, Any]]:
        if "pg_try_advisory_lock" in sql:
            held = {
                number for one in self._store.members() for number in one.keys if one is not self
            }
            taken = [number for number in args[0] if number not in held]
            self.keys |= {n: self._store.now() for n in taken if n not in self.keys}
            return [{"n": number} for number in taken]
        if "pg_advisory_unlock" in sql:
            for number in args[0]:
                self.keys.pop(number, None)
            return []
        assert sql.lstrip().startswith("WITH held AS MATERIALIZED"), sql[:300]
        return [
            {
                "pid": one.pid,
                "is_me": one is self,
                "tokens": [token for mark, token in one.tokens if mark == args[0]],
                "name": one.name,
                "keys": sorted(one.keys),
                "has_older": False,
            }
            for one in self._store.members()
            if one.tokens
        ]

    async def _reach(self) -> None:
        """Wait for the server, which then knows that this session lives."""
        if self.is_cut:
            await asyncio.sleep(3600)
        await self._pool.pause()
        if not self.is_there:
            raise ConnectionResetError("the server has closed the session")
        self._asked_at = self._store.now()


class ModelDatabase(Database):
    """A database whose connections are the model's."""

    def __init__(self, pool: "Pool") -> None:
        """Lend the connections of ``pool``."""
        super().__init__(
            Address(("model",), (1,), "u", None, "d"), statement_timeout=30.0, pool=pool
        )
        self._model = pool

    @asynccontextmanager
    async def plain(self) -> AsyncIterator[Session]:
        """Lend a member's session.

        Raises:
            ShopError: as of the real one.
        """
        try:
            session = self._model.join()
            try:
                yield session
            finally:
                session.close()
        except (OSError, asyncpg.PostgresError) as error:
            raise classify(error) from None


class Members:
    """Checks who asks whom, in a world whose daemons share the accounts."""

    def __init__(self, world: "World") -> None:
        self._world = world
        self._calls: dict[int, tuple[Process, str, float]] = {}
        """The calls under way: who asks which login, and since when."""
        self._numbers = itertools.count()

    def begin(self, process: "Process", account: str) -> int:
        """A call begins; return its number, for its end."""
        number = next(self._numbers)
        known = process.engine.accounts.get(account)
        if process.cluster is None or known is None:
            return number
        self._look_for_holder(process, known.login, f"asked {account}")
        now = self._world.store.now()
        for other, login, since in self._calls.values():
            is_given = login == known.login and other is not process and self._stays(other, since)
            what = f"process {process.number} asked {account} {now - since:.1f} s after"
            self._world.check(
                not is_given, f"{what} process {other.number}, whose call is not over"
            )
        self._calls[number] = process, known.login, now
        return number

    def end(self, number: int) -> None:
        """A call has ended."""
        self._calls.pop(number, None)

    def post(self, process: "Process") -> None:
        """A process posts an event."""
        if process.cluster is not None:
            self._look_for_holder(process, LEADER, "posted an event")

    def _look_for_holder(self, process: "Process", key: str, what: str) -> None:
        store, lock = self._world.store, lock_number(SPACE, key)
        mine = process.pool.session
        if mine is not None and mine.is_there and lock in mine.keys:
            return
        if self._world.now() - process.steps.thawed_at < _BEGUN:
            return
        for session in store.members():
            if lock not in session.keys or session is mine:
                continue
            since = session.keys[lock]
            lost_at = mine.ended_at if mine is not None else None
            grace = LOSES_AFTER if lost_at is not None else 0.0
            held = store.now() - max(since, lost_at or 0.0)
            self._world.check(
                held <= grace,
                f"process {process.number} {what}, which another one has held for {held:.1f} s",
            )

    def _stays(self, process: "Process", since: float) -> bool:
        """Whether a process lives, and its session has, too, since then."""
        session = process.pool.session
        is_well = not process.is_dead and session is not None and session.is_there
        return is_well and session is not None and session.began <= since
