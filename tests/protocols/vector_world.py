"""The small fixed world of the published vectors: two members, their keys, ledgers, one message and its entries.

Fixed seeds make all keys. The one thing that cannot be computed again, an HPKE encapsulation, is read from the committed
sealing.json (made anew only where that file is missing).
"""

import hmac
import json
from datetime import UTC, datetime, timedelta
from hashlib import sha256, shake_256
from pathlib import Path
from typing import Any
from uuid import UUID

from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from dilithium_py.ml_dsa import ML_DSA_44

from keys.suite import Ed25519Signer, Tw1Sealer, seal_private
from protocols.exchange.envelope import recipient_structure, seal
from protocols.exchange.message import Message, seal_part, sign_message
from protocols.jwk import PublicKey
from protocols.ledger.checkpoint import checkpoint_text
from protocols.ledger.entry import DirRef, Entry, PeerRef
from protocols.ledger.merkle import inclusion_path
from protocols.ledger.note import ED25519, MLDSA44, VerifierKey, format_note, subtree_message
from protocols.ledger.proof import Place
from protocols.ports.crypto import Wrapped
from protocols.strict import b64u, dump_json, unb64u
from tests.protocols.forms import Tree

FOLDER = Path(__file__).parents[2] / "protocols/vectors"
AT = datetime(2026, 11, 22, 10, 0, 0, 123_000, UTC)
ASKER, REGISTRY = "test/asker", "test/registry"
OURS, THEIRS = f"{ASKER}/2026.1", f"{REGISTRY}/2026.1"
ID = UUID("019aab2f-3c7b-7d10-8f6a-2b1c3d4e5f60")
THREAD = UUID("019aab2f-3c7b-7d10-8f6a-2b1c3d4e5f61")
Json = dict[str, Any]
ABSENT = object()


def seed(name: str, length: int = 32) -> bytes:
    """Fixed bytes for a use."""
    return shake_256(f"tracewire vectors {name}".encode()).digest(length)


MESSAGE_KEY, REQUEST_KEY = Ed25519Signer(seed("message")), Ed25519Signer(seed("request"))
SEAL_SEED = seed("seal")
SEAL_PUBLIC = seal_private(SEAL_SEED)[1]
SEAL_KID = PublicKey("HPKE-9-KE", SEAL_PUBLIC).kid


class Log:
    """A ledger's tree with a note signer whose ML-DSA is deterministic."""

    def __init__(self, origin: str, entries: list[bytes]) -> None:
        self.origin, self.tree = origin, Tree(entries)
        self._ed25519 = Ed25519Signer(seed(f"{origin} ed25519"))
        public, self._mldsa = ML_DSA_44.key_derive(seed(f"{origin} mldsa"))
        self.first = VerifierKey(name=origin, type=ED25519, public=self._ed25519.public.public)
        self.second = VerifierKey(name=origin, type=MLDSA44, public=public)
        self.vkeys = [str(self.first), str(self.second)]

    def signatures(self, text: str, size: int, root: bytes) -> tuple[bytes, bytes]:
        """Of a 0x01 and a 0x06 line."""
        time_s = int(AT.timestamp())
        signed = subtree_message(name=self.origin, origin=self.origin, time_s=time_s, size=size, root=root)
        mldsa = ML_DSA_44.sign(self._mldsa, signed, deterministic=True)
        return self._ed25519.sign(text.encode()), time_s.to_bytes(8, "big") + mldsa

    def note(self, size: int) -> bytes:
        """The signed checkpoint of a size."""
        text = checkpoint_text(self.origin, size, self.tree.root(size))
        first, second = self.signatures(text, size, self.tree.root(size))
        return format_note(text, [(self.first, first), (self.second, second)])

    def place(self, index: int, size: int) -> Place:
        """Where an entry stands under a size."""
        path = tuple(inclusion_path(index, size, self.tree.node))
        return Place(origin=self.origin, size=size, index=index, path=path, entry=self.tree.entries[index])

    def peer(self, index: int, size: int) -> PeerRef:
        """How another ledger names that entry."""
        leaf = self.tree.node(0, index)
        return PeerRef(origin=self.origin, index=index, leaf=leaf, size=size, root=self.tree.root(size))


