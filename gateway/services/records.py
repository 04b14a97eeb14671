"""Records that members share, as INTERPOL's iARMS keeps them: imported, sent, searched, withdrawn, and reconciled with their owners."""

import asyncio
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import date, datetime
from functools import partial
from itertools import islice
from typing import Any
from uuid import UUID

from gateway.services.approve import Approve
from gateway.services.policy import permit_reading
from gateway.services.register import damage_faults
from gateway.services.sheet import read_sheet
from protocols.exchange.message import Message
from protocols.firearms.scoring import Gun, score
from protocols.firearms.serials import k1, matches, search_keys
from protocols.ledger.entry import uuid7
from protocols.ledger.merkle import leaf_hash
from protocols.ledger.tiles import Edge
from protocols.messages import asked_gun, validate_handling, validate_model
from protocols.messages.identify import Texts, weapon_of
from protocols.messages.registry import HITS_MAX, RegistryRecord, RegistrySearch
from protocols.messages.shared import Handling
from protocols.messages.trace import TEXTS_MAX
from protocols.ports.access import Caller
from protocols.ports.registry import Record, Registry
from protocols.ports.world import Clock, Ids
from protocols.problems import Fault, ProblemError
from protocols.strict import b64u, dump_json, parse_object

CSV, NDJSON = "text/csv", "application/x-ndjson"
ROWS_MAX = 10_000
_LINE_BYTES_MAX = 64 * 1024
REQUIRED = ("record_ref", "status", "event_date", "retention_until", "serial", "make")
COLUMNS = (*REQUIRED, "model", "type", "calibre", "country", "importer", "origin_class")
_SEARCHED = 200
Json = dict[str, Any]


