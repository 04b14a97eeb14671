"""Two people: what one asks for, another person of another client approves first; each step is an `admin` entry.

One mechanism for whatever needs it: the request is refused with `approval.needed` until somebody else has approved exactly
that, and is then sent again; the change that it makes uses the approval up, and an entry names both.
"""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any, Literal
from uuid import UUID

import structlog

from gateway.services.changes import Approval, Noted
from gateway.services.commit import Committer, Done
from gateway.services.content import open_row, sealed_row
from gateway.services.policy import permit_reading
from gateway.services.prove import Prove
from protocols.exchange.message import SALT_BYTES
from protocols.ledger.entry import NONCE_BYTES, Entry, actor_commitment, content_commitment
from protocols.limits import APPROVAL_DAYS, APPROVALS_OPEN_MAX, REQUEST_BYTES_MAX
from protocols.ports.access import Caller
from protocols.ports.crypto import Sealer, Vault
from protocols.ports.people import ApprovalStore
from protocols.ports.rows import ApprovalRow
from protocols.ports.store import ThreadStore
from protocols.ports.world import Clock, Ids
from protocols.problems import Fault, ProblemError
from protocols.strict import b64u, dump_json, format_time, parse_object, unb64u

_log = structlog.get_logger()
Act = Literal["registry.search", "registry.lookup", "registry.hit", "thread.read", "content.erase"]
"""Search another member's register by very little; our own; read a record whole that a search has found, a thread as an auditor; erase."""
Ruling = Literal["APPROVED", "REFUSED"]
_PART = "about"  # under which the content of a request that waits is kept, with the salt of its commitments


