"""The built-in registry and reference service: answer by themselves where the rule allows it.

docs/domain.md section 3: a trace request is answered only when exactly one record fits; everything else waits for a person, with
candidates. Records of other members are kept and searched, and kinds of weapons looked up for whoever asks.
"""

import asyncio
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta
from hashlib import sha256
from typing import Any
from uuid import UUID

import structlog

from gateway.services.changes import Answered
from gateway.services.commit import Committer
from gateway.services.notices import Notices
from gateway.services.read import Read
from gateway.services.records import Records
from gateway.services.submit import Draft, Request, Submit
from gateway.services.wake import woken
from protocols.codes import UNKNOWN
from protocols.firearms.calibres import calibre_code
from protocols.firearms.makes import make_key
from protocols.firearms.references import Kind
from protocols.firearms.references import candidates as kinds_of
from protocols.firearms.scoring import CANDIDATES_MAX, Decision, decide
from protocols.messages import asked_gun, validate_body
from protocols.messages.identify import kind_json
from protocols.messages.reference import ReferenceQuery
from protocols.messages.registry import RegistryRecord, RegistrySearch, RegistryWithdrawal
from protocols.messages.trace import TraceRequest
from protocols.ports.access import Caller
from protocols.ports.registry import Record, Registry
from protocols.ports.rows import (
    Arrived,
    ReviewRow,
)
from protocols.ports.store import (
    ExchangeStore,
    Unavailable,
)
from protocols.ports.world import Clock
from protocols.problems import ProblemError
from protocols.strict import dump_json, format_time

_log = structlog.get_logger()
_AT_ONCE = 64
_LOOK_S = 5.0
_SEARCH_MAX = 200
_SEARCHED = "records that members share with this registry, by serial, confusable, partial and component serial"
ACTOR = "registry"
_CALLER = Caller(client="tracewire:registry", actor=ACTOR, scopes=frozenset())
_HANDLING = {
    "codes": ["PURPOSE_TRACING_ONLY", "NO_ONWARD_WITHOUT_CONSENT"],
    "purpose": "TRACING",
    "evidence_use": "yes",
}  # an extract of a register is made to be shown
_ACKNOWLEDGED = timedelta(days=2)  # default of docs/domain.md section 2, where the directory says nothing else
_TRIES = 3


