"""Code lists: what is shipped is the shared list and more, each list with its source."""

import json
from pathlib import Path

import pytest

from protocols import codes
from protocols.firearms import calibres

SHARED = Path(__file__).parents[2].parent / "shared"


def test_every_list_has_a_source_and_no_code_twice() -> None:
    document = json.loads((Path(codes.__file__).parent / "codelists.json").read_bytes())
    assert set(document["lists"]) == set(codes.SOURCES)
    assert all(len(set(listed)) == len(listed) for listed in document["lists"].values())


def test_the_lists_are_frozen_and_carry_version_and_hash() -> None:
    assert all(isinstance(listed, frozenset) for listed in codes.LISTS.values())
    assert codes.VERSION == "2"
    assert len(codes.SHA256) == 64


def test_the_shared_lists_are_taken_over_unchanged() -> None:
    if not SHARED.exists():
        pytest.skip("needs ../shared/codelists.json")
    shared = json.loads((SHARED / "codelists.json").read_bytes())
    assert {name: codes.LISTS[name] for name in shared} == {name: frozenset(listed) for name, listed in shared.items()}


def test_there_are_twenty_results_and_249_countries() -> None:
    assert len(codes.LISTS["trace_result"]) == 20
    assert len(codes.LISTS["country"]) == 249


def test_the_calibre_table_speaks_of_listed_weapon_types_only() -> None:
    table = json.loads((Path(calibres.__file__).parent / "calibres.json").read_bytes())
    named = {kind for entry in table["calibres"].values() for kind in entry["types"]} | set(table["types"])
    assert named <= codes.LISTS["weapon_type"]


def test_every_code_has_a_label_of_its_own_in_seven_languages() -> None:
    assert codes.languages() == ("en", "fr", "es", "pt", "ar", "ru", "zh")
    for name, listed in codes.LISTS.items():
        for language in codes.languages():
            said = {code: codes.label(name, code, language) for code in listed}
            assert len(set(said.values())) == len(said), (name, language)
            assert all(text.strip() and text != code for code, text in said.items()), (name, language)
    assert codes.label("refusal_ground", "NO_SUCH") == "NO_SUCH"
    assert codes.label("refusal_ground", "ITI22_NATIONAL_SECURITY", "xx") == "ITI22_NATIONAL_SECURITY"
