"""What States owe: the figures of a year, counted from real threads of two nodes, and the pages made of them."""

import re
from dataclasses import replace
from datetime import timedelta
from typing import Any
from uuid import UUID

from gateway.http.picture import report_page
from gateway.services.chain import Chains
from gateway.services.diversion import Diversions
from gateway.services.draft import drafted
from gateway.services.report import Reports
from protocols.messages import validate_body
from tests.federation import Federation, Json, Member, Node, refused, trace_request
from tests.protocols.bodies import VALID, event, pair, refusal, response
from tests.services.erasing import ANNA
from tests.services.test_converse import CALLER


def reports(node: Node) -> Reports:
    return Reports(member=node.name, read=node.read)


async def asked(a: Node, b: Member, **changes: Any) -> Json:
    sent = await a.send(a.draft(b, **changes))
    await a.becomes(sent, "delivered")
    return sent


async def test_the_figures_of_a_year_are_those_of_its_threads_on_both_sides(fed: Federation) -> None:
    a, b = await fed.nodes("a", "b")
    year = fed.clock.now().year
    for type_, body in (
        ("trace.response", response("TRACED_TO_DEALER")),
        ("trace.response", response("NO_RECORD_FOUND")),
        ("trace.refusal", refusal()),
        ("trace.refusal", refusal(kind="DELAY", review_on=str((fed.clock.now() + timedelta(days=300)).date()))),
    ):
        sent = await asked(a, b)
        await b.becomes(await b.send(b.reply(a, sent, type_, body)), "delivered")
    silent = await asked(a, b, due=fed.clock.now() + timedelta(hours=1))
    for _ in range(3):
        await asked(a, b, type="recovery.report", body=VALID["recovery.report"])
    fed.clock.ahead += timedelta(hours=2)
    await fed.refresh()
    for node in (a, b):
        await node.parts.lapse.lapse()
        assert await node.leg(silent) == "SILENT"
    found = await reports(a).year(year)
    (row,) = found["asked"]
    assert {name: row[name] for name in ("requests", "answered", "refused", "silent", "withdrawn", "open", "late")} == {
        "requests": 5, "answered": 2, "refused": 1, "silent": 1, "withdrawn": 0, "open": 1, "late": 0
    }  # fmt: skip
    assert row["grounds"] == {"ITI22_NATIONAL_SECURITY": 1}
    assert row["results"] == {"NO_RECORD_FOUND": 1, "TRACED_TO_DEALER": 1}
    assert found["sdg_16_4_2"] == {"traced": 1, "seized": 3, "seized_from": "recovery reports", "permille": 333}
    assert (await reports(a).year(year, 8))["sdg_16_4_2"]["permille"] == 125
    theirs = await reports(b).year(year)
    assert (theirs["asked"], theirs["answered"][0] | {"member": b.name}) == ([], row), "both ends count alike"
    assert theirs["sdg_16_4_2"]["traced"] == 0, "whoever answers traces for another"
    nothing = await reports(a).year(year - 1)
    assert (nothing["asked"], nothing["sdg_16_4_2"].get("permille")) == ([], None)
    page = report_page(found)
    assert "ABC1234" not in page
    assert page.count("<rect") == 4 + 5, "a bar an outcome, and the key"
    assert re.search(r"33\.3 %", page)
    assert "counted from our recovery reports" in page
    assert "the number that was given" in report_page(await reports(a).year(year, 8))


async def test_a_recovery_report_drafts_the_request_and_says_what_it_misses(fed: Federation) -> None:
    a, b = await fed.nodes("a", "b")
    body = VALID["recovery.report"]
    sent = await asked(a, b, type="recovery.report", body=body)
    found = await drafted(b.read, UUID(sent["thread"]), CALLER, member=b.name, today=fed.clock.now().date())
    assert found["missing"] == ["/confidentiality_guarantee"], "what only a person can state"
    assert found["steps_done_percent"] == 22
    whole = found["body"] | {"confidentiality_guarantee": True, "intended_use": {"code": "PROSECUTION", "raw": ""}}
    validate_body("trace.request", whole)
    assert whole["weapon"] == body["weapon"], "readings before and after restoration go on as they are"
    assert [check["checked_on"] for check in whole["domestic_checks"]] == ["2026-04-02", "2026-04-02"]
    await refused(
        "thread.not_found",
        drafted(b.read, UUID((await asked(a, b))["thread"]), CALLER, member=b.name, today=fed.clock.now().date()),
    )


async def test_answered_threads_show_what_they_have_in_common(fed: Federation) -> None:
    a, b = await fed.nodes("a", "b")
    sold = event(
        "2026-01-05", "RETAIL_SALE", **{"from": pair("DEALER"), "to": pair("PRIVATE_PERSON"), "country": pair("US")}
    )
    dealer = {"name": "Joe's Guns", "country": pair("US"), "party": pair("DEALER")}
    threads = []
    for serial in ("ABC1230", "ABC1234"):
        request = trace_request(serial)
        request["circumstances"]["recovered_on"] = "2026-04-01"
        sent = await asked(a, b, body=request)
        body = response("TRACED_TO_DEALER") | {"events": [sold], "next_hops": [dealer]}
        await b.becomes(await b.send(b.reply(a, sent, "trace.response", body)), "delivered")
        threads.append(sent["thread"])
    await asked(a, b, body=trace_request("ABC1237"))  # nobody answered it
    reports = Diversions(read=a.read, chains=Chains(member=a.name, read=a.read, clock=fed.clock))
    await refused("auth.purpose", reports.report(replace(ANNA, purpose="")))
    assert not [entry for entry in await a.entries() if entry.kind == "opened"]
    found = await reports.report(ANNA)
    opened = [entry for entry in await a.entries() if entry.kind == "opened"]
    assert {entry.code for entry in opened} == {"report/TRACING"}
    assert len({entry.id for entry in opened}) == 4, "both requests and both answers of the threads that are shown"
    assert found["threads"] == 2
    shared = {each["kind"]: sorted(each["threads"]) for each in found["patterns"]}
    assert shared == dict.fromkeys(("SERIAL_RUN", "LAST_TRANSFER", "SAME_DEALER", "SHORT_TIME"), sorted(threads))
    other = Diversions(read=b.read, chains=Chains(member=b.name, read=b.read, clock=fed.clock))
    assert await other.report(ANNA) == {"threads": 0, "patterns": []}, "whoever answers reports on nobody"
