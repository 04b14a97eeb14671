"""Request signatures between nodes: RFC 9421 with one closed set of components (docs/protocol.md section 4)."""

import base64
import binascii
import re
from dataclasses import dataclass
from datetime import datetime

from protocols.limits import REQUEST_AGE_MAX_S, REQUEST_AHEAD_MAX_S
from protocols.problems import ProblemError

TAG = "tracewire-exchange-1"
_INPUT = re.compile(
    r'tw=(\(((?:"[a-z@-]+"(?: "[a-z@-]+")*)?)\)((?:;[a-z]+=(?:"[\x20!#-\[\]-~]*"|\d{1,15}))*))', re.ASCII
)
_PARAMETER = re.compile(r';([a-z]+)=(?:"([^"]*)"|(\d+))')
_SIGNATURE = re.compile(r"tw=:([A-Za-z0-9+/]{86}==):", re.ASCII)
_DIGEST = re.compile(r"([a-z0-9-]+)=:([A-Za-z0-9+/]*={0,2}):", re.ASCII)


def content_digest(digest: bytes) -> str:
    """The Content-Digest header (RFC 9530) that names this SHA-256."""
    return f"sha-256=:{base64.b64encode(digest).decode()}:"


def digest_of(header: str) -> bytes:
    """The SHA-256 that a Content-Digest header names; `httpsig.digest_alg` or `httpsig.digest` else."""
    found = _DIGEST.fullmatch(header)
    if found is None:
        raise ProblemError("httpsig.digest", "malformed Content-Digest")
    if found[1] != "sha-256":
        raise ProblemError("httpsig.digest_alg", "the digest is sha-256, alone")
    try:
        data = base64.b64decode(found[2])
    except binascii.Error:
        data = b""
    if len(data) != 32 or content_digest(data) != header:
        raise ProblemError("httpsig.digest", "malformed Content-Digest")
    return data


def _base(components: dict[str, str], parameters: str) -> bytes:
    lines = [f'"{name}": {value}' for name, value in components.items()]
    return "\n".join([*lines, f'"@signature-params": {parameters}']).encode()


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """The covered parts of a request; `content_type` and `digest` (the header's text) only with a body."""

    method: str
    uri: str
    content_type: str | None = None
    digest: str | None = None

    def components(self) -> dict[str, str]:
        """Component name -> value, in the order signed."""
        found = {"@method": self.method, "@target-uri": self.uri}
        if self.content_type is not None and self.digest is not None:
            found |= {"content-type": self.content_type, "content-digest": self.digest}
        return found


def signature_input(request: Request, *, kid: str, created: datetime) -> tuple[str, bytes]:
    """The Signature-Input header and the signature base to sign with the request key."""
    names = " ".join(f'"{name}"' for name in request.components())
    parameters = f'({names});created={int(created.timestamp())};keyid="{kid}";alg="ed25519";tag="{TAG}"'
    return f"tw={parameters}", _base(request.components(), parameters)


def signature_header(signature: bytes) -> str:
    """The Signature header."""
    return f"tw=:{base64.b64encode(signature).decode()}:"


@dataclass(frozen=True, slots=True, kw_only=True)
class Signed:
    """A request signature that nobody has verified yet: whose key, over which base."""

    kid: str
    base: bytes
    signature: bytes


def parse_signature(request: Request, header_input: str, header: str, now: datetime) -> Signed:
    """The signature of a request by its headers; ProblemError `httpsig.*` else."""
    if not header_input or not header:
        raise ProblemError("httpsig.missing", "Signature-Input and Signature are required")
    found, signature = _INPUT.fullmatch(header_input), _SIGNATURE.fullmatch(header)
    if found is None or signature is None:
        raise ProblemError("httpsig.invalid", "malformed Signature-Input or Signature")
    covered = tuple(name.strip('"') for name in found[2].split(" ")) if found[2] else ()
    if covered != tuple(request.components()):
        raise ProblemError("httpsig.components", f"cover {' '.join(request.components())}, in this order")
    parameters = _PARAMETER.findall(found[3])
    texts = {name: text for name, text, number in parameters if not number}
    numbers = {name: int(number) for name, _, number in parameters if number}
    if len(parameters) != 4 or texts.keys() != {"keyid", "alg", "tag"} or numbers.keys() != {"created"}:
        raise ProblemError("httpsig.invalid", "the parameters are created (a number), keyid, alg, tag (texts)")
    if texts["tag"] != TAG:
        raise ProblemError("httpsig.tag", "the signature was made for another use")
    if texts["alg"] != "ed25519":
        raise ProblemError("httpsig.invalid", "alg is ed25519")
    age = now.timestamp() - numbers["created"]
    if not -REQUEST_AHEAD_MAX_S <= age <= REQUEST_AGE_MAX_S:
        raise ProblemError("httpsig.time", "older than 300 s or more than 60 s ahead")
    data = base64.b64decode(signature[1])
    if signature_header(data) != header:
        raise ProblemError("httpsig.invalid", "the signature has spare bits")
    return Signed(kid=texts["keyid"], base=_base(request.components(), found[1]), signature=data)
