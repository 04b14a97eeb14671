"""The agency interface over HTTP: tokens, scopes, bodies, threads, the feed and the owner's view of the ledger."""

import asyncio
import re
from collections.abc import AsyncIterator
from datetime import timedelta
from hashlib import sha256

import aiohttp
import pytest
import pytest_asyncio

from adapters.postgres.embedded import EmbeddedServer
from adapters.postgres.threads import PostgresClients
from gateway.http.dialogue import _OPENED, _SAID
from gateway.runtime.settings import key_path
from keys.suite import Tw1Verifier
from keys.tokens import client_assertion
from protocols.directory import witness_keys
from protocols.ledger.checkpoint import verify_checkpoint
from protocols.ledger.merkle import leaf_hash
from protocols.ledger.tiles import parse_bundle
from protocols.problems import ProblemError
from tests.federation import ACKNOWLEDGEMENT, HANDLING, REFUSAL, RESPONSE, Federation, trace_request
from tests.http.office import ALL, Json, Office, World, office_of
from tests.http.wire import PATIENCE_S
from tests.protocols.bodies import VALID

pytestmark = pytest.mark.asyncio(loop_scope="module")

PARTS = {"persons": {"persons": [{"role": {"code": "POSSESSOR", "raw": ""}, "name": "Jane Canary"}]}}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def world(postgres: EmbeddedServer, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[World]:
    async with Federation(postgres, tmp_path_factory.mktemp("agency")) as fed:
        asker, holder = await fed.nodes("asker", "holder")
        async with (
            aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=PATIENCE_S)) as session,
            office_of(asker, session) as ours,
            office_of(holder, session) as theirs,
        ):
            yield World(ours, theirs)


# ---- tokens


async def test_a_client_gets_a_token_of_five_minutes_for_an_actor_it_speaks_for(world: World) -> None:
    reply = await world.asker.grant(world.asker.assertion("all", "B"))
    assert (reply.status, reply.json["token_type"], reply.json["expires_in"]) == (200, "Bearer", 300)
    assert reply.headers["Cache-Control"] == "no-store"


async def test_a_token_is_refused_to_whoever_cannot_prove_who_it_is(world: World) -> None:
    office = world.asker
    used = office.assertion("all", "A")
    assert (await office.grant(used)).status == 200
    await office.register("other", ("A",), ALL)
    key = key_path(office.node.folder, "other").read_bytes()
    now = office.node.fed.clock.now()
    faults = {
        "used before": used,
        "expired": office.assertion("all", "A", ago=timedelta(seconds=61)),
        "made for tomorrow": office.assertion("all", "A", ago=-timedelta(days=1)),
        "another audience": office.assertion("all", "A", aud="testnet/holder/v1/token"),
        "an actor that is not listed": office.assertion("all", "C"),
        "another client's key": client_assertion(key, "all", "A", office.node.settings.audience, now),
        "an unknown client": client_assertion(key, "nobody", "A", office.node.settings.audience, now),
        "no JWT": "x.y.z",
        "an access token": await office.token(),
    }
    said = {name: (await office.grant(assertion)).said for name, assertion in faults.items()}
    assert said == dict.fromkeys(faults, (401, "auth.invalid"))


@pytest.mark.parametrize(
    "form",
    [
        {"grant_type": "password"},
        {"client_assertion": ""},
        {"client_assertion_type": "urn:ietf:params:oauth:client-assertion-type:saml2-bearer"},
    ],
)
async def test_a_token_is_for_one_grant_of_one_kind_only(world: World, form: dict[str, str]) -> None:
    assert (await world.asker.grant(world.asker.assertion("all", "A"), **form)).said == (401, "auth.invalid")


async def test_a_revoked_client_gets_no_token(world: World) -> None:
    await world.asker.register("gone", ("A",), ALL)
    assert (await world.asker.grant(world.asker.assertion("gone", "A"))).status == 200
    await PostgresClients(world.asker.node.pool).revoke_client("gone", world.asker.node.fed.clock.now())
    assert (await world.asker.grant(world.asker.assertion("gone", "A"))).said == (401, "auth.invalid")


