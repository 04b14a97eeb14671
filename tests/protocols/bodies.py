"""Bodies of every message type: one that is valid, and one for each rule that it can break. They become vectors."""

import copy
from typing import Any

from protocols.messages.recovery import STEPS

Json = dict[str, Any]
TARGET = "019aab2f-3c7b-7d10-8f6a-2b1c3d4e5f60"
CONSENT = "019aab2f-3c7b-7d10-8f6a-2b1c3d4e5f61"


def pair(code: str, raw: str = "") -> Json:
    return {"code": code, "raw": raw}


def mark(**changes: Any) -> Json:
    return {
        "mark_type": pair("SERIAL"),
        "text_raw": "ABC 1234",
        "location": pair("FRAME_LEFT", "left side"),
        "status": pair("LEGIBLE"),
        "pattern": "^ABC1234$",
    } | changes


def weapon(**changes: Any) -> Json:
    return {
        "type": pair("PISTOL"),
        "make": pair("GLOCK", "Glock Ges.m.b.H."),
        "model": "17",
        "calibre": pair("9X19", "9 mm"),
        "country_of_manufacture": pair("AT"),
        "origin_class": pair("FACTORY"),
        "components": [{"kind": pair("FRAME"), "marks": [mark()]}],
    } | changes


OFFICE: Json = {"name": "Bundeskriminalamt", "country": pair("DE")}
HANDLING: Json = {"codes": ["PURPOSE_TRACING_ONLY"], "purpose": "TRACING"}
LEGAL: Json = {"ground": pair("LAW_OF_RECOVERING_STATE"), "national_provision": "WaffG section 52"}


def request(**changes: Any) -> Json:
    return {
        "request_ref": "BKA-2026-1",
        "requester": OFFICE,
        "legal_basis": LEGAL,
        "circumstances": {"recovered_on": "2026-04", "country": pair("DE"), "context": pair("SEARCH")},
        "weapon": weapon(),
        "intended_use": pair("CRIMINAL_INVESTIGATION"),
        "priority": "ROUTINE",
        "asks": ["last_legal_holder", "supply_chain"],
        "confidentiality_guarantee": True,
    } | changes


def event(date: str, kind: str = "SOLD", **changes: Any) -> Json:
    return {
        "kind": pair(kind),
        "date": date,
        "from": pair("MANUFACTURER"),
        "to": pair("DEALER"),
        "country": pair("AT"),
        "evidence_grade": pair("RECORD_SYSTEM"),
        "certainty": pair("CONFIRMED"),
    } | changes


SOURCE: Json = {"name": "Central register", "period": {"from": "1990", "to": "2026-01"}, "coverage": pair("WHOLE")}


def response(result: str = "TRACED_TO_DEALER", **changes: Any) -> Json:
    return {
        "result": pair(result),
        "certainty": pair("CONFIRMED"),
        "final": True,
        "checked_sources": [SOURCE],
    } | changes


def refusal(**changes: Any) -> Json:
    return {"kind": "REFUSAL", "ground": pair("ITI22_NATIONAL_SECURITY"), "statement": "The law forbids it."} | changes


ACKNOWLEDGEMENT: Json = {
    "state": "ACCEPTED", "handler": {"name": "ATF NTC", "country": pair("US")}, "expected_by": "2026-12-24"
}  # fmt: skip
CANDIDATE: Json = {"record_ref": "R-1", "score": 81, "serial": "ABC1234"}
NEXT_HOP: Json = {"name": "Imports Ltd", "country": pair("US"), "party": pair("IMPORTER"), "member": "example/importer"}
RESTORED = [
    mark(status=pair("OBLITERATED"), pattern="AB{1,9}"),
    mark(status=pair("RESTORED"), restoration_techniques=[pair("MAGNETIC_PARTICLE")], examined_at="2026-05"),
]


def without(body: Json, *names: str) -> Json:
    return {name: value for name, value in body.items() if name not in names}


