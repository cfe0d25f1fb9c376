"""An order's way through the queue, by what others see of it."""

from order_monitor.core.order import Order
from order_monitor.core.queue import AT_A_TURN, OrderQueue
from order_monitor.core.tracked_order import Stage, TrackedOrder


def add(
    queue: OrderQueue, order_id: str, due: float, sent_at: float | None = 0.0, account: str = "a"
) -> TrackedOrder:
    entry = queue.add(Order(order_id, "sent", sent_at, "1"), account)
    queue.schedule(entry, due)
    return entry


def taken(queue: OrderQueue, count: int, account: str = "a") -> list[str]:
    entries = [queue.take(account) for _ in range(count)]
    return [entry.order.id for entry in entries if entry is not None]


def test_what_is_added_is_idle_until_it_is_scheduled() -> None:
    queue = OrderQueue()
    entry = queue.add(Order("x", "sent", 0.0, "1"), "a")
    assert (entry.stage, entry.account, queue.next_wake(), queue.promote(1e12)) == (
        Stage.IDLE,
        "a",
        None,
        False,
    )
    queue.schedule(entry, 5.0)
    assert (entry.stage, entry.due, queue.next_wake()) == (Stage.SCHEDULED, 5.0, 5.0)
    queue.promote(5.0)
    assert entry.stage is Stage.READY


def test_so_many_become_ready_at_a_turn_and_no_more() -> None:
    queue = OrderQueue()
    for n in range(AT_A_TURN):
        add(queue, str(n), 1.0)
    assert not queue.promote(1.0)
    assert queue.ready.count("a") == AT_A_TURN
    for n in range(AT_A_TURN + 1):
        add(queue, f"more {n}", 2.0)
    assert queue.promote(2.0)
    assert queue.ready.count("a") == 2 * AT_A_TURN
    assert not queue.promote(2.0)
    assert queue.ready.count("a") == 2 * AT_A_TURN + 1
    add(queue, "later", 3.0)
    assert not queue.promote(2.9)


def test_each_fourth_turn_goes_to_the_one_due_longest() -> None:
    queue = OrderQueue()
    for n in range(8):
        add(queue, str(n), due=10.0 + n, sent_at=100.0 + n)
    queue.promote(100.0)
    assert taken(queue, 9) == ["7", "6", "5", "0", "4", "3", "2", "1"]


def test_each_account_has_turns_of_its_own() -> None:
    queue = OrderQueue()
    for n in range(4):
        add(queue, f"a{n}", due=10.0 + n, sent_at=100.0 + n, account="a")
        add(queue, f"b{n}", due=10.0 + n, sent_at=100.0 + n, account="b")
    queue.promote(100.0)
    assert [*taken(queue, 2, "a"), *taken(queue, 4, "b"), *taken(queue, 2, "a")] == [
        *("a3", "a2", "b3", "b2", "b1", "b0", "a1", "a0"),
    ]


def test_what_could_not_be_asked_stands_behind_the_others_at_each_turn() -> None:
    queue = OrderQueue()
    for n in range(5):
        add(queue, str(n), due=10.0 + n, sent_at=100.0 + n).note(failures=int(n in (0, 4)))
    queue.promote(100.0)
    assert taken(queue, 5) == ["3", "2", "1", "0", "4"]


def test_another_rank_says_who_goes_first() -> None:
    queue = OrderQueue(rank=lambda entry: float(entry.order.id))
    for n in (3, 1, 2):
        add(queue, str(n), due=1.0, sent_at=100.0 + n)
    queue.promote(1.0)
    assert taken(queue, 3) == ["1", "2", "3"]


def test_what_has_no_time_goes_last() -> None:
    queue = OrderQueue()
    add(queue, "none", 1.0, sent_at=None)
    add(queue, "old", 1.0, sent_at=5.0)
    queue.promote(1.0)
    assert taken(queue, 2) == ["old", "none"]


def test_the_next_to_come_are_told_soonest_first() -> None:
    queue = OrderQueue()
    for n, account in enumerate("abababab"):
        add(queue, str(n), due=50.0 - n, account=account)
    queue.idle(add(queue, "idle", 1.0))
    queue.forget(add(queue, "gone", 2.0).order.id)
    queue.schedule(add(queue, "moved", 3.0), 49.5)
    queue.writing(add(queue, "written", 4.0))
    assert [entry.order.id for entry in queue.coming(3)] == ["7", "6", "5"]
    assert [entry.order.id for entry in queue.coming(20)] == [
        "7",
        "6",
        "5",
        "4",
        "3",
        "2",
        "1",
        "moved",
        "0",
    ]
    assert [entry.order.id for entry in queue.coming(3, lambda entry: entry.account != "b")] == [
        "6",
        "4",
        "2",
    ]
    assert queue.next_wake() == 43.0


