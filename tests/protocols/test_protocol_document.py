"""docs/protocol.md says what the code does: its tables and examples are compared with the code and the vectors."""

import json
import re
from pathlib import Path

from protocols import limits
from protocols.exchange.lines import parse_post
from protocols.ledger.entry import KINDS, REFUSED_CODES, UNDELIVERED_CODES, parse_entry
from protocols.messages import PARTS
from protocols.problems import CODES

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "docs/protocol.md").read_text()
VECTORS = ROOT / "protocols/vectors"


def table(header: str) -> list[list[str]]:
    """The cells of the rows below a header line."""
    _, _, rest = TEXT.partition(f"\n{header}\n")
    rows = []
    for line in rest.split("\n")[1:]:
        if not line.startswith("|"):
            break
        rows.append([cell.strip() for cell in line.strip("|").split("|")])
    assert rows, header
    return rows


def names(cell: str) -> set[str]:
    return set(re.findall(r"`([^`]+)`", cell))


def test_the_table_of_kinds_is_that_of_the_code() -> None:
    always = {"v", "kind", "at", "n"}
    found = {}
    for kind, required, optional in table("| kind | required | optional |"):
        needed = always | names(required)
        found[kind.strip("`")] = (needed, needed | names(optional))
    assert found == KINDS


def test_every_kind_is_explained() -> None:
    assert {row[0].strip("`") for row in table("| kind | what it states, and nothing more |")} == KINDS.keys()


def test_the_table_of_limits_is_that_of_the_code() -> None:
    ours = {name: value for name, value in vars(limits).items() if name.isupper()}
    shown = {row[0].strip("`"): int(row[1].replace(",", "")) for row in table("| limit | value | what and why |")}
    assert shown == ours


def test_the_table_of_problems_is_that_of_the_code() -> None:
    shown = {row[0].strip("`"): tuple(row[1:]) for row in table("| code | status | retry | title | fix |")}
    assert shown == {code: (str(kind.status), kind.retry, kind.title, kind.fix) for code, kind in CODES.items()}


def test_the_codes_of_refusals_are_those_of_the_code() -> None:
    _, _, rest = " ".join(TEXT.split()).partition(" `code` of `refused`: ")
    refused, _, rest = rest.partition("`code` of `undelivered`: ")
    assert names(refused) == REFUSED_CODES
    assert names(rest.partition(". ")[0]) == UNDELIVERED_CODES


def test_the_examples_are_vectors() -> None:
    blocks = re.findall(r"```json\n(.*?)\n```", TEXT, re.DOTALL)
    texts = [
        case["input"].get("data", "")
        for path in VECTORS.glob("*.json")
        for case in json.loads(path.read_text())["vectors"]
    ]
    entry, receipt = blocks[:2]
    assert entry in texts
    assert parse_entry(entry.encode()).kind == "sent"
    answer = next(text for text in texts if receipt in text.split("\n"))
    (place, _) = parse_post(answer.encode(), answer=True).items
    received = parse_entry(place.place.entry)
    assert received.kind == "received"
    assert received.peer is not None
    assert received.peer.origin == "test/asker/2026.1"
    assert any(blocks[-1] in text.split("\n") for text in texts)


def test_every_vector_file_is_listed() -> None:
    listed = set[str]().union(*(names(row[0]) for row in table("| file | what |")))
    assert listed == {path.name for path in VECTORS.glob("*.json")}


def test_restricted_parts_have_names_that_the_format_allows() -> None:
    assert all(re.fullmatch(r"[a-z][a-z_]{0,31}", name) for name in PARTS)


def test_the_example_comes_first() -> None:
    assert "```json" in "\n".join(TEXT.split("\n")[:12])
    assert "## 1. General" in TEXT
