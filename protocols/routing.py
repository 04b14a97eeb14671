"""To whom a trace request goes: from what the members' records say they answer for, each with its reason."""

from dataclasses import dataclass
from typing import Literal

from protocols.directory import Directory, Record
from protocols.firearms.makes import COUNTRIES, make_key

Rule = Literal["IMPORTER", "MAKER", "COUNTRY_OF_MANUFACTURE", "COUNTRY_OF_MAKER", "HUB"]
WHY: dict[Rule, str] = {
    "IMPORTER": "it is the importer that the weapon names: the last legal import is the shortest way (UN ITI 17)",
    "MAKER": "it answers for weapons of this make",
    "COUNTRY_OF_MANUFACTURE": "it answers for weapons made in this country",
    "COUNTRY_OF_MAKER": "no country is stated, and weapons of this make are made in this one, in the main",
    "HUB": "nobody's record names this weapon; a hub may know who answers for it",
}
ROUTES_MAX = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """A member to ask, and the rule that names it."""

    member: str
    rule: Rule


def routes(directory: Directory, asker: str, *, make: str, importer: str = "", country: str = "") -> list[Route]:
    """Active members that may be sent a trace request, the best first: importer, maker, country of manufacture; hubs last.

    `make` is a make key, `importer` a text, `country` ISO 3166-1 alpha-2; "" is "not known".
    """
    may = [name for name in directory.records if name != asker and directory.permits("trace.request", asker, name)]
    importer_key = make_key(importer)
    found = [
        Route(member=name, rule=rule)
        for name in may
        if (rule := _rule(directory.records[name], make, importer_key, country)) is not None
    ]
    if not found:
        found = [Route(member=name, rule="HUB") for name in may if "hub" in directory.admitted[name].roles]
    order = list(WHY)
    return sorted(found, key=lambda route: (order.index(route.rule), route.member))[:ROUTES_MAX]


def _rule(record: Record, make: str, importer: str, country: str) -> Rule | None:
    if importer and importer == make_key(record.name):
        return "IMPORTER"
    rules: list[Rule] = []
    for each in record.competences:
        elsewhere = each.country is not None and country and each.country != country
        if make and make in map(make_key, each.makes) and not elsewhere:
            rules.append("MAKER")
        elif not each.makes and country and each.country == country:
            rules.append("COUNTRY_OF_MANUFACTURE")
        elif not each.makes and not country and each.country == COUNTRIES.get(make):
            rules.append("COUNTRY_OF_MAKER")
    return min(rules, key=list(WHY).index, default=None)
