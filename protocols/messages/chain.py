"""The chain of supply that the answers of a thread make together: ordered, with its gaps, where it left the legal way."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from typing import Any

from protocols.codes import UNKNOWN
from protocols.firearms.embargoes import embargoed
from protocols.messages.shared import earliest, latest

_TRANSFERS = ("EXPORT_LICENSED", "EXPORTED", "TRANSIT", "IMPORTED", "DELIVERED_TO_STATE", "RETRANSFERRED")
_SHORT_DAYS = 1_095
"""From a retail sale to recovery: under three years is an indicator in ATF's practice (time to crime)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """What one member answered."""

    member: str
    events: Sequence[dict[str, Any]]
    indicators: Sequence[dict[str, Any]] = ()


def chain_of(told: Sequence[Told], found: dict[str, Any] | None) -> dict[str, Any]:
    """Events in order with explicit gaps, point of diversion, indicators, embargo hits, time to diversion.

    `found` are the circumstances of the request (recovered_on, country). A gap that nobody told is `inferred`.
    """
    events = _with_gaps(_merged(told), found)
    at, why = _diversion(events)
    days = _days(events, at)
    hits = [hit for n, event in enumerate(events) for hit in _hits(n, event)]
    stated: dict[str, set[str]] = {}
    for each in told:
        for indicator in each.indicators:
            stated.setdefault(indicator["code"], set()).add(each.member)
    sold = any(event["kind"]["code"] == "RETAIL_SALE" for event in events)
    for code, holds in (("EMBARGOED_DESTINATION", bool(hits)), ("SHORT_TIME_TO_RECOVERY", sold and _short(days))):
        if holds:
            stated.setdefault(code, set()).add("computed")
    shown: dict[str, Any] = {
        "events": events,
        "indicators": [{"code": code, "by": sorted(by)} for code, by in sorted(stated.items())],
        "embargo_hits": hits,
    }
    if at is not None:
        shown["diversion"] = {"event": at, "why": why}
    return shown | ({"time_to_diversion_days": days} if days is not None else {})


def _short(days: int | None) -> bool:
    return days is not None and days < _SHORT_DAYS


def _merged(told: Sequence[Told]) -> list[dict[str, Any]]:
    """All events by date; what several members told alike is one."""
    found: dict[tuple[str, ...], dict[str, Any]] = {}
    for each in told:
        for event in each.events:
            stated = (
                str(event.get(name)) for name in ("authorised", "diversion_here")
            )  # who contradicts stands beside
            key = (event["date"], *(event[name]["code"] for name in ("kind", "from", "to", "country")), *stated)
            known = found.setdefault(key, event | {"by": []})
            known["by"] = sorted({*known["by"], each.member})
    return sorted(found.values(), key=lambda event: (earliest(event["date"]), latest(event["date"])))


def _gap(before: dict[str, Any], after: dict[str, Any]) -> dict[str, Any]:
    unknown = {"code": UNKNOWN, "raw": ""}
    return {
        "kind": {"code": "GAP", "raw": ""}, "date": before["date"], "until": after["date"], "from": before["to"],
        "to": after["from"], "country": unknown, "evidence_grade": {"code": "INFERENCE_FROM_MARKS", "raw": ""},
        "certainty": {"code": "UNCONFIRMED", "raw": ""}, "by": [], "inferred": True,
    }  # fmt: skip


def _with_gaps(events: list[dict[str, Any]], found: dict[str, Any] | None) -> list[dict[str, Any]]:
    """A gap wherever whoever had it last is not who had it next; the recovery at the end."""
    if found and not any(event["kind"]["code"] == "RECOVERED" for event in events):
        unknown = {"code": UNKNOWN, "raw": ""}
        events = [*events, {
            "kind": {"code": "RECOVERED", "raw": ""}, "date": found["recovered_on"], "from": unknown,
            "to": {"code": "STATE_POLICE", "raw": ""}, "country": found["country"], "by": [],
            "evidence_grade": {"code": "GOVERNMENT_STATEMENT", "raw": ""}, "certainty": {"code": "CONFIRMED", "raw": ""},
        }]  # fmt: skip
    whole: list[dict[str, Any]] = []
    for event in events:
        told = "GAP" in (event["kind"]["code"], whole[-1]["kind"]["code"] if whole else "GAP")
        if not told and whole[-1]["to"]["code"] != event["from"]["code"]:
            whole.append(_gap(whole[-1], event))
        whole.append(event)
    return whole


def _diversion(events: list[dict[str, Any]]) -> tuple[int | None, str]:
    """Where the weapon left the legal way: as a member says; else where it was lost; else before the first gap."""
    marks = (
        (lambda event: event.get("diversion_here") is True, "a member says so"),
        (lambda event: event.get("authorised") is False, "the transfer was not authorised"),
        (lambda event: event["kind"]["code"] in ("LOST", "STOLEN"), "it was lost or stolen"),
        (
            lambda event: event["kind"]["code"] == "GAP",
            "nobody can tell what came next: the last holder known is before it",
        ),
    )
    for holds, why in marks:
        for at, event in enumerate(events):
            if holds(event):
                return at, why
    return None, ""


def _days(events: list[dict[str, Any]], at: int | None) -> int | None:
    """From the last authorised event before the diversion to the day that is known of it, else to the recovery."""
    if at is None:
        return None
    legal = [event for event in events[:at] if event.get("authorised") is not False and len(event["date"]) == 10]
    gone = [event for event in events[at:] if event["kind"]["code"] != "GAP" and len(event["date"]) == 10]
    if not legal or not gone:
        return None
    return (date.fromisoformat(gone[0]["date"]) - date.fromisoformat(legal[-1]["date"])).days


def _hits(at: int, event: dict[str, Any]) -> list[dict[str, Any]]:
    if event["kind"]["code"] not in _TRANSFERS:
        return []
    return [
        {
            "event": at, "authority": each.authority, "country": each.target, "scope": each.scope, "since": each.start,
            "instrument": each.instrument, "confidence": each.confidence,
        }
        for each in embargoed(event["country"]["code"], earliest(event["date"]), latest(event["date"]))
    ]  # fmt: skip
