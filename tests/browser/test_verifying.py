"""The auditor's page verifies a ledger in a real browser, and names what does not hold."""

import asyncio
import base64
import os
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace

import pytest
from playwright.async_api import Page, Route

from adapters.postgres.embedded import EmbeddedServer
from gateway.console.explorer import Explorer
from gateway.console.session import loopback
from gateway.http.serve import application
from gateway.runtime.serving import OneLedger, _folder
from gateway.services.committed import log_name
from gateway.services.explore import Explore
from keys.notes import LedgerCosigner
from keys.suite import Tw1Verifier
from protocols.ledger.checkpoint import LedgerKeys, parse_checkpoint
from protocols.ledger.entry import Entry, PeerRef
from protocols.ledger.merkle import leaf_hash, node_hash
from protocols.ledger.tiles import encode_bundle
from protocols.ledger.witness import Policy, parse_policy
from tests.attacks.test_audit import forge
from tests.attacks.test_ledger import Damage, changed, cut, deleted, reordered, stopped
from tests.browser.conftest import Watched
from tests.fault.invariants import View
from tests.federation import Federation
from tests.http.wire import free_socket, listening
from tests.interop.conftest import START, Exchange, Ledger, digest

pytestmark = pytest.mark.asyncio(loop_scope="module")

OLDER = """{
  const known = crypto.subtle.importKey.bind(crypto.subtle);
  crypto.subtle.importKey = (format, key, algorithm, ...rest) =>
    algorithm.name === "ALGORITHM" ? Promise.reject(new DOMException("unknown", "NotSupportedError")) : known(format, key, algorithm, ...rest);
}
"""
"""An older browser, as its worker finds it."""
WRONG = ".claim.wrong"
LONG = int(os.environ.get("LONG", "70000"))  # entries


def ledger(entries: int, *, seed: int = 0, changed: int | None = None) -> Ledger:
    """Of one member and key, whatever the entries are."""
    found = Ledger("test/br-pf")
    found.open()
    found.add(*(_admin(found, n, seed if changed is None or n != changed else 9) for n in range(1, entries)))
    return found


def _admin(found: Ledger, index: int, seed: int) -> Entry:
    return Entry(kind="admin", at=START, n=digest(found.origin, index, seed)[:16], code="test")


@asynccontextmanager
async def shown(folder: Path, keys: Ledger, policy: Policy | None = None) -> AsyncIterator[str]:
    """The address of the ledger's page, as `audit serve` shows it."""
    bound = free_socket()
    port = bound.getsockname()[1]
    explore = Explore(
        OneLedger(_folder(folder), LedgerKeys.among(keys.origin, keys.signer.vkeys), policy), Tw1Verifier()
    )
    async with listening(application(Explorer(explore, trusted=True).routes(loopback(port))), at=bound):
        yield f"http://127.0.0.1:{port}/audit/ledgers/{log_name(keys.origin)}"


async def flip(route: Route) -> None:
    """Lets the answer through with one bit of it changed."""
    response = await route.fetch()
    data = bytearray(await response.body())
    data[40] ^= 1
    await route.fulfill(response=response, body=bytes(data))


async def claims(page: Page, url: str) -> list[str]:
    """What the page claims once the browser has verified."""
    await page.goto(url)
    await page.wait_for_selector("#proof[data-state=done]")
    return await page.locator(".claim").all_inner_texts()


async def test_a_ledger_that_holds_is_hashed_once_and_gone_on_with(watched: Watched, tmp_path: Path) -> None:
    found = ledger(1_000)
    found.write(tmp_path)
    page = await watched.page()
    async with shown(tmp_path, found) as url:
        first = await claims(page, url)
        assert any(
            "All 1000 entries were hashed in this browser; together they give the signed root" in c for c in first
        )
        assert any("own signature (Ed25519)" in c for c in first)
        assert any("own signature (ML-DSA-44, post-quantum)" in c for c in first)
        assert not any(c.startswith("Not known") and "ML-DSA" in c for c in first)
        assert await page.locator(WRONG).count() == 0
        found.add(*(_admin(found, n, 0) for n in range(1_000, 1_300)))
        found.write(tmp_path)
        again = await claims(page, url)
        assert any("300 new entries were hashed in this browser; with the 1000 that it hashed by" in c for c in again)
        await page.click("#hash")
        await page.wait_for_selector("#proof[data-state=done]")
        said = await page.locator(".claim").all_inner_texts()
        assert any("All 1300 entries were hashed" in c for c in said)
        assert any("They are those that this browser saw on" in c for c in said)


