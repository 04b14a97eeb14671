"""The independent verifier and the node's own reader give the same verdict on ledgers that were damaged in every way."""

import shutil
from collections.abc import Callable
from pathlib import Path
from random import Random

import pytest

from gateway.runtime.cli.folder import keys_of, sound
from protocols.problems import ProblemError
from tests.fault.invariants import VERIFIER
from tests.interop.conftest import Exchange, Ledger, put

SEEDS = range(120)
Change = Callable[[Exchange], None]


def ours(folder: Path) -> bool:
    """What `tracewire ledger verify` decides by."""
    try:
        return bool(sum(1 for _ in sound(folder, keys_of(folder, None))))
    except ProblemError:
        return False


def theirs(folder: Path) -> bool:
    try:
        return bool(VERIFIER.verify_log(folder).size)
    except VERIFIER.Failure:
        return False


def number(seq: int) -> Change:
    return lambda x: void(x.sent(9, seq, x.a, x.b.member))


def void(_: object) -> None:
    """What a change gives back is not looked at."""


WRONG: dict[str, Change] = {
    "a gap in the numbers": number(5),
    "a number twice": number(3),
    "opened again": lambda x: void(x.a.open()),
    "an entry after the last": lambda x: void(
        (x.a.add(x.a.entry("ledger-closed", sender=x.a.member)), x.a.add(x.a.entry("admin", code="t")))
    ),
    "sent by another member": lambda x: void(
        x.a.add(x.a.entry("sent", **x.message(9, x.b, x.a.member), **x.keys(9), pair_seq=1, actor_c=bytes(32)))
    ),
    "received by another member": lambda x: void(x.arrived(9, 1, 1, x.a, x.a, recipient=x.b.member)),
    "no entry at all": lambda x: void(x.a.add(b'{"v":1}')),
    "an entry of another version": lambda x: void(x.a.add(x.a.entries[1].replace(b'"v":1', b'"v":2'))),
    "another order of members": lambda x: void(x.a.add(b'{"kind":"admin","v":1}')),
    "a number that is no number": lambda x: void(x.a.add(x.a.entries[1].replace(b'"pair_seq":1', b'"pair_seq":01'))),
}
RIGHT: dict[str, Change] = {
    "nothing": void,
    "the next number": number(4),
    "closed at the end": lambda x: void(x.a.add(x.a.entry("ledger-closed", sender=x.a.member))),
    "sealed again under its number": lambda x: void(x.sent(2, 2, x.a, x.b.member, peer=x.a.ref(2))),
}


def three(change: Change) -> Ledger:
    """A ledger with three messages, and what the change does to it."""
    x = Exchange()
    for n in (1, 2, 3):
        x.whole(n, n, x.a, x.b)
    change(x)
    return x.a


@pytest.mark.parametrize(("what", "right"), [*((name, False) for name in WRONG), *((name, True) for name in RIGHT)])
def test_what_stands_in_a_ledger_is_judged_alike(tmp_path: Path, what: str, right: bool) -> None:
    folder = three((WRONG | RIGHT)[what]).write(tmp_path / "a")
    assert (ours(folder), theirs(folder)) == (right, right)


def test_a_ledger_that_was_never_opened_is_refused_by_both(tmp_path: Path) -> None:
    found = Ledger("test/br-pf")
    found.add(found.entry("admin", code="test"))
    folder = found.write(tmp_path / "a")
    assert (ours(folder), theirs(folder)) == (False, False)


def damage(folder: Path, random: Random) -> str:
    """One thing that a disk, a copy or an administrator does to the files; what it was."""
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path.name != "vkeys")
    one, other = random.sample(files, 2)
    data = one.read_bytes()
    at = random.randrange(len(data))
    match random.randrange(7):
        case 0:
            one.write_bytes(data[:at] + bytes([data[at] ^ 1 << random.randrange(8)]) + data[at + 1 :])
        case 1:
            one.write_bytes(data[:at])
        case 2:
            one.write_bytes(data + data[at:])
        case 3:
            one.unlink()
        case 4:
            one.write_bytes(other.read_bytes())
        case 5:
            put(one.with_name(f"{random.randrange(1, 999):03}"), data)
        case _:
            put(folder / "tile/entries" / f"{random.randrange(3):03}.p" / str(random.randrange(1, 256)), data[:at])
    return f"{one.relative_to(folder)} at {at}, or {other.relative_to(folder)}"


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with full and partial tiles, partial ones of when the ledger was smaller, and a few checkpoints."""
    found = three(void)
    for count in (280, 40):
        found.add(*(found.entry("admin", code=f"n{n}") for n in range(count)))
    folder = found.write(tmp_path_factory.mktemp("whole") / "a")
    bundle = (folder / "tile/entries/000").read_bytes()
    first = int.from_bytes(bundle[:2], "big") + 2
    put(folder / "tile/entries/000.p/1", bundle[:first])
    put(folder / "tile/0/000.p/5", (folder / "tile/0/000").read_bytes()[:160])
    assert ours(folder)
    assert theirs(folder)
    return folder


def test_damaged_files_are_judged_alike(whole: Path, tmp_path: Path) -> None:
    refused = 0
    for seed in SEEDS:
        folder = tmp_path / str(seed)
        shutil.copytree(whole, folder)
        what = damage(folder, Random(seed))
        verdicts = ours(folder), theirs(folder)
        assert verdicts[0] == verdicts[1], f"seed {seed}: {what}: ours {verdicts[0]}, the verifier {verdicts[1]}"
        refused += not verdicts[0]
        shutil.rmtree(folder)
    assert refused > len(SEEDS) // 2
