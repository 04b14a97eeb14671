"""The pages for people: every problem explains itself, the interface is described whole, nothing is fetched from elsewhere."""

import re
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest
import pytest_asyncio
from aiohttp import web

from gateway.http.causes import CAUSES
from gateway.http.openapi import Asked, Operation, openapi
from gateway.http.pages import reference_routes
from gateway.http.serve import application
from protocols.problems import CODES, ProblemError
from tests.http.wire import listening

pytestmark = pytest.mark.asyncio(loop_scope="module")


async def get_thing(request: web.Request, asked: Asked) -> web.Response:
    """Read a thing.

    Its `name` is <b>not</b> markup.
    """
    raise ProblemError("thread.not_found")


DOCUMENT = openapi(
    [Operation(method="GET", path="/v1/things/{thing}", scope=None, call=get_thing)], title="T", version="1"
)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def ask() -> AsyncIterator[Any]:
    app = application(reference_routes(lambda: DOCUMENT))
    async with listening(app) as port, aiohttp.ClientSession(f"http://127.0.0.1:{port}") as session:

        async def get(path: str) -> tuple[int, str, str]:
            async with session.get(path) as reply:
                return reply.status, await reply.text(), reply.headers.get("Content-Security-Policy", "")

        yield get


@pytest.mark.parametrize("code", sorted(CODES.keys() | CAUSES.keys()))
async def test_the_type_of_a_problem_is_a_page_with_its_cause_and_its_fix(ask: Any, code: str) -> None:
    problem = ProblemError(code).document()
    status, page, _ = await ask(problem["type"])
    assert status == 200
    shown = re.sub("<code>(.*?)</code>", r"`\1`", page).replace("&#39;", "'")
    assert problem["fix"] in shown
    assert CAUSES[code] in shown


async def test_the_root_leads_to_the_reference(ask: Any) -> None:
    assert await ask("/") == await ask("/v1")


async def test_an_unknown_code_is_a_problem_itself(ask: Any) -> None:
    status, body, _ = await ask("/problems/no.such.code")
    assert (status, "http.not_found" in body) == (404, True)


@pytest.mark.parametrize("path", ["/v1", "/problems", "/problems/internal"])
async def test_a_page_has_no_script_loads_nothing_from_elsewhere_and_begins_with_a_way_past_its_head(
    ask: Any, path: str
) -> None:
    status, page, policy = await ask(path)
    assert status == 200
    assert "<script" not in page
    assert policy.startswith("default-src 'none'; style-src 'self'")
    assert set(re.findall(r'(?:src|href)="([^"#]+)', page)) <= {
        "/style.css", "/v1/openapi.json", "/problems", *(f"/problems/{code}" for code in CODES)
    }  # fmt: skip
    assert page.index('href="#main"') < page.index("<header>")
    assert 'id="main"' in page


async def test_the_reference_says_what_the_description_says(ask: Any) -> None:
    _, page, _ = await ask("/v1")
    assert '<h2 id="get_thing">' in page
    assert "<code>name</code> is &lt;b&gt;not&lt;/b&gt; markup." in page
    for name in DOCUMENT["components"]["schemas"]:
        assert f'<h3 id="{name}">' in page
    assert (await ask("/style.css"))[0] == 200
