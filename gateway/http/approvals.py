"""The second person's part of `/v1`: what waits, and the ruling."""

from uuid import UUID

from aiohttp import web

from gateway.http.documents import Approval, Approvals, Cursor, PageQuery, Ruled
from gateway.http.openapi import Asked, Operation
from gateway.http.serve import json_response
from gateway.services.approve import Approve, shown
from protocols.ledger.entry import uuid7
from protocols.problems import ProblemError


class Rulings:
    """The operations of whoever approves."""

    def __init__(self, approve: Approve) -> None:
        self._approve = approve

    def operations(self) -> tuple[Operation, ...]:
        """Two: read what waits, and rule."""
        scope = "approval:rule"
        return (
            Operation(
                method="GET", path="/v1/approvals", scope=scope, call=self.get_approvals, query=PageQuery, answer=Approvals,
                problems=("auth.purpose",),
            ),
            Operation(
                method="POST", path="/v1/approvals/{approval}", scope=scope, call=self.post_approval, body=Ruled, answer=Approval,
                problems=("approval.not_found", "approval.self", "approval.ruled"),
            ),
        )  # fmt: skip

    async def get_approvals(self, request: web.Request, asked: Asked) -> web.Response:
        """List what waits for a second person, oldest first, each with the whole of what is asked: an `opened` entry says that you read it."""
        del request
        query: PageQuery = asked.query
        rows = await self._approve.waiting(query.after, query.limit)
        following = {"next": str(Cursor(rows[-1].asked, rows[-1].id))} if len(rows) == query.limit else {}
        return json_response({"approvals": await self._approve.read(rows, asked.caller), **following})

    async def post_approval(self, request: web.Request, asked: Asked) -> web.Response:
        """Approve or refuse what another person of another client asked; an entry of the ledger says so.

        Whoever asked then sends the same request again. The same ruling again changes nothing, so no key is needed.
        """
        ruled: Ruled = asked.body
        row = await self._approve.rule(_id(request), asked.caller, ruled.ruling)
        return json_response(shown(row))


def _id(request: web.Request) -> UUID:
    try:
        return uuid7(request.match_info["approval"])
    except ProblemError:
        raise ProblemError("approval.not_found", "not the id of an approval") from None