class Answer:
    """Takes arrived trace requests and answers them, or puts them before a person."""

    def __init__(
        self,
        *,
        office: dict[str, Any],
        types: Sequence[str],
        store: ExchangeStore,
        registry: Registry,
        records: Records,
        notices: Notices,
        read: Read,
        submit: Submit,
        committer: Committer,
        clock: Clock,
        later_s: float,
    ) -> None:
        """`later_s`: what failed is taken up again so much later."""
        self._later_s = later_s
        self._office, self._types, self._store, self._registry = office, list(types), store, registry
        self._records, self._notices = records, notices
        self._read, self._submit, self._committer, self._clock = read, submit, committer, clock
        self._wake = asyncio.Event()
        self._later: dict[UUID, float] = {}
        self._failures = Counter[UUID]()

    def wake(self) -> None:
        """Looks at the inbox now."""
        self._wake.set()

    async def run(self) -> None:
        """Answers until cancelled; whatever a crash leaves undone is taken up again."""
        while True:
            self._wake.clear()
            try:
                now = asyncio.get_running_loop().time()
                self._later = {id_: at for id_, at in self._later.items() if at > now}
                arrived = await self._store.undispatched(_AT_ONCE, self._types, list(self._later))
                async with asyncio.TaskGroup() as group:
                    tasks = [group.create_task(self._one(each)) for each in arrived]
            except Exception:  # the store may be away for a while; the loop outlives it
                _log.exception("inbox_unreadable")
                tasks = []
            if any(task.result() for task in tasks):
                continue
            await woken(self._wake, _LOOK_S)

    async def _one(self, arrived: Arrived) -> bool:
        """Whether it is done with; what may heal is taken up again."""
        try:
            await self.answer(arrived)
        except ProblemError as problem:
            _log.warning("answer_failed", id=str(arrived.id), code=problem.code)
            if problem.kind.retry == "later":
                if not problem.code.startswith("store."):
                    self._later[arrived.id] = asyncio.get_running_loop().time() + self._later_s
                return False
            await self._review(arrived, Decision(kind="person", reason="SERIAL_MISSING"), problem.code)
        except Unavailable:  # the store is away for every request: the next look, not a minute aside
            _log.warning("answer_failed", id=str(arrived.id), code="store.busy")
            return False
        except Exception:  # one request's failure is its own
            _log.exception("answer_failed", id=str(arrived.id))
            self._failures[arrived.id] += 1
            if self._failures[arrived.id] < _TRIES:
                self._later[arrived.id] = asyncio.get_running_loop().time() + self._later_s
                return False
            # others are not to wait for it: a person looks
            await self._review(arrived, Decision(kind="person", reason="SERIAL_MISSING"), "internal")
        self._failures.pop(arrived.id, None)
        return True

    async def answer(self, arrived: Arrived) -> None:
        """Does what one message asks: an answer and its `dispatched` entry in one change, or a review."""
        message = (await self._read.content(arrived.sender, arrived.id)).message
        body = validate_body(arrived.type, message.body)
        match body:
            case TraceRequest():
                await self._trace(arrived, body)
            case RegistryRecord():
                await self._records.received(message, body)
                await self._committer.commit(self._submit.dispatched(arrived))
            case RegistryWithdrawal():
                await self._records.withdrawn(message, body.record_ref)
                await self._committer.commit(self._submit.dispatched(arrived))
            case RegistrySearch() if body.is_weak:  # their second person is not ours
                await self._review(arrived, Decision(kind="person", reason="SERIAL_PARTIAL"), "SERIAL_PARTIAL")
            case RegistrySearch():
                hits = await self._records.hits(body, arrived.sender)
                draft = self._draft(arrived, "registry.hit", {"hits": hits, "searched": _SEARCHED})
                await self._answer(arrived, replace(draft, handling=_HANDLING | {"evidence_use": "ask"}))
            case ReferenceQuery():
                notices = [each.message.body for each in await self._notices.standing()]
                found = reference_answer(body, notices)
                await self._answer(arrived, self._draft(arrived, "reference.answer", found))

    async def _answer(self, arrived: Arrived, *drafts: Draft) -> None:
        messages = tuple(self._submit.prepare(draft, actor=ACTOR)[1] for draft in drafts)
        size = sum(len(message.outbox.envelope) for message in messages)
        await self._committer.commit(Answered(dispatched=self._submit.dispatched(arrived), messages=messages), size)

    async def _trace(self, arrived: Arrived, request: TraceRequest) -> None:
        """Acknowledgement and response in one change, or acknowledgement and a review."""
        question = asked_gun(request.weapon)
        records = await self._registry.search(question, _SEARCH_MAX)
        decision = await asyncio.to_thread(decide, question, [record.gun for record in records])
        if decision.kind == "auto":
            record = next(record for record in records if record.gun.ref == decision.record)
            await self._answer(arrived, self._acknowledgement(arrived, "ACCEPTED"), self._response(arrived, record))
            return
        key = Request(caller=_CALLER, key=f"acknowledge {arrived.id}", digest=sha256(arrived.id.bytes).digest())
        await self._submit.submit(self._acknowledgement(arrived, "QUEUED"), key)
        await self._review(arrived, decision, decision.reason)

    async def _review(self, arrived: Arrived, decision: Decision, reason: str) -> None:
        # refs and scores alone: serials of candidates are near that of the request, whose content is encrypted at rest
        candidates = [
            {"record_ref": each.ref, "score": each.score, "why": each.why}
            for each in decision.candidates[:CANDIDATES_MAX]
        ]
        row = ReviewRow(
            sender=arrived.sender,
            id=arrived.id,
            thread=arrived.thread,
            reason=reason,
            candidates=dump_json(candidates).decode(),
            at=self._clock.now(),
        )
        await self._store.review(row)

    def _acknowledgement(self, arrived: Arrived, state: str) -> Draft:
        by = format_time(self._clock.now() + _ACKNOWLEDGED)[:10]
        return self._draft(
            arrived, "trace.acknowledgement", {"state": state, "handler": self._office, "expected_by": by}
        )

    def _response(self, arrived: Arrived, record: Record) -> Draft:
        return self._draft(arrived, "trace.response", response_of(record, self._office["country"]["code"]))

    def _draft(self, arrived: Arrived, type_: str, body: dict[str, Any]) -> Draft:
        return Draft(
            type=type_,
            recipient=arrived.sender,
            thread=arrived.thread,
            body=body,
            handling=_HANDLING,
            in_reply_to=arrived.id,
        )


