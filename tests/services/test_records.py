"""Records that members share: imported with a result a line, searched, confirmed by two, withdrawn, and the same on both sides."""

import asyncio
import json
from dataclasses import replace
from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest

from gateway.services.records import CSV, NDJSON, Records
from protocols.messages import validate_body, validate_model
from protocols.messages.registry import RegistryRecord, RegistrySearch
from protocols.ports.access import Caller
from protocols.problems import ProblemError
from tests.federation import Federation, Json, Node, refused, wait_until
from tests.protocols.bodies import VALID

HEADER = "record_ref,status,event_date,retention_until,serial,make,model,calibre,type\n"
ANNA = Caller(client="desk", actor="anna", scopes=frozenset(), purpose="TRACING")
BELA = Caller(client="other desk", actor="bela", scopes=frozenset(), purpose="TRACING")


def row(ref: str, serial: str, *, make: str = "Glock", until: str = "2040-01-01", status: str = "STOLEN") -> str:
    return f'{ref},{status},2024-05-01,{until},"{serial}",{make},17,9mm,pistol\n'


def records(node: Node) -> Records:
    return node.parts.records


async def take(node: Node, *rows: str) -> Json:
    return await records(node).take((HEADER + "".join(rows)).encode(), CSV)


def looked(serial: str, **more: Any) -> RegistrySearch:
    body = {"weapon": {"serial": serial} | more, "purpose": "TRACING", "reference": "case 1"}
    return validate_model(RegistrySearch, body, "search")


async def refs(node: Node, serial: str, **more: Any) -> list[tuple[str, str]]:
    return [(hit["record_ref"], hit["basis"]) for hit in await records(node).hits(looked(serial, **more))]


async def test_each_line_has_its_result_and_the_same_file_again_changes_nothing(fed: Federation) -> None:
    (a,) = await fed.nodes("a")
    rows = (
        row("r1", "ABC1234"),
        row("r2", "3.3E+54"),
        row("r3", "XYZ98765", status="LOSTT"),
        row("r1", "ABC1234"),
        "r5,STOLEN\n",
    )
    found = await take(a, *rows)
    assert (found["stored"], found["unchanged"], found["refused"]) == (1, 0, 4)
    assert [line.get("state") for line in found["lines"]] == ["stored", None, None, None, None]
    faults = {line["line"]: line["problem"]["errors"][0] for line in found["lines"] if "problem" in line}
    assert {line: fault["pointer"] for line, fault in faults.items()} == {
        3: "/3/serial", 4: "/4/status", 5: "/5/record_ref", 6: "/6/",
    }  # fmt: skip
    assert "33E53" in faults[3]["fix"], "the repair is told"
    again = await take(a, row("r1", "ABC1234"))
    assert (again["stored"], again["unchanged"]) == (0, 1)
    changed = await take(a, row("r1", "ABC1234", status="RECOVERED"))
    assert changed["stored"] == 1


async def test_a_whole_import_is_withdrawn_and_no_other(fed: Federation) -> None:
    (a,) = await fed.nodes("a")
    first = await take(a, row("r1", "ABC1234"), row("r2", "ABC1235"))
    await take(a, row("r3", "ABC1236"), row("r2", "ABC1235", status="LOST"))
    assert await records(a).withdraw(first["import"]) == 1, "r2 is of the later import by now"
    assert [ref for ref, _ in await refs(a, "^ABC1236$")][:1] == ["r3"]
    assert (await records(a).totals())["by_status"] == {"LOST": 1, "STOLEN": 1}
    for nonsense in ("x", "019aab2f-3c7b-4d10-8f6a-2b1c3d4e5f60"):
        await refused("registry.not_found", records(a).withdraw(nonsense))


