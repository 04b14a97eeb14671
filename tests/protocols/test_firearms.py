"""Firearms: readings of serials, patterns, makes, calibres, scores, and the decision on 635 real traces."""

import csv
import re
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocols.codes import LISTS
from protocols.firearms import calibres, makes
from protocols.firearms.calibres import (
    calibre_code,
    contradicts,
    contradicts_type,
    possible,
    read_calibre,
    weapon_type_code,
)
from protocols.firearms.makes import is_known, make_key
from protocols.firearms.readings import read_serial
from protocols.firearms.scoring import Gun, decide, gun, known, score
from protocols.firearms.serials import damage, k1, k2, known_characters, matches, parse_pattern, search_keys, suspicious
from protocols.problems import ProblemError

CHAINS = Path(__file__).parents[2].parent / "shared/data/us_trace_chains/us_trace_chains.csv"


@pytest.mark.parametrize(
    ("raw", "pattern"),
    [
        ("TJX212??", "TJX212??"),
        ("4*0602", "4?0602"),
        ("_539_9", "?539?9"),
        ("DI81###", "DI81???"),
        ("132#830, where # may be 3, 8 or 9", "132[389]830"),
        ("132#830, onde # pode ser 3, 8 ou 9", "132[389]830"),
        ("21717X, X representa o último dígito que está ilegível.", "21717?"),
        ("KPC70XXX", "KPC70???"),
        ("T6472-17 xx xxxxx", "T647217{7,7}"),
        ("? ? ? ? ? 5 6", "{5,5}56"),
        ("2967 (last digits)", "2967$"),
        ("176 (digitos iniciais)/parcialmente determinada", "^176"),
        ("Primeiro digito não identificado, seguido de 270386.", "270386"),
        ("Removido parcialmente - TJX212??", "TJX212??"),
        ("KAT-------(parcialmente suprimido)", "KAT{7,7}"),
        ("132#830, donde # puede ser 3, 8 o 9", "132[389]830"),
        ("132#830, où # peut être 3, 8 ou 9", "132[389]830"),
        ("2967 (últimos dígitos)", "2967$"),
        ("2967 (derniers chiffres)", "2967$"),
        ("AB12 (primeros caracteres)", "^AB12"),
    ],
)
def test_a_partial_serial_is_read_into_a_pattern(raw: str, pattern: str) -> None:
    read = read_serial(raw)
    assert (read.status, read.k1, read.pattern, read.raw) == ("PARTIAL", "", pattern, raw)


@pytest.mark.parametrize("raw", ["35298 o 55298", "35298 or 55298", "35298 ou 55298", "35298 / 55298", "35298; 55298"])
def test_two_serials_with_or_between_them_are_alternatives(raw: str) -> None:
    assert read_serial(raw).alternatives == ("35298", "55298")
    assert read_serial(raw).k1 == ""


def test_serials_of_components_are_told_apart() -> None:
    frame, slide, barrel = ("FRAME", "AANK242"), ("SLIDE", "YWL058"), ("BARREL", "YWL058")
    assert read_serial("AANK242 (frame); YWL058 (barrel and slide)").components == (frame, slide, barrel)
    read = read_serial("AANK242 (armazón); YWL058 (cañón y corredera)")
    assert read.components == (frame, slide, barrel)[:1] + (slide, barrel)
    assert read_serial("AANK242 (carcasse), YWL058 (glissière)").components == (frame, slide)
    read = read_serial("none (frame); YWL0582 (slide)")
    assert (read.status, read.k1, read.components) == ("LEGIBLE", "YWL0582", (("SLIDE", "YWL0582"),))
    assert read_serial("raspado (armação); YWL05?2 (ferrolho)").k1 == ""
    read = read_serial("Ferrolho: AYP660 e Corpo: AYP672 US")
    assert read.components == (("SLIDE", "AYP660"), ("FRAME", "AYP672"))
    assert read.k1 == ""


