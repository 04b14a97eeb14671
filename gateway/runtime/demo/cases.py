"""The demo's questions: real traced guns as police write them, damaged and unknown serials, and what each should get."""

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib import resources
from typing import Any

from gateway.services.register import parse_register
from protocols.firearms.calibres import calibre_code
from protocols.firearms.makes import make_key
from protocols.firearms.readings import read_serial
from protocols.firearms.scoring import Decision, Gun, decide
from protocols.firearms.serials import known_characters
from protocols.messages import asked_gun, validate_model
from protocols.messages.trace import TraceRequest
from protocols.ports.registry import Record

DAMAGED, UNKNOWN_SERIALS = 20, 10
_DATA = resources.files(__package__)
_YEAR = "2025"  # of the collection, for guns whose day of recovery the source lacks


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One request, and what the rule of docs/domain.md section 3 says of it, worked out here without a node."""

    body: dict[str, Any]
    expected: Decision


def read_register() -> list[Record]:
    """guns.csv: 635 real traced guns (credit: NOTICE)."""
    return parse_register(_DATA.joinpath("guns.csv").read_bytes())


def make_cases(register: Sequence[Record]) -> list[Case]:
    """Every request of the demo, the same at every run."""
    recorded = _by_serial(register)
    template = _DATA.joinpath("request.json").read_text(encoding="utf-8")
    days = json.loads(_DATA.joinpath("recovered.json").read_text(encoding="utf-8"))
    cases = []
    for number, (ref, serial, make, calibre) in enumerate(_questions(register)):
        body = json.loads(template)
        body["request_ref"] = f"DEMO-{number + 1:04d}"
        body["circumstances"]["recovered_on"] = days.get(ref, _YEAR)
        weapon = body["weapon"]
        weapon["make"] = {"code": make_key(make) or "UNKNOWN", "raw": make}
        weapon["calibre"] = {"code": calibre_code(calibre), "raw": calibre}
        _write_mark(weapon["components"][0]["marks"][0], serial)
        question = asked_gun(validate_model(TraceRequest, body, "trace.request").weapon)
        cases.append(Case(body=body, expected=decide(question, recorded.get(question.serial_k1, []))))
    return cases


def as_they_stand(register: Sequence[Record]) -> int:
    """How many guns the rule answers by itself when they are asked for exactly as the register writes them."""
    recorded = _by_serial(register)
    return sum(decide(record.gun, recorded[record.gun.serial_k1]).kind == "auto" for record in register)


def _by_serial(register: Sequence[Record]) -> dict[str, list[Gun]]:
    found: dict[str, list[Gun]] = {}
    for record in register:
        found.setdefault(record.gun.serial_k1, []).append(record.gun)
    return found


def _questions(register: Sequence[Record]) -> Iterator[tuple[str, str, str, str]]:
    """(record, serial, make, calibre) as an examiner types them."""
    spellings = json.loads(_DATA.joinpath("spellings.json").read_text(encoding="utf-8"))
    for number, record in enumerate(register):
        makes = spellings["makes"].get(record.make, (record.make, record.make.title()))
        calibres = spellings["calibres"].get(record.gun.calibre, (record.gun.calibre,))
        make, calibre = makes[number % len(makes)], calibres[number % len(calibres)]
        yield record.gun.ref, _typed(record.serial, number), make, calibre
    whole = [record for record in register if len(record.serial) >= 7 and record.make]
    for number, record in enumerate(whole[:: len(whole) // DAMAGED][:DAMAGED]):
        yield record.gun.ref, _damaged(record.serial, number), record.make, record.gun.calibre
    for number in range(UNKNOWN_SERIALS):
        yield "", f"QZX{number}4{number}71W", "Glock", "9 mm"


def _typed(serial: str, number: int) -> str:
    """In capitals, small letters, or with a space or hyphen between letters and digits: the same serial."""
    if number % 4 == 1:
        return serial.lower()
    return re.sub(r"(?<=[A-Za-z])(?=\d)", ("", "", " ", "-")[number % 4], serial, count=1)


def _damaged(serial: str, number: int) -> str:
    """With characters that could not be read; every fifth keeps three, too few for candidates."""
    if number % 5 == 4:
        return serial[:3] + "?" * (len(serial) - 3)
    return f"{serial[:2]}#{serial[3:]}" if number % 2 else f"{serial[:-2]}??"


def _write_mark(mark: dict[str, Any], raw: str) -> None:
    read = read_serial(raw)
    mark |= {"text_raw": raw, "status": {"code": read.status, "raw": ""}}
    del mark["pattern"]
    pattern = f"^{read.k1}$" if read.k1 else read.pattern
    if pattern and known_characters(pattern):
        mark["pattern"] = pattern
