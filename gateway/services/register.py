"""Imports the member's own firearms register from CSV: every row or none, with the rows that are wrong named."""

import csv
import difflib
import io
import re
from collections.abc import Mapping
from typing import Any

from protocols.firearms.calibres import weapon_type_code
from protocols.firearms.scoring import gun
from protocols.firearms.serials import damage
from protocols.ports.registry import Record, Registry
from protocols.problems import Fault, ProblemError

REQUIRED = ("ref", "serial", "make")
OPTIONAL = ("model", "type", "calibre", "sold_on", "dealer", "country")
ROWS_MAX = 1_000_000
FAULTS_MAX = 50
_CHARS_MAX = 200
_DAY = re.compile(r"\d{4}(-\d\d(-\d\d)?)?", re.ASCII)
_DAMAGE = "a spreadsheet changed this field: it was a text and became a number or a date"


def parse_register(text: str) -> list[Record]:
    """The records of a CSV with a header; `registry.csv` names the line and column of every fault (at most 50)."""
    reader = csv.DictReader(io.StringIO(text, newline=""), strict=True)
    try:
        _check_header(list(reader.fieldnames or ()))
        faults: list[Fault] = []
        records: dict[str, Record] = {}
        for row in reader:
            found = _faults(row, reader.line_num, records)
            faults += found
            if not found:
                record = _record(row)
                records[record.gun.ref] = record
            if len(faults) >= FAULTS_MAX or len(records) > ROWS_MAX:
                break
    except csv.Error:
        raise ProblemError("registry.csv", f"line {reader.reader.line_num} is not CSV") from None
    if faults:
        raise ProblemError("registry.csv", f"{len(faults)} faults; nothing was imported", errors=faults)
    if len(records) > ROWS_MAX:
        raise ProblemError("registry.csv", f"more than {ROWS_MAX} rows; split the file")
    return list(records.values())


async def import_register(text: str, registry: Registry) -> int:
    """Parses all, then stores all in one transaction; how many."""
    return await registry.store(parse_register(text))


def _check_header(names: list[str]) -> None:
    for name in names:
        if name not in (*REQUIRED, *OPTIONAL):
            near = difflib.get_close_matches(name, (*REQUIRED, *OPTIONAL), 1)
            if len(names) == 1 and ";" in name:
                near = ["the same with commas between columns, not semicolons"]
            raise ProblemError(
                "registry.csv",
                f"column {names.index(name) + 1} is unknown" + (f"; the nearest is {near[0]}" if near else ""),
            )
    missing = [name for name in REQUIRED if name not in names]
    if missing or len(set(names)) != len(names):
        raise ProblemError("registry.csv", f"columns are missing or twice: {', '.join(missing) or 'twice'}")


def _faults(row: Mapping[str | None, Any], line: int, records: Mapping[str, Record]) -> list[Fault]:
    def fault(column: str, message: str) -> Fault:
        return Fault(f"/{line}/{column}", "registry.csv", message, "Correct the row and import the file again.")

    if None in row or None in row.values():
        return [fault("", "the row has more or fewer fields than the header")]
    found = [fault(str(name), "longer than 200 characters") for name, text in row.items() if len(text) > _CHARS_MAX]
    found += [fault(str(name), "has a NUL") for name, text in row.items() if "\0" in text]
    if not row["ref"].strip():
        found.append(fault("ref", "is empty"))
    elif row["ref"] in records:
        found.append(fault("ref", "stands in an earlier row too"))
    found += [fault(name, _DAMAGE) for name in ("serial", "model", "calibre") if damage(row.get(name) or "")]
    if row.get("sold_on") and not _DAY.fullmatch(row["sold_on"]):
        found.append(fault("sold_on", "is not a day as 2019-04-01, 2019-04 or 2019"))
    if row.get("country") and not re.fullmatch("[A-Z]{2}", row["country"]):
        found.append(fault("country", "is not ISO 3166-1 alpha-2"))
    return found


def _record(row: Mapping[str, str]) -> Record:
    details = {name: row[name] for name in ("sold_on", "dealer", "country") if row.get(name)}
    return Record(
        gun=gun(
            row["serial"],
            ref=row["ref"],
            make=row["make"],
            model=row.get("model", ""),
            calibre=row.get("calibre", ""),
            weapon_type=weapon_type_code(row.get("type", "")),
        ),
        serial=row["serial"],
        make=row["make"],
        details=details,
    )
