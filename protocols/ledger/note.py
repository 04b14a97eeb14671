"""C2SP signed-note: parsing and writing notes, verifier keys (vkeys), what each signature type signs."""

import base64
import binascii
import re
from dataclasses import dataclass
from datetime import UTC, datetime
from hashlib import sha256

from protocols.limits import NOTE_BYTES_MAX, NOTE_SIGNATURES_MAX
from protocols.ports.crypto import Verifier
from protocols.problems import ProblemError

ED25519 = 0x01
COSIGNATURE = 0x04
MLDSA44 = 0x06
_PUBLIC_BYTES = {ED25519: 32, COSIGNATURE: 32, MLDSA44: 1312}
_SIGNATURE_BYTES = {ED25519: 64, COSIGNATURE: 8 + 64, MLDSA44: 8 + 2420}
_NAME_BYTES_MAX = 255  # a 0x06 message holds its length in one byte
_NAME = re.compile("[^\\s+\ud800-\udfff]{1,255}")
_LINE = re.compile(f"— ({_NAME.pattern}) ([A-Za-z0-9+/]+={{0,2}})")
_CONTROL = re.compile("[\x00-\x09\x0b-\x1f\x7f]")
_LAST_S = 253_402_300_799  # the year 9999
_SUBTREE = b"subtree/v1\n\0"


def unb64(text: str) -> bytes:
    """Canonical standard base64; `note.invalid` else."""
    try:
        data = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise ProblemError("note.invalid", "not base64") from None
    if base64.b64encode(data).decode() != text:
        raise ProblemError("note.invalid", "base64 is not canonical")
    return data


@dataclass(frozen=True, slots=True, kw_only=True)
class VerifierKey:
    """A vkey: `<name>+<hex8 key id>+<base64(type || public key)>`."""

    name: str
    type: int
    public: bytes

    @property
    def key_id(self) -> bytes:
        """First four bytes of SHA-256(name || 0x0A || type || public)."""
        return sha256(self.name.encode() + b"\n" + bytes([self.type]) + self.public).digest()[:4]

    def __str__(self) -> str:
        return f"{self.name}+{self.key_id.hex()}+{base64.b64encode(bytes([self.type]) + self.public).decode()}"

    @classmethod
    def parse(cls, text: str) -> "VerifierKey":
        """The key of a vkey text; `note.invalid` for anything that `str` would not write."""
        pieces = text.split("+", 2)
        named = _NAME.fullmatch(pieces[0]) and len(pieces[0].encode()) <= _NAME_BYTES_MAX
        if named and len(pieces) == 3 and (data := unb64(pieces[2])):
            key = cls(name=pieces[0], type=data[0], public=data[1:])
            if len(key.public) == _PUBLIC_BYTES.get(key.type) and str(key) == text:
                return key
        raise ProblemError("note.invalid", "not a verifier key")

    def verify(self, text: str, data: bytes, size: int, root: bytes, verifier: Verifier, *, origin: str) -> bool:
        """Whether the signature bytes (after the key id) hold for this checkpoint of `origin`; `note.invalid` for a wrong length."""
        if len(data) != _SIGNATURE_BYTES[self.type]:
            raise ProblemError("note.invalid", "a signature of this key has another length")
        if self.type == ED25519:
            return verifier.verify("Ed25519", self.public, text.encode(), data)
        time_s = int.from_bytes(data[:8], "big")
        if self.type == COSIGNATURE:
            return verifier.verify("Ed25519", self.public, cosignature_message(time_s, text), data[8:])
        signed = subtree_message(name=self.name, origin=origin, time_s=time_s, size=size, root=root)
        return verifier.verify("ML-DSA-44", self.public, signed, data[8:])


