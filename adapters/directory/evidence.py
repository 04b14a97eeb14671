"""A directory version out of TUF files alone, years later: trust comes from the pinned root, expiry is not judged."""

from collections.abc import Callable
from functools import partial
from hashlib import sha256

from tuf.api import exceptions
from tuf.api.metadata import Metadata, MetaFile, Root, Snapshot

from adapters.directory.members import Check, Top, read_top, reload_member
from adapters.directory.repository import parse, parse_role, problem
from protocols.directory import Directory, Record, build_directory
from protocols.ledger.entry import DirRef
from protocols.limits import DIRECTORY_FILE_BYTES_MAX, DIRECTORY_ROLE_BYTES_MAX
from protocols.problems import ProblemError

ReadFile = Callable[[str], bytes | None]
_ROOTS_MAX = 1_000
_OLDER_MAX = 100


def directory_from_files(root: bytes, read: ReadFile, ref: DirRef) -> Directory:
    """The version that `ref` names, with those members whose files are there; ProblemError `dir.*` names a bad file.

    `failing` has those whose record here is older than the version lists (it is in force while the newest fails).

    The roots lead on from the pinned one, each signed by the one before. Snapshot and targets must be signed by the
    keys of one of them, a member's role by the record key that the targets delegate to; hashes lead to the rest.
    """
    roots = _root_chain(root, read)
    signing: list[Root] = []  # those of the chain whose keys signed the snapshot: the targets are theirs too

    def load(name: str, bytes_max: int, check: Check) -> bytes:
        data = read(name)
        try:
            if data is None:
                raise ProblemError("dir.unreachable", "the file is not here")
            if len(data) > bytes_max:
                raise ProblemError("dir.size", "longer than its kind may be")
            check(data)
            if name.endswith(".targets.json"):
                _signed_by(signing, "targets", data)
        except ProblemError as fault:
            raise ProblemError(fault.code, f"directory/{name}: {fault.detail or fault.kind.title}") from None
        return data

    def check_snapshot(data: bytes) -> None:
        if sha256(data).digest() != ref.sha256:
            raise ProblemError("dir.hash", "not the version that the entries name")
        parse(Snapshot, data)
        signing.extend(_signed_by(roots, "snapshot", data))

    top = read_top(load(f"{ref.version}.snapshot.json", DIRECTORY_FILE_BYTES_MAX, check_snapshot), load)
    if top.ref != ref:
        raise ProblemError("dir.invalid", f"directory/{ref.version}.snapshot.json is of version {top.ref.version}")
    records: dict[str, Record] = {}
    older: dict[str, str] = {}
    for each in top.network.members:
        found = _role(top, each.member, read)
        if found is not None:
            name, version, info = found
            if version < info.version:
                older[each.member] = "dir.stale"
            data = load(name, DIRECTORY_ROLE_BYTES_MAX, partial(_check_role, top, info))
            accepted = version, sha256(data).hexdigest()
            records[each.member] = reload_member(top, each.member, accepted, load).record
    expires = min(top.snapshot.expires, top.targets.expires)
    return build_directory(ref=top.ref, expires=expires, network=top.network, records=records, failing=older)


def _role(top: Top, member: str, read: ReadFile) -> tuple[str, int, MetaFile] | None:
    """The newest role file of a member that is here: an older one is in force while the newest fails."""
    short = member.partition("/")[2]
    info = top.snapshot.meta.get(f"{short}.json")
    for version in range(info.version, max(info.version - _OLDER_MAX, 0), -1) if info else ():
        if info and read(f"{version}.{short}.json") is not None:
            return f"{version}.{short}.json", version, info
    return None


def _check_role(top: Top, info: MetaFile, data: bytes) -> None:
    """`dir.*` unless the member's record key signed it; the version that the snapshot lists must be its very bytes."""
    short = next(name for name, each in top.snapshot.meta.items() if each is info).removesuffix(".json")
    role = parse_role(data, delegator=top.targets, role=short)
    if role.version == info.version and sha256(data).hexdigest() != (info.hashes or {}).get("sha256"):
        raise ProblemError("dir.hash", "not the role that the snapshot lists")


def _root_chain(root: bytes, read: ReadFile) -> list[Root]:
    roots = [parse(Root, root)]
    if read(f"{roots[0].version}.root.json") not in (None, root):
        raise ProblemError("dir.root_chain", f"directory/{roots[0].version}.root.json: not the pinned root")
    while len(roots) < _ROOTS_MAX and (data := read(f"{roots[-1].version + 1}.root.json")) is not None:
        name = f"directory/{roots[-1].version + 1}.root.json"
        try:
            found = parse(Root, data)
            for by in ([roots[-1]], [found]):
                _signed_by(by, "root", data)
        except ProblemError:
            raise ProblemError("dir.root_chain", f"{name}: not signed by the root before") from None
        if found.version != roots[-1].version + 1:
            raise ProblemError("dir.root_chain", f"{name}: of another version than its name")
        roots.append(found)
    return roots


def _signed_by(roots: list[Root], role: str, data: bytes) -> list[Root]:
    """The roots of which the threshold of the role's keys signed these metadata bytes; `dir.signature` where none."""
    metadata = Metadata.from_bytes(data)
    found, fault = [], ProblemError("dir.signature")
    for root in roots:
        try:
            root.verify_delegate(role, metadata.signed_bytes, metadata.signatures)
        except exceptions.RepositoryError as error:
            fault = problem(error)
            continue
        found.append(root)
    if not found:
        raise fault
    return found
