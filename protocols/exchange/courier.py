"""What a courier carries: the lines of a POST as files, each proof whole as a C2SP tlog-proof (docs/protocol.md section 4).

    data/hello.ndjson                     hello, and our newest checkpoint of each ledger, as lines
    data/parcels/<message>.<entry>.jwe    an envelope, beside it its proof
    data/parcels/<message>.<entry>.tlog-proof
    data/receipts/<message>.<entry>.tlog-proof
    data/checkpoints/<log>                newest checkpoints of ledgers that are not ours, by hex SHA-256 of the origin
    data/directory/<file>                 TUF files by their names
    data/blobs/<sha256>                   attachments' ciphertext

Names are lower case and short: exFAT tells no cases apart.
"""

import re
from collections.abc import Iterator
from hashlib import sha256

from protocols.exchange.lines import Hello, Parcel, Post, Receipt, encode_post, parse_post
from protocols.ledger.entry import parse_entry
from protocols.ledger.proof import format_proof, read_proof
from protocols.limits import ENVELOPE_BYTES_MAX, POST_BYTES_MAX
from protocols.problems import ProblemError

HELLO = "data/hello.ndjson"
DIRECTORY = "data/directory/"
BLOBS = "data/blobs/"
CHECKPOINTS = "data/checkpoints/"
PROOF, ENVELOPE = ".tlog-proof", ".jwe"
_ITEM = re.compile(r"data/(parcels|receipts)/[0-9a-f-]{36}\.[0-9a-f]{16}\.tlog-proof", re.ASCII)


def files_of(post: Post) -> Iterator[tuple[str, bytes]]:
    """The files of a POST's parcels or an answer's receipts."""
    for item in post.items:
        if isinstance(item, Parcel | Receipt):
            place = item.place
            folder = "parcels" if isinstance(item, Parcel) else "receipts"
            stem = f"data/{folder}/{parse_entry(place.entry).id}.{sha256(place.entry).hexdigest()[:16]}"
            yield stem + PROOF, format_proof(place, post.checkpoints[place.origin, place.size])
            if isinstance(item, Parcel):
                yield stem + ENVELOPE, item.envelope


def hello_file(hello: Hello, notes: dict[tuple[str, int], bytes]) -> bytes:
    """What is said once a bag."""
    return encode_post(Post(hello=hello, checkpoints=notes))


def read_hello(data: bytes) -> Post:
    """The hello of a bag with its checkpoints; ProblemError else."""
    if len(data) > POST_BYTES_MAX:
        raise ProblemError("http.too_large", "the hello is too long")
    return parse_post(data, answer=True)


def is_parcel(name: str) -> bool | None:
    """Whether a proof's file is a parcel's (True) or a receipt's (False); None for another name."""
    found = _ITEM.fullmatch(name)
    return found[1] == "parcels" if found else None


def envelope_name(proof: str) -> str:
    """The file of the envelope beside a proof."""
    return proof.removesuffix(PROOF) + ENVELOPE


def read_item(proof: bytes, envelope: bytes | None) -> tuple[Parcel | Receipt, bytes]:
    """A parcel, or a receipt without an envelope, and its checkpoint's note; nobody has verified it yet."""
    place, note = read_proof(proof)
    if envelope is None:
        return Receipt(place=place), note
    if len(envelope) > ENVELOPE_BYTES_MAX:
        raise ProblemError("http.too_large", "the envelope is too long")
    return Parcel(place=place, envelope=envelope), note
