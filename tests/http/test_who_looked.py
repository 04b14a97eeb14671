"""Who read what, and what for: every reading of content is an entry; auditors see it once two people say so."""

from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from hashlib import sha256

import aiohttp
import pytest
import pytest_asyncio

from adapters.postgres.embedded import EmbeddedServer
from protocols.ledger.entry import Entry
from protocols.ledger.merkle import leaf_hash
from tests.federation import HANDLING, Federation
from tests.http.office import Json, Office, World, office_of
from tests.http.wire import PATIENCE_S
from tests.protocols.bodies import VALID

pytestmark = pytest.mark.asyncio(loop_scope="module")

PARTS = {"persons": {"persons": [{"role": {"code": "POSSESSOR", "raw": ""}, "name": "Jane Canary"}]}}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def world(postgres: EmbeddedServer, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[World]:
    async with Federation(postgres, tmp_path_factory.mktemp("looks")) as fed:
        asker, holder = await fed.nodes("asker", "holder")
        async with (
            aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=PATIENCE_S)) as session,
            office_of(asker, session) as ours,
            office_of(holder, session) as theirs,
        ):
            for name, actor, scopes in (
                ("auditor", "AUD", ("audit:read", "ledger:read")),
                ("chief", "C", ("approval:rule",)),
            ):
                await theirs.register(name, (actor,), scopes)
                await speak(theirs, name, actor)
            yield World(ours, theirs)


async def speak(office: Office, client: str, actor: str, purpose: str = "TRACING") -> None:
    """From here on this client's token is of this actor and purpose."""
    said = (await office.grant(office.assertion(client, actor, purpose=purpose))).json
    office.tokens[client, "A"] = said["access_token"]


async def looks(office: Office, thread: str) -> list[tuple[str, str]]:
    """(what/PURPOSE, actor) of each reading, as the interface shows it."""
    entries = (await office.get(f"/v1/traces/{thread}/entries", client="auditor")).json["entries"]
    return [(each["code"], each["actor"]) for each in entries if each["kind"] == "opened"]


async def test_every_reading_is_an_entry_with_who_and_what_for(world: World) -> None:
    office, thread = world.holder, (await world.arrived(parts=PARTS))["thread"]
    assert await looks(office, thread) == []
    whole = await office.get(f"/v1/traces/{thread}")
    assert whole.json["messages"][0]["parts"] == PARTS
    seen = [("body/TRACING", "A"), ("persons/TRACING", "A")]
    assert await looks(office, thread) == seen
    again = await office.get(f"/v1/traces/{thread}", headers={"If-None-Match": whole.headers["ETag"]})
    assert (again.status, await looks(office, thread)) == (304, seen), "nothing was shown"
    await office.get(f"/v1/traces/{thread}", client="trace-read")
    await office.get(f"/v1/traces/{thread}/chain")
    assert (await looks(office, thread))[2:] == [("body/TRACING", "A"), ("chain/TRACING", "A")]
    shown = (await office.get(f"/v1/traces/{thread}/entries")).json["entries"]
    assert (shown[0]["kind"], {each["grade"] for each in shown}) == ("received", {"signed"})
    covered = await office.node.parts.witness.collect()
    await office.get(f"/v1/traces/{thread}")
    grades = [each["grade"] for each in (await office.get(f"/v1/traces/{thread}/entries")).json["entries"]]
    assert (covered, grades[: len(shown)], grades[-1]) == (1, ["witnessed"] * len(shown), "signed")
    assert (await office.get("/v1/traces/01900000-0000-7000-8000-000000000000/entries")).said[1] == "thread.not_found"


async def test_whoever_says_no_purpose_sees_which_messages_there_are_and_no_more(world: World) -> None:
    office, thread = world.holder, (await world.arrived())["thread"]
    await speak(office, "trace-read", "A", purpose="")
    [message] = (await office.get(f"/v1/traces/{thread}", client="trace-read")).json["messages"]
    assert "purpose" in message["withheld"]
    assert not message.keys() & {"body", "parts", "attachments"}
    assert (await office.get(f"/v1/traces/{thread}/chain", client="trace-read")).said == (403, "auth.purpose")
    report = {"to": office.node.name, "body": VALID["recovery.report"], "handling": HANDLING}
    told = (await world.asker.post("/v1/recovery-reports", report)).json
    await world.asker.node.becomes(told, "delivered")
    drafted = f"/v1/recovery-reports/{told['thread']}/request"
    for path in (drafted, "/v1/reviews"):
        assert (await office.get(path, client="trace-read")).said == (403, "auth.purpose")
    assert (await office.get(drafted)).status == 200
    assert await looks(office, told["thread"]) == [("draft/TRACING", "A")]
    refused = await office.grant(office.assertion("trace-read", "A", purpose="CURIOSITY"))
    assert refused.said == (401, "auth.invalid")
    assert await looks(office, thread) == []


