"""The consumer, and misbehaving handlers: money moves once, and one order's trouble does not affect
another's.
"""

import logging
import os
import signal
import subprocess
import sys
import threading
import time
from io import StringIO
from pathlib import Path
from typing import Any

import psycopg
import pytest
from django.core.management import CommandError, call_command
from django.db import connection, connections, transaction
from django.test import override_settings

from order_monitor.contrib.django import Event
from order_monitor.contrib.django.conf import Handler
from order_monitor.contrib.django.consumer import Consumer, Taken, clean_up, say_done, try_again
from order_monitor.demo.postgres import EmbeddedPostgres
from tests.contrib.conftest import DjangoShop, point_to
from tests.contrib.consumers import consuming, drain, failing
from tests.contrib.pooler import pooler
from tests.contrib.shop.models import ProductOrder
from tests.contrib.shop.money import handle

ROOT = Path(__file__).parents[2]


# --- once, in order


def test_each_event_is_acted_on_once(django_shop: DjangoShop) -> None:
    approved, rejected, waiting = [
        django_shop.ended(o) for o in ("completed", "failed", "processing")
    ]
    django_shop.event(approved, repeat=True)
    call_command("consume_order_events", "--once")
    call_command("consume_order_events", "--once")
    assert django_shop.moved == [(approved, "debit"), (rejected, "refund")]
    assert django_shop.one("SELECT balance FROM users") == 1000
    assert django_shop.unconsumed == []
    assert django_shop.all("SELECT event_id FROM order_monitor_attempts") == []
    assert waiting


def test_the_event_is_told_as_it_is(django_shop: DjangoShop) -> None:
    order_id = django_shop.order(pinCode="AB12-CD34")
    event_id = django_shop.event(order_id, has_pin=True)
    got: list[tuple[Event, Any]] = []
    with consuming(lambda event, order: got.append((event, order))) as consumer:
        drain(consumer)
    ((event, order),) = got
    assert (event.id, event.order_id, event.outcome, event.has_pin) == (
        event_id,
        order_id,
        "completed",
        True,
    )
    assert str(event.decided_at.tzinfo) == "UTC"
    assert abs(event.decided_at.timestamp() - time.time()) < 60
    assert isinstance(order, ProductOrder)
    assert order.pin_code == "AB12-CD34"


def test_of_each_order_in_order(django_shop: DjangoShop) -> None:
    order_id = django_shop.order()
    ids = [django_shop.event(order_id, "processing"), django_shop.event(order_id)]
    got: list[int] = []
    with consuming(lambda event, _: got.append(event.id)) as consumer:
        drain(consumer)
    assert got == ids


def test_a_late_pin_reaches_the_parents_and_moves_no_money(django_shop: DjangoShop) -> None:
    root = django_shop.order()
    middle = django_shop.order(root_order_id=root)
    order_id = django_shop.order(root_order_id=middle, pinCode="AB12-CD34")
    django_shop.event(order_id, repeat=True, has_pin=True)
    with consuming() as consumer:
        drain(consumer)
    assert django_shop.all('SELECT "pinCode" FROM product_orders') == ["AB12-CD34"] * 3
    assert django_shop.moved == []


# --- from where


def test_a_first_start_leaves_the_past_alone(
    django_shop: DjangoShop, capfd: pytest.CaptureFixture[str]
) -> None:
    django_shop.sql.execute("DELETE FROM order_monitor_consumer")
    django_shop.ended()
    call_command("consume_order_events", "--once")
    assert "1 earlier events are not consumed, and left alone" in capfd.readouterr().err
    new = django_shop.ended()
    call_command("consume_order_events", "--once")
    assert "1 earlier events are not consumed, and left alone" in capfd.readouterr().err
    assert django_shop.moved == [(new, "debit")]


@pytest.mark.parametrize("where", [None, "now", "2026-01-01"])
def test_what_commits_after_the_first_start_is_acted_on(
    django_shop: DjangoShop, where: str | None
) -> None:
    """An event gets its number before its transaction commits: a start cannot see a lower one."""
    django_shop.sql.execute("DELETE FROM order_monitor_consumer")
    slow = django_shop.order()
    with psycopg.connect(django_shop.dsn) as daemon:
        daemon.execute(
            "INSERT INTO order_monitor_events (order_id, to_status, has_pin, outcome) VALUES (%s, 'done', false, 'completed')",
            [slow],
        )
        old = django_shop.ended()
        django_shop.sql.execute("UPDATE order_monitor_events SET decided_at = '2025-06-01'")
        given = [] if where is None else ["--from", where]
        call_command("consume_order_events", "--once", *given)
        assert django_shop.moved == []
        daemon.commit()
    call_command("consume_order_events", "--once")
    assert django_shop.moved == [(slow, "debit")]
    assert (
        django_shop.one("SELECT order_id::text FROM order_monitor_events WHERE consumed_at IS NULL")
        == old
    )


