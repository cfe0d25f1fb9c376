"""The brake in the shop's database: ends that are not believed at once are held. They are counted
in the transaction that would write them.

What is held, and since when, is in the reviews table; what releases it is stored as marks. So a
restart, the members of a cluster and runs from cron continue with the same state, and no two of
them count separately. Each login has a lock. It is taken before any row is locked, so that a
process waiting for it blocks no row. A process that has it does not wait for a row, because rows
locked by others are skipped, and codes are claimed only after it. So there are no deadlocks.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

from order_monitor.core.brake import LEAP, USUAL_DAYS, WINDOW, Ends, Evidence, trips
from order_monitor.core.check_result import WriteResult, WriteStatus
from order_monitor.core.decision import Rules, StuckReason
from order_monitor.core.outcome import FINAL, Cause, Outcome
from order_monitor.shop.accounts.logins import Logins
from order_monitor.shop.database import Connection, now_of
from order_monitor.shop.locks import lock_of
from order_monitor.shop.marks import set_mark
from order_monitor.shop.reviews import Reviews
from order_monitor.shop.schema.columns import Table, literal
from order_monitor.shop.schema.table_config import events_of, literals, settings_of
from order_monitor.shop.writing.event_sql import PROGRAM

KIND: Final = str(StuckReason.HELD_BY_BRAKE)
"""The kind of review under which an end is held."""

SHOWN: Final = 10_000
"""Maximum number of held orders read at a time, oldest first."""

_MARK: Final = "brake"
_RECENT: Final = 20_000
_USUAL: Final = 200_000
"""How many of the newest events are examined: the last minutes, and the days before."""

_HELD: Final = "more were cancelled or given up at once than this account's usual share"
_CANDIDATES: Final = 4
_REFUNDS: Final = tuple(outcome for outcome in FINAL if outcome.is_refund)
_COUNTED: Final = tuple(cause for cause in Cause if cause.is_counted)
_GOOD: Final = tuple(outcome for outcome in FINAL if not outcome.is_refund)


@dataclass(frozen=True, slots=True)
class Held:
    """An order whose end is held ``since`` then (epoch seconds); a person may have released it."""

    order_id: str
    account: str
    since: float
    is_released: bool = False


@dataclass(frozen=True, slots=True)
class Control:
    """An order that its account completed in the last day, and the reference to ask about."""

    order_id: str
    account: str
    reference: str


@dataclass(frozen=True, slots=True)
class Brake:
    """The brake of every login of one shop."""

    table: Table
    rules: Rules
    logins: Logins

    @property
    def is_on(self) -> bool:
        """Whether the settings enable the brake."""
        return self.rules.brake_hold > 0

    @property
    def _reviews(self) -> Reviews:
        return Reviews(self.table.schema)

    def login_of(self, account: str) -> str:
        """Return the login under which an account's ends are counted."""
        return self.logins.of(account)[0]

    async def lock(self, connection: Connection, accounts: Iterable[str]) -> None:
        """Lock these accounts' logins, so that no one else counts their ends until this transaction
        ends.

        Several locks are always taken in the same order.
        """
        logins = {self.login_of(account) for account in accounts}
        numbers = sorted({lock_of(f"{_MARK} {self.table.schema} {login}") for login in logins})
        if numbers:
            await connection.execute(
                "SELECT pg_advisory_xact_lock(n) FROM unnest($1::bigint[]) AS n", numbers
            )

    # --- in the transaction that writes

    async def hold(
        self, connection: Connection, results: Sequence[WriteResult], found_at: Mapping[str, float]
    ) -> list[WriteResult]:
        """Return the results, with ends that are not believed yet marked as held. The logins must
        be locked.

        ``found_at`` is when each dispatch was first recorded.
        """
        # What a child's end leads to was believed of the child already.
        results_of_own = [r for r in results if r.finding.child is None]
        ends = [r for r in results_of_own if self.is_on and is_end(r, refund=True)]
        if not ends:
            return list(results)
        held: set[str] = set()
        for login in sorted({self.login_of(r.finding.account) for r in ends}):
            own = [r for r in ends if self.login_of(r.finding.account) == login]
            completed = sum(
                is_end(r, refund=False) and self.login_of(r.finding.account) == login
                for r in results_of_own
            )
            held |= await self._held_of(connection, login, own, completed, found_at)
        return [
            r.kept_back(WriteStatus.HELD, StuckReason.HELD_BY_BRAKE, _HELD)
            if r.order_id in held
            else r
            for r in results
        ]

    async def _held_of(
        self,
        connection: Connection,
        login: str,
        ends: Sequence[WriteResult],
        completed: int,
        found_at: Mapping[str, float],
    ) -> set[str]:
        """Return the held ones of a login's ``ends``; ``completed`` counts the batch's others."""
        accounts = sorted({*self.logins.accounts_of(login), *(r.finding.account for r in ends)})
        now = await now_of(connection)
        stored = (await self.evidence(connection)).get(login, Evidence())
        evidence = stored.as_of(now)
        since = await self._since(connection, [r.order_id for r in ends])
        # What was held for the previous dispatch says nothing about this one and has another start.
        stale = {i for i, at in since.items() if at < found_at.get(i, at) <= now + LEAP}
        await self._begin_again(connection, stale, "sent anew")
        active = await self._count_active(connection, accounts, evidence, now)
        if active and evidence.tripped_at == Evidence().tripped_at:
            # They are held under a former login, as before a panel moved or a token was renewed.
            evidence = replace(evidence, tripped_at=now)
        if evidence.tripped_at != stored.tripped_at:
            await self.mark(connection, "tripped", login, now)
        # It would be held until the database's clock, which went back, is there again.
        ahead = {
            i for i, at in since.items() if at > now + LEAP and not evidence.is_released(at, now)
        } - stale
        await self._begin_again(connection, ahead, "begun again")
        # What releases the first ones releases the next ones too, unless they are a new flood.
        # Otherwise a shop in which something is cancelled every hour would have each one held
        # permanently.
        is_tripped = active > 0 and bool(
            evidence.lacks(evidence.tripped_at, now, self.rules.brake_hold)
        )
        passed = {
            i
            for i, at in since.items()
            if i not in stale | ahead and not evidence.lacks(at, now, self.rules.brake_hold)
        }
        fresh = {r.order_id for r in ends} - passed
        if not is_tripped:
            is_tripped = await self._trips(
                connection, accounts, Ends(completed, len(fresh)), now, evidence.counted_from
            )
            if is_tripped:
                await self.mark(connection, "tripped", login, now)
        if passed:
            # Released ends do not count towards the next flood.
            await self.mark(connection, "counted", login, now)
        return fresh if is_tripped else set()

    async def _begin_again(self, connection: Connection, ids: Iterable[str], why: str) -> None:
        """Close the rows of these held orders: if they are held now, that begins now."""
        await self._reviews.mend(connection, self.table, ((i, KIND) for i in ids), why)

    async def _count_active(
        self, connection: Connection, accounts: Sequence[str], evidence: Evidence, now: float
    ) -> int:
        """Return how many orders of these accounts are held and not released."""
        since = "extract(epoch FROM opened_at)::float8"
        was_before = f"($2::float8 <= $3::float8 OR {since} > $3::float8)"
        return int(
            await connection.fetchval(
                f"SELECT count(*) AS active FROM {self._reviews.sql} WHERE closed_at IS NULL "
                f"AND kind = {literal(KIND)} AND account = ANY($1::text[]) "
                f"AND NOT ({since} <= $2::float8 AND {was_before})",
                accounts,
                evidence.released_at,
                now + LEAP,
            )
        )

    async def _since(self, connection: Connection, ids: Sequence[str]) -> dict[str, float]:
        rows = await connection.fetch(
            f"SELECT r.order_id::text AS id, extract(epoch FROM opened_at)::float8 AS since FROM {self._reviews.sql} r "
            f"WHERE closed_at IS NULL AND kind = {literal(KIND)} AND order_id = ANY($1::text[]{self.table['id'].cast}[])",
            list(ids),
        )
        return {row["id"]: row["since"] for row in rows}

    async def _trips(
        self,
        connection: Connection,
        accounts: Sequence[str],
        batch: Ends,
        now: float,
        counted_from: float,
    ) -> bool:
        recent = batch + await self._count(
            connection, accounts, max(now - WINDOW, counted_from), now, _RECENT
        )
        if not recent.may_trip:
            return False
        start = now - WINDOW
        return trips(
            recent,
            await self._count(connection, accounts, start - USUAL_DAYS * 86_400, start, _USUAL),
        )

    async def _count(
        self, connection: Connection, accounts: Sequence[str], after: float, until: float, most: int
    ) -> Ends:
        """Count orders ended by an answer or their age between two times (epoch seconds)."""
        row = await connection.fetchrow(
            f"SELECT count(*) FILTER (WHERE e.outcome IN ({literals(_GOOD)})) AS completed, "
            f"count(*) FILTER (WHERE e.outcome IN ({literals(_REFUNDS)})) AS failed "
            f"FROM (SELECT * FROM {events_of(self.table.schema)} ORDER BY id DESC LIMIT {most}) e "
            "WHERE e.account = ANY($1::text[]) AND extract(epoch FROM e.decided_at)::float8 > $2::float8 "
            f"AND extract(epoch FROM e.decided_at)::float8 <= $3::float8 AND e.source = {literal(PROGRAM)} "
            f"AND e.cause IN ({literals(_COUNTED)}) AND NOT e.repeat",
            accounts,
            after,
            until,
        )
        assert row is not None
        return Ends(row["completed"], row["failed"])

    # --- state shared by all processes

    async def evidence(self, connection: Connection) -> dict[str, Evidence]:
        """Return the evidence for each login whose brake has tripped before."""
        rows = await connection.fetch(
            f"SELECT name, value FROM {settings_of(self.table.schema)} WHERE name LIKE '{_MARK} %'"
        )
        known: dict[str, Evidence] = {}
        for row in rows:
            _, what, login = row["name"].split(" ", 2)
            at, _, said = row["value"].partition(" ")
            before = known.get(login, Evidence())
            match what:
                case "tripped":
                    known[login] = replace(before, tripped_at=float(at))
                case "understood":
                    known[login] = replace(before, understood_at=float(at))
                case "control":
                    known[login] = replace(before, control_at=float(at), verdict=said)
                case "released":
                    known[login] = replace(before, released_at=float(at))
                case "counted":
                    known[login] = replace(before, counted_from=float(at))
        return known

    async def mark(
        self,
        connection: Connection,
        what: str,
        login: str,
        at: float,
        said: str = "",
        by: str | None = None,
    ) -> None:
        """Store a time (epoch seconds) for a login, for all processes: see `Evidence`."""
        await set_mark(
            connection, self.table.schema, f"{_MARK} {what} {login}", f"{at!r} {said}".strip(), by
        )

    async def held(self, connection: Connection) -> list[Held]:
        """Return the orders whose ends are held, at most `SHOWN`, oldest first."""
        rows = await connection.fetch(
            f"SELECT order_id::text AS id, account, extract(epoch FROM opened_at)::float8 AS since FROM {self._reviews.sql} r "
            f"WHERE closed_at IS NULL AND kind = {literal(KIND)} ORDER BY r.id LIMIT {SHOWN}"
        )
        if not rows:
            return []
        known, now = await self.evidence(connection), await now_of(connection)
        found = []
        for row in rows:
            account, since = row["account"] or "", row["since"]
            evidence = known.get(self.login_of(account), Evidence())
            is_released = not self.is_on or evidence.is_released(since, now)
            found.append(Held(row["id"], account, since, is_released))
        return found

    async def controls(self, connection: Connection, login: str) -> list[Control]:
        """Return orders that a login completed in the last day, newest first, some in reserve."""
        rows = await connection.fetch(
            "SELECT e.order_id::text AS id, e.account, e.reference "
            f"FROM (SELECT * FROM {events_of(self.table.schema)} ORDER BY id DESC LIMIT {_USUAL}) e "
            "WHERE e.account = ANY($1::text[]) AND e.decided_at > clock_timestamp() - interval '1 day' "
            f"AND e.outcome = {literal(Outcome.COMPLETED)} AND e.source = {literal(PROGRAM)} "
            f"AND e.cause = {literal(Cause.ANSWER)} AND NOT e.repeat "
            f"AND e.reference <> '' ORDER BY e.id DESC LIMIT {_CANDIDATES * _CANDIDATES}",
            self.logins.accounts_of(login),
        )
        controls = {row["id"]: Control(row["id"], row["account"], row["reference"]) for row in rows}
        return list(controls.values())[: 2 * _CANDIDATES]


def is_end(result: WriteResult, *, refund: bool | None = None) -> bool:
    """Whether a result ends an open order by our own decision and, if given, is a ``refund``."""
    finding, write = result.finding, result.write
    if write is None or not write.final or finding.by_person or finding.order.awaits_pin:
        return False
    return refund is None or write.outcome.is_refund is refund
