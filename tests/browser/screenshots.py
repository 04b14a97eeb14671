"""`make screenshots`: each page of the console as docs/screenshots/ shows it, over the demo's federation."""

import asyncio
import json
import subprocess
import sys
from pathlib import Path

from playwright.async_api import Page, async_playwright

from gateway.runtime.demo.federation import state_folder
from tests.browser.conftest import CHROMIUM, QUIET

FOLDER = Path(__file__).parents[2] / "docs" / "screenshots"
TRACEWIRE = str(Path(sys.executable).with_name("tracewire"))
LOOKS = {"light": (1280, "light"), "dark-360": (360, "dark")}


def tracewire(*tokens: str) -> dict[str, str]:
    done = subprocess.run([TRACEWIRE, *tokens, "--json"], stdout=subprocess.PIPE, check=True)
    found: dict[str, str] = json.loads(done.stdout)
    return found


async def shoot(page: Page, name: str, path: str, look: str) -> None:
    await page.goto(path)
    if await page.locator("#proof").count():
        await page.wait_for_selector("#proof[data-state=done]", timeout=60_000)
    await page.screenshot(path=FOLDER / f"{name}{'' if look == 'light' else f'-{look}'}.png")


async def main(node: str) -> None:
    """Two looks of each page."""
    FOLDER.mkdir(exist_ok=True)
    tracewire("client", "add", node, "auditor", "--actor=AUD", "--scope=audit:read", "--scope=ledger:read")
    thread = tracewire("show", node)["traces"][0]["thread"]  # type: ignore[index]
    tracewire("show", node, thread)
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=CHROMIUM, args=list(QUIET))
        for look, (width, scheme) in LOOKS.items():
            context = await browser.new_context(viewport={"width": width, "height": 800}, color_scheme=scheme)  # type: ignore[arg-type]
            page = await context.new_page()
            link = tracewire("audit", "link", node, "--client=auditor", "--actor=AUD")["url"]
            await shoot(page, "login", link, look)
            await page.click("text=Open the session")
            base = link.partition("/audit")[0]
            while (
                "nobody yet" in await page.locator("tbody").inner_text()
            ):  # the first round of witnesses is after half a minute
                await asyncio.sleep(1)
                await page.goto(f"{base}/audit")
            await shoot(page, "ledgers", f"{base}/audit", look)
            log = base + str(await page.locator("tbody a").first.get_attribute("href"))
            await shoot(page, "ledger", log, look)
            await page.goto(f"{log}?kind=receipt")
            entry = base + str(await page.locator("tbody a").first.get_attribute("href"))
            await shoot(page, "entry", entry, look)
            await shoot(page, "wrong", f"{log}/entries/999999", look)
            await shoot(page, "figures", f"{log}/figures", look)
            await shoot(page, "thread", f"{base}/audit/threads?thread={thread}", look)
            await shoot(page, "gaps", f"{base}/audit/gaps", look)
        await browser.close()


if __name__ == "__main__":
    subprocess.run([TRACEWIRE, "demo", "--fresh", "--keep"], stdout=subprocess.DEVNULL, check=True)
    try:
        asyncio.run(main(str(state_folder() / "police")))
    finally:
        subprocess.run([TRACEWIRE, "demo", "--stop"], check=True)
