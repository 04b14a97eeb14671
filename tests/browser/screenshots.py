"""`make screenshots`: each page of the console, and of evidence, as docs/screenshots/ shows it, over the demo's federation."""

import asyncio
import contextlib
import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from playwright.async_api import Page, async_playwright

from gateway.runtime.demo.federation import state_folder
from tests.browser.conftest import CHROMIUM, QUIET
from tests.runtime.test_serving import compared, port, serving

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


async def main(node: str, served: str) -> None:
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
            await shoot(page, "differences", f"{served}/differences", look)
            await shoot(page, "evidence", printed(node, thread), look)
        await browser.close()


def printed(node: str, thread: str) -> str:
    """Where the page of a thread's evidence lies, made as an auditor makes it."""
    file = Path(tempfile.mkdtemp()) / "evidence.zip"
    tracewire("evidence", "export", node, thread, str(file))
    page = file.with_suffix(".html")
    tracewire("evidence", "verify", str(file), "--root", f"{node}/root.json", "--page", str(page))
    return page.as_uri()


@contextlib.contextmanager
def beside(node: Path) -> Iterator[str]:
    """The address of the node's ledger beside its registry's, as an auditor serves both."""
    with tempfile.TemporaryDirectory() as made:
        folders = [Path(made) / name for name in ("police", "registry")]
        for folder in folders:
            tracewire("ledger", "export", str(node.with_name(folder.name)), str(folder))
        with serving(folders[0], "--other", folders[1], "--port", port()) as url:
            compared(url)
            yield url


if __name__ == "__main__":
    subprocess.run([TRACEWIRE, "demo", "--fresh", "--keep"], stdout=subprocess.DEVNULL, check=True)
    try:
        with beside(state_folder() / "police") as served:
            asyncio.run(main(str(state_folder() / "police"), served))
    finally:
        subprocess.run([TRACEWIRE, "demo", "--stop"], check=True)