@pytest.mark.parametrize(
    ("raw", "key"),
    [
        ("T 6368-13 B 02744 (cabo)", "T636813B02744"),
        ("332397.///", "332397"),
        ("SRA 65532", "SRA65532"),
        ("BVEU", "BVEU"),
        ("АВ1234", "AB1234"),  # noqa: RUF001  Cyrillic
        ("00123", "00123"),
    ],
)
def test_a_whole_serial_is_read_into_its_key(raw: str, key: str) -> None:
    assert (read_serial(raw).status, read_serial(raw).k1) == ("LEGIBLE", key)


@pytest.mark.parametrize(
    "raw",
    [
        "possibly ABC1234", "talvez ABC1234", "not 12345", "new 12345 old 54321", "modelo 1911 serie 123456", "Glock 17 ABC123",
        "cal 38 ABC1234", "12345, 67890", "12345/67890", "ABC1234 + ABC1235", "frame ABC1234 slide DEF5678", "C190594/EB398",
        "quizás 12345", "ABC1234 (provável)", "peut-être 12345",
    ],
)  # fmt: skip
def test_where_the_words_doubt_or_say_two_things_nothing_is_a_whole_serial(raw: str) -> None:
    read = read_serial(raw)
    assert (read.k1, read.status in ("LEGIBLE", "RESTORED")) == ("", False), read


@pytest.mark.parametrize("raw", ["Nº12345", "N°12345", "S/N: 12345", "serie: 12345", "Serial No. 12345", "nº 12345"])
def test_a_label_is_no_part_of_a_serial(raw: str) -> None:
    assert (read_serial(raw).k1, read_serial(raw).status) == ("12345", "LEGIBLE")


@pytest.mark.parametrize(
    ("raw", "status"),
    [
        ("REMOVIDO", "OBLITERATED"),
        ("Eliminado por ação mecânica (raspagem)", "OBLITERATED"),
        ("Não possui.", "NEVER_MARKED"),
        ("no serial number", "NEVER_MARKED"),
        ("ilegível devido a ferrugem", "NOT_VISIBLE_WEAR"),
        ("", "NOT_EXAMINED"),
        ("-", "NOT_EXAMINED"),
        ("vide observação", "UNREAD"),
        ("S/N", "NEVER_MARKED"),
        ("N/I", "NOT_VISIBLE_WEAR"),
        ("Não encontrado.", "NOT_VISIBLE_WEAR"),
        ("Surpimido mecanicamente", "OBLITERATED"),
        ("elmiminado", "OBLITERATED"),
        ("extraído por ação do tempo", "NOT_VISIBLE_WEAR"),
        ("borrado intencionalmente", "OBLITERATED"),
        ("sin número de serie", "NEVER_MARKED"),
        ("no se aprecia por oxidación", "NOT_VISIBLE_WEAR"),
        ("regrabado", "ALTERED_RESTAMPED"),
        ("effacé par meulage", "OBLITERATED"),
        ("aucun numéro", "NEVER_MARKED"),
        ("illisible, usure", "NOT_VISIBLE_WEAR"),
        ("ground off", "OBLITERATED"),
        ("not examined", "NOT_EXAMINED"),
        ("??????", "UNREAD"),
    ],
)
def test_words_without_a_serial_give_the_reason_for_none(raw: str, status: str) -> None:
    read = read_serial(raw)
    assert (read.status, read.k1, read.pattern) == (status, "", "")


@pytest.mark.parametrize(
    "raw", ["3.3E+54", "3,3E+54", "1970-12-01", "2021-07-24", "1970-12-01 00:00:00", "24-Jul", "Jul-24"]
)
def test_damage_by_a_spreadsheet_is_named_and_never_becomes_a_serial(raw: str) -> None:
    assert damage(raw) in ("exponent", "date")
    assert read_serial(raw).k1 == read_serial(raw).pattern == ""


@pytest.mark.parametrize("raw", ["12/70", "24/7", "335-31216", "1985-13-40", "E20322-00", "123E45", "MAY", "MAY 1234"])
def test_honest_text_is_not_damage(raw: str) -> None:
    assert damage(raw) is None