class FixedSealer:
    """A Sealer without randomness: the committed encapsulation, counted IVs and keys."""

    def __init__(self) -> None:
        self._count = 0

    def wrap(self, public: bytes, info: bytes) -> Wrapped:
        """The encapsulation of sealing.json, made for this key and info."""
        given = SEALING["input"]
        assert (unb64u(given["public"]), unb64u(given["info"])) == (public, info), "remove sealing.json to make it anew"
        return Wrapped(
            cek=unb64u(SEALING["expect"]["cek"]), ek=unb64u(given["ek"]), encrypted_key=unb64u(given["encrypted_key"])
        )

    def random(self, length: int) -> bytes:
        """The next fixed bytes."""
        self._count += 1
        return seed(f"random {self._count}", length)

    def encrypt(self, key: bytes, plaintext: bytes, aad: bytes) -> bytes:
        """IV || ciphertext || tag."""
        iv = self.random(12)
        return iv + AESGCM(key).encrypt(iv, plaintext, aad)


def sealing() -> Json:
    """One HPKE-9-KE encapsulation with its recipient's seed; the info binds (from, to, id, kid)."""
    file = FOLDER / "sealing.json"
    if file.exists():
        return json.loads(file.read_text())["vectors"][0]
    texts = [text.encode() for text in (ASKER, REGISTRY, str(ID), SEAL_KID)]
    extra = sha256(b"".join(len(text).to_bytes(2, "big") + text for text in texts)).digest()
    info = recipient_structure(extra)
    wrapped = Tw1Sealer().wrap(SEAL_PUBLIC, info)
    return {
        "name": "one content key, wrapped",
        "about": "seed is the JWK priv (SHAKE256 to 96 bytes: ML-KEM d||z, X25519); info is the Recipient_structure",
        "input": {
            "seed": b64u(SEAL_SEED), "public": b64u(SEAL_PUBLIC), "kid": SEAL_KID, "from": ASKER, "to": REGISTRY,
            "id": str(ID), "recipient_extra_info": b64u(extra), "info": b64u(info), "ek": b64u(wrapped.ek),
            "encrypted_key": b64u(wrapped.encrypted_key),
        },
        "expect": {"cek": b64u(wrapped.cek)},
    }  # fmt: skip


SEALING = sealing()
SEALER = FixedSealer()
PERSONS: Json = {"persons": [{"role": {"code": "POSSESSOR", "raw": ""}, "name": "A person"}]}
PART = seal_part("persons", PERSONS, SEALER)
MESSAGE = Message(
    id=ID, type="trace.request", sender=ASKER, recipient=REGISTRY, thread=THREAD, created=AT,
    expires=AT + timedelta(days=30), handling={"codes": []}, salt=seed("salt"), parts=(PART.ref,),
    body={"request_ref": "R-1", "text": "Gerät № 1"},
)  # fmt: skip
PAYLOAD = MESSAGE.encode()
JWS = sign_message(PAYLOAD, MESSAGE_KEY)


def sealed(jws: bytes = JWS, parts: tuple[Any, ...] = (PART,)) -> bytes:
    """The envelope of our message; or of another inside."""
    return seal(jws=jws, message=MESSAGE, parts=parts, kid=SEAL_KID, public=SEAL_PUBLIC, sealer=SEALER)


ENVELOPE = sealed()
DIGEST = sha256(ENVELOPE).digest()


def commit(use: str, value: bytes) -> bytes:
    """HMAC-SHA256 under the salt over "tracewire <use> 1", a NUL and the value."""
    return hmac.digest(MESSAGE.salt, f"tracewire {use} 1\0".encode() + value, sha256)


