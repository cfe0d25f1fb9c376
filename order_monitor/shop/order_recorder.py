"""Record what was found of orders: a whole batch or nothing, and whose fault it is where it is refused."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Final

import structlog

from order_monitor.core.bounded import forget_oldest
from order_monitor.core.decision import StuckReason
from order_monitor.core.errors import RowRejectedError, ShopError, ShopMisfitError, ShopUnavailableError
from order_monitor.core.pin_memory import PinMemory
from order_monitor.core.recording import Fate, Finding, Result
from order_monitor.shop.catalogue import Catalogue
from order_monitor.shop.database import Database
from order_monitor.shop.ledger import Ledger, rehearse
from order_monitor.shop.reviews import REMEMBERED

PASSING_TRIES: Final = 10
"""How often one order's write is put off for what may pass, before a person is told: some two minutes."""

_SERVERS_OWN: Final = ("08", "25", "53", "57", "58", "F0", "XX")
_ROLES_OWN: Final = ("42501",)


class OrderRecorder:
    """Writes findings, and keeps the list for review."""

    def __init__(self, database: Database, catalogue: Catalogue, pins: PinMemory) -> None:
        """Write the tables that ``catalogue`` knows, and no PIN that ``pins`` knows to be another order's."""
        self._database = database
        self._catalogue = catalogue
        self._pins = pins
        self._reviewed: dict[tuple[str, str], None] = {}
        self._log = structlog.get_logger("order_monitor.orders")

    @property
    def _ledger(self) -> Ledger:
        return self._catalogue.holdings.ledger

    async def record(self, findings: Sequence[Finding], lock_wait: float = 1.0) -> list[Result]:
        """Write findings about different orders, all of them or none, waiting ``lock_wait`` seconds for anybody's lock.

        Raises:
            RowRejectedError: some of several are refused: halve them. One alone is refused here only for now: try it later.
            ShopUnavailableError: all or nothing may have been committed; record the same findings again.
            ShopMisfitError: the table is not as it was.
        """
        await self._catalogue.complete()
        try:
            results = await self._widened(await self._write(findings, lock_wait), lock_wait)
        except ShopMisfitError:
            self._catalogue.doubt()
            raise
        except RowRejectedError as error:
            await self._see_whose_fault(error)
            if len(findings) > 1:
                raise
            results = [await self._record_alone(findings[0], error, lock_wait)]
        await self._note(results)
        return results

    async def _see_whose_fault(self, error: RowRejectedError) -> None:
        """Ask the server, not the code: do the very statements run on no row at all? A trigger can raise any code there is.

        Raises:
            ShopUnavailableError: it is the server's.
            ShopMisfitError: it is the table's, or this role's.
        """
        if error.is_passing or not error.code:
            return
        if not error.is_inner and error.code.startswith(_SERVERS_OWN):
            raise ShopUnavailableError(str(error))
        try:
            async with self._database.transaction() as connection:
                await rehearse(connection, self._ledger.statements)
        except ShopMisfitError:
            self._catalogue.doubt()
            raise
        if not error.is_inner and error.code in _ROLES_OWN:
            raise ShopMisfitError(str(error))

    async def _note(self, results: list[Result]) -> None:
        """Keep the list for review: what is stuck is put on it once, what was written after all is taken off."""
        holdings = self._catalogue.holdings
        known = self._reviewed.keys() | holdings.reviewed
        fresh = [r for r in results if r.stuck is not None and (r.finding.order.id, str(r.stuck)) not in known]
        settled = {r.finding.order.id for r in results if r.write is not None and r.write.final}
        mended = {key for key in known if key[0] in settled} if settled else set()
        if not fresh and not mended:
            return
        try:
            async with self._database.transaction() as connection:
                await holdings.reviews.open(connection, self._ledger.table, fresh)
                await holdings.reviews.mend(connection, self._ledger.table, mended)
        except ShopError as error:
            # The list is a help to people; what was written, and what is to be tried again, does not wait for it.
            self._log.warning("review.not_kept", orders=[r.finding.order.id for r in fresh][:10], why=str(error))
            return
        self._remember([(r.finding.order.id, str(r.stuck)) for r in fresh], mended)

    def _remember(self, put_up: Sequence[tuple[str, str]], mended: Collection[tuple[str, str]]) -> None:
        """Keep in mind what stands on the list by our hand, the newest; what falls out may be put up again, to no effect."""
        self._reviewed.update(dict.fromkeys(put_up))
        for key in mended:
            self._reviewed.pop(key, None)
        forget_oldest(self._reviewed, REMEMBERED)

    async def review(self, order_id: str, kind: str, account: str) -> None:
        """Put one thing on the list for review.

        Raises:
            ShopError: the database could not be asked.
        """
        reviews = (await self._catalogue.complete()).reviews
        async with self._database.transaction() as connection:
            await reviews.note(connection, self._ledger.table, order_id, kind, account)

    async def _widened(self, results: list[Result], lock_wait: float) -> list[Result]:
        """Try PINs that were too wide once more, if somebody has widened the column since it was looked up."""
        wide = [r for r in results if r.stuck is StuckReason.PIN_TOO_WIDE]
        known = self._ledger.rules.pin_width
        if wide:
            await self._catalogue.look()
        if self._ledger.rules.pin_width == known:
            return results
        return [r for r in results if r not in wide] + await self._write([r.finding for r in wide], lock_wait)

    async def _record_alone(self, finding: Finding, error: RowRejectedError, lock_wait: float) -> Result:
        """Try once more without the provider's text, which matters less than the status and the PIN.

        Raises:
            RowRejectedError: what stands against it may pass, and has not been waited for long.
        """
        if error.is_passing:
            if finding.tries < PASSING_TRIES:
                raise error
        else:
            try:
                return (await self._write([finding], lock_wait, with_notes=False))[0]
            except RowRejectedError as second:
                error = second
        finding.attempted = None
        return Result(finding, Fate.STUCK, stuck=StuckReason.REJECTED_BY_DATABASE, detail=str(error))

    async def _write(self, findings: Sequence[Finding], lock_wait: float, *, with_notes: bool = True) -> list[Result]:
        async with self._database.transaction(of_rows=True, lock_wait=lock_wait) as connection:
            return await self._ledger.write(connection, findings, with_notes=with_notes, pins=self._pins)