async def test_what_was_read_before_is_read_again_when_somebody_asks(watched: Watched, tmp_path: Path) -> None:
    found = ledger(600)
    found.write(tmp_path)
    page = await watched.page()
    async with shown(tmp_path, found) as url:
        await claims(page, url)
        await page.route("**/tile/entries/000", flip)
        assert any("has not read again" in c for c in await claims(page, url))
        assert await page.locator(WRONG).count() == 0
        await page.click("#hash")
        await page.wait_for_selector("#proof[data-state=done]")
        assert await page.locator(WRONG).count() == 1


@pytest.mark.parametrize("size", [768, 1_000])
async def test_an_entry_that_is_changed_on_its_way_is_named(watched: Watched, tmp_path: Path, size: int) -> None:
    found = ledger(size)
    found.write(tmp_path)
    page = await watched.page()
    async with shown(tmp_path, found) as url:
        await page.route("**/tile/entries/002**", flip)
        said = await claims(page, url)
    assert any("do not give the root that was signed. Entry 512 is the first" in c for c in said)
    assert await page.locator(WRONG).count() == 1


def _changed(entries: list[bytes]) -> None:
    entries[17] = entries[17].replace(b"test", b"TEST")


def _deleted(entries: list[bytes]) -> None:
    del entries[17]


def _reordered(entries: list[bytes]) -> None:
    entries[17], entries[18] = entries[18], entries[17]


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (_changed, "Entry 529 is the first that is not the one of its tile"),
        (_deleted, "of the entries from 512 on there are 87, not 88"),
        (_reordered, "Entry 529 is the first that is not the one of its tile"),
    ],
    ids=["L01 changed", "L02 deleted", "L02 reordered"],
)
async def test_what_was_done_to_entries_is_named_by_the_browser_and_by_the_server(
    watched: Watched, tmp_path: Path, damage: Callable[[list[bytes]], None], says: str
) -> None:
    found = ledger(600)
    found.write(tmp_path)
    entries = list(found.entries[512:])
    damage(entries)
    (tmp_path / "tile/entries/002.p/88").write_bytes(encode_bundle(entries))
    page = await watched.page()
    async with shown(tmp_path, found) as url:
        said = [c for c in await claims(page, url) if c.startswith("Wrong:")]
    assert len(said) == 2, said
    assert says in said[1]


@pytest.mark.parametrize("damage", ["a bundle is gone", "a length that leads past the end", "forged with its tile"])
async def test_l01_l02_l07_what_cannot_be_an_accident_is_wrong_and_not_merely_unknown(
    watched: Watched, tmp_path: Path, damage: str
) -> None:
    found = ledger(600)
    found.write(tmp_path)
    bundle = tmp_path / "tile/entries/002.p/88"
    if damage == "a bundle is gone":
        bundle.unlink()
    elif damage == "forged with its tile":
        forge(tmp_path, 530, 600)
    else:
        bundle.write_bytes(b"\xff" + bundle.read_bytes()[1:])
    page = await watched.page()
    async with shown(tmp_path, found) as url:
        said = [c for c in await claims(page, url) if c.startswith("Wrong:")]
    watched.complaints.clear()  # the browser notes a 404
    says = {
        "a bundle is gone": "is not there, though the checkpoint says so",
        "forged with its tile": "cannot be told from here: their tiles say the same",
    }.get(damage, "the entry 512 is cut short")
    assert says in said[-1]