def test_of_first_starts_the_first_decides(django_shop: DjangoShop) -> None:
    """Otherwise the second would skip what came between the two."""
    django_shop.sql.execute("DELETE FROM order_monitor_consumer")
    with consuming() as first, consuming() as second:
        start = first.start_first("now")
        order_id = django_shop.ended()
        assert second.start_first("now") == start == second.start()
        assert second.take() is Taken.DONE
    assert django_shop.moved == [(order_id, "debit")]


def test_a_start_that_moves_is_noticed(django_shop: DjangoShop) -> None:
    """The table decides, for every consumer that runs."""
    first, second = django_shop.ended(), django_shop.ended()
    with consuming() as running, consuming() as other:
        other.start_from("now")
        assert running.take() is Taken.NOTHING
        other.start_from("all")
        assert running.take() is Taken.DONE
        other.start_from("now")
        assert running.take() is Taken.NOTHING
        assert django_shop.moved == [(first, "debit")]
        other.start_from(django_shop.unconsumed[0])
        assert running.take() is Taken.DONE
    assert django_shop.moved == [(first, "debit"), (second, "debit")]


def test_without_a_start_nothing_is_done_and_that_is_told(
    django_shop: DjangoShop, caplog: pytest.LogCaptureFixture
) -> None:
    django_shop.ended()
    with consuming() as consumer:
        django_shop.sql.execute("DELETE FROM order_monitor_consumer")
        consumer.run_once(1)
    assert django_shop.moved == []
    assert "No start is stored any more" in caplog.text


@pytest.mark.parametrize("where", ["all", "number", "time"])
def test_from_takes_the_past(django_shop: DjangoShop, where: str) -> None:
    django_shop.sql.execute("DELETE FROM order_monitor_consumer")
    old, new = django_shop.ended(), django_shop.ended()
    first, second = django_shop.unconsumed
    django_shop.sql.execute(
        "UPDATE order_monitor_events SET decided_at = '2026-01-01 10:00Z' WHERE id = %s", [first]
    )
    given = {"all": "all", "number": str(second), "time": "2026-01-01T13:00:01+03:00"}[where]
    call_command("consume_order_events", "--once", "--from", given)
    assert [order for order, _ in django_shop.moved] == ([old, new] if where == "all" else [new])
    call_command("consume_order_events", "--once")
    assert len(django_shop.unconsumed) == (0 if where == "all" else 1)


@pytest.mark.parametrize("where", ["yesterday", "-1", "2026-13-01", " "])
def test_from_refuses_what_it_is_not(django_shop: DjangoShop, where: str) -> None:
    with pytest.raises(CommandError, match="--from"):
        call_command("consume_order_events", "--once", f"--from={where}")


def test_a_dry_run_changes_nothing(django_shop: DjangoShop) -> None:
    django_shop.sql.execute("DELETE FROM order_monitor_consumer")
    order_id = django_shop.ended()
    event_id = django_shop.event(order_id, "failed")
    out = StringIO()
    call_command("consume_order_events", "--dry-run", "--from=all", stdout=out)
    first, second = out.getvalue().splitlines()
    assert (order_id in first, "moves money" in first) == (True, True)
    assert (second.split()[0], "an earlier event of its order waits" in second) == (
        str(event_id),
        True,
    )
    assert len(django_shop.unconsumed) == 2
    assert django_shop.all("SELECT * FROM order_monitor_consumer") == []


# --- handlers that fail


def test_what_fails_holds_back_only_its_own_order(django_shop: DjangoShop) -> None:
    poison, other = django_shop.ended(), django_shop.ended()
    (first, _), later = django_shop.unconsumed, django_shop.event(poison, "failed")
    with consuming(failing(poison), max_attempts=3) as consumer:
        drain(consumer)
        assert django_shop.moved == [(other, "debit")]
        assert django_shop.attempt(first) == (1, False, "ValueError: no")
        drain(consumer, 5)
    assert django_shop.attempt(first)[:2] == (3, True)
    assert django_shop.unconsumed == [first, later]
    assert django_shop.moved == [(other, "debit")]


def test_it_pauses_longer_each_time(django_shop: DjangoShop) -> None:
    poison = django_shop.ended()
    seconds = "SELECT round(extract(epoch FROM next_at - last_at))::int FROM order_monitor_attempts"
    with consuming(failing(poison), first_pause=5, longest_pause=30) as consumer:
        for pause in (5, 10, 20, 30, 30):
            assert consumer.take() is Taken.FAILED
            assert consumer.take() is Taken.NOTHING
            assert django_shop.one(seconds) == pause
            django_shop.sql.execute("UPDATE order_monitor_attempts SET next_at = now()")


def test_a_clock_that_goes_back_lengthens_no_pause(django_shop: DjangoShop) -> None:
    """As after a fail-over to a server that is behind: the last attempt is then yet to come."""
    order_id = django_shop.ended()
    with consuming(failing(order_id), first_pause=5, longest_pause=30) as consumer:
        assert consumer.take() is Taken.FAILED
    django_shop.sql.execute(
        "UPDATE order_monitor_attempts SET first_at = first_at + interval '10 h', "
        "last_at = last_at + interval '10 h', next_at = next_at + interval '10 h'"
    )
    with consuming() as consumer:
        assert consumer.take() is Taken.DONE
    assert django_shop.moved == [(order_id, "debit")]


