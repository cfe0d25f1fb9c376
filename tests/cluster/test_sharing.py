"""Shares that every member works out alone, and that come out even."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from order_monitor.cluster.sharing import PATIENCE, in_turn_of, quota, to_give, to_take

HELD = st.dictionaries(
    st.text("abcdef", min_size=1, max_size=3), st.integers(0, 40), min_size=1, max_size=8
)


@given(HELD, st.integers(0, 60))
def test_the_shares_add_up_and_differ_by_one_at_most(held: dict[str, int], free: int) -> None:
    shares = [quota(member, held, free) for member in held]
    assert sum(shares) == sum(held.values()) + free
    assert max(shares) - min(shares) <= 1


@given(HELD)
def test_even_shares_are_left_as_they_are(held: dict[str, int]) -> None:
    even = {member: quota(member, held, 0) for member in held}
    assert all(to_give(member, even, 0, ()) == 0 for member in even)
    assert all(quota(member, even, 0) == count for member, count in even.items())


@pytest.mark.long
@pytest.mark.untraced
@given(
    st.integers(1, 8),
    st.integers(0, 50),
    st.lists(st.tuples(st.sampled_from(["join", "die"]), st.integers(0, 7)), max_size=6),
    st.randoms(use_true_random=False),
)
def test_whoever_comes_or_goes_the_accounts_are_soon_shared_evenly(
    members: int, count: int, changes: list[tuple[str, int]], chance: object
) -> None:
    """Members act one after the other, in any order, each on the view it has then."""
    keys = [f"account-{n}" for n in range(count)]
    held: dict[str, set[str]] = {f"m{n}": set() for n in range(members)}
    free = dict.fromkeys(keys, 1)

    def settle() -> None:
        for _ in range(members + 10):
            names = list(held)
            chance.shuffle(names)  # type: ignore[attr-defined]
            for me in names:
                counts = {name: len(owned) for name, owned in held.items()}
                taken = to_take(me, counts, free)
                for key in taken:
                    del free[key]
                    held[me].add(key)
                if not taken:
                    for key in in_turn_of(me, held[me])[: to_give(me, counts, len(free), ())]:
                        held[me].discard(key)
                        free[key] = 1
        assert not free
        sizes = [len(owned) for owned in held.values()]
        assert max(sizes) - min(sizes) <= 1

    settle()
    for what, n in changes:
        if what == "join":
            held.setdefault(f"m{n}", set())
        elif f"m{n}" in held and len(held) > 1:
            free.update(dict.fromkeys(held.pop(f"m{n}"), 1))
        settle()


def test_what_does_not_come_out_even_stays_where_it_is() -> None:
    held = {"a": 1, "b": 2, "c": 2}
    assert [quota(member, held, 0) for member in held] == [1, 2, 2]
    assert [quota(member, {"b": 1, "a": 1}, 1) for member in ("a", "b")] == [2, 1], (
        "of equals the first by name"
    )


def test_members_who_take_at_once_take_what_comes_first_in_their_own_turn() -> None:
    free = {f"account-{n}": 1 for n in range(8)}
    for me in ("m1", "m2", "m3"):
        assert to_take(me, {me: 1, "other": 1}, free) == in_turn_of(me, free)[:4]


def test_any_text_may_be_a_name() -> None:
    assert in_turn_of("\ud800", ["\udfff"]) == ["\udfff"]


def test_what_nobody_takes_is_taken_by_anybody_and_kept() -> None:
    """A member that does not know an account never takes it, whatever its share."""
    held = {"a": 2, "b": 0}
    assert to_take("a", held, {"x": 1}) == []
    assert to_take("a", held, {"x": PATIENCE}) == ["x"]
    assert to_give("a", {"a": 3, "b": 0}, 0, ()) == 1
    assert to_give("a", {"a": 3, "b": 0}, 0, ("x",)) == 0


def test_members_try_different_accounts_first() -> None:
    keys = [f"account-{n}" for n in range(100)]
    firsts = {in_turn_of(f"m{n}", keys)[0] for n in range(20)}
    assert len(firsts) > 10
