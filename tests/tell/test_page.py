"""The page in a real browser: quiet, busy, crowded and on fire, in three languages, at three sizes,
light and dark.
"""

import asyncio
import json
import re
from contextlib import AsyncExitStack
from typing import Any

import httpx
import pytest
from playwright.async_api import Browser

from order_monitor.core.answer import OUTCOMES
from order_monitor.core.decision import StuckReason
from order_monitor.core.order import SkipReason
from order_monitor.tell.document import document_of
from order_monitor.tell.finder import ELSEWHERE
from order_monitor.tell.page import LANGUAGES, STREAMS, language_of
from order_monitor.tell.page import Page as Document
from tests.support import stages
from tests.support.browsers import SIZES, browser, browsers, opened, text
from tests.support.clocks import ManualClock
from tests.support.stages import HOSTILE, PIN, STAGES

__all__ = ["browser"]

pytestmark = pytest.mark.outside


@browsers
@pytest.mark.parametrize(
    ("name", "state", "headline"),
    [
        ("quiet", "ok", "All is well"),
        ("busy", "ok", "All is well"),
        pytest.param(
            "crowded", "warn", "Running, but somebody should look", marks=pytest.mark.untraced
        ),
        ("on_fire", "bad", "Not working"),
        ("shared", "warn", "Running, but somebody should look"),
    ],
)
async def test_it_answers_at_a_glance(
    browser: Browser, name: str, state: str, headline: str
) -> None:
    stage = await STAGES[name]()
    async with opened(browser, stage) as page:
        assert await page.get_attribute("#verdict", "data-state") == state
        assert await text(page, "#verdict-text") == headline
        shown = int((await text(page, "#open")).replace(",", ""))
        assert shown == len(stage.shelf.orders)
        lights = {
            n: await page.get_attribute(f"[data-light={n}]", "data-ok")
            for n in ("database", "provider", "monitor")
        }
        assert set(lights.values()) == {"false" if name == "on_fire" else "true"}
        assert await page.locator("#accounts tbody tr").count() == len(stage.accounts)
        content = await page.content()
        assert PIN not in content
        await page.wait_for_selector("#freshness:text-matches('^\\s*data as of')")


@browsers
@pytest.mark.parametrize("lang", LANGUAGES)
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", SIZES)
async def test_nothing_is_clipped_or_runs_sideways(
    browser: Browser, lang: str, scheme: Any, size: str
) -> None:
    stage = await stages.on_fire()
    width, height = SIZES[size]
    viewport: Any = {"width": width, "height": height}
    async with opened(
        browser, stage, f"?lang={lang}", viewport=viewport, color_scheme=scheme
    ) as page:
        assert await page.evaluate("document.documentElement.scrollWidth") <= width
        assert await page.get_attribute("html", "lang") == lang
        assert await page.get_attribute("html", "dir") == ("rtl" if lang == "ar" else "ltr")
        spilled = await page.evaluate(
            "[...document.querySelectorAll('.number, #verdict, figure, .mark, #lights li')]"
            ".filter((e) => e.scrollWidth > e.clientWidth + 1 && e.clientWidth).map((e) => e.id || e.className)"
        )
        assert spilled == []
        contrasts = await page.evaluate(CONTRAST)
        assert [c for c in contrasts if c[1] < 4.5] == []


CONTRAST = """
() => {
  const channel = (v) => { v /= 255; return v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4; };
  const light = ([r, g, b]) => 0.2126 * channel(r) + 0.7152 * channel(g) + 0.0722 * channel(b);
  const numbers = (colour) => colour.match(/[0-9.]+/g).map(Number);
  const ground = (e) => {
    for (; e; e = e.parentElement) {
      const colour = numbers(getComputedStyle(e).backgroundColor);
      if (colour.length < 4 || colour[3] === 1) return colour;
    }
    return [255, 255, 255];
  };
  for (const animation of document.getAnimations()) animation.finish();
  return [...document.querySelectorAll("h1, h2, p, li, a, td, th, strong, .mark, .note, small, label, figcaption")]
    .filter((e) => e.textContent.trim() && e.getClientRects().length)
    .map((e) => {
      const [a, b] = [light(numbers(getComputedStyle(e).color)), light(ground(e))].sort((x, y) => y - x);
      return [e.tagName + "#" + e.id + "." + e.className, (a + 0.05) / (b + 0.05)];
    });
}
"""


