"""A real Chromium, driven by Playwright; what it complains of fails the test."""

import shutil
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import pytest_asyncio
from playwright.async_api import Browser, Page, async_playwright

ROOT = str(Path(__file__).parents[2])
if ROOT not in sys.path:
    sys.path.insert(0, ROOT)

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
QUIET = (
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
)  # fmt: skip


@dataclass
class Watched:
    """A browser whose pages' complaints are collected: errors of scripts, and whatever the policy of the page forbids."""

    browser: Browser
    complaints: list[str] = field(default_factory=list)

    async def page(self, *, width: int = 1280, dark: bool = False, script: bool = True) -> Page:
        """A page of a browser that has seen nothing yet."""
        context = await self.browser.new_context(
            viewport={"width": width, "height": 800}, color_scheme="dark" if dark else "light", java_script_enabled=script
        )  # fmt: skip
        page = await context.new_page()
        page.on("pageerror", lambda error: self.complaints.append(str(error)))
        page.on("console", lambda message: message.type == "error" and self.complaints.append(message.text))
        return page


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def chromium() -> AsyncIterator[Browser]:
    if CHROMIUM is None:
        pytest.skip("no browser: install chromium")
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=CHROMIUM, args=list(QUIET))
        yield browser
        await browser.close()


@pytest_asyncio.fixture(loop_scope="module")
async def watched(chromium: Browser) -> AsyncIterator[Watched]:
    found = Watched(chromium)
    yield found
    for context in chromium.contexts:
        await context.close()
    assert found.complaints == []
