"""Patterns over answered traces: each with its threads, no person and no serial."""

from typing import Any

from gateway.http.picture import diversion_page
from protocols.firearms.scoring import gun
from protocols.messages.chain import Told, chain_of
from protocols.messages.diversion import Case, Pattern, patterns
from tests.protocols.bodies import event, pair

SOLD = event(
    "2019-01-05", "RETAIL_SALE", **{"from": pair("DEALER"), "to": pair("PRIVATE_PERSON"), "country": pair("US")}
)
STOCK = event(
    "2004", "DELIVERED_TO_STATE", **{"from": pair("IMPORTER"), "to": pair("STATE_DEFENCE"), "country": pair("CI")}
)
FOUND = {"recovered_on": "2020-03-10", "country": pair("CI"), "context": pair("SEARCH")}


def case(
    thread: str,
    serial: str = "",
    make: str = "Glock",
    *events: dict[str, Any],
    dealers: tuple[tuple[str, str], ...] = (),
) -> Case:
    chain = chain_of([Told(member="n/a", events=events)], FOUND if events else None)
    return Case(thread=thread, gun=gun(serial, make=make), chain=chain, dealers=dealers)


def found(kind: str, *cases: Case) -> list[Pattern]:
    return [each for each in patterns(cases) if each.kind == kind]


def test_a_run_is_of_one_make_one_prefix_and_near_numbers() -> None:
    cases = [case("a", "ABC100"), case("b", "ABC109"), case("c", "ABC119"), case("d", "ABC150")]
    others = [
        case("e", "ABD101"),
        case("f", "ABC101", "Ruger"),
        case("g", "ABC0101"),
        case("h", "ABC???"),
        case("i", "ABC101", ""),
    ]
    [run] = found("SERIAL_RUN", *cases, *others)
    assert (run.what, run.threads) == ("3 weapons of GLOCK within 20 numbers", ("a", "b", "c"))
    assert found("SERIAL_RUN", case("a", "ABC100"), case("b", "ABC100")) == [], "one weapon asked for twice is no run"


def test_what_two_share_is_a_pattern_and_what_one_has_is_none() -> None:
    [transfer] = found("LAST_TRANSFER", case("a", "", "", SOLD), case("b", "", "", SOLD), case("c"))
    assert transfer.threads == ("a", "b")
    assert transfer.what.endswith(", 2019")
    assert found("LAST_TRANSFER", case("a", "", "", SOLD)) == []
    [stock] = found("SAME_STOCK", case("a", "", "", STOCK), case("b", "", "", STOCK))
    assert "Côte d" in stock.what


def test_dealers_are_one_under_every_spelling() -> None:
    [dealer] = found(
        "SAME_DEALER", case("a", dealers=(("Joe's Guns, Inc.", "US"),)), case("b", dealers=(("JOES GUNS", "US"),))
    )
    assert dealer == Pattern(kind="SAME_DEALER", what="one dealer, United States", threads=("a", "b"))
    nobody = [case(name, dealers=((text, "US"),)) for name, text in (("a", "Unknown"), ("b", "N/A"))]
    assert found("SAME_DEALER", *nobody) == []
    abroad = [case(name, dealers=(("Joe's Guns", country),)) for name, country in (("a", "US"), ("b", "CA"))]
    assert found("SAME_DEALER", *abroad) == []


def test_one_weapon_that_was_asked_for_twice_is_no_pattern() -> None:
    twice = [case(thread, "ABC1234", "Glock", SOLD, dealers=(("Joe's Guns", "US"),)) for thread in "ab"]
    assert {each.kind for each in patterns(twice)} == {"SHORT_TIME"}


def test_one_embargoed_destination_and_one_short_time_are_patterns_already() -> None:
    shipped = event(
        "2006-05", "EXPORTED", **{"from": pair("MANUFACTURER"), "to": pair("STATE_DEFENCE"), "country": pair("CI")}
    )
    [embargo] = found("EMBARGOED_DESTINATION", case("a", "", "", shipped))
    assert "1572" in embargo.what
    [short] = found("SHORT_TIME", case("a", "", "", SOLD | {"diversion_here": False}))
    assert short.threads == ("a",)


def test_the_most_threads_come_first_and_the_page_holds_no_serial() -> None:
    cases = [
        case(f"t{n}", f"ABC10{n}", "Glock", SOLD, dealers=(("Joe's <b>Guns</b>", "US"),) if n < 2 else ())
        for n in range(4)
    ]
    made = patterns(cases)
    assert [len(each.threads) for each in made] == sorted((len(each.threads) for each in made), reverse=True)
    report = {"threads": 4, "patterns": [{"kind": e.kind, "what": e.what, "threads": list(e.threads)} for e in made]}
    page = diversion_page(report)
    assert "ABC10" not in page
    assert "Joe" not in page
    assert "<b>" not in page
    assert page.count("<rect") == len({each.kind for each in made})
    assert "No two of them" in diversion_page({"threads": 0, "patterns": []})