@pytest.mark.parametrize("damage", [changed, deleted, reordered, cut], ids=lambda each: each.__name__)
async def test_l01_l02_what_an_administrator_does_to_a_real_database_is_wrong_on_the_page(
    watched: Watched, postgres: EmbeddedServer, tmp_path: Path, damage: Damage
) -> None:
    (tmp_path / "network").mkdir()
    async with Federation(postgres, tmp_path / "network") as fed:
        node = await stopped(fed)
        await damage(node)
        (await View(node).read()).export(tmp_path / "out", set())
        found = SimpleNamespace(origin=node.origin, signer=node.keys.note_signer(node.origin))
    page = await watched.page()
    async with shown(tmp_path / "out", found) as url:  # type: ignore[arg-type]
        said = await claims(page, url)
    assert any(c.startswith("Wrong:") for c in said), said
    watched.complaints.clear()  # the browser notes what is not there


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
    async with shown(place, saw) as url:
        assert not [c for c in await claims(page, url) if c.startswith("Wrong")]
        for name, says in (("backup", "Entries were taken away"), ("rewritten", "this is another history")):
            place.unlink()
            place.symlink_to(tmp_path / name)
            said = await claims(page, url)
            assert any(says in c for c in said), said
            assert await page.locator(WRONG).count() == 1
            said = await claims(page, f"{url}/entries/17")
            assert await page.locator(WRONG).count() == (name == "backup")
            assert any("is told on the ledger's own page" in c for c in said) == (name == "rewritten")
        fresh = await watched.page()
        assert not [c for c in await claims(fresh, url) if c.startswith("Wrong")], "alone, that holds: witnesses tell"


async def test_a_long_ledger_that_nobody_hashed_is_remembered_and_goes_on_from_what_this_browser_saw(
    watched: Watched, tmp_path: Path
) -> None:
    for name, size in {"saw": 20_300, "later": 45_000}.items():
        ledger(size).write(tmp_path / name)
    ledger(45_000, changed=17).write(tmp_path / "rewritten")
    place, page = tmp_path / "now", await watched.page()
    place.symlink_to(tmp_path / "saw")

    async def now(name: str) -> list[str]:
        place.unlink()
        place.symlink_to(tmp_path / name)
        return await claims(page, url)

    async with shown(place, ledger(300)) as url:
        assert any("has not hashed the entries yet" in c for c in await claims(page, url))
        asked: list[str] = []
        page.on("request", lambda request: asked.append(request.url))
        said = await now("later")
        assert any("It begins with the 20300 entries that this browser saw on" in c for c in said), said
        assert 0 < len([each for each in asked if "/tile/" in each]) < 10, "a few tiles lead there"
        assert not any("/tile/entries/" in each for each in asked)
        said = await now("saw")
        assert any("This browser has seen 45000 entries" in c and "were taken away" in c for c in said), said
        said = await now("rewritten")
        assert any("another history of 45000 entries" in c for c in said), said
    fresh = await watched.page()
    place.unlink()
    place.symlink_to(tmp_path / "saw")
    async with shown(place, ledger(300)) as url:
        await claims(fresh, url)
        place.unlink()
        place.symlink_to(tmp_path / "rewritten")
        said = await claims(fresh, url)
        assert any(c.startswith("Wrong") and "Its tiles do not lead from the 20300 entries" in c for c in said), said
        await fresh.click("#hash")
        await fresh.wait_for_selector("#proof[data-state=done]", timeout=60_000)
        said = await fresh.locator(".claim").all_inner_texts()
        assert any("The 20300 entries that this browser saw" in c and "another history" in c for c in said), said


async def test_a_checkpoint_without_its_signature_is_named(watched: Watched, tmp_path: Path) -> None:
    found = ledger(300)
    found.write(tmp_path)
    page = await watched.page()

    def lying(change: Callable[[str], str]) -> Callable[[Route], object]:
        async def lie(route: Route) -> None:
            response = await route.fetch()
            await route.fulfill(response=response, body=change(await response.text()))

        return lie

    note = 'data-note="test/br-pf/2026.1\n300\n'
    key, stolen = found.signer.vkeys[0], Ledger("test/br-pf", seed=9).signer.vkeys[0]
    async with shown(tmp_path, found) as url:
        assert not [c for c in await claims(page, url) if c.startswith("Wrong")]
        for old, other, says in (
            (note, note.replace("300", "299"), "own signature (Ed25519) does not hold"),
            (note, note.replace("br-pf", "us-atf"), "The checkpoint is of test/us-atf"),
            (key, stolen, "This browser saw this ledger under another key before"),
        ):
            await page.route(url, lying(lambda text, old=old, other=other: text.replace(old, other)))
            assert any(says in c for c in await claims(page, url))
            await page.unroute(url)


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

    async with shown(tmp_path, found) as url:
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
    said = Exchange().message(1, found, attack) | {"pair_seq": 1, "sender": attack, "recipient": "test/br-pf"}
    peer = PeerRef(origin=attack, index=0, leaf=digest("leaf"), size=1, root=digest("root"))
    found.add(found.entry("refused", **said, via=attack, code="env.invalid", read=True, peer=peer))
    found.write(tmp_path)
    page = await watched.page()
    dialogs: list[str] = []
    page.on("dialog", lambda dialog: dialogs.append(dialog.message))
    async with shown(tmp_path, found) as url:
        for path in ("", "/entries/2", "/entries/4", "/figures", f"?code={attack}", f"?member={attack}"):
            await page.goto(url + path)
            assert await page.locator("main img, main script").count() == 0
        for index, times in ((2, 1), (4, 3)):
            await page.goto(f"{url}/entries/{index}")
            assert (await page.locator("main").inner_text()).count(attack) >= times
    assert dialogs == []


