"""Keys for content at rest under monthly epoch generations, and their destruction (docs/protocol.md section 7).

epochs/<generation>.key is an epoch key, sealed by the store's secret; the highest generation is the open one.
epochs/<generation>.kept says, a line a key, where its content keys went when it was destroyed, so that an older database
backup still opens, all but what was erased.
"""

import os
import secrets
from collections.abc import Container, Iterable
from datetime import datetime
from functools import lru_cache
from hashlib import sha256
from pathlib import Path

from keys.files import (
    append,
    check_folder,
    destroy_file,
    locked,
    read_lines,
    read_private,
    replace,
    rewrite,
    store_problem,
    sync_folder,
)
from keys.secret import Secret
from keys.suite import CEK_BYTES, decrypt, encrypt
from protocols.ports.crypto import ContentKey
from protocols.problems import ProblemError
from protocols.strict import b64u, dump_json, parse_json, unb64u

_UNWRAPPED_MAX = 4096  # content keys kept in memory
_LINE_BYTES_MAX = 1024
_KEPT_GENERATIONS_MAX = 16  # parsed kept files in memory; they are read only for old backups


class EpochVault:
    """The port Vault, with what erasure needs: `rotate`, `rewrap`, `keep`, `destroy`, `forget`. Sees other processes' work at once."""

    def __init__(self, folder: Path, secret: Secret) -> None:
        self._folder = folder / "epochs"
        check_folder(self._folder)
        self._secret = secret
        found = [int(path.stem) for path in self._folder.glob("*.key") if path.stem.isdecimal()]
        if not found:
            raise store_problem(f"{self._folder} holds no epoch key", "Put it back from its backup.")
        self._open = max(found)
        self._epoch = lru_cache(_UNWRAPPED_MAX)(self._read_epoch)
        self._unwrap = lru_cache(_UNWRAPPED_MAX)(self._read_content_key)
        self._kept = lru_cache(_KEPT_GENERATIONS_MAX)(self._read_kept)

    @classmethod
    def create(cls, folder: Path, secret: Secret) -> "EpochVault":
        """The vault of a new key store, generation 1 open; `key.store` where there is one."""
        epochs = folder / "epochs"
        try:
            epochs.mkdir(mode=0o700, exist_ok=True)
            sync_folder(folder)
            if any(epochs.glob("*.key")):
                raise store_problem(f"{epochs} holds epoch keys already", "Open the vault that is there.")
            _make_epoch(epochs, 1, secret)
        except OSError as error:
            raise store_problem(f"{epochs} cannot be made: {error.strerror}", "Choose a new folder.") from None
        return cls(folder, secret)

    @property
    def generation(self) -> int:
        """The open epoch generation."""
        while any(self._exists(f"{self._open + 1}.{kind}") for kind in ("key", "kept")):  # opened, perhaps destroyed
            self._open += 1
        return self._open

    def rotate(self) -> int:
        """Opens the next generation, once a month and before the open one is destroyed; gives its number."""
        try:
            with locked(self._folder / ".lock"):
                _make_epoch(self._folder, self.generation + 1, self._secret)
        except OSError as error:
            raise store_problem(f"no epoch key can be made: {error.strerror}", "Check disk and mode.") from None
        return self.generation

    def new_key(self, scope: str) -> ContentKey:
        """A fresh key bound to its scope, under the open generation."""
        return self._wrap(secrets.token_bytes(CEK_BYTES), scope)

    def rewrap(self, key: ContentKey, scope: str) -> ContentKey:
        """The same key under the open generation; `content.erased` where it no longer opens."""
        return self._wrap(self._content_key(key, scope), scope)

    def seal(self, key: ContentKey, scope: str, name: str, plaintext: bytes) -> bytes:
        """Ciphertext bound to scope and name; `content.erased` where the key no longer opens."""
        return encrypt(self._content_key(key, scope), plaintext, dump_json([scope, name]))

    def open(self, key: ContentKey, scope: str, name: str, sealed: bytes) -> bytes:
        """The plaintext; `content.erased` where the key is destroyed or does not open it."""
        plaintext = decrypt(self._content_key(key, scope), sealed, dump_json([scope, name]))
        if plaintext is None:
            raise ProblemError("content.erased", "no key opens this content")
        return plaintext

    def keep(self, generation: int, kept: Iterable[tuple[ContentKey, ContentKey]]) -> None:
        """Notes where content keys of a generation went: (former, rewrapped), durable on return; once more adds nothing wrong."""
        lines = b"".join(dump_json([_name(old), new.generation, b64u(new.wrapped)]) + b"\n" for old, new in kept)
        try:
            with locked(self._folder / ".lock"):
                append(self._folder / f"{generation}.kept", lines)
        except OSError as error:
            raise store_problem(f"the keys that stay cannot be written: {error.strerror}", "Check the disk.") from None

    def destroy(self, generation: int, *, erased: Iterable[ContentKey]) -> None:
        """Destroys an epoch key once all that stays is kept; `erased`: keys that must not be among that.

        Crash argument: what is kept is durable before the epoch key goes, and the database's rows are rewrapped by then; the
        same calls again finish.
        """
        if generation >= self.generation:
            raise store_problem("the open epoch cannot be destroyed", "Rotate first.")
        path, gone = self._folder / f"{generation}.kept", {_name(key).encode() for key in erased}
        try:
            with locked(self._folder / ".lock"):
                if not path.exists():
                    append(path, b"")  # the number stays taken
                if any(_named(line) in gone for line in read_lines(path)):
                    rewrite(path, (line for line in read_lines(path) if _named(line) not in gone))
                destroy_file(self._path(generation))
        except OSError as error:
            raise store_problem(f"the epoch cannot be destroyed: {error.strerror}", "Check disk and mode.") from None
        for cache in (self._epoch, self._unwrap, self._kept):
            cache.cache_clear()

    def holds(self, generation: int) -> bool:
        """Whether the key of a generation is there."""
        return self._exists(f"{generation}.key")

    def forget(self, before: datetime, *, but: Container[int]) -> None:
        """Drops what opens backups from before a time: where keys of generations went that were destroyed before it.

        `but`: generations that content in the database still names.
        """
        with locked(self._folder / ".lock"):
            for path in self._folder.glob("*.kept"):
                if path.stat().st_size and path.stat().st_mtime < before.timestamp() and int(path.stem) not in but:
                    replace(path, b"")  # the number stays taken
            for torn in self._folder.glob(".*.key.gone"):  # of a process that was killed
                destroy_file(torn.with_name(torn.name[1 : -len(".gone")]))
        self._kept.cache_clear()

    def _content_key(self, key: ContentKey, scope: str) -> bytes:
        while not self._exists(f"{key.generation}.key"):  # asked every time: another process may have destroyed it
            later = self._kept(key.generation).get(_name(key))
            if later is None or later.generation <= key.generation:
                raise ProblemError("content.erased", "the epoch key is destroyed")
            key = later
        return self._unwrap(key, scope)

    def _read_content_key(self, key: ContentKey, scope: str) -> bytes:
        content_key = decrypt(self._epoch(key.generation), key.wrapped, _aad(key.generation, scope))
        if content_key is None:
            raise ProblemError("content.erased", "the key does not open under its epoch and scope")
        return content_key

    def _wrap(self, content_key: bytes, scope: str) -> ContentKey:
        generation = self.generation
        wrapped = encrypt(self._epoch(generation), content_key, _aad(generation, scope))
        return ContentKey(generation=generation, wrapped=wrapped)

    def _read_epoch(self, generation: int) -> bytes:
        path = self._path(generation)
        return self._secret.open(path.name, read_private(path))

    def _read_kept(self, generation: int) -> dict[str, ContentKey]:
        path = self._folder / f"{generation}.kept"
        try:
            lines = (parse_json(line, bytes_max=_LINE_BYTES_MAX) for line in read_lines(path)) if path.exists() else ()
            return {name: ContentKey(generation=at, wrapped=unb64u(wrapped)) for name, at, wrapped in lines}
        except (ProblemError, ValueError, TypeError, OSError):
            raise store_problem(f"{path} is damaged", "Put it back from its backup.") from None

    def _exists(self, name: str) -> bool:
        return os.access(f"{self._folder}/{name}", os.F_OK)  # three times faster than Path.exists, once a message

    def _path(self, generation: int) -> Path:
        return self._folder / f"{generation}.key"


def _make_epoch(folder: Path, generation: int, secret: Secret) -> None:
    path = folder / f"{generation}.key"
    replace(path, secret.seal(path.name, secrets.token_bytes(CEK_BYTES)))


def _named(line: bytes) -> bytes:
    """The name at the beginning of a line: b'["<43 characters>",'."""
    return line[2:45]


def _name(key: ContentKey) -> str:
    return b64u(sha256(key.wrapped).digest())


def _aad(generation: int, scope: str) -> bytes:
    return dump_json(["tracewire content key 1", generation, scope])
