"""Whether the clocks may be believed: leaps of each kind, drift, differences, and what a later
process knows.
"""

import math
from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from order_monitor.core.clocks import DRIFT, LEAP, SETTLING, ClockMemory, ClockWatch, Leap

EPOCH = 1_790_000_000.0
LONG_UP = 100_000.0


@dataclass
class Machine:
    """A machine and a database, whose clocks somebody sets; read every ten seconds."""

    boot: float = LONG_UP
    machine: float = EPOCH
    database: float = EPOCH + 0.2
    watch: ClockWatch = field(default_factory=ClockWatch)
    leaps: list[Leap] = field(default_factory=list)

    def read(self, took: float = 0.0) -> None:
        noted = (
            self.watch.note_machine(self.boot + self.machine, self.boot),
            self.watch.note_database(self.boot + self.database - took, self.boot, took),
        )
        self.leaps += [leap for leap in noted if leap is not None]

    def run(self, seconds: float, every: float = 10.0) -> "Machine":
        end = self.boot + seconds
        self.read()
        while self.boot < end:
            self.boot += every
            self.read()
        return self

    def next_process(self, memory: ClockMemory | None = None) -> "Machine":
        """Another one of the same boot, which was told what this one knows."""
        watch = ClockWatch(is_recalling=True)
        watch.recall(memory or self.watch.state(), self.boot)
        return Machine(self.boot, self.machine, self.database, watch)

    @property
    def vouches(self) -> bool:
        return self.watch.vouches(self.boot)

    @property
    def why(self) -> str:
        return self.watch.why(self.boot)


@pytest.mark.slow
def test_clocks_that_agree_are_believed_at_once() -> None:
    machine = Machine()
    assert machine.why == "the machine's clock has not been read yet"
    machine.watch.note_machine(EPOCH + LONG_UP, LONG_UP)
    assert machine.why == "the database's clock has not been read yet"
    machine.read()
    assert (machine.vouches, machine.why, machine.watch.leaps) == (
        True,
        "",
        {"machine": 0, "database": 0},
    )
    assert machine.run(86_400).vouches


LEAPS = {
    "the database 25 h ahead": ("database", 25 * 3600.0),
    "the database 25 h behind": ("database", -25 * 3600.0),
    "the machine 2 h ahead": ("machine", 7200.0),
    "the machine 10 s behind": ("machine", -10.0),
    "a failover to a clock 40 s off": ("database", 40.0),
    "a failover to a clock 2 h off": ("database", -7200.0),
}


@pytest.mark.parametrize(("which", "seconds"), LEAPS.values(), ids=LEAPS)
def test_a_leap_is_seen_at_once(which: str, seconds: float) -> None:
    machine = Machine().run(3600)
    setattr(machine, which, getattr(machine, which) + seconds)
    machine.read()
    assert not machine.vouches
    assert f"the {which}'s clock leapt by {seconds:+.0f} s" in machine.why
    assert [(leap.clock, round(leap.seconds)) for leap in machine.leaps] == [
        (which, round(seconds))
    ]
    assert not machine.run(SETTLING - 20).vouches
    machine.run(30)
    assert machine.vouches is (abs(seconds) < 3600)
    assert ("differ by" in machine.why) is (abs(seconds) >= 3600)
    assert sum(machine.watch.leaps.values()) == 1


def test_a_day_ahead_for_six_seconds_is_two_leaps() -> None:
    machine = Machine().run(3600)
    machine.database += 25 * 3600
    machine.run(6, every=2)
    machine.database -= 25 * 3600
    machine.read()
    assert [round(leap.seconds) for leap in machine.leaps] == [90_000, -90_000]
    came_back = machine.boot
    assert not machine.run(SETTLING - 20).vouches
    machine.run(30)
    assert machine.vouches
    assert machine.boot > came_back + SETTLING


