"""Identification: words become a weapon that a message takes; what may be damaged or cut is flagged with its repair."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocols.firearms.calibres import calibre_code
from protocols.firearms.formats import parse_format
from protocols.firearms.makes import is_known
from protocols.firearms.references import alike, candidates, doubts, formats, kinds
from protocols.firearms.scoring import decide, gun
from protocols.messages import asked_gun, validate_model
from protocols.messages.identify import Texts, identify, kind_json
from protocols.messages.shared import Weapon


def read(**texts: Any) -> tuple[dict[str, Any], dict[str, str]]:
    """The weapon, and pointer -> code of the findings."""
    found = identify(Texts(**texts))
    validate_model(Weapon, found.weapon, "weapon")
    return found.weapon, {fault.pointer.removeprefix("/weapon/"): fault.code for fault in found.findings}


def test_words_of_an_examiner_become_a_weapon() -> None:
    weapon, findings = read(serial="ABC 1234", make="Glock Ges.m.b.H.", model="17", calibre="9 mm", type="pistola")
    codes = {name: weapon[name]["code"] for name in ("type", "make", "calibre")}
    assert codes == {"type": "PISTOL", "make": "GLOCK", "calibre": "9X19"}
    assert "country_of_manufacture" not in weapon, "many are made elsewhere: nothing is guessed"
    [part] = weapon["components"]
    assert (part["kind"]["code"], part["marks"][0]["pattern"], part["marks"][0]["text_raw"]) == (
        "FRAME",
        "^ABC1234$",
        "ABC 1234",
    )
    assert findings == {}


def test_each_component_keeps_its_own_mark() -> None:
    weapon, _ = read(serial="AANK242 (frame); YWL058 (barrel and slide)")
    assert [(part["kind"]["code"], part["marks"][0]["pattern"]) for part in weapon["components"]] == [
        ("FRAME", "AANK242"),
        ("SLIDE", "YWL058"),
        ("BARREL", "YWL058"),
    ]
    assert read(type="fuzil", serial="123456")[0]["components"][0]["kind"]["code"] == "RECEIVER"


def test_a_printed_frame_never_had_a_serial_and_its_factory_slide_does_not_match_it() -> None:
    weapon, _ = read(serial="none (frame); YWL0582 (slide)", make="Glock", type="pistol", origin_class="printed")
    frame, slide = weapon["components"]
    assert (frame["kind"]["code"], frame["marks"][0]["status"]["code"]) == ("FRAME", "NEVER_MARKED")
    assert (slide["kind"]["code"], slide["marks"][0]["pattern"], slide["matches_frame"]) == (
        "SLIDE",
        "^YWL0582$",
        False,
    )
    question = asked_gun(validate_model(Weapon, weapon, "weapon"))
    assert (question.serial_k1, question.loose) == ("YWL0582", True), "it is traced by its slide, and by a person"


def test_a_slide_never_answers_for_a_frame_that_was_ground_off() -> None:
    weapon, _ = read(serial="raspado (frame); YWL0582 (slide)", make="Glock", type="pistol")
    frame, slide = weapon["components"]
    assert (frame["kind"]["code"], frame["marks"][0]["status"]["code"]) == ("FRAME", "OBLITERATED")
    assert slide["kind"]["code"] == "SLIDE"
    record = gun("YWL0582", ref="1", make="Glock", weapon_type="PISTOL")
    decision = decide(asked_gun(validate_model(Weapon, weapon, "weapon")), [record])
    assert (decision.kind, decision.reason, decision.candidates[0].ref) == ("person", "COMPONENT_ONLY", "1")


def test_a_serial_that_no_pattern_can_hold_is_flagged_and_not_sent() -> None:
    weapon, _ = read(serial="A1" * 20)
    assert weapon["components"][0]["marks"][0]["status"]["code"] == "UNREAD"


@pytest.mark.parametrize(
    ("texts", "pointer", "code", "fix"),
    [
        ({"calibre": "1970-12-01"}, "calibre", "damaged", "12/70"),
        ({"calibre": "0.38", "type": "revolver"}, "calibre", "damaged", ".38"),
        ({"model": "2021-07-24"}, "model", "damaged", "24/7"),
        ({"serial": "3.3E+54"}, "serial", "damaged", "33E53"),
        ({"serial": "T6472", "make": "Canik55"}, "serial", "cut_at_hyphen", "T6472-"),
        ({"serial": "335", "make": "Ruger"}, "serial", "cut_at_hyphen", "335-"),
        ({"serial": "1234", "make": "Imbel"}, "serial", "zeros_lost", "01234"),
        ({"make": "Nameless Works"}, "make", "unknown", "spelling"),
        ({"calibre": ".32"}, "calibre", "open", "type"),
        ({"calibre": "gibberish"}, "calibre", "unknown", "9x19"),
        ({"serial": "raspado", "make": "S&W"}, "components", "no_serial", "crane"),
        ({"serial": "none", "origin_class": "printed"}, "components", "no_serial", "slide"),
    ],
)
def test_what_a_person_should_look_at_is_flagged_with_its_way_out(
    texts: dict[str, str], pointer: str, code: str, fix: str
) -> None:
    found = [each for each in identify(Texts(**texts)).findings if each.pointer == f"/weapon/{pointer}"]
    assert [each.code for each in found] == [code]
    assert fix in found[0].fix


@pytest.mark.parametrize("serial", ["335-31216", "33531216", "T6472-16AI00034", "ABC123"])
def test_a_whole_serial_is_not_taken_for_a_cut_one(serial: str) -> None:
    make = {"3": "RUGER", "T": "CANIK", "A": "GLOCK"}[serial[0]]
    assert doubts(serial, make) == ()


@given(
    st.fixed_dictionaries(
        {}, optional={name: st.text(max_size=60) for name in ("serial", "make", "model", "calibre", "type", "importer")}
    )
)
def test_whatever_is_written_gives_a_weapon_or_a_clear_refusal(texts: dict[str, str]) -> None:
    found = identify(Texts(**texts))
    if not texts.get("importer") and not texts.get("model"):
        validate_model(Weapon, found.weapon, "weapon")


def test_the_reference_table_speaks_the_codes_of_the_others() -> None:
    for kind in kinds():
        assert is_known(kind.make), kind
        assert all(calibre_code(code.replace("_", " "), kind.type) for code in kind.calibres)
        for each in formats(kind.make):
            parse_format(each.format)
    assert len({kind.number for kind in kinds()}) == len(kinds())


def test_a_description_finds_its_kind_and_what_is_mistaken_for_it() -> None:
    (first, score), *_ = candidates(make="TAURUS", model="PT-92 AF", calibre="9X19", weapon_type="PISTOL")
    assert (first.model, score) == ("PT 92", 100)
    assert {(each.make, each.model) for each in alike(first)} >= {("BERETTA", "92")}
    shown = kind_json(first, score)
    assert shown["serial_formats"]
    assert "grip" in shown["hidden_marks"]
    assert candidates(weapon_type="PISTOL") == [], "a type alone describes no kind"
    assert [kind.model for kind, _ in candidates(weapon_type="RIFLE", calibre="545X39")] == ["AK-74"]
