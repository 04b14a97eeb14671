"""The node's side: follows the directory by TUF from a pinned root, and keeps every accepted version for ever.

FOLDER/trusted/        what python-tuf trusts: its protection against rollback
FOLDER/mirror/         every verified file under its name in the repository; also what peers may fetch from us
FOLDER/accepted.jsonl  one line a version: reference, time, and whose newest record failed; only appended to
"""

import asyncio
import os
import threading
from collections.abc import Collection, Iterator, Mapping
from dataclasses import replace
from datetime import datetime, timedelta
from hashlib import sha256
from pathlib import Path
from typing import Any

from tuf.api import exceptions
from tuf.api.metadata import Root, Snapshot, Targets, Timestamp
from tuf.ngclient import Updater, UpdaterConfig
from tuf.ngclient.fetcher import FetcherInterface

from adapters.directory.fetch import fetch_from
from adapters.directory.members import Check, Failure, Member, Top, load_members, read_top, reload_member
from adapters.directory.repository import Repository, locked, parse, problem
from protocols.directory import Directory, build_directory
from protocols.ledger.entry import DirRef
from protocols.limits import DIRECTORY_FILE_BYTES_MAX, DIRECTORY_GRACE_S
from protocols.ports.directory import Fetch
from protocols.problems import ProblemError
from protocols.strict import b64u, dump_json, format_time, parse_object, parse_time, unb64u

_GRACE = timedelta(seconds=DIRECTORY_GRACE_S)
_BASE = "tuf:/"
_LINE_BYTES_MAX = 1024 * 1024
_OLD_VERSIONS_MAX = 16  # rebuilt for evidence and kept in memory