async def test_a_client_may_ask_for_less_than_it_has_and_never_for_more(world: World) -> None:
    office = world.asker
    narrow = (await office.grant(office.assertion("all", "A"), scope="trace:read")).json["access_token"]
    headers = {"Authorization": f"Bearer {narrow}"}
    assert (await office.call("GET", "/v1/traces", headers=headers)).status == 200
    assert (await office.call("POST", "/v1/traces", headers=headers)).said == (403, "auth.scope")
    more = await office.grant(office.assertion("trace-read", "A"), scope="trace:read trace:write")
    assert more.said == (403, "auth.scope")


ROUTES = {
    ("POST", "/v1/traces"): "trace:write",
    **{("POST", f"/v1/traces/{{id}}/{name}"): "trace:write" for name, *_ in _SAID},
    **{("POST", f"/v1/{name}"): "trace:write" for name, *_ in _OPENED},
    ("GET", "/v1/traces"): "trace:read",
    ("GET", "/v1/traces/{id}"): "trace:read",
    ("POST", "/v1/traces/{id}/erasures"): "content:erase",
    ("GET", "/v1/traces/{id}/entries"): "trace:read",
    ("GET", "/v1/traces/{id}/chain"): "trace:read",
    ("GET", "/v1/reports/{year}"): "trace:read",
    ("GET", "/v1/recovery-reports/{id}/request"): "trace:read",
    ("GET", "/v1/traces/{id}/evidence"): "evidence:read",
    ("POST", "/v1/attachments"): "trace:write",
    ("GET", "/v1/traces/{id}/messages/{message}/attachments/{attachment}"): "parts:read",
    ("GET", "/v1/events"): "trace:read",
    ("GET", "/v1/reviews"): "trace:read",
    ("GET", "/v1/approvals"): "approval:rule",
    ("POST", "/v1/trace-checks"): "trace:read",
    ("POST", "/v1/firearms/identify"): "trace:read",
    ("POST", "/v1/registry/imports"): "trace:write",
    ("POST", "/v1/registry/imports/{batch}/withdrawal"): "trace:write",
    ("POST", "/v1/registry/searches"): "trace:write",
    ("POST", "/v1/registry/confirmations"): "trace:write",
    ("GET", "/v1/registry/totals"): "trace:read",
    ("GET", "/v1/marking-notices"): "trace:read",
    ("GET", "/v1/diversion-patterns"): "trace:read",
    ("POST", "/v1/approvals/{approval}"): "approval:rule",
    ("GET", "/v1/peers"): "trace:read",
    ("POST", "/v1/peers/{network}/{member}/probes"): "trace:read",
    ("POST", "/v1/batches"): "trace:write",
    ("GET", "/v1/ledger/{log}/checkpoint"): "ledger:read",
    ("GET", "/v1/ledger/{log}/checkpoint.witnessed"): "ledger:read",
    ("GET", "/v1/ledger/{log}/tile/0/000.p/1"): "ledger:read",
    ("GET", "/v1/ledger/{log}/tile/entries/000.p/1"): "ledger:read",
}


AUDITED = {("GET", path) for path in ("/v1/traces", "/v1/traces/{id}", "/v1/traces/{id}/entries", "/v1/peers")}
PUBLIC = {
    ("POST", "/v1/token"),
    *(("GET", path) for path in ("/", "/v1", "/v1/openapi.json", "/problems", "/problems/{code}", "/style.css")),
}


async def test_every_route_but_those_of_the_public_needs_a_token_with_its_own_scope(world: World) -> None:
    office = world.asker
    served = {
        (route.method, route.resource.canonical.replace("{thread}", "{id}"))
        for route in office.node.parts.listeners["agency"].router.routes()
        if route.resource is not None
    }
    known = {(m, "/v1/ledger/{log}/tile/{tile}" if "/tile/" in p else p) for m, p in ROUTES}
    console = {(method, path) for method, path in served if path.startswith("/audit")}  # by session: test_console.py
    assert served - known - console == PUBLIC
    for (method, pattern), scope in ROUTES.items():
        path = pattern.format(
            id="01900000-0000-7000-8000-000000000000",
            approval="0",
            message="0",
            attachment="0",
            batch="0",
            log="0" * 64,
            network="testnet",
            member="holder",
            year="2026",
        )
        assert (await office.call(method, path)).said == (401, "auth.missing"), path
        for bad in ("Bearer nonsense", "Bearer a.b.c"):
            assert (await office.call(method, path, headers={"Authorization": bad})).said == (401, "auth.invalid")
        for other in ALL:
            given = {"Authorization": f"Bearer {await office.token(other.replace(':', '-'))}"}
            reply = await office.call(method, path, headers=given)
            fits = other == scope or (other == "audit:read" and (method, pattern) in AUDITED)
            assert (reply.status == 403) == (not fits), (path, other)


