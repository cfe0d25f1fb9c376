"""Leases on accounts, over a real PostgreSQL; the looks follow each other quickly."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager
from typing import Any

import pytest
from structlog.testing import capture_logs

from order_monitor.cluster import handover
from order_monitor.cluster.members import LEASE
from order_monitor.cluster.membership import Session
from order_monitor.cluster.takeover import Last, Takeover
from order_monitor.core.errors import ShopUnavailableError
from order_monitor.core.gate import Pace
from order_monitor.core.tracked_order import Stage as At
from order_monitor.shop.locks import OLD_MEMBER, lock_class
from order_monitor.shop.reading.orders import ALL, Part, Scan, Take
from order_monitor.watch.account import NOT_HELD, Account, LoginAccounts, by_login
from order_monitor.watch.engine import Engine
from order_monitor.watch.observer import Observer
from tests.support import stages
from tests.support.members import NAMES, House, Process, house, quick, until

__all__ = ["house", "quick"]


@pytest.mark.long
async def test_shares_follow_who_is_there(house: House) -> None:
    one = house.start("one")
    await until(lambda: one.held() == set(NAMES) and one.cluster.leads)
    two = house.start("two")
    await until(lambda: len(one.held()) == len(two.held()) == 2 and not one.held() & two.held())
    assert {one.cluster.owners()[name] for name in one.held()} == {one.cluster.view.me.name}  # type: ignore[union-attr]
    await house.stop("one")
    assert one.held() == set(), "who leaves asks nothing"
    await until(lambda: two.held() == set(NAMES) and two.cluster.leads)


async def test_who_may_ask_nothing_leaves_all_to_the_others(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its settings differ, for example: until it is restarted, or a person adopts them."""
    two = house.start("two")
    await until(lambda: two.cluster.leads)
    one = house.start("one")
    await until(lambda: len(one.held()) == len(two.held()) == 2)
    two.stage.engine.context.hold_for("settings", "settings differ")
    await until(lambda: one.held() == set(NAMES) and not two.held())
    await until(lambda: one.cluster.leads and not two.cluster.leads)
    one.stage.engine.context.hold_for("settings", "settings differ")
    await until(lambda: not one.held() and not two.held())
    assert one.cluster.leads, "where none works, one does for all what it may"
    one.stage.engine.context.hold_for("settings", "")
    await until(lambda: one.held() == set(NAMES))
    two.stage.engine.context.hold_for("settings", "")
    monkeypatch.setattr(handover, "KEPT_FOR", 0.0)
    await until(lambda: len(one.held()) == len(two.held()) == 2)


async def test_who_knows_no_account_yet_joins_with_the_first_scan(house: House) -> None:
    """It would not know whose the others' locks are, which may be gone at the next look."""
    one = Process(house.shop, "one", ())
    house.join("one", one)
    other = house.start("other")
    await until(other.held)
    assert one.cluster.view is None
    assert one.cluster.problem == "not joined yet"
    one.stage.shelf.away = True
    with pytest.raises(ShopUnavailableError):
        await one.stage.begin()
    await until(lambda: one.cluster.view)


async def busy(house: House) -> tuple[Process, Process]:
    """Return a process whose accounts all have a call under way, and one that is to get two."""
    one = house.start("one")
    await until(lambda: one.held() == set(NAMES))
    for account in one.accounts.values():
        account.calls["a call"] = 0.0
    two = house.start("two")
    await until(lambda: len(one.held()) == 2)
    return one, two


@pytest.mark.long
@pytest.mark.wall_clock
async def test_an_account_is_given_when_nothing_of_it_is_under_way(house: House) -> None:
    one, two = await busy(house)
    await asyncio.sleep(0.2)
    assert two.held() == set()
    for account in one.accounts.values():
        account.calls.clear()
    await until(lambda: len(two.held()) == 2)
    assert not one.held() & two.held()


@pytest.mark.long
async def test_what_another_does_not_know_is_kept_and_moved_no_more(house: House) -> None:
    one = house.start("one")
    await until(lambda: one.held() == set(NAMES))
    two = house.start("two", ("x",))
    await until(lambda: two.held() == {"x"})
    await until(lambda: one.held() == set(NAMES))
    for _ in range(50):
        await asyncio.sleep(0.01)
        assert one.held() == set(NAMES)


