"""Batches: NDJSON and CSV over HTTP through the typed client, a result a line, resumed without doing anything twice."""

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest
import pytest_asyncio

from adapters.postgres.embedded import EmbeddedServer
from gateway.http.batch import CSV, NDJSON, lines_of
from gateway.runtime.client import AgencyClient
from gateway.runtime.settings import key_path
from protocols.limits import SUBMISSIONS_MAX
from protocols.problems import ProblemError
from tests.federation import ACKNOWLEDGEMENT, HANDLING, Federation, trace_request
from tests.http.office import Json, Office, World, office_of
from tests.http.wire import PATIENCE_S

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def world(postgres: EmbeddedServer, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[World]:
    async with Federation(postgres, tmp_path_factory.mktemp("batch")) as fed:
        asker, holder = await fed.nodes("asker", "holder")
        async with (
            aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=PATIENCE_S)) as session,
            office_of(asker, session) as ours,
            office_of(holder, session) as theirs,
        ):
            yield World(ours, theirs)


def client_of(office: Office) -> AgencyClient:
    key = key_path(office.node.folder, "all").read_bytes()
    return AgencyClient(office.url, audience=office.node.settings.audience, client="all", actor="A", key=key)


async def send(office: Office, data: bytes, media: str = NDJSON, key: str = "a batch's key") -> list[Json]:
    async with client_of(office) as agency:
        return [line.model_dump(exclude_none=True) async for line in agency.batch(data, media, key=key)]


def ndjson(*documents: Json) -> bytes:
    return b"".join(json.dumps(each).encode() + b"\n" for each in documents)


async def test_every_line_gets_its_result_and_the_last_line_counts(world: World) -> None:
    wrong = world.request("BAD12345") | {"body": trace_request(priority="CANARY")}
    data = ndjson(world.request("GOOD1234"), wrong) + b"not json\n\n" + ndjson(world.request("GOOD2345"))
    first, second, third, fourth, fifth, end = await send(world.asker, data)
    assert (first["line"], fifth["line"]) == (1, 5)
    assert first["thread"] != fifth["thread"]
    assert (second["problem"]["code"], second["problem"]["errors"][0]["pointer"]) == (
        "schema.invalid",
        "/body/priority",
    )
    assert third["problem"]["code"] == fourth["problem"]["code"] == "json.invalid"
    assert end == {"accepted": 2, "refused": 3}
    thread = await world.asker.get(f"/v1/traces/{first['thread']}")
    assert thread.json["messages"][0]["body"] == trace_request("GOOD1234")


async def test_a_batch_sent_again_does_nothing_twice_and_takes_what_was_corrected(world: World) -> None:
    good, bad = world.request("AGAIN123"), world.request("LATER123") | {"to": "testnet/nobody"}
    before = await send(world.asker, ndjson(good, bad), key="again and again")
    after = await send(world.asker, ndjson(world.request("LATER123"), good, good), key="again and again")
    assert before[0]["thread"] == after[1]["thread"] == after[2]["thread"]
    assert before[1]["problem"]["code"] == "member.unknown"
    assert after[-1] == {"accepted": 3, "refused": 0}
    other = await send(world.asker, ndjson(good), key="another key")
    assert other[0]["thread"] != before[0]["thread"]


async def test_a_batch_that_another_program_wrote_again_does_nothing_twice(world: World) -> None:
    said = world.request("SAVED123")
    before = await send(world.asker, ndjson(said), key="written again")
    shuffled = json.dumps(dict(reversed(said.items())), indent=None, ensure_ascii=True).encode() + b"\r\n"
    after = await send(world.asker, shuffled, key="written again")
    assert before[0]["thread"] == after[0]["thread"]


async def test_a_batch_whose_answer_was_cut_is_sent_again(world: World) -> None:
    data = ndjson(*(world.request(f"CUT{n:05}") for n in range(130)))
    got = []
    async with client_of(world.asker) as agency:
        answer = agency.batch(data, NDJSON, key="cut after one")
        got.append(await anext(answer))
        await answer.aclose()  # type: ignore[attr-defined]
    lines = await send(world.asker, data, key="cut after one")
    assert lines[0]["thread"] == got[0].thread
    assert lines[-1] == {"accepted": 130, "refused": 0}
    assert len({line["thread"] for line in lines[:-1]}) == 130


COLUMNS: Json = {"/to": "testnet/holder", "/handling/purpose": "TRACING", "/handling/codes/0": "PURPOSE_TRACING_ONLY"}


def columns(value: Any, at: str = "/body") -> Json:
    """A body as columns; `raw` is left out where it is empty."""
    if isinstance(value, dict):
        found: Json = {}
        for name, each in value.items():
            found |= columns(each, f"{at}/{name}")
        return found
    if isinstance(value, list):
        return {name: text for n, each in enumerate(value) for name, text in columns(each, f"{at}/{n}").items()}
    return {} if at.endswith("/raw") and value == "" else {at: str(value).lower() if isinstance(value, bool) else value}


