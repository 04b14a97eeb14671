"""Records that members share: import, withdraw, search, confirm, reconcile."""

from typing import Any

from aiohttp import web

from gateway.http.derived import Found, Imported, Totals, Withdrawn
from gateway.http.documents import Lookup, Query, RecordNamed
from gateway.http.openapi import Asked, Operation
from gateway.http.serve import json_response, read_body
from gateway.services.records import CSV, NDJSON, Records
from protocols.limits import SUBMISSIONS_BYTES_MAX
from protocols.messages.registry import RegistryRecord
from protocols.messages.shared import Maybe, MemberName

APPROVED = ("approval.needed", "approval.refused", "approval.unproven", "approval.many")


class TotalsQuery(Query):
    """Whose records; our own without one."""

    owner: Maybe[MemberName] = None


class SharedRecords:
    """The operations; what the same bytes do twice is done once, so no key is needed."""

    def __init__(self, records: Records) -> None:
        self._records = records

    def operations(self) -> tuple[Operation, ...]:
        """Five routes below `/v1/registry`."""
        posts: dict[str, Any] = {"method": "POST", "scope": "trace:write"}
        return (
            Operation(
                path="/v1/registry/imports", call=self.post_records, body=RegistryRecord, media=(NDJSON, CSV), reads=False,
                answer=Imported, problems=("registry.csv",), **posts,
            ),
            Operation(
                path="/v1/registry/imports/{batch}/withdrawal", call=self.post_records_withdrawal, answer=Withdrawn,
                problems=("registry.not_found",), **posts,
            ),
            Operation(
                path="/v1/registry/searches", call=self.post_lookup, body=Lookup, answer=Found, problems=APPROVED, **posts,
            ),
            Operation(
                path="/v1/registry/confirmations", call=self.post_confirmation, body=RecordNamed, answer=RegistryRecord,
                problems=("registry.not_found", "auth.purpose", *APPROVED), **posts,
            ),
            Operation(
                method="GET", path="/v1/registry/totals", scope="trace:read", call=self.get_totals, query=TotalsQuery, answer=Totals,
            ),
        )  # fmt: skip

    async def post_records(self, request: web.Request, asked: Asked) -> web.Response:
        """Import up to 10,000 records of lost, stolen, trafficked, smuggled or seized weapons: a result for each line.

        CSV with `record_ref,status,event_date,retention_until,serial,make` and what else is known, or NDJSON of `registry.record`
        bodies. Again with the same references: replaced, or unchanged. A line that is wrong is refused alone, with its repair.
        """
        del asked
        media = request.content_type if request.content_type == CSV else NDJSON
        data = await read_body(request, bytes_max=SUBMISSIONS_BYTES_MAX, media_type=media)
        return json_response(await self._records.take(data, media))

    async def post_records_withdrawal(self, request: web.Request, asked: Asked) -> web.Response:
        """Withdraw a whole import: every record that it brought and no later one replaced."""
        del asked
        return json_response({"withdrawn": await self._records.withdraw(request.match_info["batch"])})

    async def post_lookup(self, request: web.Request, asked: Asked) -> web.Response:
        """Search the records that members share with this node, by whole, confusable, partial or component serial.

        Fewer than four known characters need a second person. A hit names owner and reference, nothing else.
        """
        del request
        return json_response({"hits": await self._records.search(asked.body, asked.caller)})

    async def post_confirmation(self, request: web.Request, asked: Asked) -> web.Response:
        """Read a record whole that a search has found, once a second person has confirmed the hit."""
        del request
        named: RecordNamed = asked.body
        return json_response(await self._records.whole(named.owner, named.record_ref, asked.caller))

    async def get_totals(self, request: web.Request, asked: Asked) -> web.Response:
        """Count the live records of an owner, with the root over them: its owner asks its own node the same, and compares."""
        del request
        query: TotalsQuery = asked.query
        return json_response(await self._records.totals(query.owner))
