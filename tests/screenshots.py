"""Take pictures of the page in every state, language and size: ``make screenshots``.

The README's own is one of them.
"""

import asyncio
import shutil
from pathlib import Path
from typing import Any, Final

from playwright.async_api import Browser, async_playwright

from order_monitor.tell.history import Minute
from tests.support.browsers import CHROMIUM, SIZES
from tests.support.stages import STAGES, Stage

ROOT: Final = Path(__file__).parent.parent
FOLDER: Final = ROOT / "build" / "screenshots"
IN_README: Final = ("busy", "en", "light", "desk")


async def take(
    browser: Browser, stage: Stage, url: str, name: str, lang: str, scheme: Any, size: str
) -> None:
    width, height = SIZES[size]
    tab = await browser.new_context(
        viewport={"width": width, "height": height}, color_scheme=scheme
    )
    page = await tab.new_page()
    await page.goto(f"{url}/?lang={lang}")
    await page.wait_for_selector("#verdict:not([data-state=unknown])")
    path = FOLDER / f"{name}-{lang}-{scheme}-{size}.png"
    await page.screenshot(path=path)
    if (name, lang, scheme, size) == IN_README:
        shutil.copy(path, ROOT / "deploy" / "page.png")
    await tab.close()


def settle(stage: Stage) -> None:
    """Simulate an hour in which every order was asked about in time."""
    now, queue = stage.engine.now(), stage.engine.queue
    for n, entry in enumerate(list(queue)):
        queue.schedule(entry, now + 20 + 45 * n)
    stage.accounts["default"].answered_at = now - 4
    stage.accounts["default"].balance = "1523.40"
    minutes = stage.view.history.rings.minutes
    minutes.clear()
    minutes.extend(
        Minute(now - 60 * (60 - n), 14 + (7 * n) % 11 - n // 8, 20, 1 + n % 3) for n in range(60)
    )


async def main() -> None:
    FOLDER.mkdir(parents=True, exist_ok=True)
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        for name, make in STAGES.items():
            stage = await make()
            if name == "busy":
                settle(stage)
            async with stage.listening() as url:
                for lang, scheme in (
                    ("en", "light"),
                    ("tr", "dark"),
                    ("ar", "light"),
                    ("ar", "dark"),
                ):
                    for size in SIZES:
                        await take(browser, stage, url, name, lang, scheme, size)
        await browser.close()


if __name__ == "__main__":
    asyncio.run(main())
