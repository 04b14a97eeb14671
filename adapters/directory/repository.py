"""TUF files in a folder: their names, atomic writes, parsing, and python-tuf's errors as our problems."""

import fcntl
import os
import re
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from pathlib import Path
from typing import Any, TypeVar

from securesystemslib.signer import Signer
from tuf.api import exceptions
from tuf.api.metadata import Metadata, MetaFile, Root, Snapshot, TargetFile, Targets, Timestamp
from tuf.api.serialization import SerializationError

from protocols.directory import RECORD_PATH
from protocols.problems import ProblemError

LIFE = {Root: timedelta(days=400), Targets: timedelta(days=400)} | {
    Snapshot: timedelta(days=30),
    Timestamp: timedelta(hours=24),
}
RECORD_KEY_SCHEME = "ml-dsa-65/1"
_SHORT = r"[a-z0-9][a-z0-9-]{0,31}"
_NAME = re.compile(
    rf"timestamp\.json|[1-9]\d{{0,8}}\.{_SHORT}\.json"
    rf"|targets/(?:[0-9a-f]{{64}}\.directory\.json|members/{_SHORT}/{_SHORT}/[0-9a-f]{{64}}\.record\.json)",
    re.ASCII,
)
_Signed = TypeVar("_Signed", Root, Targets, Snapshot, Timestamp)


def record_path(member: str) -> str:
    """The TUF target path of a member's record."""
    return RECORD_PATH.format(member=member)


def target_name(path: str, info: TargetFile) -> str:
    """The file that holds a target under consistent snapshots; `dir.invalid` without a SHA-256."""
    if "sha256" not in info.hashes:
        raise ProblemError("dir.invalid", "a target has no SHA-256")
    folder, slash, name = path.rpartition("/")
    return f"targets/{folder}{slash}{info.hashes['sha256']}.{name}"


def problem(error: Exception) -> ProblemError:
    """Our problem for an error of python-tuf; its text is not repeated, it may quote the file."""
    kinds: list[tuple[type[Exception], str]] = [
        (exceptions.DownloadLengthMismatchError, "dir.size"),
        (exceptions.DownloadError, "dir.unreachable"),
        (exceptions.LengthOrHashMismatchError, "dir.hash"),
        (exceptions.BadVersionNumberError, "dir.rollback"),
        (exceptions.ExpiredMetadataError, "dir.expired"),
        (exceptions.UnsignedMetadataError, "dir.signature"),
    ]
    return ProblemError(next((code for kind, code in kinds if isinstance(error, kind)), "dir.invalid"))


def parse(kind: type[_Signed], data: bytes) -> _Signed:
    """The signed part of metadata bytes whose signatures nobody has verified yet; `dir.invalid` else."""
    return _metadata(kind, data).signed


def parse_role(data: bytes, *, delegator: Root | Targets, role: str) -> Targets:
    """A targets role when its delegator's threshold of keys signed it; `dir.signature` or `dir.invalid` else."""
    metadata = _metadata(Targets, data)
    try:
        delegator.verify_delegate(role, metadata.signed_bytes, metadata.signatures)
    except exceptions.RepositoryError as error:
        raise problem(error) from error
    except ValueError:
        raise ProblemError("dir.invalid", "no such delegation") from None
    return metadata.signed


def check_file(info: MetaFile | TargetFile, data: bytes) -> None:
    """`dir.hash` where bytes differ from what signed metadata says; metadata must give a SHA-256."""
    if not info.hashes or "sha256" not in info.hashes:
        raise ProblemError("dir.invalid", "signed metadata gives no SHA-256")
    try:
        info.verify_length_and_hashes(data)
    except exceptions.RepositoryError as error:
        raise problem(error) from error


def signed_bytes(signed: Root | Targets | Snapshot | Timestamp, signers: Iterable[Signer]) -> bytes:
    """The metadata file, signed by every signer."""
    metadata: Metadata[Any] = Metadata(signed)
    for signer in signers:
        metadata.sign(signer, append=True)
    return metadata.to_bytes()


def expiry(kind: type[Root | Targets | Snapshot | Timestamp], now: datetime) -> datetime:
    """When metadata signed now expires; TUF times have whole seconds."""
    return (now.astimezone(UTC) + LIFE[kind]).replace(microsecond=0)


def file_info(version: int, data: bytes) -> MetaFile:
    """What snapshot and timestamp say of a file."""
    return MetaFile(version, len(data), {"sha256": sha256(data).hexdigest()})


def target_info(path: str, data: bytes) -> TargetFile:
    """What a targets role says of a file."""
    return TargetFile(len(data), {"sha256": sha256(data).hexdigest()}, path)


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Holds an exclusive flock; a holder that dies lets go of it."""
    with path.open("ab") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def write(path: Path, data: bytes, *, mode: int = 0o644) -> None:
    """Durable when it returns: a reader, or a crash at any time, finds the old bytes or the new ones, never a part."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(dir=path.parent, prefix=".new-", delete=False) as file:
        try:
            file.write(data)
            file.flush()
            os.fchmod(file.fileno(), mode)
            os.fsync(file.fileno())
            Path(file.name).replace(path)
        except BaseException:
            Path(file.name).unlink(missing_ok=True)
            raise
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


@dataclass(frozen=True, slots=True, kw_only=True)
class Repository:
    """A folder of TUF files under the names by which they are served."""

    folder: Path

    def read(self, name: str) -> bytes | None:
        """A file's bytes, or None for one that is not there or could not be of TUF (also `..`)."""
        if not _NAME.fullmatch(name):
            return None
        try:
            return (self.folder / name).read_bytes()
        except FileNotFoundError:
            return None

    def keep(self, name: str, data: bytes) -> None:
        """Writes a file; but for timestamp.json it is for ever: `dir.hash` where other bytes have that name."""
        found = self.read(name)
        if found == data:
            return
        if not _NAME.fullmatch(name) or (found is not None and name != "timestamp.json"):
            raise ProblemError("dir.hash", "another file has that name and version")
        write(self.folder / name, data)

    def newest(self, role: str) -> tuple[int, bytes]:
        """The highest version of a role's metadata here and its bytes; `dir.invalid` where there is none."""
        versions = [int(path.name.split(".")[0]) for path in self.folder.glob(f"[1-9]*.{role}.json")]
        data = self.read(f"{max(versions)}.{role}.json") if versions else None
        if data is None:
            raise ProblemError("dir.invalid", f"no {role}.json in the repository")
        return max(versions), data


def _metadata(kind: type[_Signed], data: bytes) -> Metadata[_Signed]:
    try:
        metadata: Metadata[_Signed] = Metadata.from_bytes(data)
    except (exceptions.RepositoryError, SerializationError):
        raise ProblemError("dir.invalid", "not TUF metadata") from None
    if not isinstance(metadata.signed, kind):
        raise ProblemError("dir.invalid", "TUF metadata of another role")
    return metadata
