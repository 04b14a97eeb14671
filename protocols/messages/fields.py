"""What every member of a message means and where it comes from: package data, in schemas, pages and docs/messages.md."""

import csv
import io
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class Meaning:
    """One member of one model: its meaning, the source of the rule, and what it is in ATF Form 3312.1 and in NIEM 6."""

    meaning: str
    source: str
    atf: str
    niem: str


@cache
def meanings() -> dict[tuple[str, str], Meaning]:
    """By model and member."""
    text = resources.files(__package__).joinpath("fields.csv").read_text(encoding="utf-8")
    return {(row.pop("model"), row.pop("member")): Meaning(**row) for row in csv.DictReader(io.StringIO(text))}


def described(name: str, schema: dict[str, Any]) -> dict[str, Any]:
    """The schema of a model with the meaning of each member as its description; `$defs` likewise."""
    found = meanings()
    members = {
        member: part | {"description": found[name, member].meaning} if (name, member) in found else part
        for member, part in schema.get("properties", {}).items()
    }
    inner = {each: described(each, part) for each, part in schema.get("$defs", {}).items()}
    return schema | ({"properties": members} if members else {}) | ({"$defs": inner} if inner else {})
