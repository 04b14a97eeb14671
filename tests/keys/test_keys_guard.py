"""The fork guard's file: never lowered, whatever crashes or runs beside it."""

import multiprocessing
import os
from pathlib import Path

import pytest

from keys.guard import FileGuard
from protocols.ports.crypto import GuardMark
from protocols.problems import ProblemError

ORIGIN = "test/registry/2026.1"
RAISES = 60


def mark(size: int, *, root: bytes | None = None, origin: str = ORIGIN, timeline: int = 1) -> GuardMark:
    root = root or size.to_bytes(32, "big")
    return GuardMark(origin=origin, size=size, root=root, system_identifier="7300000000000000001", timeline=timeline)


def test_a_mark_is_there_after_a_restart_and_each_ledger_has_its_own(tmp_path: Path) -> None:
    guard = FileGuard(tmp_path)
    assert guard.read(ORIGIN) is None
    guard.raise_to(mark(3))
    guard.raise_to(mark(1, origin="test/registry/2027.1"))
    again = FileGuard(tmp_path)
    assert again.read(ORIGIN) == mark(3)
    assert again.read("test/registry/2027.1") == mark(1, origin="test/registry/2027.1")
    assert (tmp_path / "guard.json").stat().st_mode & 0o777 == 0o600


def test_a_mark_is_never_lowered(tmp_path: Path) -> None:
    guard = FileGuard(tmp_path)
    guard.raise_to(mark(5))
    guard.raise_to(mark(4))
    assert guard.read(ORIGIN) == mark(5)


def test_one_size_has_one_root(tmp_path: Path) -> None:
    guard = FileGuard(tmp_path)
    guard.raise_to(mark(5))
    with pytest.raises(ProblemError, match=r"ledger.rollback"):
        guard.raise_to(mark(5, root=bytes(32)))
    assert guard.read(ORIGIN) == mark(5)


def test_another_timeline_is_taken_at_the_same_place_only(tmp_path: Path) -> None:
    guard = FileGuard(tmp_path)
    guard.raise_to(mark(5))
    with pytest.raises(ProblemError, match=r"ledger.rollback"):
        guard.raise_to(mark(6, timeline=2))
    guard.raise_to(mark(5, timeline=2))
    guard.raise_to(mark(6, timeline=2))
    assert FileGuard(tmp_path).read(ORIGIN) == mark(6, timeline=2)


def test_what_another_process_raised_is_seen_before_we_write(tmp_path: Path) -> None:
    one, two = FileGuard(tmp_path), FileGuard(tmp_path)
    for size in range(1, 40, 2):  # quick successions reuse inodes, unless ours is held
        one.raise_to(mark(size + 1))
        two.raise_to(mark(size))
        assert two.read(ORIGIN) == mark(size + 1)


def test_a_torn_temporary_file_is_ignored(tmp_path: Path) -> None:
    FileGuard(tmp_path).raise_to(mark(5))
    (tmp_path / ".guard.json.tmp").write_bytes(b'{"v":1,"marks":{')
    guard = FileGuard(tmp_path)
    assert guard.read(ORIGIN) == mark(5)
    guard.raise_to(mark(6))
    assert FileGuard(tmp_path).read(ORIGIN) == mark(6)


@pytest.mark.parametrize(
    "damage", [b"", b"{}", b'{"v":1,"marks":{"o":[1]}}', b'{"v":1,"marks":{"o":["x","AA","s",1]}}']
)
def test_a_damaged_file_is_not_taken_for_a_missing_one(tmp_path: Path, damage: bytes) -> None:
    FileGuard(tmp_path).raise_to(mark(5))
    (tmp_path / "guard.json").write_bytes(damage)
    with pytest.raises(ProblemError, match=r"ledger.rollback"):
        FileGuard(tmp_path).read(ORIGIN)


def test_a_file_removed_under_a_running_guard_is_a_rollback(tmp_path: Path) -> None:
    guard = FileGuard(tmp_path)
    guard.raise_to(mark(5))
    (tmp_path / "guard.json").unlink()
    with pytest.raises(ProblemError, match=r"ledger.rollback"):
        guard.raise_to(mark(6))


def test_a_guard_file_open_to_others_is_refused(tmp_path: Path) -> None:
    FileGuard(tmp_path).raise_to(mark(5))
    (tmp_path / "guard.json").chmod(0o644)
    with pytest.raises(ProblemError, match=r"key.store"):
        FileGuard(tmp_path).read(ORIGIN)


def _raise_all(folder: Path, origin: str, first: int) -> None:
    guard = FileGuard(folder)
    for size in range(first, RAISES, 2):
        guard.raise_to(mark(size))
        guard.raise_to(mark(size, origin=origin))
        seen = guard.read(ORIGIN)
        if seen is None or seen.size < size:
            os._exit(1)


def test_two_processes_lose_no_mark_of_each_other(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    processes = [context.Process(target=_raise_all, args=(tmp_path, f"test/{n}/2026.1", n)) for n in (1, 2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
    assert [process.exitcode for process in processes] == [0, 0]
    guard = FileGuard(tmp_path)
    assert guard.read(ORIGIN) == mark(RAISES - 1)
    assert guard.read("test/1/2026.1") == mark(RAISES - 1, origin="test/1/2026.1")
    assert guard.read("test/2/2026.1") == mark(RAISES - 2, origin="test/2/2026.1")
