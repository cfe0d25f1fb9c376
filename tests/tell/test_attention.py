"""One judgement: page, status, its exit code, document, metrics and readiness say the same in every
state.
"""

import asyncio
import io
from collections.abc import Callable
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families
from rich.console import Console

from order_monitor.cluster.members import Cluster
from order_monitor.cluster.membership import Member, Membership, View
from order_monitor.commands import status
from order_monitor.commands.exits import ExitCode
from order_monitor.core.gate import Pause
from order_monitor.core.order import SkipReason
from order_monitor.settings.loading import load
from order_monitor.shop.accounts.pauses import EVERY_ACCOUNT
from order_monitor.shop.database import Database
from order_monitor.shop.dsn import parse_dsn
from order_monitor.tell.attention import NOT_READY, REMEDIES, causes_in
from order_monitor.tell.document import document_of
from order_monitor.tell.messages import Messages
from tests.support import stages
from tests.support.browsers import browser, browsers, opened, text
from tests.support.clocks import ManualClock
from tests.support.shops import NOW
from tests.support.stages import STAGES, Stage

__all__ = ["browser"]

Change = Callable[[Stage], object]


def closed(stage: Stage) -> None:
    stage.shut("default", "timeout")


def paused(stage: Stage) -> None:
    stage.accounts["default"].paused = Pause("default", "why", "Ayşe", stage.clock.time())


def clock_of(stage: Stage) -> ManualClock:
    assert isinstance(stage.clock, ManualClock)
    return stage.clock


def late(stage: Stage) -> None:
    clock_of(stage).elapsed += 700


def stuck(stage: Stage) -> None:
    stage.stuck(stage.shelf.orders[0])


def events(stage: Stage) -> None:
    stage.engine.state.events_waiting = (3, stage.clock.time() - 900)


def dead(stage: Stage) -> None:
    class Posting:
        waiting, dead, problem = 5, 2, ""

    posting: Any = Posting()
    stage.view.sender = posting


def skipped(stage: Stage) -> None:
    stage.engine.state.skipped[SkipReason.NO_REFERENCE] = 7


def by_hand(stage: Stage) -> None:
    stage.engine.state.skipped[SkipReason.NO_PROVIDER] = 7


def mixed(stage: Stage) -> None:
    membership = Membership(
        Database(parse_dsn("postgresql://x/y")), "public.product_orders", "a", "m"
    )
    stage.view.cluster = Cluster(stage.engine, membership, stage.clock)
    me = Member("a-1/2", "m", frozenset({"default"}), leads=True)
    stage.view.cluster.view, stage.view.cluster.problem = View(me, (me,)), ""
    stage.engine.state.beside = ("h (pid 1)",)


def just_booted(stage: Stage) -> None:
    clock_of(stage).up = 60.0


def leapt(stage: Stage) -> None:
    clock_of(stage).epoch -= 40
    stage.engine.context.read_clock()


def far_apart(stage: Stage) -> None:
    clock_of(stage).epoch -= 7200
    stage.engine.context.read_clock()


def unwritten(stage: Stage) -> None:
    stage.engine.state.clock_stood_still = True


def unread(stage: Stage) -> None:
    stage.engine.state.scan_problem = "ConnectionRefusedError"


def setting(name: str, value: object) -> Change:
    return lambda stage: setattr(stage.engine.state, name, value)


STATES: dict[str, tuple[Change, str, set[str]]] = {
    "well": (lambda _: None, "healthy", set()),
    "by hand": (by_hand, "healthy", set()),
    "just booted": (just_booted, "healthy", set()),
    "closed": (closed, "not_healthy", {"closed"}),
    "paused": (paused, "needs_a_look", {"paused"}),
    "late": (late, "not_healthy", {"late", "events", "light"}),
    "stuck": (stuck, "needs_a_look", {"stuck"}),
    "held": (setting("held", {"default": 4}), "needs_a_look", {"held"}),
    "beside": (setting("beside", ("h (pid 1)",)), "needs_a_look", {"beside"}),
    "mixed": (mixed, "needs_a_look", {"mixed"}),
    "skipped": (skipped, "needs_a_look", {"skipped"}),
    "first start": (setting("first_start_held", 3), "needs_a_look", {"first_start"}),
    "events": (events, "needs_a_look", {"events"}),
    "dead": (dead, "needs_a_look", {"dead"}),
    "reviews": (setting("reviews", 34), "needs_a_look", {"reviews"}),
    "leapt": (leapt, "needs_a_look", {"differ"}),
    "far apart": (far_apart, "needs_a_look", {"clocks", "differ"}),
    "unwritten": (unwritten, "not_healthy", set()),
    "unread": (unread, "needs_a_look", {"light"}),
}
"""Each state by how it comes about, the verdict, and the kinds that need a person."""


