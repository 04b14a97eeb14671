"""What the agency interface takes and gives, as models: they check requests, and the interface description is made of them."""

import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, Literal, NamedTuple
from uuid import UUID

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    GetCoreSchemaHandler,
    GetJsonSchemaHandler,
    WithJsonSchema,
)

from gateway.services.approve import Act
from gateway.services.read import PAGE_MAX
from gateway.services.submit import Attached as Attachment
from protocols.directory import Competence, Contact, Role
from protocols.limits import ATTACHMENTS_MAX
from protocols.messages.parts import LastLegalHolder, Persons
from protocols.messages.registry import RegistrySearch
from protocols.messages.shared import Broken, Handling, Many, Maybe, MemberName, Model
from protocols.messages.trace import TraceRequest
from protocols.problems import ProblemError
from protocols.strict import parse_time, unb64u
from protocols.thread import Delivery, ThreadState

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_UUID7 = "[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}"
_CURSOR = re.compile(f"([0-9]{{1,16}})-({_UUID7})", re.ASCII)
_TIME = r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$"


class Described:
    """A JSON object that a service checks later, described by the model that it will be checked with."""

    def __init__(self, model: type[BaseModel]) -> None:
        self._model = model

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> Any:
        """An object with whatever members."""
        return handler(source)

    def __get_pydantic_json_schema__(self, schema: Any, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        """The model's own schema."""
        return handler(self._model.__pydantic_core_schema__)


def _time(value: object) -> datetime:
    try:
        return parse_time(value)  # what is no text is refused
    except ProblemError:
        raise Broken(
            "time", "not an RFC 3339 time in UTC with milliseconds", "Write 2026-11-22T10:00:00.000Z."
        ) from None


class Cursor(NamedTuple):
    """Where a page ended: what the list is sorted by."""

    at: datetime
    id: UUID

    def __str__(self) -> str:
        return f"{(self.at - _EPOCH) // timedelta(microseconds=1)}-{self.id}"


def _cursor(value: object) -> Cursor:
    found = _CURSOR.fullmatch(str(value))
    if found is None:
        raise Broken("cursor", "not a cursor of this list", "Take `next` of the page before, as it stands.")
    return Cursor(_EPOCH + timedelta(microseconds=int(found[1])), UUID(found[2]))


def _whole(value: object) -> int:
    text = str(value)
    if not (text.isascii() and text.isdigit() and len(text) < 18):  # so that PostgreSQL takes it as well
        raise Broken("number", "not a whole number of up to 17 digits", "Write digits alone.")
    return int(text)


Object = dict[str, Any]
Time = Annotated[
    datetime, BeforeValidator(_time), WithJsonSchema({"type": "string", "format": "date-time", "pattern": _TIME})
]
ShownTime = Annotated[str, Field(pattern=_TIME, json_schema_extra={"format": "date-time"})]
Id = Annotated[str, Field(pattern=f"^{_UUID7}$", json_schema_extra={"format": "uuid"})]
After = Annotated[
    Cursor, BeforeValidator(_cursor), WithJsonSchema({"type": "string", "pattern": f"^[0-9]{{1,16}}-{_UUID7}$"})
]
Seq = Annotated[int, Field(ge=0, lt=10**17), BeforeValidator(_whole)]
Digest = Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]{42}[AEIMQUYcgkosw048]$")]
Limit = Annotated[int, Field(ge=1, le=PAGE_MAX), BeforeValidator(_whole)]


# ---- what comes in


class Parts(Model):
    """The restricted parts by name: persons never stand in a body."""

    persons: Annotated[Maybe[Object], Described(Persons)] = None
    last_legal_holder: Annotated[Maybe[Object], Described(LastLegalHolder)] = None


class Attached(Model):
    """An attachment as its upload answered, with what it is called. The body points to it by `sha256`."""

    name: Annotated[str, Field(min_length=1, max_length=128)]
    media_type: Annotated[str, Field(pattern=r"^[a-z0-9]{1,40}/[a-z0-9.+-]{1,80}$")]
    sha256: Digest
    key: Annotated[Digest, Field(description="As the upload gave it: who holds it can open the ciphertext.")]
    size: Annotated[int, Field(ge=1, lt=2**53)]


class Said(Model):
    """What every message of a client has."""

    handling: Annotated[Object, Described(Handling)]
    parts: Maybe[Parts] = None
    attachments: Annotated[Many[Attached], Field(max_length=ATTACHMENTS_MAX)] = ()
    expires: Maybe[Time] = None

    def given_attachments(self) -> Sequence[Attachment]:
        """The attachments, their digests and keys as bytes."""
        return [
            Attachment(name=a.name, media_type=a.media_type, sha256=unb64u(a.sha256), key=unb64u(a.key), size=a.size)
            for a in self.attachments
        ]

    def given_parts(self) -> Mapping[str, Object]:
        """The parts that are there."""
        return self.parts.model_dump(exclude_none=True) if self.parts else {}


