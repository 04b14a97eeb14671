"""The member's private keys: one encrypted file for the node, one for each offline key, so that it can be taken away.

node.key holds message, seal, request, token, webhook, witness (a pair), ledger (a pair an origin), snapshot and timestamp keys, and the public
half of the others; record.key the record key, likewise root.key and targets.key of a directory authority.

Every key has one use. The first of a use is `current`, a further one `next` until promoted, then the former is `old`.
"""

import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from dataclasses import replace as changed
from datetime import datetime
from pathlib import Path
from typing import Any, Literal, get_args

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.mldsa import MLDSA65PrivateKey

from keys.files import check_folder, destroy_file, locked, read_private, replace, store_problem, sync_folder
from keys.notes import LedgerCosigner, LedgerNoteSigner
from keys.secret import Secret
from keys.suite import SEED_BYTES, Ed25519Signer, MlDsaSigner, Tw1Opener, Tw1Sealer, seal_private
from protocols.directory import year_and_number
from protocols.jwk import PublicKey
from protocols.ports.crypto import Guard
from protocols.problems import ProblemError
from protocols.strict import b64u, dump_json, format_time, parse_object, parse_time, unb64u

OfflineUse = Literal["record", "root", "targets"]
OnlineUse = Literal["message", "request", "token", "webhook", "snapshot", "timestamp"]
Use = Literal[OfflineUse, OnlineUse, "seal", "ledger", "witness"]
State = Literal["current", "next", "old"]

_NODE = "node.key"
_OFFLINE: tuple[OfflineUse, ...] = get_args(OfflineUse)
_PUBLISHED = ("message", "request", "ledger", "witness", *_OFFLINE)  # what signs a request to the directory
_FILE_BYTES_MAX = 2 * 1024 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyInfo:
    """What may be shown of a key; `seed` never leaves this package and is empty for offline keys."""

    use: Use
    public: PublicKey
    state: State = "current"
    origin: str | None = None
    retired: datetime | None = None
    seed: bytes = field(default=b"", repr=False, compare=False)