def test_suspend_is_no_leap() -> None:
    """The seconds since boot go on, and so does each clock."""
    machine = Machine().run(600)
    machine.boot += 8 * 3600
    assert machine.run(60).vouches
    assert machine.leaps == []


def test_a_stopped_machine_that_is_set_right_leaps() -> None:
    """A virtual machine that its host had stopped: its seconds since boot did not go on, and both
    clocks are ahead of them.
    """
    machine = Machine().run(600)
    machine.machine += 3600
    machine.database += 3600
    machine.read()
    assert not machine.vouches
    assert machine.watch.leaps == {"machine": 1, "database": 1}
    assert machine.watch.difference == pytest.approx(0.2)


@pytest.mark.parametrize("rate", [0.0004, -0.0004])
@pytest.mark.parametrize("every", [1.0, 10.0, 600.0])
def test_slow_drift_is_no_leap(rate: float, every: float) -> None:
    machine = Machine()
    for _ in range(2000):
        machine.database += rate * every
        machine.boot += every
        machine.read()
    assert machine.leaps == []


@pytest.mark.parametrize("step", [1.0, 4.0, -4.0])
def test_many_small_leaps_are_one(step: float) -> None:
    machine = Machine().run(60)
    for _ in range(10):
        machine.machine += step
        machine.boot += 10
        machine.read()
    assert machine.watch.leaps["machine"] >= 1
    assert not machine.vouches


def test_leaps_that_cancel_are_leaps() -> None:
    machine = Machine().run(60)
    machine.machine -= 4
    machine.boot += 10
    machine.read()
    assert machine.vouches
    machine.machine += 8
    machine.boot += 10
    machine.read()
    assert not machine.vouches


def test_a_slow_query_is_no_leap_and_hides_none() -> None:
    machine = Machine().run(60)
    for took in (20.0, 0.0, 7.0, 30.0, 0.0, 0.0):
        machine.boot += 10
        machine.read(took)
        machine.boot += 10
        machine.read()
    assert (machine.leaps, machine.vouches) == ([], True)
    machine.database += 3600
    machine.read(30.0)
    assert not machine.vouches
    first = Machine()
    first.read(25.0)
    first.run(600)
    assert first.leaps == [], "what was read slowly at first is known better later"


def test_ntp_sets_the_clock_at_the_start() -> None:
    machine = Machine(boot=20.0, machine=EPOCH - 90_000)
    machine.read()
    assert machine.why == "this machine has been up for less than ten minutes"
    machine.run(30)
    machine.machine = EPOCH
    machine.read()
    assert machine.watch.leaps["machine"] == 1
    set_at = machine.boot
    machine.run(set_at + SETTLING - 20 - machine.boot)
    assert not machine.vouches
    assert machine.run(30).vouches


def test_a_machine_started_three_minutes_ago() -> None:
    machine = Machine(boot=180.0).run(400)
    assert not machine.vouches
    assert machine.run(30).vouches


def test_a_steady_difference_is_a_warning_up_to_an_hour() -> None:
    ten = Machine(database=EPOCH - 600).run(3600)
    assert (ten.vouches, ten.watch.differs, round(ten.watch.difference or 0)) == (True, True, -600)
    two = Machine(database=EPOCH + 7200).run(3600)
    assert (two.vouches, two.watch.differs) == (False, True)
    assert two.why == "the database's clock and this machine's differ by 7200 s"
    assert two.leaps == []
    assert not Machine().run(60).watch.differs


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_what_is_no_time_is_not_believed(bad: float) -> None:
    for face in ("note_machine", "note_database"):
        machine = Machine().run(60)
        getattr(machine.watch, face)(bad, machine.boot)
        assert not machine.vouches
        machine.run(60)
        assert not machine.vouches
        assert machine.run(600).vouches
        getattr(machine.watch, face)(EPOCH + machine.boot, bad)
        assert not machine.vouches
    machine = Machine().run(60)
    machine.watch.note_database(EPOCH + machine.boot, machine.boot, bad)
    assert not machine.vouches
    assert not Machine().run(60).watch.vouches(bad) or bad == math.inf


