"""The demo's questions: real traced guns as police write them, damaged and unknown serials, and what each should get."""

import csv
import io
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from typing import Any

from gateway.services.register import OPTIONAL, REQUIRED, parse_register
from protocols.firearms.calibres import calibre_code
from protocols.firearms.makes import make_key
from protocols.firearms.readings import read_serial
from protocols.firearms.scoring import Decision, Gun, decide
from protocols.firearms.serials import known_characters
from protocols.messages import asked_gun, validate_body
from protocols.messages.trace import TraceRequest
from protocols.ports.registry import Record

DAMAGED, UNKNOWN_SERIALS = 20, 10
_KNOWN_YEAR = "2025"  # of the collection, for the guns whose day of recovery the source lacks
_MAKES: Mapping[str, Sequence[str]] = {
    "SMITH & WESSON": ("S&W", "Smith and Wesson", "smith & wesson"),
    "GLOCK": ("Glock", "GLOCK", "Glock Ges.m.b.H."),
    "TAURUS": ("Taurus", "Forjas Taurus", "TAURUS"),
    "RUGER": ("Ruger", "Sturm, Ruger & Co", "RUGER"),
    "SPRINGFIELD": ("Springfield Armory", "springfield"),
    "SIG SAUER": ("Sig Sauer", "SIG", "Sigarms"),
    "BERETTA": ("Beretta", "Pietro Beretta"),
    "FN": ("FN Herstal", "FN"),
}
_CALIBRES: Mapping[str, Sequence[str]] = {
    "9mm": ("9 mm", "9mm Luger", "9x19", "9MM"),
    ".380": (".380 ACP", "380 auto"),
    ".40": (".40 S&W", "40"),
    ".45": (".45 ACP", ".45"),
    ".38": (".38 Special", ".38"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One request, and what the rule of DOMAIN.md section 3 says of it, worked out here without a node."""

    ref: str
    kind: str
    body: Mapping[str, Any]
    expected: Decision


def guns() -> list[dict[str, str]]:
    """The rows of guns.csv: 635 guns traced for Wilmington, Delaware."""
    text = resources.files(__package__).joinpath("guns.csv").read_text(encoding="utf-8")
    return list(csv.DictReader(io.StringIO(text, newline="")))


def register_csv(rows: Sequence[Mapping[str, str]]) -> str:
    """What the registry imports: the guns without the day on which they were found."""
    columns = [name for name in (*REQUIRED, *OPTIONAL) if name in rows[0]]
    out = io.StringIO()
    writer = csv.DictWriter(out, columns, extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return out.getvalue()


def make_cases(rows: Sequence[Mapping[str, str]]) -> tuple[list[Case], dict[str, Record]]:
    """Every request of the demo, the same at every run, and the register by reference."""
    register = {record.gun.ref: record for record in parse_register(register_csv(rows))}
    by_serial: dict[str, list[Gun]] = {}
    for record in register.values():
        by_serial.setdefault(record.gun.serial_k1, []).append(record.gun)
    cases = []
    for number, (kind, row) in enumerate(_questions(rows)):
        body = request_body(row, f"DEMO-{number + 1:04d}")
        expected = decide(question := question_of(body), by_serial.get(question.serial_k1, []))
        cases.append(Case(ref=body["request_ref"], kind=kind, body=body, expected=expected))
    return cases, register


def as_they_stand(register: Mapping[str, Record]) -> int:
    """How many guns the rule answers by itself when they are asked for exactly as the register writes them."""
    recorded = [record.gun for record in register.values()]
    same = {gun.serial_k1: [other for other in recorded if other.serial_k1 == gun.serial_k1] for gun in recorded}
    return sum(decide(gun, same[gun.serial_k1]).kind == "auto" for gun in recorded)


def question_of(body: Mapping[str, Any]) -> Gun:
    """The weapon of a valid request body, as the register is asked for it."""
    request = validate_body("trace.request", body)
    assert isinstance(request, TraceRequest)  # of the type named
    return asked_gun(request.weapon)


def _questions(rows: Sequence[Mapping[str, str]]) -> Iterator[tuple[str, dict[str, str]]]:
    for number, row in enumerate(rows):
        yield "as police write it", {**row, **_written(row, number)}
    whole = [row for row in rows if len(row["serial"]) >= 7 and row["make"]]
    step = len(whole) // DAMAGED
    for number, row in enumerate(whole[::step][:DAMAGED]):
        yield "damaged serial", {**row, "serial": _damaged(row["serial"], number)}
    for number in range(UNKNOWN_SERIALS):
        yield "unknown serial", {**whole[number], "serial": f"QZX{number}4{number}71W", "recovered_on": _KNOWN_YEAR}


def _written(row: Mapping[str, str], number: int) -> dict[str, str]:
    """Serial, make and calibre as an examiner types them; what they mean stays the same."""
    serial = row["serial"]
    parted = re.search(r"(?<=[A-Za-z])(?=\d)", serial)
    sign = ("", "", " ", "-")[number % 4]
    if parted and sign:
        serial = f"{serial[: parted.start()]}{sign}{serial[parted.start() :]}"
    if number % 4 == 1:
        serial = serial.lower()
    makes = _MAKES.get(row["make"], (row["make"], row["make"].title()))
    calibres = _CALIBRES.get(row["calibre"], (row["calibre"],))
    return {"serial": serial, "make": makes[number % len(makes)], "calibre": calibres[number % len(calibres)]}


def _damaged(serial: str, number: int) -> str:
    """A serial of which some characters could not be read; every fifth keeps three, too few for candidates."""
    if number % 5 == 4:
        return serial[:3] + "?" * (len(serial) - 3)
    if number % 2:
        return f"{serial[:2]}#{serial[3:]}"
    return f"{serial[:-2]}??"


def request_body(row: Mapping[str, str], ref: str) -> dict[str, Any]:
    """The trace.request for one gun; texts stay as written beside every code."""
    return {
        "request_ref": ref,
        "requester": {"name": "Focal Point of Freedonia", "country": _pair("CA", "Freedonia (demo)")},
        "legal_basis": {
            "ground": _pair("LAW_OF_RECOVERING_STATE", "seized under the firearms act"),
            "national_provision": "Firearms Act section 1 (demo)",
        },
        "circumstances": {
            "recovered_on": row["recovered_on"] or _KNOWN_YEAR,
            "country": _pair("US", "USA"),
            "context": _pair("CRIME_SCENE"),
        },
        "weapon": {
            "type": _pair("UNKNOWN"),
            "make": _pair(make_key(row["make"]) or "UNKNOWN", row["make"]),
            "calibre": _pair(calibre_code(row["calibre"]), row["calibre"]),
            "origin_class": _pair("FACTORY"),
            "components": [{"kind": _pair("FRAME"), "marks": [_mark(row["serial"])]}],
        },
        "intended_use": _pair("CRIMINAL_INVESTIGATION"),
        "priority": "ROUTINE",
        "asks": ["last_legal_holder", "supply_chain"],
        "confidentiality_guarantee": True,
    }


def _mark(raw: str) -> dict[str, Any]:
    read = read_serial(raw)
    mark = {
        "mark_type": _pair("SERIAL"),
        "text_raw": raw,
        "location": _pair("FRAME_RIGHT"),
        "status": _pair(read.status),
    }
    pattern = f"^{read.k1}$" if read.k1 else read.pattern
    if pattern and known_characters(pattern):
        mark["pattern"] = pattern  # type: ignore[assignment]
    return mark


def _pair(code: str, raw: str = "") -> dict[str, str]:
    return {"code": code, "raw": raw}