class KeyStore:
    """An opened folder of keys. Changes are made under its lock, over what stands in the file, and are durable."""

    def __init__(self, folder: Path, secret: Secret, keys: list[KeyInfo]) -> None:
        self._folder = folder
        self._secret = secret
        self._keys = keys
        self._stamp = 0
        self._opener = Tw1Opener({})

    @classmethod
    def create(cls, folder: Path, secret: Secret) -> "KeyStore":
        """An empty store in a new or empty folder; `key.store` where there is one."""
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise store_problem(f"{folder} cannot be made: {error.strerror}", "Choose a folder of ours.") from None
        check_folder(folder)
        store = cls(folder, secret, [])
        with store._locked():
            sync_folder(folder.parent)
            if (folder / _NODE).exists():
                raise store_problem(f"{folder} holds keys already", "Open it, or choose another folder.")
            store._write(_NODE, _dump([]))
        return store

    @classmethod
    def open(cls, folder: Path, secret: Secret) -> "KeyStore":
        """The store of a folder; `key.store` for a wrong secret, a loose mode, another owner or damage."""
        check_folder(folder)
        store = cls(folder, secret, [])
        store._load()
        return store

    def add(self, use: Use, *, origin: str | None = None) -> list[PublicKey]:
        """Makes the key of a use (both of a ledger) and gives its public half. A further one becomes `next`."""
        if (use == "ledger") != (origin is not None):
            raise ValueError("a ledger key, and only that, has an origin")
        with self._changing():
            standing = [key for key in self._keys if (key.use, key.origin) == (use, origin)]
            once = use in _OFFLINE or use == "ledger"
            if (once and standing) or any(key.state == "next" for key in standing):
                raise store_problem(f"there is a {use} key already", "Promote or drop that one first.")
            state: State = "next" if standing else "current"
            made = [_generate(use, alg, origin, state) for alg in _algorithms(use)]
            if use in _OFFLINE:
                if (self._folder / f"{use}.key").exists():
                    raise store_problem(f"{use}.key is here but not listed", "Move that file away first.")
                self._write(f"{use}.key", made[0].seed)
                made = [changed(made[0], seed=b"")]
            self._keys += made
        return [key.public for key in made]

    def renew_record(self, now: datetime) -> PublicKey:
        """Makes the next record key, which is the current one at once: the former signs for it where its file is here."""
        with self._changing():
            made = _generate("record", "ML-DSA-65", None, "current")
            self._write(_file_of(made), made.seed)
            old = [key for key in self._keys if (key.use, key.state) == ("record", "old")]
            self._keys = [
                changed(key, state="old", retired=now) if key.use == "record" else key
                for key in self._keys
                if key not in old
            ] + [changed(made, seed=b"")]
        for key in old:  # a successor of theirs is long in force
            if self._path(key).exists():
                destroy_file(self._path(key))
        return made.public

    def promote(self, use: Use, now: datetime, kid: str | None = None) -> None:
        """The `next` key becomes `current`, the former `old`: old seal keys still open until they are dropped.

        Nothing happens where the next one is not `kid` any more: another process was faster, or a person has chosen another.
        """
        with self._changing():
            if kid is not None and not any((key.public.kid, key.state) == (kid, "next") for key in self._keys):
                return
            if not any((key.use, key.state) == (use, "next") for key in self._keys):
                raise store_problem(f"there is no next {use} key", "Add one first.")
            self._keys = [_promoted(key, now) if key.use == use else key for key in self._keys]

    def drop(self, kid: str) -> None:
        """Destroys an old or next key, or forgets an offline one. A current key is replaced first, a ledger's never."""
        with self._changing():
            found = [key for key in self._keys if key.public.kid == kid]
            if not found or (found[0].state == "current" and found[0].use not in _OFFLINE):
                raise store_problem("no key with this kid that can be dropped", "Promote another one first.")
            if found[0].use in _OFFLINE:
                destroy_file(self._path(found[0]))
            self._keys.remove(found[0])

    def inventory(self) -> list[KeyInfo]:
        """Every key without its private half."""
        return [changed(key, seed=b"") for key in self._keys]

    def origin_in_use(self, guard: Guard) -> str:
        """The ledger that is written: the newest one that the guard has seen an entry of, else the first that was made.

        Without a guard, the newest: whoever signs with it is told.
        """
        origins = sorted({key.origin for key in self._keys if key.origin}, key=year_and_number)
        if not origins:
            raise ProblemError("key.store", "the key store holds no ledger key: run `tracewire init`")
        try:
            marks = {origin: mark for origin in origins if (mark := guard.read(origin)) is not None}
        except ProblemError:  # a damaged one: the committer says so, and signs nothing
            marks = {}
        if not marks:
            return origins[-1]
        return max((origin for origin in marks if marks[origin].size), key=year_and_number, default=origins[0])

    def public(self, use: Use) -> list[PublicKey]:
        """The public keys to list in the directory: the current one first, then the next; not the old."""
        keys = [key for key in self._keys if key.use == use and key.state != "old"]
        return [key.public for key in sorted(keys, key=lambda key: key.state)]

    def signer(self, use: Literal["message", "request", "token"]) -> Ed25519Signer:
        """The signer of the current key."""
        return Ed25519Signer(self._current(use).seed)

    def webhook_signers(self) -> list[Ed25519Signer]:
        """The signer of the current key, and of those before it that were not dropped; `key.store` where there is none."""
        found = [key for key in self._keys if key.use == "webhook" and key.state != "next"]
        if not found:
            raise store_problem("there is no webhook key", "Make one: tracewire keys rotate NODE webhook")
        return [Ed25519Signer(key.seed) for key in sorted(found, key=lambda key: key.state)]

    def current_signer(self, use: Literal["message", "request", "token"]) -> "CurrentSigner":
        """Signs with whatever key of the use is current when it signs: a promoted one takes over without a restart."""
        return CurrentSigner(self, use)

    def reload(self) -> None:
        """Takes over what another process changed."""
        stamp = (self._folder / _NODE).stat().st_mtime_ns
        if stamp != self._stamp:
            self._load()

    def next(self, use: Use) -> PublicKey | None:
        """The key that is to follow the current one of a use."""
        return next((key.public for key in self._keys if (key.use, key.state) == (use, "next")), None)

    def token_key(self, kid: str) -> KeyInfo | None:
        """The token key of this name, current or old; what another process made a moment ago too."""
        for again in (False, True):
            if again:
                self.reload()
            for key in self._keys:
                if key.use == "token" and key.public.kid == kid:
                    return changed(key, seed=b"")
        return None

    def note_signer(self, origin: str) -> LedgerNoteSigner:
        """The signer of a ledger's checkpoints."""
        seeds = {key.public.alg: key.seed for key in self._keys if (key.use, key.origin) == ("ledger", origin)}
        if not seeds:
            raise store_problem("there are no keys for this ledger", "Open the ledger first.")
        return LedgerNoteSigner(origin, seeds["Ed25519"], seeds["ML-DSA-44"])

    def cosigner(self, member: str, state: State = "current") -> LedgerCosigner | None:
        """What signs others' checkpoints as a witness, under the member's name; None without such keys."""
        seeds = {key.public.alg: key.seed for key in self._keys if (key.use, key.state) == ("witness", state)}
        return LedgerCosigner(member, seeds["Ed25519"], seeds["ML-DSA-44"]) if seeds else None

    def sealer(self) -> Tw1Sealer:
        """Seals to others' keys; needs none of ours."""
        return Tw1Sealer()

    def opener(self) -> Tw1Opener:
        """Opens with every seal key: current, old, and next (a peer may have a newer directory than we).

        One opener for all who ask: it learns keys that are added later.
        """
        self._opener.hold({key.public.kid: key.seed for key in self._keys if key.use == "seal"})
        return self._opener

    def record_signer(self) -> MlDsaSigner:
        """The record key as a plain signer; `key.store` where its file was taken away."""
        return MlDsaSigner("ML-DSA-65", self._offline_seed("record"))

    def record_private(self) -> MLDSA65PrivateKey:
        """The record key for `keys.tufsign.tuf_signer`."""
        return MLDSA65PrivateKey.from_seed_bytes(self._offline_seed("record"))

    def publisher_private(
        self, use: Literal["root", "targets", "snapshot", "timestamp"]
    ) -> MLDSA65PrivateKey | Ed25519PrivateKey:
        """A directory authority's key for `keys.tufsign.tuf_signer`."""
        if use in ("root", "targets"):
            return MLDSA65PrivateKey.from_seed_bytes(self._offline_seed(use))
        return Ed25519PrivateKey.from_private_bytes(self._current(use).seed)

    def possession(self, message: bytes) -> list[tuple[PublicKey, bytes]]:
        """`message` signed by every signing key the directory lists or will list; offline keys where they are here.

        The caller's message begins with a domain of its own, since keys of other uses sign it.
        """
        signed = []
        for key in self._keys:
            here = key.use not in _OFFLINE or self._path(key).exists()
            if key.use in _PUBLISHED and key.state != "old" and here:
                seed = self._seed_of(key) if key.use in _OFFLINE else key.seed
                signed.append((key.public, _signer(key.public.alg, seed).sign(message)))
        return signed

    def succession(self, message: bytes) -> bytes | None:
        """`message` signed by the record key before the current one; None without one, or where its file was taken away."""
        for key in self._keys:
            if (key.use, key.state) == ("record", "old") and self._path(key).exists():
                return _signer(key.public.alg, self._seed_of(key)).sign(message)
        return None

    def _current(self, use: Use) -> KeyInfo:
        for key in self._keys:
            if (key.use, key.state) == (use, "current"):
                return key
        raise store_problem(f"there is no {use} key", "Run `tracewire init`, or add one.")

    def _offline_seed(self, use: OfflineUse) -> bytes:
        return self._seed_of(self._current(use))

    def _seed_of(self, key: KeyInfo) -> bytes:
        path = self._path(key)
        if not path.exists():
            raise store_problem(f"the {key.use} key is not here", f"Put {path.name} back into the key folder.")
        seed = self._secret.open(path.name, read_private(path))
        if len(seed) != SEED_BYTES or MlDsaSigner("ML-DSA-65", seed).public != key.public:
            raise store_problem(f"{path.name} is another {key.use} key", "Put the file of the listed key back.")
        return seed

    def _path(self, key: KeyInfo) -> Path:
        """The file of an offline key: the first of a use has a plain name, its successors that of their kid."""
        first = next(each for each in self._keys if each.use == key.use)
        plain = key == first and not (self._folder / _file_of(key)).exists()
        return self._folder / (f"{key.use}.key" if plain else _file_of(key))

    @contextmanager
    def _locked(self) -> Iterator[None]:
        try:
            with locked(self._folder / ".lock"):
                yield
        except OSError as error:
            raise store_problem(f"the key store cannot be written: {error.strerror}", "Check disk and mode.") from None

    @contextmanager
    def _changing(self) -> Iterator[None]:
        with self._locked():
            self._load()  # another process may have added a key since
            try:
                yield
                self._write(_NODE, _dump(self._keys))
            except BaseException:
                self._load()
                raise

    def _load(self) -> None:
        self._stamp = (self._folder / _NODE).stat().st_mtime_ns
        self._keys = _parse(self._secret.open(_NODE, read_private(self._folder / _NODE)))

    def _write(self, name: str, plaintext: bytes) -> None:
        replace(self._folder / name, self._secret.seal(name, plaintext))