def test_what_is_set_aside_can_be_tried_again(django_shop: DjangoShop) -> None:
    poison = django_shop.ended()
    (event_id,) = django_shop.unconsumed
    with consuming(failing(poison), max_attempts=1) as consumer:
        drain(consumer, 2)
    out = StringIO()
    call_command("order_events_in_trouble", stdout=out)
    assert f"{event_id}  {poison}  1 attempts, set aside: ValueError: no" in out.getvalue()
    call_command("order_events_in_trouble", "--retry", str(event_id), stdout=out)
    with consuming() as consumer:
        drain(consumer)
    assert django_shop.moved == [(poison, "debit")]
    assert django_shop.unconsumed == []
    with pytest.raises(CommandError, match="none of these"):
        call_command("order_events_in_trouble", "--retry", str(event_id))
    call_command("order_events_in_trouble", "--retry", "all", stdout=out)
    assert "0 to be tried again" in out.getvalue(), (
        "a step of the guide that need not find anything"
    )


def test_a_person_may_say_that_it_is_done(django_shop: DjangoShop) -> None:
    poison = django_shop.ended()
    (event_id,) = django_shop.unconsumed
    later = django_shop.event(poison, "processing")
    with consuming(failing(poison), max_attempts=2) as consumer:
        drain(consumer)
        assert not say_done(consumer.side, event_id, "x", "me"), "it is still tried"
        drain(consumer)
        with pytest.raises(CommandError, match="needs --reason"):
            call_command("order_events_in_trouble", "--done", str(event_id))
        call_command(
            "order_events_in_trouble",
            "--done",
            str(event_id),
            "--reason",
            "by hand",
            stdout=StringIO(),
        )
        assert django_shop.unconsumed == [later]
        assert try_again(consumer.side, None) == 0
    assert django_shop.moved == []


def test_what_fails_for_all_sets_nothing_aside(
    django_shop: DjangoShop, caplog: pytest.LogCaptureFixture
) -> None:
    ids = [django_shop.ended() for _ in range(7)]
    is_mended = False

    def handler(event: Event, order: Any) -> None:
        (handle if is_mended else failing(*ids))(event, order)

    with consuming(handler, max_attempts=2) as consumer, caplog.at_level(logging.INFO):
        drain(consumer, 25)
        assert consumer.is_broken
        assert django_shop.one("SELECT max(attempts) FROM order_monitor_attempts") > 2
        assert (
            django_shop.one(
                "SELECT count(*) FROM order_monitor_attempts WHERE set_aside_at IS NOT NULL"
            )
            == 0
        )
        assert "The handler fails for one order after the other" in caplog.text
        is_mended = True
        drain(consumer)
    assert sorted(order for order, _ in django_shop.moved) == sorted(ids)
    assert "The handler works again" in caplog.text


def test_what_fails_for_all_is_seen_across_processes(
    django_shop: DjangoShop, caplog: pytest.LogCaptureFixture
) -> None:
    """A restart, ``--once`` and each request of the receiver begin without any memory."""
    ids = [django_shop.ended() for _ in range(7)]
    for _ in range(5):
        django_shop.sql.execute("UPDATE order_monitor_attempts SET next_at = now()")
        for _ in ids:
            with consuming(failing(*ids), max_attempts=3, first_pause=600) as consumer:
                assert consumer.take() is Taken.FAILED
        soon = "SELECT max(next_at) <= now() + interval '61 s' FROM order_monitor_attempts"
        assert django_shop.one(soon), "what failed before all did is tried again soon, too"
    rows = django_shop.all("SELECT attempts, set_aside_at, failing FROM order_monitor_attempts")
    assert rows == [(5, None, True)] * len(ids)
    with consuming() as consumer:
        drain(consumer)
    assert sorted(order for order, _ in django_shop.moved) == sorted(ids)
    assert caplog.text.count("The handler fails for one order after the other") == 1
    assert "The handler works again" in caplog.text


def test_a_success_tells_the_poison_from_the_handler(django_shop: DjangoShop) -> None:
    """Many orders may fail: if others succeed meanwhile, each is at fault itself."""
    ids = [django_shop.ended() for _ in range(7)]
    for _ in range(4):
        django_shop.ended()
        django_shop.sql.execute("UPDATE order_monitor_attempts SET next_at = now()")
        with consuming(failing(*ids), max_attempts=3) as consumer:
            while consumer.take() is not Taken.NOTHING:
                pass
    aside = django_shop.all("SELECT set_aside_at IS NOT NULL FROM order_monitor_attempts")
    assert aside == [True] * 7
    assert len(django_shop.moved) == 4