VALID: dict[str, Json] = {
    "trace.request": request(),
    "trace.acknowledgement": ACKNOWLEDGEMENT,
    "trace.response": response(events=[event("2019")]),
    "trace.refusal": refusal(),
    "trace.clarification": {
        "questions": [{"pointer": "/weapon/components/0/marks/0", "reason": pair("UNREADABLE_MARK"), "text": "Is it B or 8?"}],
        "clock": "PAUSED",
    },
    "trace.clarification-answer": {
        "answers": [{"pointer": "/weapon/components/0/marks/0", "text": "It is B."}], "weapon": weapon(),
    },
    "trace.referral": {
        "next_hop": NEXT_HOP, "why": pair("SOLD_TO_IMPORTER"), "mode": "ANSWERER_FORWARDS",
        "released_fields": ["circumstances"], "consent_ref": CONSENT,
    },
    "trace.withdrawal": {"reason": pair("ANSWERED_ELSEWHERE")},
    "trace.reminder": {},
    "trace.status": {"state": "IN_PROGRESS", "expected_by": "2026-12-24"},
    "reference.query": {
        "weapon": {"type": pair("PISTOL"), "calibre": pair("9X19", "9 mm")},
        "marks": [
            {"mark_type": pair("SERIAL"), "pattern": "^AB{5,5}$", "location": pair("FRAME_RIGHT")},
            {"mark_type": pair("PROOF_MARK"), "text": "an eagle over N"},
        ],
    },
    "reference.answer": {
        "candidates": [{
            "reference": {"scheme": "IFRT", "number": "12345"}, "make": pair("GLOCK"), "model": "17", "calibres": [pair("9X19")],
            "type": pair("PISTOL"), "country": pair("AT"), "score": 90, "years": {"first": 1982},
            "serial_formats": ["[A-Z]{2,4}[0-9]{3}"], "mark_locations": [pair("FRAME_BOTTOM")],
        }],
    },
    "recovery.report": {
        "report_ref": "2026-77", "agency": OFFICE, "recovered_on": "2026-04-01", "country": pair("DE"),
        "context": pair("SEARCH"), "weapon": weapon(components=[{"kind": pair("FRAME"), "marks": RESTORED}]),
        "steps": [
            {"step": step, "outcome": "DONE", "on": "2026-04-02", "reference": "NWR"} if at < 2 else {"step": step, "outcome": "NOT_DONE"}
            for at, step in enumerate(STEPS)
        ],
        "disposal": pair("HELD_AS_EVIDENCE"), "priority": "URGENT", "justification": "A second attack is planned.",
        "legal_basis": LEGAL,
    },
    "registry.record": {
        "owner": OFFICE, "record_ref": "L-1", "status": "STOLEN", "event_date": "2025-11", "weapon": weapon(),
        "retention_until": "2055-11-01",
    },
    "registry.search": {
        "weapon": {"serial": "AB?1234", "make": pair("GLOCK")}, "purpose": "TRACING", "reference": "BKA-2026-1",
    },
    "registry.hit": {
        "hits": [{"member": "at/police", "owner": OFFICE, "record_ref": "L-1", "basis": "EXACT", "score": 100},
                 {"member": "at/police", "owner": OFFICE, "record_ref": "L-2", "basis": "CONFUSABLE", "score": 70}],
        "searched": "own records of lost and stolen firearms",
    },
    "registry.withdrawal": {"record_ref": "L-1", "reason": pair("RECOVERED")},
    "marking.notice": {
        "notice_ref": "AT-1", "version": 2, "country": pair("AT"), "valid_from": "2026-01-01",
        "maker_codes": [{"maker": pair("GLOCK"), "code": "GLK"}], "import_mark": "AT and the year",
        "serial_formats": [{"format": "[A-Z]{2,4}[0-9]{3}", "examples": ["AB123", "ABCD999"], "maker": pair("GLOCK")}],
        "record_horizon": {"since_year": 1982, "held_by": "the maker"},
    },
    "handling.change": {"target": TARGET, "handling": HANDLING},
    "consent.request": {
        "target": TARGET, "to": "ONWARD_DISCLOSURE", "recipients": ["example/importer"], "why": "It sold the weapon on.",
    },
    "consent.answer": {"decision": "GRANTED", "conditions": "The weapon alone."},
    "disclosure.report": {
        "target": TARGET, "to": {"name": "Imports Ltd", "country": pair("US"), "member": "example/importer"},
        "on": "2026-11-02", "ground": pair("CONSENT"), "consent_ref": CONSENT,
    },
    "erasure.request": {"messages": [TARGET], "ground": pair("COURT_ORDER"), "authority": "Amtsgericht Wiesbaden"},
    "erasure.confirmation": {"messages": [TARGET], "erased_on": "2026-12-01", "backups_until": "2027-01-01"},
}  # fmt: skip


def changed(body: Json, pointer: str, value: Any) -> Json:
    """A copy with one place changed; `...` takes the member out."""
    whole = copy.deepcopy(body)
    place: Any = whole
    *path, last = [int(step) if step.isdigit() else step for step in pointer.split("/")[1:]]
    for step in path:
        place = place[step]
    if value is ...:
        del place[last]
    else:
        place[last] = value
    return whole