class CurrentSigner:
    """The port Signer over the current key of a use."""

    def __init__(self, store: KeyStore, use: Literal["message", "request", "token"]) -> None:
        self._store, self._use = store, use
        self._seed, self._signer = b"", store.signer(use)

    @property
    def kid(self) -> str:
        """RFC 7638 thumbprint of the current key."""
        return self._now().kid

    def sign(self, message: bytes) -> bytes:
        """64 bytes over exactly `message`."""
        return self._now().sign(message)

    def _now(self) -> Ed25519Signer:
        seed = self._store._current(self._use).seed  # noqa: SLF001 - of this module
        if seed != self._seed:
            self._seed, self._signer = seed, Ed25519Signer(seed)
        return self._signer


def _file_of(key: KeyInfo) -> str:
    return f"{key.use}-{key.public.kid[:8]}.key"


def _algorithms(use: Use) -> tuple[str, ...]:
    if use in _OFFLINE:
        return ("ML-DSA-65",)
    if use in ("ledger", "witness"):
        return ("Ed25519", "ML-DSA-44")
    return ("HPKE-9-KE",) if use == "seal" else ("Ed25519",)


def _signer(alg: str, seed: bytes) -> Ed25519Signer | MlDsaSigner:
    if alg == "Ed25519":
        return Ed25519Signer(seed)
    return MlDsaSigner("ML-DSA-44" if alg == "ML-DSA-44" else "ML-DSA-65", seed)