CONTENT_C, THREAD_C = commit("content", PAYLOAD), commit("thread", str(THREAD).encode())
ACTOR_C = commit("actor", b"actor-7")
DIR = DirRef(version=12, sha256=sha256(b"snapshot 12").digest())
EXCHANGE: Json = {"id": ID, "sender": ASKER, "recipient": REGISTRY, "pair_seq": 41, "envelope": DIGEST, "dir": DIR}
KEYS_USED: Json = {"kid": MESSAGE_KEY.kid, "seal_kid": SEAL_KID, "suite": "tw1"}
SHORT: Json = {"id": ID, "sender": ASKER, "recipient": REGISTRY, "content_c": CONTENT_C}


def entry(kind: str, **members: Any) -> Entry:
    """An entry at a fixed time with a nonce of its own."""
    return Entry(kind=kind, at=AT, n=seed(f"n {kind}", 16), **members)


SENT = entry("sent", **EXCHANGE, **KEYS_USED, content_c=CONTENT_C, thread_c=THREAD_C, actor_c=ACTOR_C)
_OPENED = entry("ledger-opened", sender=ASKER, dir=DIR)
_FILLER = [_OPENED.encode(), entry("directory", dir=DIR).encode(), entry("admin", code="client.added").encode()]
OUR_LOG = Log(OURS, [*_FILLER, SENT.encode(), entry("key", code="key.added", kid=MESSAGE_KEY.kid).encode()])
PEER = OUR_LOG.peer(3, 5)
RECEIVED = entry("received", **EXCHANGE, **KEYS_USED, content_c=CONTENT_C, thread_c=THREAD_C, peer=PEER)
THEIR_LOG = Log(
    THEIRS,
    [
        entry("ledger-opened", sender=REGISTRY, dir=DIR).encode(),
        entry("directory", dir=DIR).encode(),
        RECEIVED.encode(),
    ],
)
RECEIPT = THEIR_LOG.peer(2, 3)
OPENED_AGAIN = PeerRef(origin=f"{ASKER}/2025.1", size=900, root=sha256(b"last year").digest())
ENTRIES: list[Entry] = [
    SENT,
    RECEIVED,
    entry("refused", **EXCHANGE, code="env.invalid", read=False, peer=PEER),
    entry("receipt", **EXCHANGE, content_c=CONTENT_C, peer=RECEIPT),
    entry("undelivered", **EXCHANGE, content_c=CONTENT_C, code="expired"),
    entry("id_conflict", **EXCHANGE, content_c=CONTENT_C, peer=PEER, first=PeerRef(origin=THEIRS, index=1)),
    entry("relayed", **EXCHANGE, via="test/hub", peer=PEER),
    entry("dispatched", **SHORT),
    entry("opened", **SHORT, actor_c=ACTOR_C, code="persons"),
    entry("erased", **SHORT, code="request"),
    entry("key", code="key.added", kid=MESSAGE_KEY.kid),
    entry("directory", dir=DIR),
    entry("peer-checkpoint", peer=PeerRef(origin=THEIRS, size=3, root=THEIR_LOG.tree.root(3))),
    entry("admin", code="client.added", actor_c=ACTOR_C),
    entry("ledger-opened", sender=ASKER, dir=DIR, peer=OPENED_AGAIN),
    entry("ledger-closed", sender=ASKER),
]


def vector(name: str, about: str, given: Json, expect: Any) -> Json:
    """One vector; `expect` is a value, or the code of a problem as text."""
    return {
        "name": name,
        "about": about,
        "input": given,
        "expect": {"code": expect} if isinstance(expect, str) else expect,
    }


def data(value: bytes) -> Json:
    """Bytes as text where they are UTF-8, in base64url else."""
    try:
        return {"data": value.decode()}
    except UnicodeDecodeError:
        return {"data_b64u": b64u(value)}


def members(value: Json, **changes: Any) -> bytes:
    """JSON with members changed or (ABSENT) left out, in the same order."""
    return dump_json({name: member for name, member in (value | changes).items() if member is not ABSENT})
