"""`make measure`: how well serials, makes and calibres of real records are read, in place and never copied; one JSON line at the end.

Nothing here knows single rows: another city, other years and another State are measured the same way (`DATA=folder`).
"""

import asyncio
import csv
import json
import os
import random
import re
import statistics
import sys
import tempfile
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Iterable
from contextlib import aclosing
from itertools import combinations
from pathlib import Path
from time import perf_counter
from typing import Any, cast

import asyncpg

sys.path.insert(0, str(Path(__file__).parents[2]))

from adapters.postgres.connect import Pool
from adapters.postgres.databases import prepare_database
from adapters.postgres.embedded import EmbeddedServer
from adapters.postgres.migrate import migrate
from adapters.postgres.registry import PostgresRegistry
from gateway.runtime.world import SystemClock, SystemIds
from gateway.services.records import CSV, ROWS_MAX, Records
from protocols.codes import UNKNOWN
from protocols.firearms.calibres import calibre_code, possible, read_calibre, weapon_type_code
from protocols.firearms.makes import is_known, make_key
from protocols.firearms.readings import read_serial
from protocols.firearms.scoring import KNOWN_MIN, Gun, gun, score
from protocols.firearms.serials import k1
from protocols.ports.registry import Record

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
MASKED, SEARCHED, NAME = 4_000, 200, "measure"
OFFICE = {"name": "A", "country": {"code": "AT", "raw": ""}}
PAGE = ROOT / "docs" / "measurements.md"
BEGIN, END = "<!-- make measure: begin -->", "<!-- make measure: end -->"
ABOUT = {
    "serials": "serial texts read, none with an exception, `raw` unchanged",
    "serial_class_agree": "percent whose reading agrees with the file's own class",
    "serial_unread": "percent that end as UNREAD",
    "make_known": "percent of all rows with a make of our table; 10.5 state none",
    "calibre_known": "percent of the rows that state a calibre whose text means something",
    "repeat_pairs": "pairs of rows under one letter serial of six characters or more, both makes known",
    "repeat_make_same": "percent of them with the same make",
    "repeat_calibre_same": "percent of those with the same calibre, where both are told",
    "sales_one_name": "percent of rows whose raw make a person put under another spelling and that get its code",
    "sales_apart_merged": "percent of what a person kept apart and our table does not",
    "calibre_damaged": "rows whose calibre a spreadsheet made a number",
    "calibre_damage_read": "percent of them read as what it was, and flagged",
    "masks_tried": "serials under masks of real partial readings, four or more characters known",
    "mask_true_in_ten": "percent with the true gun among the first ten",
    "import_150000_s": "seconds to import 150,000 shared records, 10,000 at a time",
    "searches_per_s": "searches a second over 150,000, one after the other, whole and by one caller",
    "search_p99_ms": "99th percentile of a search for a whole serial",
    "partial_p99_ms": "the same of a partial one",
    "partial_million_p99_ms": "the same of a partial one over 1,000,000 records",
    "partial_million_p50_ms": "its median",
}
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
    for row in sold:  # 0.38 became 0: the number before the point alone
        was, now = row["calibre"], row["calibre_curated"]
        if now.isdecimal() and re.fullmatch(r"0\.\d+", was):
            found = read_calibre(was)
            damaged += 1
            meant = set(possible(f".{was[2:]:0<2}"))
            right += found.damage == "number" and set() < meant <= set(found.possible)
    return {
        "sales_one_name": share(same, one), "sales_one_name_rows": one, "sales_apart_merged": share(merged, apart),
        "calibre_damaged": damaged, "calibre_damage_read": share(right, damaged),
    }  # fmt: skip


async def masks(seized: list[Row], registry: PostgresRegistry) -> dict[str, Any]:
    """Masks of real partial readings over clean serials: how often the true gun is among the first ten of all."""
    shapes = [shape for row in seized if (shape := mask_of(read_serial(row["serial_raw"]).pattern))]
    clean = [row for row in seized if row["serial_class"] == "clean-alnum" and len(k1(row["serial_raw"])) >= 5]
    guns = {row["record_id"]: _gun(row, ref=row["record_id"], serial=row["serial_raw"]) for row in clean}
    await registry.store(
        [
            Record(gun=gun_, serial=row["serial_raw"], make=row["make"], details={})
            for row, gun_ in zip(clean, guns.values(), strict=True)
        ]
    )
    dice = random.Random(2026)  # noqa: S311 - a repeatable choice, no secret
    tried = found = 0
    for row in dice.sample(clean, min(MASKED, len(clean))):
        true = guns[row["record_id"]]
        pattern = lay_over(dice.choice(shapes), true.serial_k1, dice)
        if len(pattern) - pattern.count("?") < KNOWN_MIN:
            continue
        question = _gun(row, serial=pattern)
        records = await registry.search(question, SEARCHED)
        first = sorted(records, key=lambda record: (-score(question, record.gun), record.gun.ref))[:10]
        tried += 1
        found += any(
            each.gun.serial_k1 == true.serial_k1 for each in first
        )  # the same gun comes back under other references
    return {"masks_tried": tried, "mask_true_in_ten": share(found, tried)}