FORWARDED: Json = {"by": "example/maker", "mode": "ANSWERER_FORWARDS", "hop": 2, "released_fields": ["circumstances"]}

# (type, the rule and its source, where it is changed, to what, where the fault is, its code)
BROKEN: list[tuple[str, str, str, Any, str, str]] = [
    ("trace.request", "no serial mark and no reason (ITI 17b)", "/weapon/components/0/marks", [], "/weapon/components", "serial.unexplained"),
    ("trace.request", "a serial without pattern or reason (ITI 17b)", "/weapon/components/0/marks/0/pattern", ..., "/weapon/components/0/marks/0/pattern", "serial.unexplained"),
    ("trace.request", "URGENT without justification", "/priority", "URGENT", "/justification", "required"),
    ("trace.request", "no legal basis (ITI 17a)", "/legal_basis", ..., "/legal_basis", "required"),
    ("trace.request", "no circumstances (ITI 17a)", "/circumstances", ..., "/circumstances", "required"),
    ("trace.request", "no intended use (ITI 17c)", "/intended_use", ..., "/intended_use", "required"),
    ("trace.request", "what a referral does not release (ITI 15)", "/referred", FORWARDED, "/intended_use", "not_released"),
    ("trace.request", "a ninth hop", "/referred", FORWARDED | {"hop": 9}, "/referred/hop", "range"),
    ("trace.request", "a person in the body", "/persons", [{"name": "x"}], "/persons", "type"),
    ("trace.request", "damage by a spreadsheet", "/weapon/model", "2021-07-24", "/weapon/model", "damaged"),
    ("trace.acknowledgement", "no day on which an answer is expected (ITI 19)", "/expected_by", ..., "/expected_by", "required"),
    ("trace.response", "NO_RECORD_FOUND in no source", "", response("NO_RECORD_FOUND", checked_sources=[]), "/checked_sources", "required"),
    ("trace.response", "NO_RECORD_FOUND without coverage", "", response("NO_RECORD_FOUND", checked_sources=[SOURCE | {"coverage": pair("UNKNOWN")}]), "/checked_sources/0/coverage", "required"),
    ("trace.response", "a source without coverage", "", response(checked_sources=[without(SOURCE, "coverage")]), "/checked_sources/0/coverage", "required"),
    ("trace.response", "MULTIPLE_CANDIDATES with one", "", response("MULTIPLE_CANDIDATES", candidates=[CANDIDATE]), "/candidates", "required"),
    ("trace.response", "26 candidates", "", response("MULTIPLE_CANDIDATES", candidates=[CANDIDATE] * 26), "/candidates", "too_many"),
    ("trace.response", "a holder neither named nor withheld", "/result", pair("TRACED_LAST_LEGAL_HOLDER"), "/last_legal_holder", "required"),
    ("trace.response", "a holder named and withheld", "/last_legal_holder", {"part": "last_legal_holder", "withheld_reason": pair("CONSENT_PENDING")}, "/last_legal_holder", "required"),
    ("trace.response", "events out of order", "/events", [event("2020"), event("2019")], "/events/1/date", "order"),
    ("trace.response", "a gap with documents", "/events", [event("2020", "GAP", licence="L")], "/events/0/kind", "gap.documented"),
    ("trace.response", "a refusal as a result", "/result", pair("REFUSED"), "/result/code", "code"),
    ("trace.response", "an unknown result", "/result", pair("UNKNOWN"), "/result/code", "code"),
    ("trace.refusal", "a ground that ITI 22 does not name", "/ground", pair("NOT_WORTH_IT"), "/ground/code", "code"),
    ("trace.refusal", "an unknown ground (ITI 22)", "/ground", pair("UNKNOWN", "no"), "/ground/code", "code"),
    ("trace.refusal", "no reasons (ITI 23)", "/statement", ..., "/statement", "required"),
    ("trace.refusal", "DELAY without review", "/kind", "DELAY", "/review_on", "required"),
    ("trace.refusal", "a review of what is final", "/review_on", "2027-01-01", "/review_on", "required"),
    ("trace.clarification", "no question", "/questions", [], "/questions", "too_few"),
    ("trace.clarification", "a pointer that is none", "/questions/0/pointer", "weapon", "/questions/0/pointer", "format"),
    ("trace.clarification", "neither paused nor running", "/clock", "STOPPED", "/clock", "code"),
    ("trace.clarification-answer", "an answer that says nothing", "", {}, "/answers", "required"),
    ("trace.referral", "forwarded to nobody", "/next_hop/member", ..., "/next_hop/member", "required"),
    ("trace.referral", "released by who does not forward (ITI 15)", "/mode", "REQUESTER_ASKS_AGAIN", "/released_fields", "contradiction"),
    ("trace.withdrawal", "no reason", "/reason", ..., "/reason", "required"),
    ("trace.reminder", "an unknown member", "/urgent", True, "/urgent", "unknown_member"),
    ("trace.status", "a state that nobody reports", "/state", "ANSWERED", "/state", "code"),
    ("trace.status", "closed, and still expected", "/state", "CLOSED", "/expected_by", "contradiction"),
    ("reference.query", "a case number", "/request_ref", "BKA-2026-1", "/request_ref", "unknown_member"),
    ("reference.query", "a case number in words", "/marks/1/text", "eagle, case 2026123", "/marks/1/text", "case_data"),
    ("reference.query", "a full serial as pattern", "/marks/0/pattern", "^ABC1234$", "/marks/0/pattern", "case_data"),
    ("reference.query", "a full serial as text", "/marks/0/text", "ABC 1234", "/marks/0/text", "case_data"),
    ("reference.query", "a serial but for one place", "/marks/0/pattern", "ABC12?4", "/marks/0/pattern", "case_data"),
    ("reference.query", "a serial in two patterns", "/marks", [{"mark_type": pair("SERIAL"), "pattern": each} for each in ("ABC???", "???123")], "/marks", "case_data"),
    ("reference.query", "nothing described", "", {"weapon": {}}, "/weapon", "required"),
    ("reference.answer", "a format with alternatives", "/candidates/0/serial_formats/0", "(A|B)[0-9]{3}", "/candidates/0/serial_formats/0", "format"),
    ("reference.answer", "years that run back", "/candidates/0/years", {"first": 1990, "last": 1980}, "/candidates/0/years/last", "order"),
    ("recovery.report", "eight steps", "/steps/8", ..., "/steps", "too_few"),
    ("recovery.report", "steps out of order", "/steps/3/step", "DNA", "/steps/3/step", "order"),
    ("recovery.report", "done on no day", "/steps/0/on", ..., "/steps/0/on", "required"),
    ("recovery.report", "URGENT before the searches", "/steps/1", {"step": STEPS[1], "outcome": "NOT_DONE"}, "/steps/1/outcome", "required"),
    ("recovery.report", "restored by no technique", "/weapon/components/0/marks/1/restoration_techniques", [], "/weapon/components/0/marks/1/restoration_techniques", "required"),
    ("recovery.report", "restored from nothing", "/weapon/components/0/marks", RESTORED[1:], "/weapon/components/0/marks/0", "required"),
    ("registry.record", "a status that no register keeps", "/status", "MISLAID", "/status", "code"),
    ("registry.search", "fishing with three characters", "/weapon", {"serial": "AB?1"}, "/weapon/make", "required"),
    ("registry.hit", "worse before better", "/hits/1/score", 101, "/hits/1/score", "range"),
    ("registry.hit", "a better hit below", "/hits/0/score", 60, "/hits/1/score", "order"),
    ("registry.hit", "more than owner and reference", "/hits/0/serial", "ABC1234", "/hits/0/serial", "unknown_member"),
    ("registry.withdrawal", "no reason", "/reason", ..., "/reason", "required"),
    ("marking.notice", "an example that does not match", "/serial_formats/0/examples/1", "ABC", "/serial_formats/0/examples/1", "format.example"),
    ("marking.notice", "a format that repeats without end", "/serial_formats/0/format", "[A-Z]+", "/serial_formats/0/format", "format"),
    ("marking.notice", "an end before its beginning", "/valid_until", "2025-01-01", "/valid_until", "order"),
    ("handling.change", "named recipients that are none (ITI 15)", "/handling/onward", "named", "/handling/named_recipients", "required"),
    ("consent.request", "onward to nobody", "/recipients", [], "/recipients", "required"),
    ("consent.request", "a purpose that is not named", "/to", "OTHER_PURPOSE", "/purpose", "required"),
    ("consent.request", "a day that is not named", "/to", "LONGER_RETENTION", "/until", "required"),
    ("consent.answer", "neither yes nor no", "/decision", "PERHAPS", "/decision", "code"),
    ("disclosure.report", "a consent that is not named", "/consent_ref", ..., "/consent_ref", "required"),
    ("erasure.request", "no authority", "/authority", ..., "/authority", "required"),
    ("erasure.confirmation", "nothing erased", "/messages", [], "/messages", "too_few"),
]  # fmt: skip


def broken(type_: str, pointer: str, value: Any) -> Json:
    """The body of a row of BROKEN."""
    return changed(VALID[type_], pointer, value) if pointer else value