async def staged(name: str) -> Stage:
    if name in STAGES:
        return await STAGES[name](ManualClock())
    stage = await stages.busy(ManualClock())
    STATES[name][0](stage)
    return stage


def shown(document: dict[str, Any]) -> str:
    console = Console(width=300, record=True, file=io.StringIO())
    console.print(status.screen(document))
    return console.export_text()


def gauges(stage: Stage, name: str) -> dict[str, float]:
    families = text_string_to_metric_families(stage.metrics.text().decode())
    return {
        s.labels.get("kind", ""): s.value
        for f in families
        for s in f.samples
        if s.name == f"order_monitor_{name}"
    }


@pytest.mark.long
@pytest.mark.untraced
@pytest.mark.parametrize("name", [*STATES, *STAGES])
async def test_all_say_the_same(name: str) -> None:
    stage = await staged(name)
    async with stage.listening() as url:
        port = {"ORDER_MONITOR_HEALTH__PORT": url.rpartition(":")[2]}
        document: Any = await asyncio.to_thread(status.ask, load(None, port))
    verdict, kinds = (
        document["verdict"],
        {c["kind"] for c in document["attention"] if not c["passes"]},
    )
    if name in STATES:
        assert (verdict, kinds) == STATES[name][1:]
    said = shown(document)
    word = {
        "healthy": "─ healthy",
        "needs_a_look": "─ somebody should look",
        "not_healthy": "─ not healthy",
    }[verdict]
    assert word in said
    for cause in causes_in(stage.view):
        line = next(
            line for line in said.splitlines() if Messages("en", "").sentence(cause) in line
        )
        assert (REMEDIES[cause.kind] in line) is not cause.passes
    assert all(reason in said for reason in document["reasons"])
    assert status.code_of(document) == (ExitCode.OK if verdict == "healthy" else ExitCode.NOT_DONE)
    assert gauges(stage, "attention") == {
        kind: float(kind in kinds) for kind in REMEDIES if kind != NOT_READY
    }
    is_ready = not stage.probe.reasons()
    assert gauges(stage, "ready") == {"": float(is_ready)}
    assert is_ready is document["ready"] is (verdict != "not_healthy")
    assert verdict != "healthy" or all(light["ok"] for light in document["lights"].values())


@browsers
@pytest.mark.parametrize("name", STATES)
async def test_the_page_says_it_too(browser: Any, name: str) -> None:
    stage = await staged(name)
    document = document_of(stage.view)
    async with opened(browser, stage) as page:
        state = {"healthy": "ok", "needs_a_look": "warn", "not_healthy": "bad"}[document["verdict"]]
        assert await page.get_attribute("#verdict", "data-state") == state
        lines = (await text(page, "#reasons")).splitlines()
        assert len(lines) == len(document["attention"]) + len(document["reasons"])


async def test_an_older_daemon_is_judged_by_its_causes() -> None:
    document = document_of((await staged("reviews")).view)
    del document["verdict"]
    assert status.code_of(document) == ExitCode.NOT_DONE
    document["attention"] = []
    assert status.code_of(document) == ExitCode.OK


async def test_a_hold_on_the_ends_of_all_accounts_is_shown_at_each_account() -> None:
    stage = Stage(("a", "b"))
    await stage.begin()
    accounts = document_of(stage.view)["accounts"]
    assert [one["ends_paused"] for one in accounts] == [None, None]
    stage.engine.state.ends_paused = {EVERY_ACCOUNT: Pause(EVERY_ACCOUNT, "stock", "Ay", NOW)}
    accounts = document_of(stage.view)["accounts"]
    assert [one["ends_paused"]["reason"] for one in accounts] == ["stock", "stock"]
