"""Pages of their own, each a picture and the same as a table: the chain of a thread, the figures of a year, patterns."""

import json
from datetime import datetime
from hashlib import sha256
from importlib import resources
from textwrap import wrap
from typing import Any

from jinja2 import Environment, PackageLoader

from protocols.codes import label
from protocols.evidence import Report
from protocols.exchange.message import parse_jws, parse_message
from protocols.strict import format_time

_LEFT, _LANE, _ROW, _TOP = 110, 120, 46, 74
_WORLD = json.loads(resources.files("gateway.http").joinpath("templates/world.json").read_bytes())
_OFF = (-20, -20)
_templates = Environment(
    loader=PackageLoader("gateway.http", "templates"), autoescape=True, trim_blocks=True, lstrip_blocks=True
)
_templates.globals["label"], _templates.filters["time"] = label, format_time


def chain_page(chain: dict[str, Any]) -> str:
    """A self-contained HTML page, readable without styles and scripts."""
    events = chain["events"]
    holders = list(dict.fromkeys(event[side]["code"] for event in events for side in ("from", "to")))
    at = {code: _LEFT + _LANE // 2 + n * _LANE for n, code in enumerate(holders)}
    diversion = chain.get("diversion", {}).get("event")
    rows = []
    for n, event in enumerate(events):
        x1, x2 = at[event["from"]["code"]], at[event["to"]["code"]]
        country = event["country"]["code"]
        rows.append({
            "y": _TOP + n * _ROW, "x1": x1, "x2": x2, "text_x": max((x1 + x2) // 2, _LEFT + _LANE // 2),
            "date": event["date"], "kind": label("supply_event", event["kind"]["code"]),
            "gap": event["kind"]["code"] == "GAP", "diversion": n == diversion,
            "country": "" if country == "UNKNOWN" else label("country", country),
            "from_": label("party_class", event["from"]["code"]), "to": label("party_class", event["to"]["code"]),
            "by": ", ".join(event["by"]) or ("nobody: inferred" if event.get("inferred") else "the request"),
        })  # fmt: skip
    lanes = [{"x": x, "words": wrap(label("party_class", code), 15)[:3]} for code, x in at.items()]
    return _templates.get_template("chain.html").render(
        chain=chain, summary=_summary(chain), rows=rows, lanes=lanes, places=_places(events), land=_WORLD["land"], width=_LEFT + _LANE * len(holders) + 20,
        height=_TOP + _ROW * len(rows) + 8,
    )  # fmt: skip


def _places(events: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The countries of the chain in order, each once for a stay, with where it lies on the map (an islet: off it)."""
    stays: list[str] = []
    for event in events:
        code = event["country"]["code"]
        if code != "UNKNOWN" and stays[-1:] != [code]:
            stays.append(code)
    seen: dict[str, list[int]] = {}
    for number, code in enumerate(stays, 1):
        seen.setdefault(code, []).append(number)
    places = []
    for number, code in enumerate(stays, 1):
        x, y = _WORLD["countries"].get(code, _OFF)
        numbers = ", ".join(map(str, seen[code])) if seen[code][0] == number else ""
        places.append({"name": label("country", code), "x": x, "y": y, "numbers": numbers})
    return places


def _summary(chain: dict[str, Any]) -> str:
    told = [event for event in chain["events"] if event["kind"]["code"] != "GAP"]
    gaps = len(chain["events"]) - len(told)
    said = f"{len(chain['hops'])} asked; {len(told)} events, {gaps} gaps."
    if "diversion" in chain:
        said += f" The legal way ends where {chain['diversion']['why']}."
    if "time_to_diversion_days" in chain:
        said += f" {chain['time_to_diversion_days']} days from the last legal event."
    return said


PATTERNS = {
    "SERIAL_RUN": "A run of serials",
    "LAST_TRANSFER": "The same last authorised transfer",
    "EMBARGOED_DESTINATION": "An embargoed destination",
    "SHORT_TIME": "A short time to recovery",
    "SAME_DEALER": "The same dealer",
    "SAME_STOCK": "The same State stock",
}


def diversion_page(report: dict[str, Any]) -> str:
    """A self-contained HTML page of patterns, each with its threads."""
    kinds: dict[str, set[str]] = {}
    for each in report["patterns"]:
        kinds.setdefault(each["kind"], set()).update(each["threads"])
    counted = [(kind, len(threads)) for kind, threads in kinds.items()]
    most = max((threads for _, threads in counted), default=1)
    return _templates.get_template("diversion.html").render(report=report, kinds=counted, most=most, names=PATTERNS)


LIKELY = {
    "AUTOMATIC": "A register may answer by itself",
    "PERSON": "A person will have to look",
    "NOTHING": "No register can answer",
    "UNREAD": "The row cannot be read",
}


def check_page(report: dict[str, Any]) -> str:
    """A self-contained HTML page of what `tracewire check` found in a file."""
    return _templates.get_template("check.html").render(report=report, words=LIKELY)


def evidence_page(report: Report, data: bytes, root: bytes, now: datetime) -> str:
    """A self-contained HTML page for print of what an evidence file proves, once it was verified."""
    messages = [
        (each, parse_message(parse_jws(each.jws).payload) if each.jws is not None else None)
        for each in report.evidence.messages
    ]
    bodies = [
        json.dumps({"body": said.body, "handling": said.handling}, indent=2, ensure_ascii=False) if said else ""
        for _, said in messages
    ]
    by_message = {n: [fact for fact in report.facts if fact.message == n] for n in range(1, len(messages) + 1)}
    return _templates.get_template("evidence.html").render(
        evidence=report.evidence, messages=messages, bodies=bodies, by_message=by_message, chains=report.chains,
        judged=report.judged, older=report.older, size=len(data), digest=sha256(data).hexdigest(),
        root=sha256(root).hexdigest(), now=now,
    )  # fmt: skip


def report_page(report: dict[str, Any]) -> str:
    """A self-contained HTML page of a year's figures."""
    outcomes = ("answered", "refused", "silent", "withdrawn", "open")
    return _templates.get_template("report.html").render(report=report, outcomes=outcomes)
