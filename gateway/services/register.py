"""Imports the member's own firearms register from CSV: every row or none, with the rows that are wrong named."""

import re
from collections.abc import Mapping

from gateway.services.sheet import read_sheet
from protocols.firearms.calibres import weapon_type_code
from protocols.firearms.scoring import gun
from protocols.firearms.serials import damage, repaired
from protocols.ports.registry import Record, Registry
from protocols.problems import Fault, ProblemError

REQUIRED = ("ref", "serial", "make")
OPTIONAL = ("model", "type", "calibre", "sold_on", "dealer", "country")
ROWS_MAX = 1_000_000
FAULTS_MAX = 50
_CHARS_MAX = 200
_DAY = re.compile(r"\d{4}(-\d\d(-\d\d)?)?", re.ASCII)


def parse_register(data: bytes) -> list[Record]:
    """The records of a CSV with a header; `registry.csv` names the line and column of every fault (at most 50)."""
    faults: list[Fault] = []
    records: dict[str, Record] = {}
    for line, row in read_sheet(data, known=(*REQUIRED, *OPTIONAL), required=REQUIRED):
        found = list(row.errors) if isinstance(row, ProblemError) else _faults(row, line, records)
        faults += found
        if not found and not isinstance(row, ProblemError):
            record = _record(row)
            records[record.gun.ref] = record
        if len(faults) >= FAULTS_MAX or len(records) > ROWS_MAX:
            break
    if faults:
        raise ProblemError("registry.csv", f"{len(faults)} faults; nothing was imported", errors=faults)
    if len(records) > ROWS_MAX:
        raise ProblemError("registry.csv", f"more than {ROWS_MAX} rows; split the file")
    return list(records.values())


async def import_register(data: bytes, registry: Registry) -> int:
    """Parses all, then stores all in one transaction; how many guns the file has."""
    records = parse_register(data)
    await registry.store(records)
    return len(records)


def damage_faults(row: Mapping[str, str], line: int, names: tuple[str, ...]) -> list[Fault]:
    """A fault for each cell that a spreadsheet has turned into a day or a number, with what it may have been."""
    found = []
    for name in names:
        if harm := damage(row.get(name, "")):
            mended = repaired(row[name])
            fix = (
                f"It may have been {mended}: look at the source, and import it as text."
                if mended
                else "Import the column as text."
            )
            found.append(Fault(f"/{line}/{name}", "damaged", f"a spreadsheet made it a {harm}", fix))
    return found


def _faults(row: Mapping[str, str], line: int, records: Mapping[str, Record]) -> list[Fault]:
    def fault(column: str, message: str) -> Fault:
        return Fault(f"/{line}/{column}", "registry.csv", message, "Correct the row and import the file again.")

    found = [fault(name, "longer than 200 characters") for name, text in row.items() if len(text) > _CHARS_MAX]
    if not row["ref"].strip():
        found.append(fault("ref", "is empty"))
    elif row["ref"] in records:
        found.append(fault("ref", "stands in an earlier row too"))
    found += damage_faults(row, line, ("serial", "model", "calibre"))
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