async def test_a_search_finds_whole_confusable_partial_and_component_serials(fed: Federation) -> None:
    (a,) = await fed.nodes("a")
    await take(
        a, row("whole", "SAB10234"), row("parts", "AANK242 (frame); YWL058 (barrel)"), row("zeros", "0012345", make="Taurus"),
        row("gone", "raspado"),
    )  # fmt: skip
    assert await refs(a, "^SAB10234$") == [("whole", "EXACT")]
    assert await refs(a, "^5ABIO234$") == [("whole", "CONFUSABLE")]
    assert await refs(a, "SAB1?2") == [("whole", "PARTIAL")]
    assert await refs(a, "S[A4]B10{2,4}$") == [("whole", "PARTIAL")]
    assert await refs(a, "^YWL058$") == [("parts", "COMPONENT")]
    assert await refs(a, "^12345$") == [("zeros", "CONFUSABLE")]
    assert await refs(a, "YW?05") == [("parts", "PARTIAL")]
    assert await refs(a, "SAB102") == [("whole", "PARTIAL")], "a run of characters anywhere is a pattern too"
    assert await refs(a, "^SAB10235$") == [], "a serial that is near is not the serial"
    assert await refs(a, "^NOTHERE9$") == []
    (hit,) = await records(a).hits(looked("^SAB10234$"))
    assert hit.keys() == {"member", "owner", "record_ref", "score", "basis"}
    assert hit["member"] == a.name


async def test_fishing_and_reading_a_record_whole_need_two_people(fed: Federation) -> None:
    (a,) = await fed.nodes("a")
    await take(a, row("r1", "ABC1234"))
    fishing = looked("AB1", make={"code": "GLOCK", "raw": ""})

    async def once(what: Any) -> Any:
        await refused("approval.needed", what())
        (waiting,) = await a.parts.approve.waiting(None, 10)
        await a.parts.approve.rule(waiting.id, BELA, "APPROVED")
        return await what()

    await once(lambda: records(a).search(fishing, ANNA))
    await refused("approval.needed", records(a).search(fishing, ANNA))
    (waiting,) = await a.parts.approve.waiting(None, 10)
    await a.parts.approve.rule(waiting.id, BELA, "REFUSED")
    whole = await once(lambda: records(a).whole(a.name, "r1", ANNA))
    assert whole["status"] == "STOLEN"
    assert (await records(a).search(looked("^ABC1234$"), ANNA))[0]["record_ref"] == "r1"
    await refused("registry.not_found", records(a).whole(a.name, "none", ANNA))
    steps = [entry.code for entry in await a.entries() if entry.kind == "admin"]
    assert steps.count("approval.used") == 2
    read = [entry for entry in await a.entries() if entry.kind == "opened"]
    assert [entry.code for entry in read] == ["record/TRACING"]
    assert read[0].actor_c, "who read it stands there, under the salt of the approval"


async def test_records_that_are_told_to_nobody_hide_none_that_are(fed: Federation) -> None:
    a, b, c = await fed.nodes("a", "b", "c", registry=True)
    (message,) = await b.read.opened(UUID((await share(a, b, "z", codes=["REGISTRY_MATCH_ONLY"]))["thread"]))
    silent = replace(message, handling={**message.handling, "codes": []})
    for n in range(201):
        body = message.body | {"record_ref": f"a{n}"}
        await records(b).received(silent, validate_model(RegistryRecord, body, "registry.record"))
    part = pattern_of(message.body).removeprefix("^").removesuffix("$")[:-1]
    assert [each["record_ref"] for each in await records(b).hits(looked(part), c.name)] == ["z"]


async def test_what_a_member_sends_is_kept_searched_answered_and_the_same_on_both_sides(fed: Federation) -> None:
    a, b = await fed.nodes("a", "b", registry=True)
    body = VALID["registry.record"] | {"retention_until": "2040-01-01"}
    lines = [json.dumps(body | {"record_ref": ref}).encode() for ref in ("r1", "r2")]
    await records(a).take(b"\n".join(lines), NDJSON)
    threads = {}
    for ref in ("r1", "r2"):
        threads[ref] = await share(a, b, ref)
    ours, theirs = await records(a).totals(), await records(b).totals(a.name)
    assert {name: ours[name] for name in ("live", "root", "by_status")} == {
        name: theirs[name] for name in ("live", "root", "by_status")
    }
    assert ours["live"] == 2

    asked = await a.send(
        replace(
            a.draft(b), type="registry.search", body=VALID["registry.search"] | {"weapon": {"serial": pattern_of(body)}}
        )
    )
    await a.becomes(asked, "delivered")
    hit = await answered(a, asked, "registry.hit")
    assert [each["record_ref"] for each in hit["hits"]] == ["r1", "r2"]

    withdrawal = {"record_ref": "r2", "reason": {"code": "RECOVERED", "raw": ""}}
    sent = await a.send(
        replace(
            a.draft(b),
            type="registry.withdrawal",
            thread=UUID(threads["r2"]["thread"]),
            body=withdrawal,
            in_reply_to=UUID(threads["r2"]["id"]),
        )
    )
    await a.becomes(sent, "delivered")
    await wait_until(lambda: dispatched(b, 4))
    assert (await records(b).totals(a.name))["live"] == 1
    assert (await records(b).totals(a.name))["root"] != ours["root"]


