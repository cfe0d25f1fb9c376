"""Two daemons on one shop: told by both, and neither by what a killed one has left behind."""

from dataclasses import dataclass, field
from typing import Any

import structlog
from structlog.testing import capture_logs

from order_monitor.core.clocks import ClockMemory
from order_monitor.shop.presence import DAEMON, Ident, Presence
from order_monitor.watch.other_daemons import OtherDaemons
from tests.clocks import ManualClock
from tests.shops import Shop

MEMORY = ClockMemory(None, None, 0.0, None)


@dataclass
class State:
    beside: tuple[str, ...] = ()


@dataclass
class OneBoard:
    state: State = field(default_factory=State)


def of(shop: Shop, name: str) -> tuple[Presence, OtherDaemons, OneBoard]:
    presence, board = Presence(shop.database(), "public", Ident(name, f"host-{name}", 7, DAEMON, "1")), OneBoard()
    return presence, OtherDaemons(board, presence, ManualClock()), board  # type: ignore[arg-type]


async def test_two_daemons_tell_of_each_other_and_of_the_end_of_it(plain_shop: Shop) -> None:
    structlog.reset_defaults()
    (one, company, board), (other, others, beside) = of(plain_shop, "a"), of(plain_shop, "b")
    logs: Any
    with capture_logs() as logs:
        for _ in range(3):
            await one.tell("boot", MEMORY)
            await other.tell("boot", MEMORY)
            await company.step()
            await others.step()
        assert list(board.state.beside) == ["host-b (pid 7)"]
        assert list(beside.state.beside) == ["host-a (pid 7)"]
        await other.leave("boot", MEMORY)
        await company.step()
    assert not board.state.beside
    told = [line["event"] for line in logs]
    assert (told.count("daemon.beside"), told.count("daemon.alone")) == (2, 1)


async def test_what_a_killed_daemon_left_is_none(plain_shop: Shop) -> None:
    (_, company, board), (killed, _, _) = of(plain_shop, "a"), of(plain_shop, "b")
    await killed.tell("boot", MEMORY)
    for _ in range(3):
        await company.step()
    assert board.state.beside == ()


async def test_without_a_right_on_the_table_it_is_no_news(plain_shop: Shop) -> None:
    _, company, board = of(plain_shop, "a")
    await plain_shop.connection.execute("DROP TABLE order_monitor_presence")
    await company.step()
    assert board.state.beside == ()
