"""Patterns over answered traces: what several weapons have in common on their way out of the legal market."""

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any, Literal

from protocols.codes import label
from protocols.firearms.makes import make_key
from protocols.firearms.scoring import Gun

Kind = Literal["SERIAL_RUN", "LAST_TRANSFER", "EMBARGOED_DESTINATION", "SHORT_TIME", "SAME_DEALER", "SAME_STOCK"]
RUN_GAP_MAX = 10
"""Two weapons of one make and prefix whose numbers are no further apart left the works, and often the shop, together."""
_NUMBERED = re.compile(r"(.*?)(\d{1,15})([A-Z]{0,2})", re.ASCII)
_STOCK = ("DELIVERED_TO_STATE", "ISSUED_TO_UNIT")
_SHORT = "SHORT_TIME_TO_RECOVERY"


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One answered trace: its weapon, its chain as `chain_of` makes it, the dealers that were named as (name, country)."""

    thread: str
    gun: Gun
    chain: dict[str, Any]
    dealers: Sequence[tuple[str, str]]

    @property
    def weapon(self) -> tuple[str, ...]:
        """What tells one weapon from another, whoever was asked about it."""
        return (self.gun.make, self.gun.serial_k1) if self.gun.serial_k1 else (self.thread,)


@dataclass(frozen=True, slots=True, kw_only=True)
class Pattern:
    """What some traces have in common; no person and no serial stands in `what`."""

    kind: Kind
    what: str
    threads: tuple[str, ...]


def patterns(cases: Sequence[Case]) -> list[Pattern]:
    """Every pattern, those with the most traces first. Two weapons make one; an embargoed destination or a short time, one alone."""
    found = [
        *_runs(cases),
        *_shared("LAST_TRANSFER", ((case, what, what) for case in cases for what in _last_transfer(case))),
        *_shared("EMBARGOED_DESTINATION", ((case, what, what) for case in cases for what in _embargoes(case)), least=1),
        *_short(cases),
        *_shared("SAME_DEALER", (each for case in cases for each in _dealers(case))),
        *_shared("SAME_STOCK", ((case, what, what) for case in cases for what in _stocks(case))),
    ]
    return sorted(found, key=lambda each: (-len(each.threads), each.kind, each.what))


def _shared(kind: Kind, found: Iterable[tuple[Case, str, str]], *, least: int = 2) -> Iterator[Pattern]:
    """Of (case, what it has, how that is told): what at least so many weapons have."""
    cases: dict[tuple[str, str], list[Case]] = defaultdict(list)
    for case, key, what in found:
        cases[key, what].append(case)
    for (_, what), named in cases.items():
        if len({case.weapon for case in named}) >= least:
            yield Pattern(kind=kind, what=what, threads=tuple(dict.fromkeys(case.thread for case in named)))


def _runs(cases: Sequence[Case]) -> Iterator[Pattern]:
    numbers: dict[tuple[str, ...], list[tuple[int, str]]] = defaultdict(list)
    for case in cases:
        parts = _NUMBERED.fullmatch(case.gun.serial_k1)
        if parts and case.gun.make:
            numbers[case.gun.make, parts[1], parts[3], str(len(parts[2]))].append((int(parts[2]), case.thread))
    for (make, *_), found in numbers.items():
        run: list[tuple[int, str]] = []
        for number, thread in [*sorted(set(found)), (-1, "")]:
            if run and not 0 <= number - run[-1][0] <= RUN_GAP_MAX:
                weapons = len({each for each, _ in run})
                if weapons > 1:
                    what = f"{weapons} weapons of {make} within {run[-1][0] - run[0][0] + 1} numbers"
                    yield Pattern(kind="SERIAL_RUN", what=what, threads=tuple(dict.fromkeys(t for _, t in run)))
                run = []
            run.append((number, thread))


def _last_transfer(case: Case) -> Iterator[str]:
    """The last authorised event before the diversion: kind, holders, country and year."""
    at = case.chain.get("diversion", {}).get("event")
    legal = [
        event
        for event in case.chain["events"][:at]
        if event["kind"]["code"] not in ("GAP", "RECOVERED") and event.get("authorised") is not False
    ]
    if at is not None and legal:
        yield f"{_words(legal[-1])}, {legal[-1]['date'][:4]}"


def _words(event: dict[str, Any]) -> str:
    parties = " to ".join(label("party_class", event[side]["code"]) for side in ("from", "to"))
    return f"{label('supply_event', event['kind']['code'])}: {parties}, {label('country', event['country']['code'])}"


def _embargoes(case: Case) -> Iterator[str]:
    for hit in case.chain["embargo_hits"]:
        yield f"{hit['authority']} embargo on {label('country', hit['country'])} ({hit['instrument']})"


def _short(cases: Sequence[Case]) -> Iterator[Pattern]:
    quick = [case for case in cases if any(each["code"] == _SHORT for each in case.chain["indicators"])]
    days = [case.chain["time_to_diversion_days"] for case in quick if "time_to_diversion_days" in case.chain]
    if quick:
        known = f", median {median(days):.0f} days" if days else ""
        yield Pattern(
            kind="SHORT_TIME",
            what=f"under three years from a sale to the recovery{known}",
            threads=tuple(c.thread for c in quick),
        )


def _dealers(case: Case) -> Iterator[tuple[Case, str, str]]:
    """By the letters of their names, since spellings differ; the name stays in the threads, for a dealer may be a person."""
    for name, country in case.dealers:
        if key := make_key(name):
            yield case, f"{country} {key}", f"one dealer, {label('country', country)}"


def _stocks(case: Case) -> Iterator[str]:
    for event in case.chain["events"]:
        if event["kind"]["code"] in _STOCK:
            yield f"{label('party_class', event['to']['code'])}, {label('country', event['country']['code'])}"