async def test_z07_tokens_of_another_node_or_time_are_refused(world: World) -> None:
    theirs = {"Authorization": f"Bearer {await world.holder.token()}"}
    assert (await world.asker.call("GET", "/v1/traces", headers=theirs)).said == (401, "auth.invalid")
    token = {"Authorization": f"Bearer {await world.asker.token('all', 'B')}"}
    assert (await world.asker.call("GET", "/v1/traces", headers=token)).status == 200
    world.asker.node.fed.clock.ahead += timedelta(seconds=301)
    assert (await world.asker.call("GET", "/v1/traces", headers=token)).said == (401, "auth.invalid")
    world.asker.tokens.clear()
    world.holder.tokens.clear()


# ---- submitting


async def test_a_request_is_accepted_under_a_new_thread(world: World) -> None:
    reply = await world.asker.post("/v1/traces", world.request())
    assert reply.status == 202
    assert reply.headers["Location"] == f"/v1/traces/{reply.json['thread']}"
    assert reply.json.keys() == {"id", "thread", "type", "state"}


async def test_a_search_that_is_fishing_needs_a_second_person(world: World) -> None:
    office = world.asker
    await office.register("second", ("C",), ("approval:rule",))
    office.tokens["second", "A"] = await office.token("second", "C")
    weapon = {"serial": "AB1", "make": {"code": "GLOCK", "raw": "Glock"}}
    body = {"weapon": weapon, "purpose": "TRACING", "reference": "case 1"}
    said = {"to": world.holder.node.name, "body": body, "handling": HANDLING}
    key = "a weak search"
    refused = await office.post("/v1/registry-searches", said, Idempotency_Key=key)
    assert refused.said == (403, "approval.needed")
    [waiting] = (await office.get("/v1/approvals", client="second")).json["approvals"]
    assert waiting["id"] in refused.json["errors"][0]["fix"]
    assert (waiting["client"], waiting["actor"], waiting["about"]["body"]) == ("all", "A", body)
    path = f"/v1/approvals/{waiting['id']}"
    assert (await office.post(path, {"ruling": "APPROVED"})).said == (403, "approval.self")
    assert (await office.post(path, {"ruling": "APPROVED"}, client="second")).json["ruling"] == "APPROVED"
    assert (await office.get("/v1/approvals", client="second")).json == {"approvals": []}
    assert (await office.post("/v1/registry-searches", said, Idempotency_Key=key)).status == 202
    unknown = await office.post(
        "/v1/approvals/019aab2f-3c7b-7d10-8f6a-2b1c3d4e5f60", {"ruling": "REFUSED"}, client="second"
    )
    assert unknown.said == (404, "approval.not_found")


async def test_records_are_imported_searched_and_withdrawn_over_http(world: World) -> None:
    office = world.asker
    data = b"record_ref,status,event_date,retention_until,serial,make\nr1,STOLEN,2024,2040-01-01,HTTP1234,Glock\nr2,LOST,,,,\n"
    done = await office.post("/v1/registry/imports", data, Content_Type="text/csv")
    assert (done.status, done.json["stored"], done.json["refused"]) == (200, 1, 1)
    search = {"weapon": {"serial": "^HTTP1234$"}, "purpose": "TRACING", "reference": "case 1"}
    hits = (await office.post("/v1/registry/searches", search)).json["hits"]
    assert [(hit["record_ref"], hit["basis"]) for hit in hits] == [("r1", "EXACT")]
    named = {"owner": office.node.name, "record_ref": "r1"}
    assert (await office.post("/v1/registry/confirmations", named)).said == (403, "approval.needed")
    assert (await office.get("/v1/registry/totals")).json["by_status"] == {"STOLEN": 1}
    path = f"/v1/registry/imports/{done.json['import']}/withdrawal"
    assert (await office.post(path, {})).json == {"withdrawn": 1}
    assert (await office.post("/v1/registry/imports", b"\xff\xfe", Content_Type="text/csv")).said == (
        422,
        "registry.csv",
    )


