"""The orders in memory."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from order_monitor.book import _STALE_ALLOWED, LONGEST_WAITING_EVERY, Book, Entry, Stage
from order_monitor.order import Order


def add(book: Book, order_id: str, due: float, sent_at: float = 0.0, account: str = "a") -> Entry:
    entry = book.add(Order(order_id, "sent", sent_at, "1"), account)
    book.schedule(entry, due)
    return entry


def test_nothing_is_taken_before_it_is_due() -> None:
    book = Book()
    add(book, "x", 10)
    book.promote(9.9)
    assert book.take("a") is None
    assert book.next_wake() == 10
    book.promote(10)
    assert book.due("a") == 1
    taken = book.take("a")
    assert taken is not None
    assert taken.stage is Stage.ASKING
    assert book.due("a") == 0
    assert book.take("a") is None
    assert book.next_wake() is None
    assert len(book) == 1
    assert book.get("x") is taken


def test_the_newest_goes_first_but_nobody_starves() -> None:
    book = Book()
    for n in range(100):
        add(book, str(n), due=n, sent_at=n)
    book.promote(100)
    first = [book.take("a") for _ in range(LONGEST_WAITING_EVERY)]
    assert [e.order.id for e in first if e] == ["99", "98", "97", "0"]
    for n in range(100, 200):
        add(book, str(n), due=n, sent_at=n)
        book.promote(200)
        book.take("a")
    left = {e.order.id for e in book if e.stage is Stage.READY}
    assert not left & {str(n) for n in range(10)}, "the oldest were served meanwhile"


def test_equal_times_compare_no_payload() -> None:
    """E12: heap ties must not reach the orders themselves."""
    book = Book()
    for n in range(50):
        add(book, str(n), due=5)
    book.promote(5)
    assert len({e.order.id for _ in range(50) if (e := book.take("a"))}) == 50


def test_accounts_do_not_mix() -> None:
    book = Book()
    add(book, "x", 0, account="a")
    add(book, "y", 0, account="b")
    book.promote(0)
    assert book.due("a") == book.due("b") == 1
    taken = book.take("b")
    assert taken is not None
    assert taken.order.id == "y"
    assert book.take("c") is None


def test_a_held_order_keeps_its_due_time() -> None:
    book = Book()
    entry = add(book, "x", 0)
    book.promote(0)
    book.take("a")
    book.schedule(entry, 0, wake=30)
    book.promote(29)
    assert book.due("a") == 0
    book.promote(30)
    assert book.take("a") is entry
    assert entry.due == 0


def test_what_is_forgotten_or_idle_is_never_taken() -> None:
    book = Book()
    add(book, "x", 0)
    book.idle(add(book, "y", 0))
    book.promote(0)
    book.forget("x")
    book.forget("never there")
    assert book.due("a") == 0
    assert book.take("a") is None
    assert book.get("x") is None
    add(book, "z", 5)
    book.forget("z")
    assert book.next_wake() is None


def test_what_a_scan_no_longer_finds_is_named_unless_in_use() -> None:
    book = Book()
    for name in "abcd":
        add(book, name, 0)
    book.promote(0)
    asking = book.take("a")
    assert asking is not None
    writing = book.take("a")
    assert writing is not None
    book.writing(writing)
    missing = {e.order.id for e in book.missing_from(["a"])}
    assert missing == {"a", "b", "c", "d"} - {"a", asking.order.id, writing.order.id}


def test_rescheduling_replaces() -> None:
    book = Book()
    entry = add(book, "x", 5)
    book.schedule(entry, 50)
    book.promote(49)
    assert book.due("a") == 0
    book.promote(50)
    book.schedule(entry, 60)
    assert book.due("a") == 0
    assert book.take("a") is None
    book.promote(60)
    assert book.take("a") is entry


def test_stale_items_do_not_pile_up() -> None:
    """Under lasting overload each order leaves a stale item behind: they are swept."""
    book = Book()
    base = add(book, "base", 0)
    base.failures = 1
    book.promote(0)
    for n in range(6 * _STALE_ALLOWED):
        add(book, str(n), due=1, sent_at=n)
        book.promote(1)
        taken = book.take("a")
        assert taken is not None
        assert taken is not base, "it stands behind the others"
        book.forget(taken.order.id)
    ready = book._ready["a"]
    assert len(ready.newest) + len(ready.longest) < 3 * _STALE_ALLOWED
    assert book.take("a") is base


@given(
    st.lists(
        st.tuples(
            st.sampled_from("abcdef"), st.sampled_from(["add", "take", "forget", "hold", "idle"]), st.integers(0, 9)
        )
    )
)
def test_the_count_of_due_orders_is_always_right(steps: list[tuple[str, str, int]]) -> None:
    book, now = Book(), 0.0
    for name, step, number in steps:
        entry = book.get(name)
        match step:
            case "add" if entry is None:
                add(book, name, now + number, sent_at=number)
            case "take":
                now += number
                book.promote(now)
                book.take("a")
            case "forget":
                book.forget(name)
            case "hold" if entry:
                book.schedule(entry, entry.due, wake=now + number)
            case "idle" if entry:
                book.idle(entry)
        ready = [e for e in book if e.stage is Stage.READY]
        assert book.due("a") == len(ready)
    assert book.next_wake() == min((w for w in [book.next_wake()] if w is not None), default=None)
    book.promote(now + 100)
    taken = 0
    while book.take("a"):
        taken += 1
    assert book.due("a") == 0
    assert taken <= len(book)


def test_an_unknown_order_is_not_known() -> None:
    assert Book().get("x") is None
    assert list(Book()) == []
    with pytest.raises(StopIteration):
        next(iter(Book()))