async def test_a_long_ledger_is_shown_without_being_loaded(watched: Watched, tmp_path: Path) -> None:
    found = ledger(LONG)
    found.write(tmp_path)
    page = await watched.page()
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    async with shown(tmp_path, found) as url:
        await page.goto(url)
        assert await page.locator("tbody tr").count() == 100
        await page.wait_for_selector("#proof[data-state=done]")
        first = await page.locator(".claim").all_inner_texts()
        assert any("own signature (Ed25519)" in c for c in first)
        assert any("has not hashed the entries yet" in c for c in first)
        assert not [each for each in asked if "/tile/" in each], "so many are hashed when somebody asks for it"
        assert any(f"It begins with the {LONG} entries that this browser saw on" in c for c in await claims(page, url))
        await page.click("#hash")
        assert await page.evaluate("document.activeElement.id") == "proof-title"
        await page.wait_for_selector("#proof[data-state=done]", timeout=1_000 + LONG)
        said = await page.locator(".claim").all_inner_texts()
        assert any(f"All {LONG} entries were hashed" in c for c in said)
        assert not any("has not hashed" in c for c in said)
        await page.click("text=Older entries")
        await page.wait_for_url("**before=**")
        await page.wait_for_selector("#proof[data-state=done]")  # else it still loads when its server ends
        assert await page.locator("tbody th a").first.inner_text() == str(LONG - 101)


def policy_of(witness: LedgerCosigner) -> Policy:
    """Both keys of a witness are demanded."""
    first, second = witness.vkeys
    return parse_policy(f"witness a {first}\nwitness b {second}\ngroup all all a b\nquorum all\n".encode())


def cosigned(found: Ledger, size: int, witness: LedgerCosigner, name: str) -> bytes:
    """`checkpoint.witnessed` as the witness signed it."""
    checkpoint = parse_checkpoint(found.checkpoints[size])
    return checkpoint.note + witness.cosign(checkpoint.origin, size, checkpoint.root, START)


@pytest.mark.parametrize("script", [True, False])
async def test_a_fork_and_a_restored_backup_are_told_by_what_a_witness_saw(
    watched: Watched, tmp_path: Path, script: bool
) -> None:
    witness = LedgerCosigner("test/w", bytes(32), bytes(range(32)))
    policy = policy_of(witness)
    saw, fork, backup = grown(300, 400), grown(300, 400, seed=7), grown(200)
    other = grown(300)
    other.origin = "test/br-pf/2026.2"
    note = cosigned(saw, 300, witness, "test/w")
    saw_later, changes = note.replace(b"\n300\n", b"\n299\n"), 0
    for name, found, witnessed, says in (
        ("honest", saw, note, "test/w cosigned this history up to size 300"),
        ("fork", fork, note, "it is of another history than the one that is shown"),
        ("backup", backup, note, "it is of more entries than are shown: some were taken away"),
        ("broken", saw, saw_later, "Nobody that is known here has cosigned it"),
    ):
        folder = tmp_path / name
        found.write(folder)
        (folder / "checkpoint.witnessed").write_bytes(witnessed)
        page = await watched.page(script=script)
        async with shown(folder, found, policy) as url:
            await page.goto(url)
            if script:
                await page.wait_for_selector("#proof[data-state=done]")
            said = await page.locator(".claim").all_inner_texts()
            await page.goto(f"{url}/entries/17")
            if script:
                await page.wait_for_selector("#proof[data-state=done]")
            of_entry = await page.locator(".claim").all_inner_texts()
        assert any(says in c for c in said), (name, said)
        assert any(says in c for c in of_entry), (name, of_entry)
        wrong = [c for c in said if c.startswith("Wrong:")]
        assert bool(wrong) == (name in ("fork", "backup")), (name, said)
        changes += bool(wrong)
    assert changes == 2