class Records:
    """Our shared records, and those that others sent us."""

    def __init__(
        self, *, member: str, office: Json, registry: Registry, approve: Approve, clock: Clock, ids: Ids
    ) -> None:
        self._member, self._office, self._registry, self._approve = member, office, registry, approve
        self._clock, self._ids, self._importing = clock, ids, asyncio.Lock()

    async def take(self, data: bytes, media: str) -> Json:
        """Imports up to 10,000 of our own records: a result for each line; what is wrong is refused alone and named.

        The same reference again replaces the record, or changes nothing. `registry.csv` where the file cannot be read as a whole.
        """
        if self._importing.locked():
            raise ProblemError("store.busy", "another import is being worked on")
        async with self._importing:
            return await self._take(data, media)

    async def _take(self, data: bytes, media: str) -> Json:
        batch = self._ids.uuid7()
        lines = await asyncio.to_thread(lambda: list(islice(self._read(data, media, batch), ROWS_MAX + 1)))  # seconds
        if len(lines) > ROWS_MAX:
            raise ProblemError("http.too_large", f"more than {ROWS_MAX} records; split the file")
        records: dict[str, Record] = {}
        results: list[Json] = []
        for line, record in lines:
            result: Json = {"line": line}
            try:
                if isinstance(record, ProblemError):
                    raise record
                if record.gun.ref in records:
                    fix = "Give every record once."
                    fault = Fault(f"/{line}/record_ref", "repeated", "the reference stands in an earlier line", fix)
                    raise ProblemError("registry.csv", "a reference twice", errors=[fault])
                records[record.gun.ref] = record
                result["record_ref"] = record.gun.ref
                if not record.gun.serial_k1:
                    result["note"] = "no serial of it is whole: no search by serial finds it"
            except ProblemError as problem:
                result["problem"] = problem.document()
            results.append(result)
        changed = await self._registry.store(list(records.values())) if records else set()
        for result in results:
            if "record_ref" in result:
                result["state"] = "stored" if result["record_ref"] in changed else "unchanged"
        refused = sum("problem" in result for result in results)
        return {
            "import": str(batch), "stored": len(changed), "unchanged": len(records) - len(changed), "refused": refused,
            "lines": results,
        }  # fmt: skip

    async def withdraw(self, batch: str) -> int:
        """Takes a whole import of ours out again; how many records it still had."""
        try:
            return await self._registry.remove(self._member, uuid7(batch))
        except ProblemError:
            raise ProblemError("registry.not_found", "not the id of an import") from None

    async def hits(self, search: RegistrySearch, asker: str | None = None) -> list[Json]:
        """Owner and reference of the records that fit, best first, and nothing else of them; at most 25.

        One fits by its whole serial, one of its components', their confusable characters or leading zeros, or by a pattern: never
        by a serial that is near. What its owner does not let this asker be told is left out (UN ITI 15).
        """
        question, found = sought(search), list[tuple[int, Record]]()
        for record in await self._registry.search(question, _SEARCHED, shared=True, asker=asker):
            keys = [key for key in (record.gun.serial_k1, *record.others) if _fits(question, key)]
            if keys:
                found.append((max(score(question, gun_with(record.gun, key)) for key in keys), record))
        found.sort(key=lambda each: (-each[0], each[1].owner, each[1].gun.ref))
        return [
            {
                "member": record.owner, "owner": record.details["owner"], "record_ref": record.gun.ref, "score": points,
                "basis": _basis(question, record),
            }
            for points, record in found[:HITS_MAX]
        ]  # fmt: skip

    async def search(self, search: RegistrySearch, caller: Caller) -> list[Json]:
        """Hits in what we hold; a search by so little that it is fishing needs two people (`approval.*`)."""
        if search.is_weak:
            about = search.model_dump(mode="json", exclude_none=True)
            await self._approve.spend(await self._approve.require("registry.lookup", caller, about))
        return await self.hits(search)

    async def whole(self, owner: str, ref: str, caller: Caller) -> Json:
        """A record whole, once two people have confirmed the hit for this purpose (`approval.*`, `auth.purpose`); `registry.not_found`."""
        permit_reading(caller)
        record = await self._registry.record(owner, ref)
        if record is None:
            raise ProblemError("registry.not_found", "no such record is live")
        about = {"owner": owner, "record_ref": ref, "purpose": caller.purpose}
        approval = await self._approve.require("registry.hit", caller, about)
        await self._approve.spend(approval)
        await self._approve.look(approval, caller, "record")
        return record.details

    async def received(self, message: Message, body: RegistryRecord) -> None:
        """Keeps a record that its owner sent us, for whom its handling names, and as long as that and its own day let us."""
        handling = validate_handling(message.handling)
        record = record_of(body, message.sender, None, said=message.created)
        until = min(body.retention_until, handling.delete_after or body.retention_until)
        kept = replace(record, until=date.fromisoformat(until), audience=_audience(handling))
        await self._registry.store([kept])

    async def withdrawn(self, message: Message, ref: str) -> None:
        """Drops a record whose owner took it back."""
        await self._registry.take_back(message.sender, ref, message.created)

    async def purge(self) -> None:
        """Deletes what may not be kept any longer."""
        await self._registry.purge(self._clock.now().date())

    async def totals(self, owner: str | None = None) -> Json:
        """Live records of an owner by status, and the Merkle root over them (RFC 6962, by reference): both sides compare.

        A leaf is the body of `registry.record` as compact JSON, its members in alphabetical order.
        """
        counts: dict[str, int] = {}
        leaves = []
        async for record in self._registry.live(owner or self._member):
            counts[record.status] = counts.get(record.status, 0) + 1
            leaves.append(leaf_hash(dump_json(_ordered(record.details))))
        tree = Edge(0, {})
        tree.append(leaves)
        return {
            "owner": owner or self._member, "live": tree.size, "by_status": dict(sorted(counts.items())),
            "root": b64u(tree.root()), "on": self._clock.now().date().isoformat(),
        }  # fmt: skip

    def _read(self, data: bytes, media: str, batch: UUID) -> Iterator[tuple[int, Record | ProblemError]]:
        for line, body in self._bodies(data, media):
            yield line, body if isinstance(body, ProblemError) else self._kept(body, line, batch)

    def _kept(self, body: RegistryRecord, line: int, batch: UUID) -> Record | ProblemError:
        now = self._clock.now()
        if body.retention_until < str(now.date()):
            fault = Fault(
                f"/{line}/retention_until", "range", "the day is past", "Give the last day on which it may be kept."
            )
            return ProblemError("registry.csv", "may not be kept any more", errors=[fault])
        return record_of(body, self._member, batch, said=now)

    def _bodies(self, data: bytes, media: str) -> Iterator[tuple[int, RegistryRecord | ProblemError]]:
        if media == CSV:
            for line, row in read_sheet(data, known=COLUMNS, required=REQUIRED):
                yield line, row if isinstance(row, ProblemError) else _tried(partial(self._body, row, line))
        else:
            for line, text in enumerate(data.removesuffix(b"\n").split(b"\n"), 1):
                yield line, _tried(partial(_parsed, text))

    def _body(self, row: dict[str, str], line: int) -> RegistryRecord:
        faults = damage_faults(row, line, ("serial", "model", "calibre"))
        if faults:
            raise ProblemError("registry.csv", f"line {line} is damaged", errors=faults)
        words = {name: row[name] for name in Texts.model_fields if row.get(name)}
        weapon = weapon_of(validate_model(Texts, words, f"line {line}", f"/{line}"))
        body = {name: row[name] for name in REQUIRED[:4]} | {"owner": self._office, "weapon": weapon}
        return validate_model(RegistryRecord, body, "registry.record", f"/{line}")


