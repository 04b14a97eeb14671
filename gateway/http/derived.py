"""What the agency interface makes of threads, directory and tables: chains, figures, checks; models of its answers."""

from typing import Annotated, Literal

from pydantic import Field

from gateway.http.documents import Described, Finding, Id, Object, Place, Problem, ShownTime, Thread
from protocols.limits import MESSAGES_A_LEG_MAX
from protocols.messages.diversion import Kind
from protocols.messages.reference import MarkingNotice
from protocols.messages.registry import Hit
from protocols.messages.shared import Listed, Many, Maybe, MemberName, Model, Reference, Text, Unique, Weapon
from protocols.routing import Rule


class Hop(Thread):
    """A member that was asked, at which hop, and the result of its answer."""

    hop: int
    result: Maybe[str] = None


class ChainIndicator(Model):
    """An indicator of diversion, and who states it; `computed` where it follows from dates and destinations."""

    code: str
    by: list[str]


class EmbargoHit(Model):
    """A transfer into a country under an embargo on that day: for a person to judge."""

    event: int
    authority: str
    country: str
    scope: str
    since: str
    instrument: str
    confidence: str


class Diversion(Model):
    """Where the weapon left the legal way: the place in `events`, and why it is taken for that."""

    event: int
    why: str


class Chain(Model):
    """What all who were asked have told, as one."""

    thread: Id
    hops: list[Hop]
    events: list[Object]
    indicators: list[ChainIndicator]
    embargo_hits: list[EmbargoHit]
    diversion: Maybe[Diversion] = None
    time_to_diversion_days: Maybe[int] = None


class RequestDraft(Model):
    """A trace request made of a recovery report; `missing` points at what a person has to add."""

    body: Object
    missing: list[str]
    steps_done_percent: int


class Figures(Model):
    """What became of the requests to, or of, one member in a year; `median_days` to two places, as text."""

    member: MemberName
    requests: int
    answered: int
    refused: int
    silent: int
    withdrawn: int
    open: int
    late: int
    results: dict[str, int]
    grounds: dict[str, int]
    median_days: Maybe[str] = None


class Sdg(Model):
    """SDG indicator 16.4.2: traced over seized, found or surrendered; `permille` left out where nothing was seized."""

    traced: int
    seized: int
    seized_from: Literal["recovery reports", "given"]
    permille: Maybe[int] = None


class PatternFound(Model):
    """What some traces have in common; no person and no serial."""

    kind: Kind
    what: str
    threads: list[Id]


class DiversionReport(Model):
    """Patterns over the threads that we opened and that were answered, those with the most threads first."""

    threads: int
    patterns: list[PatternFound]


class Report(Model):
    """The figures of one year, from this node's own threads."""

    year: int
    member: MemberName
    asked: list[Figures]
    answered: list[Figures]
    sdg_16_4_2: Sdg


class Way(Model):
    """A member to ask, and why."""

    member: MemberName
    rule: Rule
    why: str


class Checked(Model):
    """What the recipients of a request would make of it; nothing was sent or stored."""

    faults: list[Finding]
    completeness: Annotated[
        Maybe[int], Field(description="Percent of what UN ITI 17 asks for, once nothing is faulty.")
    ] = None
    findings: Annotated[
        Maybe[list[Finding]],
        Field(description="What a person should look at in the weapon: marks that may be cut, codes and words apart."),
    ] = None
    routes: Annotated[list[Way], Field(description="To whom it should go, the best first.")]
    not_permitted: Annotated[Maybe[str], Field(description="Why the directory does not let us ask `to`.")] = None
    likely: Maybe[Literal["AUTOMATIC", "PERSON", "NOTHING"]] = None
    why: Maybe[str] = None
    advice: Annotated[str, Field(description="What would help most, in one sentence.")]


class KindFound(Model):
    """A kind of weapon of our reference table, and how much of what was stated fits it."""

    reference: Reference
    make: str
    model: str
    type: str
    action: str
    calibres: list[str]
    country: str
    score: int
    serial_formats: list[str]
    mark_locations: list[str]
    hidden_marks: str
    look_alikes: list[str]
    years: dict[str, int]


class Identified(Model):
    """The weapon as a message states it, what to look at, and the kinds that fit."""

    weapon: Annotated[Object, Described(Weapon)]
    findings: list[Finding]
    kinds: list[KindFound]


class ImportLine(Model):
    """What became of one line; a CSV's header is line 1."""

    line: int
    record_ref: Maybe[str] = None
    state: Maybe[Literal["stored", "unchanged"]] = None
    note: Maybe[str] = None
    problem: Maybe[Problem] = None


class Imported(Model):
    """An import, which can be withdrawn by its id, and what became of each line."""

    batch: Annotated[Id, Field(alias="import")]
    stored: int
    unchanged: int
    refused: int
    lines: list[ImportLine]


class Withdrawn(Model):
    """How many records were taken out."""

    withdrawn: int


class Found(Model):
    """Whose record fits and how it is called there; nothing else before two people have confirmed."""

    hits: list[Hit]


class Totals(Model):
    """Live records of an owner, to compare with what the other side has: counts, and a Merkle root (RFC 6962) over them."""

    owner: MemberName
    live: int
    by_status: dict[str, int]
    root: str
    on: str


class Noticed(Model):
    """A marking notice in its newest version."""

    sender: Annotated[MemberName, Field(alias="from")]
    thread: Id
    since: ShownTime
    notice: Annotated[Object, Described(MarkingNotice)]


class MarkingNotices(Model):
    """By country and reference."""

    notices: list[Noticed]


class ErasureOrdered(Model):
    """What is to be erased of a thread: all of it, messages, or one restricted part of them."""

    messages: Annotated[Many[Id], Field(max_length=MESSAGES_A_LEG_MAX), Unique] = ()
    part: Maybe[Annotated[str, Field(pattern=r"^[a-z][a-z_]{0,31}$")]] = None
    ground: Annotated[str, Listed("erasure_ground", pair=False)]
    authority: Annotated[Text, Field(description="Who ordered it, as your files say; never a person's name.")]


class Erasing(Model):
    """What is being erased; `backups_until`: the last day on which a backup of the key store may still open it."""

    erasing: list[Id]
    backups_until: str


class TrailEntry(Place):
    """An entry of our ledger about a message; `code` of `opened` is what was read, and after a slash what for."""

    at: ShownTime
    kind: str
    code: Maybe[str] = None
    actor: Annotated[Maybe[str], Field(description="Where it is one that this node knows.")] = None
    grade: Annotated[
        Literal["signed", "witnessed"], Field(description="Witnessed: another member has cosigned it too.")
    ]
    message: Id


class TrailShown(Model):
    """By ledger and index; of who read it the newest 1,000 of each ledger."""

    entries: list[TrailEntry]