class TraceSubmission(Said):
    """A trace request and to whom it goes."""

    to: MemberName
    body: Annotated[Object, Described(TraceRequest)]
    due: Maybe[Time] = None
    thread: Annotated[
        Maybe[Id], Field(description="With `referral`: the thread in which we were told to ask again.")
    ] = None
    referral: Annotated[Maybe[Id], Field(description="The message that tells us to ask this member.")] = None


class Uploaded(Model):
    """An attachment that is stored, sealed: repeat all three in the message that names it, within seven days."""

    sha256: Digest
    key: Digest
    size: int


class TraceCheck(Model):
    """What would be submitted, as far as it is: as TraceSubmission, but what is wrong in it is answered, not refused."""

    body: Object
    to: Maybe[MemberName] = None
    handling: Maybe[Object] = None
    parts: Maybe[Object] = None
    due: Maybe[Time] = None
    expires: Maybe[Time] = None
    thread: Maybe[Id] = None
    referral: Maybe[Id] = None


class BatchLine(Model):
    """What became of one line; the last line of all has the counts instead, so that a cut answer shows."""

    line: Annotated[Maybe[int], Field(description="From 1; a CSV's header is line 1.")] = None
    id: Maybe[Id] = None
    thread: Maybe[Id] = None
    problem: "Maybe[Problem]" = None
    accepted: Maybe[int] = None
    refused: Maybe[int] = None


class Opening(Said):
    """What opens a thread of another kind, and to whom it goes."""

    to: MemberName


class Saying(Said):
    """What is said in a thread; `to` where it has several legs, `in_reply_to` where another message than the last is meant."""

    to: Maybe[MemberName] = None
    in_reply_to: Maybe[Id] = None


class TokenForm(Model):
    """OAuth 2 client credentials with private_key_jwt (RFC 7523)."""

    grant_type: Literal["client_credentials"]
    client_assertion_type: Literal["urn:ietf:params:oauth:client-assertion-type:jwt-bearer"]
    client_assertion: Annotated[str, Field(max_length=8_192)]
    scope: Maybe[Annotated[str, Field(max_length=500)]] = None


class Query(Model):
    """The parameters of a resource that has none; the others add to it."""

    model_config = ConfigDict(strict=False)


class PageQuery(Query):
    """A page of a list."""

    limit: Limit = 50
    after: Maybe[After] = None


class TracesQuery(PageQuery):
    """A page of threads, all or those in one state."""

    state: Maybe[ThreadState] = None


class EventsQuery(Query):
    """The feed after a line."""

    after: Seq = 0
    limit: Limit = 50


class EvidenceQuery(Query):
    """What the file opens: of these messages, by id, or all; and these restricted parts, which need the scope `parts:read`."""

    parts: Maybe[
        Annotated[str, Field(pattern=r"^[a-z_]{1,32}(,[a-z_]{1,32}){0,7}$", description="`persons`; or `yes`: all.")]
    ] = None
    messages: Maybe[Annotated[str, Field(pattern=f"^{_UUID7}(,{_UUID7})*$", max_length=6_000)]] = None
    content: Maybe[Literal["no"]] = None


class TraceQuery(Query):
    """`grant=yes`: an auditor (scope `audit:read`) asks another person for what the messages say, or sees it once granted."""

    grant: Maybe[Literal["yes"]] = None


class ReportQuery(Query):
    """`seized`: the State's own count of all arms seized, found or surrendered, where its recovery reports are not all."""

    seized: Maybe[Annotated[int, Field(ge=0, lt=10**17), BeforeValidator(_whole)]] = None


# ---- what goes out


class Token(Model):
    """An access token of five minutes."""

    access_token: str
    token_type: Literal["Bearer"]
    expires_in: int


class Accepted(Model):
    """A message that is durable, in the ledger and on its way."""

    id: Id
    thread: Id
    type: str
    state: Literal["accepted"]


class Thread(Model):
    """One leg of a thread: our side of it with one counterpart."""

    thread: Id
    counterpart: MemberName
    role: Literal["asker", "answerer"]
    state: ThreadState
    version: int
    due: Annotated[Maybe[ShownTime], Field(description="When an answer is due, delays and questions included.")] = None
    acknowledge_by: Annotated[
        Maybe[ShownTime], Field(description="When an acknowledgement is due, in working days of the network.")
    ] = None
    opened: ShownTime
    updated: ShownTime


class Threads(Model):
    """A page of threads, newest first; `next` where there may be more."""

    traces: list[Thread]
    next: Maybe[str] = None


class Place(Model):
    """Where an entry stands."""

    origin: str
    index: int


