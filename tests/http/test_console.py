"""The auditor's console of a node: links, sessions, and what a page lets others do with it."""

import re
from collections.abc import AsyncIterator
from datetime import timedelta
from http.cookies import SimpleCookie
from importlib import resources
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import pytest_asyncio

from adapters.postgres.embedded import EmbeddedServer
from adapters.postgres.sessions import PostgresSessions
from adapters.postgres.threads import PostgresClients
from gateway.console.session import COOKIE
from gateway.services.committed import log_name
from gateway.services.session import Sessions
from keys.suite import Tw1Sealer
from protocols.problems import ProblemError
from tests.federation import Federation
from tests.http.office import Office, Reply, World, office_of
from tests.http.wire import PATIENCE_S

pytestmark = pytest.mark.asyncio(loop_scope="module")

LOOKS = ("audit:read", "ledger:read")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def world(postgres: EmbeddedServer, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[World]:
    async with Federation(postgres, tmp_path_factory.mktemp("console")) as fed:
        asker, holder = await fed.nodes("asker", "holder")
        async with (
            aiohttp.ClientSession(
                timeout=aiohttp.ClientTimeout(total=PATIENCE_S), cookie_jar=aiohttp.DummyCookieJar()
            ) as session,
            office_of(asker, session) as ours,
            office_of(holder, session) as theirs,
        ):
            await ours.register("auditor", ("AUD",), LOOKS)
            yield World(ours, theirs)


def sessions(office: Office) -> Sessions:
    return Sessions(PostgresSessions(office.node.pool), Tw1Sealer(), office.node.fed.clock)


async def enter(office: Office, link: str, **headers: str) -> Reply:
    given = {"Origin": office.url, **{name.replace("_", "-"): value for name, value in headers.items()}}
    return await office.call("POST", "/audit/login", data={"link": link}, headers=given, allow_redirects=False)


async def signed_in(office: Office) -> dict[str, str]:
    """The header of a session."""
    reply = await enter(office, await sessions(office).link("auditor", "AUD", LOOKS))
    assert (reply.status, reply.headers["Location"]) == (303, "/audit")
    return {"Cookie": f"{COOKIE}={SimpleCookie(reply.headers['Set-Cookie'])[COOKIE].value}"}


async def look(office: Office, path: str, headers: dict[str, str]) -> Reply:
    return await office.call("GET", path, headers=headers, allow_redirects=False)


def pages(office: Office, thread: str = "") -> list[str]:
    log = f"/audit/ledgers/{log_name(office.node.origin)}"
    return [
        "/audit", log, f"{log}?kind=sent&member=testnet/holder&since=2026-01-01&until=2030-01-01&code=x&before=5",
        f"{log}/entries/0", f"{log}/figures", f"{log}/entries.csv", "/audit/gaps",
        f"/audit/threads?thread={thread}", f"{log}?thread={thread}",
    ]  # fmt: skip


async def test_a_link_opens_one_session_once_and_a_signed_out_one_is_over(world: World) -> None:
    office = world.asker
    link = await sessions(office).link("auditor", "AUD", LOOKS)
    for _ in range(2):  # looking at a link does not use it up
        shown = await office.call("GET", f"/audit/login?link={link}")
        assert f'value="{link}"' in shown.body.decode()
    assert (await enter(office, link)).status == 303
    assert (await enter(office, link)).status == 403
    session = await signed_in(office)
    for path in pages(office):
        assert (await look(office, path, session)).status == 200, path
        assert (await look(office, path, {})).status == 401, path
    out = await office.call("POST", "/audit/logout", headers={**session, "Origin": office.url}, allow_redirects=False)
    assert (out.status, "Max-Age=0" in out.headers["Set-Cookie"]) == (303, True)
    assert (await look(office, "/audit", session)).status == 401
    old = await sessions(office).link("auditor", "AUD", LOOKS)
    session = await signed_in(office)
    office.node.fed.clock.ahead += timedelta(minutes=11)
    assert (await enter(office, old)).status == 403
    assert (await look(office, "/audit", session)).status == 200
    office.node.fed.clock.ahead += timedelta(hours=8)
    assert (await look(office, "/audit", session)).status == 401


async def test_a_revoked_client_and_one_without_the_scopes_see_nothing(world: World) -> None:
    office = world.asker
    await office.register("leaver", ("L",), LOOKS)
    reply = await enter(office, await sessions(office).link("leaver", "L", LOOKS))
    session = {"Cookie": f"{COOKIE}={SimpleCookie(reply.headers['Set-Cookie'])[COOKIE].value}"}
    assert (await look(office, "/audit", session)).status == 200
    await PostgresClients(office.node.pool).revoke_client("leaver", office.node.fed.clock.now())
    assert (await look(office, "/audit", session)).status == 401
    narrow = await enter(office, await sessions(office).link("auditor", "AUD", ["audit:read"]))
    session = {"Cookie": f"{COOKIE}={SimpleCookie(narrow.headers['Set-Cookie'])[COOKIE].value}"}
    assert (await look(office, "/audit", session)).said == (403, "auth.scope")


async def test_nothing_odd_that_is_sent_is_an_error_of_ours(world: World) -> None:
    office = world.asker
    session = await signed_in(office)
    log = f"/audit/ledgers/{log_name(office.node.origin)}"
    for path in (
        f"{log}?until=9999-12-31&since=0001-01-01",
        f"{log}?thread=%ff&member=%ff",
        f"{log}/tile/%00",
        f"{log}/tile/../../v1",
    ):
        assert (await look(office, path, session)).status < 500, path
    assert (await look(office, "/audit", {"Cookie": f"{COOKIE}=\xff"})).status == 401
    for given in ({"data": b"\xff\xfe&link=\xff"}, {"data": b"&" * 4_000}, {"data": b"x" * 100_000}, {"data": {}}):
        reply = await office.call("POST", "/audit/login", headers={"Origin": office.url}, **given)
        assert reply.status in (403, 413), given
    assert (await enter(office, "x", Origin="http://[")).said == (403, "ui.csrf")


async def test_u02_a_form_of_another_site_changes_nothing(world: World) -> None:
    office = world.asker
    link = await sessions(office).link("auditor", "AUD", LOOKS)
    for headers in (
        {"Sec_Fetch_Site": "cross-site"}, {"Sec_Fetch_Site": "same-site"}, {"Origin": "https://evil.example"}, {"Origin": "null"},
    ):  # fmt: skip
        assert (await enter(office, link, **headers)).said == (403, "ui.csrf")
    session = await signed_in(office)
    evil = {**session, "Origin": "https://evil.example"}
    assert (await office.call("POST", "/audit/logout", headers=evil)).said == (403, "ui.csrf")
    assert (await office.call("POST", "/audit/logout", headers=session)).said == (403, "ui.csrf")
    assert (await look(office, "/audit", session)).status == 200
    assert (await enter(office, link, Sec_Fetch_Site="same-origin")).status == 303


async def test_u03_u07_no_page_is_framed_cached_or_told_from_where_one_came(world: World) -> None:
    office = world.asker
    session = await signed_in(office)
    for path in (
        *pages(office),
        "/audit/login",
        *(f"/audit/{name}" for name in ("audit.js", "worker.js", "audit.css", "icon.svg")),
    ):
        headers = (await look(office, path, session)).headers
        policy = dict(each.strip().partition(" ")[::2] for each in headers["Content-Security-Policy"].split(";"))
        assert policy["default-src"] == policy["frame-ancestors"] == policy["base-uri"] == "'none'", path
        assert (policy["script-src"], policy["require-trusted-types-for"]) == ("'self'", "'script'"), path
        assert (headers["Cache-Control"], headers["Referrer-Policy"]) == ("no-store", "no-referrer"), path
        assert headers["X-Content-Type-Options"] == "nosniff", path


async def test_the_pages_of_a_halted_node_are_shown_though_it_can_note_nothing(world: World) -> None:
    office = world.asker
    session = await signed_in(office)
    office.node.fed.clock.ahead += timedelta(hours=1)
    office.node.parts.committer.halted = ProblemError("ledger.rollback", "played by the test")
    try:
        for path in pages(office):
            assert (await look(office, path, session)).status == 200, path
    finally:
        office.node.parts.committer.halted = None


async def test_u03_u07_what_is_refused_is_not_framed_or_cached_either(world: World) -> None:
    office = world.asker
    link = await sessions(office).link("auditor", "AUD", ["audit:read"])
    narrow = {"Cookie": f"{COOKIE}={SimpleCookie((await enter(office, link)).headers['Set-Cookie'])[COOKIE].value}"}
    log = f"/audit/ledgers/{log_name(office.node.origin)}"
    session = await signed_in(office)
    for path, given, status in (
        ("/audit", {}, 401), ("/audit", narrow, 403), (f"{log}/entries/999", session, 404), (f"{log[:-1]}0/figures", session, 404),
    ):  # fmt: skip
        reply = await look(office, path, given)
        assert reply.status == status, path
        assert "frame-ancestors 'none'" in reply.headers["Content-Security-Policy"], path
        assert reply.headers["Cache-Control"] == "no-store", path
        assert reply.headers["X-Content-Type-Options"] == "nosniff", path
    refused = await enter(office, link, Sec_Fetch_Site="cross-site")
    assert (refused.said, refused.headers["Cache-Control"]) == ((403, "ui.csrf"), "no-store")


async def test_u04_guessing_links_ends_in_429_and_says_the_same_of_each(world: World) -> None:
    office = world.holder
    await office.register("auditor", ("AUD",), LOOKS)
    used = await sessions(office).link("auditor", "AUD", LOOKS)
    assert (await enter(office, used)).status == 303
    bodies = {(await enter(office, guess)).body for guess in (used, "x" * 43, "", "é" * 500)}
    assert len(bodies) == 1, "nobody is told whether a link ever was one"
    for n in range(16):
        assert (await enter(office, f"{n:043}")).status == 403
    assert (await enter(office, "x" * 43)).said == (429, "ui.rate")
    good = await sessions(office).link("auditor", "AUD", LOOKS)
    assert (await enter(office, good)).status == 303, "who has a link gets in, whatever others try"


async def test_u05_a_session_gets_a_fresh_id_in_a_cookie_that_only_its_site_and_no_script_reads(world: World) -> None:
    office = world.asker
    fixed = {"Cookie": f"{COOKIE}=fixed-by-an-attacker"}
    assert (await look(office, "/audit", fixed)).status == 401
    link = await sessions(office).link("auditor", "AUD", LOOKS)
    reply = await office.call(
        "POST", "/audit/login", data={"link": link}, headers={**fixed, "Origin": office.url}, allow_redirects=False
    )
    cookie = SimpleCookie(reply.headers["Set-Cookie"])[COOKIE]
    assert cookie.value not in ("fixed-by-an-attacker", link)
    assert COOKIE.startswith("__Host-")
    assert (cookie["secure"], cookie["httponly"], cookie["samesite"], cookie["path"], cookie["domain"]) == (
        True, True, "Strict", "/", ""
    )  # fmt: skip
    stored = await office.node.rows("SELECT id FROM session")
    assert cookie.value.encode() not in b"".join(row["id"] for row in stored), "a digest of it is kept"


async def test_u08_no_template_has_a_script_style_or_handler_of_its_own() -> None:
    found = {}
    for package in ("gateway.console", "gateway.http"):
        for each in resources.files(package).joinpath("templates").iterdir():
            if each.name.endswith(".html") and each.name != "alone.html":
                found[each.name] = each.read_text()
    for name, text in found.items():
        assert not re.search(r"\son[a-z]+\s*=", text), name
        assert not re.search(r"\sstyle\s*=", text), name
        assert all("src=" in tag for tag in re.findall(r"<script[^>]*>", text)), name
        assert "javascript:" not in text, name


async def test_the_pages_say_what_the_ledger_and_the_thread_say(world: World) -> None:
    office = world.asker
    session, asked = await signed_in(office), await world.arrived()
    await office.get(f"/v1/traces/{asked['thread']}")
    log = f"/audit/ledgers/{log_name(office.node.origin)}"
    newest = (await look(office, f"{log}?kind=opened", session)).body.decode()
    assert (
        "Somebody at testnet/asker read the text of a message from testnet/asker to testnet/holder for TRACING."
        in newest
    )
    own = (await look(office, f"{log}?thread={asked['thread']}", session)).body.decode()
    assert own.count('<th scope="row"') == 3
    trail = (await look(office, f"/audit/threads?thread={asked['thread']}", session)).body.decode()
    assert ("body/TRACING" in trail, ">A<" in trail) == (True, True)
    for wrong in ("x", "01900000-0000-7000-8000-000000000000"):
        assert 'role="alert"' in (await look(office, f"/audit/threads?thread={wrong}", session)).body.decode()
        assert "None of these entries fits" in (await look(office, f"{log}?thread={wrong}", session)).body.decode()
    index = next(n for n, entry in enumerate(await office.node.entries()) if entry.kind == "receipt")
    entry = (await look(office, f"{log}/entries/{index}", session)).body.decode()
    assert "testnet/holder took a message of testnet/asker" in entry, "what the other side says stands beside it"
    rows = (await look(office, f"{log}/entries.csv?kind=sent", session)).body.decode().splitlines()
    assert (rows[0].endswith('"grade"'), rows[1].endswith('"signed"')) == (True, True)
    assert len(rows) == 1 + (await office.node.kinds()).count("sent")
    for path, said in (
        (f"{log}/entries/999999", (404, "tile.missing")), (f"{log}/entries/x", (404, "tile.missing")),
        (f"/audit/ledgers/{'0' * 64}", (404, "http.not_found")), (f"{log}/tile/entries/999", (404, "tile.missing")),
    ):  # fmt: skip
        reply = await look(office, path, session)
        assert (reply.status, f"<code>{said[1]}</code>" in reply.body.decode()) == (said[0], True), path
    strange: dict[str, Any] = {"since": "yesterday", "before": "-1", "kind": "nonsense", "unknown": "x" * 500}
    assert (await office.call("GET", log, headers=session, params=strange)).status == 200


async def test_each_page_is_shown_in_the_documentation_wide_and_light_narrow_and_dark() -> None:
    pages = {Path(each.name) for each in resources.files("gateway.console").joinpath("templates").iterdir()}
    names = {each.stem for each in pages if each.suffix == ".html"} - {"base", "claims"} | {"evidence"}
    shown = {each.name for each in (Path(__file__).parents[2] / "docs/screenshots").iterdir()}
    assert shown == {f"{name}{look}.png" for name in names for look in ("", "-dark-360")}