async def test_a_kind_of_weapon_is_looked_up_with_what_a_marking_notice_tells(fed: Federation) -> None:
    a, b = await fed.nodes("a", "b", reference=True)
    formats = [{"format": "[A-Z]{4}[0-9]{4}", "examples": ["ABCD1234"], "maker": {"code": "TAURUS", "raw": ""}}]
    notice = VALID["marking.notice"] | {"serial_formats": formats}
    await a.becomes(await a.send(replace(a.draft(b), type="marking.notice", body=notice)), "delivered")
    query = {
        "weapon": {
            "make": {"code": "UNKNOWN", "raw": "Forjas Taurus"},
            "model": "PT 92",
            "type": {"code": "PISTOL", "raw": ""},
        }
    }
    asked = await a.send(replace(a.draft(b), type="reference.query", body=query))
    await a.becomes(asked, "delivered")
    first = (await answered(a, asked, "reference.answer"))["candidates"][0]
    assert (first["make"]["code"], first["model"], first["score"]) == ("TAURUS", "PT 92", 100)
    assert first["serial_formats"][0] == "[A-Z]{4}[0-9]{4}"


async def share(node: Node, other: Node, ref: str, **handling: Any) -> Json:
    """Sends a record and waits until it is kept."""
    before = await other.count("inbox", "dispatched")
    body = VALID["registry.record"] | {"retention_until": "2040-01-01", "record_ref": ref}
    draft = node.draft(other)
    said = {**draft.handling, "codes": ["REGISTRY_MATCH_ONLY"]} | handling
    sent = await node.send(replace(draft, type="registry.record", body=body, handling=said))
    await wait_until(lambda: dispatched(other, before + 1))
    return sent


async def dispatched(node: Node, count: int) -> bool:
    return await node.count("inbox", "dispatched") >= count


async def answered(node: Node, asked: Json, type_: str) -> Json:
    """The body of the answer in a thread, once it is there."""
    thread = UUID(asked["thread"])

    async def there() -> bool:
        return any(each.type == type_ for each in await node.read.opened(thread))

    await wait_until(there)
    return next(dict(each.body) for each in await node.read.opened(thread) if each.type == type_)


def pattern_of(body: Json) -> str:
    marks = [mark for part in body["weapon"]["components"] for mark in part.get("marks", ())]
    return next(str(mark["pattern"]) for mark in marks if "pattern" in mark)


@pytest.mark.parametrize(
    ("data", "line"),
    [
        ((HEADER + row("r1", "ABC1")).encode("utf-16"), 1),
        (HEADER.encode() + row("r1", "ABC1").encode() + b"r2,STOLEN,\xff\n", 3),
        (HEADER.encode() + b'r1,"STOLEN,2024\n' + b"x\n" * 9, 2),
        (HEADER.encode() + b"r1,A\0B\n", 2),
        (b"a," * 1_000_000 + b"\n", 1),
        (HEADER.replace(",", ";").encode(), 1),
        (HEADER.replace("serial", "make").encode(), 1),
        (b"record_ref,serial\n", 1),
        (HEADER.encode() + b'r1,"' + b"A" * 200_000 + b'"\n', 2),
    ],
    ids=["utf-16", "latin", "quote", "nul", "columns", "semicolons", "twice", "missing", "huge cell"],
)
async def test_v02_v03_a_file_that_cannot_be_read_is_refused_with_its_line_and_nothing_is_imported(
    fed: Federation, data: bytes, line: int
) -> None:
    (a,) = await fed.nodes("a")
    with pytest.raises(ProblemError) as problem:
        await records(a).take(data, CSV)
    assert problem.value.code == "registry.csv"
    assert problem.value.errors[0].pointer == f"/{line}/"
    assert problem.value.errors[0].fix
    assert await a.count("registry_record") == 0