def _tried(read: Callable[[], RegistryRecord]) -> RegistryRecord | ProblemError:
    try:
        return read()
    except ProblemError as problem:
        return problem


def _parsed(text: bytes) -> RegistryRecord:
    return validate_model(RegistryRecord, parse_object(text, bytes_max=_LINE_BYTES_MAX), "registry.record")


def _audience(handling: Handling) -> tuple[str, ...] | None:
    """Who may be told of a record: REGISTRY_MATCH_ONLY lets a match be told, `onward` named lets named members, silence nobody."""
    if handling.named_recipients:
        return handling.named_recipients
    return None if "REGISTRY_MATCH_ONLY" in handling.codes else ()


def _fits(question: Gun, key: str) -> bool:
    if not question.serial_k1:
        return bool(key) and matches(question.pattern, key)
    asked, held = search_keys(question.serial_k1), search_keys(key)
    return bool(key) and (asked.k2 == held.k2 or asked.no_zeros == held.no_zeros)


def record_of(body: RegistryRecord, owner: str, batch: UUID | None, *, said: datetime) -> Record:
    """A shared record with its search keys: the first serial that was read whole is its own, those of other components beside it."""
    question, whole = asked_gun(body.weapon), dict[str, None]()
    for mark in body.weapon.serial_marks():
        bare = (mark.pattern or "").removeprefix("^").removesuffix("$")
        if mark.status.code in ("LEGIBLE", "RESTORED") and not mark.alternatives and bare.isalnum():
            whole[bare] = None
    keys = tuple(whole)[:TEXTS_MAX]
    gun = Gun(
        ref=body.record_ref, serial_k1=keys[0] if keys else "", make=question.make, model=question.model,
        calibre=question.calibre, weapon_type=question.weapon_type,
    )  # fmt: skip
    serial = next((mark.text_raw for mark in body.weapon.serial_marks()), "")
    details = body.model_dump(mode="json", exclude_none=True, exclude_unset=True)
    return Record(
        gun=gun, serial=serial, make=body.weapon.make.raw, details=details, owner=owner, status=body.status,
        until=date.fromisoformat(body.retention_until), others=keys[1:], batch=batch, said=said,
    )  # fmt: skip


def sought(search: RegistrySearch) -> Gun:
    """The weapon of a search as a question to the register."""
    weapon = search.weapon
    bare = weapon.serial.removeprefix("^").removesuffix("$")
    whole = bare.isalnum() and weapon.serial.startswith("^") and weapon.serial.endswith("$")
    return Gun(
        serial_k1=k1(bare) if whole else "", pattern="" if whole else weapon.serial, make=weapon.make.code if weapon.make else "",
        calibre=weapon.calibre.code if weapon.calibre else "", weapon_type=weapon.type.code if weapon.type else "UNKNOWN",
    )  # fmt: skip


def gun_with(gun: Gun, serial: str) -> Gun:
    """The gun under the serial of another of its components."""
    return Gun(
        ref=gun.ref, serial_k1=serial, make=gun.make, model=gun.model, calibre=gun.calibre, weapon_type=gun.weapon_type
    )


def _basis(question: Gun, record: Record) -> str:
    if not question.serial_k1:
        return "PARTIAL"
    if question.serial_k1 == record.gun.serial_k1:
        return "EXACT"
    return "COMPONENT" if question.serial_k1 in record.others else "CONFUSABLE"


def _ordered(value: Any) -> Any:
    """The same with the members of every object in alphabetical order, however a database keeps them."""
    if isinstance(value, list):
        return [_ordered(each) for each in value]
    return {name: _ordered(value[name]) for name in sorted(value)} if isinstance(value, dict) else value
