"""The chain of supply: ordered, its gaps explicit, where the legal way ends, embargoes by destination and date."""

import html
import re
from typing import Any

from gateway.http.picture import chain_page
from protocols.codes import label
from protocols.firearms.embargoes import embargoed, embargoes
from protocols.messages.chain import Told, chain_of
from tests.protocols.bodies import event, pair

Json = dict[str, Any]
FOUND: Json = {"recovered_on": "2021-03-10", "country": pair("CI"), "context": pair("SEARCH")}
MADE = event("1998-02-01", "MANUFACTURED", **{"from": pair("MANUFACTURER"), "to": pair("MANUFACTURER")})
EXPORTED = event(
    "1998-06-01", "EXPORTED", **{"from": pair("MANUFACTURER"), "to": pair("IMPORTER"), "country": pair("US")}
)
SOLD = event(
    "2019-01-05", "RETAIL_SALE", **{"from": pair("DEALER"), "to": pair("PRIVATE_PERSON"), "country": pair("US")}
)


def kinds(chain: Json) -> list[str]:
    return [each["kind"]["code"] for each in chain["events"]]


def test_what_several_members_tell_is_one_chain_with_its_gaps() -> None:
    chain = chain_of([Told(member="n/b", events=[SOLD, EXPORTED]), Told(member="n/a", events=[MADE, EXPORTED])], FOUND)
    assert kinds(chain) == ["MANUFACTURED", "EXPORTED", "GAP", "RETAIL_SALE", "GAP", "RECOVERED"]
    assert chain["events"][1]["by"] == ["n/a", "n/b"], "told alike, it is one"
    gap = chain["events"][2]
    assert (gap["inferred"], gap["from"]["code"], gap["to"]["code"]) == (True, "IMPORTER", "DEALER")
    assert chain["diversion"]["event"] == 2
    assert "time_to_diversion_days" in chain


def test_a_gap_that_a_member_tells_is_not_told_twice() -> None:
    told = event("2000", "GAP", **{"from": pair("IMPORTER"), "to": pair("DEALER")})
    chain = chain_of([Told(member="n/a", events=[MADE, EXPORTED, told, SOLD])], None)
    assert kinds(chain) == ["MANUFACTURED", "EXPORTED", "GAP", "RETAIL_SALE"]
    assert not chain["events"][2].get("inferred")


def test_the_legal_way_ends_where_a_member_says_so_before_all_else() -> None:
    stolen = event("2020-01-01", "STOLEN", **{"from": pair("PRIVATE_PERSON"), "to": pair("UNKNOWN")})
    says = SOLD | {"diversion_here": True}
    assert chain_of([Told(member="n/a", events=[says, stolen])], FOUND)["diversion"]["event"] == 0
    chain = chain_of([Told(member="n/a", events=[SOLD, stolen])], FOUND)
    assert chain["diversion"] == {"event": 1, "why": "it was lost or stolen"}
    assert chain["time_to_diversion_days"] == 361
    assert {"code": "SHORT_TIME_TO_RECOVERY", "by": ["computed"]} in chain["indicators"]
    odd = EXPORTED | {"authorised": False}
    assert chain_of([Told(member="n/a", events=[MADE, odd])], None)["diversion"]["event"] == 1


def test_embargoes_are_hit_by_destination_and_date() -> None:
    shipped = event(
        "2006-05", "EXPORTED", **{"from": pair("MANUFACTURER"), "to": pair("STATE_DEFENCE"), "country": pair("CI")}
    )
    (hit,) = chain_of([Told(member="n/a", events=[shipped])], None)["embargo_hits"]
    assert (hit["authority"], hit["instrument"], hit["event"], hit["confidence"]) == ("UN", "UNSCR 1572", 0, "high")
    for other in (
        shipped | {"date": "2004-11-14"},
        shipped | {"date": "2017"},
        shipped | {"country": pair("GH")},
        shipped | {"kind": pair("PROOFED")},
    ):
        assert chain_of([Told(member="n/a", events=[other])], None)["embargo_hits"] == []
    assert embargoed("CI", "2016-04-28", "2016-04-28"), "its last day counts"
    assert {each.confidence for each in embargoes()} == {"high"}
    assert all(re.fullmatch(r"[A-Z]{2}", each.target) and each.instrument for each in embargoes())


def test_indicators_say_who_states_them() -> None:
    told = [Told(member=f"n/{name}", events=[], indicators=[pair("BULK_PURCHASE")]) for name in "ba"]
    assert chain_of(told, None) == {
        "events": [], "indicators": [{"code": "BULK_PURCHASE", "by": ["n/a", "n/b"]}], "embargo_hits": []
    }  # fmt: skip


def test_the_page_says_in_its_table_what_its_picture_shows() -> None:
    hop = {"hop": 1, "counterpart": "n/<b>", "state": "ANSWERED", "result": "TRACED_TO_DEALER"}
    chain: Json = {"thread": "t", "hops": [hop]} | chain_of([Told(member="n/a", events=[MADE, EXPORTED, SOLD])], FOUND)
    page = chain_page(chain)
    table, picture = page[page.index("<caption>") :], page[page.index("<svg") : page.index("</svg>")]
    for each in chain["events"]:
        assert each["date"] in table
        assert each["date"] in picture
    assert picture.count("<circle") == len(chain["events"]) + 1, "the ring is where the legal way ends"
    assert "the legal way ends here" in table
    assert "n/&lt;b&gt;" in page
    assert "<script" not in page
    assert "http" not in re.sub(r"<!doctype.*?>|xmlns=\S+", "", page), "nothing from elsewhere"
    assert "No supply event" in chain_page({"thread": "t", "hops": [hop]} | chain_of([], None))


def test_the_map_numbers_each_stay_and_leaves_out_what_it_does_not_know() -> None:
    back = event(
        "2019-06-01", "RETRANSFERRED", **{"from": pair("PRIVATE_PERSON"), "to": pair("DEALER"), "country": pair("DE")}
    )
    again = event("2019-07-01", "EXPORTED", **{"from": pair("DEALER"), "to": pair("BROKER"), "country": pair("US")})
    page = chain_page(
        {"thread": "t", "hops": []} | chain_of([Told(member="n/a", events=[EXPORTED, SOLD, back, again])], FOUND)
    )
    stays = [html.unescape(name) for name in re.findall(r"<li>(.*?)</li>", page)][:4]
    assert stays == ["United States", "Germany", "United States", label("country", "CI")]
    assert page.count('class="way"') == 3
    assert ">1, 3</text>" in page, "a country that is come back to has both numbers"
    nowhere = event(
        "1998", "MANUFACTURED", **{"from": pair("MANUFACTURER"), "to": pair("MANUFACTURER"), "country": pair("UNKNOWN")}
    )
    assert "<h3>Where</h3>" not in chain_page(
        {"thread": "t", "hops": []} | chain_of([Told(member="n/a", events=[nowhere])], None)
    )