class Approve:
    """Asks for a second person, and takes what that person says."""

    def __init__(
        self,
        *,
        member: str,
        store: ApprovalStore,
        threads: ThreadStore,
        committer: Committer,
        prove: Prove,
        vault: Vault,
        sealer: Sealer,
        clock: Clock,
        ids: Ids,
    ) -> None:
        self._member, self._store, self._threads, self._committer = member, store, threads, committer
        self._prove, self._vault, self._sealer, self._clock, self._ids = prove, vault, sealer, clock, ids
        self._asking = asyncio.Lock()  # two equal requests at once ask once

    async def require(self, act: Act, caller: Caller, about: Mapping[str, Any]) -> UUID:
        """The approval of exactly this, for the change that uses it up.

        `approval.needed` with its id while nobody has ruled, `approval.refused` where somebody said no, `approval.many`;
        `approval.unproven`.
        """
        async with self._asking:
            row = await self._asked(act, caller, about) or await self._ask(act, caller, about)
        if row.ruling == "REFUSED":
            raise ProblemError("approval.refused", f"approval {row.id}")
        if row.ruling != "APPROVED":
            what = f"approval {row.id} waits for a second person"
            fix = f"Have another person of another client run `tracewire approve NODE {row.id}`, then send the same request again."
            raise ProblemError("approval.needed", what, errors=[Fault("", "approval.needed", what, fix)])
        await self.agreed(row.id, used=False)
        return row.id

    async def agreed(self, approval: UUID, *, used: bool = True) -> tuple[dict[str, Any], bytes]:
        """What two people want, by what our ledger proves: a row of the database is nobody's word. And the salt of its commitments.

        `approval.unproven` where no entries say so, or one that somebody refused, or that it was used, unless it may be `used`; or
        where it never was and its time is over.
        """
        content = await self._content(await self._row(approval))
        salt, about = unb64u(content["salt"]), content["about"]
        wanted = content_commitment(salt, dump_json(about))
        entries = {entry.code: entry for entry in await self._prove.about([approval], "admin")}
        asked, approved = entries.get("approval.asked"), entries.get("approval.approved")
        once = "approval.used" in entries
        if (
            asked is None or approved is None or "approval.refused" in entries or asked.actor_c == approved.actor_c
            or not asked.content_c == approved.content_c == wanted
            or (once and not used) or (not once and asked.at < self._since())
        ):  # fmt: skip
            _log.error("approval_unproven", id=str(approval))
            raise ProblemError("approval.unproven", f"approval {approval}")
        return about, salt

    async def look(self, approval: UUID, caller: Caller, what: str) -> None:
        """Notes that the caller reads what was approved: before it is shown."""
        row = await self._row(approval)
        await self._committer.commit(Noted(entry=self._looked(row, await self._content(row), caller, what)))

    async def spend(self, approval: UUID) -> None:
        """Uses an approval up for what makes no message of its own; `approval.needed` where somebody was faster."""
        nonce = self._sealer.random(NONCE_BYTES)
        await self._committer.commit(
            Noted(
                entry=Entry(kind="admin", at=self._clock.now(), n=nonce, id=approval, code="approval.used"), uses=True
            )
        )

    async def rule(self, id_: UUID, caller: Caller, ruling: Ruling) -> ApprovalRow:
        """Approves or refuses; the same again changes nothing.

        `approval.not_found`, `approval.self` for whoever asked (client or actor), `approval.ruled` where it was ruled otherwise.
        """
        row = await self._store.approval(id_)
        if row is None or row.asked < self._since():
            raise ProblemError("approval.not_found", f"nothing of the last {APPROVAL_DAYS} days waits under this id")
        if caller.client == row.client or caller.actor == row.actor:
            raise ProblemError("approval.self", "the client or the actor is the one who asked")
        if not row.ruling:
            ruled = replace(
                row, ruling=ruling, ruled_client=caller.client, ruled_actor=caller.actor, ruled=self._clock.now()
            )
            change = Approval(entry=self._entry(ruled, await self._content(row), caller, ruling.lower()), row=ruled)
            if isinstance(await self._committer.commit(change), Done):
                return ruled
            row = await self._store.approval(id_) or row  # somebody else was faster
        if row.ruling != ruling:
            raise ProblemError("approval.ruled", f"it was {row.ruling.lower()} before")
        return row

    async def waiting(self, after: tuple[datetime, UUID] | None, count: int) -> list[ApprovalRow]:
        """What waits for a second person, oldest first."""
        return await self._store.waiting(self._since(), after=after, count=count)

    async def read(self, rows: Sequence[ApprovalRow], caller: Caller) -> list[dict[str, Any]]:
        """The whole of what is asked: that the caller reads it is an `opened` entry of each, before it is shown. `auth.purpose`."""
        permit_reading(caller)
        found = []
        for row in rows:
            try:
                found.append((row, await self._content(row)))
            except ProblemError as problem:
                _log_unreadable(row, problem)
        looks = [self._looked(row, content, caller, "approval") for row, content in found]
        await asyncio.gather(*[self._committer.enqueue(Noted(entry=entry)) for entry in looks])
        return [shown(row) | {"about": content["about"]} for row, content in found]

    async def _asked(self, act: Act, caller: Caller, about: Mapping[str, Any]) -> ApprovalRow | None:
        """What this caller asked before in the same words and has not used: found by opening what it asked."""
        rows = await self._store.asked(caller.client, caller.actor, since=self._since(), count=APPROVALS_OPEN_MAX)
        for row in rows:
            try:
                if row.act == act and (await self._content(row))["about"] == about:
                    return row
            except ProblemError as problem:
                _log_unreadable(row, problem)
        if len(rows) == APPROVALS_OPEN_MAX:
            raise ProblemError("approval.many", f"{APPROVALS_OPEN_MAX} approvals of this client and actor are open")
        return None

    async def _row(self, approval: UUID) -> ApprovalRow:
        row = await self._store.approval(approval)
        if row is None:
            raise ProblemError("approval.not_found", "no such approval")
        return row

    async def _content(self, row: ApprovalRow) -> dict[str, Any]:
        rows = [each for each in await self._threads.content(self._member, row.id) if each.part == _PART]
        if not rows:
            raise ProblemError("content.erased", "what was asked is gone")
        return parse_object(open_row(self._vault, rows[0]), bytes_max=2 * REQUEST_BYTES_MAX)

    async def _ask(self, act: Act, caller: Caller, about: Mapping[str, Any]) -> ApprovalRow:
        id_, content = self._ids.uuid7(), {"salt": b64u(self._sealer.random(SALT_BYTES)), "about": about}
        row = ApprovalRow(id=id_, act=act, client=caller.client, actor=caller.actor, asked=self._clock.now())
        kept = sealed_row(self._vault, self._member, id_, _PART, dump_json(content), thread=id_)
        await self._committer.commit(
            Approval(entry=self._entry(row, content, caller, "asked"), row=row, content=(kept,))
        )
        return row

    def _entry(self, row: ApprovalRow, content: Mapping[str, Any], caller: Caller, step: str) -> Entry:
        """Who did what: both commitments under the salt of the approval, so that its entries can be opened together."""
        salt, about = unb64u(content["salt"]), dump_json(content["about"])
        return Entry(
            kind="admin", at=self._clock.now(), n=self._sealer.random(NONCE_BYTES), id=row.id, code=f"approval.{step}",
            content_c=content_commitment(salt, about), actor_c=actor_commitment(salt, caller.actor),
        )  # fmt: skip

    def _looked(self, row: ApprovalRow, content: Mapping[str, Any], caller: Caller, what: str) -> Entry:
        entry, code = self._entry(row, content, caller, "read"), f"{what}/{caller.purpose}"
        return replace(entry, kind="opened", sender=self._member, recipient=self._member, code=code)

    def _since(self) -> datetime:
        return self._clock.now() - timedelta(days=APPROVAL_DAYS)


def _log_unreadable(row: ApprovalRow, problem: ProblemError) -> None:
    """One of which nothing is left, or that somebody wrote by hand, is in nobody's way."""
    if problem.code != "content.erased":
        raise problem
    _log.error("approval_unreadable", id=str(row.id))


def shown(row: ApprovalRow) -> dict[str, Any]:
    """Who asked, and what was ruled, as the interface shows it."""
    found = {
        "id": str(row.id),
        "act": row.act,
        "client": row.client,
        "actor": row.actor,
        "asked": format_time(row.asked),
    }
    return found | ({"ruling": row.ruling} if row.ruling else {})