@browsers
async def test_other_peoples_words_stay_words(browser: Browser) -> None:
    """A name that wants to be markup is text, on the page and in its title."""
    async with opened(browser, await stages.on_fire()) as page:
        assert await page.locator("#accounts").get_by_text(HOSTILE).count() == 2, (
            "an account's name, and why one is paused"
        )
        assert await page.locator("main img").count() == 0
        assert await page.title() == "order-monitor"


@browsers
@pytest.mark.parametrize(
    ("lang", "said"),
    [("en", "No order is ended by its age"), ("tr", "yaşı nedeniyle"), ("ar", "بسبب عمره")],
)
async def test_it_says_that_no_age_ends_an_order(browser: Browser, lang: str, said: str) -> None:
    clock = ManualClock()
    stage = await stages.busy(clock)
    clock.epoch -= 40
    stage.engine.context.read_clock()
    async with opened(browser, stage, f"?lang={lang}") as page:
        assert await page.get_attribute("#verdict", "data-state") == "warn"
        told = await text(page, "#reasons")
        assert said in told
        assert "the machine's clock leapt by -40 s" in told
        assert len(told.splitlines()) == 2, "and that the clocks differ"


@browsers
async def test_it_lives_by_its_stream(browser: Browser) -> None:
    stage = await stages.busy()
    async with opened(browser, stage) as page:
        assert await page.locator("#recent tbody tr").count() == 12
        order = stage.order(50)
        stage.ended(order)
        await page.wait_for_selector(f'#recent [data-order="{order.id}"]')


@browsers
async def test_it_says_so_when_it_is_stale(browser: Browser) -> None:
    """The stream ends and nobody answers: old numbers are never shown as new ones."""
    stage = await stages.busy()
    async with await browser.new_context() as own:
        page = await own.new_page()
        await page.clock.install()
        async with stage.listening() as url:
            await page.goto(url)
            await page.wait_for_selector("#verdict[data-state=ok]")
            assert await page.get_attribute("#freshness", "data-stale") == "false"
        await page.clock.run_for(17_000)
        assert await page.get_attribute("#freshness", "data-stale") == "true"
        assert "stale" in await text(page, "#freshness")


@browsers
async def test_the_search_finds_by_id_account_and_state(browser: Browser) -> None:
    stage = await stages.on_fire()
    async with opened(browser, stage) as page:
        await page.fill("#search", "stuck")
        assert await page.locator("#problems tbody tr").count() == 4
        wanted = next(iter(stage.engine.state.stuck))
        await page.fill("#search", wanted[:13].upper())
        assert {
            await row.get_attribute("data-order")
            for row in await page.locator("#problems tbody tr").all()
        } == {wanted}
        await page.fill("#search", "baku")
        assert await page.locator("#accounts tbody tr").count() == 1
        await page.fill("#search", "no such thing")
        assert "Nothing here matches" in await text(page, "#accounts")


@browsers
async def test_the_search_finds_by_the_reference_which_is_in_no_column(browser: Browser) -> None:
    stage = stages.Stage()
    late, other, young = (stage.order(age, reference=f"4711-{age}") for age in (90_000, 90_100, 20))
    stage.shelf.orders = [late, other, young]
    await stage.begin()
    stage.ended(done := stage.order(50, reference="4711-done"))
    async with opened(browser, stage) as page:
        for reference, table, order in (
            ("4711-90000", "problems", late),
            ("1-20", "next", young),
            ("-DONE", "recent", done),
        ):
            await page.fill("#search", reference)
            rows = await page.locator(f"#{table} tbody tr").all()
            assert [await row.get_attribute("data-order") for row in rows] == [order.id]


@browsers
async def test_long_lists_are_cut_and_can_be_unfolded(browser: Browser) -> None:
    stage = await stages.on_fire()
    async with opened(browser, stage) as page:
        rows = page.locator("#problems tbody tr")
        assert await rows.count() == 20
        more = page.locator("section:has(#problems) button.more")
        await more.focus()
        await page.keyboard.press("Enter")
        assert await rows.count() == 37
        assert not await more.is_visible()


@browsers
async def test_a_keyboard_and_a_screen_reader_find_their_way(browser: Browser) -> None:
    stage = await stages.busy()
    async with opened(browser, stage) as page:
        await page.keyboard.press("Tab")
        assert await page.evaluate("document.activeElement.className") == "skip"
        assert await page.locator("h1").count() == 1
        for role, names in (
            ("table", None),
            ("navigation", ["Language"]),
            ("searchbox", ["Find an order, account or state"]),
            ("heading", None),
            ("main", None),
        ):
            assert await page.get_by_role(role, name=names[0] if names else None).count() >= 1, role  # type: ignore[arg-type]
        assert await page.get_by_role("img").first.get_attribute("aria-label") is not None
        assert await page.get_by_role("row").count() > 10
        assert await page.get_attribute("#verdict", "aria-live") == "polite"