def witnessed_ledger(folder: Path) -> tuple[LedgerCosigner, Ledger]:
    """300 entries in a folder, and who cosigned them."""
    witness, found = LedgerCosigner("test/w", bytes(32), bytes(range(32))), grown(300)
    found.write(folder)
    (folder / "checkpoint.witnessed").write_bytes(cosigned(found, 300, witness, "test/w"))
    return witness, found


async def older_browser(watched: Watched, *, without: str) -> Page:
    """A page whose worker finds no such algorithm."""
    page = await watched.page()

    async def older(route: Route) -> None:
        answer = await route.fetch()
        await route.fulfill(response=answer, body=OLDER.replace("ALGORITHM", without) + await answer.text())

    await page.route("**/worker.js", older)
    return page


async def test_a_browser_without_ml_dsa_says_what_it_cannot_verify_and_takes_nothing_on_trust(
    watched: Watched, tmp_path: Path
) -> None:
    witness, found = witnessed_ledger(tmp_path)
    page = await older_browser(watched, without="ML-DSA-44")
    async with shown(tmp_path, found, policy_of(witness)) as url:
        said = await claims(page, url)
        assert any("This browser cannot verify the signature by ML-DSA-44" in c for c in said), said
        assert any("of each witness this browser verifies the first signature" in c.lower() for c in said)
        assert any("All 300 entries were hashed in this browser" in c for c in said)
        assert any("test/w cosigned this very history at size 300" in c for c in said)
        entry = await claims(page, f"{url}/entries/17")
    assert any("This browser cannot verify the signature by ML-DSA-44" in c for c in entry)
    assert not any(c.startswith("Wrong:") for c in (*said, *entry))


async def test_a_browser_without_ed25519_verifies_no_signature_says_so_and_remembers_nothing(
    watched: Watched, tmp_path: Path
) -> None:
    witness, found = witnessed_ledger(tmp_path)
    page = await older_browser(watched, without="Ed25519")
    async with shown(tmp_path, found, policy_of(witness)) as url:
        said = await claims(page, url)
        assert any("This browser cannot verify the signature by Ed25519" in c for c in said), said
        assert any("give the root that the checkpoint names" in c for c in said)
        assert not any(c.startswith("Wrong:") or "cosigned this very history" in c for c in said)
        assert await page.evaluate("localStorage.length") == 0


async def test_l14_fewer_witnesses_than_the_policy_demands_are_said_to_be_too_few(
    watched: Watched, tmp_path: Path
) -> None:
    found, witnesses = grown(300), [LedgerCosigner(f"test/w{n}", bytes([n] * 32), bytes([9 + n] * 32)) for n in (1, 2)]
    found.write(tmp_path)
    keys = [key for each in witnesses for key in each.vkeys]
    lines = [f"witness k{n} {key}" for n, key in enumerate(keys)]
    text = "\n".join(
        (*lines, "group one all k0 k1", "group two all k2 k3", "group both all one two", "quorum both", "")
    )
    (tmp_path / "checkpoint.witnessed").write_bytes(cosigned(found, 300, witnesses[0], "test/w1"))
    page = await watched.page()
    async with shown(tmp_path, found, parse_policy(text.encode())) as url:
        for path in (url, f"{url}/entries/17"):
            said = await claims(page, path)
            assert any("test/w1 cosigned this history up to size 300" in c for c in said), said
            assert any("These are fewer witnesses than are demanded" in c for c in said), said


async def test_l13_what_was_erased_is_told_in_words_and_its_entry_still_proven(
    watched: Watched, tmp_path: Path
) -> None:
    found = grown(10)
    sent = Exchange().message(1, found, "test/us-atf")
    of = {name: sent[name] for name in ("id", "sender", "recipient", "content_c")}
    found.add(found.entry("erased", **of, code="content/COURT_ORDER/2027-01-15", actor_c=digest("court")))
    found.write(tmp_path)
    page = await watched.page()
    async with shown(tmp_path, found) as url:
        said = await claims(page, f"{url}/entries/10")
        assert any("These very bytes lie under the signed root" in c for c in said), said
        told = await page.locator("main").inner_text()
        assert "erased all of a message" in told
        assert "ground COURT_ORDER; backups still open it until 2027-01-15" in told


