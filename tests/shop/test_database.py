"""Connections: what failures mean, and that none of them hangs or lies."""

import asyncio
import errno
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import asyncpg
import pytest

from order_monitor.commands.exits import ExitCode, report
from order_monitor.core.answer import Completed
from order_monitor.core.check_result import CheckResult, WriteStatus
from order_monitor.core.errors import (
    RowRejectedError,
    ShopError,
    ShopMisfitError,
    ShopUnavailableError,
)
from order_monitor.core.pin import Pin
from order_monitor.shop.database import Database, classify
from order_monitor.shop.dsn import parse_dsn
from order_monitor.watch.write_queue import WriteQueue
from tests.support.clocks import ManualClock
from tests.support.limits import no_files_left
from tests.support.proxies import Proxy
from tests.support.shops import NOW, Shop
from tests.support.writing import Results

E = asyncpg.exceptions


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (E.NotNullViolationError("Failing row contains (PIN-CANARY)"), RowRejectedError),
        (E.StringDataRightTruncationError("PIN-CANARY"), RowRejectedError),
        (E.CharacterNotInRepertoireError("x"), RowRejectedError),
        (E.RaiseError("PIN-CANARY"), RowRejectedError),
        (E.WithCheckOptionViolationError("x"), RowRejectedError),
        (E.DataError("PIN-CANARY"), RowRejectedError),
        (E.DeadlockDetectedError("x"), ShopUnavailableError),
        (E.SerializationError("x"), ShopUnavailableError),
        (E.LockNotAvailableError("x"), ShopUnavailableError),
        (E.QueryCanceledError("x"), ShopUnavailableError),
        (E.AdminShutdownError("x"), ShopUnavailableError),
        (E.TooManyConnectionsError("x"), ShopUnavailableError),
        (E.ReadOnlySQLTransactionError("x"), ShopUnavailableError),
        (E.InvalidPasswordError("x"), ShopUnavailableError),
        (E.InvalidCatalogNameError("x"), ShopUnavailableError),
        (E.ConnectionDoesNotExistError("x"), ShopUnavailableError),
        (E.InterfaceError("x"), ShopUnavailableError),
        (E.InternalClientError("x"), ShopUnavailableError),
        (E.TargetServerAttributeNotMatched("x"), ShopUnavailableError),
        (
            ConnectionRefusedError(111, "Connect call failed ('db.example', 5432)"),
            ShopUnavailableError,
        ),
        (socket.gaierror(-2, "Name or service not known"), ShopUnavailableError),
        (TimeoutError(), ShopUnavailableError),
        (ValueError("postgresql://u:PIN-CANARY@h"), ShopUnavailableError),
        (E.UndefinedColumnError("x"), ShopMisfitError),
        (E.UndefinedTableError("x"), ShopMisfitError),
        (E.InsufficientPrivilegeError("x"), ShopMisfitError),
        (E.PostgresSyntaxError("x"), ShopMisfitError),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, BaseException) else "",
)
def test_each_failure_has_its_meaning_and_keeps_its_text_to_itself(
    error: Exception, kind: type[ShopError]
) -> None:
    """F1, C4: three roots of exceptions, one place that knows them.

    No text of theirs is repeated.
    """
    meaning = classify(error)
    assert type(meaning) is kind
    assert "CANARY" not in str(meaning)
    assert "db.example" not in str(meaning)
    assert str(meaning)


@pytest.mark.parametrize(
    ("error", "short_of"),
    [
        (OSError(errno.EMFILE, "x"), "no_files"),
        (OSError(errno.ENFILE, "x"), "no_files"),
        (OSError(errno.ENOBUFS, "x"), "no_memory"),
        (OSError(errno.EADDRNOTAVAIL, "Connect call failed ('10.0.0.7', 5432)"), "no_local_ports"),
        (OSError(errno.EADDRNOTAVAIL, "Connect call failed ('::1', 5432, 0, 0)"), ""),
        (OSError(errno.ECONNREFUSED, "Connect call failed ('10.0.0.7', 5432)"), ""),
        (socket.gaierror(socket.EAI_AGAIN, "x"), ""),
        (TimeoutError(), ""),
    ],
)
def test_what_this_machine_is_short_of_is_not_the_databases_fault(
    error: Exception, short_of: str
) -> None:
    meaning = classify(error)
    assert isinstance(meaning, ShopUnavailableError)
    assert meaning.short_of == short_of
    assert str(meaning).startswith(f"{short_of}: ") == bool(short_of)