def test_deceptive_unicode_is_flagged_and_kept() -> None:
    assert suspicious("AB\u202e12")
    assert suspicious("AВ12")  # noqa: RUF001  Latin A, Cyrillic Ve
    assert not suspicious("SÃO12")
    assert read_serial("A\u200b1234").raw == "A\u200b1234"
    assert read_serial("A\u200b1234").suspicious


def test_search_keys_fold_what_they_say() -> None:
    keys = search_keys("00Oil-ab 8")
    assert (keys.k1, keys.k2, keys.no_zeros) == ("00OILAB8", "00011A88", "OILAB8")
    assert keys.k3 == ("00OIL", "AB", "8")
    assert keys.trigrams == ("00O", "0OI", "AB8", "ILA", "LAB", "OIL")
    assert search_keys("0").no_zeros == "0"


@pytest.mark.parametrize(
    ("pattern", "key", "expected"),
    [
        ("132[38]830", "1328830", True),
        ("132[38]830", "1329830", False),
        ("^12", "0123", False),
        ("12", "0123", True),
        ("23$", "0123", True),
        ("^0{1,2}3$", "01123", False),
        ("^0{1,3}3$", "01123", True),
        ("A{0,32}B", "AB", True),
        ("12?", "12", False),
        ("1", "", False),
    ],
)
def test_a_pattern_matches_what_its_grammar_says(pattern: str, key: str, *, expected: bool) -> None:
    assert matches(pattern, key) is expected


def test_a_pattern_of_runs_stays_fast_on_a_long_text() -> None:
    assert not matches("{0,32}{0,32}{0,32}{0,32}Z$", "A" * 200)


@pytest.mark.parametrize(
    "pattern", ["", "?", "{1,2}", "a", "A" * 33, "{3,2}A", "{0,33}A", "[A]B", "A[", "A^B", "A.*", "(A)", "\u0410\u0031"]
)
def test_what_is_not_a_pattern_is_refused(pattern: str) -> None:
    with pytest.raises(ProblemError, match=r"schema\.invalid"):
        parse_pattern(pattern)


@given(st.text("AB12?[]{},^$", max_size=12), st.text("AB12", max_size=12))
def test_matching_agrees_with_a_regular_expression(pattern: str, key: str) -> None:
    try:
        parse_pattern(pattern)
    except ProblemError:
        return
    assert matches(pattern, key) == bool(
        re.search(pattern.replace("?", ".").replace("{", ".{").replace("$", r"\Z"), key)
    )


PARSERS: list[Callable[[str], object]] = [
    read_serial, search_keys, k1, k2, damage, suspicious, parse_pattern, known_characters, make_key, possible,
    calibre_code, weapon_type_code, gun,
]  # fmt: skip
_WORDS = st.lists(
    st.sampled_from(
        [
            "12",
            "A",
            "XX",
            "?",
            "#",
            "--",
            "---",
            "(",
            ")",
            "ou",
            " e ",
            "where # may be 3, 8 or 9",
            "cano",
            ";",
            "/",
            "\u0130",
        ]
    )
    | st.text(max_size=4)
).map(" ".join)


@pytest.mark.parametrize("parse", PARSERS)
def test_any_text_gives_a_value_or_a_problem(parse: Callable[[str], object]) -> None:
    @given(st.text(max_size=300) | _WORDS)
    def whatever(text: str) -> None:
        try:
            parse(text)
        except ProblemError as problem:
            assert problem.code == "schema.invalid"  # noqa: PT017  anything else than this family is the failure

    whatever()


@given(st.text(max_size=60), st.text(max_size=60))
def test_any_two_texts_compare_the_same_both_ways(a: str, b: str) -> None:
    assert contradicts(a, b) == contradicts(b, a)
    assert contradicts(a, a) in ("same", "unknown")
    assert k1(k1(a)) == k1(a)


