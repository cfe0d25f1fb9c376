"""The model shop behaves like PostgreSQL: whole runs are replayed, one statement at a time, and
give the same rows.

``SIMULATION_REPLAYS=50`` replays more random runs, as `make replay` does.
"""

import asyncio
import os
from collections.abc import Callable
from dataclasses import replace
from itertools import islice

import pytest

from order_monitor.demo.postgres import EmbeddedPostgres
from tests.conftest import Citus
from tests.simulation.loop import run
from tests.simulation.replay import Replay
from tests.simulation.scenario import Scenario, draw, small
from tests.simulation.special import further, joined, special
from tests.simulation.tape import Tape, TapeEntry
from tests.simulation.world import play
from tests.support import databases

FRESH = int(os.environ["SIMULATION_SEED"])
MOST = 4000
"""Replayed entries of a run: the rest is similar."""

ROUNDS = int(os.environ.get("SIMULATION_REPLAYS", "1"))
MAKERS: tuple[tuple[Callable[[int], Scenario], int], ...] = (
    (small, 3),
    (draw, 1),
    (special, 1),
    (joined, 1),
    (further, 1),
)


def can_be_replayed(scenario: Scenario) -> bool:
    """A server that is not failed over loses no commit."""
    return not any(fault.kind.startswith("fails_over") for fault in scenario.faults)


SAMPLE = [
    (maker, seed)
    for maker, count in MAKERS
    for seed in islice(
        (seed for seed in range(FRESH, FRESH + 1000) if can_be_replayed(maker(seed))),
        count * ROUNDS,
    )
]


async def taped(scenario: Scenario) -> list[TapeEntry]:
    """Run ``scenario``; return its effects on the shop."""
    tape = Tape()
    await asyncio.to_thread(run, play(scenario, tape=tape))
    return tape.entries


async def replayed(server: EmbeddedPostgres, entries: list[TapeEntry]) -> Replay:
    """Replay it into a separate database."""
    name = databases.create(server)
    replay = Replay(server.dsn(name))
    try:
        await replay.prepare()
        await replay.play(entries)
        await replay.close()
    finally:
        databases.drop(server, name)
    return replay


@pytest.fixture
def own_server(server: EmbeddedPostgres | Citus) -> EmbeddedPostgres:
    if isinstance(server, Citus):
        pytest.skip("a replay has tables of its own, which nothing distributes")
    return server


@pytest.mark.simulated
@pytest.mark.parametrize(
    ("maker", "seed"), SAMPLE, ids=[f"{maker.__name__}-{seed}" for maker, seed in SAMPLE]
)
async def test_a_run_comes_to_the_same_in_postgresql(
    own_server: EmbeddedPostgres, maker: Callable[[int], Scenario], seed: int
) -> None:
    replay = await replayed(own_server, (await taped(maker(seed)))[:MOST])
    assert replay.differences == []
    assert replay.done.total() > 20


@pytest.mark.simulated
async def test_a_statement_that_gives_something_else_is_told(own_server: EmbeddedPostgres) -> None:
    """And a row that differs at the end."""
    entries = await taped(small(0))
    at = next(n for n, entry in enumerate(entries) if entry.name == "_lock" and entry.result)
    wrong = [{**row, "referans": "another"} for row in entries[at].result]
    told = await replayed(own_server, [*entries[:at], replace(entries[at], result=wrong)])
    assert [text.split(":")[0] for text in told.differences] == [f"at entry {at}"]
    assert entries[-1].state is not None
    rows = [("order-0", *row[1:]) for row in entries[-1].state["orders"]]
    told = await replayed(
        own_server,
        [*entries[:-1], replace(entries[-1], state={**entries[-1].state, "orders": rows})],
    )
    assert "orders in PostgreSQL alone" in told.differences[-1]