async def test_a_marking_notice_stands_in_its_newest_version_on_both_sides(world: World) -> None:
    notice = VALID["marking.notice"]

    async def tell(version: int) -> None:
        said = {"to": world.holder.node.name, "body": notice | {"version": version}, "handling": HANDLING}
        sent = (await world.asker.post("/v1/marking-notices", said)).json
        await world.asker.node.becomes(sent, "delivered")

    for version in (3, 1):  # an older one may come late
        await tell(version)
    for office in (world.asker, world.holder):
        [standing] = (await office.get("/v1/marking-notices")).json["notices"]
        assert (standing["from"], standing["notice"]["version"]) == (world.asker.node.name, 3)
        looked = (await office.node.entries())[-1]
        assert (looked.kind, looked.code) == ("opened", "notice/TRACING"), "that somebody read it is an entry"


async def test_a_request_is_tried_without_being_sent(world: World) -> None:
    before = await world.asker.node.count("entry")
    tried = (await world.asker.post("/v1/trace-checks", world.request())).json
    assert (tried["faults"], tried["likely"]) == ([], "AUTOMATIC")
    faulty = (await world.asker.post("/v1/trace-checks", {"body": {"weapon": {}}})).json
    assert faulty["advice"].startswith("Correct /body/")
    assert await world.asker.node.count("entry") == before


async def test_the_same_request_under_the_same_key_is_accepted_once(world: World) -> None:
    body, key = world.request("ONCE1234"), "once and only once"
    first, again = [await world.asker.post("/v1/traces", body, Idempotency_Key=key) for _ in range(2)]
    assert first.body == again.body
    other = await world.asker.post("/v1/traces", world.request("OTHER123"), Idempotency_Key=key)
    assert other.said == (409, "idempotency.reused")
    assert (await world.asker.post("/v1/traces", body, client="trace-write", Idempotency_Key=key)).body != first.body


@pytest.mark.parametrize("key", ["", "seven77", "x" * 129, "späte Schlüssel"])
async def test_a_post_needs_an_idempotency_key(world: World, key: str) -> None:
    reply = await world.asker.post("/v1/traces", world.request(), Idempotency_Key=key)
    assert reply.said == (400, "idempotency.missing")


BODIES: dict[str, tuple[Json, list[str]]] = {
    "no recipient": ({"to": None}, ["/to"]),
    "a recipient that is no text": ({"to": 7}, ["/to"]),
    "a body that is no object": ({"body": []}, ["/body"]),
    "parts that are no object": ({"parts": []}, ["/parts"]),
    "a part that is no object": ({"parts": {"persons": 1}}, ["/parts/persons"]),
    "a part with an unknown member": (
        {"parts": {"persons": {"persons": [], "odd_one": 1}}},
        ["/parts/persons/persons", "/parts/persons/odd_one"],
    ),
    "an unknown member": ({"odd_member": 1}, ["/odd_member"]),
    "a value in the place of a name": ({"CANARY77": 1}, [""]),
    "Z01 a sender of its own": ({"from": "testnet/holder"}, ["/from"]),
    "an unknown member of the body": ({"body": trace_request(odd_member=1)}, ["/body/odd_member"]),
    "a priority of no code": ({"body": trace_request(priority="CANARY")}, ["/body/priority"]),
    "a referral without its thread": ({"referral": "019aab2f-3c7b-7d10-8f6a-2b1c3d4e5f60"}, ["/referral"]),
    "a request to itself": ({"to": "testnet/asker"}, ["/to"]),
    "a day that is none": ({"due": "tomorrow"}, ["/due"]),
    "a time that is a number": ({"expires": 7}, ["/expires"]),
}


@pytest.mark.parametrize("name", BODIES)
async def test_a_wrong_body_is_refused_with_pointers_and_without_its_values(world: World, name: str) -> None:
    change, pointers = BODIES[name]
    body = {key: value for key, value in (world.request() | change).items() if value is not None}
    reply = await world.asker.post("/v1/traces", body)
    assert reply.said == (422, "schema.invalid")
    assert [fault["pointer"] for fault in reply.json["errors"]] == pointers
    assert b"CANARY" not in reply.body.upper()


