"""A browser, and the page in it."""

import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import pytest_asyncio
from playwright.async_api import Browser, ConsoleMessage, Page, async_playwright

from tests.support.stages import Stage

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
SIZES = {"telephone": (360, 740), "tablet": (768, 1024), "desk": (1440, 900)}
browsers = pytest.mark.skipif(CHROMIUM is None, reason="needs chromium: apt-get install chromium")


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def browser() -> AsyncIterator[Browser]:
    """One for the whole session: each test opens a context of its own, which shares nothing with
    another's.
    """
    async with async_playwright() as playwright:
        launched = await playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield launched
        await launched.close()


@asynccontextmanager
async def opened(
    browser: Browser, stage: Stage, query: str = "", **context: Any
) -> AsyncIterator[Page]:
    """The page of a stage; any complaint of the browser's is an error."""
    complaints: list[str] = []

    def hear(message: ConsoleMessage) -> None:
        if message.type in ("error", "warning"):
            complaints.append(message.text)

    async with stage.listening() as url:
        tab = await browser.new_context(**context)
        page = await tab.new_page()
        page.on("console", hear)
        page.on("pageerror", lambda error: complaints.append(str(error)))
        requested: list[str] = []
        page.on("request", lambda request: requested.append(request.url))
        await page.goto(f"{url}/{query}")
        await page.wait_for_selector("#verdict:not([data-state=unknown])")
        yield page
        await tab.close()
        assert complaints == []
        assert all(address.startswith((url, "data:")) for address in requested), (
            "no other host is asked for anything"
        )


async def text(page: Page, selector: str) -> str:
    return (await page.inner_text(selector)).strip()
