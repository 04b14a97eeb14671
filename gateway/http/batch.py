"""Many submissions in one request: NDJSON or CSV in, one line of result for each, in order (`POST /v1/batches`)."""

import csv
import difflib
import io
from collections.abc import Iterator, Mapping
from itertools import count
from typing import Any

from gateway.http.documents import TraceSubmission
from protocols.limits import SUBMISSIONS_MAX
from protocols.messages import without_null
from protocols.problems import Fault, ProblemError
from protocols.strict import dump_json, parse_json

NDJSON, CSV = "application/x-ndjson", "text/csv"
Line = tuple[int, bytes | ProblemError]


def lines_of(data: bytes, media: str) -> list[Line]:
    """The JSON of each submission with the number of its line, or what is wrong with that line alone.

    A CSV's header names columns by JSON pointer (RFC 6901) into the submission, as `/body/weapon/model`. An empty cell
    is a member left out; the `raw` of a code that is given may be left out. ProblemError `batch.invalid` where nothing of
    the file can be read, `http.too_large` beyond SUBMISSIONS_MAX.
    """
    found = list(zip(range(SUBMISSIONS_MAX + 1), _rows(data) if media == CSV else _documents(data), strict=False))
    if len(found) > SUBMISSIONS_MAX:
        raise ProblemError("http.too_large", f"more than {SUBMISSIONS_MAX} submissions")
    if not found:
        raise ProblemError("batch.invalid", "no submission")
    return [line for _, line in found]


def _documents(data: bytes) -> Iterator[Line]:
    return zip(count(1), data.removesuffix(b"\n").split(b"\n"), strict=False) if data else iter(())


def _rows(data: bytes) -> Iterator[Line]:
    """The rows under the header, numbered as a spreadsheet does."""
    try:
        reader = csv.DictReader(io.StringIO(data.decode("utf-8-sig"), newline=""), strict=True)
        kinds = _kinds(list(reader.fieldnames or ()))
        for number, row in enumerate(reader, 2):
            yield number, _submission(row, kinds)
    except UnicodeDecodeError:
        raise ProblemError("batch.invalid", "not UTF-8") from None
    except csv.Error:
        raise ProblemError("batch.invalid", f"line {reader.reader.line_num} is not CSV") from None


def _kinds(names: list[str]) -> dict[str, str]:
    """The columns with the JSON type of what they hold; a column that no submission has is named with its nearest."""
    leaves = dict(_leaves(without_null(TraceSubmission.model_json_schema())))
    found, faults = {}, []
    for name in names:
        plain = "/".join("0" if step.isdigit() else step for step in name.split("/"))
        if plain in leaves and names.count(name) == 1:
            found[name] = leaves[plain]
            continue
        near = difflib.get_close_matches(plain, leaves, 1)
        if len(names) == 1 and ";" in name:
            near = ["the same with commas between columns, not semicolons"]
        fix = f"The nearest is {near[0]}." if near else "Name columns as /to and /body/request_ref."
        faults.append(Fault("", "column", f"column {names.index(name) + 1} is unknown or stands twice", fix))
    if faults or not names:
        raise ProblemError("batch.invalid", "the header names no submission", errors=faults[:20])
    return found


def _leaves(schema: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """(pointer, JSON type) of every value; `0` stands for any place in a list."""

    def walk(at: str, part: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
        if "$ref" in part:
            yield from walk(at, schema["$defs"][part["$ref"].rpartition("/")[2]])
        for choice in (*part.get("anyOf", ()), *part.get("allOf", ())):
            yield from walk(at, choice)
        for name, value in part.get("properties", {}).items():
            yield from walk(f"{at}/{name}", value)
        if "items" in part:
            yield from walk(f"{at}/0", part["items"])
        if part.get("type") in ("string", "integer", "boolean"):
            yield at, part["type"]

    return walk("", schema)


def _submission(row: Mapping[str | None, Any], kinds: Mapping[str, str]) -> bytes | ProblemError:
    if None in row or None in row.values():
        return ProblemError("batch.invalid", "the row has more or fewer fields than the header")
    root: dict[str, Any] = {}
    for name, kind in kinds.items():
        if not row[name]:
            continue
        *steps, last = name.split("/")[1:]
        inner = root
        for step in steps:
            inner = inner.setdefault(step, {})
        try:
            inner[last] = row[name] if kind == "string" else parse_json(row[name].lower().encode(), bytes_max=100)
        except ProblemError:
            fault = Fault(name, "type", f"not of type {kind}", "Write digits, or true or false.")
            return ProblemError("batch.invalid", "a cell does not fit its column", errors=[fault])
    return dump_json(_complete(root))


def _complete(value: Any) -> Any:
    """Objects of numbers as lists, and codes with the `raw` that they need."""
    if not isinstance(value, dict):
        return value
    found = {name: _complete(each) for name, each in value.items()}
    if found and all(name.isdigit() for name in found):
        return [found[name] for name in sorted(found, key=int)]
    return found | {"raw": found.get("raw", "")} if "code" in found else found