class DirectoryClient:
    """The port DirectorySource over a folder; several processes may share it, one writes at a time."""

    def __init__(self, folder: Path, root: bytes, source: str | Fetch) -> None:
        """`root` is the pinned root.json; `source` an URL, a folder or a function. Loads the last accepted version."""
        self._root = root
        self._fetch = fetch_from(source) if isinstance(source, str) else source
        self._folder, self._trusted = folder, folder / "trusted"
        self._trusted.mkdir(parents=True, exist_ok=True)
        self._mirror = Repository(folder=folder / "mirror")
        self._accepted = folder / "accepted.jsonl"
        self._lines: dict[DirRef, dict[str, Any]] = {}
        self._members: dict[str, Member] = {}
        self._failures: dict[str, Failure] = {}
        self._current: Directory | None = None
        self._old: dict[DirRef, Directory] = {}
        self._one = threading.Lock()  # taken by workers: it also holds when a caller was cancelled
        with locked(folder / ".lock"):
            self._catch_up()

    @property
    def current(self) -> Directory | None:
        """The version in force; None until the first was accepted."""
        return self._current

    async def refresh(self, now: datetime, *, fetch: Fetch | None = None) -> Directory:
        """Accepts what is newer at the source, or at `fetch` (a peer); ProblemError `dir.*` leaves the old in force."""
        return await asyncio.to_thread(self._refresh, now, fetch or self._fetch)

    async def at(self, ref: DirRef) -> Directory | None:
        """An accepted version again, or None; ProblemError `dir.*` where the mirror was damaged."""
        if self._current is not None and self._current.ref == ref:
            return self._current
        return await asyncio.to_thread(self._again, ref)

    def file(self, name: str) -> bytes | None:
        """A file of the mirror; None for a name that is not there or not one of TUF's."""
        return self._mirror.read(name)

    async def files(self, ref: DirRef, members: Collection[str]) -> dict[str, bytes]:
        """The TUF files of an accepted version with these members' records, roots too; empty where it never was one."""
        return await asyncio.to_thread(self._files, ref, members)

    def _refresh(self, now: datetime, fetch: Fetch) -> Directory:
        with self._one, locked(self._folder / ".lock"):
            self._catch_up()
            snapshot, expires = self._update(now, fetch)
            current, digest = self._current, sha256(snapshot).digest()
            sound = not self._failures and all(member.expires > now for member in self._members.values())
            if current and current.ref.sha256 == digest and sound:
                directory = replace(current, expires=expires)
            else:
                directory = self._accept(snapshot, expires, now, fetch)
            self._mirror.keep("timestamp.json", (self._trusted / "timestamp.json").read_bytes())
            self._current = directory
            return directory

    def _again(self, ref: DirRef) -> Directory | None:
        with self._one:
            if ref not in self._lines:
                return None
            if ref not in self._old:
                top, members, failures = self._reload(ref)
                while len(self._old) >= _OLD_VERSIONS_MAX:
                    self._old.pop(next(iter(self._old)))
                self._old[ref] = _directory(top, members, failures, min(top.snapshot.expires, top.targets.expires))
            return self._old[ref]

    def _files(self, ref: DirRef, members: Collection[str]) -> dict[str, bytes]:
        with self._one:
            if ref not in self._lines:
                self._catch_up()  # another process of the node may have accepted it
            if ref not in self._lines:
                return {}
            names = [path.name for path in self._mirror.folder.glob("[1-9]*.root.json")]
            names.append(f"{ref.version}.snapshot.json")
            self._reload(ref, only=members, used=names)
            return {name: data for name in names if (data := self._mirror.read(name)) is not None}

    def _update(self, now: datetime, fetch: Fetch) -> tuple[bytes, datetime]:
        """The newest snapshot that TUF trusts, and when the first of the four top-level files expires."""
        source = _Source(fetch)
        config = UpdaterConfig(targets_max_length=DIRECTORY_FILE_BYTES_MAX)
        try:
            updater = Updater(str(self._trusted), _BASE, fetcher=source, config=config, bootstrap=self._root)
            # The only way to judge expiry by our clock and with the grace; a test guards it.
            updater._trusted_set.reference_time = now - _GRACE  # noqa: SLF001
            updater.refresh()
        except (exceptions.RepositoryError, exceptions.DownloadError) as error:
            fault = problem(error)
            if source.last.endswith(".root.json") and fault.code in {"dir.signature", "dir.rollback"}:
                raise ProblemError("dir.root_chain", "the next root is not signed by ours") from error
            raise fault from error
        for path in sorted((self._trusted / "root_history").glob("*.root.json")):
            self._mirror.keep(path.name, path.read_bytes())
        files = [(self._trusted / f"{kind.type}.json").read_bytes() for kind in (Root, Timestamp, Snapshot, Targets)]
        root, targets = parse(Root, files[0]), parse(Targets, files[3])
        publics = ["".join(str(key.keyval["public"]).split()) for key in root.keys.values()]
        if len(set(publics)) != len(publics):
            raise ProblemError("dir.signature", "the root counts one key under two names")
        self._mirror.keep(f"{targets.version}.targets.json", files[3])
        dates = root.expires, parse(Timestamp, files[1]).expires, parse(Snapshot, files[2]).expires
        return files[2], min(targets.expires, *dates)

    def _accept(self, snapshot: bytes, expires: datetime, now: datetime, fetch: Fetch) -> Directory:
        def load(name: str, bytes_max: int, check: Check) -> bytes:
            return self._load(name, bytes_max, check, fetch)

        try:
            top = read_top(snapshot, load)
            if self._current and top.ref != self._current.ref and top.ref.version <= self._current.ref.version:
                raise ProblemError("dir.rollback", "another snapshot of an old version")
            members, failures = load_members(top, self._members, self._failures, now=now, load=load)
        except OSError as error:
            raise ProblemError("dir.unreachable", "the source stopped answering") from error
        directory = _directory(top, members, failures, expires)
        self._mirror.keep(f"{top.ref.version}.snapshot.json", snapshot)
        line = _line(top.ref, now, members, failures)
        if top.ref not in self._lines or _failing(line) != _failing(self._lines[top.ref]):
            self._append(line)
        self._members, self._failures = members, failures
        return directory

    def _load(self, name: str, bytes_max: int, check: Check, fetch: Fetch | None) -> bytes:
        """A file of the mirror, or else of the source: kept there once it passed the check."""
        data = self._mirror.read(name)
        found = data is not None
        if data is None:
            data = fetch(name) if fetch else None
        if data is None:
            raise ProblemError("dir.unreachable", "the source does not have a file")
        if len(data) > bytes_max:
            raise ProblemError("dir.size", "a file is longer than its kind may be")
        check(data)
        if not found:
            self._mirror.keep(name, data)
        return data

    def _catch_up(self) -> None:
        """Takes over what another process accepted."""
        lines = _read_lines(self._accepted)
        if list(lines) != list(self._lines):
            self._lines = lines
            self._restore()

    def _append(self, line: dict[str, Any]) -> None:
        with self._accepted.open("ab") as file:
            file.write(dump_json(line) + b"\n")
            file.flush()
            os.fsync(file.fileno())
        self._lines[_ref(line)] = line

    def _restore(self) -> None:
        """The last accepted version without the network. Where the mirror lacks a file, `refresh` fetches it."""
        try:
            top, self._members, self._failures = self._reload(next(reversed(self._lines)))
            found = self._mirror.read("timestamp.json")
            expires = parse(Timestamp, found).expires if found else top.snapshot.expires
            expires = min(expires, top.snapshot.expires, top.targets.expires)
            self._current = _directory(top, self._members, self._failures, expires)
        except ProblemError:
            self._members, self._failures = {}, {}

    def _reload(
        self, ref: DirRef, *, only: Collection[str] | None = None, used: list[str] | None = None
    ) -> tuple[Top, dict[str, Member], dict[str, Failure]]:
        """From the mirror alone: the hashes lead from the reference to every file, all were verified once.

        `only` leaves other members out; the names of the files read are added to `used`.
        """

        def load(name: str, bytes_max: int, check: Check) -> bytes:
            if used is not None:
                used.append(name)
            return self._load(name, bytes_max, check, None)

        snapshot = self._mirror.read(f"{ref.version}.snapshot.json") or b""
        if sha256(snapshot).digest() != ref.sha256:
            raise ProblemError("dir.hash", "the mirror's snapshot is not the accepted one")
        top, failing = read_top(snapshot, load), _failing(self._lines[ref])
        failures = {name: Failure(code=each["code"], since=parse_time(each["since"])) for name, each in failing.items()}
        members = {}
        for each in top.network.members:
            noted = failing.get(each.member)
            if only is not None and each.member not in only:
                continue
            if noted is None or "sha256" in noted:
                role = (noted["version"], noted["sha256"]) if noted else None
                members[each.member] = reload_member(top, each.member, role, load)
        return top, members, failures