async def load(registry: PostgresRegistry, server: EmbeddedServer) -> dict[str, Any]:
    """150,000 shared records imported as a file; searches one after the other; partial searches over a million."""
    dice = random.Random(7)  # noqa: S311 - a repeatable choice
    makes = ("Glock", "Taurus", "S&W", "Ruger", "Beretta", "Colt", "Imbel", "Rossi")
    header = "record_ref,status,event_date,retention_until,serial,make,model,calibre,type\n"

    def serial() -> str:
        letters = "".join(dice.choices("ABCDEFGHJKLMNPRSTUVWXYZ", k=dice.choice((0, 1, 2, 3))))
        return letters + f"{dice.randrange(10**6):06}"[: dice.choice((4, 5, 6))]

    made = [serial() for _ in range(150_000)]
    records = Records(
        member="n/a",
        office=OFFICE,
        registry=registry,
        approve=cast("Any", None),
        clock=SystemClock(),
        ids=SystemIds(SystemClock()),
    )
    started = perf_counter()
    for at in range(0, len(made), ROWS_MAX):
        lines = (
            f"r{n},STOLEN,2024-05-01,2040-01-01,{made[n]},{makes[n % 8]},17,9mm,pistol\n"
            for n in range(at, at + ROWS_MAX)
        )
        done = await records.take((header + "".join(lines)).encode(), CSV)
        assert done["stored"] == ROWS_MAX, done["lines"][:3]
    imported_s = perf_counter() - started
    await server_sql(server, "ANALYZE registry_record")
    whole = await timed(registry, [Gun(serial_k1=k1(text), make="GLOCK") for text in dice.sample(made, 2_000)])
    partial = await timed(
        registry, [Gun(pattern=hidden(k1(text), dice), make="GLOCK") for text in dice.sample(made, 2_000)]
    )
    million = await fill(server, registry, [serial() for _ in range(850_000)])
    questions = [Gun(pattern=hidden(k1(text), dice), make="GLOCK") for text in dice.sample(made, 1_000)]
    large = await timed(registry, questions)
    return {
        "import_150000_s": round(imported_s, 1), "searches_per_s": round(1_000 / statistics.mean(whole), 1),
        "search_p99_ms": p99(whole), "partial_p99_ms": p99(partial), "records": million, "partial_million_p99_ms": p99(large),
        "partial_million_p50_ms": round(statistics.median(large), 2),
    }  # fmt: skip


def hidden(serial: str, dice: random.Random) -> str:
    """A serial with some of its characters unknown, four of them known at least."""
    known = set(dice.sample(range(len(serial)), max(KNOWN_MIN, len(serial) - 2)))
    return "".join(c if at in known else "?" for at, c in enumerate(serial))


async def timed(registry: PostgresRegistry, questions: list[Gun]) -> list[float]:
    """Milliseconds of each search, one after the other."""
    found = []
    for question in questions:
        started = perf_counter()
        await registry.search(question, SEARCHED, shared=True)
        found.append(1_000 * (perf_counter() - started))
    return found


def p99(times: list[float]) -> float:
    """The 99th percentile."""
    return round(statistics.quantiles(times, n=100)[98], 2)


async def fill(server: EmbeddedServer, registry: PostgresRegistry, serials: list[str]) -> int:
    """More shared records, straight into the table, up to a million; how many there are."""
    for at in range(0, len(serials), 10_000):
        batch = [
            Record(
                gun=Gun(ref=f"m{at + n}", serial_k1=k1(text), make="TAURUS"),
                serial=text,
                make="Taurus",
                details={},
                owner="n/b",
                status="LOST",
            )
            for n, text in enumerate(serials[at : at + 10_000])
        ]
        await registry.store(batch)
    await server_sql(server, "ANALYZE registry_record")
    return len(serials) + 150_000


async def server_sql(server: EmbeddedServer, sql: str) -> None:
    """A statement of the administrator's."""
    connection = await asyncpg.connect(server.dsn(NAME))
    try:
        await connection.execute(sql)
    finally:
        await connection.close()


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


def lay_over(shape: str, serial: str, dice: random.Random) -> str:
    """The mask over a serial, cut or continued to its length at the side where it is unknown."""
    if len(shape) < len(serial):
        more = len(serial) - len(shape)
        shape = "?" * more + shape if shape.startswith("?") else shape + "#" * more
    shape = shape[: len(serial)]
    if "?" not in shape:
        at = dice.randrange(len(serial))
        shape = f"{shape[:at]}?{shape[at + 1 :]}"
    return "".join(c if known == "#" else "?" for c, known in zip(serial, shape, strict=True))


async def measured() -> AsyncIterator[dict[str, Any]]:
    """Each measurement whose data are there."""
    seized = rows("rj_seizures")
    if seized:
        yield serials(seized)
        yield known_and_same(seized)
    if sold := rows("md_handgun_sales"):
        yield sales(sold)
    with tempfile.TemporaryDirectory(prefix="tracewire-measure-") as folder:
        Path(folder).chmod(0o755)  # when we are root, PostgreSQL runs as another account
        server = EmbeddedServer(Path(folder) / "postgres")
        await server.start()
        try:
            owner, app = await prepare_database(server.dsn("postgres"), NAME)
            await migrate(owner)
            pool = await Pool.open(app)
            registry = PostgresRegistry(pool)
            if seized:
                yield await masks(seized, registry)
            yield await load(registry, server)
            await pool.close()
        finally:
            await server.stop()


async def main() -> None:
    """Prints what it measures as it goes, and all of it as one JSON line."""
    whole: dict[str, Any] = {}
    async with aclosing(measured()) as parts:
        async for part in parts:
            for name, value in part.items():
                sys.stderr.write(f"{name:<24} {value}\n")
            whole |= part
    _write(whole)
    sys.stdout.write(json.dumps(whole) + "\n")


def _write(whole: dict[str, Any]) -> None:
    """The figures in docs/measurements.md, between their two marks."""
    text = PAGE.read_text(encoding="utf-8")
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    rows = "".join(f"| `{name}` | {value} | {ABOUT[name]} |\n" for name, value in whole.items() if name in ABOUT)
    PAGE.write_text(
        f"{before}{BEGIN}\n| figure | measured | what it is |\n|---|---|---|\n{rows}{END}{after}", encoding="utf-8"
    )


if __name__ == "__main__":
    asyncio.run(main())
