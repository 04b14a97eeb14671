"""`make measure`: how well serials, makes and calibres of real records are read, in place and never copied; one JSON line at the end.

Nothing here knows single rows: another city, other years and another State are measured the same way (`DATA=folder`).
"""

import csv
import json
import os
import random
import re
import sys
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from itertools import combinations
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2]))

from protocols.codes import UNKNOWN
from protocols.firearms.calibres import calibre_code, possible, read_calibre, weapon_type_code
from protocols.firearms.makes import is_known, make_key
from protocols.firearms.readings import read_serial
from protocols.firearms.scoring import Gun, gun, rank
from protocols.firearms.serials import k1, known_characters

ROOT = Path(__file__).parents[2]
DATA = Path(os.environ.get("DATA") or ROOT.parent / "shared" / "data")
Row = dict[str, str]
CLASSES = {
    "clean-alnum": {"LEGIBLE", "RESTORED"},
    "alnum+sep": {"LEGIBLE", "RESTORED"},
    "alnum+space": {"LEGIBLE", "RESTORED"},
    "wildcard-or-annotated": {"PARTIAL", "LEGIBLE", "RESTORED", "RESTORED_PARTIAL", "ALTERED_RESTAMPED"},
    "partial-text": {"PARTIAL", "OBLITERATED", "RESTORED_PARTIAL", "ALTERED_RESTAMPED"},
    "obliterated-text": {"OBLITERATED", "ALTERED_RESTAMPED", "PARTIAL"},
    "illegible-text": {"NOT_VISIBLE_WEAR", "PARTIAL"},
    "none-text": {"NEVER_MARKED"},
    "blank": {"NOT_EXAMINED"},
    "punctuation-only": {"NOT_EXAMINED", "UNREAD"},
    "see-notes": {"UNREAD", "NOT_VISIBLE_WEAR"},
}
"""serial_class of the file (a regular expression's opinion) -> what our reading may say; other classes have no opinion."""
MASKS_OF_A_GUN, MASKED = 1, 4_000
UNKNOWN_TEXTS = (
    "",
    "null",
    "outros",
    "ignorado",
    "indeterminado",
    "não identificada",
    "não identificado",
    "unknown",
    "other",
)


def rows(folder: str) -> list[Row]:
    """Every row of a folder's CSV files."""
    found: list[Row] = []
    for path in sorted((DATA / folder).glob("*.csv")):
        with path.open(encoding="utf-8", newline="") as file:
            found += csv.DictReader(file)
    return found


def share(part: int, whole: int) -> float:
    """Percent to two places."""
    return round(100 * part / whole, 2) if whole else 0.0


def serials(seized: Iterable[Row]) -> dict[str, Any]:
    """Readings against the file's own classes; how many say nothing."""
    agree, judged, unread, total = 0, 0, 0, 0
    differ: Counter[tuple[str, str]] = Counter()
    for row in seized:
        read = read_serial(row["serial_raw"])
        assert read.raw == row["serial_raw"], "raw never changes"
        total += 1
        unread += read.status == "UNREAD"
        if allowed := CLASSES.get(row["serial_class"]):
            judged += 1
            agree += read.status in allowed
            if read.status not in allowed:
                differ[row["serial_class"], read.status] += 1
    return {
        "serials": total, "serial_class_agree": share(agree, judged), "serial_unread": share(unread, total),
        "serial_differences": {f"{a} -> {b}": n for (a, b), n in differ.most_common(8)},
    }  # fmt: skip


def is_text(text: str) -> bool:
    """Whether a make or calibre is stated at all."""
    return text.strip().casefold() not in UNKNOWN_TEXTS


def known_and_same(seized: list[Row]) -> dict[str, Any]:
    """Known makes and calibres; whether guns that come back under the same letter serial get the same ones."""
    makes = {row["make"]: make_key(row["make"]) for row in seized}
    types = {row["type"]: weapon_type_code(row["type"]) for row in seized}
    calibres = {(row["calibre"], row["type"]): calibre_code(row["calibre"], types[row["type"]]) for row in seized}
    known_make = sum(is_known(makes[row["make"]]) for row in seized)
    known_calibre = sum(
        bool(possible(row["calibre"], types[row["type"]])) or read_calibre(row["calibre"]).damage is not None
        for row in seized
        if is_text(row["calibre"])
    )
    back: dict[str, list[Row]] = defaultdict(list)
    for row in seized:
        read = read_serial(row["serial_raw"])
        if len(read.k1) >= 6 and re.search("[A-Z]", read.k1):
            back[read.k1].append(row)
    pairs = [pair for same in back.values() for pair in combinations(same[:6], 2)]
    both = [(a, b) for a, b in pairs if is_known(makes[a["make"]]) and is_known(makes[b["make"]])]
    alike = [(a, b) for a, b in both if makes[a["make"]] == makes[b["make"]]]
    stated = [
        (x, y) for a, b in alike
        if UNKNOWN not in (x := calibres[a["calibre"], a["type"]], y := calibres[b["calibre"], b["type"]])
    ]  # fmt: skip
    texts = sum(is_text(row["calibre"]) for row in seized)
    return {
        "make_known": share(known_make, len(seized)), "calibre_known": share(known_calibre, texts),
        "repeat_pairs": len(both), "repeat_make_same": share(len(alike), len(both)),
        "repeat_calibre_same": share(sum(x == y for x, y in stated), len(stated)),
    }  # fmt: skip