@pytest.mark.parametrize(
    ("data", "status", "code"),
    [
        (b"", 400, "json.invalid"),
        (b"[]", 400, "json.invalid"),
        (b'{"to": 1, "to": 2}', 400, "json.duplicate"),
        (b'{"to": NaN}', 400, "json.number"),
        (b'{"to": "\xff"}', 400, "json.encoding"),
        (b'{"to": 1.5}', 400, "json.number"),
        (b"[" * 100_000, 400, "json.depth"),
        (b" " * (512 * 1024 + 1), 413, "http.too_large"),
    ],
)
async def test_bytes_that_are_no_strict_json_are_refused(world: World, data: bytes, status: int, code: str) -> None:
    assert (await world.asker.post("/v1/traces", data)).said == (status, code)


async def test_members_that_are_unknown_or_may_not_are_refused(world: World) -> None:
    unknown = await world.asker.post("/v1/traces", world.request() | {"to": "testnet/nobody"})
    assert unknown.said == (422, "member.unknown")


# ---- reading


async def test_threads_are_listed_newest_first_by_pages_and_by_state(world: World) -> None:
    asked = [(await world.asker.post("/v1/traces", world.request(f"LIST{n}"))).json["thread"] for n in range(5)]
    found: list[str] = []
    after: Json = {}
    while len(found) < 5:
        page = (await world.asker.get("/v1/traces", limit="2", **after)).json
        found += [each["thread"] for each in page["traces"]]
        after = {"after": page["next"]}
    assert found[:5] == asked[::-1]
    assert len(set(found)) == len(found)
    states = {each["state"] for each in (await world.asker.get("/v1/traces")).json["traces"]}
    for state in states:
        traces = (await world.asker.get("/v1/traces", state=state)).json["traces"]
        assert {each["state"] for each in traces} == {state}
    assert (await world.asker.get("/v1/traces", state="FAILED")).json == {"traces": []}


@pytest.mark.parametrize(
    "params",
    [
        {"limit": "0"}, {"limit": "201"}, {"limit": "-1"}, {"limit": "x"}, {"limit": "9" * 5000}, {"after": "x"},
        {"after": "1-7"}, {"after": "9" * 17 + "-01900000-0000-7000-8000-000000000000"},
        {"after": "-1-01900000-0000-7000-8000-000000000000"}, {"unknown": "1"}, {"state": ""},
        {"state": "a\0b"}, {"state": "answered"},
    ],
)  # fmt: skip
async def test_a_query_that_means_nothing_is_refused(world: World, params: dict[str, str]) -> None:
    assert (await world.asker.get("/v1/traces", **params)).said == (400, "http.query")


@pytest.mark.parametrize("after", ["x", "-1", "9" * 18, "1.0", ""])
async def test_the_feed_is_asked_after_a_number(world: World, after: str) -> None:
    assert (await world.asker.get("/v1/events", after=after)).said == (400, "http.query")


async def test_a_thread_shows_its_messages_and_its_version_as_etag(world: World) -> None:
    asked = await world.arrived("SHOW1234")
    reply = await world.holder.get(f"/v1/traces/{asked['thread']}")
    tag = reply.headers["ETag"]
    assert re.fullmatch(f'"{reply.json["version"]}-[A-Za-z0-9_-]{{11}}"', tag)
    again = await world.holder.get(f"/v1/traces/{asked['thread']}", headers={"If-None-Match": tag})
    assert (again.status, again.headers["ETag"]) == (304, tag)
    await world.holder.get("/v1/events", after=str(await _last(world.holder)))  # hands it over, which makes no version
    assert (await world.holder.get(f"/v1/traces/{asked['thread']}", headers={"If-None-Match": tag})).status == 200
    (message,) = reply.json["messages"]
    assert (message["id"], message["from"], message["to"]) == (asked["id"], "testnet/asker", "testnet/holder")
    assert message["body"] == trace_request("SHOW1234")
    assert message["ledger"]["origin"] == world.holder.node.origin


@pytest.mark.parametrize(
    "thread", ["x", "00000000-0000-0000-0000-000000000000", "01900000-0000-7000-8000-000000000000"]
)
async def test_a_thread_that_is_not_there_is_not_found(world: World, thread: str) -> None:
    assert (await world.asker.get(f"/v1/traces/{thread}")).said == (404, "thread.not_found")
    answer = await world.asker.post(f"/v1/traces/{thread}/answers", {"body": {}, "handling": {}}, If_Match='"1"')
    assert answer.said == (404, "thread.not_found")


