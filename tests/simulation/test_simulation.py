"""Several hundred runs in virtual time, the same in each test session.

And some random ones.
"""

import asyncio
import os
import random
import subprocess
import sys
from dataclasses import replace

import pytest

from order_monitor.core.answer import Completed
from order_monitor.core.check_result import CheckResult
from order_monitor.core.errors import ShopError
from order_monitor.core.order import Order
from order_monitor.core.pin import Pin
from tests.simulation.__main__ import seeds, shortened, why
from tests.simulation.crashes import Sweep
from tests.simulation.loop import run
from tests.simulation.mutants.__main__ import MUTANTS, ROOT, Mutant, places_of, planted
from tests.simulation.process import Process
from tests.simulation.scenario import KINDS, SPECIAL, Fault, draw, small
from tests.simulation.shop import (
    ModelOrders,
    Pool,
    Store,
    Stored,
    database_over,
    layout_for,
    ledger_for,
)
from tests.simulation.special import (
    EVERY,
    FURTHER,
    JOINED,
    MAKERS,
    drawn,
    further,
    joined,
    special,
)
from tests.simulation.world import play

CHUNK = 20
HARD = (76, 87, 237, 241)
"""Runs that detect planted bugs which hardly any other detects."""

CHOSEN = (*range(56), *HARD)
OF_ONE_KIND = (*range(0, 2 * CHUNK * EVERY, EVERY), 222)
"""The last is the first run in which the event of a late PIN moves money."""
TOGETHER = range(1, 1 + 8 * EVERY, EVERY)
FURTHER_ON = range(2, 2 + 4 * EVERY, EVERY)
FRESH = int(os.environ["SIMULATION_SEED"])


@pytest.mark.simulated
@pytest.mark.parametrize("first", range(0, len(CHOSEN), CHUNK))
def test_all_holds_through_hours_of_faults(first: int) -> None:
    broken = {seed: reason for seed in CHOSEN[first : first + CHUNK] if (reason := why(draw(seed)))}
    assert broken == {}


@pytest.mark.simulated
def test_all_holds_for_seeds_that_nobody_has_chosen() -> None:
    """The failure's name shows the seed; ``SIMULATION_SEED=…`` repeats it."""
    runs = [(seed, scenario) for seed in range(FRESH, FRESH + CHUNK) for scenario in drawn(seed)]
    broken = {seed: reason for seed, scenario in runs if (reason := why(scenario))}
    assert broken == {}, f"python -m tests.simulation --seeds {FRESH}-{FRESH + CHUNK - 1}"


@pytest.mark.simulated
@pytest.mark.parametrize("first", range(0, len(OF_ONE_KIND), CHUNK))
def test_all_holds_in_runs_of_one_kind(first: int) -> None:
    """Like ``--seeds``, which adds them to each third seed."""
    broken = {
        seed: reason
        for seed in OF_ONE_KIND[first : first + CHUNK]
        if (reason := why(special(seed)))
    }
    assert broken == {}


@pytest.mark.simulated
@pytest.mark.parametrize("seed", TOGETHER)
def test_all_holds_where_orders_processes_or_people_depend_on_one_another(seed: int) -> None:
    """Chains of orders, a cluster of processes, and events that people have posted again."""
    assert why(joined(seed)) == ""


@pytest.mark.simulated
@pytest.mark.parametrize("kind", ["freeze", "session_cut", "session_ended"])
def test_each_fault_of_a_member_alone_and_often(kind: str) -> None:
    scenario = next(one for one in map(joined, range(100)) if one.members > 1)
    faults = tuple(Fault(30.0 * n, kind, 20.0, n, n / 10) for n in range(1, 10))
    assert why(replace(scenario, faults=faults)) == ""


@pytest.mark.simulated
@pytest.mark.parametrize("seed", FURTHER_ON)
def test_all_holds_where_something_does_not_stay_what_it_was(seed: int) -> None:
    """Whose an account is, an answer, the database's clock, or an order's dispatch."""
    assert why(further(seed)) == ""


def test_each_seed_plays_a_run_of_its_own_and_one_of_three_kinds() -> None:
    assert drawn(3) == (draw(3), special(3))
    assert drawn(4) == (draw(4), joined(4))
    assert drawn(5) == (draw(5), further(5))
    for makers, name in ((MAKERS, "special"), (JOINED, "joined"), (FURTHER, "further")):
        made = {
            makers[random.Random(f"{seed} {name}").randrange(len(makers))]
            for seed in range(0, 60 * EVERY, EVERY)
        }
        assert made == set(makers)


@pytest.mark.simulated
@pytest.mark.parametrize("kind", [*KINDS, *SPECIAL])
def test_each_fault_alone_and_often(kind: str) -> None:
    scenario = draw(7)
    faults = tuple(Fault(200.0 * n, kind, 90.0, 7 * n, n / 10) for n in range(10))
    assert why(replace(scenario, faults=faults, hours=1.0)) == ""