@given(st.text(max_size=60) | _WORDS)
def test_what_a_reading_holds_can_be_searched_for(text: str) -> None:
    read = read_serial(text)
    assert read.raw == text
    assert read.k1 == k1(read.k1)
    for pattern in (read.pattern, *read.alternatives, *(value for _, value in read.components)):
        assert not pattern or pattern.isalnum() or known_characters(pattern) > 0


@pytest.mark.parametrize(
    ("texts", "key"),
    [
        (("S&W", "SMITH & WESSON", "Smith and Wesson", "SMITH WESSON"), "SMITH_WESSON"),
        (("FN", "FNH", "Fabrique Nationale", "FN Herstal"), "FN"),
        (("SIG", "Sig Sauer", "Sig Sauer/Sigarms Inc."), "SIG_SAUER"),
        (("H&K", "Heckler & Koch", "HECKLER UND KOCH GmbH"), "HECKLER_KOCH"),
        (("Glock, Inc.", "GLOCK"), "GLOCK"),
        (("Zoraki", "ATAK ARMS"), "ATAK_ARMS"),
        (("Nameless Works", "nameless works Ltda."), "NAMELESSWORKS"),
        (("Anderson", "ANDERSON MFG.", "Anderson Manufacturing", "Anderson Manfacturing"), "ANDERSON"),
        (("Beretta USA (Umarex)", "Fabbrica d'Armi Pietro Beretta S.p.A.", "P. Beretta"), "BERETTA"),
        (("Israel Weapons Industries (I.W.I.) (Magnum Research)", "IWI"), "IWI"),
        (("Palematto State Armory", "PSA", "palmetto"), "PALMETTO_STATE_ARMORY"),
        (("INDÚSTRIA DE MATERIAL BÉLICO DO BRASIL", "Imbel"), "IMBEL"),
        (("", "N/A", "não identificada"), ""),
    ],
)
def test_spellings_of_a_make_share_a_key(texts: tuple[str, ...], key: str) -> None:
    assert {make_key(text) for text in texts} == {key}
    assert makes.VERSION == calibres.VERSION == "2"


def test_a_set_of_one_character_is_no_way_to_hide_a_known_one() -> None:
    with pytest.raises(ProblemError, match=r"schema\.invalid"):
        parse_pattern("A[BB]C?")


def test_makes_of_like_names_stay_apart() -> None:
    names = (
        "American Tactical",
        "American Derringer",
        "American Spirit Arms",
        "Sota Arms",
        "Stag Arms",
        "CZ",
        "Century Arms",
    )
    assert len({make_key(name) for name in names}) == len(names)


def test_a_make_of_the_table_has_a_country() -> None:
    assert all(country in LISTS["country"] for country in makes.COUNTRIES.values())
    assert makes.COUNTRIES[make_key("Glock")] == "AT"
    assert not is_known(make_key("Nameless Works"))


@pytest.mark.parametrize(
    ("raw", "repair", "damage", "code"),
    [
        ("0.38", ".38", "number", "38_SPECIAL"),
        ("0.4", ".40", "number", "40_SW"),
        ("0,22", ".22", "number", "22_LR"),
        ("0.556", ".556", "number", "556X45"),
        ("1970-12-01", "12/70", "date", "12_GAUGE"),
        ("1970-12-01 00:00:00", "12/70", "date", "12_GAUGE"),
        (".38", "", None, "38_SPECIAL"),
        (".380", "", None, "380_ACP"),
    ],
)
def test_a_damaged_calibre_is_read_as_what_it_was_and_flagged(
    raw: str, repair: str, damage: str | None, code: str
) -> None:
    read = read_calibre(raw, "REVOLVER")
    assert (read.raw, read.repair, read.damage, read.code) == (raw, repair, damage, code)


def test_a_number_that_two_calibres_become_is_open() -> None:
    assert set(read_calibre("0.38", "PISTOL").possible) == {"38_SUPER", "380_ACP"}
    assert read_calibre("0.38", "PISTOL").code == "UNKNOWN"
    assert read_calibre("0.45", "PISTOL").code == "45_ACP"