def test_where_few_are_to_come_those_are_told() -> None:
    queue = OrderQueue()
    assert queue.coming(5) == []
    later, sooner = add(queue, "later", 2.0), add(queue, "sooner", 1.0)
    assert queue.coming(5) == [sooner, later]
    queue.forget("sooner")
    queue.forget("later")
    last = add(queue, "last", 3.0)
    assert queue.coming(5) == [last]


def test_to_ask_in_vain_is_no_turn() -> None:
    queue = OrderQueue()
    add(queue, "first", 1.0)
    queue.promote(1.0)
    assert [taken(queue, 1) for _ in range(4)] == [["first"], [], [], []]
    for n in range(3):
        add(queue, str(n), due=10.0 + n, sent_at=100.0 + n)
    queue.promote(100.0)
    assert taken(queue, 3) == ["2", "1", "0"], "the second, third and fourth turn"
    for n in range(3):
        add(queue, f"again {n}", due=10.0 + n, sent_at=100.0 + n)
    queue.promote(100.0)
    assert taken(queue, 1) == ["again 2"], "the fifth"


def test_a_wake_of_its_own_is_heeded_though_it_be_zero() -> None:
    queue = OrderQueue()
    entry = queue.add(Order("x", "sent", 0.0, "1"), "a")
    queue.schedule(entry, 30.0, wake=0.0)
    assert (queue.next_wake(), entry.due) == (0.0, 30.0)


def test_whoever_leaves_the_line_is_no_longer_counted() -> None:
    queue = OrderQueue()
    entries = [add(queue, str(n), 1.0, account="ab"[n % 2]) for n in range(6)]
    queue.promote(1.0)
    assert (
        sorted(queue.ready.accounts()),
        queue.ready.count("a"),
        queue.ready.count("b"),
        queue.ready.count("c"),
    ) == (
        ["a", "b"],
        3,
        3,
        0,
    )
    queue.writing(entries[0])
    queue.idle(entries[2])
    assert (entries[0].stage, entries[2].stage, queue.ready.count("a")) == (
        Stage.WRITING,
        Stage.IDLE,
        1,
    )
    queue.forget("4")
    assert (queue.ready.accounts(), queue.ready.count("a"), queue.take("a")) == (["b"], 0, None)
    queue.schedule(entries[0], 2.0)
    queue.promote(2.0)
    assert (sorted(queue.ready.accounts()), taken(queue, 2)) == (["a", "b"], ["0"])
    assert sorted(taken(queue, 9, "b")) == ["1", "3", "5"]
    assert queue.ready.accounts() == []


def test_an_order_is_known_as_it_was_read_last() -> None:
    queue = OrderQueue()
    for order in (
        Order("x", "sent", 1.0, "R-1"),
        Order(
            "y",
            "processing",
            5.0,
            "R-2",
            "tenant",
            3.0,
            "integration",
            route=0,
            registered=True,
            ended_at=4.0,
            package="p",
        ),
    ):
        entry = queue.add(order, "a")
        assert (entry.order, entry.account) == (order, "a")
        read = Order(
            order.id,
            "pending",
            6.0,
            "R-3",
            "other",
            7.0,
            "another",
            route=1,
            ended_at=None,
            package="q",
        )
        queue.renew(entry, read, "b")
        assert (entry.order, entry.account) == (read, "b")
        queue.renew(entry, order, "a")
        assert (entry.order, entry.account) == (order, "a")


def test_an_account_has_orders_for_as_long_as_any_is_known() -> None:
    queue = OrderQueue()
    assert not queue.has_any("a")
    add(queue, "1", 1.0)
    add(queue, "2", 1.0)
    queue.forget("1")
    queue.forget("1")
    assert queue.has_any("a")
    queue.forget("2")
    assert (queue.has_any("a"), len(queue), list(queue)) == (False, 0, [])


def test_an_order_may_become_another_accounts() -> None:
    queue = OrderQueue()
    entry = add(queue, "1", 1.0, account="a")
    queue.renew(entry, entry.order, "b")
    assert (entry.account, queue.has_any("a"), queue.has_any("b")) == ("b", False, True)
    add(queue, "2", 1.0, account="a")
    queue.renew(entry, entry.order, "a")
    queue.forget("1")
    assert (queue.has_any("a"), queue.has_any("b")) == (True, False)
    queue.promote(1.0)
    assert (queue.ready.count("a"), queue.ready.count("b")) == (1, 0)


def test_who_was_forgotten_while_it_was_asked_about_is_known_no_more() -> None:
    queue = OrderQueue()
    add(queue, "1", 1.0)
    queue.promote(1.0)
    entry = queue.take("a")
    assert entry is not None
    queue.forget("1")
    queue.writing(entry)
    queue.idle(entry)
    assert (queue.ready.count("a"), queue.get("1"), queue.has_any("a"), queue.promote(9.0)) == (
        0,
        None,
        False,
        False,
    )
