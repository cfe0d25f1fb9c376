"""What is remembered is bounded: the oldest goes first."""

from order_monitor.core.bounded import forget_oldest


def test_what_was_put_in_longest_ago_is_forgotten_first() -> None:
    kept = dict.fromkeys(range(5))
    forget_oldest(kept, 5)
    assert list(kept) == [0, 1, 2, 3, 4]
    forget_oldest(kept, 2)
    assert list(kept) == [3, 4]
    forget_oldest(kept, 0)
    assert not kept
