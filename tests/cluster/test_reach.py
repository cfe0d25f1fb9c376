"""An account goes to a process that can reach its provider, where its holder cannot."""

import asyncio

import httpx
import pytest

from order_monitor.cluster.reach import is_cut_off
from order_monitor.core.judge import Fault
from order_monitor.providers.client_api.client import ClientApi, ClientApiAccount
from order_monitor.providers.provider import Reachable
from order_monitor.providers.znet.client import Znet, ZnetAccount
from order_monitor.watch.account import Account
from tests.support import stages
from tests.support.clocks import ManualClock
from tests.support.members import House, Process, house, quick, until

__all__ = ["house", "quick"]


class Line(stages.NeverAsked):
    """A provider that this process reaches, or not."""

    def __init__(self, *, is_up: bool) -> None:
        self.is_up = is_up
        self.tries = 0

    async def is_reached(self) -> bool:
        self.tries += 1
        return self.is_up


def started(house: House, name: str, accounts: tuple[str, ...], *, is_up: bool) -> Process:
    process = house.start(name, accounts)
    for account in process.accounts.values():
        account.provider = Line(is_up=is_up)
    return process


def cut_off(process: Process, name: str, fault: Fault = Fault.NETWORK) -> Account:
    account = process.accounts[name]
    account.fault = fault
    account.gate.shut(process.stage.clock.monotonic(), "connect_timeout", probe=False)
    return account


@pytest.mark.parametrize(
    ("fault", "answered_at", "expected"),
    [
        (Fault.NETWORK, None, True),
        (Fault.NETWORK, 900.0, True),
        (Fault.NETWORK, 995.0, False),
        (Fault.ACCOUNT, None, False),
    ],
)
def test_of_several_accounts_one_says_so_unless_another_is_answered(
    fault: Fault, answered_at: float | None, *, expected: bool
) -> None:
    """Another one may have no order that is due, so that its gate stays open."""
    closed, other = (Account(name, Line(is_up=False)) for name in ("a", "b"))
    other.answered_at = answered_at
    assert not is_cut_off([closed, other], 1000.0, 100.0)
    closed.fault, closed.closed_at = fault, 80.0
    closed.gate.shut(80.0, "connect_timeout", probe=False)
    assert is_cut_off([closed, other], 1000.0, 100.0) is expected
    assert is_cut_off([closed], 1000.0, 100.0) is (fault is Fault.NETWORK)


async def pair(
    house: House, accounts: tuple[str, ...] = ("a", "b"), *, is_up: bool
) -> tuple[Process, Process]:
    """Two processes with shares, of which the first is cut off from all."""
    one = started(house, "one", accounts, is_up=False)
    await until(lambda: one.held() == set(accounts))
    two = started(house, "two", accounts, is_up=is_up)
    await until(lambda: len(one.held()) == len(accounts) - len(accounts) // 2)
    await until(lambda: len(two.held()) == len(accounts) // 2)
    return one, two


async def test_it_goes_to_who_can_reach_its_provider_and_stays_there(house: House) -> None:
    one, two = await pair(house, is_up=True)
    (mine,) = one.held()
    cut_off(one, mine)
    await until(lambda: mine in two.held())
    assert mine not in one.held()
    for _ in range(50):
        await asyncio.sleep(0.01)
        assert mine in two.held()
    await until(lambda: one.held() and two.held() == {mine})


async def test_the_only_account_goes_too(house: House) -> None:
    one, two = await pair(house, ("a",), is_up=True)
    cut_off(one, "a")
    await until(lambda: two.held() == {"a"})
    assert one.held() == set()


@pytest.mark.parametrize(
    ("is_up", "fault"), [(False, Fault.NETWORK), (True, Fault.ACCOUNT), (True, Fault.OURS)]
)
async def test_it_stays_where_nobody_reaches_it_or_the_provider_itself_answers_so(
    house: House, *, is_up: bool, fault: Fault
) -> None:
    one, two = await pair(house, ("a",), is_up=is_up)
    cut_off(one, "a", fault)
    for _ in range(50):
        await asyncio.sleep(0.01)
        assert one.held() == {"a"}
    line = two.accounts["a"].provider
    assert isinstance(line, Line)
    assert line.tries == (fault is Fault.NETWORK)


async def test_one_that_cannot_be_asked_from_anywhere_does_not_wander(house: House) -> None:
    """Whatever answers at the provider's address, the orders' own calls fail from both."""
    one, two = await pair(house, ("a",), is_up=True)
    line = one.accounts["a"].provider
    assert isinstance(line, Line)
    line.is_up = True
    cut_off(one, "a")
    await until(lambda: two.held() == {"a"})
    cut_off(two, "a")
    for _ in range(100):
        await asyncio.sleep(0.01)
        assert two.held() == {"a"}


async def test_who_reaches_it_and_dies_leaves_it_to_any(house: House) -> None:
    one, two = await pair(house, ("a",), is_up=True)
    cut_off(one, "a")
    await until(lambda: two.held() == {"a"})
    await house.stop("two")
    await until(lambda: one.held() == {"a"})


@pytest.mark.parametrize("kind", ["znet", "client_api"])
async def test_a_provider_is_tried_without_a_login_and_any_response_will_do(kind: str) -> None:
    asked: list[httpx.Request] = []
    is_up = True

    def answer(request: httpx.Request) -> httpx.Response:
        asked.append(request)
        if not is_up:
            raise httpx.ConnectTimeout("x")
        return httpx.Response(403, stream=httpx.ByteStream(b"<html>"))

    transport, clock = httpx.MockTransport(answer), ManualClock()
    provider: Reachable = (
        Znet(ZnetAccount("https://x.example/panel", "KOD", "SIFRE"), transport, clock)
        if kind == "znet"
        else ClientApi(ClientApiAccount("https://x.example/panel", "TOKEN"), transport, clock)
    )
    assert await provider.is_reached()
    is_up = False
    assert not await provider.is_reached()
    for request in asked:
        sent = f"{request.url} {request.headers}"
        assert not any(secret in sent for secret in ("KOD", "SIFRE", "TOKEN"))
    await provider.aclose()
