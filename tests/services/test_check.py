"""The dry run of a trace request: to whom, why, what is missing and what is likely to come of it; nothing is kept."""

from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from gateway.runtime.world import SystemClock
from gateway.services.check import Check
from protocols.directory import Competence, Directory
from protocols.routing import WHY, routes
from tests.federation import EVERY_ROLE, Federation, Json, trace_request

AT_GLOCK = [Competence(country="AT", makes=["Glock", "Steyr"])]
AT_ALL = [Competence(country="AT")]


class Listed:
    """A source of one directory."""

    def __init__(self, directory: Directory) -> None:
        self.current = directory


async def listed(fed: Federation, *, hubs: bool = False, **competences: list[Competence]) -> Directory:
    """Members of every role that answer for what is given; `asker` asks."""
    await fed.strangers("asker", *competences, roles=(*EVERY_ROLE, "hub") if hubs else EVERY_ROLE)
    directory = fed.directory
    changed = {
        f"testnet/{name}": directory.records[f"testnet/{name}"].model_copy(
            update={"competences": each, "name": f"{name} Ltd"}
        )
        for name, each in competences.items()
    }
    return replace(directory, records={**directory.records, **changed})


def checked(directory: Directory, body: Json, to: str | None = None) -> dict[str, Any]:
    return Check(member="testnet/asker", directory=Listed(directory), clock=SystemClock()).check(body, to=to)


async def test_a_request_goes_to_the_importer_then_the_maker_then_the_country_that_made_the_weapon(
    fed: Federation,
) -> None:
    directory = await listed(
        fed, hubs=True, state=AT_ALL, maker=AT_GLOCK, importer=[], other=[Competence(country="DE")]
    )

    def asked(**known: str) -> list[tuple[str, str]]:
        found = routes(directory, "testnet/asker", **{"make": ""} | known)
        return [(way.member.partition("/")[2], way.rule) for way in found]

    assert asked(make="GLOCK", country="AT", importer="IMPORTER, LTD.") == [
        ("importer", "IMPORTER"),
        ("maker", "MAKER"),
        ("state", "COUNTRY_OF_MANUFACTURE"),
    ]
    assert asked(make="GLOCK") == [("maker", "MAKER"), ("state", "COUNTRY_OF_MAKER")]
    assert asked(make="GLOCK", country="DE") == [("other", "COUNTRY_OF_MANUFACTURE")]  # the maker answers for AT alone
    assert asked(make="BERETTA", country="AT") == [("state", "COUNTRY_OF_MANUFACTURE")]
    everybody = [(name, "HUB") for name in ("importer", "maker", "other", "state")]
    assert asked(country="IT") == everybody, "nobody's record names it: hubs, and here all have every role"


async def test_nobody_is_named_whom_the_directory_does_not_let_us_ask(fed: Federation) -> None:
    directory = await listed(fed, hubs=True, maker=AT_GLOCK)
    network = directory.network.model_copy(update={"matrix": {}})
    alone = replace(directory, network=network, admitted=directory.admitted)
    assert routes(alone, "testnet/asker", make="GLOCK") == []
    assert [way.rule for way in routes(directory, "testnet/asker", make="OTHER")] == ["HUB"]
    found = checked(alone, trace_request("ABC1234"), "testnet/maker")
    assert found["not_permitted"].startswith("msg.not_permitted")
    assert found["advice"].startswith("Ask another member")


async def test_the_answer_says_what_would_help_most(fed: Federation) -> None:
    directory = await listed(fed, maker=AT_GLOCK)
    body = trace_request("ABC1234") | {}
    whole = checked(directory, body, "testnet/maker")
    assert (whole["faults"], whole["likely"]) == ([], "AUTOMATIC")
    assert whole["completeness"] > 50
    [way] = whole["routes"]
    assert way == {"member": "testnet/maker", "rule": "MAKER", "why": WHY["MAKER"]}

    def advice(**weapon: Any) -> str:
        return str(checked(directory, body | {"weapon": body["weapon"] | weapon})["advice"])

    part = body["weapon"]["components"][0]

    def marked(**mark: Any) -> list[Json]:
        return [part | {"marks": [part["marks"][0] | mark]}]

    gone = [
        part
        | {
            "marks": [
                {name: value for name, value in part["marks"][0].items() if name != "pattern"}
                | {"status": {"code": "OBLITERATED", "raw": ""}}
            ]
        }
    ]
    assert advice(components=gone).startswith("Have the serial restored")
    assert advice(components=marked(pattern="AB1?")).startswith("Read at least 4 characters")
    assert advice(make={"code": "UNKNOWN", "raw": ""}).startswith("Name the make")
    assert advice(make={"code": "RUGER", "raw": ""}).startswith("State the country of manufacture")
    assert advice(type={"code": "UNKNOWN", "raw": ""}).startswith("State type and calibre")


async def test_a_body_with_faults_is_answered_with_what_to_correct(fed: Federation) -> None:
    directory = await listed(fed, maker=AT_GLOCK)
    body = trace_request("ABC1234")
    del body["circumstances"]
    found = checked(directory, body)
    assert [fault["pointer"] for fault in found["faults"]] == ["/body/circumstances"]
    assert found["advice"].startswith("Correct /body/circumstances")
    assert found["routes"], "whom to ask does not depend on it"
    assert "completeness" not in found
    beside = Check(member="testnet/asker", directory=Listed(directory), clock=SystemClock()).check(
        trace_request("ABC1234") | {"persons": {"part": "persons"}},
        to="testnet/asker", handling={"codes": []}, parts={"secret": {}}, expires=datetime(2100, 1, 1, tzinfo=UTC),
    )  # fmt: skip
    assert {fault["pointer"] for fault in beside["faults"]} == {"/handling/purpose", "/to", "/expires", ""}
    named = Check(member="testnet/asker", directory=Listed(directory), clock=SystemClock()).check(
        trace_request("ABC1234") | {"persons": {"part": "persons"}}
    )
    assert [fault["pointer"] for fault in named["faults"]] == ["/body/persons/part"]
    assert named["advice"] != "Send it."
    for nonsense in (
        {},
        {"weapon": 1},
        {"weapon": {"make": [], "importer": {}, "country_of_manufacture": {"code": 3}}},
    ):
        assert checked(directory, nonsense)["faults"]