async def test_a_witnessed_checkpoint_without_the_ledgers_post_quantum_signature_is_wrong(
    watched: Watched, tmp_path: Path
) -> None:
    witness, found = witnessed_ledger(tmp_path)
    page = await watched.page()

    async def lie(route: Route) -> None:
        answer = await route.fetch()
        head, mark, note = (await answer.text()).partition('data-witnessed="')
        own = f"— {found.origin} "
        at = note.index(own, note.index(own) + 1) + len(own) + 300  # in the second line of the ledger's own
        other = "A" if note[at] != "A" else "B"
        await route.fulfill(response=answer, body=head + mark + note[:at] + other + note[at + 1 :])

    async with shown(tmp_path, found, policy_of(witness)) as url:
        await page.route(url, lie)
        said = await claims(page, url)
    assert any(c.startswith("Wrong:") and "it is not of this ledger" in c for c in said), said


def grown(*sizes: int, seed: int = 0) -> Ledger:
    """A ledger with a checkpoint at each of these sizes; the entries up to the first one differ by the seed."""
    found = Ledger("test/br-pf")
    found.open()
    for size in sizes:
        found.add(*(_admin(found, n, seed) for n in range(len(found.entries), size)))
    return found


async def test_keys_that_lay_beside_the_ledger_are_nobodys_word(watched: Watched, tmp_path: Path) -> None:
    found = ledger(10)
    found.write(tmp_path)
    page, bound = await watched.page(), free_socket()
    port = bound.getsockname()[1]
    explore = Explore(
        OneLedger(_folder(tmp_path), LedgerKeys.among(found.origin, found.signer.vkeys), None), Tw1Verifier()
    )
    pages = Explorer(explore, trusted=True, vouched=False).routes(loopback(port))
    async with listening(application(pages), at=bound):
        said = await claims(page, f"http://127.0.0.1:{port}/audit/ledgers/{log_name(found.origin)}")
    assert any("nobody vouches for whose they are" in c for c in said)
    assert not any("This machine verified both signatures" in c for c in said)


async def test_a_browser_that_may_not_remember_says_so_and_verifies(watched: Watched, tmp_path: Path) -> None:
    found = ledger(300)
    found.write(tmp_path)
    page = await watched.page()
    await page.add_init_script("Object.defineProperty(window, 'localStorage', {get() { throw new Error('denied'); }})")
    async with shown(tmp_path, found) as url:
        said = await claims(page, url)
    assert any("cannot remember what it saw" in c for c in said)
    assert any("All 300 entries were hashed" in c for c in said)


async def test_an_entry_that_nobody_can_read_hides_no_other(watched: Watched, tmp_path: Path) -> None:
    found = ledger(10)
    found.add(b'{"v":2,"kind":"hello"}')
    found.add(_admin(found, 11, 0))
    found.write(tmp_path)
    page = await watched.page()
    async with shown(tmp_path, found) as url:
        await claims(page, url)
        assert await page.locator("tbody tr").count() == 12
        assert "no entry that this version can read" in await page.locator("main").inner_text()
        said = await claims(page, f"{url}/entries/10")
        assert any("These very bytes lie under the signed root" in c for c in said)
        for path in ("/figures", "/entries.csv"):
            assert (await page.request.get(url + path)).status == 200


async def test_where_entries_do_not_hold_the_page_says_so_and_the_browser_too(watched: Watched, tmp_path: Path) -> None:
    found = ledger(600)
    found.write(tmp_path)
    bundle = tmp_path / "tile/entries/002.p/88"
    bundle.write_bytes(bundle.read_bytes().replace(b'"test"', b'"TEST"', 1))
    page = await watched.page()
    async with shown(tmp_path, found) as url:
        said = await claims(page, url)
        assert len([c for c in said if c.startswith("Wrong:")]) == 2, said
        await page.goto(f"{url}/entries/599")
        assert "do not give the root that was signed" in await page.locator("[role=alert]").inner_text()
    watched.complaints.clear()  # the browser notes the 400


