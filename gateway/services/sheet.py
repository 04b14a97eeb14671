"""Reads a CSV that people made: bounded, in UTF-8, with every fault named by its line, and its repair where one shows."""

import csv
import difflib
import io
from collections.abc import Collection, Iterator, Sequence
from typing import Any

from protocols.problems import Fault, ProblemError

CODE = "registry.csv"
BYTES_MAX = 256 * 1024 * 1024
CELL_CHARS_MAX = 64 * 1024
COLUMNS_MAX = 100
Row = tuple[int, dict[str, str] | ProblemError]
_BOMS = {b"\xff\xfe": "UTF-16", b"\xfe\xff": "UTF-16"}


def read_sheet(
    data: bytes, *, known: Collection[str], required: Sequence[str] = (), others: bool = False
) -> Iterator[Row]:
    """Line and cells of each row, or what is wrong with that row alone; cells of columns that are not `known` are left out.

    `registry.csv` where the file cannot be read as a whole (size, encoding, header, an open quote), with the line. Columns that
    are not known are refused unless `others`.
    """
    reader = csv.reader(io.StringIO(_text(data), newline=""), strict=True)
    csv.field_size_limit(CELL_CHARS_MAX)
    started = 1
    try:
        header = next(reader, [])
        _check_header(header, known, required, others=others)
        started = reader.line_num + 1
        for cells in reader:
            if cells:
                yield started, _row(header, cells, known, started)
            started = reader.line_num + 1
    except csv.Error as error:
        quote = "end of data" in str(error) or "field larger" in str(error)
        hint = (
            "a quotation mark is opened and never closed, or a cell is too long"
            if quote
            else "quotation marks are out of place"
        )
        raise _problem(started, hint, "Close the quote, and write a quote inside a cell twice.") from None


def _text(data: bytes) -> str:
    if len(data) > BYTES_MAX:
        raise _problem(1, f"more than {BYTES_MAX} bytes", "Split the file.")
    if data[:2] in _BOMS or data[:4096].count(0) > len(data[:4096]) // 4:
        raise _problem(1, "the file is in UTF-16", "Save it as CSV UTF-8.")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        raise _problem(line, "the line is not UTF-8", "Save the file as CSV UTF-8.") from None
    if (at := text.find("\0")) >= 0:
        raise _problem(
            text.count("\n", 0, at) + 1,
            "the line has a NUL",
            "Save the file as CSV UTF-8 from the program that made it.",
        )
    return text


def _check_header(header: list[str], known: Collection[str], required: Sequence[str], *, others: bool) -> None:
    if len(header) > COLUMNS_MAX:
        raise _problem(1, f"more than {COLUMNS_MAX} columns", f"Known are {', '.join(known)}.")
    if len(header) == 1 and any(sign in header[0] for sign in ";\t|") and header[0] not in known:
        raise _problem(1, "the columns are not separated by commas", "Save it with commas between columns.")
    for name in header:
        if header.count(name) > 1:
            raise _problem(1, f"column {header.index(name) + 1} stands twice", "Give every column once.")
        if name not in known and not others:
            near = difflib.get_close_matches(name[:100], list(known), 1)
            fix = f"The nearest is {near[0]}." if near else f"Known are {', '.join(known)}."
            raise _problem(1, f"column {header.index(name) + 1} is unknown", fix)
    if missing := [name for name in required if name not in header]:
        raise _problem(1, f"columns are missing: {', '.join(missing)}", "Add them to the header.")
    if not set(header) & set(known):
        raise _problem(1, "no column is known", f"Known are {', '.join(known)}.")


def _row(header: list[str], cells: list[str], known: Collection[str], line: int) -> dict[str, Any] | ProblemError:
    if len(cells) != len(header):
        return _problem(
            line, f"{len(cells)} fields under {len(header)} columns", "A comma inside a cell needs quotes around it."
        )
    return {name: cell for name, cell in zip(header, cells, strict=True) if name in known}


def _problem(line: int, what: str, fix: str) -> ProblemError:
    fault = Fault(f"/{line}/", CODE, what, fix)
    return ProblemError(CODE, f"line {line}: {what}; nothing was imported", errors=[fault])