# --- what a later process knows


def test_a_new_process_waits_for_what_was_seen_before_it() -> None:
    machine = Machine(watch=ClockWatch(is_recalling=True)).run(60)
    assert machine.why == "what earlier processes saw of the clocks has not been read yet"
    machine.watch.recall(None, machine.boot)
    assert machine.vouches


def test_a_new_process_after_a_leap_that_was_seen() -> None:
    machine = Machine().run(60)
    machine.database += 40
    machine.run(60)
    after = machine.next_process()
    assert not after.vouches
    after.read()
    assert (after.why, after.leaps) == (
        "a clock leapt before this process began, less than ten minutes ago",
        [],
    )
    assert after.run(600).vouches


@pytest.mark.parametrize("which", ["machine", "database"])
def test_two_passes_of_cron_with_a_leap_between_them(which: str) -> None:
    """The first after the leap sees it, the second knows of it, the one after ten minutes goes on."""
    machine = Machine().run(10)
    memory = machine.watch.state()
    setattr(machine, which, getattr(machine, which) + 1800.0)
    machine.boot += 60
    first = machine.next_process(memory)
    first.read()
    assert (len(first.leaps), first.vouches) == (1, False)
    machine.boot = first.boot + 60
    second = machine.next_process(first.watch.state())
    second.read()
    assert (second.leaps, second.vouches) == ([], False)
    machine.boot = first.boot + 601
    third = machine.next_process(second.watch.state())
    third.read()
    assert third.vouches


def test_a_leap_is_seen_where_the_clocks_were_read_before_the_memory() -> None:
    machine = Machine().run(60)
    memory = machine.watch.state()
    machine.database += 1800
    late = Machine(
        machine.boot + 60, machine.machine, machine.database, ClockWatch(is_recalling=True)
    )
    late.read()
    leaps = late.watch.recall(memory, late.boot)
    assert [(leap.clock, round(leap.seconds)) for leap in leaps] == [("database", 1800)]
    assert (late.vouches, late.watch.leaps["database"]) == (False, 1)


def test_a_process_between_two_passes_of_a_day_may_have_drifted() -> None:
    machine = Machine().run(60)
    memory = machine.watch.state()
    machine.database += 8.0
    machine.boot += 86_400
    after = machine.next_process(memory)
    after.read()
    assert (after.leaps, after.vouches) == ([], True)
    soon = Machine(machine.boot - 86_300, machine.machine, machine.database).next_process(memory)
    soon.read()
    assert not soon.vouches


@pytest.mark.parametrize("bad", [math.nan, math.inf, 9e15])
def test_a_memory_that_makes_no_sense_stops_ends_for_ten_minutes_at_most(bad: float) -> None:
    machine = Machine().next_process(ClockMemory(bad, bad, bad, bad))
    machine.read()
    assert not machine.vouches
    assert machine.run(610).vouches
    assert not Machine(watch=ClockWatch()).next_process(ClockMemory(None, None, 0.0)).vouches, (
        "nothing was read"
    )


# --- whatever is done to them

STEPS = st.lists(
    st.tuples(
        st.sampled_from(["machine", "database", "both", "restart", "none"]),
        st.floats(-1e6, 1e6),
        st.floats(0.01, 2000.0),
    ),
    min_size=1,
    max_size=30,
)