async def test_what_is_for_tracing_alone_is_read_for_nothing_else_unless_its_sender_consents(world: World) -> None:
    office, asked = world.holder, await world.arrived()
    thread = asked["thread"]
    await speak(office, "trace-read", "A", purpose="STATISTICS")

    async def shown() -> Json:
        found: Json = (await office.get(f"/v1/traces/{thread}", client="trace-read")).json["messages"][0]
        return found

    assert (await shown())["withheld"] == "its originator allows it for TRACING alone"
    await speak(office, "evidence-read", "A", purpose="STATISTICS")
    evidence = (await office.get(f"/v1/traces/{thread}/evidence", client="evidence-read")).body
    assert b"messages/0001.jws" not in evidence, "nor by another way"
    asks = {"target": asked["id"], "to": "OTHER_PURPOSE", "purpose": "STATISTICS", "why": "A yearly count."}
    version = (await office.get(f"/v1/traces/{thread}")).json["version"]
    body = {"body": asks, "handling": HANDLING}
    sent = (await office.post(f"/v1/traces/{thread}/consent-requests", body, If_Match=f'"{version}"')).json
    await office.node.becomes(sent, "delivered")
    version = (await world.asker.get(f"/v1/traces/{thread}")).json["version"]
    body = {"body": {"decision": "GRANTED"}, "handling": HANDLING, "in_reply_to": sent["id"]}
    told = (await world.asker.post(f"/v1/traces/{thread}/consent-answers", body, If_Match=f'"{version}"')).json
    await world.asker.node.becomes(told, "delivered")
    assert "body" in await shown()
    await speak(office, "trace-read", "A", purpose="EMBARGO_MONITORING")
    assert "withheld" in await shown(), "consent is for the purpose that was named"


async def test_z04_z12_an_auditor_sees_what_another_person_has_granted_once(world: World) -> None:
    office, thread = world.holder, (await world.arrived(parts=PARTS))["thread"]
    path = f"/v1/traces/{thread}"
    assert thread in [each["thread"] for each in (await office.get("/v1/traces", client="auditor")).json["traces"]]
    [message] = (await office.get(path, client="auditor")).json["messages"]
    assert ("grant=yes" in message["withheld"], "body" in message) == (True, False)
    assert (await office.get(f"{path}/chain", client="auditor")).said == (403, "auth.scope")
    assert (await office.get(path, client="auditor", grant="yes")).said == (403, "approval.needed")
    assert (await office.node.entries())[-1].code == "approval.asked", "the attempt stands in the ledger"
    await office.register("his other client", ("AUD",), ("approval:rule",))
    await speak(office, "his other client", "AUD")
    [asked] = (await office.get("/v1/approvals", client="chief")).json["approvals"]
    looked = (await office.node.entries())[-1]
    assert (looked.kind, str(looked.id), looked.code) == ("opened", asked["id"], "approval/TRACING")
    assert looked.actor_c, "who is asked to approve reads what it is about"
    await speak(office, "his other client", "AUD", purpose="")
    assert (await office.get("/v1/approvals", client="his other client")).said == (403, "auth.purpose")
    alone = await office.post(f"/v1/approvals/{asked['id']}", {"ruling": "APPROVED"}, client="his other client")
    assert alone.said == (403, "approval.self"), "nobody breaks the glass alone"
    assert (asked["act"], asked["about"]) == ("thread.read", {"thread": thread, "purpose": "TRACING"})
    assert (await office.post(f"/v1/approvals/{asked['id']}", {"ruling": "APPROVED"}, client="chief")).status == 200
    granted = (await office.get(path, client="auditor", grant="yes")).json["messages"][0]
    assert ("body" in granted, granted["parts"]) == (True, ["persons"]), "a grant gives no scope"
    assert await looks(office, thread) == [("body/TRACING", "AUD")]
    assert (await office.get(path, client="auditor", grant="yes")).said == (403, "approval.needed"), "it was used"
    await speak(office, "auditor", "AUD", purpose="")
    assert (await office.get(path, client="auditor", grant="yes")).said == (403, "auth.purpose")


async def test_an_opened_entry_cannot_be_guessed_from_the_hash_beside_it(world: World) -> None:
    office, thread = world.holder, (await world.arrived())["thread"]
    await office.get(f"/v1/traces/{thread}")
    entry = next(each for each in reversed(await office.node.entries()) if each.kind == "opened")
    assert len(entry.n) == 16
    others = [each for each in await office.node.entries() if each != entry]
    hidden = leaf_hash(entry.encode())
    assert guessed(hidden, replace(entry, n=bytes(16)), others) is None
    counted = replace(entry, n=(4_321).to_bytes(16, "big"))
    assert guessed(leaf_hash(counted.encode()), entry, others) == counted, "it finds what can be found"
    derived = replace(entry, n=sha256(others[3].n).digest()[:16])
    assert guessed(leaf_hash(derived.encode()), entry, others) == derived
    assert len({each.n for each in (*others, entry)}) == len(others) + 1


def guessed(hidden: bytes, known: Entry, others: Sequence[Entry]) -> Entry | None:
    """The entry behind a leaf hash, all of it but its nonce known: that is tried as a number, and as whatever can be derived from the ledger."""
    stuff = [each.n for each in others] + [leaf_hash(each.encode()) for each in others]
    stuff += [
        value
        for each in others
        for value in (each.content_c, each.actor_c, each.envelope, each.id and each.id.bytes)
        if value
    ]
    stuff += [
        value
        for value in (known.content_c, known.actor_c, known.id and known.id.bytes, str(known.at).encode())
        if value
    ]
    nonces = {n.to_bytes(16, order) for n in range(10_000) for order in ("big", "little")}  # type: ignore[arg-type]
    nonces |= (
        {each[:16] for each in stuff} | {each[-16:] for each in stuff} | {sha256(each).digest()[:16] for each in stuff}
    )
    nonces |= {((int.from_bytes(each[:16]) + step) % (1 << 128)).to_bytes(16) for each in stuff for step in (-1, 1)}
    tries = (replace(known, n=nonce) for nonce in nonces if len(nonce) == 16)
    return next((each for each in tries if leaf_hash(each.encode()) == hidden), None)