@pytest.mark.parametrize(
    ("wanted", "accepted", "language"),
    [
        ("ar", "tr", "ar"),
        ("", "tr-TR,tr;q=0.9,en;q=0.8", "tr"),
        ("xx", "de, ar;q=0.5, en;q=0.4", "ar"),
        ("", "en;q=0.1, ar;q=0.2", "ar"),
        ("", "ar;q=0", "en"),
        ("", "", "en"),
        ("", "de, *", "en"),
        ("", "tr;q=nonsense", "tr"),
    ],
)
def test_the_language_is_the_readers(wanted: str, accepted: str, language: str) -> None:
    assert language_of(wanted, accepted) == language


def test_every_word_is_in_every_language() -> None:
    from importlib import resources

    folder = resources.files("order_monitor.tell") / "page"
    words = json.loads((folder / "words.json").read_text("utf-8"))
    assert set(words) == set(LANGUAGES)
    used = set(re.findall(r'(?:word|say)\("(\w+)"', (folder / "page.js").read_text("utf-8")))
    used |= set(
        re.findall(r'data-(?:word|label)="(\w+)"', (folder / "page.html").read_text("utf-8"))
    )
    used |= {f"why_{reason}" for reason in (*StuckReason, *SkipReason, ELSEWHERE)}
    used |= {f"outcome_{o}" for o in OUTCOMES if o in ("blocked", "busy", "unreachable", "refused")}
    for language, told in words.items():
        assert used <= set(told), language
        assert set(told) == set(words["en"]), language
        places = {key: set(re.findall(r"\{\w+\}", value)) for key, value in told.items()}
        assert places == {
            key: set(re.findall(r"\{\w+\}", value)) for key, value in words["en"].items()
        }, language


async def test_the_policy_lets_nothing_else_in() -> None:
    stage = await stages.quiet()
    async with stage.listening() as url, httpx.AsyncClient(trust_env=False) as client:
        answer = await client.get(url, headers={"Accept-Language": "tr"})
        assert 'lang="tr"' in answer.text
        policy = answer.headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy
        assert "{{" not in answer.text
        assert "://" not in re.sub(r"http://www\.w3\.org/\S+", "", answer.text), "no other host"
        assert answer.headers["x-content-type-options"] == "nosniff"


async def test_the_document_is_as_promised() -> None:
    stage = await stages.on_fire()
    async with stage.listening() as url, httpx.AsyncClient(trust_env=False) as client:
        answer = await client.get(f"{url}/api/status")
    document = answer.json()
    assert document.keys() >= {
        "version",
        "started_at",
        "ready",
        "reasons",
        "orders",
        "accounts",
        "recent",
        "detection_seconds",
    }
    assert document["orders"].keys() >= {"open", "due", "overdue", "stuck", "skipped"}
    assert document["orders"]["skipped"] == {"no_reference": 7}
    assert (document["orders"]["overdue"], document["orders"]["stuck"]) == (30, 4)
    assert all(
        a.keys() >= {"name", "open", "reason", "last_error", "in_flight"}
        for a in document["accounts"]
    )
    assert document["detection_seconds"].keys() >= {"p50", "p95"}
    assert (document["ready"], len(document["reasons"])) == (False, 2), (
        "a paused account is no fault"
    )
    assert document["accounts"][2]["paused"]["reason"] == HOSTILE
    assert "CANARY" not in answer.text


async def test_the_changes_are_told_as_promised() -> None:
    stage = await stages.busy()
    document = document_of(stage.view)
    assert len(document["recent"]) == 12
    assert document["recent"][0].keys() >= {"order_id", "from", "to", "has_pin", "at"}
    assert document["detection_seconds"]["p50"] == pytest.approx(2.4, abs=0.01)
    assert document["history"][-1]["ended"] == 12
    assert document["events"] == {"waiting": 2, "oldest_waiting_seconds": pytest.approx(12, abs=5)}


async def test_streams_end_at_once_when_the_program_stops() -> None:
    """D7: an open stream must not hold up the exit."""
    stage = await stages.busy()
    await stage.server.start()
    host, port = stage.server.bound()
    address = f"http://{host}:{port}/api/stream"
    async with (
        httpx.AsyncClient(trust_env=False) as client,
        client.stream("GET", address) as response,
    ):
        lines = response.aiter_lines()
        assert await anext(lines) == "event: status"
        async with asyncio.timeout(1.5):
            await stage.server.stop()
            async for _ in lines:
                pass