def test_what_the_handler_ignores_proves_nothing(django_shop: DjangoShop) -> None:
    ids = [django_shop.ended() for _ in range(7)]
    for _ in range(5):
        django_shop.event(django_shop.order(), "late")
        django_shop.sql.execute("UPDATE order_monitor_attempts SET next_at = now()")
        with consuming(failing(*ids), max_attempts=3) as consumer:
            while consumer.take() is not Taken.NOTHING:
                pass
    assert not any(django_shop.all("SELECT set_aside_at IS NOT NULL FROM order_monitor_attempts"))


def test_if_all_kill_their_consumer_none_is_set_aside(django_shop: DjangoShop) -> None:
    ids = [django_shop.ended() for _ in range(6)]
    # All but the first have begun their sixth attempt, which shows that the fifth did not finish.
    django_shop.sql.execute(
        "INSERT INTO order_monitor_attempts "
        "(event_id, order_id, attempts, unfinished, failing, first_at, last_at, next_at, error) "
        "SELECT id, order_id, 5 + begun::int, 5 + begun::int, begun, now(), now(), now(), 'x' "
        "FROM (SELECT *, id > min(id) OVER () AS begun FROM order_monitor_events) e"
    )
    with consuming(max_attempts=5) as consumer:
        drain(consumer)
    assert sorted(order for order, _ in django_shop.moved) == sorted(ids)


@pytest.mark.parametrize("is_caught", [True, False])
def test_a_database_error_of_the_handler_costs_nothing(
    django_shop: DjangoShop, *, is_caught: bool
) -> None:
    order_id, other = django_shop.ended(), django_shop.ended()

    def handler(event: Event, order: Any) -> None:
        handle(event, order)
        if event.order_id == order_id:
            try:
                with connection.cursor() as cursor:
                    cursor.execute("SELECT 1 / 0")
            except Exception:
                if not is_caught:
                    raise

    with consuming(handler) as consumer:
        drain(consumer)
    assert django_shop.moved == [(other, "debit")]
    assert len(django_shop.unconsumed) == 1


def test_what_the_commit_refuses_is_undone(django_shop: DjangoShop) -> None:
    django_shop.sql.execute(
        "CREATE TABLE refuses (order_id uuid UNIQUE DEFERRABLE INITIALLY DEFERRED); "
        "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN "
        "INSERT INTO refuses VALUES (NEW.order_id), (NEW.order_id); RETURN NEW; END $$; "
        "CREATE TRIGGER refuse BEFORE INSERT ON wallet_entries FOR EACH ROW EXECUTE FUNCTION refuse()"
    )
    django_shop.ended()
    (event_id,) = django_shop.unconsumed
    with consuming() as consumer:
        drain(consumer)
        assert (django_shop.moved, django_shop.unconsumed) == ([], [event_id])
        assert "IntegrityError" in django_shop.attempt(event_id)[2]
        django_shop.sql.execute("DROP TRIGGER refuse ON wallet_entries")
        drain(consumer)
    assert len(django_shop.moved) == 1


def _by_django() -> None:
    transaction.commit()


def _by_sql() -> None:
    with connection.cursor() as cursor:
        cursor.execute("COMMIT")


def _by_driver() -> None:
    connection.connection.commit()


@pytest.mark.parametrize("commit", [_by_django, _by_sql, _by_driver])
@pytest.mark.parametrize("then", [True, False])
def test_a_handler_that_commits_by_itself_moves_money_once(
    django_shop: DjangoShop, commit: Any, *, then: bool
) -> None:
    django_shop.ended()
    (event_id,) = django_shop.unconsumed

    def handler(event: Event, order: Any) -> None:
        if not then:
            handle(event, order)
        commit()
        if then:
            handle(event, order)

    with consuming(handler, max_attempts=3) as consumer:
        drain(consumer, 5)
    assert len(django_shop.moved) == (commit is _by_driver and not then)
    assert django_shop.attempt(event_id)[1]
    if commit is _by_driver:
        assert "the handler ended the transaction by itself" in django_shop.attempt(event_id)[2]


def test_a_rollback_without_an_error_is_one(django_shop: DjangoShop) -> None:
    """Otherwise the event would be consumed without effect."""
    django_shop.ended()
    (event_id,) = django_shop.unconsumed

    def handler(event: Event, order: Any) -> None:
        handle(event, order)
        transaction.set_rollback(True)

    with consuming(handler) as consumer:
        drain(consumer)
    assert django_shop.unconsumed == [event_id]
    assert "asked for a rollback" in django_shop.attempt(event_id)[2]


@pytest.mark.parametrize("is_greedy", [True, False])
@pytest.mark.parametrize("where", ["python", "database"])
def test_a_handler_that_hangs_is_stopped(
    django_shop: DjangoShop, where: str, *, is_greedy: bool
) -> None:
    order_id, other = django_shop.ended(), django_shop.ended()
    (event_id, _) = django_shop.unconsumed

    def hang(event: Event) -> None:
        if event.order_id == order_id and where == "python":
            time.sleep(60)
        elif event.order_id == order_id:
            with connection.cursor() as cursor:
                cursor.execute("SELECT pg_sleep(60)")

    def handler(event: Event, order: Any) -> None:
        handle(event, order)
        try:
            hang(event)
        except Exception:
            if not is_greedy:
                raise

    began = time.monotonic()
    with consuming(handler, handler_timeout=0.3) as consumer:
        drain(consumer)
    assert time.monotonic() - began < 50
    assert django_shop.moved == [(other, "debit")]
    assert django_shop.unconsumed == [event_id]
    assert signal.getitimer(signal.ITIMER_REAL) == (0, 0)


