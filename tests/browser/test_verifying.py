"""The auditor's page verifies a ledger in a real browser, and names what does not hold."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from playwright.async_api import Page, Route

from gateway.console.explorer import Explorer
from gateway.console.session import loopback
from gateway.http.serve import application
from gateway.runtime.serving import OneLedger, _folder
from gateway.services.explore import Explore
from keys.suite import Tw1Verifier
from protocols.ledger.checkpoint import LedgerKeys
from protocols.ledger.entry import Entry
from tests.browser.conftest import Watched
from tests.http.wire import free_socket, listening
from tests.interop.conftest import START, Ledger, digest

pytestmark = pytest.mark.asyncio(loop_scope="module")

WRONG = ".claim.wrong"


def ledger(entries: int, *, seed: int = 0, changed: int | None = None) -> Ledger:
    """Of one member and key, whatever the entries are."""
    found = Ledger("test/br-pf")
    found.open()
    found.add(*(_admin(found, n, seed if changed is None or n != changed else 9) for n in range(1, entries)))
    return found


def _admin(found: Ledger, index: int, seed: int) -> Entry:
    return Entry(kind="admin", at=START, n=digest(found.origin, index, seed)[:16], code="test")


@asynccontextmanager
async def shown(folder: Path, keys: Ledger, watched: Watched) -> AsyncIterator[str]:
    """The address of the ledger's page, as `audit serve` shows it."""
    del watched
    bound = free_socket()
    port = bound.getsockname()[1]
    explore = Explore(OneLedger(_folder(folder), LedgerKeys.among(keys.origin, keys.signer.vkeys), {}), Tw1Verifier())
    async with listening(application(Explorer(explore, trusted=True).routes(loopback(port))), at=bound):
        from gateway.services.committed import log_name

        yield f"http://127.0.0.1:{port}/audit/ledgers/{log_name(keys.origin)}"


async def claims(page: Page, url: str) -> list[str]:
    """What the page claims once the browser has verified."""
    await page.goto(url)
    await page.wait_for_selector("#proof[data-state=done]")
    return await page.locator(".claim").all_inner_texts()


async def test_a_ledger_that_holds_is_hashed_once_and_gone_on_with(watched: Watched, tmp_path: Path) -> None:
    found = ledger(1_000)
    found.write(tmp_path)
    page = await watched.page()
    async with shown(tmp_path, found, watched) as url:
        first = await claims(page, url)
        assert any(
            "1000 new entries were hashed in this browser; together they give the signed root" in c for c in first
        )
        assert any("own signature (Ed25519)" in c for c in first)
        assert any("ML-DSA-44" in c for c in first), "what the browser cannot do is said"
        assert await page.locator(WRONG).count() == 0
        found.add(*(_admin(found, n, 0) for n in range(1_000, 1_300)))
        found.write(tmp_path)
        again = await claims(page, url)
        assert any("300 new entries" in c for c in again)
        assert any("nothing of the first 1000 entries was changed" in c for c in again)


@pytest.mark.parametrize("size", [768, 1_000])
async def test_an_entry_that_is_changed_on_its_way_is_named(watched: Watched, tmp_path: Path, size: int) -> None:
    found = ledger(size)
    found.write(tmp_path)
    page = await watched.page()

    async def lie(route: Route) -> None:
        response = await route.fetch()
        data = bytearray(await response.body())
        data[40] ^= 1
        await route.fulfill(response=response, body=bytes(data))

    async with shown(tmp_path, found, watched) as url:
        await page.route("**/tile/entries/002**", lie)
        said = await claims(page, url)
    assert any("do not give the root that was signed" in c for c in said)
    assert await page.locator(WRONG).count() == 1


