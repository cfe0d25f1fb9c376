"""Connections: what failures mean, and that none of them hangs or lies."""

import asyncio
import errno
import socket

import asyncpg
import pytest

from order_monitor.commands.exits import ExitCode, report
from order_monitor.core.answer import Completed
from order_monitor.core.errors import RowRejectedError, ShopError, ShopMisfitError, ShopUnavailableError
from order_monitor.core.pin import Pin
from order_monitor.core.recording import Fate, Finding, Result
from order_monitor.shop.database import Database, classify
from order_monitor.shop.dsn import parse_dsn
from order_monitor.watch.writer import Writer
from tests.clocks import ManualClock
from tests.providers.test_exhausted import no_files_left
from tests.proxies import Proxy
from tests.shops import NOW, Shop

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
        (ConnectionRefusedError(111, "Connect call failed ('db.example', 5432)"), ShopUnavailableError),
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
def test_each_failure_has_its_meaning_and_keeps_its_text_to_itself(error: Exception, kind: type[ShopError]) -> None:
    """F1, C4: three roots of exceptions, one place that knows them; no text of theirs is repeated."""
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
def test_what_this_machine_is_short_of_is_not_the_databases_fault(error: Exception, short_of: str) -> None:
    meaning = classify(error)
    assert isinstance(meaning, ShopUnavailableError)
    assert meaning.short_of == short_of
    assert str(meaning).startswith(f"{short_of}: ") == bool(short_of)


@pytest.mark.parametrize("host", ["127.0.0.1", "db.example"])
async def test_without_files_the_database_is_not_called_lost(host: str, capsys: pytest.CaptureFixture[str]) -> None:
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
    await plain_shop.connection.execute("ALTER TABLE product_orders ADD CONSTRAINT tidy CHECK (pin_code <> 'CANARY')")
    order_id = await plain_shop.add()
    with pytest.raises(RowRejectedError) as error:
        async with plain_shop.database().transaction() as connection:
            await connection.execute("UPDATE product_orders SET pin_code = 'CANARY' WHERE id = $1::uuid", order_id)
    assert str(error.value) == (
        "a check constraint or a domain does not allow the value, table product_orders, constraint tidy [23514]; "
        "correct the constraint or the row"
    )
    assert error.value.__cause__ is None


async def test_settings_last_no_longer_than_their_transaction(plain_shop: Shop) -> None:
    """E2: nothing leaks to the pooler's next client."""
    database = plain_shop.database()
    async with database.transaction() as connection:
        assert await connection.fetchval("SHOW timezone") == "UTC"
        assert await connection.fetchval("SHOW row_security") == "off"
        pid = connection.get_server_pid()
    async with (await database._opened()).acquire() as connection:
        assert connection.get_server_pid() == pid
        assert await connection.fetchval("SHOW row_security") == "on"
        assert await connection.fetchval("SHOW statement_timeout") == "0"


async def test_a_failed_block_leaves_nothing_behind(plain_shop: Shop) -> None:
    database = plain_shop.database()
    order_id = await plain_shop.add()
    with pytest.raises(RuntimeError):
        async with database.transaction() as connection:
            await connection.execute("UPDATE product_orders SET note = 'x' WHERE id = $1::uuid", order_id)
            raise RuntimeError
    assert (await plain_shop.row(order_id))["note"] is None
    async with database.transaction() as connection:
        assert await connection.fetchval("SELECT 1") == 1


async def test_a_frozen_network_ends_at_the_deadline(plain_shop: Shop) -> None:
    """D1: neither the statement's own timeout nor closing the pool may wait for an answer that never comes."""
    async with Proxy(plain_shop.dsn) as proxy:
        database = plain_shop.database(proxy.dsn, statement_timeout=0.2, margin=0.3)
        async with database.transaction() as connection:
            await connection.execute("SELECT 1")
        proxy.flowing.clear()
        async with asyncio.timeout(10):
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
    await plain_shop.connection.execute(f"ALTER DATABASE {name} SET default_transaction_read_only = on")
    fresh = plain_shop.database()
    with pytest.raises(ShopUnavailableError, match="read-only"):
        async with fresh.transaction():
            pass
    with pytest.raises(ShopUnavailableError, match="25006"):
        async with database.transaction() as connection:
            await connection.execute("SET TRANSACTION READ ONLY")
            await connection.execute("UPDATE product_orders SET note = 'x' WHERE id = $1::uuid", order_id)
    with pytest.raises(ShopUnavailableError, match="read-only"):
        async with database.transaction():
            pass


async def test_a_write_refused_as_read_only_leaves_the_server(plain_shop: Shop) -> None:
    """B6: a primary that becomes a standby may keep its connections; scans over them would go well and writes fail for ever."""
    name = await plain_shop.connection.fetchval("SELECT current_database()")
    order_id = await plain_shop.add()
    database = plain_shop.database()
    async with database.transaction():
        pass
    await plain_shop.connection.execute(f"ALTER DATABASE {name} SET default_transaction_read_only = on")
    with pytest.raises(RowRejectedError, match="25006"):
        async with database.transaction(of_rows=True) as connection:
            await connection.execute("SET TRANSACTION READ ONLY")
            await connection.execute("UPDATE product_orders SET note = 'x' WHERE id = $1::uuid", order_id)
    with pytest.raises(ShopUnavailableError, match="read-only"):
        async with database.transaction():
            pass


async def test_losing_and_finding_the_server_is_said_once(plain_shop: Shop, capsys: pytest.CaptureFixture[str]) -> None:
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


@pytest.mark.parametrize("moment", [b"UPDATE", b"COMMIT"], ids=["in the update", "after the commit"])
async def test_a_write_whose_word_is_lost_is_neither_lost_nor_doubled(shop: Shop, moment: bytes) -> None:
    """A3: cut while the reply is on its way; the commit may have happened, and the PIN must stand exactly once."""
    order_id = await shop.add()
    async with Proxy(shop.dsn) as proxy:
        orders = shop.orders(shop.database(proxy.dsn))
        await orders.prepare()
        results: list[Result] = []
        clock = ManualClock()
        writer = Writer(orders, clock, results.append, linger=0)
        proxy.cut_after = moment
        writer.submit(Finding(shop.order(order_id), Completed(Pin("P-1"), "ok"), seen_at=NOW))
        task = asyncio.create_task(writer.run())
        while not results:
            await asyncio.sleep(0.001)
            clock.ring(clock.elapsed + 10)
        writer.close()
        await task
        assert proxy.cuts == 1
    assert [r.fate for r in results] == [Fate.WRITTEN]
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