@given(steps=STEPS, took=st.floats(0.0, 60.0))
def test_no_leap_is_followed_by_an_end_within_ten_minutes(
    steps: list[tuple[str, float, float]], took: float
) -> None:
    """A jump of either clock between two readings by more than may be is seen, whatever came
    before; a restart forgets none.
    """
    machine = Machine()
    machine.read()
    leapt_at = -math.inf
    for what, seconds, gap in steps:
        machine.boot += gap
        if what in ("machine", "both"):
            machine.machine += seconds
        if what in ("database", "both"):
            machine.database += seconds
        allowed = LEAP + DRIFT * gap
        is_seen_by = {"machine": allowed, "database": allowed + 2 * took, "both": allowed}
        if abs(seconds) > is_seen_by.get(what, math.inf) + 1e-3:
            leapt_at = machine.boot
        if what == "restart":
            machine = machine.next_process()
        machine.read(took if what == "database" else 0.0)
        assert not (machine.vouches and machine.boot < leapt_at + SETTLING)
        assert machine.vouches is (machine.why == "")
        if abs(machine.database - machine.machine) > 3600 + took:
            assert not machine.vouches


def test_it_settles_by_itself_unless_one_clock_is_plainly_wrong() -> None:
    machine = Machine()
    assert machine.watch.settles(machine.boot), "nothing has been read yet"
    machine.run(3600)
    assert not machine.watch.settles(machine.boot), "orders may be ended now"
    machine.database += 60
    machine.read()
    assert machine.watch.settles(machine.boot)


@pytest.mark.parametrize(("ahead", "settles"), [(3600.0, True), (3601.0, False)])
@pytest.mark.parametrize("sign", [1, -1])
def test_an_hour_between_the_clocks_is_the_most(ahead: float, sign: int, *, settles: bool) -> None:
    watch = ClockWatch()
    watch.note_machine(EPOCH, 100.0)
    watch.note_database(EPOCH + sign * ahead, 100.0)
    assert watch.settles(100.0) is settles
    assert watch.vouches(SETTLING) is settles


@pytest.mark.parametrize("offset", [None, math.nan, EPOCH])
def test_what_an_earlier_process_saw_is_no_leap_by_itself(offset: float | None) -> None:
    watch = ClockWatch(is_recalling=True)
    assert watch.recall(ClockMemory(offset, offset, 0.0), LONG_UP) == []
    assert watch.leaps == {"machine": 0, "database": 0}
    watch.note_machine(EPOCH + LONG_UP, LONG_UP)
    watch.note_database(EPOCH + LONG_UP, LONG_UP)
    assert watch.vouches(LONG_UP)


@pytest.mark.parametrize(("by", "leapt"), [(LEAP, False), (LEAP + 0.0001, True)])
def test_between_two_readings_of_one_moment_no_drift_is_allowed(by: float, *, leapt: bool) -> None:
    watch = ClockWatch()
    watch.note_machine(0.0, 0.0)
    assert (watch.note_machine(by, 0.0) is not None) is leapt


def test_each_leap_of_a_clock_is_counted() -> None:
    watch = ClockWatch()
    for boot, utc in ((0.0, 0.0), (10.0, 110.0), (20.0, 20.0), (30.0, 30.0)):
        watch.note_machine(utc, boot)
    assert watch.leaps == {"machine": 2, "database": 0}


@pytest.mark.parametrize("face", ["machine", "database"])
def test_a_clock_that_showed_no_time_is_named_until_ten_minutes_have_passed(face: str) -> None:
    machine = Machine().run(60)
    setattr(machine, face, math.nan)
    machine.read()
    setattr(machine, face, EPOCH)
    machine.read()
    assert machine.why == f"the {face}'s clock shows no time, less than ten minutes ago"


def test_ten_minutes_after_a_leap_to_the_second_ages_are_trusted_again() -> None:
    machine = Machine().run(60)
    machine.machine += 60
    machine.read()
    machine.machine -= 60
    machine.read()
    assert machine.watch.why(machine.boot + SETTLING - 0.1)
    assert machine.watch.why(machine.boot + SETTLING) == ""


def test_before_any_reading_there_is_nothing_to_hand_on() -> None:
    assert ClockWatch().state() == ClockMemory(None, None, 0.0, None)