@pytest.mark.parametrize("level", [0, 1])
async def test_l07_a_bit_of_a_tile_that_flips_is_named_and_proves_nothing_false(
    watched: Watched, tmp_path: Path, level: int
) -> None:
    found = ledger(600)
    found.write(tmp_path)
    tile = next((tmp_path / f"tile/{level}").glob("00[02].p/*"))
    data = bytearray(tile.read_bytes())
    data[-1] ^= 1
    tile.write_bytes(data)
    page = await watched.page()
    async with shown(tmp_path, found) as url:
        said = await claims(page, url)
        assert any("All 600 entries were hashed" in c for c in said), "the entries are whole"
        assert [c for c in said if c.startswith("Wrong: This machine could not prove the entries")], said
        await page.goto(f"{url}/entries/598")
        if level:
            assert "do not give the root that was signed" in await page.locator("[role=alert]").inner_text()
        else:  # the hashes beside an entry are made of the entries
            assert "proved it under a checkpoint of 600 entries" in await page.locator("#claims").inner_text()
    watched.complaints.clear()  # the browser notes the 400


@pytest.mark.parametrize("index", [0, 5, 598, 599])
async def test_the_picture_of_a_path_leads_from_the_entry_to_the_root(
    watched: Watched, tmp_path: Path, index: int
) -> None:
    found = ledger(600)
    found.write(tmp_path)
    page = await watched.page(script=False)
    async with shown(tmp_path, found) as url:
        await page.goto(f"{url}/entries/{index}")
        root, *drawn, entry = await page.locator("svg.path text").all_text_contents()
        places = [float(await each.get_attribute("x") or 0) for each in await page.locator("svg.path text").all()]
        listed = [text.split() for text in await page.locator("#proof details li").all_text_contents()]
    value = leaf_hash(found.entries[index])
    for (text, *_, side), box, x in zip(listed, reversed(drawn), reversed(places[1:-1]), strict=True):
        sibling = base64.b64decode(text)
        value = node_hash(sibling, value) if side == "left" else node_hash(value, sibling)
        assert (box, x < 160) == (f"{text[:8]}…", side == "left")
    assert value == found.edge.root()
    assert (entry, root) == (f"entry {index}", f"root {base64.b64encode(value).decode()[:8]}…")


async def test_the_bar_tells_how_many_entries_were_hashed(watched: Watched, tmp_path: Path) -> None:
    found = ledger(3_000)
    found.write(tmp_path)
    page, go_on = await watched.page(), asyncio.Event()

    async def held(route: Route) -> None:
        await go_on.wait()
        await route.continue_()

    async with shown(tmp_path, found) as url:
        await page.route("**/tile/entries/011**", held)
        await page.goto(url)
        await page.wait_for_selector("#progress:not([hidden])")
        bar = page.get_by_role("progressbar", name="Entries hashed")
        assert await bar.evaluate("bar => [bar.value, bar.max]") == [2_048, 3_000]
        go_on.set()
        await page.wait_for_selector("#proof[data-state=done]")
        assert await bar.count() == 0


async def test_entries_are_found_by_time_code_and_kind(watched: Watched, tmp_path: Path) -> None:
    found = Ledger("test/br-pf")
    found.open()
    for day, code in ((0, "first"), (1, "second"), (1, "first"), (2, "first")):
        found.add(found.entry("admin", code=code, at=START + timedelta(days=day)))
    found.write(tmp_path)
    page = await watched.page(script=False)

    async def rows(**given: str) -> list[int]:
        await page.goto(url)
        for name, value in given.items():
            field = page.locator(f"[name={name}]")
            await (field.select_option(value) if name == "kind" else field.fill(value))
        await page.click("text=Filter")
        return [int(each) for each in await page.locator("tbody th").all_inner_texts()]

    day = (START + timedelta(days=1)).date().isoformat()
    async with shown(tmp_path, found) as url:
        assert await rows() == [4, 3, 2, 1, 0]
        assert await rows(since=day) == [4, 3, 2]
        assert await rows(until=day) == [3, 2, 1, 0]
        assert await rows(since=day, until=day) == [3, 2], "both days are included"
        assert await rows(code="first") == [4, 3, 1]
        assert await rows(code="first", since=day, until=day) == [3]
        assert await rows(kind="ledger-opened") == [0]
