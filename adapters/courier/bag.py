"""A bag by BagIt 1.0 (RFC 8493) on any file system, exFAT too: no links, no modes, no names that differ in case alone.

The bag is not signed: what it holds proves itself. Its manifest tells what the medium spoiled.
"""

import asyncio
import os
import re
import shutil
from collections.abc import AsyncIterator, Iterator
from contextlib import suppress
from datetime import datetime
from hashlib import sha256
from pathlib import Path

from protocols.limits import DIRECTORY_FILE_BYTES_MAX, POST_BYTES_MAX
from protocols.problems import Fault, ProblemError

_BAGIT = "BagIt-Version: 1.0\nTag-File-Character-Encoding: UTF-8\n"
_LINE = re.compile(r"([0-9a-f]{64})  (data/[a-z0-9._/-]{1,200})", re.ASCII)
_FILE_BYTES_MAX = max(POST_BYTES_MAX, DIRECTORY_FILE_BYTES_MAX)
_ASIDE_BYTES_MAX = 16 * 1024 * 1024
_MANIFEST_BYTES_MAX = 256 * 1024 * 1024


class BagWriter:
    """Writes a bag under a name of its own and renames it when it is whole: a crash leaves no bag, or all of it."""

    def __init__(self, folder: Path, *, sender: str, recipient: str, now: datetime) -> None:
        name = f"tracewire-{sender}-to-{recipient}-{now:%Y%m%dt%H%M%S%fz}".replace("/", "_")
        self.path, self._part = folder / name, folder / f"{name}.part"
        self._lines: list[str] = []
        self._bytes = 0
        self._info = f"Source-Organization: {sender}\nExternal-Identifier: {recipient}\nBagging-Date: {now:%Y-%m-%d}\n"
        (self._part / "data").mkdir(parents=True)

    def add(self, name: str, data: bytes) -> None:
        """A file, durable when the bag is closed."""
        self._write(name, data)
        self._lines.append(f"{sha256(data).hexdigest()}  {name}\n")
        self._bytes += len(data)

    async def stream(self, name: str, pieces: AsyncIterator[bytes]) -> None:
        """A long file, as it comes."""
        path, digest = self._part / name, sha256()
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("wb") as file:
            async for piece in pieces:
                await asyncio.to_thread(file.write, piece)
                digest.update(piece)
                self._bytes += len(piece)
            file.flush()
            await asyncio.to_thread(os.fsync, file.fileno())
        self._lines.append(f"{digest.hexdigest()}  {name}\n")

    def close(self) -> Path:
        """The finished bag."""
        tags = {
            "bagit.txt": _BAGIT,
            "bag-info.txt": f"{self._info}Payload-Oxum: {self._bytes}.{len(self._lines)}\n",
            "manifest-sha256.txt": "".join(self._lines),
        }
        for name, text in tags.items():
            self._write(name, text.encode())
        tagged = [f"{sha256(text.encode()).hexdigest()}  {name}\n" for name, text in tags.items()]
        self._write("tagmanifest-sha256.txt", "".join(tagged).encode())
        self._part.rename(self.path)
        os.sync()  # the names too, before somebody pulls the stick: not every file system lets a folder be synced
        return self.path

    def discard(self) -> None:
        """Nothing of it stays."""
        shutil.rmtree(self._part, ignore_errors=True)

    def _write(self, name: str, data: bytes) -> None:
        path = self._part / name
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())


class BagReader:
    """Reads a bag that may have been changed; whatever differs is copied to `aside` and named in `wrong`."""

    def __init__(self, bag: Path, aside: Path) -> None:
        self._bag, self._aside = bag, aside / bag.name
        self.wrong: dict[str, str] = {}
        info = self._text("bag-info.txt", 4_096)
        if self._text("bagit.txt", 256) != _BAGIT:
            raise _no_bag(bag, "it has no bagit.txt of BagIt 1.0")
        found = dict(line.split(": ", 1) for line in info.splitlines() if ": " in line)
        self.sender, self.recipient = found.get("Source-Organization", ""), found.get("External-Identifier", "")
        self._digests: dict[str, str] = {}
        for number, line in enumerate(self._text("manifest-sha256.txt", _MANIFEST_BYTES_MAX).splitlines(), 1):
            listed = _LINE.fullmatch(line)
            if listed is None or ".." in line:
                self.wrong[f"manifest-sha256.txt line {number}"] = "no file of a courier"
            else:
                self._digests[listed[2]] = listed[1]
        self._foreign()

    def names(self) -> Iterator[str]:
        """The files that the manifest lists, in its order; a missing one is named."""
        for name in self._digests:
            if self._plain(name):
                yield name
            elif name not in self.wrong:
                self.wrong[name] = "missing"

    def read(self, name: str) -> bytes | None:
        """A listed file; None where it is not as the manifest says, and then it was set aside."""
        if name not in self._digests or not self._plain(name):
            return None
        path = self._bag / name
        try:
            data = path.read_bytes() if path.stat().st_size <= _FILE_BYTES_MAX else None
        except OSError as error:
            self.wrong[name] = f"cannot be read: {error.strerror}"
            return None
        if data is None or sha256(data).hexdigest() != self._digests[name]:
            self.set_aside(name, "too long" if data is None else "changed: it differs from the manifest")
            return None
        return data

    def size(self, name: str) -> int:
        """Bytes of a file."""
        return (self._bag / name).stat().st_size

    def ranges(self, name: str, length: int) -> Iterator[bytes]:
        """A long file in pieces."""
        with (self._bag / name).open("rb") as file:
            while piece := file.read(length):
                yield piece

    def set_aside(self, name: str, why: str) -> None:
        """Copies a file to the node's folder, where a person looks at it, unless it is long; the bag stays as it is."""
        self.wrong[name] = why
        with suppress(OSError):  # it is named all the same
            if self._plain(name) and self.size(name) <= _ASIDE_BYTES_MAX:
                target = self._aside / name
                target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
                target.touch(0o600)
                shutil.copyfile(self._bag / name, target)

    def _plain(self, name: str) -> bool:
        """A file of the bag itself: no link, and none on the way to it."""
        path = self._bag / name
        return path.is_file() and path.resolve() == self._bag.resolve() / name

    def _foreign(self) -> None:
        for path in sorted((self._bag / "data").rglob("*")):
            name = path.relative_to(self._bag).as_posix().encode("unicode_escape").decode()
            if path.is_symlink():
                self.wrong[name] = "a link: not read"
            elif path.is_file() and name not in self._digests:
                self.set_aside(name, "foreign: the manifest does not list it")

    def _text(self, name: str, bytes_max: int) -> str:
        try:
            path = self._bag / name
            if path.is_symlink() or path.stat().st_size > bytes_max:
                raise _no_bag(self._bag, f"{name} is too long, or a link")
            return path.read_bytes().decode()
        except OSError as error:
            raise _no_bag(self._bag, f"{name}: {error.strerror}") from None
        except UnicodeDecodeError:
            raise _no_bag(self._bag, f"{name} is no text") from None


def _no_bag(bag: Path, why: str) -> ProblemError:
    fault = Fault("", "courier.bag", "", "Name the folder tracewire-... that `tracewire courier export` wrote.")
    return ProblemError("courier.bag", f"{bag} is no bag: {why}", errors=[fault])