def reference_answer(query: ReferenceQuery, notices: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The `reference.answer` of our table, with the serial formats that marking notices tell of a make."""
    weapon = query.weapon
    named = next((mark.text for mark in query.marks if mark.mark_type.code == "MAKER_NAME" and mark.text), "")
    make = (
        weapon.make.code
        if weapon.make and weapon.make.code != UNKNOWN
        else make_key(weapon.make.raw if weapon.make else named or "")
    )
    type_ = weapon.type.code if weapon.type else UNKNOWN
    calibre = weapon.calibre.code if weapon.calibre else UNKNOWN
    if weapon.calibre and calibre == UNKNOWN:
        calibre = calibre_code(weapon.calibre.raw, type_)
    country = weapon.country_of_manufacture.code if weapon.country_of_manufacture else UNKNOWN
    found = kinds_of(
        make=make, model=weapon.model or "", calibre="" if calibre == UNKNOWN else calibre, weapon_type=type_,
        country="" if country == UNKNOWN else country,
    )  # fmt: skip
    told: dict[str, list[str]] = {}
    for notice in notices:
        for each in notice.get("serial_formats", ()):
            told.setdefault(each.get("maker", {}).get("code", ""), []).append(each["format"])
    return {"candidates": [_kind(kind, score, told.get(kind.make, [])) for kind, score in found]}


def _kind(kind: Kind, score: int, told: Sequence[str]) -> dict[str, Any]:
    def pair(code: str) -> dict[str, str]:
        return {"code": code, "raw": ""}

    shown = kind_json(kind, score)
    return {
        "reference": shown["reference"], "make": pair(kind.make), "model": kind.model, "type": pair(kind.type),
        "calibres": [pair(code) for code in kind.calibres], "country": pair(kind.country), "score": score, "years": shown["years"],
        "serial_formats": list(dict.fromkeys((*told, *shown["serial_formats"])))[:16],
        "mark_locations": [pair(place) for place in shown["mark_locations"]],
    }  # fmt: skip


def response_of(record: Record, country: str) -> dict[str, Any]:
    """The trace.response that a record of the register supports: the retail sale and the dealer, no person."""
    details = record.details
    where = {"code": details.get("country", country), "raw": details.get("country", country)}
    body: dict[str, Any] = {
        "result": {"code": "TRACED_TO_MANUFACTURER_ONLY", "raw": ""},
        "certainty": {"code": "CONFIRMED", "raw": ""},
        "final": True,
        "checked_sources": [{"name": "own register", "period": {}, "coverage": {"code": "WHOLE", "raw": ""}}],
    }
    if details.get("sold_on"):
        body["result"] = {"code": "TRACED_TO_DEALER", "raw": ""}
        body["events"] = [
            {
                "kind": {"code": "RETAIL_SALE", "raw": ""},
                "date": details["sold_on"],
                "from": {"code": "DEALER", "raw": ""},
                "to": {"code": "PRIVATE_PERSON", "raw": ""},
                "country": where,
                "evidence_grade": {"code": "RECORD_SYSTEM", "raw": ""},
                "certainty": {"code": "CONFIRMED", "raw": ""},
            }
        ]
    if details.get("dealer"):
        body["next_hops"] = [{"name": details["dealer"], "country": where, "party": {"code": "DEALER", "raw": ""}}]
    return body