def sheet(*rows: Json, names: list[str] | None = None) -> bytes:
    names = names or list(dict.fromkeys(name for row in rows for name in row))
    quoted = [",".join('"' + str(row.get(name, "")).replace('"', '""') + '"' for name in names) for row in rows]
    return ("\ufeff" + "\r\n".join([",".join(names), *quoted]) + "\r\n").encode()


async def test_a_csv_says_the_same_as_the_ndjson(world: World) -> None:
    rows = [COLUMNS | columns(trace_request(serial, request_ref='a, b\n"c"')) for serial in ("CSV00123", "00012345")]
    first, second, end = await send(world.asker, sheet(*rows), CSV)
    assert (first["line"], second["line"], end) == (2, 3, {"accepted": 2, "refused": 0})
    body = (await world.asker.get(f"/v1/traces/{second['thread']}")).json["messages"][0]["body"]
    assert body == trace_request("00012345", request_ref='a, b\n"c"')


async def test_what_is_wrong_in_a_csv_is_said_by_line_and_column(world: World) -> None:
    row = COLUMNS | columns(trace_request("CSV12345"))
    name = "/body/confidentiality_guarantee"
    bad = [row | {name: "perhaps"}, row | {"/body/weapon/make/raw": "\0"}, row | {"/to": ""}]
    lines = await send(world.asker, sheet(row, *bad), CSV, key="what is wrong")
    codes = [line.get("problem", {}).get("code") for line in lines[:-1]]
    assert codes == [None, "batch.invalid", "json.encoding", "schema.invalid"]
    assert lines[1]["problem"]["errors"][0]["pointer"] == name
    assert lines[3]["problem"]["errors"][0]["pointer"] == "/to"


@pytest.mark.parametrize(
    ("data", "media", "code"),
    [
        (b"", NDJSON, "batch.invalid"),
        (b"", CSV, "batch.invalid"),
        (b"/to\r\n", CSV, "batch.invalid"),
        (b"\xff", CSV, "batch.invalid"),
        (b'/to\r\n"open', CSV, "batch.invalid"),
        (b"/to,/to\r\na,b\r\n", CSV, "batch.invalid"),
        (b"/to,/body/wepon/model\r\na,b\r\n", CSV, "batch.invalid"),
        (b"\n" * (SUBMISSIONS_MAX + 1), NDJSON, "http.too_large"),
        (b"/to\r\n" + b"a\r\n" * (SUBMISSIONS_MAX + 1), CSV, "http.too_large"),
    ],
)  # fmt: skip
async def test_a_file_of_which_nothing_can_be_read_is_refused_whole(
    world: World, data: bytes, media: str, code: str
) -> None:
    with pytest.raises(ProblemError) as refused:
        await send(world.asker, data, media)
    assert refused.value.code == code


async def test_an_unknown_column_is_told_the_nearest_one() -> None:
    with pytest.raises(ProblemError) as refused:
        lines_of(b"/to,/body/wepon/model\r\na,b\r\n", CSV)
    assert [fault.fix for fault in refused.value.errors] == ["The nearest is /body/weapon/model."]


async def test_another_media_type_a_missing_key_or_a_missing_scope_is_refused(world: World) -> None:
    office, data = world.asker, ndjson(world.request())
    as_json = await office.post("/v1/batches", data)
    assert as_json.said == (415, "http.media_type")
    headers = {"Content_Type": NDJSON}
    assert (await office.post("/v1/batches", data, Idempotency_Key="", **headers)).said == (400, "idempotency.missing")
    assert (await office.post("/v1/batches", data, client="trace-read", **headers)).said == (403, "auth.scope")


async def test_the_client_submits_reads_replies_and_follows(world: World) -> None:
    async with client_of(world.asker) as ours, client_of(world.holder) as theirs:
        asked = await ours.submit(
            "testnet/holder", trace_request("CLIENT12"), handling=HANDLING, key="the client's own"
        )
        again = await ours.submit(
            "testnet/holder", trace_request("CLIENT12"), handling=HANDLING, key="the client's own"
        )
        assert again == asked
        async with asyncio.timeout(PATIENCE_S):
            async for event in theirs.follow():
                if (event.kind, event.thread) == ("received", asked.thread):
                    break
        leg = await theirs.thread(asked.thread)
        assert (leg.role, leg.messages[0].sender) == ("answerer", "testnet/asker")
        await theirs.reply(leg, "acknowledgements", ACKNOWLEDGEMENT, handling=HANDLING)
        with pytest.raises(ProblemError) as moved:
            await theirs.reply(leg, "acknowledgements", ACKNOWLEDGEMENT, handling=HANDLING)
        assert moved.value.code == "precondition.failed"
        assert [each.thread async for each in ours.threads(limit="1")].count(asked.thread) == 1
        assert (await ours.evidence(asked.thread))[:2] == b"PK"


async def test_the_client_says_when_nothing_answers_or_what_answers_is_no_node(world: World) -> None:
    agency = client_of(world.asker)
    agency.url = "http://127.0.0.1:9"
    async with agency:
        with pytest.raises(ProblemError) as nobody:
            await agency.get("/v1/peers")
    assert nobody.value.code == "store.busy"