def _generate(use: Use, alg: str, origin: str | None, state: State) -> KeyInfo:
    seed = secrets.token_bytes(SEED_BYTES)
    public = PublicKey(alg, seal_private(seed)[1]) if alg == "HPKE-9-KE" else _signer(alg, seed).public
    return KeyInfo(use=use, public=public, state=state, origin=origin, seed=seed)


def _promoted(key: KeyInfo, now: datetime) -> KeyInfo:
    if key.state == "next":
        return changed(key, state="current")
    return changed(key, state="old", retired=now) if key.state == "current" else key


def _dump(keys: list[KeyInfo]) -> bytes:
    shown: list[dict[str, Any]] = []
    for key in keys:
        item = {"use": key.use, "alg": key.public.alg, "public": b64u(key.public.public), "state": key.state}
        optional = {"origin": key.origin, "retired": key.retired and format_time(key.retired), "seed": b64u(key.seed)}
        shown.append(item | {name: value for name, value in optional.items() if value})
    return dump_json({"v": 1, "keys": shown})


def _parse(data: bytes) -> list[KeyInfo]:
    try:
        return [
            KeyInfo(
                use=item["use"],
                public=PublicKey(item["alg"], unb64u(item["public"])),
                state=item["state"],
                origin=item.get("origin"),
                retired=parse_time(item["retired"]) if "retired" in item else None,
                seed=unb64u(item.get("seed", "")),
            )
            for item in parse_object(data, bytes_max=_FILE_BYTES_MAX)["keys"]
        ]
    except (ProblemError, KeyError, TypeError, AttributeError):
        raise store_problem(f"{_NODE} is not of this version", "Put it back from its backup.") from None
