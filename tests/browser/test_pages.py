"""Every page of the console in a real browser: axe finds nothing, the keyboard is enough, and it is read without scripts."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import pytest_asyncio
from axe_playwright_python.async_playwright import Axe
from playwright.async_api import Page

from adapters.postgres.embedded import EmbeddedServer
from gateway.console.words import DIFFERENCES
from gateway.http.picture import evidence_page
from gateway.services.committed import log_name
from tests.attacks.test_stored_text import SAMPLES
from tests.browser.conftest import Watched
from tests.federation import Federation
from tests.http.office import Office, office_of
from tests.http.test_console import LOOKS, pages, sessions
from tests.interop.conftest import Exchange
from tests.runtime.test_serving import compared, port, serving
from tests.services.test_evidence import check, evidence

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def office(postgres: EmbeddedServer, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Office]:
    async with Federation(postgres, tmp_path_factory.mktemp("pages")) as fed:
        asker, holder = await fed.nodes("asker", "holder")
        sent = await asker.trace(holder)
        await asker.becomes(sent, "delivered")
        data = await evidence(asker, sent)
        await asker.sql(
            'INSERT INTO peer_proof SELECT peer, id, digest, origin, "index" + 1, size, path, entry FROM peer_proof'
        )
        asker.parts.linking.alarms[holder.origin] = "ledger.skew"
        async with aiohttp.ClientSession() as session, office_of(asker, session) as found:
            await found.register("auditor", ("AUD",), LOOKS)
            found.tokens["thread", ""] = sent["thread"]
            found.tokens["evidence", ""] = evidence_page(check(data, fed.root), data, fed.root, fed.clock.now())
            yield found


async def sign_in(page: Page, office: Office) -> None:
    await page.goto(f"{office.url}/audit/login?link={await sessions(office).link('auditor', 'AUD', LOOKS)}")
    await page.wait_for_selector("button:focus")
    await page.keyboard.press("Enter")
    await page.wait_for_url(f"{office.url}/audit")


async def violations(page: Page, **options: Any) -> list[Any]:
    """What axe finds wrong; what it finds right is only counted, since describing that is most of its work."""
    found = await Axe().run(page, options={"resultTypes": ["violations"], **options})
    return list(found.response["violations"])


@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("width", [360, 1280])
async def test_axe_finds_nothing_and_nothing_is_wider_than_the_window(
    watched: Watched, office: Office, dark: bool, width: int
) -> None:
    page = await watched.page(width=width, dark=dark)
    await page.goto(f"{office.url}/audit/login?link=x")
    found = {"login": await violations(page)}
    await sign_in(page, office)
    log = f"/audit/ledgers/{log_name(office.node.origin)}"
    more = [f"{log}/entries/2", f"{log}/entries/999", "/problems/ledger.gap"]
    for path in [*pages(office, office.tokens["thread", ""]), *more]:
        if path.endswith(".csv"):
            continue
        await page.goto(office.url + path)
        if await page.locator("#proof").count():
            await page.wait_for_selector("#proof[data-state=done]")
        found[path] = await violations(page)
        wide = await page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
        assert wide <= 0, path
    if width == 360:  # long pages: of the light ones only what the theme changes, in the first of many sections alike
        for path in ("/v1", "/problems"):
            await page.goto(office.url + path)
            if not dark:
                await page.evaluate(
                    "document.querySelectorAll('section:nth-of-type(n+9)').forEach(each => each.remove())"
                )
            found[path] = await violations(page, **({} if dark else {"runOnly": ["color-contrast"]}))
    faults = {
        path: [(each["id"], each["nodes"][0]["html"]) for each in each_page]
        for path, each_page in found.items()
        if each_page
    }
    assert faults == {}
    watched.complaints.clear()  # the browser notes the 404


@pytest.mark.parametrize("dark", [False, True])
async def test_axe_finds_nothing_on_pages_that_commands_write(
    watched: Watched, office: Office, tmp_path: Path, dark: bool
) -> None:
    made = {name: SAMPLES[name][0](SAMPLES[name][1]) for name in ("chain", "diversion", "check", "report")}
    made["evidence"] = office.tokens["evidence", ""]
    page, found = await watched.page(width=360, dark=dark), {}
    for name, text in made.items():
        file = tmp_path / f"{name}.html"
        file.write_text(text)
        await page.goto(file.as_uri())
        found[name] = [(each["id"], each["nodes"][0]["html"]) for each in await violations(page)]
        wide = await page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
        assert wide <= 0, name
    assert found == dict.fromkeys(made, [])


@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("width", [360, 1280])
async def test_axe_finds_nothing_where_two_ledgers_are_compared(
    watched: Watched, tmp_path: Path, dark: bool, width: int
) -> None:
    exchange = Exchange()
    a, b = exchange.a, exchange.b
    exchange.whole(1, 1, a, b)
    exchange.sent(2, 3, a, b.member)
    folders = a.write(tmp_path / "a"), b.write(tmp_path / "b")
    page = await watched.page(width=width, dark=dark)
    with serving(folders[0], "--other", folders[1], "--port", port()) as url:
        await page.goto(f"{url}/differences")  # perhaps while it still reads
        assert await violations(page) == []
        await asyncio.to_thread(compared, url)
        await page.goto(url)
        await page.click("text=Gaps and mismatches")
        assert DIFFERENCES["sequence.gap"] in await page.locator("main").inner_text()
        assert await violations(page) == []
        wide = await page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
        assert wide <= 0
        await page.click("main a")
        await page.wait_for_selector("#proof[data-state=done]")
        assert "Entry" in await page.locator("h1").inner_text()
    (folders[1] / "tile" / "entries" / "000.p").rename(tmp_path / "gone")
    with serving(folders[0], "--other", folders[1], "--port", port()) as url:
        await asyncio.to_thread(compared, url)
        await page.goto(f"{url}/differences")
        assert "cannot be compared" in await page.locator("main").inner_text()
        assert await violations(page) == []


async def test_the_pages_are_read_and_filtered_without_scripts(watched: Watched, office: Office) -> None:
    page = await watched.page(script=False)
    await sign_in(page, office)
    await page.click("tbody a")
    assert "this browser verifies nothing itself" in await page.locator("#claims").inner_text()
    await page.select_option("select[name=kind]", "sent")
    await page.click("text=Filter")
    assert await page.locator("tbody tr").count() == 1
    await page.click("tbody a")
    assert "testnet/asker sent a message to testnet/holder." in await page.locator("main").inner_text()


async def test_a_filter_and_an_entry_are_reached_by_the_keyboard_alone(watched: Watched, office: Office) -> None:
    page = await watched.page()
    await sign_in(page, office)
    await page.keyboard.press("Tab")
    assert await page.evaluate("document.activeElement.textContent") == "Skip to the content"
    await page.keyboard.press("Enter")
    for _ in range(2):  # the scrolling table, then its first ledger
        await page.keyboard.press("Tab")
    await page.keyboard.press("Enter")
    await page.wait_for_url("**/audit/ledgers/*")
    await page.focus("input[name=member]")
    await page.keyboard.type("testnet/holder")
    await page.keyboard.press("Enter")
    await page.wait_for_url("**member=testnet**")
    assert await page.locator("tbody tr").count() >= 2


async def test_what_does_not_fit_is_one_page(watched: Watched, office: Office) -> None:
    page = await watched.page(script=False)
    await sign_in(page, office)
    await page.click("text=Gaps and mismatches")
    twice, alarm = await page.locator("td.wrong").all_inner_texts()
    assert twice.replace(" and ", " ").split() == ["1", "2"]
    assert alarm == "A member's clock and ours differ"
    await page.click(f"text={alarm}")
    assert "by more than two minutes" in await page.locator("main").inner_text()


async def test_a_session_that_is_over_shows_how_to_get_one(watched: Watched, office: Office) -> None:
    page = await watched.page()
    await sign_in(page, office)
    await page.click("text=Sign out")
    await page.wait_for_url("**/audit/login")
    await page.go_back()
    await page.goto(f"{office.url}/audit/gaps")
    assert "tracewire audit link" in await page.locator("main").inner_text()
    watched.complaints.clear()  # the browser notes the 401