async def test_restricted_parts_are_shown_only_with_parts_read(world: World) -> None:
    asked = await world.arrived("PART1234", parts=PARTS)
    path = f"/v1/traces/{asked['thread']}"
    assert (await world.holder.get(path)).json["messages"][0]["parts"] == PARTS
    narrow = await world.holder.get(path, client="trace-read")
    assert narrow.json["messages"][0]["parts"] == ["persons"]
    assert b"Canary" not in narrow.body


# ---- answering


async def test_a_request_is_acknowledged_and_answered_under_the_version_that_was_read(world: World) -> None:
    asked = await world.arrived("ANSW1234")
    path = f"/v1/traces/{asked['thread']}"
    tag = (await world.holder.get(path)).headers["ETag"]
    said = {"body": ACKNOWLEDGEMENT, "handling": HANDLING}
    assert (await world.holder.post(f"{path}/acknowledgements", said)).said == (428, "precondition.required")
    for bad in ("*", '"x"', '"' + "9" * 5000 + '"'):
        assert (await world.holder.post(f"{path}/acknowledgements", said, If_Match=bad)).status in (412, 428), bad
    assert (await world.holder.post(f"{path}/acknowledgements", said, If_Match='"99999999999999999999"')).status in (
        412,
        428,
    )
    acknowledged = await world.holder.post(f"{path}/acknowledgements", said, If_Match=tag)
    assert acknowledged.status == 202
    answer = {"body": RESPONSE, "handling": HANDLING}
    assert (await world.holder.post(f"{path}/answers", answer, If_Match=tag)).said == (412, "precondition.failed")
    newer = (await world.holder.get(path)).headers["ETag"]
    assert newer != tag
    assert (await world.holder.post(f"{path}/answers", answer, If_Match=newer)).status == 202
    await world.asker.node.leg_becomes(asked, "ANSWERED")
    again = (await world.holder.get(path)).headers["ETag"]
    refusal = await world.holder.post(f"{path}/refusals", {"body": REFUSAL, "handling": HANDLING}, If_Match=again)
    assert refusal.said[0] == 409


async def test_who_asked_does_not_answer(world: World) -> None:
    asked = await world.arrived("SELF1234")
    path = f"/v1/traces/{asked['thread']}"
    tag = (await world.asker.get(path)).headers["ETag"]
    reply = await world.asker.post(f"{path}/answers", {"body": RESPONSE, "handling": HANDLING}, If_Match=tag)
    assert reply.said == (409, "thread.state")


async def test_a_refusal_needs_a_ground(world: World) -> None:
    asked = await world.arrived("GRND1234")
    path = f"/v1/traces/{asked['thread']}"
    tag = (await world.holder.get(path)).headers["ETag"]
    reply = await world.holder.post(
        f"{path}/refusals", {"body": {"kind": "REFUSAL"}, "handling": HANDLING}, If_Match=tag
    )
    assert reply.said == (422, "schema.invalid")
    assert reply.json["errors"]
    assert (
        await world.holder.post(f"{path}/refusals", {"body": REFUSAL, "handling": HANDLING}, If_Match=tag)
    ).status == 202
    await world.asker.node.leg_becomes(asked, "REFUSED")


# ---- the feed


async def _last(office: Office) -> int:
    """The newest line of the feed; nothing is asked after it."""
    found, page = 0, [0]
    while page:
        page = [each["seq"] for each in (await office.get("/v1/events", after=str(found), limit="200")).json["events"]]
        found = page[-1] if page else found
    return found


async def _received(office: Office, after: int, wait: str) -> Json:
    """The next `received` line of the feed; deliveries of earlier tests may stand before it."""
    while True:
        events = (await office.get("/v1/events", after=str(after), headers={"Prefer": wait})).json["events"]
        assert events, "the feed said nothing in time"
        for event in events:
            if event["kind"] == "received":
                return dict(event)
        after = events[-1]["seq"]


async def test_a_reader_that_waits_is_woken_by_the_next_event(world: World) -> None:
    last = await _last(world.holder)
    waiting = asyncio.ensure_future(_received(world.holder, last, "wait=7"))
    asked = await world.arrived("WAKE1234")
    event = await waiting
    assert (event["thread"], event["message"], event["counterpart"]) == (asked["thread"], asked["id"], "testnet/asker")