@pytest.mark.long
async def test_an_account_that_is_gone_is_given(house: House) -> None:
    one = house.start("one")
    await until(lambda: one.held() == set(NAMES))
    gone = one.accounts.pop("a")
    two = house.start("two", ("a",))
    await until(lambda: two.held() == {"a"})
    assert gone.name == "a"


@pytest.mark.long
async def test_a_new_account_is_taken(house: House) -> None:
    one, two = house.start("one"), house.start("two")
    await until(lambda: len(one.held() | two.held()) == 4)
    for process in (one, two):
        process.accounts["e"] = Account(
            "e", stages.NeverAsked(), pace=Pace(10.0), lease_until=NOT_HELD
        )
    await until(lambda: len(one.held() | two.held()) == 5 and not one.held() & two.held())


async def beyond_many(house: House, monkeypatch: pytest.MonkeyPatch) -> Process:
    """A process with more accounts than are held without orders: two of four have some, and are
    held.
    """
    monkeypatch.setattr("order_monitor.cluster.handover.MANY", 3)
    one = Process(house.shop, "one", NAMES)
    one.stage.shelf.orders = [one.stage.order(100, "b"), one.stage.order(100, "d")]
    await one.stage.begin()
    house.tasks["one"] = asyncio.create_task(one.cluster.run())
    await until(lambda: one.held() == {"b", "d"})
    return one