class ShownAttachment(Model):
    """An attachment as it was before it was sealed; its digest, which names it, is that of the ciphertext."""

    name: str
    media_type: str
    sha256: Digest
    size: int


class Message(Model):
    """A message of a thread; `erased` where its content is gone and only proofs are left."""

    id: Id
    type: str
    sender: Annotated[MemberName, Field(alias="from")]
    to: MemberName
    at: ShownTime
    state: Delivery | Literal["received", "dispatched"]
    ledger: Place
    problem: Annotated[Maybe[str], Field(description="Why it waits, was refused or given up: see /problems.")] = None
    body: Maybe[Object] = None
    handling: Maybe[Object] = None
    parts: Annotated[Maybe[Object | list[str]], Field(description="Names alone without the scope `parts:read`.")] = None
    attachments: Maybe[list[ShownAttachment]] = None
    withheld: Annotated[Maybe[str], Field(description="Why what it says is not shown to this caller.")] = None
    erased: Maybe[Literal[True]] = None
    missing: Annotated[
        Maybe[Literal[True]],
        Field(description="Its content is gone and nobody ordered that: the database was damaged."),
    ] = None
    missing_parts: Annotated[
        Maybe[list[str]], Field(description="Restricted parts and attachments of which the same is true.")
    ] = None


class Candidate(Model):
    """A record of the own register that may be the gun."""

    record_ref: str
    score: int
    why: Annotated[Maybe[str], Field(description="The score in words.")] = None


class Review(Model):
    """A request that waits for a person."""

    thread: Id
    id: Id
    sender: Annotated[MemberName, Field(alias="from")]
    reason: str
    candidates: list[Candidate]
    since: ShownTime


class ThreadWhole(Thread):
    """A thread with its messages, oldest first."""

    messages: list[Message]
    legs: Annotated[Maybe[list[Thread]], Field(description="Each leg, where the thread has several.")] = None
    review: Maybe[Review] = None


class Reviews(Model):
    """A page of what waits for a person, oldest first."""

    reviews: list[Review]
    next: Maybe[str] = None


class Lookup(RegistrySearch):
    """What to look for in our own node's records; its purpose and reference are for who reviews it."""


class RecordNamed(Model):
    """A record that a search has found."""

    owner: MemberName
    record_ref: Annotated[str, Field(min_length=1, max_length=200)]


class Ruled(Model):
    """What the second person says."""

    ruling: Literal["APPROVED", "REFUSED"]


class Approval(Model):
    """What one person of one client asked and another has to rule on."""

    id: Id
    act: Act
    client: str
    actor: str
    asked: ShownTime
    about: Annotated[Maybe[Object], Field(description="The whole of what is asked; in a list.")] = None
    ruling: Maybe[Literal["APPROVED", "REFUSED"]] = None


class Approvals(Model):
    """A page of what waits for a second person, oldest first."""

    approvals: list[Approval]
    next: Maybe[str] = None


class Event(Model):
    """A line of the feed."""

    seq: int
    at: ShownTime
    kind: str
    thread: Id
    counterpart: MemberName
    message: Id


class Events(Model):
    """Lines of the feed, oldest first; ask again after the last."""

    events: list[Event]


class Peer(Model):
    """A member of the directory in force."""

    member: MemberName
    name: str
    roles: list[Role]
    status: Literal["active", "suspended", "revoked"]
    problem: Maybe[str] = None
    contact: Annotated[Maybe[Contact], Field(description="Its point of contact (UN ITI 25, 31).")] = None
    competences: Annotated[Maybe[list[Competence]], Field(description="What it answers for.")] = None


class Peers(Model):
    """The members, and the directory's version."""

    directory: int
    peers: list[Peer]


class Step(Model):
    """One check; `why` and `fix` where something is wrong."""

    step: Literal["dns", "tcp", "tls", "http", "clock", "trust", "rights", "schema", "backend"]
    state: Literal["ok", "wrong", "not tried"]
    what: Maybe[str] = None
    why: Maybe[str] = None
    fix: Maybe[str] = None


class Probed(Model):
    """The way to a peer step by step; what comes after the first step that fails is not tried."""

    peer: MemberName
    ok: bool
    steps: list[Step]


class Finding(Model):
    """One thing that is wrong in a document, without its value."""

    pointer: str
    code: str
    message: str
    fix: str


class Problem(Model):
    """Every error (RFC 9457); `type` is a page that explains it."""

    type: Annotated[str, Field(pattern=r"^/problems/[a-z0-9._]+$")]
    title: str
    status: int
    detail: str
    code: str
    origin: Literal["own-node", "peer-node", "peer-backend", "hub", "directory"]
    retry: Literal["never", "later", "after-fix"]
    fix: str
    errors: Maybe[list[Finding]] = None
