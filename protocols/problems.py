"""Problems (RFC 9457, docs/protocol.md section 8): the closed table of codes and the one error class that carries them.

A code says what is wrong, its status, whether a retry can help, and the way out. No text here may hold a value from a payload.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

Retry = Literal["never", "later", "after-fix"]
Origin = Literal["own-node", "peer-node", "peer-backend", "hub", "directory"]


@dataclass(frozen=True, slots=True)
class Kind:
    """What is fixed about a problem code: HTTP status, title, when a retry helps, the way out."""

    status: int
    title: str
    retry: Retry
    fix: str


@dataclass(frozen=True, slots=True)
class Fault:
    """One finding inside a document: JSON pointer (RFC 6901), code, message and fix; never the value found."""

    pointer: str
    code: str
    message: str
    fix: str


_ENV = "The bytes are not a valid sealed message for this node."
_SEND_AGAIN = "Correct what is named, and send it again; the same Idempotency-Key may be used."

CODES: dict[str, Kind] = {
    # strict parsing (section 1)
    "json.invalid": Kind(400, "Not strict JSON", "never", "Send UTF-8 JSON without NaN, comments or trailing bytes."),
    "json.encoding": Kind(400, "Not UTF-8", "never", "Send UTF-8 without a byte order mark, NUL or lone surrogates."),
    "json.duplicate": Kind(400, "Duplicate member", "never", "Give every member of an object once."),
    "json.depth": Kind(400, "Nested too deeply", "never", "Nest at most 32 levels."),
    "json.number": Kind(400, "Number not allowed", "never", "Use integers within 2^53, no fractions, exponents or -0."),
    "json.too_large": Kind(413, "Document too large", "never", "Stay within the size that docs/protocol.md states."),
    "b64.invalid": Kind(400, "Not canonical base64url", "never", "Encode without padding, white space or spare bits."),
    "schema.invalid": Kind(422, "The document breaks its schema", "never", _SEND_AGAIN),
    "type.unknown": Kind(422, "Unknown message type", "never", "Use a type that the directory's matrix lists."),
    # envelope; outside only env.invalid is ever said
    "env.invalid": Kind(
        400, "Invalid envelope", "never", "Seal the message again to the recipient's current seal key."
    ),
    "env.format": Kind(400, "Wrong serialisation", "never", _ENV),
    "env.header": Kind(400, "Header set is not closed", "never", _ENV),
    "env.alg": Kind(400, "Algorithm not allowed", "never", _ENV),
    "env.typ": Kind(400, "Wrong typ", "never", _ENV),
    "env.crit": Kind(400, "crit is not allowed", "never", _ENV),
    "env.kid": Kind(400, "Unknown or malformed kid", "never", _ENV),
    "env.decrypt": Kind(400, "Cannot be opened", "never", _ENV),
    "env.signature": Kind(400, "Signature does not hold", "never", _ENV),
    "env.sender_mismatch": Kind(400, "Sender differs between layers", "never", _ENV),
    "env.recipient_mismatch": Kind(400, "Recipient differs between layers", "never", _ENV),
    "env.network": Kind(400, "Another network", "never", _ENV),
    "env.content": Kind(400, "Content commitment does not hold", "never", _ENV),
    "env.parts": Kind(400, "Restricted parts do not match", "never", _ENV),
    # message
    "msg.expired": Kind(422, "Message expired", "never", "Send a new message with a later expiry."),
    "msg.time": Kind(422, "Message is from the future", "later", "Set the sender's clock."),
    "msg.not_permitted": Kind(
        403, "Not permitted by the directory", "never", "Ask the authority for the role that may."
    ),
    "msg.correlation": Kind(422, "Does not fit its thread", "never", "Read the thread and answer what is open in it."),
    "msg.overtook": Kind(
        409, "Its request is not here yet", "later", "Nothing: it is delivered again after its request."
    ),
    "msg.blob_missing": Kind(409, "Attachment missing", "later", "Upload the attachment, then send again."),
    "id.conflict": Kind(409, "Two contents under one id", "never", "Use a new id for new content."),
    # proofs and ledgers
    "entry.invalid": Kind(
        400, "Not a ledger entry", "never", "Write the members of the kind in order, no white space."
    ),
    "note.invalid": Kind(400, "Not a signed note", "never", "Send the note's exact bytes."),
    "proof.missing": Kind(400, "No proof", "never", "Send the parcel with the sender's proof."),
    "proof.entry": Kind(400, "Proof names something else", "never", "Send the proof of the entry for this envelope."),
    "proof.path": Kind(400, "Inclusion path does not hold", "never", "Build the path for the size of the checkpoint."),
    "proof.policy": Kind(400, "Checkpoint lacks a signature", "never", "Sign with both keys that the directory lists."),
    "proof.origin": Kind(400, "Ledger is not the member's", "never", "List the ledger in the directory first."),
    "checkpoint.unlinked": Kind(
        503, "Too many unlinked checkpoints", "later", "Send links for the sizes named as held."
    ),
    "checkpoint.links": Kind(400, "Link does not hold", "later", "Build links along the sizes named as held."),
    "checkpoint.unwitnessed": Kind(
        503, "Too few witnesses", "later", "See why they do not answer: `tracewire doctor` names each."
    ),
    "witness.origin": Kind(404, "No ledger that is witnessed here", "never", "List the ledger in the directory first."),
    "witness.signature": Kind(
        403, "Not signed by its ledger", "never", "Sign with both keys that the directory lists."
    ),
    "witness.old": Kind(400, "Old size above the new", "never", "Ask from the size that the witness names."),
    "witness.proof": Kind(
        422, "Consistency is not proven", "never", "Build the path from the size that the witness names."
    ),
    "entry.order": Kind(422, "The entry may not stand here", "never", "Ask the ledger's member; keep the files."),
    "ledger.split_view": Kind(409, "Two histories of one ledger", "never", "The directory must abandon this ledger."),
    "ledger.gap": Kind(
        409, "Messages of a member are missing", "never", "Compare both ledgers: `tracewire audit reconcile`."
    ),
    "ledger.contradiction": Kind(
        409, "A member logged one arrival twice", "never", "Compare both ledgers: `tracewire audit reconcile`."
    ),
    "ledger.skew": Kind(
        409, "A member's clock and ours differ", "later", "Run `tracewire doctor`: it says whose clock is wrong."
    ),
    "ledger.rollback": Kind(503, "The ledger's database went back", "later", "Run `tracewire doctor`; sign nothing."),
    "ledger.closed": Kind(503, "Ledger is closed", "later", "Open the next ledger."),
    "ledger.not_ready": Kind(503, "Ledger is not open yet", "later", "Have the directory list this node, then wait."),
    "evidence.invalid": Kind(422, "Evidence does not hold", "never", "Ask who exported it for a fresh export."),
    "time.rollback": Kind(503, "Our clock went back", "later", "Set this machine's clock; see its time service."),
    "ledger.entry_changed": Kind(
        503,
        "Entries of our ledger are not those that were signed",
        "later",
        "Find out who wrote to the database; put the entries back from a backup.",
    ),
    "ledger.tile_corrupt": Kind(503, "A stored tile is damaged", "later", "Run `tracewire ledger repair NODE`."),
    "tile.missing": Kind(404, "No such tile", "never", "Ask for tiles of a size that a checkpoint names."),
    # directory
    "dir.invalid": Kind(400, "Directory document is invalid", "after-fix", "The authority must publish a valid one."),
    "dir.notice": Kind(
        409,
        "A new record key needs 72 hours of notice",
        "later",
        "Ask the member on another channel; then admit it again.",
    ),
    "dir.stale": Kind(503, "Directory is stale", "later", "Fetch the directory; ask the authority to publish."),
    "dir.key_unknown": Kind(503, "Key not in our directory", "later", "Wait until the directory version is fetched."),
    "dir.key_use": Kind(422, "One key for two uses", "never", "Make a key for every use."),
    "dir.key_pop": Kind(422, "Possession not proven", "never", "Sign the request with every key in it."),
    "dir.key_invalid": Kind(422, "Malformed key", "never", "Make the key again."),
    "dir.signature": Kind(400, "Directory signature does not hold", "later", "Fetch from the authority."),
    "dir.rollback": Kind(400, "Directory went back", "later", "Fetch from the authority; it may be under attack."),
    "dir.root_chain": Kind(
        400, "Root does not follow ours", "later", "Fetch from the authority; compare fingerprints."
    ),
    "dir.expired": Kind(503, "Directory has expired", "later", "The authority must run `tracewire directory serve`."),
    "dir.hash": Kind(400, "Directory file differs from its hash", "later", "Fetch from the authority."),
    "dir.size": Kind(400, "Directory file is too long", "later", "Fetch from the authority."),
    "dir.unreachable": Kind(503, "Directory cannot be fetched", "later", "Check the source's address and network."),
    # request signature
    "httpsig.missing": Kind(401, "Request is not signed", "after-fix", "Sign as docs/protocol.md section 4 says."),
    "httpsig.invalid": Kind(401, "Request signature is malformed", "after-fix", "Sign as docs/protocol.md section 4."),
    "httpsig.components": Kind(401, "Components not covered", "after-fix", "Cover the components of section 4."),
    "httpsig.digest": Kind(400, "Body differs from its digest", "after-fix", "Send Content-Digest of the exact body."),
    "httpsig.digest_alg": Kind(400, "Digest algorithm not allowed", "after-fix", "Use sha-256."),
    "httpsig.time": Kind(401, "Signature is too old or early", "later", "Set the clock; sign anew."),
    "httpsig.key": Kind(401, "Unknown request key", "later", "List the request key in the directory."),
    "httpsig.tag": Kind(401, "Signature for another use", "after-fix", "Use the tag of section 4."),
    "httpsig.signature": Kind(401, "Request signature does not hold", "after-fix", "Sign the exact request."),
    "peer.identity": Kind(502, "The peer is not who it should be", "later", "Check the endpoint and its TLS key."),
    "peer.identity_mismatch": Kind(403, "Parcel of another member", "never", "Send only your own parcels."),
    "peer.suspended": Kind(403, "Member is suspended", "later", "Ask the authority."),
    "peer.unreachable": Kind(502, "The peer cannot be reached", "later", "Run `tracewire probe NODE PEER`."),
    "peer.answer": Kind(502, "The peer's answer is not valid", "later", "Tell the peer's administrator."),
    "peer.rate": Kind(
        429, "Too many parcels", "later", "Wait for the Retry-After seconds; send fewer, or correct them."
    ),
    "peer.backlog": Kind(429, "Too many messages wait", "later", "The recipient's systems must fetch what arrived."),
    "quota.refusals": Kind(429, "Too many refusals today", "later", "Correct the messages; try again tomorrow."),
    # HTTP
    "http.framing": Kind(400, "Ambiguous message framing", "never", "Send one Content-Length or chunked."),
    "http.header": Kind(400, "Malformed header", "never", "Send headers as RFC 9110 says."),
    "http.header_too_large": Kind(431, "Header too large", "never", "Send less than 8 KiB a header."),
    "http.header_count": Kind(431, "Too many headers", "never", "Send at most 100 headers."),
    "http.header_timeout": Kind(408, "Headers came too slowly", "later", "Send all headers within 10 s."),
    "http.body_timeout": Kind(408, "Body came too slowly", "later", "Send at 4 KiB/s or more."),
    "http.method": Kind(405, "Method not allowed", "never", "Use the method of the interface description."),
    "http.not_found": Kind(404, "No such resource", "never", "See /v1/openapi.json for what there is."),
    "http.media_type": Kind(415, "Media type not accepted", "never", "Send the type that the interface states."),
    "http.content_encoding": Kind(415, "Content-Encoding not accepted", "never", "Send the body as it is."),
    "http.too_large": Kind(413, "Body too large", "never", "Split the request."),
    "http.misdirected": Kind(421, "Host is not ours", "never", "Use the endpoint that the directory lists."),
    "http.version": Kind(505, "HTTP version not supported", "never", "Use HTTP/1.1."),
    "http.upgrade": Kind(400, "Upgrade not accepted", "never", "Use plain HTTP/1.1 over TLS."),
    "http.query": Kind(400, "Query not accepted", "never", "Send only the parameters of the interface."),
    # agency interface
    "auth.missing": Kind(401, "No access token", "after-fix", "Get one at POST /v1/token."),
    "auth.invalid": Kind(
        401, "Token is not valid", "after-fix", "Correct what is named; get a token at POST /v1/token."
    ),
    "auth.scope": Kind(403, "Scope is missing", "after-fix", "Have the client registered with that scope."),
    "auth.purpose": Kind(403, "Purpose is missing", "after-fix", "Get a token whose assertion says purpose_of_use."),
    "ui.csrf": Kind(403, "Form of another site", "never", "Open the page itself, and use its own form."),
    "ui.rate": Kind(429, "Too many links that do not open", "later", "Wait five minutes, then use a fresh link."),
    "idempotency.missing": Kind(
        400, "Idempotency-Key missing or malformed", "after-fix", "Send a fresh UUID as Idempotency-Key."
    ),
    "idempotency.reused": Kind(409, "Idempotency-Key used before", "never", "Use a fresh key for a new request."),
    "precondition.failed": Kind(412, "The thread moved on", "after-fix", "Read the thread; repeat with its ETag."),
    "precondition.required": Kind(428, "If-Match missing", "after-fix", "Send If-Match with the thread's version."),
    "thread.not_found": Kind(404, "No such thread", "never", "List the threads at GET /v1/traces."),
    "thread.state": Kind(409, "Not possible in this state", "never", "Read the thread's state and what is open."),
    "handling.forbidden": Kind(
        403, "Its originator does not allow this", "after-fix", "Ask the originator (consent.request), or leave it out."
    ),
    "approval.needed": Kind(
        403,
        "A second person has to approve",
        "after-fix",
        "Have another person approve, then send the same request again.",
    ),
    "approval.unproven": Kind(
        403,
        "Our ledger does not say that two people want this",
        "never",
        "Find out who wrote to the table `approval` or `erasure`; put its row back, or order the erasure again.",
    ),
    "approval.refused": Kind(403, "A second person refused", "never", "Ask who refused it."),
    "approval.many": Kind(
        429, "Too many approvals are open", "later", "Have them ruled on, or use them, before asking for more."
    ),
    "approval.self": Kind(
        403, "Nobody approves what he asked", "never", "Leave it to another person of another client."
    ),
    "approval.not_found": Kind(404, "No such approval waits", "after-fix", "List what waits at GET /v1/approvals."),
    "approval.ruled": Kind(409, "Ruled on before", "never", "Nothing: the first ruling counts."),
    "thread.full": Kind(409, "The thread has too many messages", "never", "Open another thread, or write less often."),
    "feed.beyond": Kind(409, "The feed has no such line yet", "after-fix", "Ask after a line that the feed has given."),
    "member.unknown": Kind(422, "No such member", "after-fix", "List the members at GET /v1/peers."),
    "batch.invalid": Kind(
        422, "The file cannot be read", "after-fix", "Correct what is named; send it under the same key."
    ),
    "registry.not_found": Kind(
        404,
        "No such record or import",
        "after-fix",
        "Look at the reference again: it may be withdrawn or past its day.",
    ),
    "registry.csv": Kind(422, "The file cannot be imported", "after-fix", "Correct the rows that are named."),
    "peer.fetches": Kind(
        502,
        "The peer fetches its messages",
        "later",
        "Nothing: it fetches them, or a courier carries them (`tracewire courier export`).",
    ),
    "hub.relayed": Kind(
        502, "A hub has it", "later", "Nothing: the recipient's receipt comes back through the hub, or it expires."
    ),
    "hub.unlisted": Kind(403, "Not a hub of this member", "after-fix", "The recipient's record must list the hub."),
    "blob.range": Kind(
        416, "Not a range of an attachment", "after-fix", "Ask HEAD where to go on, and send whole pieces."
    ),
    "blob.digest": Kind(422, "Attachment differs from its digest", "later", "Send it again from its beginning."),
    "quota.blobs": Kind(429, "Too many attachments wait", "later", "Send the messages that name them first."),
    "attachment.not_found": Kind(
        404, "No such attachment", "never", "Read the thread: its messages name their attachments."
    ),
    "courier.bag": Kind(
        422, "Not a courier's bag", "after-fix", "Name a folder that `tracewire courier export` wrote."
    ),
    "store.busy": Kind(503, "Busy", "later", "Try again in some seconds; over HTTP, after those of Retry-After."),
    "store.full": Kind(503, "Store is full", "later", "Free disk space on the node."),
    "store.data": Kind(422, "The store refused the data", "never", "Report it with the time; the data was not kept."),
    "key.store": Kind(500, "Key store cannot be used", "after-fix", "Check its passphrase, file and mode 0600."),
    "key.revoked": Kind(409, "Key is revoked", "never", "Submit again under a current key."),
    "content.erased": Kind(410, "Content was erased", "never", "Nothing can bring it back; proofs stay valid."),
    "config.invalid": Kind(500, "Configuration is not valid", "after-fix", "Correct what is named, and run it again."),
    "internal": Kind(500, "Our own error", "later", "Try again; tell the administrator the time."),
}


class ProblemError(Exception):
    """The one family of errors for bad input and refused requests; `code` is a key of CODES.

    `detail` and `errors` are for people and must name no value of a payload.
    """

    def __init__(self, code: str, detail: str = "", *, errors: Sequence[Fault] = ()) -> None:
        super().__init__(f"{code}: {detail}" if detail else code)
        self.kind = CODES[code]
        self.code = code
        self.detail = detail
        self.errors = tuple(errors)
        self.retry_after_s = 0.0  # what a peer asked for

    def document(self, origin: Origin = "own-node") -> dict[str, Any]:
        """The problem document (RFC 9457) as a JSON value."""
        shown: dict[str, Any] = {
            "type": f"/problems/{self.code}",
            "title": self.kind.title,
            "status": self.kind.status,
            "detail": self.detail or self.kind.title,
            "code": self.code,
            "origin": origin,
            "retry": self.kind.retry,
            "fix": self.kind.fix,
        }
        if self.errors:
            shown["errors"] = [
                {"pointer": e.pointer, "code": e.code, "message": e.message, "fix": e.fix} for e in self.errors
            ]
        return shown
