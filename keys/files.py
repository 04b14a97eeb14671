"""Files that hold keys and marks: owner and mode checked, replaced atomically, durable when a call returns."""

import fcntl
import os
import stat
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from protocols.problems import Fault, ProblemError

_BYTES_MAX = 1024 * 1024
_LINE_BYTES_MAX = 1024


def store_problem(detail: str, fix: str) -> ProblemError:
    """`key.store` with what to do about it; paths may be named, contents never."""
    return ProblemError("key.store", detail, errors=[Fault("", "key.store", detail, fix)])


def _check_ours(path: Path, found: os.stat_result) -> None:
    if found.st_uid != os.geteuid():
        raise store_problem(f"{path} belongs to another account", f"Run `chown {os.geteuid()} {path}`.")
    if not stat.S_ISREG(found.st_mode) or found.st_mode & 0o077:
        raise store_problem(f"{path} is open to others", f"Run `chmod 600 {path}`, and replace its keys if in doubt.")


def check_folder(folder: Path) -> None:
    """Refuses a folder in which another account could swap files."""
    try:
        found = folder.stat()
    except OSError as error:
        raise store_problem(f"{folder} cannot be opened: {error.strerror}", "Run `tracewire init`.") from None
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid() or found.st_mode & 0o022:
        raise store_problem(f"{folder} can be written by others", f"Run `chmod 700 {folder}` as its owner.")


def check_private(path: Path) -> None:
    """`key.store` unless a file is ours and closed to others."""
    try:
        _check_ours(path, path.stat())
    except OSError as error:
        raise store_problem(f"{path} cannot be opened: {error.strerror}", "Put it back from its backup.") from None


def read_private(path: Path) -> bytes:
    """The bytes of a file that only our account can read; `key.store` else."""
    try:
        with path.open("rb") as file:
            _check_ours(path, os.fstat(file.fileno()))
            return file.read(_BYTES_MAX)
    except FileNotFoundError:
        raise store_problem(f"{path} is missing", "Put it back from its backup.") from None
    except OSError as error:
        raise store_problem(f"{path} cannot be read: {error.strerror}", "Check disk and owner.") from None


def sync_folder(folder: Path) -> None:
    """Makes renames and removals in a folder durable."""
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def replace(path: Path, data: bytes) -> None:
    """Old bytes or new, never a mixture, and durable on return; OSError else. The caller holds the folder's lock.

    A crash leaves at most a torn `.tmp` that nobody reads and the next call overwrites.
    """
    rewrite(path, [data])


def append(path: Path, data: bytes) -> None:
    """Adds whole lines of up to 1 KiB to a file, durably; a last one that a crash cut is taken off first."""
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    with os.fdopen(fd, "r+b") as file:
        end = file.seek(0, os.SEEK_END)
        last = os.pread(fd, _LINE_BYTES_MAX, max(0, end - _LINE_BYTES_MAX))
        if last and not last.endswith(b"\n"):
            file.truncate(end - len(last) + last.rfind(b"\n") + 1)
            file.seek(0, os.SEEK_END)
        file.write(data)
        file.flush()
        os.fsync(fd)
    sync_folder(path.parent)


def read_lines(path: Path) -> Iterator[bytes]:
    """Its whole lines, one by one; a last one that a crash cut is none."""
    with path.open("rb") as file:
        _check_ours(path, os.fstat(file.fileno()))
        yield from (line for line in file if line.endswith(b"\n"))


def rewrite(path: Path, pieces: Iterable[bytes]) -> None:
    """As `replace`, of pieces that need not fit into memory."""
    torn = path.with_name(f".{path.name}.tmp")
    fd = os.open(torn, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    with os.fdopen(fd, "wb") as file:
        os.fchmod(fd, 0o600)  # a torn one may have been copied back with another mode
        file.writelines(pieces)
        file.flush()
        os.fsync(fd)
    torn.rename(path)
    sync_folder(path.parent)


def destroy_file(path: Path) -> None:
    """Overwrites and removes a file, durably; a missing one is fine. Old blocks of copying disks are beyond us.

    It is never there half overwritten: it loses its name first, and the next call ends what a crash left.
    """
    gone = path.with_name(f".{path.name}.gone")
    if path.exists():
        path.rename(gone)
        sync_folder(path.parent)
    if gone.exists():
        with gone.open("r+b") as file:
            file.write(bytes(gone.stat().st_size))
            file.flush()
            os.fsync(file.fileno())
        gone.unlink()
    sync_folder(path.parent)


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Holds an exclusive flock. Waits without a bound: a holder only ever writes one file, and dies with its lock."""
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        yield
    finally:
        os.close(fd)