@pytest.mark.simulated
def test_a_seed_is_played_alike_in_every_process() -> None:
    """Independent of the order of a set and of addresses."""
    code = "from tests.simulation.loop import run; from tests.simulation.scenario import draw; "
    code += (
        "from tests.simulation.world import play; print([run(play(draw(seed))) for seed in (3, 8)])"
    )
    untraced = {
        name: value for name, value in os.environ.items() if not name.startswith("COVERAGE")
    }
    told = {
        subprocess.run(
            [sys.executable, "-c", code],
            cwd=ROOT,
            env={**untraced, "PYTHONHASHSEED": hash_seed, "PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for hash_seed in ("1", "2")
    }
    assert len(told) == 1
    assert str([run(play(draw(seed))) for seed in (3, 8)]) + "\n" in told


@pytest.mark.simulated
def test_all_holds_wherever_a_process_dies() -> None:
    """At each await that it reaches, the first time and the last.

    ``--crashes`` goes through every step.
    """
    sweep = Sweep()
    sweep.go_through(small(3), every=1_000_000)
    assert sweep.broken == []
    assert len(sweep.stood) > 50


@pytest.mark.simulated
def test_all_holds_wherever_the_connection_is_cut() -> None:
    """A scan that failed after it had read the accounts left them unread for minutes."""
    sweep = Sweep()
    sweep.cut(replace(small(3), refresh=300.0), every=12)
    assert sweep.broken == []
    assert sweep.cuts > 20


def test_a_process_dies_at_the_chosen_step() -> None:
    """With no message to the shop or to the provider after it."""
    watched: list[Process] = []
    counted: list[tuple[int, bool]] = []

    def watch(process: Process) -> None:
        watched.append(process)
        if process.number == 1:
            process.steps.on_step = lambda _: counted.append((process.steps.made, process.is_dead))

    run(play(replace(small(6), crash_at=(40,)), watch))
    alive = [made for made, is_dead in counted if not is_dead]
    assert (alive, [p.is_dead for p in watched][:2]) == (list(range(1, 41)), [True, False])


@pytest.mark.parametrize("commits", [True, False])
def test_a_commit_on_its_way_is_done_or_not_when_its_process_dies(*, commits: bool) -> None:
    async def die() -> tuple[str, int]:
        store = Store(0.0, random.Random(1))
        store.rows["o"] = Stored("o", "sent", 0.0, "1", "a")
        table_config = layout_for(give_up_after=1e6, last_sync=False)
        pool = Pool(store, ledger_for(table_config, last_sync=False))
        orders = ModelOrders(pool, database_over(pool))
        finding = CheckResult(Order("o", "sent", 0.0, "1"), Completed(Pin("PIN-10001"), "x"), 0.0)
        await orders.reread([finding.order])
        recording = asyncio.create_task(orders.record([finding]))
        while not pool.is_committing or not store.locked:
            await asyncio.sleep(0.001)
        pool.die(commits=commits)
        with pytest.raises(ShopError):
            await recording
        assert not store.locked
        return store.rows["o"].status, len(store.events)

    assert run(die()) == (("completed", 1) if commits else ("sent", 0))


def test_what_breaks_is_shortened() -> None:
    scenario = next(s for s in map(draw, range(100)) if len(s.orders) > 8 and len(s.faults) > 4)
    small = shortened(
        scenario,
        lambda s: {4, 7} <= {o.number for o in s.orders} and s.faults[-1:] == scenario.faults[-1:],
    )
    assert ([order.number for order in small.orders], small.faults) == (
        [4, 7],
        scenario.faults[-1:],
    )


@pytest.mark.parametrize("text", ["", "x", "-", "3-", "5-2", "0", "-3", "1-2-3", "٣"])
def test_what_is_no_range_of_seeds_is_refused(text: str) -> None:
    with pytest.raises(Exception, match="seeds"):
        seeds(text)


def test_ranges_of_seeds() -> None:
    assert seeds("3") == range(3)
    assert seeds("5-6") == range(5, 7)


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_each_planted_bug_can_still_be_planted(mutant: Mutant, tmp_path: object) -> None:
    for file, old, new in mutant.changes:
        text = (ROOT / "order_monitor" / file).read_text()
        ((begin, end),) = places_of(text, old)
        compile(f"{text[:begin]}{new}{text[end:]}", file, "exec")


def test_a_bug_that_cannot_be_planted_is_an_error(tmp_path: object) -> None:
    from pathlib import Path

    with pytest.raises(ValueError, match="can no longer be planted"):
        planted(Mutant("x", "core/gate.py", "this stands nowhere", ""), Path(str(tmp_path)) / "x")