async def test_the_feed_waits_no_longer_than_it_is_asked_to(world: World) -> None:
    last, nothing = str(await _last(world.holder)), {"events": []}
    assert (await world.holder.get("/v1/events", after=last)).json == nothing
    assert (await world.holder.get("/v1/events", after=last, headers={"Prefer": "wait=1"})).json == nothing
    assert (await world.holder.get("/v1/events", headers={"Prefer": "wait=" + "9" * 5000})).status == 200


async def test_asking_after_a_line_says_that_what_arrived_was_handled(world: World) -> None:
    last = await _last(world.holder)
    asked = await world.arrived("DISP1234")

    async def dispatched() -> int:
        return sum(
            str(each.id) == asked["id"] for each in await world.holder.node.entries() if each.kind == "dispatched"
        )

    event = await _received(world.holder, last, "wait=0")
    assert await dispatched() == 0
    for _ in range(2):
        await world.holder.get("/v1/events", after=str(event["seq"]))
        assert await dispatched() == 1
    state = (await world.holder.get(f"/v1/traces/{asked['thread']}")).json["messages"][0]["state"]
    assert state == "dispatched"


async def test_a_line_that_nobody_was_shown_was_handled_by_nobody(world: World) -> None:
    asked = await world.arrived("FEED1234")
    beyond = await world.holder.get("/v1/events", after="9" * 17)
    assert beyond.said == (409, "feed.beyond")
    state = (await world.holder.get(f"/v1/traces/{asked['thread']}")).json["messages"][0]["state"]
    assert state == "received"


# ---- around


async def test_peers_are_the_members_of_the_directory_in_force(world: World) -> None:
    found = (await world.asker.get("/v1/peers")).json
    assert [each["member"] for each in found["peers"]] == ["testnet/asker", "testnet/holder"]
    assert {each["status"] for each in found["peers"]} == {"active"}
    assert found["directory"] == world.asker.node.fed.directory.ref.version


async def test_nothing_waits_for_a_person_where_no_register_answers(world: World) -> None:
    assert (await world.asker.get("/v1/reviews")).json == {"reviews": []}


async def test_the_owner_reads_checkpoint_tiles_and_entries_of_its_ledger(world: World) -> None:
    office = world.asker
    await world.arrived("LEDG1234")
    log = sha256(office.node.origin.encode()).hexdigest()
    note = await office.get(f"/v1/ledger/{log}/checkpoint")
    checkpoint = verify_checkpoint(note.body, office.node.ledger_keys, Tw1Verifier())
    assert checkpoint.size >= 2
    bundle = await office.get(f"/v1/ledger/{log}/tile/entries/000.p/2")
    tile = await office.get(f"/v1/ledger/{log}/tile/0/000.p/2")
    assert b"".join(leaf_hash(entry) for entry in parse_bundle(bundle.body)) == tile.body
    reads = [entry.code for entry in await office.node.entries() if entry.kind == "admin"]
    await office.get(f"/v1/ledger/{log}/tile/entries/000.p/2")
    assert [entry.code for entry in await office.node.entries() if entry.kind == "admin"] == reads, "once an hour"
    assert reads.count("ledger.read") == 1
    for path in ("tile/0/000.p/255", "tile/0/001", "tile/entries/000.p/255"):
        assert (await office.get(f"/v1/ledger/{log}/{path}")).said == (404, "tile.missing"), path
    for path in ("tile/x", "tile/0/000.p/0", "tile/0/000.p/256", "tile/0/0", "tile/64/000"):
        assert (await office.get(f"/v1/ledger/{log}/{path}")).status == 404, path
    assert (await office.get(f"/v1/ledger/{'0' * 64}/checkpoint")).said == (404, "http.not_found")
    assert (await office.get(f"/v1/ledger/{log}/checkpoint.witnessed")).said == (404, "http.not_found")
    assert await office.node.parts.witness.collect() > 0
    newest = await office.get(f"/v1/ledger/{log}/checkpoint.witnessed")
    keys = witness_keys(office.node.fed.directory.records[world.holder.node.name])
    assert keys is not None
    assert keys.cosignature(newest.body, Tw1Verifier()) is not None


async def test_a_node_whose_ledger_is_halted_answers_clients_with_the_reason(world: World) -> None:
    committer = world.asker.node.parts.committer
    try:
        committer.halted = ProblemError("ledger.rollback", "the database went back")
        reply = await world.asker.call("GET", "/v1/traces")
        assert reply.said == (503, "ledger.rollback")
        assert reply.headers["Retry-After"]
    finally:
        committer.halted = None
