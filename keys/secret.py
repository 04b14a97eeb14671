"""What encrypts the key store at rest: a passphrase (scrypt) or a key file of 32 random bytes."""

import hmac
import secrets
import unicodedata
from hashlib import sha256
from pathlib import Path
from typing import Any, Literal

from cryptography.hazmat.primitives.kdf.scrypt import Scrypt

from keys.files import read_private, replace, store_problem
from keys.suite import decrypt, encrypt
from protocols.problems import ProblemError
from protocols.strict import b64u, dump_json, parse_object, unb64u

PASSPHRASE_CHARS_MIN = 12
SCRYPT_COST = 2**15  # with r = 8: 32 MiB and about 0.1 s, once per start
_SCRYPT_COST_MAX = 2**18  # of a file we read: 256 MiB
_SALT_BYTES = 16
_KEY_FILE_BYTES = 32
_FILE_BYTES_MAX = 4 * 1024 * 1024
_AAD = b"tracewire key file 1\0"


class Secret:
    """Seals and opens key files; made by `passphrase` or `key_file`.

    Every file carries its own salt and cost, so that one taken away opens alone; the files of one store share them, so that a start derives once.
    """

    def __init__(self, kind: Literal["scrypt", "key-file"], material: bytes, cost: int) -> None:
        self._kind = kind
        self._material = material
        self._cost = cost
        self._kdf: dict[str, Any] | None = None
        self._derived: dict[bytes, bytes] = {}

    @classmethod
    def passphrase(cls, text: str, *, cost: int = SCRYPT_COST) -> "Secret":
        """A passphrase as typed; `cost` (scrypt n) applies to new stores, an old one keeps its own."""
        if len(text) < PASSPHRASE_CHARS_MIN:
            raise store_problem("the passphrase is too short", f"Choose at least {PASSPHRASE_CHARS_MIN} characters.")
        return cls("scrypt", unicodedata.normalize("NFC", text).encode("utf-8", "surrogatepass"), cost)

    @classmethod
    def key_file(cls, path: Path) -> "Secret":
        """A file of 32 random bytes that only our account can read."""
        material = read_private(path)
        if len(material) != _KEY_FILE_BYTES:
            raise store_problem(f"{path} is not a key file", f"Make one of {_KEY_FILE_BYTES} random bytes.")
        return cls("key-file", material, 0)

    @staticmethod
    def make_key_file(path: Path) -> None:
        """Writes a fresh key file; refuses to overwrite one."""
        if path.exists():
            raise store_problem(f"{path} exists already", "Keep it, or choose another path.")
        try:
            replace(path, secrets.token_bytes(_KEY_FILE_BYTES))
        except OSError as error:
            raise store_problem(f"{path} cannot be written: {error.strerror}", "Check the folder.") from None

    def seal(self, name: str, plaintext: bytes) -> bytes:
        """The bytes of the key file `name`."""
        if self._kdf is None:
            salt = b64u(secrets.token_bytes(_SALT_BYTES))
            self._kdf = {"kdf": self._kind, "salt": salt} | ({"n": self._cost} if self._kind == "scrypt" else {})
        sealed = encrypt(self._derive(self._kdf), plaintext, _aad(name, self._kdf))
        return dump_json({"v": 1, "name": name, "by": self._kdf, "sealed": b64u(sealed)})

    def open(self, name: str, data: bytes) -> bytes:
        """What `seal` was given; `key.store` for another secret, another name or changed bytes."""
        kdf, sealed = self._parse(name, data)
        plaintext = decrypt(self._derive(kdf), sealed, _aad(name, kdf))
        if plaintext is None:
            raise store_problem(f"{name} does not open", "Give the passphrase or key file it was made with.")
        self._kdf = self._kdf or kdf
        return plaintext

    def _parse(self, name: str, data: bytes) -> tuple[dict[str, Any], bytes]:
        try:
            file = parse_object(data, bytes_max=_FILE_BYTES_MAX)
            kdf, sealed = file.get("by"), unb64u(file.get("sealed"))
            salt = unb64u(kdf.get("salt"), length=_SALT_BYTES) if isinstance(kdf, dict) else b""
        except ProblemError:
            raise store_problem(f"{name} is damaged", "Put it back from its backup.") from None
        if file.get("v") != 1 or not isinstance(kdf, dict) or not salt:
            raise store_problem(f"{name} is not a key file of this version", "Put it back from its backup.")
        if kdf.get("kdf") != self._kind:
            raise store_problem(f"{name} was made with another kind of secret", "Give the passphrase or key file.")
        return kdf, sealed

    def _derive(self, kdf: dict[str, Any]) -> bytes:
        cached = self._derived.get(place := dump_json(kdf))
        if cached is None:
            salt, cost = unb64u(kdf["salt"]), kdf.get("n")
            if self._kind == "key-file":
                cached = hmac.digest(self._material, _AAD + salt, sha256)
            elif isinstance(cost, int) and 2 <= cost <= _SCRYPT_COST_MAX and cost & (cost - 1) == 0:
                cached = Scrypt(salt=salt, length=32, n=cost, r=8, p=1).derive(self._material)
            else:
                raise store_problem("the scrypt cost is out of bounds", "Put the file back from its backup.")
            self._derived[place] = cached
        return cached


def _aad(name: str, kdf: dict[str, Any]) -> bytes:
    return _AAD + dump_json([name, kdf])
