"""Message bodies: every rule of docs/domain.md section 2 for the four trace messages, handling, restricted parts."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jsonschema_rs import Draft202012Validator, meta

from protocols.firearms.formats import matches_format
from protocols.messages import (
    PARTS,
    TYPES,
    asked_gun,
    check_parts,
    completeness,
    json_schema,
    validate_body,
    validate_handling,
    validate_part,
)
from protocols.messages.fields import meanings
from protocols.messages.trace import TraceRequest, TraceResponse
from protocols.problems import ProblemError
from protocols.strict import dump_json, parse_json
from tests.protocols.bodies import (
    ACKNOWLEDGEMENT,
    BROKEN,
    HANDLING,
    SOURCE,
    VALID,
    broken,
    event,
    mark,
    pair,
    refusal,
    request,
    response,
)
from tests.protocols.bodies import changed as changed_at
from tests.protocols.make_schemas import FOLDER as SCHEMAS
from tests.protocols.make_schemas import PAGE, all_models, page
from tests.protocols.make_schemas import main as write_schemas

Json = dict[str, Any]


def faults(validate: Callable[[], object]) -> set[tuple[str, str]]:
    with pytest.raises(ProblemError) as caught:
        validate()
    assert caught.value.code == "schema.invalid"
    assert 0 < len(caught.value.errors) <= 20
    assert all(fault.message and fault.fix for fault in caught.value.errors)
    return {(fault.pointer, fault.code) for fault in caught.value.errors}


def faults_of(type_: str, body: object) -> set[tuple[str, str]]:
    return faults(lambda: validate_body(type_, body))


def changed(pointer: str, value: Any, body: Json | None = None) -> Json:
    return changed_at(request() if body is None else body, pointer, value)


def test_every_type_has_an_example_and_a_broken_one() -> None:
    assert VALID.keys() == TYPES.keys() == {row[0] for row in BROKEN}


@pytest.mark.parametrize(
    ("type_", "rule", "at", "value", "pointer", "code"), BROKEN, ids=[f"{row[0]} {row[1]}" for row in BROKEN]
)
def test_a_broken_rule_is_named_where_it_is_broken(
    type_: str, rule: str, at: str, value: Any, pointer: str, code: str
) -> None:
    assert faults_of(type_, broken(type_, at, value)) == {(pointer, code)}, rule


@pytest.mark.parametrize("type_", TYPES)
def test_a_whole_body_is_valid_and_frozen(type_: str) -> None:
    body = validate_body(type_, parse_json(dump_json(VALID[type_]), bytes_max=9999))
    assert isinstance(body, TYPES[type_])
    with pytest.raises(ValueError, match="frozen"):
        setattr(body, next(iter(type(body).model_fields)), None)


def test_a_body_is_written_as_it_was_read() -> None:
    for type_, body in VALID.items():
        again = validate_body(type_, body).model_dump(mode="json", by_alias=True, exclude_unset=True)
        assert again == body


def test_an_unknown_type_is_its_own_problem() -> None:
    with pytest.raises(ProblemError, match=r"type\.unknown"):
        validate_body("trace.nothing", {})
    with pytest.raises(ProblemError, match=r"type\.unknown"):
        json_schema("trace.nothing")


@pytest.mark.parametrize("type_", [type_ for type_ in TYPES if "required" in json_schema(type_)])
def test_every_required_member_is_missed_by_its_pointer(type_: str) -> None:
    required = json_schema(type_)["required"]
    assert faults_of(type_, {}) == {(f"/{name}", "required") for name in required}


@pytest.mark.parametrize(
    ("pointer", "value", "code"),
    [
        ("/weapon/type/code", "PISTOLE", "code"),
        ("/weapon/type/raw", ..., "required"),
        ("/weapon/type/raw", "x" * 501, "too_long"),
        ("/weapon/model", None, "null"),
        ("/weapon/model", "2021-07-24", "damaged"),
        ("/weapon/calibre/raw", "1970-12-01", "damaged"),
        ("/weapon/components/0/marks/0/text_raw", "3.3E+54", "damaged"),
        ("/weapon/components/0/marks/0/pattern", "abc", "pattern"),
        ("/weapon/components/0/marks/0/pattern", "???", "pattern"),
        ("/weapon/components/0/marks/0/pattern", "A" * 33, "pattern"),
        ("/weapon/components/0/marks/0/confidence", 101, "range"),
        ("/weapon/components", [], "too_few"),
        ("/weapon/year", "1999", "type"),
        ("/weapon/references", [{"scheme": "XYZ", "number": "1"}], None),
        ("/circumstances/recovered_on", "2026-02-30", "date"),
        ("/circumstances/recovered_on", "2026-4", "date"),
        ("/circumstances/recovered_on", "1/4/2026", "date"),
        ("/circumstances/recovered_on", "２０２６", "date"),  # noqa: RUF001
        ("/circumstances/country/code", "XX", "code"),
        ("/priority", "SOON", "code"),
        ("/priority", pair("ROUTINE"), "type"),
        ("/asks", [], "too_few"),
        ("/asks", ["authenticity", "authenticity"], "repeated"),
        ("/confidentiality_guarantee", 1, "type"),
        ("/deadline_wanted", "2026-12", "format"),
        ("/persons", {"part": "people"}, None),
        ("/request_ref", "", "too_short"),
        ("/requester", [], "type"),
    ],
)
def test_one_fault_in_a_request_gives_its_pointer_and_code(pointer: str, value: Any, code: str | None) -> None:
    found = faults_of("trace.request", changed(pointer, value))
    assert len(found) == 1
    where, what = found.pop()
    assert where.startswith(pointer)
    assert code in (None, what)


def test_a_problem_never_repeats_a_value_nor_a_strange_members_name() -> None:
    hidden = "AB-4711-PRIVATE"
    for pointer in (
        "/weapon/type/code",
        "/circumstances/recovered_on",
        "/priority",
        f"/{hidden}",
        f"/weapon/{hidden}",
        "/asks",
        "/weapon",
    ):
        with pytest.raises(ProblemError) as caught:
            validate_body("trace.request", changed(pointer, hidden))
        assert hidden not in json.dumps(caught.value.document()) + str(caught.value)


def test_at_most_20_findings_are_told() -> None:
    assert len(faults_of("trace.request", request(asks=["x"] * 60))) == 20


def test_a_strange_member_is_pointed_at_by_the_object_that_has_it() -> None:
    found = faults_of("trace.response", response(events=[event("2019") | {"a/b~c": 1}]))
    assert found == {("/events/0", "unknown_member")}


@pytest.mark.parametrize(
    "name", ["type", "make", "calibre", "origin_class", "country_of_manufacture"]
)  # fmt: skip
def test_unknown_lowers_completeness_and_never_makes_a_request_invalid(name: str) -> None:
    whole, lacking = (
        validate_body("trace.request", body) for body in (request(), changed(f"/weapon/{name}", pair("UNKNOWN")))
    )
    assert isinstance(whole, TraceRequest)
    assert isinstance(lacking, TraceRequest)
    assert completeness(whole) == 100
    assert completeness(lacking) < 100 or name == "origin_class"


def test_a_request_that_knows_nothing_is_valid_and_scores_15() -> None:
    weapon = {name: pair("UNKNOWN") for name in ("type", "make", "calibre", "origin_class")}
    obliterated = mark(status=pair("OBLITERATED"), text_raw="")
    del obliterated["pattern"]
    weapon["components"] = [{"kind": pair("UNKNOWN"), "marks": [obliterated]}]  # type: ignore[assignment]
    body = validate_body(
        "trace.request",
        request(
            weapon=weapon,
            legal_basis={"ground": pair("UNKNOWN"), "national_provision": "not known"},
            circumstances={"recovered_on": "2026", "country": pair("UNKNOWN"), "context": pair("UNKNOWN")},
            intended_use=pair("UNKNOWN"),
        ),
    )
    assert isinstance(body, TraceRequest)
    assert completeness(body) == 15


def test_few_known_characters_score_less_than_a_serial() -> None:
    body = validate_body("trace.request", changed("/weapon/components/0/marks/0/pattern", "A??1"))
    assert isinstance(body, TraceRequest)
    assert completeness(body) == 90


@pytest.mark.parametrize("status", ["LEGIBLE", "PARTIAL", "RESTORED", "ALTERED_RESTAMPED", "UNKNOWN"])
def test_a_serial_with_neither_a_pattern_nor_a_reason_is_refused(status: str) -> None:
    bare = mark(status=pair(status))
    del bare["pattern"]
    place = "/weapon/components/0/marks/0"
    assert faults_of("trace.request", changed(place, bare)) == {(f"{place}/pattern", "serial.unexplained")}
    validate_body("trace.request", changed(place, bare | {"alternatives": [{"text": "1234", "weight": 60}]}))


@pytest.mark.parametrize("status", ["OBLITERATED", "NEVER_MARKED", "NOT_VISIBLE_WEAR", "NOT_EXAMINED", "UNREAD"])
def test_a_reason_stands_for_a_pattern(status: str) -> None:
    bare = mark(status=pair(status))
    del bare["pattern"]
    validate_body("trace.request", changed("/weapon/components/0/marks/0", bare))


def test_a_weapon_without_any_serial_mark_is_refused() -> None:
    body = changed("/weapon/components/0/marks", [mark(mark_type=pair("PROOF_MARK"))])
    assert faults_of("trace.request", body) == {("/weapon/components", "serial.unexplained")}


def test_urgent_needs_a_justification() -> None:
    assert faults_of("trace.request", request(priority="URGENT")) == {("/justification", "required")}
    validate_body("trace.request", request(priority="URGENT", justification="A second attack is planned."))


def test_persons_cannot_stand_in_a_request() -> None:
    validate_body("trace.request", request(persons={"part": "persons"}))
    assert faults_of("trace.request", request(persons=[{"name": "x"}])) == {("/persons", "type")}
    assert faults_of("trace.request", request(persons={"part": "persons", "name": "x"})) == {
        ("/persons/name", "unknown_member")
    }


def test_an_acknowledgement_names_an_office_and_a_day() -> None:
    late = {name: value for name, value in ACKNOWLEDGEMENT.items() if name != "expected_by"}
    assert faults_of("trace.acknowledgement", late) == {("/expected_by", "required")}
    validate_body("trace.acknowledgement", late | {"state": "WRONG_COMPETENCE"})
    person = ACKNOWLEDGEMENT["handler"] | {"person": "x"}
    assert faults_of("trace.acknowledgement", ACKNOWLEDGEMENT | {"handler": person}) == {
        ("/handler/person", "unknown_member")
    }


@pytest.mark.parametrize(
    ("body", "found"),
    [
        (response("NO_RECORD_FOUND", checked_sources=[]), ("/checked_sources", "required")),
        (
            response("NO_RECORD_FOUND", checked_sources=[SOURCE | {"coverage": pair("UNKNOWN")}]),
            ("/checked_sources/0/coverage", "required"),
        ),
        (response("MULTIPLE_CANDIDATES"), ("/candidates", "required")),
        (response("MULTIPLE_CANDIDATES", candidates=[{"record_ref": "1", "score": 9}]), ("/candidates", "required")),
        (response(candidates=[{"record_ref": "1", "score": 9}] * 26), ("/candidates", "too_many")),
        (response(candidates=[{"record_ref": "1", "score": 101}]), ("/candidates/0/score", "range")),
        (response("TRACED_LAST_LEGAL_HOLDER"), ("/last_legal_holder", "required")),
        (response(last_legal_holder={}), ("/last_legal_holder", "required")),
        (
            response(last_legal_holder={"part": "last_legal_holder", "withheld_reason": pair("CONSENT_PENDING")}),
            ("/last_legal_holder", "required"),
        ),
        (response(last_legal_holder={"name": "x"}), ("/last_legal_holder/name", "unknown_member")),
        (response("UNKNOWN"), ("/result/code", "code")),
        (response(events=[event("2020-02"), event("2020-01-31")]), ("/events/1/date", "order")),
        (response(events=[event("2019-05"), event("2019"), event("2019-04")]), ("/events/2/date", "order")),
        (response(events=[event("2019", "GAP", licence="X1")]), ("/events/0/kind", "gap.documented")),
        (response(corrected_identification={"why": "wrong make"}), ("/corrected_identification", "required")),
        (
            response(checked_sources=[SOURCE | {"period": {"from": "2020", "to": "2019-12"}}]),
            ("/checked_sources/0/period/to", "order"),
        ),
        (
            response(next_hops=[{"name": "n", "country": pair("AT"), "party": pair("DEALER")}] * 9),
            ("/next_hops", "too_many"),
        ),
        (response(time_to_diversion_days=-1), ("/time_to_diversion_days", "range")),
    ],
)
def test_a_response_must_carry_what_its_result_says(body: Json, found: tuple[str, str]) -> None:
    assert faults_of("trace.response", body) == {found}


def test_a_rich_response_is_valid() -> None:
    events = [
        event("2019", "MANUFACTURED"),
        event("2019-03"),
        event("2019-03-05"),
        event("2020", "GAP"),
        event("2026-04"),
    ]
    candidates = [{"record_ref": str(n), "score": n, "make": pair("GLOCK"), "serial": "AB?1"} for n in range(25)]
    body = validate_body(
        "trace.response",
        response(
            "MULTIPLE_CANDIDATES",
            events=events,
            candidates=candidates,
            last_legal_holder={"withheld_reason": pair("ITI22_CONFIDENTIALITY_LAW")},
            corrected_identification={"why": "the mark is a proof mark", "make": pair("GLOCK")},
        ),
    )
    assert isinstance(body, TraceResponse)
    assert len(body.events) == 5


def test_a_delay_and_only_a_delay_has_a_day_of_review() -> None:
    assert faults_of("trace.refusal", refusal(kind="DELAY")) == {("/review_on", "required")}
    assert faults_of("trace.refusal", refusal(review_on="2027-01-01")) == {("/review_on", "required")}
    validate_body("trace.refusal", refusal(kind="DELAY", review_on="2027-01-01"))


@pytest.mark.parametrize("ground", ["UNKNOWN", "NO_TIME"])
def test_a_refusal_needs_a_ground_of_the_list(ground: str) -> None:
    assert faults_of("trace.refusal", refusal(ground=pair(ground))) == {("/ground/code", "code")}


@pytest.mark.parametrize(
    ("changes", "found"),
    [
        ({"codes": ["TOP_SECRET"]}, ("/codes/0", "code")),
        ({"purpose": "STATISTICS"}, ("/purpose", "contradiction")),
        ({"codes": ["NAMED_RECIPIENTS_ONLY"]}, ("/named_recipients", "required")),
        ({"onward": "named"}, ("/named_recipients", "required")),
        ({"codes": ["DELETE_AFTER"]}, ("/delete_after", "required")),
        ({"delete_after": "2030-01-01"}, ("/delete_after", "required")),
        ({"codes": ["NO_USE_AS_EVIDENCE_WITHOUT_CONSENT"], "evidence_use": "yes"}, ("/evidence_use", "contradiction")),
        ({"named_recipients": ["Not A Member"]}, ("/named_recipients/0", "format")),
        ({"colour": "red"}, ("/colour", "unknown_member")),
    ],
)
def test_handling_must_agree_with_itself(changes: Json, found: tuple[str, str]) -> None:
    assert faults(lambda: validate_handling(HANDLING | changes)) == {found}


def test_handling_that_is_silent_means_the_narrowest() -> None:
    handling = validate_handling(HANDLING)
    assert (handling.evidence_use, handling.onward, handling.named_recipients) == ("ask", "none", ())


def test_restricted_parts_have_their_own_models() -> None:
    persons = {"persons": [{"role": pair("SUSPECT"), "name": "N", "born": "1980"}]}
    assert validate_part("persons", persons) == PARTS["persons"].model_validate(persons)
    validate_part("last_legal_holder", {"party": pair("PRIVATE_PERSON"), "name": "N", "country": pair("AT")})
    assert faults(lambda: validate_part("persons", {"persons": []})) == {("/persons", "too_few")}
    with pytest.raises(ProblemError, match=r"schema\.invalid"):
        validate_part("strangers", {})


def test_a_whole_serial_is_asked_as_a_key_and_several_as_alternatives() -> None:
    body = validate_body("trace.request", request())
    assert isinstance(body, TraceRequest)
    asked = asked_gun(body.weapon)
    assert (asked.serial_k1, asked.pattern, asked.make, asked.calibre) == ("ABC1234", "", "GLOCK", "9X19")
    partial = validate_body("trace.request", changed("/weapon/components/0/marks/0/status", pair("PARTIAL")))
    assert isinstance(partial, TraceRequest)
    assert asked_gun(partial.weapon).pattern == "^ABC1234$"
    two = validate_body("trace.request", changed("/weapon/components/0/marks", [mark(), mark(pattern="XYZ9876")]))
    assert isinstance(two, TraceRequest)
    assert asked_gun(two.weapon).alternatives == ("ABC1234", "XYZ9876")


@pytest.mark.parametrize("type_", TYPES)
def test_the_schema_names_the_codes_and_knows_no_null(type_: str) -> None:
    text = json.dumps(json_schema(type_))
    assert '"null"' not in text
    assert json_schema(type_)["additionalProperties"] is False
    assert "CONFIRMED" in text or type_ != "trace.response"


_JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.text(max_size=8)
    | st.sampled_from(["SERIAL", "UNKNOWN", "2019-13", "GAP"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.text(max_size=5) | st.sampled_from(["code", "raw", "weapon", "events", "kind"]), inner, max_size=4
        )
    ),
    max_leaves=12,
)
_PLACES = (
    [f"/{name}" for name in request()]
    + [f"/weapon/{name}" for name in request()["weapon"]]
    + ["/weapon/components/0/marks/0/status"]
)


@given(st.sampled_from(sorted(TYPES)), _JSON)
def test_any_value_gives_a_body_or_a_problem(type_: str, value: object) -> None:
    validators: tuple[Callable[[], object], ...] = (
        lambda: validate_body(type_, value),
        lambda: validate_handling(value),
        lambda: validate_part("persons", value),
    )
    for validate in validators:
        try:
            validate()
        except ProblemError as problem:
            assert problem.code == "schema.invalid"  # noqa: PT017  anything else than this family is the failure


@given(st.sampled_from(_PLACES), _JSON)
def test_any_value_anywhere_in_a_request_gives_a_body_or_a_problem(pointer: str, value: object) -> None:
    try:
        body = validate_body("trace.request", changed(pointer, value))
    except ProblemError as problem:
        assert problem.code == "schema.invalid"  # noqa: PT017
        return
    assert isinstance(body, TraceRequest)
    assert 0 <= completeness(body) <= 100
    asked_gun(body.weapon)


def test_the_schemas_are_those_of_the_models(tmp_path: Path) -> None:
    write_schemas(tmp_path)
    made = {path.name: path.read_text() for path in tmp_path.iterdir()}
    assert made == {path.name: path.read_text() for path in SCHEMAS.iterdir()}, "run tests/protocols/make_schemas.py"
    for text in made.values():
        schema = json.loads(text)
        assert schema["$id"].startswith("urn:tracewire:")
        assert meta.is_valid(schema)


def test_every_member_has_its_meaning_and_the_page_says_it() -> None:
    members = {(model.__name__, f.alias or name) for model in all_models() for name, f in model.model_fields.items()}
    assert members == meanings().keys()
    assert all(each.meaning and each.source for each in meanings().values())
    assert PAGE.read_text(encoding="utf-8") == page(), "run tests/protocols/make_schemas.py"


@pytest.mark.parametrize("type_", TYPES)
def test_the_schema_takes_what_is_valid_and_finds_what_it_can(type_: str) -> None:
    validator = Draft202012Validator(json_schema(type_))
    assert validator.is_valid(VALID[type_])
    found = [row for row in BROKEN if row[0] == type_ and row[5] in ("unknown_member", "code", "too_few", "too_many")]
    assert not [row for row in found if validator.is_valid(broken(type_, row[2], row[3]))]


@pytest.mark.parametrize(
    ("pattern", "whole", "other"),
    [
        ("[A-Z]{2,4}[0-9]{3}", ["AB123", "ABCD123"], ["A123", "ABCDE123", "AB12", "AB1234", "ab123"]),
        ("A{0,2}B", ["B", "AB", "AAB"], ["AAAB", "A", ""]),
        ("[0-9]{0,3}", ["", "1", "123"], ["1234", "A"]),
        ("T-[A-FX]", ["T-A", "T-X"], ["T-G", "TA"]),
    ],
)
def test_a_serial_format_takes_whole_serials_alone(pattern: str, whole: list[str], other: list[str]) -> None:
    assert all(matches_format(pattern, each) for each in whole)
    assert not any(matches_format(pattern, each) for each in other)


@given(
    st.lists(st.tuples(st.sampled_from("ABC"), st.integers(0, 2), st.integers(1, 3)), min_size=1, max_size=5),
    st.text("ABC", max_size=9),
)
def test_a_serial_format_is_the_regular_expression_that_it_looks_like(
    atoms: list[tuple[str, int, int]], text: str
) -> None:
    pattern = "".join(f"{letter}{{{low},{low + more}}}" for letter, low, more in atoms)
    assert matches_format(pattern, text) == bool(re.fullmatch(pattern, text))


def test_a_restricted_part_rides_on_its_own_types_alone() -> None:
    check_parts("trace.request", {"persons": {"part": "persons"}}, ["persons"])
    check_parts("trace.response", {}, ["last_legal_holder"])
    for type_, name in (
        ("reference.query", "persons"),
        ("trace.response", "persons"),
        ("trace.status", "last_legal_holder"),
    ):
        with pytest.raises(ProblemError, match=r"schema\.invalid"):
            check_parts(type_, {}, [name])
