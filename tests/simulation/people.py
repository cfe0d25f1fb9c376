"""Operators' commands at the worst moments: each is a separate process that uses the program's own
decisions.
"""

import asyncio
from collections.abc import Callable, Coroutine
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from order_monitor.commands.ask import Chosen
from order_monitor.commands.resolve import Decision, result_of, write_decision
from order_monitor.core.check_result import WriteStatus
from order_monitor.core.errors import OrderMonitorError
from order_monitor.core.pin import Pin
from order_monitor.core.schedule import Now
from order_monitor.shop.accounts.pauses import Pauses, ends_of
from order_monitor.shop.outbox import Outbox
from order_monitor.shop.reading.history import OrderHistory
from order_monitor.shop.reading.orders import Part
from order_monitor.shop.writing.reopening import Reopener, ReopenRefusedError
from order_monitor.watch.routing import ShopAccounts
from tests.simulation.process import PERSON, Process
from tests.simulation.scenario import HOUR, Fault, has_file
from tests.simulation.shop import FINAL, OPEN

if TYPE_CHECKING:
    from tests.simulation.world import World

_TRIES = 20


class People:
    """The person in charge of the shop."""

    def __init__(self, world: "World") -> None:
        self._world = world

    async def do(self, fault: Fault) -> None:
        """Run one command, or two."""
        await getattr(self, fault.kind)(fault)

    async def _type(
        self,
        author: str,
        work: Callable[[Process], Coroutine[Any, Any, Any]],
        fault: Fault | None = None,
    ) -> Process:
        """Run a command to its end; a refusal is only a message to the person.

        With ``fault``, it is one that decides money, and its file may differ from the others'.
        """

        async def agreed(process: Process) -> None:
            if fault is not None:
                await process.agree()
            await work(process)

        file = {} if fault is None else has_file(fault)
        process = self._world.make(Now(), author, agreed, **file)
        assert process.task is not None
        await asyncio.wait({process.task}, timeout=3 * HOUR)
        self._world.check(process.task.done(), "a command did not end")
        if not process.is_dead and not process.task.cancelled():
            with suppress(OrderMonitorError, ReopenRefusedError):
                process.task.result()
        self._world.gather(process)
        return process

    async def ask(self, fault: Fault) -> None:
        """Ask about all orders, or about some."""
        row = self._world.some(fault, OPEN)
        ids = [row.id] if row is not None and fault.size < 0.5 else None

        async def work(process: Process) -> None:
            await _take_accounts(process)
            await process.once(Chosen(process.orders, ids, lambda *_: True))

        await self._type("ask", work, fault)

    async def resolve(self, fault: Fault) -> None:
        """End an order by hand while it is being asked about, answered, or written."""
        row = self._world.some(fault, OPEN)
        if row is None:
            return
        await self._world.next_question(row.reference, 60.0)
        await asyncio.sleep(fault.size * 1.2)
        self._world.touched.add(row.id)
        pin = Pin(f"BY-HAND-{row.id}-{fault.target}") if fault.target % 3 == 0 else None
        decision = Decision("completed" if fault.target % 3 < 2 else "failed", "x", PERSON, pin)

        async def work(process: Process) -> None:
            for _ in range(_TRIES):
                scan = await process.orders.scan(Part(only=[row.id]))
                for order in scan.orders:
                    history = OrderHistory(order, has_pin=False, note="", now=scan.now)
                    finding = result_of(process.orders, history, decision)
                    assert finding is not None
                    result = await write_decision(
                        process.database, process.orders, finding, decision
                    )
                    if result.fate is not WriteStatus.LOCKED:
                        return
                await asyncio.sleep(0.25)

        await self._type(PERSON, work, fault)

    async def reopen(self, fault: Fault) -> None:
        """Reopen an order just after its end, or later."""
        row = (
            self._world.some(fault, FINAL)
            if fault.size < 0.3
            else await self._world.next_end(900.0)
        )
        if row is None:
            return
        await asyncio.sleep(fault.size**3 * 40)

        async def work(process: Process) -> None:
            await process.orders.prepare()
            row_writer = process.orders.row_writer
            reopener = Reopener(row_writer.table, row_writer.table_config)
            async with process.database.transaction() as connection:
                await reopener.reopen(connection, row.id, "x", PERSON)

        await self._type(PERSON, work, fault)

    async def replay(self, fault: Fault) -> None:
        """Have events posted again: those of an order, of the last minutes, or that failed."""
        row = self._world.some(fault)
        since = None if fault.size < 0.5 else 600 * fault.size

        async def work(process: Process) -> None:
            outbox = Outbox(process.database, "public")
            if await outbox.mark() is None:
                return
            await outbox.replay(
                PERSON,
                ids=[],
                order_id=row.id if row is not None else None,
                since=since,
                dead=fault.target % 2 == 0,
                waiting=fault.target % 3 == 0,
            )

        await self._type(PERSON, work)

    async def pause(self, fault: Fault) -> None:
        """Pause an account for a time, or until a person resumes it."""
        key = self._world.scenario.accounts[fault.target % len(self._world.scenario.accounts)]
        pauses = Pauses("public")
        seconds = fault.seconds if fault.size < 0.5 else None

        async def pause(process: Process) -> None:
            await _take_accounts(process)
            if key in process.engine.accounts:
                async with process.database.transaction() as connection:
                    await pauses.pause(connection, key, "x", PERSON, seconds)

        async def resume(process: Process) -> None:
            async with process.database.transaction() as connection:
                await pauses.resume(connection, [key])

        await self._type(PERSON, pause)
        await asyncio.sleep(fault.seconds)
        while seconds is None and key in self._world.store.pauses:
            await self._type(PERSON, resume)
            await asyncio.sleep(10)

    async def release(self, fault: Fault) -> None:
        """Release what the brake holds of a login."""
        key = self._world.scenario.accounts[fault.target % len(self._world.scenario.accounts)]

        async def work(process: Process) -> None:
            await _take_accounts(process)
            released = await process.orders.brake.release(key, PERSON)
            if released:
                self._world.sight.released[self._world.truth.kod_of(key)] = self._world.store.now()

        await self._type(PERSON, work)

    async def ends_paused(self, fault: Fault) -> None:
        """Hold an account's ends for a time."""
        key = self._world.scenario.accounts[fault.target % len(self._world.scenario.accounts)]
        name, pauses, seconds = ends_of(key), Pauses("public"), 60.0 + fault.seconds * 10

        async def pause(process: Process) -> None:
            async with process.database.transaction() as connection:
                await pauses.pause(connection, name, "x", PERSON, seconds)

        begun = self._world.now()
        await self._type(PERSON, pause)
        until = self._world.store.pauses.get(name)
        if until is not None:
            self._world.sight.ends_paused[name] = (self._world.now(), begun + seconds - 1.0)
        await asyncio.sleep(seconds)


async def _take_accounts(process: Process) -> None:
    await process.orders.prepare()
    if isinstance(process.directory, ShopAccounts):
        async with process.database.transaction() as connection:
            process.directory.update(await process.orders.reader.read_integrations(connection))