@pytest.mark.parametrize("host", ["127.0.0.1", "db.example"])
async def test_without_files_the_database_is_not_called_lost(
    host: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """For the connection, and for the resolver, which does not say so itself."""
    database = Database(parse_dsn(f"postgresql://someone:p@{host}:1/shop"))
    for _ in range(2):
        with no_files_left(), pytest.raises(ShopUnavailableError, match=r"^no_files: ") as error:
            async with database.transaction():
                pass
        assert report(error.value) == ExitCode.NO_DATABASE
    told = capsys.readouterr()
    assert "there is no connection to the database: no_files: this process" in told.err
    assert "LimitNOFILE" in told.err
    assert told.out.count("database.not_connected") == 1
    assert "database.lost" not in told.out
    await database.close()


async def test_without_threads_for_the_resolver_neither(monkeypatch: pytest.MonkeyPatch) -> None:
    async def fails(*_: object, **__: object) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", fails)
    database = Database(parse_dsn("postgresql://someone:p@db.example:1/shop"))
    with pytest.raises(ShopUnavailableError, match=r"^no_threads: "):
        async with database.transaction():
            pass
    await database.close()


async def test_a_real_error_names_its_constraint_only(plain_shop: Shop) -> None:
    """C4: the server's DETAIL holds the whole row."""
    await plain_shop.connection.execute(
        "ALTER TABLE product_orders ADD CONSTRAINT tidy CHECK (pin_code <> 'CANARY')"
    )
    order_id = await plain_shop.add()
    with pytest.raises(RowRejectedError) as error:
        async with plain_shop.database().transaction() as connection:
            await connection.execute(
                "UPDATE product_orders SET pin_code = 'CANARY' WHERE id = $1::uuid", order_id
            )
    assert str(error.value) == (
        "check violation, table product_orders, constraint tidy [23514]; see which trigger, "
        "function or constraint of the shop's raises it, and correct that or the row"
    )
    assert error.value.__cause__ is None


async def test_settings_last_no_longer_than_their_transaction(
    plain_shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    """E2: nothing leaks to the pooler's next client."""
    pools, create_pool = list[Any](), asyncpg.create_pool

    def created(*args: Any, **options: Any) -> Any:
        pools.append(create_pool(*args, **options))
        return pools[-1]

    monkeypatch.setattr(asyncpg, "create_pool", created)
    database = plain_shop.database()
    async with database.transaction() as connection:
        assert await connection.fetchval("SHOW timezone") == "UTC"
        assert await connection.fetchval("SHOW row_security") == "off"
        pid = connection.get_server_pid()
    async with pools[0].acquire() as connection:
        assert connection.get_server_pid() == pid
        assert await connection.fetchval("SHOW row_security") == "on"
        assert await connection.fetchval("SHOW statement_timeout") == "0"


async def test_a_failed_block_leaves_nothing_behind(plain_shop: Shop) -> None:
    database = plain_shop.database()
    order_id = await plain_shop.add()
    with pytest.raises(RuntimeError):
        async with database.transaction() as connection:
            await connection.execute(
                "UPDATE product_orders SET note = 'x' WHERE id = $1::uuid", order_id
            )
            raise RuntimeError
    assert (await plain_shop.row(order_id))["note"] is None
    async with database.transaction() as connection:
        assert await connection.fetchval("SELECT 1") == 1


async def test_a_frozen_network_ends_at_the_deadline(plain_shop: Shop) -> None:
    """D1: neither the statement's own timeout nor closing the pool may wait for an answer that
    never comes.
    """
    async with Proxy(plain_shop.dsn) as proxy:
        database = plain_shop.database(proxy.dsn, statement_timeout=0.2, margin=0.3)
        async with database.transaction() as connection:
            await connection.execute("SELECT 1")
        proxy.flowing.clear()
        async with asyncio.timeout(30):
            with pytest.raises(ShopUnavailableError, match="timeout"):
                async with database.transaction() as connection:
                    await connection.execute("SELECT 1")
            await database.close(0.3)
        proxy.flowing.set()
        async with database.transaction() as connection:
            assert await connection.fetchval("SELECT 2") == 2


async def test_waiting_for_a_connection_is_bounded(plain_shop: Shop) -> None:
    """D2."""
    database = plain_shop.database(pool_size=1, connect_timeout=0.1, margin=0.1)
    async with database.transaction():
        with pytest.raises(ShopUnavailableError, match="timeout"):
            async with database.transaction():
                pass


async def test_sockets_notice_a_dead_peer(plain_shop: Shop) -> None:
    """D3."""
    async with Proxy(plain_shop.dsn) as proxy:
        database = plain_shop.database(proxy.dsn)
        async with database.transaction() as connection:
            sock = connection._transport.get_extra_info("socket")  # type: ignore[attr-defined]
            assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
            assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == 60_000
        await database.close()


async def test_a_read_only_server_is_no_server(plain_shop: Shop) -> None:
    """B6: a standby would show stale orders."""
    name = await plain_shop.connection.fetchval("SELECT current_database()")
    database = plain_shop.database()
    order_id = await plain_shop.add()
    async with database.transaction():
        pass
    await plain_shop.connection.execute(
        f"ALTER DATABASE {name} SET default_transaction_read_only = on"
    )
    fresh = plain_shop.database()
    with pytest.raises(ShopUnavailableError, match="read-only"):
        async with fresh.transaction():
            pass
    with pytest.raises(ShopUnavailableError, match="25006"):
        async with database.transaction() as connection:
            await connection.execute("SET TRANSACTION READ ONLY")
            await connection.execute(
                "UPDATE product_orders SET note = 'x' WHERE id = $1::uuid", order_id
            )
    with pytest.raises(ShopUnavailableError, match="read-only"):
        async with database.transaction():
            pass


async def test_a_write_refused_as_read_only_leaves_the_server(plain_shop: Shop) -> None:
    """B6: a primary that becomes a standby may keep its connections.

    Scans over them would go well and writes fail for ever.
    """
    name = await plain_shop.connection.fetchval("SELECT current_database()")
    order_id = await plain_shop.add()
    database = plain_shop.database()
    async with database.transaction():
        pass
    await plain_shop.connection.execute(
        f"ALTER DATABASE {name} SET default_transaction_read_only = on"
    )
    with pytest.raises(RowRejectedError, match="25006"):
        async with database.transaction(of_rows=True) as connection:
            await connection.execute("SET TRANSACTION READ ONLY")
            await connection.execute(
                "UPDATE product_orders SET note = 'x' WHERE id = $1::uuid", order_id
            )
    with pytest.raises(ShopUnavailableError, match="read-only"):
        async with database.transaction():
            pass


async def test_a_server_that_is_shut_down_refuses_no_row(plain_shop: Shop) -> None:
    """Taken for the rows' fault, all of a batch would be put up for a person."""
    database = plain_shop.database()
    with pytest.raises(ShopUnavailableError):
        async with database.transaction(of_rows=True) as connection:
            await connection.execute("SELECT pg_terminate_backend(pg_backend_pid())")


async def test_losing_and_finding_the_server_is_said_once(
    plain_shop: Shop, capsys: pytest.CaptureFixture[str]
) -> None:
    async with Proxy(plain_shop.dsn) as proxy:
        database = plain_shop.database(proxy.dsn)
        async with database.transaction():
            pass
        assert database.reached
        port = proxy.port
        await proxy.stop()
        for _ in range(3):
            with pytest.raises(ShopUnavailableError):
                async with database.transaction():
                    pass
        assert database.problem
        await proxy.start_again(port)
        async with database.transaction():
            pass
        assert database.reached
        await database.close()
    out = capsys.readouterr().out
    assert out.count("database.lost") == 1
    assert out.count("database.back") == 1


@pytest.mark.parametrize(
    "moment", [b"UPDATE", b"COMMIT"], ids=["in the update", "after the commit"]
)
async def test_a_write_whose_word_is_lost_is_neither_lost_nor_doubled(
    shop: Shop, moment: bytes
) -> None:
    """A3: cut while the reply is on its way.

    The commit may have happened, and the PIN must stand exactly once.
    """
    order_id = await shop.add()
    async with Proxy(shop.dsn) as proxy:
        orders = shop.orders(shop.database(proxy.dsn))
        await orders.prepare()
        results = Results()
        clock = ManualClock()
        writer = WriteQueue(orders, clock, results, linger=0)
        proxy.cut_after = moment
        writer.submit(CheckResult(shop.order(order_id), Completed(Pin("P-1"), "ok"), seen_at=NOW))
        task = asyncio.create_task(writer.run())
        while not results:
            await asyncio.sleep(0.001)
            clock.ring(clock.elapsed + 10)
        writer.close()
        await task
        assert proxy.cuts == 1
    assert [r.fate for r in results] == [WriteStatus.WRITTEN]
    row = await shop.row(order_id)
    assert (row["external_status"], row["pin_code"], row["note"]) == ("completed", "P-1", "ok")


async def test_a_cancelled_block_is_cut_and_its_error_passes(plain_shop: Shop) -> None:
    """E9: our own cancellation is never swallowed by the clean-up."""
    database = plain_shop.database()
    entered = asyncio.Event()

    async def work() -> None:
        async with database.transaction() as connection:
            entered.set()
            await connection.execute("SELECT pg_sleep(30)")

    task = asyncio.create_task(work())
    await entered.wait()
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    async with database.transaction() as connection:
        assert await connection.fetchval("SELECT 1") == 1


async def test_plain_connections_report_as_the_others_do(plain_shop: Shop) -> None:
    with pytest.raises(ShopMisfitError):
        async with plain_shop.database().plain() as connection:
            await connection.execute("SELECT * FROM nowhere")
    with pytest.raises(ShopUnavailableError):
        async with plain_shop.database("postgresql://x:y@127.0.0.1:1/z").plain():
            pass


@pytest.mark.long
@pytest.mark.parametrize("place", [0, 1])
async def test_a_host_that_says_nothing_does_not_use_up_the_others_time(
    plain_shop: Shop, place: int
) -> None:
    """29: asyncpg's timeout spans all hosts; the good one is tried first from then on."""
    accepted: list[asyncio.Transport] = []
    loop = asyncio.get_running_loop()
    silent = await loop.create_server(lambda: Silent(accepted), "127.0.0.1", 0)
    given = parse_dsn(plain_shop.dsn)
    hosts, ports = [given.hosts[0]], [given.ports[0]]
    hosts.insert(place, "127.0.0.1")
    ports.insert(place, silent.sockets[0].getsockname()[1])
    address = replace(given, hosts=tuple(hosts), ports=tuple(ports))
    async with silent, Database(address) as database:
        for _ in range(2):
            async with database.transaction() as connection:
                assert await connection.fetchval("SELECT 1") == 1
            await database.close()
        assert len(accepted) == 2, "each start compares the hosts, and connects to the good one"
        for transport in accepted:
            transport.abort()


class Silent(asyncio.Protocol):
    """Accepts a connection and says nothing."""

    def __init__(self, accepted: list[asyncio.Transport]) -> None:
        self.accepted = accepted

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.accepted.append(transport)


@pytest.mark.wall_clock
@pytest.mark.long
async def test_what_waits_for_a_server_that_has_frozen_is_cut_off(plain_shop: Shop) -> None:
    """29: where another host is there, nothing waits for a whole statement's timeout."""
    real = parse_dsn(plain_shop.dsn)
    async with Proxy(plain_shop.dsn) as proxy:
        address = replace(real, hosts=("127.0.0.1", *real.hosts), ports=(proxy.port, *real.ports))
        async with Database(address, statement_timeout=300) as database:

            async def ask(sql: str) -> object:
                async with database.transaction() as connection:
                    return await connection.fetchval(sql)

            assert await ask("SELECT 1") == 1
            waiting = asyncio.create_task(ask("SELECT pg_sleep(1000)"))
            await asyncio.sleep(0.3)
            proxy.flowing.clear()
            answers: list[object] = []
            async with asyncio.timeout(100):
                while answers[-1:] != [2]:
                    try:
                        answers.append(await ask("SELECT 2"))
                    except ShopUnavailableError as error:
                        answers.append(error)
                with pytest.raises(ShopUnavailableError):
                    await waiting
            assert len(answers) <= 3, "a transaction that does not begin, and then the other host"
            proxy.flowing.set()


@asynccontextmanager
async def two_hosts(shop: Shop) -> AsyncIterator[tuple[Proxy, Database]]:
    """A database of two hosts, of which the first is a proxy."""
    real = parse_dsn(shop.dsn)
    async with Proxy(shop.dsn) as proxy:
        address = replace(real, hosts=("127.0.0.1", *real.hosts), ports=(proxy.port, *real.ports))
        async with Database(address, statement_timeout=300) as database:
            yield proxy, database
            proxy.flowing.set()


async def asked(database: Database, sql: str) -> object:
    async with database.transaction() as connection:
        return await connection.fetchval(sql)


@pytest.mark.long
async def test_a_connection_kept_to_a_frozen_host_costs_seconds(plain_shop: Shop) -> None:
    """Not a whole statement's timeout."""
    async with two_hosts(plain_shop) as (proxy, database):
        assert await asked(database, "SELECT 1") == 1
        proxy.flowing.clear()
        async with asyncio.timeout(100):
            with pytest.raises(ShopUnavailableError):
                await asked(database, "SELECT 2")
            assert await asked(database, "SELECT 3") == 3


@pytest.mark.wall_clock
@pytest.mark.long
async def test_one_slow_beginning_cuts_no_healthy_transaction(plain_shop: Shop) -> None:
    """Behind a pooler it may only mean that no server was free."""
    async with two_hosts(plain_shop) as (proxy, database):
        healthy = asyncio.create_task(asked(database, "SELECT 7 FROM pg_sleep(5)"))
        await asyncio.sleep(0.3)
        proxy.freeze_before = b"BEGIN"
        with pytest.raises(ShopUnavailableError):
            await asked(database, "SELECT 1")
        proxy.flowing.set()
        assert await healthy == 7


@pytest.mark.wall_clock
@pytest.mark.long
async def test_a_connection_that_the_server_closed_does_not_stop_the_move(plain_shop: Shop) -> None:
    """It may be lent at that moment, to code that is waiting for something else."""
    begun: asyncio.Future[object] = asyncio.get_running_loop().create_future()

    async def busy_elsewhere(database: Database) -> None:
        async with database.transaction() as connection:
            begun.set_result(await connection.fetchval("SELECT pg_backend_pid()"))
            await asyncio.Event().wait()

    async with two_hosts(plain_shop) as (proxy, database):
        lent = asyncio.create_task(busy_elsewhere(database))
        await plain_shop.connection.execute("SELECT pg_terminate_backend($1)", await begun)
        waiting = asyncio.create_task(asked(database, "SELECT pg_sleep(1000)"))
        await asyncio.sleep(0.3)
        proxy.flowing.clear()
        async with asyncio.timeout(100):
            assert await asked(database, "SELECT 1") == 1
            with pytest.raises(ShopUnavailableError):
                await waiting
        lent.cancel()
        await asyncio.gather(lent, return_exceptions=True)


async def test_one_cut_between_two_steps_of_a_statement_is_gone(plain_shop: Shop) -> None:
    """asyncpg then uses what is no longer there; the program's own mistakes stay what they are."""
    database = plain_shop.database()
    with pytest.raises(ShopUnavailableError):
        async with database.transaction() as connection:
            connection.terminate()
            raise AttributeError
    with pytest.raises(AttributeError):
        async with database.transaction():
            raise AttributeError
    async with database.transaction() as connection:
        assert await connection.fetchval("SELECT 1") == 1