async def test_of_very_many_accounts_only_those_with_orders_are_held(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each lock takes room that the shop's own statements need too."""
    one = await beyond_many(house, monkeypatch)
    await asyncio.sleep(0.1)
    assert one.held() == {"b", "d"}


@pytest.mark.wall_clock
async def test_who_is_stopping_takes_nothing_more(house: House) -> None:
    one = house.start("one")
    await until(lambda: one.held() == set(NAMES))
    one.stage.engine.dispatcher.stop()
    one.accounts["e"] = Account("e", stages.NeverAsked(), pace=Pace(10.0), lease_until=NOT_HELD)
    await asyncio.sleep(0.2)
    assert one.held() == set(NAMES), "what it holds it holds until its last question is answered"


async def test_a_lease_runs_out_by_itself(house: House) -> None:
    """Whoever stood still asks nothing when it comes to: its clock has gone on."""
    one = house.start("one")
    await until(lambda: one.held() == set(NAMES))
    account = one.accounts["a"]
    now = one.stage.clock.monotonic()
    assert account.may_start(now)
    assert not account.may_start(now + LEASE + 0.1)
    assert account.lease_until <= now + LEASE


async def test_a_lease_counts_from_the_question_and_not_from_its_answer(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A database that answers after three seconds: the lock may be gone since."""
    one = house.start("one")
    await until(lambda: one.held() == set(NAMES))
    clock, see, late = one.stage.clock, Session.see, [0.0]
    monotonic = clock.monotonic
    monkeypatch.setattr(clock, "monotonic", lambda: monotonic() + late[0])

    async def slow(self: Session, known: Any) -> Any:
        view = await see(self, known)
        late[0] += 3.0
        return view

    monkeypatch.setattr(Session, "see", slow)
    await until(lambda: late[0] >= 9)
    assert one.cluster.leads
    for until_when in (one.accounts["a"].lease_until, one.cluster.leads_until):
        assert until_when <= clock.monotonic() + LEASE - 3


async def test_an_account_is_given_a_look_after_its_last_call_has_ended(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By then what that call's answer has changed is stored, and the next holder reads it."""
    one, two = await busy(house)
    see, give, looks, ended_at, given_at = Session.see, Session.give, [0], [0], list[int]()

    async def seen(self: Session, known: Any) -> Any:
        view = await see(self, known)
        if view.me.name == one.cluster.view.me.name:  # type: ignore[union-attr]
            looks[0] += 1
            if not ended_at[0]:
                ended_at[0] = looks[0]
                for account in one.accounts.values():
                    account.calls.clear()
        return view

    async def gave(self: Session, keys: Any) -> None:
        given_at.append(looks[0])
        await give(self, keys)

    monkeypatch.setattr(Session, "see", seen)
    monkeypatch.setattr(Session, "give", gave)
    await until(lambda: len(two.held()) == 2)
    assert given_at[0] == ended_at[0] + 1


async def test_a_lost_connection_ends_the_leases_and_is_sought_anew(house: House) -> None:
    one = house.start("one")
    await until(lambda: one.held() == set(NAMES))
    first = one.cluster.view
    await house.shop.connection.execute(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name LIKE 'order-monitor one%'"
    )
    await until(lambda: one.cluster.view is None)
    assert one.held() == set()
    assert not one.cluster.leads, "another one may lead by now"
    assert one.cluster.problem
    await until(lambda: one.held() == set(NAMES))
    assert one.cluster.view != first
    assert not one.stage.shelf.read_again, "what it kept it need not read"


async def test_beside_an_older_version_it_waits_and_goes_on_without(house: House) -> None:
    one = house.start("one")
    await until(lambda: one.held() == set(NAMES))
    older = lock_class("public.product_orders", OLD_MEMBER)
    await house.shop.connection.execute("SELECT pg_advisory_lock($1::int4, 7)", older)
    await until(lambda: one.cluster.view is None)
    assert one.held() == set()
    assert "a process of version 0.1" in one.cluster.problem
    await house.shop.connection.execute("SELECT pg_advisory_unlock($1::int4, 7)", older)
    await until(lambda: one.held() == set(NAMES))


@asynccontextmanager
async def taken_over(house: House, ages: list[float]) -> AsyncIterator[tuple[Process, float]]:
    """A process that has seen another hold the account, and takes it over; and when."""
    async with AsyncExitStack():
        other = house.start("other", ("a",))
        await until(lambda: other.held() == {"a"})
        process = Process(house.shop, "process", ("a",))
        process.stage.shelf.orders = [process.stage.order(age, "a") for age in ages]
        await process.stage.begin()
        process.accounts["a"].gate.shut(process.stage.clock.monotonic(), "timeout", probe=False)
        house.tasks["process"] = asyncio.create_task(process.cluster.run())
        await until(lambda: process.cluster.view and len(process.cluster.view.members) == 2)
        await house.stop("other")
        await until(lambda: process.held() == {"a"})
        yield process, process.stage.engine.now()


async def test_what_the_holder_before_has_asked_is_not_asked_again(house: House) -> None:
    """Its latest slots, save those of the last seconds, whose answers may be lost with it."""
    # Slots are at 60, 90, 150, 270 s …, a little stretched.
    async with taken_over(house, [67, 75, 140, 30]) as (process, now):
        ages = {
            order.id: age
            for order, age in zip(process.stage.shelf.orders, (67, 75, 140, 30), strict=True)
        }
        due = {ages[entry.order.id]: entry.due - now for entry in process.stage.engine.queue}
        assert due[67] < 0, "its slot was a moment ago"
        assert due[75] < 0, "its slot was some ten seconds ago"
        assert due[140] > 0, "its slot was 50 s ago: it was asked"
        assert 0 < due[30] < 31
        assert process.accounts["a"].gate.is_open, (
            "what was known of the account is long out of date"
        )
        assert {e.stage for e in process.stage.engine.queue} <= {At.SCHEDULED, At.READY}


async def test_what_came_of_an_order_under_its_former_holder_is_read_and_not_remembered(
    house: House,
) -> None:
    one = house.start("one", ("a", "b"))
    one.stage.shelf.orders = [one.stage.order(40, name, registered=True) for name in ("a", "b")]
    told: list[dict[str, float]] = []

    class Told(Observer):
        def taken_over(self, accounts: Mapping[str, float]) -> None:
            told.append(dict(accounts))

    one.stage.observer.add(Told())
    await until(lambda: one.held() == {"a", "b"})
    other = house.start("other", ("a", "b"))
    await until(other.held)
    moved = next(iter(other.held()))
    await until(lambda: one.stage.engine.context.elsewhere.accounts == {moved})
    is_needed = one.stage.engine.dispatcher.refresh.is_needed
    await one.stage.begin()
    assert not any(map(is_needed, one.stage.engine.queue))
    for entry in one.stage.engine.queue:
        entry.note(unknown=1)
    await house.stop("other")
    await until(lambda: one.held() == {"a", "b"})
    for entry in one.stage.engine.queue:
        is_moved = entry.account == moved
        assert (entry.rare.unknown == 0) is is_moved
        assert not is_needed(entry)
    assert one.stage.shelf.read_again == {moved}
    assert [list(accounts) for accounts in told] == [[moved]]


async def test_what_was_read_before_an_account_was_held_is_read_again(house: House) -> None:
    """Another process may have ended it meanwhile, and be gone before this one saw it."""
    one = Process(house.shop, "one", ("a", "b"))
    one.stage.shelf.orders = [one.stage.order(40, name, registered=True) for name in ("a", "b")]
    await one.stage.begin()
    is_needed = one.stage.engine.dispatcher.refresh.is_needed
    assert not any(map(is_needed, one.stage.engine.queue))
    house.join("one", one)
    await until(lambda: one.held() == {"a", "b"})
    assert all(map(is_needed, one.stage.engine.queue))
    one.stage.shelf.away = True
    await one.stage.engine.discovery.refresh(list(one.stage.engine.queue))
    assert all(map(is_needed, one.stage.engine.queue)), "however long the shop's table is away"
    one.stage.shelf.away = False
    await one.stage.engine.discovery.refresh(list(one.stage.engine.queue))
    assert not any(map(is_needed, one.stage.engine.queue))


async def test_what_its_holder_was_behind_with_is_asked_at_once(house: House) -> None:
    """Held is not asked: its gate was shut, and the backlog is the next one's."""
    other = house.start("other", ("a",))
    await until(lambda: other.held() == {"a"})
    other.accounts["a"].gate.shut(other.stage.clock.monotonic(), "timeout", probe=False)
    process = Process(house.shop, "process", ("a",))
    process.stage.shelf.orders = [process.stage.order(age, "a") for age in (140, 30)]
    await process.stage.begin()
    house.tasks["process"] = asyncio.create_task(process.cluster.run())
    await until(
        lambda: (
            process.cluster.view and any(member.behind for member in process.cluster.view.members)
        )
    )
    await house.stop("other")
    await until(lambda: process.held() == {"a"})
    late, young = [process.stage.engine.queue.get(order.id) for order in process.stage.shelf.orders]
    now = process.stage.engine.now()
    assert late is not None
    assert young is not None
    assert (late.due < now, young.due > now) == (True, True)
    await until(lambda: process.cluster.view and not process.cluster.view.me.behind)


async def test_what_its_holder_could_not_check_again_is_known_by_when_it_last_kept_up(
    house: House,
) -> None:
    """A recheck that came due while its gate was shut was made by no process."""
    other = house.start("other", ("a",))
    await until(lambda: other.held() == {"a"})
    process = house.start("process", ("a",))
    told: list[dict[str, float]] = []

    class Told(Observer):
        def taken_over(self, accounts: Mapping[str, float]) -> None:
            told.append(dict(accounts))

    process.stage.observer.add(Told())
    await until(lambda: process.cluster.view and len(process.cluster.view.members) == 2)
    other.accounts["a"].gate.shut(other.stage.clock.monotonic(), "timeout", probe=False)
    await until(
        lambda: (
            process.cluster.view and any(member.behind for member in process.cluster.view.members)
        )
    )
    at = process.stage.engine.now()
    seen = process.cluster.view
    await until(lambda: process.cluster.view is not seen)
    await house.stop("other")
    await until(lambda: told)
    assert [accounts["a"] <= at for accounts in told] == [True]


async def test_who_is_behind_no_more_says_so(house: House) -> None:
    one = house.start("one")
    await until(lambda: one.held() == set(NAMES))
    gate = one.accounts["a"].gate
    gate.shut(one.stage.clock.monotonic(), "timeout", probe=False)
    await until(lambda: one.cluster.view and one.cluster.view.me.behind == {"a"})
    gate.restart()
    await until(lambda: one.cluster.view and not one.cluster.view.me.behind)
    assert one.held() == set(NAMES)


@pytest.mark.long
async def test_orders_that_end_while_they_are_taken_over_leave_the_queue_as_it_is() -> None:
    """Whatever a scan forgets in the middle, as many are due as are ready."""
    for turns in range(0, 40, 3):
        stage = stages.Stage(("a",))
        stage.shelf.orders = [stage.order(1000 + n, "a") for n in range(3000)]
        await stage.engine.scan()
        takeover = Takeover(stage.engine)
        stage.shelf.orders = stage.shelf.orders[:2500]
        scan = asyncio.create_task(stage.engine.discovery.scan())
        for _ in range(turns):
            await asyncio.sleep(0)
        await takeover.start({"a"}, {"a": Last(stage.engine.now(), is_behind=True, kept_up_at=0.0)})
        await scan
        while takeover.planning:
            await asyncio.sleep(0)
        queue = stage.engine.queue
        while queue.promote(stage.engine.now() + 1):
            pass
        assert queue.ready.count("a") == sum(entry.stage is At.READY for entry in queue) == 2500


async def test_while_very_many_are_taken_over_the_other_accounts_are_asked(house: House) -> None:
    one = house.start("one", ("a", "b"))
    await until(lambda: one.held() == {"a", "b"})
    takeover = one.cluster.takeover
    takeover.planning.add("b")
    await until(lambda: one.held() == {"a"})
    takeover.planning.discard("b")
    await until(lambda: one.held() == {"a", "b"})


@pytest.mark.wall_clock
async def test_an_account_whose_balance_is_being_read_is_not_given(house: House) -> None:
    """Nor one that is looked at after an order's end: a call is a call."""
    one = house.start("one")
    await until(lambda: one.held() == set(NAMES))
    now = one.stage.clock.monotonic()
    with ExitStack() as calls:
        for account in one.accounts.values():
            calls.enter_context(account.calling(now))
        two = house.start("two")
        await until(lambda: len(one.held()) == 2)
        await asyncio.sleep(0.2)
        assert two.held() == set()
    await until(lambda: len(two.held()) == 2)


async def test_beyond_many_accounts_one_whose_orders_have_ended_is_given(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = await beyond_many(house, monkeypatch)
    one.stage.shelf.orders = one.stage.shelf.orders[:1]
    await one.stage.begin()
    await until(lambda: one.cluster.view and one.cluster.view.me.keys == {"b"})
    one.stage.shelf.orders = [one.stage.order(100, "d")]
    await one.stage.begin()
    await until(lambda: one.held() == {"d"})


async def test_a_full_table_of_locks_is_said_and_what_is_held_goes_on(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = house.start("one", ("a",))
    await until(lambda: one.held() == {"a"})

    async def full(self: Session, keys: Any) -> frozenset[str]:
        self.is_full = True
        return frozenset()

    monkeypatch.setattr(Session, "acquire", full)
    with capture_logs() as lines:
        one.accounts["e"] = Account("e", stages.NeverAsked(), pace=Pace(10.0), lease_until=NOT_HELD)
        await until(lambda: any(line["event"] == "cluster.locks_full" for line in lines))
        await asyncio.sleep(0.1)
    assert sum(line["event"] == "cluster.locks_full" for line in lines) == 1, "once a minute"
    assert one.held() == {"a"}


async def test_a_lease_that_has_run_out_keeps_nobody_busy() -> None:
    stage = stages.Stage(("a",))
    stage.shelf.orders = [stage.order(1000, "a")]
    await stage.begin()
    stage.accounts["a"].lease_until = stage.clock.monotonic() - 1
    assert stage.engine.dispatcher.start_calls() > 1


# --- each member keeps the orders of its own accounts


def same_orders(*processes: Process, count: int = 12) -> list[Any]:
    """Open orders of all accounts in turn, which each of the processes reads."""
    shelf = processes[0].stage
    orders = [shelf.order(100.0 + n, NAMES[n % len(NAMES)]) for n in range(count)]
    for process in processes:
        process.stage.shelf.orders = list(orders)
    return orders


def kept(process: Process) -> set[str]:
    return {entry.account for entry in process.stage.engine.queue}


async def shared(house: House) -> tuple[Process, Process, list[Any]]:
    """Two processes, each with two of the accounts and their orders, and all orders."""
    one, two = house.start("one"), house.start("two")
    orders = same_orders(one, two)
    for process in (one, two):
        await process.stage.begin()
    await until(lambda: len(one.held()) == len(two.held()) == 2 and not one.held() & two.held())
    await until(lambda: kept(one) == one.held() and kept(two) == two.held())
    return one, two, orders


async def test_each_keeps_the_orders_of_its_own_accounts_and_counts_the_others(
    house: House,
) -> None:
    one, two, _ = await shared(house)
    for process in (one, two):
        for _ in range(2):
            summary = process.stage.view.queue_summary
            summary.count()
            await process.stage.engine.scan()
        await asyncio.sleep(0.6)
        found = process.stage.view.count()
        assert (found.open, found.oldest_open > 100) == (12, True)
        assert {name: share.orders for name, share in found.shares.items()} == dict.fromkeys(
            NAMES, 3
        )
        assert process.stage.engine.state.open == 12
        assert kept(process) == process.held()


async def test_what_another_has_asked_is_read_before_it_is_asked_here(house: House) -> None:
    """Its new orders are found, and those that it has ended are let go."""
    one, two, orders = await shared(house)
    fresh = one.stage.order(70.0, min(two.held()))
    ended = next(order for order in orders if order.integration == max(two.held()))
    one.stage.shelf.orders = [*(o for o in orders if o is not ended), fresh]
    await house.stop("two")
    await until(lambda: one.held() == set(NAMES))
    assert {entry.id for entry in one.stage.engine.queue} == {
        order.id for order in one.stage.shelf.orders
    }


async def test_nothing_is_asked_until_the_orders_could_be_read(house: House) -> None:
    one, _, _ = await shared(house)
    mine = one.held()
    one.stage.shelf.away = True
    with capture_logs() as lines:
        await house.stop("two")
        await until(lambda: one.cluster.view and one.cluster.view.me.keys == set(NAMES))
        await until(lambda: any(line["event"] == "cluster.not_read" for line in lines))
        assert one.held() == mine, "what it asked before it goes on asking"
        one.stage.shelf.away = False
        await until(lambda: one.held() == set(NAMES))
    assert kept(one) == set(NAMES)


async def test_an_account_that_gets_a_login_held_here_has_its_orders_read(house: House) -> None:
    """A new password makes it another login, one that this process already holds: no handover."""
    one, two, _ = await shared(house)
    moved, mine = min(two.held()), min(one.held())
    for process in (one, two):
        process.accounts[moved].login = mine
    await until(lambda: moved in kept(one) and moved in one.held())
    assert sum(entry.account == moved for entry in one.stage.engine.queue) == 3
    await until(lambda: moved not in kept(two))


async def test_beyond_many_accounts_a_new_order_of_one_that_nobody_holds_is_taken(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where its orders were another's until they had ended."""
    one = await beyond_many(house, monkeypatch)
    two = Process(house.shop, "two", NAMES)
    two.stage.shelf.orders = list(one.stage.shelf.orders)
    await two.stage.begin()
    house.tasks["two"] = asyncio.create_task(two.cluster.run())
    await until(lambda: len(one.held()) == len(two.held()) == 1)
    await until(lambda: kept(one) == one.held())
    (theirs,) = two.held()
    mine = [order for order in one.stage.shelf.orders if order.integration in one.held()]
    for process in (one, two):
        process.stage.shelf.orders = mine
        await process.stage.begin()
    await until(lambda: not two.held() or two.held() == one.held())
    await house.stop("two")
    one.stage.shelf.orders = [*mine, one.stage.order(100, theirs)]
    await one.stage.begin()
    await until(lambda: theirs in one.held() and theirs in kept(one))


async def test_beyond_many_accounts_one_that_is_read_slowly_is_not_given_up(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = await beyond_many(house, monkeypatch)
    two = Process(house.shop, "two", NAMES)
    two.stage.shelf.orders = list(one.stage.shelf.orders)
    await two.stage.begin()
    house.tasks["two"] = asyncio.create_task(two.cluster.run())
    await until(lambda: len(one.held()) == len(two.held()) == 1)
    await until(lambda: kept(one) == one.held())
    await one.stage.begin()
    go_on, scan = asyncio.Event(), one.stage.shelf.scan
    reads: list[Any] = []

    async def slow(part: Part = ALL, take: Take | None = None) -> Scan:
        reads.append(part.of)
        await go_on.wait()
        return await scan(part, take)

    one.stage.shelf.scan = slow  # type: ignore[method-assign]
    await house.stop("two")
    await until(lambda: reads)
    for _ in range(50):
        await asyncio.sleep(0.01)
        assert one.cluster.view
        assert one.cluster.view.me.keys == {"b", "d"}
    go_on.set()
    await until(lambda: one.held() == kept(one) == {"b", "d"})
    assert len(reads) == 1


async def test_a_plan_that_is_cancelled_late_leaves_the_next_one_its_accounts() -> None:
    """The membership was lost, and is back before the database has let go of the first read."""
    stage = stages.Stage(("a",))
    stage.shelf.orders = [stage.order(1000 + n, "a") for n in range(5)]
    elsewhere, takeover = stage.engine.context.elsewhere, Takeover(stage.engine)
    elsewhere.accounts = {"a"}
    await stage.begin()
    leave, go_on, scan = asyncio.Event(), asyncio.Event(), stage.shelf.scan

    async def slow(part: Part = ALL, take: Take | None = None) -> Scan:
        try:
            await go_on.wait()
        except asyncio.CancelledError:
            await leave.wait()
            raise
        return await scan(part, take)

    stage.shelf.scan = slow  # type: ignore[method-assign]
    await takeover.start({"a"}, {})
    await asyncio.sleep(0.01)
    takeover.cancel()
    await takeover.start({"a"}, {})
    await asyncio.sleep(0.01)
    leave.set()
    for _ in range(5):
        await asyncio.sleep(0.01)
        assert (takeover.planning, elsewhere.reading) == ({"a"}, {"a"})
    go_on.set()
    await until(lambda: not takeover.planning)
    assert (len(stage.engine.queue), elsewhere.accounts) == (5, set())
    assert not elsewhere.reading


async def test_a_take_over_that_fails_is_told_and_begun_again(house: House) -> None:
    one, _, _ = await shared(house)
    scan, fails = one.stage.shelf.scan, [True]

    async def failing(part: Part = ALL, take: Take | None = None) -> Scan:
        if fails:
            raise KeyError(fails.pop())
        return await scan(part, take)

    one.stage.shelf.scan = failing  # type: ignore[method-assign]
    with capture_logs() as lines:
        await house.stop("two")
        await until(lambda: one.held() == kept(one) == set(NAMES))
    told = [line for line in lines if line["event"] == "cluster.failed"]
    assert [(line["task"], line["error"]) for line in told] == [("take over", "KeyError")]


async def test_a_look_at_thousands_of_accounts_takes_no_time() -> None:
    """It goes through all of them once: the leases of all must be renewed every second."""
    names = tuple(str(n) for n in range(2000))
    stage = stages.Stage(names)
    looks: list[int] = []

    class Counted(Engine):
        @property
        def by_login(self) -> Mapping[str, LoginAccounts]:
            looks.append(1)
            return by_login(stage.accounts.values())

    stage.engine.__class__ = Counted
    takeover = Takeover(stage.engine)
    assert takeover.follow(set(names[:1000]), set(names[1000:])) == set()
    assert stage.engine.context.elsewhere.accounts == set(names[1000:])
    assert len(looks) == 1


async def test_accounts_that_come_one_by_one_are_read_together() -> None:
    """Each read goes through the whole table, over a connection that the answers need too."""
    stage = stages.Stage(NAMES)
    stage.shelf.orders = [stage.order(1000 + n, NAMES[n % 4]) for n in range(8)]
    elsewhere, takeover = stage.engine.context.elsewhere, Takeover(stage.engine)
    elsewhere.accounts = set(NAMES)
    await stage.begin()
    go_on, scan = asyncio.Event(), stage.shelf.scan
    reads: list[set[str]] = []

    async def slow(part: Part = ALL, take: Take | None = None) -> Scan:
        reads.append(set(part.of or ()))
        if len(reads) == 2:
            raise KeyError(2)
        await go_on.wait()
        return await scan(part, take)

    stage.shelf.scan = slow  # type: ignore[method-assign]
    for name in ("a", "b", "c", "d", "a"):
        await takeover.start({name}, {})
        await asyncio.sleep(0.01)
    assert reads == [{"a"}]
    go_on.set()
    await until(lambda: not takeover.planning)
    # The second read, of all that had come, failed: the next in turn makes it.
    assert reads == [{"a"}, set(NAMES), set(NAMES)]
    assert (len(stage.engine.queue), elsewhere.accounts) == (8, set())
