"""What is still to be said, from what was told before."""

from order_monitor.tell.attention import Cause
from order_monitor.tell.digest import (
    HOUR,
    LEASE,
    MOST_A_DAY,
    News,
    SentNotices,
    Shared,
    read_shared,
)
from tests.support.shops import NOW

DAY = 86_400.0


def told_by(
    told: SentNotices, now: float, *causes: Cause, over: tuple[str, ...] = ()
) -> News | None:
    """Say what is due, and note that it was said."""
    news = told.news({cause.topic: cause for cause in causes}, set(over), now)
    if news is not None:
        told.was_told(news, now)
    return news


def test_of_a_kind_one_message_an_hour_and_what_grew_meanwhile_in_it() -> None:
    told = SentNotices()
    assert told_by(told, NOW, Cause("stuck", 1)) == News((Cause("stuck", 1),), (), ())
    assert told_by(told, NOW + 60, Cause("stuck", 5)) is None
    assert told_by(told, NOW + HOUR - 1, Cause("stuck", 7)) is None
    assert told_by(told, NOW + HOUR, Cause("stuck", 7)) == News((Cause("stuck", 7),), (), ())
    assert told_by(told, NOW + 3 * HOUR, Cause("stuck", 7)) is None, "it is no worse"
    assert told_by(told, NOW + 3 * HOUR, Cause("stuck", 6)) is None


def test_another_kind_does_not_wait_and_says_what_goes_on() -> None:
    told = SentNotices()
    told_by(told, NOW, Cause("stuck", 1))
    news = told_by(told, NOW + 60, Cause("stuck", 1), Cause("closed", 1, 3))
    assert news == News((Cause("closed", 1, 3),), (), (Cause("stuck", 1),))


def test_what_lasts_is_told_again_when_it_has_doubled() -> None:
    told = SentNotices()
    told_by(told, NOW, Cause("late", t=700.0))
    assert told_by(told, NOW + HOUR, Cause("late", t=1300.0)) is None
    assert told_by(told, NOW + HOUR, Cause("late", t=1400.0)) is not None


def test_an_end_is_told_once_and_a_flapping_kind_twice_an_hour_at_the_most() -> None:
    told, count = SentNotices(), 0
    for minute in range(120):
        is_on = minute % 4 < 2
        causes = [Cause("closed", 1, 1)] if is_on else []
        count += (
            told_by(told, NOW + 60 * minute, *causes, over=() if is_on else ("closed",)) is not None
        )
    assert count == 4
    assert told_by(SentNotices(), NOW, over=("closed",)) is None, "nobody had heard of it"


def test_of_a_day_so_many_messages_and_the_last_says_so() -> None:
    told = SentNotices()
    start = NOW - NOW % DAY + 1
    news = [told_by(told, start + n, Cause(f"kind{n}", 1)) for n in range(MOST_A_DAY + 5)]
    assert [one is not None for one in news] == [True] * MOST_A_DAY + [False] * 5
    assert [n for n, one in enumerate(news) if one is not None and one.is_last] == [MOST_A_DAY - 1]
    assert told_by(told, start + DAY, Cause("kind24", 1)) is not None


def test_a_clock_that_was_ahead_silences_nothing() -> None:
    told = SentNotices()
    told_by(told, NOW + 10 * DAY, Cause("stuck", 1))
    told.failed(NOW + 10 * DAY)
    assert told.may_be_tried("me", NOW)
    assert told_by(told, NOW, Cause("stuck", 2)) is not None


def test_one_process_sends_and_another_takes_over_when_it_is_gone() -> None:
    told = SentNotices()
    told.claim("a", NOW)
    assert told.may_be_tried("a", NOW + 1)
    assert not told.may_be_tried("b", NOW + 1)
    assert told.may_be_tried("b", NOW + LEASE + 1)


def test_what_fails_is_tried_again_with_pauses_that_grow_to_an_hour() -> None:
    told, now, pauses = SentNotices(), NOW, []
    for _ in range(9):
        told.failed(now)
        pauses.append(told.retry_at - now)
        assert not told.may_be_tried("me", now + 1)
        now = told.retry_at
    assert pauses == [60, 120, 240, 480, 960, 1920, 3600, 3600, 3600]


def test_it_is_kept_as_it_is_and_anything_else_counts_as_nothing() -> None:
    shared = Shared()
    shared.see("a", [Cause("closed", 1, 3), Cause("not_ready", why="şöyle \0")], NOW)
    told_by(shared.service("x"), NOW, *shared.causes().values())
    assert read_shared(shared.written()) == shared
    assert shared.written().isascii(), "a database of another encoding stores it too"
    for odd in (
        "",
        "x",
        "[]",
        "null",
        "5",
        '{"seen": 1, "services": {}}',
        '{"seen": {}, "services": {"a": {"b": 1}}}',
    ):
        assert read_shared(odd) == Shared(), odd


def test_each_light_is_a_topic_of_its_own() -> None:
    shared = Shared()
    shared.see("a", [Cause("light", light="database"), Cause("light", light="provider")], NOW)
    news = told_by(SentNotices(), NOW, *shared.causes().values())
    assert news is not None
    assert [cause.light for cause in news.begun] == ["database", "provider"]


def test_of_several_processes_the_one_that_sees_most_is_believed_and_the_silent_are_forgotten() -> (
    None
):
    shared = Shared()
    shared.see("a", [Cause("stuck", 1)], NOW)
    shared.see("b", [Cause("stuck", 3)], NOW + 100)
    shared.see("c", [], NOW + 100)
    assert shared.causes() == {"stuck": Cause("stuck", 3)}
    shared.see("c", [], NOW + 300)
    assert shared.causes() == {}


def test_what_a_process_told_while_the_database_was_away_is_not_told_by_the_others() -> None:
    alone, kept = SentNotices(), SentNotices()
    told_by(kept, NOW, Cause("stuck", 1))
    told_by(alone, NOW + 60, Cause("not_ready", why="database"))
    kept.learn(alone)
    assert told_by(kept, NOW + 70, Cause("stuck", 1), Cause("not_ready", why="database")) is None
    assert kept.sent == 1