def _plain(text: str) -> str:
    return "".join(c for c in text.casefold() if c.isalnum())


def sales(sold: list[Row]) -> dict[str, Any]:
    """Raw makes that a person put under one name get one code, those kept apart do not; damaged calibres are read."""
    raw: Counter[tuple[str, str]] = Counter()
    for row in sold:
        if is_text(row["make"]) and is_text(row["make_curated"]):
            raw[row["make"], row["make_curated"]] += 1
    one = same = apart = merged = 0
    groups: dict[str, list[tuple[str, int]]] = defaultdict(list)
    for (make, curated), count in raw.items():
        if _plain(make) != _plain(curated):
            one += count
            same += count * (make_key(make) == make_key(curated))
        groups[curated].append((make, count))
    names = [(curated, make_key(curated), sum(n for _, n in found)) for curated, found in groups.items()]
    for (a, key_a, n), (b, key_b, m) in combinations(names, 2):
        if _plain(a) != _plain(b):
            weight = min(n, m)
            apart += weight
            merged += weight * (key_a == key_b)
    damaged = right = 0
    for row in sold:
        was, now = row["calibre_curated"], row["calibre"]
        if is_text(was) and is_text(now) and _plain(was) != _plain(now):
            found = read_calibre(was, weapon_type="PISTOL")
            if found.damage is not None:
                damaged += 1
                right += calibre_code(now, "PISTOL") in found.possible
    return {
        "sales_one_name": share(same, one), "sales_one_name_rows": one, "sales_apart_merged": share(merged, apart),
        "calibre_damaged": damaged, "calibre_damage_read": share(right, damaged),
    }  # fmt: skip


def masks(seized: list[Row]) -> dict[str, Any]:
    """Masks of real partial readings over clean serials: is the true gun among the first ten of all?"""
    shapes = [shape for row in seized if (shape := mask_of(read_serial(row["serial_raw"]).pattern))]
    clean = [row for row in seized if row["serial_class"] == "clean-alnum" and len(k1(row["serial_raw"])) >= 5]
    register = [_gun(row, ref=row["record_id"], serial=row["serial_raw"]) for row in clean]
    index: dict[str, list[int]] = defaultdict(list)
    for at, record in enumerate(register):
        index[record.serial_k1[:0]].append(at)
    dice = random.Random(2026)  # noqa: S311 - a repeatable choice, no secret
    tried = found = 0
    for at in dice.sample(range(len(clean)), min(MASKED, len(clean))):
        pattern = lay_over(dice.choice(shapes), register[at].serial_k1, dice)
        if pattern is None or known_characters(pattern) < 4:
            continue
        question = _gun(clean[at], serial=pattern)
        tried += 1
        found += register[at].ref in [ref for ref, _ in rank(question, register)[:10]] or _twin(
            register[at], question, register
        )
    return {"masks_tried": tried, "mask_true_in_ten": share(found, tried)}


def _twin(true: Gun, question: Gun, register: list[Gun]) -> bool:
    return any(
        other.serial_k1 == true.serial_k1 and other.make == true.make
        for ref, _ in rank(question, register)[:10]
        for other in register
        if other.ref == ref
    )


def _gun(row: Row, *, serial: str, ref: str = "") -> Gun:
    return gun(
        serial,
        ref=ref,
        make=row["make"],
        model=row["model"],
        calibre=row["calibre"],
        weapon_type=weapon_type_code(row["type"]),
    )


def mask_of(pattern: str) -> str:
    """The shape of a partial reading: `#` known, `?` unknown, with runs written out; "" for none."""
    text = re.sub(r"\{(\d+),\1\}", lambda run: "?" * int(run[1]), pattern.strip("^$"))
    text = re.sub(r"\[[^]]+\]", "?", text)
    return "".join("?" if c == "?" else "#" for c in text) if "{" not in text and "?" in text else ""


def lay_over(shape: str, serial: str, dice: random.Random) -> str | None:
    """The mask over a serial, cut or continued to its length at the side where it is unknown."""
    if len(shape) < len(serial):
        more = len(serial) - len(shape)
        shape = "?" * more + shape if shape.startswith("?") else shape + "#" * more
    shape = shape[: len(serial)]
    if "?" not in shape:
        at = dice.randrange(len(serial))
        shape = f"{shape[:at]}?{shape[at + 1 :]}"
    return "".join(c if known == "#" else "?" for c, known in zip(serial, shape, strict=True))


def measured() -> Iterator[dict[str, Any]]:
    """Each measurement whose data are there."""
    if (DATA / "rj_seizures").exists():
        seized = rows("rj_seizures")
        yield serials(seized)
        yield known_and_same(seized)
        yield masks(seized)
    if (DATA / "md_handgun_sales").exists():
        yield sales(rows("md_handgun_sales"))


def main() -> None:
    """Prints what it measures as it goes, and all of it as one JSON line."""
    whole: dict[str, Any] = {}
    for part in measured():
        for name, value in part.items():
            sys.stderr.write(f"{name:<24} {value}\n")
        whole |= part
    sys.stdout.write(json.dumps(whole) + "\n")


if __name__ == "__main__":
    main()
