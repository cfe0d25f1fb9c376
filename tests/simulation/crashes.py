"""A small run gone through step by step: its process dies at each await of its life, another takes over, and all must hold.

The same with the connection to the database, which is cut at each statement.
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
class Census:
    """Where a process stands at each of its steps, and at which of them a COMMIT is on its way."""

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
        """Return each k-th step, and of each place the first and the last one."""
        first: dict[Place, int] = {}
        last: dict[Place, int] = {}
        for step, found in enumerate(self.at, 1):
            for place in found:
                first.setdefault(place, step)
                last[place] = step
        return sorted({*range(1, len(self.at) + 1, every), *first.values(), *last.values()})

    @property
    def statements(self) -> int:
        """How many statements were sent to the database, by all."""
        return self.store.statements if self.store is not None else 0

    def places(self) -> Counter[Place]:
        """Count how often it stood where."""
        return Counter(place for found in self.at for place in found)


def census(scenario: Scenario) -> Census:
    """Let it play undisturbed, and return where its first process stood."""
    found = Census()
    run(play(scenario, found.watch))
    return found


def crashes(scenario: Scenario, steps: Iterable[int], committing: set[int]) -> Iterator[tuple[int, str]]:
    """Let the first process die at each of ``steps``, where a COMMIT is on its way once with it done and once without.

    Yields the step and what broke, nothing where all held.
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
    """Return those awaits at which something stood."""
    lines = set(stood)
    return {(file, a, b) for file, a, b in known if any((file, line) in lines for line in range(a, b + 1))}


@dataclass
class Sweep:
    """What going through some small runs came to."""

    steps: int = 0
    runs: int = 0
    cuts: int = 0
    stood: Counter[Place] = field(default_factory=Counter)
    broken: list[str] = field(default_factory=list)

    def go_through(self, scenario: Scenario, every: int = 1) -> None:
        """Let the first process of ``scenario`` die at each k-th step, and at each place at its first and its last one."""
        found = census(scenario)
        steps = found.steps(every)
        self.steps += len(steps)
        self.stood.update(place for step in steps for place in found.at[step - 1])
        for step, why in crashes(scenario, steps, found.committing):
            self.runs += 1
            if why:
                self.broken.append(f"seed {scenario.seed}, step {step}: {why}")

    def cut(self, scenario: Scenario, every: int = 1) -> None:
        """Let the connection to the database be cut at each k-th statement, once in a run."""
        for statement in range(1, census(scenario).statements + 1, every):
            self.cuts += 1
            if why := _why(replace(scenario, cut_at=statement)):
                self.broken.append(f"seed {scenario.seed}, cut at statement {statement}: {why}")

    def told(self) -> str:
        """Say it in one line."""
        known = awaits({file for file, _ in self.stood})
        stood = len(hit(known, self.stood))
        return (
            f"{self.runs} deaths at {self.steps} steps, at {len(self.stood)} places "
            f"({stood} of the {len(known)} awaits of their files), {self.cuts} cuts: {len(self.broken)} broken"
        )
