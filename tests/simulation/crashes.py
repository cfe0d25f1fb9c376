"""A small run, step by step: its process dies at each await of its life, another takes over, and
every invariant must hold.

The same for the connection to the database, which is cut at each statement.
"""

import ast
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any

from tests.simulation.loop import run
from tests.simulation.process import BrokenError, Process
from tests.simulation.scenario import Scenario
from tests.simulation.shop import Store
from tests.simulation.steps import HOME, Place, places
from tests.simulation.world import play


@dataclass
class QueueSummary:
    """Where a process is at each of its steps, and which of them have a COMMIT in flight."""

    at: list[tuple[Place, ...]] = field(default_factory=list)
    committing: set[int] = field(default_factory=set)
    store: Store | None = None

    def watch(self, process: Process) -> None:
        """Watch the first process of a world."""
        if process.number == 1:
            self.store = process.world.store
            process.steps.on_step = lambda coroutine: self._note(process, coroutine)

    def _note(self, process: Process, coroutine: Any) -> None:
        self.at.append(tuple(places(coroutine)))
        if process.pool.is_committing:
            self.committing.add(len(self.at))

    def steps(self, every: int = 1) -> list[int]:
        """Return each k-th step, and the first and the last step at each place."""
        first: dict[Place, int] = {}
        last: dict[Place, int] = {}
        for step, found in enumerate(self.at, 1):
            for place in found:
                first.setdefault(place, step)
                last[place] = step
        return sorted({*range(1, len(self.at) + 1, every), *first.values(), *last.values()})

    @property
    def statements(self) -> int:
        """Return the number of statements sent to the database by all processes."""
        return self.store.statements if self.store is not None else 0

    def places(self) -> Counter[Place]:
        """Count how often it was at each place."""
        return Counter(place for found in self.at for place in found)


def queue_summary(scenario: Scenario) -> QueueSummary:
    """Run it without a crash, and return where its first process was."""
    found = QueueSummary()
    run(play(scenario, found.watch))
    return found


def crashes(
    scenario: Scenario, steps: Iterable[int], committing: set[int]
) -> Iterator[tuple[int, str]]:
    """Kill the first process at each of ``steps``; with a COMMIT in flight, once with it done and
    once without.

    Yields the step and what broke, empty if everything held.
    """
    for step in steps:
        for commits in (False, True) if step in committing else (False,):
            yield step, _why(replace(scenario, crash_at=(step,), commits_at_death=commits))


def _why(scenario: Scenario) -> str:
    try:
        run(play(scenario))
    except BrokenError as error:
        return str(error)
    except Exception as error:  # noqa: BLE001 - whatever a run dies of is a finding
        return f"{type(error).__name__}: {error}"
    return ""


def awaits(files: Iterable[str]) -> set[tuple[str, int, int]]:
    """Return every await of some files of the program: its first line and its last."""
    found = set()
    for file in files:
        for node in ast.walk(ast.parse((HOME / file).read_text())):
            if isinstance(node, (ast.Await, ast.AsyncFor, ast.AsyncWith)):
                last = node.end_lineno if isinstance(node, ast.Await) else node.body[0].lineno
                found.add((file, node.lineno, last or node.lineno))
    return found


def hit(known: set[tuple[str, int, int]], stood: Iterable[Place]) -> set[tuple[str, int, int]]:
    """Return the awaits at which a process was."""
    lines = set(stood)
    return {
        (file, a, b)
        for file, a, b in known
        if any((file, line) in lines for line in range(a, b + 1))
    }


@dataclass
class Sweep:
    """The result of stepping through some small runs."""

    steps: int = 0
    runs: int = 0
    cuts: int = 0
    stood: Counter[Place] = field(default_factory=Counter)
    broken: list[str] = field(default_factory=list)

    def go_through(self, scenario: Scenario, every: int = 1) -> None:
        """Kill the first process of ``scenario`` at each k-th step, and at the first and the last
        step of each place.
        """
        found = queue_summary(scenario)
        steps = found.steps(every)
        self.steps += len(steps)
        self.stood.update(place for step in steps for place in found.at[step - 1])
        for step, why in crashes(scenario, steps, found.committing):
            self.runs += 1
            if why:
                self.broken.append(f"seed {scenario.seed}, step {step}: {why}")

    def cut(self, scenario: Scenario, every: int = 1) -> None:
        """Cut the connection to the database at each k-th statement, once in a run."""
        for statement in range(1, queue_summary(scenario).statements + 1, every):
            self.cuts += 1
            if why := _why(replace(scenario, cut_at=statement)):
                self.broken.append(f"seed {scenario.seed}, cut at statement {statement}: {why}")

    def told(self) -> str:
        """Return it in one line."""
        known = awaits({file for file, _ in self.stood})
        stood = len(hit(known, self.stood))
        return (
            f"{self.runs} deaths at {self.steps} steps, at {len(self.stood)} places "
            f"({stood} of the {len(known)} awaits of their files), {self.cuts} cuts: {len(self.broken)} broken"
        )