@pytest.mark.parametrize(
    "text", ["9mm x 18 extra", "9mm Ultra", "300 WSM", "303 Savage", "308 Norma Magnum", "223 WSSM", "12 mm"]
)
def test_a_word_that_may_name_another_cartridge_is_not_dropped(text: str) -> None:
    assert calibre_code(text, "RIFLE") == "UNKNOWN"


def test_an_imitation_is_not_its_original() -> None:
    assert "COLT" not in (make_key("Imitation (Colt)"), make_key("copia de Colt"), make_key("tipo (Colt)"))


@pytest.mark.parametrize(
    ("text", "weapon_type", "code"),
    [
        ("7.62", "RIFLE", "762X51"),
        ("7,62 X 39 MM (M43)", "RIFLE", "762X39"),
        ("7,62 X 54 MM M1908/30", "RIFLE", "762X54R"),
        ("38 s&w spl +p", "REVOLVER", "38_SPECIAL"),
        (".22 LR HYPER", "RIFLE", "22_LR"),
        ("45/410", "REVOLVER", "45_COLT"),
        ("9 mm corto", "PISTOL", "380_ACP"),
        (".40", "RIFLE", "40_SW"),
        ("12 GA", "UNKNOWN", "12_GAUGE"),
        ("nothing known", "PISTOL", "UNKNOWN"),
    ],
)
def test_calibres_as_people_write_them(text: str, weapon_type: str, code: str) -> None:
    assert calibre_code(text, weapon_type) == code


def test_a_calibre_is_read_with_its_weapon_type() -> None:
    assert {calibre_code(text) for text in ("9mm", "9 MM", "9 mm", "9 MM LUGER (9X19MM)", "9x19")} == {"9X19"}
    assert calibre_code(".380") == calibre_code("380auto") == "380_ACP"
    assert [calibre_code(".32", kind) for kind in ("UNKNOWN", "PISTOL", "REVOLVER", "SHOTGUN")] == [
        "UNKNOWN", "32_ACP", "32_SW_LONG", "32_GAUGE",
    ]  # fmt: skip
    assert [calibre_code("7.65 mm", kind) for kind in ("UNKNOWN", "PISTOL")] == ["UNKNOWN", "32_ACP"]
    assert calibre_code("12/70") == calibre_code("12 Gauge") == "12_GAUGE"


@pytest.mark.parametrize(
    ("a", "b", "expected"),
    [
        (".380", ".38", "different"),
        ("9mm", "9 MM", "same"),
        ("9mm", ".40", "different"),
        (".32", "7.65 mm", "unknown"),
        (".32", ".32 ACP", "unknown"),
        ("9mm", "", "unknown"),
        ("9mm", "9mm Whatever", "unknown"),
        (".308", "7.62x51", "same"),
    ],
)
def test_two_calibres_are_the_same_or_different_or_open(a: str, b: str, expected: str) -> None:
    assert contradicts(a, b) == expected


def test_weapon_types_are_read_and_compared() -> None:
    assert [weapon_type_code(t) for t in ("REVÓLVER", "Fuzil", "pistol", "??")] == [
        "REVOLVER",
        "RIFLE",
        "PISTOL",
        "UNKNOWN",
    ]
    assert contradicts_type("PISTOL", "REVOLVER") == "different"
    assert contradicts_type("RIFLE", "CARBINE") == "same"
    assert contradicts_type("UNKNOWN", "RIFLE") == "unknown"


GLOCK = gun("ABC123", ref="1", make="Glock", calibre="9mm", weapon_type="PISTOL", model="17")


def test_the_same_gun_scores_100_and_a_strange_one_0() -> None:
    assert score(GLOCK, GLOCK) == 100
    assert score(GLOCK, gun("XYZ987", make="Colt", calibre=".45", weapon_type="REVOLVER", model="Python")) == 0