class _Source(FetcherInterface):
    """python-tuf's way to a Fetch; remembers the last name asked for."""

    def __init__(self, fetch: Fetch) -> None:
        self._by_name = fetch
        self.last = ""

    def _fetch(self, url: str) -> Iterator[bytes]:
        self.last = url.removeprefix(_BASE)
        data = self._by_name(self.last)
        if data is None:
            raise exceptions.DownloadHTTPError("not there", 404)
        return iter([data])


def _directory(
    top: Top, members: Mapping[str, Member], failures: Mapping[str, Failure], expires: datetime
) -> Directory:
    return build_directory(
        ref=top.ref,
        expires=expires,
        network=top.network,
        records={name: member.record for name, member in members.items()},
        failing={name: failure.code for name, failure in failures.items()},
    )


def _line(ref: DirRef, now: datetime, members: Mapping[str, Member], failures: Mapping[str, Failure]) -> dict[str, Any]:
    failing: dict[str, dict[str, Any]] = {}
    for name, failure in failures.items():
        failing[name] = {"code": failure.code, "since": format_time(failure.since)}
        if name in members:
            failing[name] |= {"version": members[name].version, "sha256": members[name].sha256}
    line = {"version": ref.version, "sha256": b64u(ref.sha256), "at": format_time(now)}
    return line | ({"failing": failing} if failing else {})


def _failing(line: Mapping[str, Any]) -> dict[str, Any]:
    return dict(line.get("failing", {}))


def _ref(line: Mapping[str, Any]) -> DirRef:
    return DirRef(version=line["version"], sha256=unb64u(line["sha256"], length=32))


def _read_lines(path: Path) -> dict[DirRef, dict[str, Any]]:
    """The last line of every version, in the order of versions; a line that a crash tore is cut off."""
    if not path.exists():
        return {}
    data = path.read_bytes()
    whole = data.rfind(b"\n") + 1
    if whole < len(data):
        os.truncate(path, whole)
    lines = [parse_object(line, bytes_max=_LINE_BYTES_MAX) for line in data[:whole].splitlines()]
    return {_ref(line): line for line in lines}