def taking_one(handler: Handler, is_in: threading.Event) -> threading.Thread:
    """Another consumer, which takes one event; returns once its handler says that it ``is_in``."""

    def run() -> None:
        with consuming(handler) as consumer:
            consumer.take()
        connections.close_all()

    thread = threading.Thread(target=run)
    thread.start()
    assert is_in.wait(20)
    return thread


def test_a_slow_one_holds_nobody_up(django_shop: DjangoShop) -> None:
    """Meanwhile another consumer processes the other orders, but not the slow one's later
    events.
    """
    slow, other = [django_shop.ended(user=django_shop.user()) for _ in range(2)]
    django_shop.event(slow, "processing")
    is_in, may_go = threading.Event(), threading.Event()

    def handler(event: Event, order: Any) -> None:
        handle(event, order)
        is_in.set()
        may_go.wait(30)

    thread = taking_one(handler, is_in)
    with consuming() as consumer:
        while consumer.take() is Taken.DONE:
            pass
    assert django_shop.moved == [(other, "debit")]
    may_go.set()
    thread.join()
    assert sorted(django_shop.moved) == sorted([(slow, "debit"), (other, "debit")])


def test_several_share(django_shop: DjangoShop) -> None:
    ids = [django_shop.ended() for _ in range(60)]
    counts: list[int] = []

    def run() -> None:
        with consuming() as consumer:
            done = 0
            while consumer.take() is Taken.DONE:
                done += 1
            counts.append(done)
        connections.close_all()

    threads = [threading.Thread(target=run) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    with consuming() as consumer:
        drain(consumer)
    assert sorted(order for order, _ in django_shop.moved) == sorted(ids)
    assert sum(1 for count in counts if count) >= 2


def test_what_follows_the_commit_may_fail(
    django_shop: DjangoShop, caplog: pytest.LogCaptureFixture
) -> None:
    order_id = django_shop.ended()

    def mail() -> None:
        raise OSError("no mail")

    def handler(event: Event, order: Any) -> None:
        handle(event, order)
        transaction.on_commit(mail)

    with consuming(handler) as consumer:
        drain(consumer, 2)
    assert django_shop.moved == [(order_id, "debit")]
    assert django_shop.unconsumed == []
    assert "what was to follow its commit failed" in caplog.text


@pytest.mark.parametrize("where", ["python", "database"])
def test_what_follows_the_commit_is_stopped_too(
    django_shop: DjangoShop, caplog: pytest.LogCaptureFixture, where: str
) -> None:
    order_id, other = django_shop.ended(), django_shop.ended()

    def hang() -> None:
        if where == "python":
            time.sleep(60)
        else:
            with connection.cursor() as cursor:
                cursor.execute("SELECT pg_sleep(60)")

    def handler(event: Event, order: Any) -> None:
        handle(event, order)
        if event.order_id == order_id:
            transaction.on_commit(hang)

    began = time.monotonic()
    with consuming(handler, handler_timeout=0.3) as consumer:
        drain(consumer)
    assert time.monotonic() - began < 50
    assert django_shop.moved == [(order_id, "debit"), (other, "debit")]
    assert django_shop.unconsumed == []
    assert django_shop.all("SELECT event_id FROM order_monitor_attempts") == []
    assert "what was to follow the commit took longer than 0.3 s" in caplog.text
    assert signal.getitimer(signal.ITIMER_REAL) == (0, 0)


def test_the_connection_is_kept(django_shop: DjangoShop) -> None:
    """A new one for each event would cost more than the event; a lost one is replaced."""
    for _ in range(3):
        django_shop.ended()
    seen: list[int] = []

    def handler(event: Event, order: Any) -> None:
        handle(event, order)
        with connection.cursor() as cursor:
            cursor.execute("SELECT pg_backend_pid()")
            seen.append(cursor.fetchone()[0])

    with consuming(handler) as consumer:
        assert [consumer.take() for _ in range(2)] == [Taken.DONE] * 2
        django_shop.sql.execute("SELECT pg_terminate_backend(%s)", [seen[0]])
        assert consumer.take() is Taken.DONE
    assert len(django_shop.moved) == 3
    assert (seen[0] == seen[1], seen[1] == seen[2]) == (True, False)


@pytest.mark.long
def test_an_attempt_that_did_not_finish_is_kept_for_a_person(django_shop: DjangoShop) -> None:
    """The handler committed by itself, and its consumer ended: nobody knows what it had still to
    do.
    """
    order_id = django_shop.ended()
    (event_id,) = django_shop.unconsumed
    process = start(django_shop, CONSUME, SHOP_HANDLER=f"{__name__}.commits_and_dies")
    process.communicate(timeout=60)
    assert django_shop.unconsumed == []
    with consuming() as consumer:
        django_shop.sql.execute(
            "UPDATE order_monitor_attempts SET next_at = now() + interval '1 h'"
        )
        clean_up(consumer.side)
        assert not django_shop.attempt(event_id)[1], "it may be still at work"
        django_shop.sql.execute("UPDATE order_monitor_attempts SET next_at = now()")
        clean_up(consumer.side)
    attempts, is_aside, error = django_shop.attempt(event_id)
    assert (attempts, is_aside) == (1, True)
    assert "see whether all of it was done" in error
    assert django_shop.moved == [(order_id, "debit")]


def commits_and_dies(event: Event, order: Any) -> None:
    handle(event, order)
    _by_driver()
    os.kill(os.getpid(), signal.SIGKILL)


def test_another_database_is_kept_out_of(django_shop: DjangoShop) -> None:
    django_shop.ended()
    (event_id,) = django_shop.unconsumed

    def handler(event: Event, order: Any) -> None:
        assert ProductOrder.objects.using("other").count() == 1
        with connections["other"].cursor() as cursor:
            cursor.execute("UPDATE users SET balance = 0")

    with consuming(handler) as consumer:
        drain(consumer)
    assert "writes into the database 'other'" in django_shop.attempt(event_id)[2]
    assert django_shop.one("SELECT balance FROM users") == 1000
    with consuming(handler, other_databases=("other",)) as consumer:
        drain(consumer)
    assert django_shop.one("SELECT balance FROM users") == 0


def test_a_pin_in_an_error_is_blotted_out(
    django_shop: DjangoShop, caplog: pytest.LogCaptureFixture
) -> None:
    order_id = django_shop.order(pinCode="AB12-CD34")
    event_id = django_shop.event(order_id, has_pin=True)
    error = ValueError("could not text ab12 cd34 to the customer")
    with consuming(failing(order_id, error=error), max_attempts=1) as consumer:
        drain(consumer, 2)
    said = django_shop.attempt(event_id)[2] + caplog.text
    assert "could not text **** to the customer" in said
    assert "cd34" not in said.lower()


def test_a_pin_in_an_error_after_the_commit_is_blotted_out(
    django_shop: DjangoShop, caplog: pytest.LogCaptureFixture
) -> None:
    django_shop.event(django_shop.order(pinCode="AB12-CD34"), has_pin=True)

    def text() -> None:
        raise ValueError("could not text ab12 cd34 to the customer")

    with consuming(lambda *_: transaction.on_commit(text)) as consumer:
        drain(consumer)
    assert "could not text **** to the customer" in caplog.text
    assert "cd34" not in caplog.text.lower()


# --- orders and tables that are not as they were


def test_an_order_that_is_gone_is_for_a_person(django_shop: DjangoShop) -> None:
    gone, other = django_shop.ended(), django_shop.ended()
    (event_id, _) = django_shop.unconsumed
    silent = django_shop.order()
    django_shop.event(silent, "processing")
    django_shop.sql.execute("DELETE FROM product_orders WHERE id IN (%s, %s)", [gone, silent])
    with consuming() as consumer:
        drain(consumer)
    assert django_shop.moved == [(other, "debit")]
    assert django_shop.unconsumed == [event_id]
    assert django_shop.attempt(event_id) == (1, True, "its order is not in the table any more")


def test_newer_columns_are_left_out(django_shop: DjangoShop) -> None:
    django_shop.sql.execute("ALTER TABLE order_monitor_events ADD COLUMN mood text DEFAULT 'fine'")
    order_id = django_shop.ended()
    call_command("consume_order_events", "--once")
    assert django_shop.moved == [(order_id, "debit")]


def test_an_outcome_of_a_newer_version_moves_no_money(django_shop: DjangoShop) -> None:
    django_shop.event(django_shop.order(), "late")
    call_command("consume_order_events", "--once")
    assert (django_shop.moved, django_shop.unconsumed) == ([], [])


@pytest.mark.long
def test_an_event_without_an_outcome_is_for_a_person(django_shop: DjangoShop) -> None:
    """An older version wrote it: taken for one that moves no money, it would lose a refund."""
    order_id, gone = django_shop.ended("failed"), django_shop.ended("failed")
    django_shop.sql.execute("UPDATE order_monitor_events SET outcome = NULL")
    django_shop.sql.execute("DELETE FROM product_orders WHERE id = %s", [gone])
    first, second = django_shop.unconsumed
    repeat = django_shop.event(django_shop.order(), repeat=True)
    django_shop.sql.execute(
        "UPDATE order_monitor_events SET outcome = NULL WHERE id = %s", [repeat]
    )
    out = StringIO()
    call_command("consume_order_events", "--dry-run", stdout=out)
    assert out.getvalue().count("what it means is not known") == 2
    with consuming() as consumer:
        drain(consumer)
    assert (django_shop.moved, django_shop.unconsumed) == ([], [first, second])
    for event_id in (first, second):
        assert django_shop.attempt(event_id)[1], "set aside at once"
        assert "run order-monitor migrate" in django_shop.attempt(event_id)[2]
    call_command("migrate", "order_monitor", "zero", verbosity=0)
    call_command("migrate", "order_monitor", verbosity=0)
    call_command("order_events_in_trouble", "--retry", str(first), stdout=out)
    with consuming() as consumer:
        drain(consumer)
    assert django_shop.moved == [(order_id, "refund")]


# --- once


def test_once_says_that_something_still_waits(django_shop: DjangoShop) -> None:
    """Whoever goes back to the old monitor must not leave an event behind."""
    poison = django_shop.ended()
    with consuming(failing(poison)) as consumer:
        drain(consumer)
    with pytest.raises(CommandError, match="0 failed, 1 still wait, 0 of them set aside") as caught:
        call_command("consume_order_events", "--once")
    assert caught.value.returncode == 1
    django_shop.sql.execute("UPDATE order_monitor_attempts SET set_aside_at = now()")
    with pytest.raises(CommandError, match="1 still wait, 1 of them set aside"):
        call_command("consume_order_events", "--once")
    call_command("order_events_in_trouble", "--retry", "all", stdout=StringIO())
    call_command("consume_order_events", "--once")
    assert django_shop.moved == [(poison, "debit")]


def test_once_waits_for_what_another_consumer_does(django_shop: DjangoShop) -> None:
    slow = django_shop.ended()
    later = django_shop.event(slow, "processing")
    is_in = threading.Event()

    def handler(event: Event, order: Any) -> None:
        handle(event, order)
        is_in.set()
        time.sleep(1)

    thread = taking_one(handler, is_in)
    call_command("consume_order_events", "--once")
    thread.join()
    assert (django_shop.moved, django_shop.unconsumed) == ([(slow, "debit")], [])
    assert later


def test_once_does_not_wait_for_what_came_later(django_shop: DjangoShop) -> None:
    """In a busy shop, another consumer is always at work."""
    order_id = django_shop.ended()
    with psycopg.connect(django_shop.dsn) as other:

        def handler(event: Event, order: Any) -> None:
            handle(event, order)
            django_shop.ended()
            other.execute("SELECT FROM order_monitor_events WHERE id > %s FOR UPDATE", [event.id])

        began = time.monotonic()
        with consuming(handler) as consumer:
            assert consumer.run_once(consumer.newest()) == 0
            assert consumer.count_waiting(1) == (0, 0)
            assert consumer.count_waiting(2) == (1, 0)
        assert time.monotonic() - began < 50
    assert django_shop.moved == [(order_id, "debit")]


def test_once_gives_up_a_broken_handler(django_shop: DjangoShop) -> None:
    """It does not try it on the whole backlog; a single poisoned order does not end it."""
    ids = [django_shop.ended() for _ in range(9)]
    with consuming(failing(*ids)) as consumer:
        assert consumer.run_once(9) == 5
        assert consumer.run_once(9) == 1, "the table knows; it tries one more"
    with consuming(failing(ids[6])) as consumer:
        drain(consumer)
    assert django_shop.unconsumed == [7]


def test_without_time_zones(django_shop: DjangoShop) -> None:
    got: list[Event] = []
    with override_settings(USE_TZ=False):
        for one in connections.all():
            one.close()
            for name in ("timezone", "timezone_name"):
                one.__dict__.pop(name, None)
        django_shop.ended()
        with consuming(lambda event, _: got.append(event)) as consumer:
            drain(consumer)
        call_command("consume_order_events", "--once", "--from", "2026-01-01")
    for one in connections.all():
        one.close()
        for name in ("timezone", "timezone_name"):
            one.__dict__.pop(name, None)
    assert abs(got[0].decided_at.timestamp() - time.time()) < 60


# --- notifications


def _run_until(consumer: Consumer, is_done: Any, seconds: float = 20) -> None:
    """Run in this thread until the condition holds."""

    def watch() -> None:
        end = time.monotonic() + seconds
        while not is_done() and time.monotonic() < end:
            time.sleep(0.02)
        consumer.is_stopping = True

    thread = threading.Thread(target=watch)
    thread.start()
    consumer.run()
    thread.join()


def test_a_notification_wakes_it(django_shop: DjangoShop) -> None:
    timer = threading.Timer(0.5, django_shop.ended)
    with consuming(poll=600) as consumer:
        django_shop.user()
        timer.start()
        began = time.monotonic()
        with psycopg.connect(django_shop.dsn, autocommit=True) as own:
            sql = "SELECT count(*) FROM wallet_entries"
            _run_until(consumer, lambda: own.execute(sql).fetchone() == (1,))
    assert time.monotonic() - began < 60
    timer.join()


def test_behind_a_pooler_it_polls(
    django_shop: DjangoShop, server: EmbeddedPostgres, caplog: pytest.LogCaptureFixture
) -> None:
    with pooler(server, django_shop.dsn) as dsn:
        point_to(dsn)
        order_id = django_shop.ended()
        with consuming(poll=0.1) as consumer:
            _run_until(consumer, lambda: not django_shop.unconsumed)
            consumer.is_stopping = False
            later = django_shop.ended()
            _run_until(consumer, lambda: not django_shop.unconsumed)
        point_to(django_shop.dsn)
    assert django_shop.moved == [(order_id, "debit"), (later, "debit")]
    assert caplog.text.count("No notifications (there is a pooler before the database)") == 1


def test_a_lost_connection_is_made_anew(
    django_shop: DjangoShop, caplog: pytest.LogCaptureFixture
) -> None:
    django_shop.user()
    cut = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"

    def handler(event: Event, order: Any) -> None:
        handle(event, order)
        if (
            len(django_shop.all("SELECT event_id FROM order_monitor_attempts WHERE attempts = 1"))
            == 1
        ):
            django_shop.sql.execute(cut)

    order_id = django_shop.ended()
    with consuming(handler, poll=0.1, first_pause=0.1) as consumer, caplog.at_level(logging.INFO):
        _run_until(consumer, lambda: not django_shop.unconsumed)
    assert django_shop.moved == [(order_id, "debit")]
    assert "The database cannot be reached; trying again" in caplog.text
    assert "The database is reached again." in caplog.text


# --- as a process


def start(shop: DjangoShop, code: str, **env: str) -> "subprocess.Popen[str]":
    """Run some code in a separate project."""
    before = "import django; django.setup();"
    return subprocess.Popen(
        [sys.executable, "-c", before + code],
        cwd=ROOT,
        env={
            **os.environ,
            "PYTHONPATH": str(ROOT),
            "DJANGO_SETTINGS_MODULE": "tests.contrib.project",
            "SHOP_DSN": shop.dsn,
            **env,
        },
        stderr=subprocess.PIPE,
        text=True,
    )


CONSUME = "from django.core.management import call_command; call_command('consume_order_events')"


def dies(event: Event, order: Any) -> None:
    handle(event, order)
    os.kill(os.getpid(), signal.SIGKILL)


def hangs(event: Event, order: Any) -> None:
    handle(event, order)
    while True:
        try:
            time.sleep(60)
        except BaseException:  # noqa: BLE001 - it does not let itself be stopped
            logging.getLogger(__name__).info("not me")


@pytest.mark.long
def test_what_kills_its_consumer_is_counted_and_set_aside(django_shop: DjangoShop) -> None:
    django_shop.ended()
    (event_id,) = django_shop.unconsumed
    short = "from django.conf import settings; settings.ORDER_MONITOR |= {'MAX_ATTEMPTS': 2, 'FIRST_PAUSE': 0.001};"
    once = CONSUME.replace("')", "', '--once')")
    for _ in range(2):
        assert start(django_shop, short + once, SHOP_HANDLER=f"{__name__}.dies").communicate(
            timeout=60
        )
    assert django_shop.attempt(event_id) == (2, False, "its consumer ended before it was done")
    process = start(django_shop, short + once, SHOP_HANDLER=f"{__name__}.dies")
    process.communicate(timeout=60)
    assert process.returncode == 1
    assert django_shop.attempt(event_id)[1]
    assert django_shop.moved == []


@pytest.mark.long
def test_what_cannot_be_stopped_takes_the_process_with_it(django_shop: DjangoShop) -> None:
    django_shop.ended()
    (event_id,) = django_shop.unconsumed
    short = (
        "from django.conf import settings; settings.ORDER_MONITOR['HANDLER_TIMEOUT'] = 0.3;"
        "from order_monitor.contrib.django import consumer; consumer._GRACE = 0.5;"
    )
    process = start(django_shop, short + CONSUME, SHOP_HANDLER=f"{__name__}.hangs")
    _, said = process.communicate(timeout=60)
    assert process.returncode == 70
    assert "The handler, or what follows its commit, hangs" in said
    assert django_shop.unconsumed == [event_id]
    assert django_shop.attempt(event_id)[0] == 1


@pytest.mark.long
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_it_stops_when_it_is_asked_to(django_shop: DjangoShop, number: signal.Signals) -> None:
    django_shop.ended()
    process = start(django_shop, CONSUME)
    end = time.monotonic() + 30
    while django_shop.unconsumed and time.monotonic() < end:
        time.sleep(0.05)
    process.send_signal(number)
    process.communicate(timeout=40)
    assert process.returncode == 0
    assert len(django_shop.moved) == 1


def test_a_missing_handler_is_told(django_shop: DjangoShop) -> None:
    django_shop.ended()
    for path in (
        "tests.contrib.shop.money.gone",
        "tests.contrib.shop.money.parents_of",
        "nothing.at.all",
    ):
        with pytest.raises(CommandError, match="HANDLER"):
            call_command("consume_order_events", "--once", "--handler", path)
    assert len(django_shop.unconsumed) == 1