def test_another_make_lowers_the_score_and_does_not_hide_the_record() -> None:
    other = gun("ABC123", ref="2", make="Colt", calibre="9mm", weapon_type="PISTOL", model="17")
    assert score(GLOCK, other) == 80
    decision = decide(GLOCK, [other])
    assert (decision.kind, decision.reason, decision.candidates) == (
        "person", "OTHER_MAKE_ONLY", (("2", 80, "the same serial; make other; calibre same; type same; model same"),),
    )  # fmt: skip


def test_one_record_of_serial_and_make_is_answered_automatically() -> None:
    other = gun("ABC123", ref="2", make="Colt")
    decision = decide(gun("abc-123", make="GLOCK INC"), [other, GLOCK])
    assert (decision.kind, decision.record, decision.candidates[0][0]) == ("auto", "1", "1")


@pytest.mark.parametrize(
    ("question", "reason"),
    [
        (gun("ABC123", make="Glock", calibre=".40"), "CALIBRE_CONTRADICTS"),
        (gun("ABC123", make="Glock", weapon_type="RIFLE"), "TYPE_CONTRADICTS"),
        (gun("ABC123"), "MAKE_MISSING"),
        (gun("ABC12?", make="Glock"), "SERIAL_PARTIAL"),
        (gun("ABC123 or ABC128", make="Glock"), "SERIAL_PARTIAL"),
        (gun("", make="Glock"), "SERIAL_MISSING"),
        (gun("ABC999", make="Glock"), "NO_RECORD"),
    ],
)
def test_everything_else_goes_to_a_person(question: Gun, reason: str) -> None:
    decision = decide(question, [GLOCK])
    assert (decision.kind, decision.record, decision.reason) == ("person", None, reason)


def test_two_records_of_one_make_are_a_persons_choice() -> None:
    assert decide(GLOCK, [GLOCK, gun("ABC123", ref="2", make="Glock")]).reason == "SEVERAL_OF_MAKE"


def test_no_candidates_for_fewer_than_four_known_characters() -> None:
    question = gun("ABC???", make="Glock")
    assert known(question) == 3
    assert decide(question, [GLOCK]).candidates == ()
    assert decide(gun("ABC1??", make="Glock"), [GLOCK]).candidates != ()


def test_at_most_25_candidates_are_shown_best_first() -> None:
    shown = decide(gun("ABC1??"), [gun(f"ABC{n}", ref=str(n)) for n in range(100, 140)]).candidates
    assert len(shown) == 25
    assert [each.score for each in shown] == sorted((each.score for each in shown), reverse=True)


@given(
    st.builds(gun, _WORDS.filter(lambda t: len(t) <= 200), make=st.text(max_size=9), calibre=st.text(max_size=9)),
    st.text(max_size=9),
)
def test_any_score_is_a_percentage(question: Gun, serial: str) -> None:
    record = gun(serial, ref="1")
    assert 0 <= score(question, record) <= 100
    assert decide(question, [record]).kind in ("auto", "person")


def test_635_real_traces_are_decided_as_counted() -> None:
    if not CHAINS.exists():
        pytest.skip("needs ../shared/data/us_trace_chains")
    with CHAINS.open(newline="") as file:
        rows = list(csv.DictReader(file))
    records = [
        gun(r["firearm_serial"], ref=r["record_id"], make=r["manufacturer_name"], calibre=r["firearm_caliber"])
        for r in rows
    ]
    reasons: Counter[str] = Counter()
    for question in records:
        decision = decide(question, [r for r in records if question.serial_k1 and r.serial_k1 == question.serial_k1])
        assert decision.record == (question.ref if decision.kind == "auto" else None)
        reasons[decision.reason] += 1
    assert reasons["ONLY_ONE"] == 449
    assert reasons["SERIAL_SHORT"] == 22
    assert reasons["SEVERAL_OF_MAKE"] == 29
    assert reasons["SERIAL_MISSING"] + reasons["MAKE_MISSING"] == 135