def parse_pair(name: str, vkeys: tuple[str, str], first: int) -> tuple[VerifierKey, VerifierKey]:
    """Two keys of one name from vkey texts: one of type `first`, then ML-DSA-44; `dir.key_invalid` where they do not fit."""
    try:
        keys = VerifierKey.parse(vkeys[0]), VerifierKey.parse(vkeys[1])
    except ProblemError:
        raise ProblemError("dir.key_invalid", "not a verifier key") from None
    if [(key.name, key.type) for key in keys] != [(name, first), (name, MLDSA44)]:
        raise ProblemError("dir.key_invalid", "verifier keys do not fit the name that they are listed under")
    return keys


def cosigned_at(data: bytes) -> datetime:
    """The time that stands first in a signature of type 0x04 or 0x06."""
    return datetime.fromtimestamp(min(int.from_bytes(data[:8], "big"), _LAST_S), UTC)


def cosignature_message(time_s: int, text: str) -> bytes:
    """What a 0x04 line signs: the time and the whole text, but not the cosigner's name (C2SP tlog-cosignature)."""
    return f"cosignature/v1\ntime {time_s}\n{text}".encode()


def subtree_message(*, name: str, origin: str, time_s: int, size: int, root: bytes) -> bytes:
    """What a 0x06 line signs for the checkpoint [0, size) (C2SP tlog-cosignature)."""
    cosigner, log = name.encode(), origin.encode()
    return b"".join((
        _SUBTREE,
        bytes([len(cosigner)]), cosigner,
        time_s.to_bytes(8, "big"),
        bytes([len(log)]), log,
        bytes(8), size.to_bytes(8, "big"), root,
    ))  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Note:
    """A signed note's text (ends in a newline) and signature lines (name, key id, signature)."""

    text: str
    signatures: tuple[tuple[str, bytes, bytes], ...]


def parse_note(data: bytes) -> Note:
    """The note of its exact bytes; `note.invalid` for anything else."""
    if len(data) > NOTE_BYTES_MAX:
        raise ProblemError("note.invalid", f"more than {NOTE_BYTES_MAX} bytes")
    try:
        whole = data.decode("utf-8")
    except UnicodeDecodeError:
        raise ProblemError("note.invalid", "not UTF-8") from None
    cut = whole.rfind("\n\n")
    if cut < 0 or not whole.endswith("\n") or _CONTROL.search(whole):
        raise ProblemError("note.invalid", "no text and signature lines, or control characters")
    text, lines = whole[: cut + 1], whole[cut + 2 : -1].split("\n")
    if len(lines) > NOTE_SIGNATURES_MAX:
        raise ProblemError("note.invalid", f"more than {NOTE_SIGNATURES_MAX} signatures")
    signatures = []
    for line in lines:
        found = _LINE.fullmatch(line)
        blob = unb64(found[2]) if found else b""
        if found is None or len(blob) < 5:
            raise ProblemError("note.invalid", "malformed signature line")
        signatures.append((found[1], blob[:4], blob[4:]))
    keys = [(name, key_id) for name, key_id, _ in signatures]
    if len(set(keys)) != len(keys):
        raise ProblemError("note.invalid", "two signatures of one key")
    return Note(text=text, signatures=tuple(signatures))


def bare(data: bytes, name: str) -> bytes:
    """The note with the signature lines of one name alone."""
    cut, own = data.rfind(b"\n\n") + 2, f"— {name} ".encode()
    return data[:cut] + b"".join(line for line in data[cut:].splitlines(keepends=True) if line.startswith(own))


def others(data: bytes, name: str) -> list[str]:
    """Who signed the note under other names than this, a name for each line."""
    return sorted(each for each, _, _ in parse_note(data).signatures if each != name)


def format_note(text: str, signatures: list[tuple[VerifierKey, bytes]]) -> bytes:
    """The note's bytes: text, an empty line, one line a signature."""
    return (text + "\n" + "".join(format_signature(key, data) for key, data in signatures)).encode()


def format_signature(key: VerifierKey, data: bytes) -> str:
    """One signature line with its newline."""
    return f"— {key.name} {base64.b64encode(key.key_id + data).decode()}\n"
