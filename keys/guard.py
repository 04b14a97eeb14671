"""The fork guard's file beside the keys: never lowered, durable when a call returns (docs/protocol.md section 6)."""

import os
from pathlib import Path

from keys.files import check_folder, locked, read_private, replace, sync_folder
from protocols.ports.crypto import GuardMark
from protocols.problems import ProblemError
from protocols.strict import b64u, dump_json, parse_object, unb64u

_FILE_BYTES_MAX = 1024 * 1024
_HASH_BYTES = 32


class FileGuard:
    """The port Guard over one file for all origins; a torn temporary file is never read.

    A mark of the same size and root but another system identifier or timeline is written: that is how `ledger recover`
    takes over. A larger one under another identity is `ledger.rollback`: a promotion passes the check first.
    """

    def __init__(self, folder: Path) -> None:
        self._held: int | None = None  # descriptor of the file that _marks was read from or written to
        check_folder(folder)
        self._path = folder / "guard.json"
        self._lock = folder / "guard.lock"
        self._marks: dict[str, GuardMark] = {}

    def __del__(self) -> None:
        """Gives the descriptor back."""
        if self._held is not None:
            os.close(self._held)

    def read(self, origin: str) -> GuardMark | None:
        """The newest durable mark, or None; `ledger.rollback` where the file is damaged."""
        with locked(self._lock):
            self._refresh()
            return self._marks.get(origin)

    def raise_to(self, mark: GuardMark) -> None:
        """Durable when it returns; a smaller size changes nothing, the same size with another root is refused."""
        with locked(self._lock):
            self._refresh()
            old = self._marks.get(mark.origin)
            if old is not None and (mark == old or mark.size < old.size):
                return
            if old is not None and not _follows(old, mark):
                raise ProblemError("ledger.rollback", "the guard remembers another history")
            marks = self._marks | {mark.origin: mark}
            replace(self._path, _dump(marks))
            self._hold(marks)

    def _refresh(self) -> None:
        """Reads the file unless it is the one we know.

        Files are replaced whole, and while we hold it open no other can get its inode. What another process wrote is made durable, lest it died between rename and fsync.
        """
        try:
            found = self._path.stat()
        except FileNotFoundError:
            if self._held is None:
                return
            raise ProblemError("ledger.rollback", "the guard file was removed") from None
        if self._held is not None:
            known = os.fstat(self._held)
            if (found.st_ino, found.st_dev, found.st_mtime_ns) == (known.st_ino, known.st_dev, known.st_mtime_ns):
                return
        marks = _parse(read_private(self._path))
        sync_folder(self._path.parent)
        self._hold(marks)

    def _hold(self, marks: dict[str, GuardMark]) -> None:
        former, self._held = self._held, os.open(self._path, os.O_RDONLY | os.O_CLOEXEC)
        self._marks = marks
        if former is not None:
            os.close(former)


def _follows(old: GuardMark, mark: GuardMark) -> bool:
    if mark.size == old.size:
        return mark.root == old.root
    return (mark.system_identifier, mark.timeline) == (old.system_identifier, old.timeline)


def _dump(marks: dict[str, GuardMark]) -> bytes:
    lines = {
        mark.origin: [mark.size, b64u(mark.root), mark.system_identifier, mark.timeline] for mark in marks.values()
    }
    return dump_json({"v": 1, "marks": lines})


def _parse(data: bytes) -> dict[str, GuardMark]:
    try:
        marks = parse_object(data, bytes_max=_FILE_BYTES_MAX)["marks"]
        return {
            origin: GuardMark(
                origin=origin,
                size=int(size),
                root=unb64u(root, length=_HASH_BYTES),
                system_identifier=str(identifier),
                timeline=int(timeline),
            )
            for origin, (size, root, identifier, timeline) in marks.items()
        }
    except (ProblemError, ValueError, TypeError, KeyError, AttributeError):
        raise ProblemError("ledger.rollback", "the guard file is damaged; put back no older copy of it") from None
