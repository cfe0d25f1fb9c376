"""Two daemons on one shop: told by both, and neither by what a killed one has left behind."""

from dataclasses import dataclass, field
from typing import Any

import structlog
from structlog.testing import capture_logs

from order_monitor.cluster.membership import Membership, announced, member_name
from order_monitor.cluster.other_daemons import OtherDaemons
from order_monitor.core.clocks import ClockMemory
from order_monitor.shop.database import Database
from order_monitor.shop.dsn import parse_dsn
from order_monitor.shop.presence import DAEMON, Ident, Presence
from tests.support.clocks import ManualClock
from tests.support.shops import Shop

MEMORY = ClockMemory(None, None, 0.0, None)


@dataclass
class State:
    beside: tuple[str, ...] = ()


@dataclass
class OneBoard:
    state: State = field(default_factory=State)


def of(shop: Shop, name: str) -> tuple[Presence, OtherDaemons, OneBoard]:
    presence, context = (
        Presence(shop.database(), "public", Ident(name, f"host-{name}", 7, DAEMON, "1")),
        OneBoard(),
    )
    return presence, OtherDaemons(context, presence, ManualClock()), context  # type: ignore[arg-type]


async def test_two_daemons_tell_of_each_other_and_of_the_end_of_it(plain_shop: Shop) -> None:
    structlog.reset_defaults()
    (one, company, context), (other, others, beside) = of(plain_shop, "a"), of(plain_shop, "b")
    logs: Any
    with capture_logs() as logs:
        for _ in range(3):
            await one.tell("boot", MEMORY)
            await other.tell("boot", MEMORY)
            await company.step()
            await others.step()
        assert list(context.state.beside) == ["host-b (pid 7)"]
        assert list(beside.state.beside) == ["host-a (pid 7)"]
        await other.leave("boot", MEMORY)
        await company.step()
    assert not context.state.beside
    told = [line["event"] for line in logs]
    assert (told.count("daemon.beside"), told.count("daemon.alone")) == (2, 1)


async def test_what_a_killed_daemon_left_is_none(plain_shop: Shop) -> None:
    (_, company, context), (killed, _, _) = of(plain_shop, "a"), of(plain_shop, "b")
    await killed.tell("boot", MEMORY)
    for _ in range(3):
        await company.step()
    assert context.state.beside == ()


async def test_without_a_right_on_the_table_it_is_no_news(plain_shop: Shop) -> None:
    _, company, context = of(plain_shop, "a")
    await plain_shop.connection.execute("DROP TABLE order_monitor_presence")
    await company.step()
    assert context.state.beside == ()


async def test_where_accounts_are_shared_only_who_does_not_is_told(plain_shop: Shop) -> None:
    """And only once that has lasted: joining takes a while, and so does coming back."""
    (one, _, _), (other, _, _) = of(plain_shop, "a"), of(plain_shop, "b")
    context, known = OneBoard(), {"members": frozenset({"host-a-7", "host-b-7"})}
    company = OtherDaemons(context, one, ManualClock(), lambda: known["members"])  # type: ignore[arg-type]

    async def looks(count: int) -> list[str]:
        for _ in range(count):
            await other.tell("boot", MEMORY)
            await company.step()
        return list(context.state.beside)

    assert await looks(5) == []
    known["members"] = frozenset({"host-a-7"})
    assert await looks(2) == []
    known["members"] = frozenset({"host-a-7", "host-b-7"})
    assert await looks(1) == []
    known["members"] = frozenset({"host-a-7"})
    assert await looks(3) == ["host-b (pid 7)"]
    known["members"] = None  # type: ignore[assignment]
    assert await looks(1) == ["host-b (pid 7)"], "what is not known is no news"


def test_a_long_name_is_known_as_the_others_see_it() -> None:
    database = Database(parse_dsn("postgresql://x/y"))
    name = member_name("ü" + "very-long-host-name-of-a-container" * 2, 4711)
    shown = Membership(database, "public.product_orders", name, "0123abcd").application
    assert len(shown) <= 63
    assert shown.removeprefix("order-monitor ").rpartition(" ")[0] == announced(name)
