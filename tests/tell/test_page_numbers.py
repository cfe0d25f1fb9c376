"""Each number of the page is the sum of its parts, and a list says how many it leaves out, in every
state.
"""

import re
from typing import Any

import pytest
from playwright.async_api import Page

from order_monitor.tell.document import document_of
from tests.support import stages
from tests.support.browsers import browser, browsers, opened, text
from tests.support.clocks import ManualClock
from tests.support.metrics import scrape
from tests.support.stages import STAGES, Stage

__all__ = ["browser"]


def parts_of(document: dict[str, Any]) -> None:
    """Hold each total against its parts."""
    orders, skipped = document["orders"], document["orders"]["skipped"]
    by_age = sum(row["count"] for row in orders["by_age"])
    not_asked = sum(count for reason, count in skipped.items() if reason != "unknown_status")
    assert orders["open"] == by_age + not_asked
    assert sum(account["orders"] for account in document["accounts"]) == by_age
    assert sum(account["due"] for account in document["accounts"]) == orders["due"]
    assert (
        sum(account["awaiting_pin"] for account in document["accounts"]) == orders["awaiting_pin"]
    )
    assert all(
        account["due"] <= account["orders"] + account["awaiting_pin"]
        for account in document["accounts"]
    )
    assert orders["overdue"] <= by_age
    kinds = [problem["kind"] for problem in document["problems"]]
    assert kinds.count("stuck") == min(orders["stuck"], 100)
    assert len(kinds) == min(document["all_problems"], 100)
    assert len(document["oldest_reviews"]) == min(document["reviews"], 100)


@pytest.mark.long
@pytest.mark.untraced
@pytest.mark.parametrize("name", STAGES)
async def test_totals_are_the_sums_of_their_parts(name: str) -> None:
    stage = await STAGES[name](ManualClock())
    parts_of(document_of(stage.view))
    document, told = document_of(stage.view), await scrape(stage)
    if stage.view.speaks:
        assert told["order_monitor_orders_open", ()] == document["orders"]["open"]
        assert told["order_monitor_reviews", ()] == document["reviews"]


async def test_between_two_looks_the_parts_still_add_up() -> None:
    """An order that has ended since the last look is gone from the sum and from its part alike."""
    clock = ManualClock()
    stage = await stages.leftover(clock)
    before = document_of(stage.view)["orders"]["open"]
    stage.engine.queue.forget(stage.shelf.orders[3].id)
    clock.elapsed += 1
    document = document_of(stage.view)
    parts_of(document)
    assert document["orders"]["open"] == before - 1
    assert document["orders"]["read_seconds_ago"] == 1.0


async def test_what_waits_for_a_pin_is_no_open_order() -> None:
    document = document_of((await stages.leftover(ManualClock())).view)
    orders = document["orders"]
    assert (orders["open"], orders["awaiting_pin"]) == (42 + 110 + 5 + 9, 21)
    assert orders["skipped"] == {
        "before_start": 9,
        "no_provider": 5,
        "no_reference": 110,
        "unknown_status": 3,
    }
    assert document["all_problems"] == 113
    assert {problem["why"] for problem in document["problems"]} <= {
        "no_reference",
        "unknown_status",
    }
    for problem in document["problems"]:
        assert problem["account"] == "default", problem
        assert problem["since"], problem


async def shown_in(page: Page, table: str) -> tuple[int, int]:
    caption = await text(page, f"#{table} caption")
    found = re.search(r"([\d,]+) of ([\d,]+) shown", caption)
    assert found, caption
    return int(found[1].replace(",", "")), int(found[2].replace(",", ""))


@browsers
@pytest.mark.untraced
@pytest.mark.parametrize("name", STAGES)
async def test_the_page_shows_the_documents_numbers(browser: Any, name: str) -> None:
    stage: Stage = await STAGES[name](ManualClock())
    document = document_of(stage.view)
    async with opened(browser, stage) as page:
        shown = {
            n: int((await text(page, f"#{n}")).replace(",", ""))
            for n in ("open", "due", "overdue", "stuck")
        }
        assert shown == {n: document["orders"][n] for n in shown}
        assert "Orders as read" in await text(page, "#read")
        if shown["open"]:
            bars = [
                int(n.replace(",", ""))
                for n in await page.locator("#ages svg text:not(.label)").all_text_contents()
            ]
            assert sum(bars) == shown["open"]
        for table, total in (
            ("problems", document["all_problems"]),
            ("waiting", document["reviews"]),
        ):
            if document["oldest_reviews"] if table == "waiting" else total:
                few, all_ = await shown_in(page, table)
                assert (few, all_) == (await page.locator(f"#{table} tbody tr").count(), total)
        if await page.locator("#tile-reviews").is_visible():
            assert int(await text(page, "#reviews")) == document["reviews"]
        cells = await page.locator("#problems tbody td").all_inner_texts()
        assert name != "leftover" or "–" not in cells