async def watch(client: httpx.AsyncClient, url: str) -> int:
    """Open a stream, close it, and return its status."""
    async with client.stream("GET", f"{url}/api/stream") as response:
        return response.status_code


@pytest.mark.long
async def test_a_reader_that_never_reads_is_let_go(monkeypatch: pytest.MonkeyPatch) -> None:
    """D8: it holds up nobody, nothing piles up for it, and its place is given back."""
    monkeypatch.setattr("order_monitor.tell.page.WRITE_TIMEOUT", 0.2)
    monkeypatch.setattr("order_monitor.tell.page.EVERY", 0.0001)
    monkeypatch.setattr("order_monitor.tell.page.STREAMS", 1)
    stage = await stages.crowded(count=300)
    async with stage.listening() as url:
        port = int(url.rpartition(":")[2])
        reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=1024)
        writer.write(b"GET /api/stream HTTP/1.1\r\nHost: localhost\r\n\r\n")
        await reader.readuntil(b"\r\n\r\n")
        async with httpx.AsyncClient(trust_env=False) as client, asyncio.timeout(20):
            assert await watch(client, url) == 503, "there was room for one"
            while await watch(client, url) == 503:
                await asyncio.sleep(0.05)
        writer.close()


async def test_only_so_many_may_watch() -> None:
    stage = await stages.quiet()
    async with (
        stage.listening() as url,
        httpx.AsyncClient(trust_env=False) as client,
        AsyncExitStack() as open_ones,
    ):
        for _ in range(STREAMS):
            stream = client.stream("GET", f"{url}/api/stream")
            assert (await open_ones.enter_async_context(stream)).status_code == 200
        answer = await client.get(f"{url}/api/stream")
        assert (answer.status_code, answer.headers["retry-after"]) == (503, "10")
        assert (await client.get(f"{url}/api/status")).status_code == 200


def test_the_parts_fit_together() -> None:
    document = Document()
    for language in LANGUAGES:
        assert document.document(language).count("<script") == 2


async def test_what_was_learned_is_drawn_with_its_checks(browser: Browser) -> None:
    stage = await stages.busy()
    async with opened(browser, stage, "?lang=en") as page:
        row = page.locator("#timing tbody tr")
        assert await row.count() == 1
        assert "3f9c12aa" in await row.inner_text()
        chart = row.locator("svg.curve")
        assert "Half of them end within" in str(await chart.get_attribute("aria-label"))
        shown = document_of(stage.view)["timing"][0]
        assert await chart.locator("line.check").count() == len(shown["checks"]) > 0
        points = str(await chart.locator("polyline").get_attribute("points")).split()
        assert len(points) == len(shown["curve"]) == 24


async def test_without_learned_timing_nothing_is_said_of_it(browser: Browser) -> None:
    stage = await stages.busy()
    stage.view.learned = None
    async with opened(browser, stage, "?lang=en") as page:
        assert await page.locator("#timing-section").is_hidden()


async def test_who_asks_what_is_shown_where_several_do(browser: Browser) -> None:
    stage = await stages.shared()
    async with opened(browser, stage, "?lang=en") as page:
        rows = [await row.inner_text() for row in await page.locator("#members tbody tr").all()]
        assert ["\t".join(row.split("\n")) for row in rows] == [
            "shop-1-4711/20001\tİstanbul-7f3a91c2\tthis one",
            "shop-2-815/20002\tBaku-19c8e0d4\tposts and counts for all",
        ]
        assert "Accounts that no process asks: 1" in await page.inner_text("#reasons")
        gates = [await gate.inner_text() for gate in await page.locator("#accounts .gate").all()]
        assert gates == ["✓ open", "asked by shop-2-815/20002", "! not asked by any process yet"]
        assert stage.view.cluster is not None
        stage.view.cluster.view, stage.view.cluster.problem = None, "timeout"
        await page.reload()
        await page.wait_for_selector("#members-section .empty, #members tbody td")
        assert "not in the cluster" in await page.inner_text("#members-section")
        assert "not in the cluster: timeout" in await page.inner_text("#reasons")


async def test_where_one_process_asks_all_nothing_is_said_of_others(browser: Browser) -> None:
    async with opened(browser, await stages.busy(), "?lang=en") as page:
        assert await page.locator("#members-section").is_hidden()