async def test_what_has_to_go_is_not_found_the_day_after(fed: Federation) -> None:
    (a,) = await fed.nodes("a")
    today = fed.clock.now().date()
    found = await take(
        a, row("last day", "ABC1234", until=str(today)), row("over", "ABC1235", until=str(today - timedelta(days=1)))
    )
    assert [line.get("state") for line in found["lines"]] == ["stored", None]
    assert found["lines"][1]["problem"]["errors"][0]["pointer"] == "/3/retention_until"
    assert [ref for ref, _ in await refs(a, "^ABC1234$")] == ["last day"]
    await records(a).purge()
    assert await a.count("registry_record") == 1
    fed.clock.ahead += timedelta(days=1)
    await records(a).purge()
    assert await a.count("registry_record") == 0


async def test_an_import_waits_for_no_other(fed: Federation) -> None:
    (a,) = await fed.nodes("a")
    first = asyncio.create_task(take(a, row("r1", "ABC1234")))
    await asyncio.sleep(0)
    await refused("store.busy", take(a, row("r2", "ABC1235")))
    assert (await first)["stored"] == 1


async def test_a_serial_that_nobody_read_whole_is_noted_and_damage_in_any_column_refused(fed: Federation) -> None:
    (a,) = await fed.nodes("a")
    found = await take(a, row("r1", "AB?1234"), row("r2", "raspado"), row("r3", "ABC1234").replace("9mm", "2.2E+01"))
    assert ["note" in line for line in found["lines"]] == [True, True, False]
    assert found["lines"][2]["problem"]["errors"][0]["pointer"] == "/4/calibre"
    assert await refs(a, "^AB1234$") == [], "a reading in doubt is not made whole"


async def test_a_record_comes_too_late_when_its_owner_took_it_back(fed: Federation) -> None:
    a, b = await fed.nodes("a", "b", registry=True)
    sent = await share(a, b, "r1")
    (message,) = await b.read.opened(UUID(sent["thread"]))
    body = validate_body("registry.record", message.body)
    assert isinstance(body, RegistryRecord)
    later = [replace(message, created=message.created + timedelta(seconds=s)) for s in range(3)]
    await records(b).withdrawn(later[1], "r1")
    await records(b).received(message, body)
    assert (await records(b).totals(a.name))["live"] == 0
    await records(b).received(later[2], body)
    assert (await records(b).totals(a.name))["live"] == 1
    await records(b).received(message, body.model_copy(update={"status": "LOST"}))
    assert (await records(b).totals(a.name))["by_status"] == {body.status: 1}, "an earlier word changes nothing"


async def test_who_is_told_of_a_record_is_for_its_owner_to_say(fed: Federation) -> None:
    a, b, c = await fed.nodes("a", "b", "c", registry=True)
    serial = pattern_of(VALID["registry.record"])
    await share(a, b, "silent", codes=[])
    await share(a, b, "named", codes=["NAMED_RECIPIENTS_ONLY"], named_recipients=[c.name])
    sent = await share(a, b, "match", codes=["REGISTRY_MATCH_ONLY"])

    async def told(node: Node) -> list[str]:
        search = replace(
            node.draft(b), type="registry.search", body=VALID["registry.search"] | {"weapon": {"serial": serial}}
        )
        asked = await node.send(search)
        return [each["record_ref"] for each in (await answered(node, asked, "registry.hit"))["hits"]]

    assert await told(a) == ["match", "named", "silent"], "the owner sees its own"
    assert await told(c) == ["match", "named"]
    shown, _ = await b.read.thread(UUID(sent["thread"]), ANNA)
    assert "confirmations" in shown["messages"][0]["withheld"]
    assert "body" not in shown["messages"][0]