async def test_l02_l04_last_weeks_backup_and_a_rewritten_history_are_not_what_this_browser_saw(
    watched: Watched, tmp_path: Path
) -> None:
    saw = ledger(600)
    saw.write(tmp_path / "saw")
    backup = ledger(400)
    backup.write(tmp_path / "backup")
    rewritten = ledger(700, changed=17)  # signed with the stolen key
    rewritten.write(tmp_path / "rewritten")
    page = await watched.page()
    place = tmp_path / "now"
    place.symlink_to(tmp_path / "saw")
    async with shown(place, saw, watched) as url:
        assert not [c for c in await claims(page, url) if c.startswith("Wrong")]
        for name, says in (("backup", "Entries were taken away"), ("rewritten", "this is another history")):
            place.unlink()
            place.symlink_to(tmp_path / name)
            said = await claims(page, url)
            assert any(says in c for c in said), said
            assert await page.locator(WRONG).count() == 1
        fresh = await watched.page()
        assert not [c for c in await claims(fresh, url) if c.startswith("Wrong")], "alone, that holds: witnesses tell"


async def test_a_checkpoint_without_its_signature_is_named(watched: Watched, tmp_path: Path) -> None:
    found = ledger(300)
    found.write(tmp_path)
    page = await watched.page()

    def lying(change: Callable[[str], str]) -> Callable[[Route], object]:
        async def lie(route: Route) -> None:
            response = await route.fetch()
            await route.fulfill(response=response, body=change(await response.text()))

        return lie

    async with shown(tmp_path, found, watched) as url:
        await page.route("**/checkpoint", lying(lambda text: text.replace("\n300\n", "\n299\n")))
        assert any("own signature (Ed25519) does not hold" in c for c in await claims(page, url))
        await page.unroute("**/checkpoint")
        await page.route("**/checkpoint", lying(lambda text: text.replace("br-pf", "us-atf")))
        assert any("The checkpoint is of test/us-atf" in c for c in await claims(page, url))


async def test_an_entry_is_proven_in_the_browser_and_its_bytes_are_what_counts(
    watched: Watched, tmp_path: Path
) -> None:
    found = ledger(1_000)
    found.write(tmp_path)
    page = await watched.page()

    async def lie(route: Route) -> None:
        response = await route.fetch()
        body = (await response.text()).replace("&#34;code&#34;:&#34;test&#34;", "&#34;code&#34;:&#34;TEST&#34;")
        await route.fulfill(response=response, body=body)

    async with shown(tmp_path, found, watched) as url:
        for index in (1, 255, 256, 767, 999):
            said = await claims(page, f"{url}/entries/{index}")
            assert any("These very bytes lie under the signed root" in c for c in said), index
        await page.route("**/entries/767", lie)
        said = await claims(page, f"{url}/entries/767")
        assert any("do not lead to the signed root" in c for c in said)


async def test_u01_what_another_ledger_says_is_text(watched: Watched, tmp_path: Path) -> None:
    found, attack = Ledger("test/br-pf"), "<img src=x onerror=alert(1)><script>alert(2)</script>\"'"
    found.open()
    found.add(*(found.entry("admin", code=attack, id=None) for _ in range(3)))
    found.write(tmp_path)
    page = await watched.page()
    dialogs: list[str] = []
    page.on("dialog", lambda dialog: dialogs.append(dialog.message))
    async with shown(tmp_path, found, watched) as url:
        for path in ("", "/entries/2", "/figures", f"?code={attack}"):
            await page.goto(url + path)
            assert await page.locator("main img, main script").count() == 0
        await page.goto(f"{url}/entries/2")
        assert attack in await page.locator("main").inner_text()
    assert dialogs == []


async def test_a_long_ledger_is_shown_without_being_loaded(watched: Watched, tmp_path: Path) -> None:
    found = ledger(70_000)
    found.write(tmp_path)
    page = await watched.page()
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    async with shown(tmp_path, found, watched) as url:
        await page.goto(url)
        assert await page.locator("tbody tr").count() == 100
        assert not [each for each in asked if "/tile/" in each], "so many are hashed when somebody asks for it"
        await page.click("#hash")
        await page.wait_for_selector("#proof[data-state=done]", timeout=60_000)
        said = await page.locator(".claim").all_inner_texts()
        assert any("70000 new entries were hashed" in c for c in said)
        await page.click("text=Older entries")
        assert await page.locator("tbody th a").first.inner_text() == "69899"
